//! What a member of an ensemble is started with beyond a standalone server: the protocol's settings and the history
//! that its disk holds.

use super::start_error::StartError;
use crate::{
    config::EnsembleSettings,
    links::LinkError,
    storage::{
        DataDirs,
        epochs::{self, EpochFile},
        recovery::Recovered,
    },
};
use std::{fs, io};
use zkfast_wire::Zxid;
use zkfast_zab::{Config, Recovered as History, Tail};

/// The protocol's settings.
pub(super) fn protocol(settings: &EnsembleSettings) -> Config {
    let mut config = Config::new(settings.me, settings.ensemble.clone());
    config.tick_ms = settings.tick_ms.into();
    config.init_limit_ticks = settings.init_limit_ticks.into();
    config.connect_limit_ticks = settings.connect_limit_ticks.into();
    config.sync_limit_ticks = settings.sync_limit_ticks.into();
    config.notification_interval_ms_min = settings.notification_interval_ms_min.into();
    config.notification_interval_ms_max = settings.notification_interval_ms_max.into();
    config.dial_retry_ms = settings.dial_retry_ms.into();
    config.first_counter = settings.first_counter + 1;
    config.image_transfers_max = settings.image_transfers_max as usize;
    config.history_transfers_max = settings.history_transfers_max as usize;
    config.force_snapshot = settings.force_snapshot;
    // `ZKDatabase` takes no less.
    config.diff_records_max = u64::from(settings.commit_log_count).max(500);
    config
}

/// What the disk holds, as the protocol sees it (P31, Q71).
pub(super) fn history(recovered: &Recovered, dirs: &DataDirs) -> Result<History, epochs::EpochError> {
    let zxids = recovered.history.iter().flat_map(|(first, last)| (first.0..=last.0).map(Zxid));
    let tail = Tail::with_records(recovered.floor, zxids);
    assert!(tail.appended() == recovered.last, "{} recovered, {} told", recovered.last, tail.appended());
    Ok(History {
        tail,
        accepted_epoch: epochs::read(&dirs.snapshots, EpochFile::Accepted)?,
        current_epoch: epochs::read(&dirs.snapshots, EpochFile::Current)?,
    })
}

/// The log files as far as they are there: the zxid before the first record of each, and its bytes. Oldest first.
pub(super) fn log_files(dirs: &DataDirs) -> io::Result<Vec<(Zxid, u64)>> {
    let logs = dirs.logs()?;
    logs.iter().map(|log| Ok((Zxid(log.zxid.0 - 1), fs::metadata(&log.path)?.len()))).collect()
}

/// A port for the others that cannot be had, and the like.
pub(super) fn refused(error: &LinkError) -> StartError {
    match error {
        LinkError::Bind { .. } => StartError::quorum_port(error.to_string(), error.cure()),
        LinkError::NotAMember(_) | LinkError::Poll(_) => StartError::new(error.to_string(), error.cure()),
    }
}
