//! Where every core's counters hang, for whoever is asked how the server is.
//!
//! Made once at start and shared by all cores. Its locks guard the marks of `srst` and the role, and are
//! taken by status commands and once a tick, never on the request path.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use zkfast_wire::{ServerId, Zxid};

use super::counters::{CoreCounters, PipelineCounters};
use super::environment;
use super::four_letter::Word;
use super::picture::{Mode, Picture, QuorumPicture, Settings, StartPicture, Totals};
use crate::config::ZooCfg;

/// Apache's trace mask at start: client requests, sessions, session ends and warnings (row O87).
const DEFAULT_TRACE_MASK: i64 = 306;

/// The counters of all cores, and the facts that do not change while the server runs.
#[derive(Debug)]
pub struct Board {
    cores: Vec<Arc<CoreCounters>>,
    pipeline: Arc<PipelineCounters>,
    settings: Settings,
    started: Instant,
    serving: AtomicBool,
    start: OnceLock<StartPicture>,
    trace_mask: AtomicI64,
    /// The role in an ensemble, shown by the pipeline once a tick and when it changes.
    quorum: Mutex<Option<(Mode, QuorumPicture)>>,
    /// What had been counted at the last `srst`.
    marks: Mutex<Totals>,
}

impl Board {
    /// A board for `client_cores` cores. `client_port` is the port that is really bound. Not serving yet.
    pub fn new(client_cores: usize, cfg: &ZooCfg, client_port: u16) -> Self {
        let absolute = |dir: &Path| std::path::absolute(dir).unwrap_or(dir.to_path_buf()).join("version-2");
        Self {
            cores: (0..client_cores).map(|_| Arc::default()).collect(),
            pipeline: Arc::default(),
            settings: Settings {
                client_port: client_port.into(),
                data_dir: absolute(&cfg.data_dir),
                data_log_dir: absolute(&cfg.data_log_dir),
                tick_ms: cfg.tick_ms,
                connections_per_host_limit: cfg.connections_per_host_limit,
                session_timeout_ms_min: cfg.session_timeout_ms_min,
                session_timeout_ms_max: cfg.session_timeout_ms_max,
                client_listen_backlog: cfg.client_listen_backlog,
                server_id: if cfg.is_distributed() { cfg.server_id.unwrap_or_default() } else { ServerId(0) },
            },
            started: Instant::now(),
            serving: AtomicBool::new(false),
            start: OnceLock::new(),
            trace_mask: AtomicI64::new(DEFAULT_TRACE_MASK),
            quorum: Mutex::default(),
            marks: Mutex::default(),
        }
    }

    /// The counters of client core `index`, for that core to write.
    pub fn core(&self, index: usize) -> Arc<CoreCounters> {
        Arc::clone(&self.cores[index])
    }

    /// The counters of the pipeline core, for that core to write.
    pub fn pipeline(&self) -> Arc<PipelineCounters> {
        Arc::clone(&self.pipeline)
    }

