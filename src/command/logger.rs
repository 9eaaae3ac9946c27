//! Log lines on standard error, written by a thread of their own.
//!
//! A core that logs must never wait for a terminal or a pipe that nobody reads: its line goes into a bounded queue, and
//! when that is full it is dropped and counted. Lines of level error are different: whoever logs one waits (for a
//! second at most) until it is out, because the process may be about to end.
//!
//! The shape is Apache's: `2026-11-22 15:47:04,123 [myid:1] - INFO  [thread:room] - text` (row O120). `ZKFAST_LOG`
//! chooses the least level: error, warn, info (default), debug or trace.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::start_error::StartError;
use crate::config::limits;
use crate::status::calendar::Civil;

/// How long an error line, or a flush, may wait for standard error.
const PATIENCE: Duration = Duration::from_secs(1);

enum Message {
    Line(String),
    /// Answered when all before it is written.
    Flush(Sender<()>),
}

struct Logger {
    lines: Sender<Message>,
    dropped: &'static AtomicU64,
    my_id: String,
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Starts the writing thread and takes all `log` lines of the process from here on. Call it once.
///
/// # Errors
/// No thread can be had, or it was called before.
pub fn start(my_id: Option<i64>) -> Result<(), StartError> {
    let failed =
        |error: &dyn std::fmt::Display| StartError::new(format!("cannot start logging: {error}"), "");
    let (lines, queue) = bounded(limits::LOG_LINES);
    thread::Builder::new()
        .name("log-lines".to_owned())
        .spawn(move || write_lines(&queue, io::stderr()))
        .map_err(|error| failed(&error))?;
    let my_id = my_id.map_or(String::new(), |id| id.to_string());
    let logger = Box::leak(Box::new(Logger { lines, dropped: &DROPPED, my_id }));
    log::set_logger(logger).map_err(|error| failed(&error))?;
    let wanted = std::env::var("ZKFAST_LOG").ok();
    let level = level(wanted.as_deref());
    log::set_max_level(level.unwrap_or(LevelFilter::Info));
    if let (None, Some(wanted)) = (level, wanted) {
        log::warn!(
            "ZKFAST_LOG={wanted:?} is no level; info is used. Write error, warn, info, debug or trace."
        );
    }
    Ok(())
}

/// The level that `text` names, `None` for nonsense.
fn level(text: Option<&str>) -> Option<LevelFilter> {
    text.map_or(Some(LevelFilter::Info), |text| text.parse().ok())
}

/// Until all senders are gone.
fn write_lines(queue: &Receiver<Message>, mut out: impl Write) {
    for message in queue {
        // A standard error that is closed is no reason to stop a server.
        let dropped = DROPPED.swap(0, Relaxed);
        if dropped > 0 {
            let _ = writeln!(out, "... {dropped} log lines were dropped here: standard error is too slow");
        }
        match message {
            Message::Line(line) => {
                let _ = out.write_all(line.as_bytes());
            }
            Message::Flush(done) => {
                let _ = out.flush();
                let _ = done.try_send(());
            }
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries have to say below warnings is for their developers.
        metadata.level() <= Level::Warn || metadata.target().starts_with("zkfast")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format_line(SystemTime::now(), &self.my_id, record);
        if record.level() == Level::Error {
            if self.lines.send_timeout(Message::Line(line), PATIENCE).is_ok() {
                self.flush();
            }
        } else if let Err(TrySendError::Full(_)) = self.lines.try_send(Message::Line(line)) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    fn flush(&self) {
        let (done, finished) = bounded(1);
        if self.lines.send_timeout(Message::Flush(done), PATIENCE).is_ok() {
            let _ = finished.recv_timeout(PATIENCE);
        }
    }
}

fn format_line(now: SystemTime, my_id: &str, record: &Record<'_>) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let thread = thread::current();
    let room = record.target().rsplit("::").next().unwrap_or_default();
    format!(
        "{},{:03} [myid:{my_id}] - {:<5} [{}:{room}] - {}\n",
        Civil::of(since.as_secs() as i64),
        since.subsec_millis(),
        record.level(),
        thread.name().unwrap_or("unnamed"),
        record.args()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_line(my_id: &str, target: &str, level: Level) -> String {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_362_424_007);
        let build = |args| {
            format_line(time, my_id, &Record::builder().args(args).target(target).level(level).build())
        };
        build(format_args!("text"))
    }

    #[test]
    fn lines_have_apache_s_shape() {
        let line = record_line("1", "zkfast::edge::handshake", Level::Info);
        let (start, end) = line.split_once('[').expect("brackets");
        assert_eq!(start, "2026-11-22 15:47:04,007 ");
        assert!(end.starts_with("myid:1] - INFO  [") && end.ends_with(":handshake] - text\n"), "{line}");
    }

    #[test]
    fn a_reader_that_is_too_slow_costs_lines_and_never_a_wait() {
        let (lines, queue) = bounded(2);
        static LOST: AtomicU64 = AtomicU64::new(0);
        let logger = Logger { lines, dropped: &LOST, my_id: String::new() };
        for _ in 0..5 {
            logger
                .log(&Record::builder().args(format_args!("x")).target("zkfast").level(Level::Warn).build());
        }
        assert_eq!(LOST.load(Relaxed), 3);
        drop(logger);
        let mut out = Vec::new();
        write_lines(&queue, &mut out);
        assert_eq!(String::from_utf8(out).expect("text").matches("- x\n").count(), 2);
    }

    #[test]
    fn an_error_line_is_out_before_its_writer_goes_on() {
        let (lines, queue) = bounded(2);
        let written = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        struct Shared(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("lock").extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let out = Shared(std::sync::Arc::clone(&written));
        let writer = thread::spawn(move || write_lines(&queue, out));
        let logger = Logger { lines, dropped: &DROPPED, my_id: String::new() };
        logger.log(
            &Record::builder().args(format_args!("last words")).target("zkfast").level(Level::Error).build(),
        );
        assert!(String::from_utf8_lossy(&written.lock().expect("lock")).contains("last words"));
        drop(logger);
        writer.join().expect("writer");
    }

    #[test]
    fn the_level_can_be_chosen() {
        assert_eq!(level(None), Some(LevelFilter::Info));
        assert_eq!(level(Some("debug")), Some(LevelFilter::Debug));
        assert_eq!(level(Some("nonsense")), None);
    }
}
