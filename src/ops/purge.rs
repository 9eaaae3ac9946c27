//! `autopurge.*`: removes old snapshots and logs at the start and then every `autopurge.purgeInterval` hours (rows O27,
//! O123). What may go is `storage::purge`'s to decide.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::ZooCfg;
use crate::storage::data_dirs::DataDirs;
use crate::storage::purge::{PurgeMark, purge};

/// A helper that purges now and then. Dropped, it stops; a purge that is under way is awaited.
#[derive(Debug)]
pub struct Purging {
    /// Dropping it is the order to stop.
    stop: Option<Sender<()>>,
    helper: Option<JoinHandle<()>>,
}

/// Starts purging as `cfg` says. `None` if `autopurge.purgeInterval` is 0.
///
/// # Errors
/// No thread can be had.
pub fn start(cfg: &ZooCfg, dirs: &DataDirs, mark: Arc<PurgeMark>) -> io::Result<Option<Purging>> {
    if cfg.purge_interval_hours == 0 {
        return Ok(None);
    }
    let interval = Duration::from_secs(u64::from(cfg.purge_interval_hours) * 3600);
    let (dirs, kept) = (dirs.clone(), cfg.purge_retain_count as usize);
    every(interval, move || purge_once(&dirs, kept, &mark)).map(Some)
}

/// One purge, told in the log. A failure costs disk space and nothing else, so the service goes on.
fn purge_once(dirs: &DataDirs, kept: usize, mark: &PurgeMark) {
    match purge(dirs, kept, mark) {
        Ok(purged) => {
            for invalid in &purged.invalid {
                log::warn!("purge: {} is no valid snapshot and does not count; it stays", invalid.display());
            }
            for removed in &purged.removed {
                log::info!("purge: removed {}", removed.display());
            }
            log::info!("purge: {} files removed, {kept} snapshots and their logs kept", purged.removed.len());
        }
        Err(error) => log::error!("purge: {error}. It is tried again at the next interval."),
    }
}

/// Runs `act` now and then every `interval`, on a thread of its own.
fn every(interval: Duration, mut act: impl FnMut() + Send + 'static) -> io::Result<Purging> {
    let (stop, stopped) = mpsc::channel::<()>();
    let helper = thread::Builder::new().name("purge".to_owned()).spawn(move || {
        loop {
            act();
            if stopped.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    })?;
    Ok(Purging { stop: Some(stop), helper: Some(helper) })
}

impl Drop for Purging {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(helper) = self.helper.take()
            && helper.join().is_err()
        {
            log::error!("the purge thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JavaFlags;
    use std::path::Path;

    #[test]
    fn it_acts_at_once_then_at_intervals_and_stops_when_dropped() {
        let (acted, acts) = mpsc::channel();
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let purging = every(Duration::from_millis(1), move || {
            let _ = (&held, acted.send(()));
        });
        for _ in 0..3 {
            acts.recv().expect("acts again");
        }
        drop(purging);
        assert_eq!(Arc::strong_count(&alive), 1, "the thread is gone");
    }

    /// ZOOKEEPER-3231: nothing may go while there are too few good snapshots.
    #[test]
    fn an_interval_of_zero_is_off_and_an_empty_directory_stays_as_it_is() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let dirs = DataDirs::new(dir.path(), None);
        dirs.prepare(true).expect("directories");
        let parse = |line: &str| {
            let text = format!("dataDir={}\n{line}", dir.path().display());
            ZooCfg::parse(None, text.as_bytes(), &JavaFlags::default(), None).expect("good")
        };
        assert!(start(&parse(""), &dirs, Arc::default()).expect("no thread is needed").is_none());
        let stray = Path::new(&dirs.snapshots).join("snapshot.5");
        std::fs::write(&stray, "not a snapshot").expect("file");
        drop(start(&parse("autopurge.purgeInterval=1\n"), &dirs, Arc::default()).expect("thread"));
        assert!(stray.exists());
    }
}