    /// Says whether clients are served now.
    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Relaxed);
    }

    /// Are clients served now?
    pub fn is_serving(&self) -> bool {
        self.serving.load(Relaxed)
    }

    /// Tells what it took to load the state; of several times the first.
    pub fn set_start(&self, start: StartPicture) {
        let _ = self.start.set(start);
    }

    /// Keeps what `stmk` says (row O87).
    pub fn set_trace_mask(&self, mask: i64) {
        self.trace_mask.store(mask, Relaxed);
    }

    /// Shows the role of a member of an ensemble.
    pub fn set_quorum(&self, mode: Mode, picture: QuorumPicture) {
        *self.quorum.lock().unwrap_or_else(PoisonError::into_inner) = Some((mode, picture));
    }

    /// The numbers that `word` prints. Lists stay empty (see [`Word::needs`]).
    pub fn picture(&self, word: Word) -> Picture {
        let sum = |gauge: fn(&CoreCounters) -> u64| self.cores.iter().map(|core| gauge(core)).sum();
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let directory_bytes = match word {
            Word::Conf | Word::Dirs => (
                environment::directory_bytes(&self.settings.data_dir),
                environment::directory_bytes(&self.settings.data_log_dir),
            ),
            _ => (0, 0),
        };
        let quorum = self.quorum.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Picture {
            serving: self.is_serving(),
            mode: quorum.as_ref().map_or(Mode::Standalone, |(mode, _)| *mode),
            quorum: quorum.map(|(_, picture)| picture),
            last_zxid: Zxid(self.pipeline.last_applied.get() as i64),
            znodes: self.pipeline.znodes.get(),
            ephemerals: self.pipeline.ephemerals.get(),
            data_bytes: self.pipeline.data_bytes.get(),
            sessions: self.pipeline.sessions.get(),
            local_sessions: self.pipeline.local_sessions.get(),
            log_space_low: self.pipeline.log_space_low.get(),
            connections_open: sum(|core| core.connections.get()),
            outstanding: sum(|core| core.outstanding.get()),
            watches_set: sum(|core| core.watches.get()),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            files: match word {
                Word::Mntr => (environment::open_files(), environment::max_files()),
                _ => (0, 0),
            },
            totals: Totals::read(self.cores.iter().map(AsRef::as_ref), &self.pipeline).since(&marks),
            response_bytes: sizes(self.cores.iter().map(|core| core.response_bytes.read())),
            record_bytes: self.pipeline.record_bytes.read(),
            settings: self.settings.clone(),
            start: self.start.get().copied(),
            directory_bytes,
            trace_mask: self.trace_mask.load(Relaxed),
            ..Picture::default()
        }
    }

    /// `srst`: counts from here on (row O78).
    pub fn reset(&self) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        *marks = Totals::read(self.cores.iter().map(AsRef::as_ref), &self.pipeline);
        for core in &self.cores {
            core.read_latency.reset_extremes();
            core.update_latency.reset_extremes();
            core.response_bytes.reset();
        }
        self.pipeline.flush_latency.reset_extremes();
        self.pipeline.flush_records.reset_extremes();
        self.pipeline.snapshot_latency.reset_extremes();
        self.pipeline.latencies().iter().for_each(|latency| latency.reset_extremes());
        self.pipeline.record_bytes.reset();
    }
}

/// Last, least and greatest of all cores; which core was last is not known, so any that has one speaks.
fn sizes(cores: impl Iterator<Item = [i64; 3]>) -> [i64; 3] {
    cores.fold([-1; 3], |all, one| match (all, one) {
        (all, [-1, ..]) => all,
        ([-1, ..], one) => one,
        ([_, min, max], [last, other_min, other_max]) => [last, min.min(other_min), max.max(other_max)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JavaFlags;

    fn board(cores: usize) -> Board {
        let cfg = ZooCfg::standalone(Path::new("/nowhere"), 0, &JavaFlags::default()).expect("defaults");
        Board::new(cores, &cfg, 2181)
    }

    #[test]
    fn cores_add_up_and_srst_starts_anew() {
        let board = board(2);
        for (index, latency_ns) in [(0, 1_000_000), (1, 3_000_000)] {
            let core = board.core(index);
            core.packets_received.add(10);
            core.connections.set(4);
            core.read_latency.record(latency_ns);
            core.response_bytes.note(latency_ns / 1000);
        }
        board.pipeline().committed.add(5);
        board.pipeline().last_applied.set(0x1_0000_0007);
        let before = board.picture(Word::Srvr);
        assert_eq!((before.totals.received(), before.connections_open), (20, 8));
        assert_eq!(before.last_zxid, Zxid(0x1_0000_0007));
        let latency = before.totals.latency();
        assert_eq!((latency.count(), latency.min(), latency.max()), (2, 1_000_000, 3_000_000));
        assert_eq!(before.response_bytes[1..], [1000, 3000]);
        assert!(before.totals.counters().any(|counter| counter == ("commit_count", 5)));
        board.reset();
        board.core(0).packets_received.add(1);
        let after = board.picture(Word::Srvr);
        assert_eq!(
            (after.totals.received(), after.totals.latency().count(), after.connections_open),
            (1, 0, 8)
        );
        assert_eq!(after.response_bytes, [-1; 3]);
    }
}
