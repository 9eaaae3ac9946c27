//! Cutting the log, and taking an image over: the two ways in which a learner gives up history (rows Q53, P14; pitfalls
//! 2872, 3642, 1549, 3701).
//!
//! In both a crash at any point leaves the old state, or a prefix of it, never a mixture. Hence the order: snapshots
//! above the cut go before the log is cut; the log is cut before the new snapshot gets its name, and what is older goes
//! when it has it.

use super::{Pipeline, end_process, or_end};
use crate::{
    cores::messages::Delivery,
    links::{ImageEnd, ImageReader},
    pipeline::Duty,
    storage::{
        DataDirs, recovery, replay,
        snapshot::{self, ForeignImage, StoredImage},
    },
};
use std::{io::Read, time::Instant};
use zkfast_tree::{Tree, TreeConfig};
use zkfast_wire::Zxid;
use zkfast_zab::{Event, LinkId};

/// Bytes of an image read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// An image that is being read.
#[derive(Debug)]
pub(super) struct Installing {
    pub(super) link: LinkId,
    zxid: Zxid,
    begun: Instant,
}

/// What the thread that reads an image has in the end.
pub(super) struct Image {
    link: LinkId,
    outcome: Result<(StoredImage, Box<Tree>, ImageEnd), String>,
}

impl Pipeline {
    /// Cuts the log behind `zxid` and takes back what the tree shows beyond.
    pub(super) fn truncate(&mut self, zxid: Zxid) {
        assert!(self.duty == Duty::Idle, "clients must not see history vanish");
        if self.is_suspended() {
            self.end_suspension("what was replayed is cut off");
        }
        log::info!("cutting the log behind {zxid}, as the leader says; it ended at {}", self.node.appended());
        self.shut_log();
        let dirs = self.options.dirs.clone();
        or_end("a snapshot that must go cannot be removed", snapshot::remove_above(&dirs, zxid));
        or_end("the log cannot be cut", replay::truncate(&dirs, zxid));
        while self.pending.pop_back_if(|last| last.zxid > zxid).is_some() {}
        let member = self.the_member();
        member.window.truncate(zxid);
        member.depth.truncate(zxid);
        if self.tree.last_applied() > zxid {
            let options = &self.the_member().options;
            let recovered = recovery::recover(&dirs, &options.tree, &options.recovery);
            let recovered = or_end("the state before the cut cannot be rebuilt", recovered);
            assert!(recovered.last == zxid, "rebuilt to {}, not to {zxid}", recovered.last);
            self.pending.clear();
            self.adopt_tree(recovered.tree);
        }
        self.reopen_log(zxid);
        self.the_member().follow_up.push_front(Event::Truncated { zxid });
    }

    /// Everything appended reaches the disk, and its completion is dropped; then no file of the log is open.
    fn shut_log(&mut self) {
        loop {
            self.append_rest();
            or_end("the transaction log failed", self.log.flush());
            or_end("the transaction log failed", self.log.settle());
            if self.unappended.is_empty() {
                break;
            }
        }
        or_end("the transaction log failed", self.log.shut());
        // One that is being written may show what is cut off.
        self.snapshots.join();
    }

    fn reopen_log(&mut self, last: Zxid) {
        let member = self.member.as_mut().expect("a member");
        member.latency.forget_appended();
        let (config, wake) = (member.options.log.clone(), member.doorbell.wake_fd());
        or_end("the transaction log cannot be opened again", self.log.reopen(config, last, wake));
        assert!(self.log.appended() == last && self.log.durable() == last);
    }

    /// From here on `tree` is the state. Nobody is served, so the client cores only change what they will read through.
    fn adopt_tree(&mut self, tree: Tree) {
        self.tree = tree;
        let member = self.member.as_mut().expect("a member");
        member.viewed = self.tree.last_applied();
        for core in &mut self.cores {
            core.push_and_kick(Delivery::Tree(Box::new(self.tree.reader())));
        }
    }

    /// Begins to read the image that follows SNAP, on a thread of its own.
    pub(super) fn install(&mut self, link: LinkId, zxid: Zxid) {
        if self.is_suspended() {
            self.end_suspension("the leader sends an image");
        }
        let Some(reader) = self.links().take_image(link) else {
            // The link is down; its event is on the way.
            log::warn!("the link went down before its image began");
            return;
        };
        log::info!("reading an image of the state at {zxid} from the leader");
        let member = self.member.as_mut().expect("a member");
        member.installing = Some(Installing { link, zxid, begun: Instant::now() });
        let (dirs, config) = (self.options.dirs.clone(), member.options.tree.clone());
        let (report, waker) = (member.images.0.clone(), member.links.waker());
        let started = member.everywhere.spawn("image", move || {
            let outcome = read_image(reader, &dirs, config, zxid);
            // Nobody listens only if the server stops.
            let _ = report.send(Image { link, outcome });
            waker.wake();
        });
        if let Err(error) = started {
            end_process("no thread can be had to read an image", error);
        }
    }

    /// Takes an image over that was read to its end; whether there was any.
    pub(super) fn take_image(&mut self) -> bool {
        let Ok(Image { link, outcome }) = self.the_member().images.1.try_recv() else { return false };
        let Some(installing) = self.the_member().installing.take_if(|installing| installing.link == link)
        else {
            log::info!("an image that was read is dropped: its link is gone");
            return true;
        };
        match outcome {
            Ok((stored, tree, end)) => {
                self.adopt_image(&installing, stored, *tree);
                self.follow_up();
                self.links().resume(end);
            }
            // The links close what could not be read, and Down follows.
            Err(reason) => log::warn!("the leader's image of {} cannot be used: {reason}", installing.zxid),
        }
        true
    }

    fn adopt_image(&mut self, installing: &Installing, stored: StoredImage, tree: Tree) {
        assert!(self.duty == Duty::Idle, "clients must not see their state replaced");
        let zxid = installing.zxid;
        self.shut_log();
        let dirs = self.options.dirs.clone();
        or_end("the log cannot be cut", replay::truncate(&dirs, zxid));
        let bytes = stored.bytes;
        or_end("the leader's image cannot be taken over", stored.adopt(&dirs));
        or_end(
            "what the image takes the place of cannot be removed",
            snapshot::remove_superseded(&dirs, zxid),
        );
        self.pending.clear();
        let member = self.the_member();
        member.window.replace(zxid);
        member.depth.replace(zxid);
        self.adopt_tree(tree);
        self.reopen_log(zxid);
        self.snapshots.adopted(zxid, bytes);
        log::info!(
            "took the leader's image over: {} znodes at {zxid}, {} bytes, in {} ms",
            self.tree.node_count(),
            bytes,
            installing.begun.elapsed().as_millis()
        );
        self.the_member().follow_up.push_front(Event::Installed { zxid });
    }
}

/// Reads an image from a link into a temporary file, makes it durable and builds its tree.
fn read_image(
    mut reader: ImageReader,
    dirs: &DataDirs,
    config: TreeConfig,
    zxid: Zxid,
) -> Result<(StoredImage, Box<Tree>, ImageEnd), String> {
    let mut image = ForeignImage::begin(dirs, zxid, reader.link().0).map_err(|error| error.to_string())?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(bytes) => image.put(&piece[..bytes]).map_err(|error| error.to_string())?,
            Err(error) => return Err(error.to_string()),
        }
    }
    let end = reader.finish().map_err(|error| error.to_string())?;
    let stored = image.finish().map_err(|error| error.to_string())?;
    let tree = stored.load(config).map_err(|error| error.to_string())?;
    Ok((stored, Box::new(tree), end))
}

#[cfg(test)]
mod tests {
    use super::{
        super::fixture::{Fixture, author, write_record, zxid},
        snapshot,
    };
    use crate::storage::{
        recovery::{RecoveryOptions, recover},
        snapshot::SnapshotOptions,
    };
    use std::{fs, sync::mpsc::channel, time::Duration};
    use zkfast_tree::TreeConfig;
    use zkfast_wire::{Epoch, Zxid};
    use zkfast_zab::Effect;

    fn cut(fixture: &mut Fixture, zxid: Zxid) {
        fixture.pipeline.carry_out(&mut vec![Effect::Truncate { zxid }]);
    }

    fn check_cut(mut fixture: Fixture, last: u32) {
        assert_eq!(fixture.snapshots(), [Zxid::ZERO], "no snapshot of what was cut off stays");
        assert_eq!(fixture.pipeline.tree.last_applied(), zxid(last));
        assert_eq!(fixture.pipeline.log.appended(), zxid(last));
        fixture.pipeline.shut_log();
        let recovered =
            recover(&fixture.dirs, &TreeConfig::default(), &RecoveryOptions::default()).expect("a good log");
        assert_eq!(recovered.last, zxid(last), "what was cut off does not come back");
        assert!(recovered.tree.node(&format!("/{last}")).is_some());
        assert!(recovered.tree.node(&format!("/{}", last + 1)).is_none());
    }

    /// Q53, ZOOKEEPER-1549. Danger: a snapshot of what was cut off brings it back with the next start.
    #[test]
    fn a_cut_leaves_no_snapshot_above_it() {
        let mut fixture = Fixture::new(10);
        let image = fixture.pipeline.tree.image();
        snapshot::write(image, &fixture.dirs, SnapshotOptions::default()).expect("a disk");
        // One that is good for nothing has to go as well: a purge counts it.
        let torn = format!("snapshot.{:x}", zxid(8).0);
        fs::write(fixture.dirs.snapshots.join(torn), b"torn").expect("a disk");
        assert_eq!(fixture.snapshots(), [Zxid::ZERO, zxid(8), zxid(10)]);
        cut(&mut fixture, zxid(5));
        check_cut(fixture, 5);
    }

    /// The same. Danger: a snapshot that is being written gets its name when the cut is over.
    #[test]
    fn a_cut_waits_for_the_snapshot_that_is_being_written() {
        let mut fixture = Fixture::new(10);
        let (ends, is_over) = channel::<()>();
        let file = fixture.dirs.snapshots.join(format!("snapshot.{:x}", zxid(10).0));
        let name = fixture.dirs.snapshots.join("written");
        let image = fixture.pipeline.tree.image();
        let written = snapshot::write(image, &fixture.dirs, SnapshotOptions::default()).expect("a disk");
        assert_eq!(written.path, file);
        fs::rename(&file, &name).expect("a name");
        fixture.pipeline.snapshots.begin_with(move || {
            // Later than a cut that did not wait.
            let _ = is_over.recv_timeout(Duration::from_millis(200));
            fs::rename(&name, &file).expect("a name");
        });
        cut(&mut fixture, zxid(5));
        drop(ends);
        fixture.pipeline.snapshots.join();
        check_cut(fixture, 5);
    }

    /// Q53, ZOOKEEPER-3642, 4925. Danger: logs and snapshots of before an image are told as part of the history behind it.
    #[test]
    fn an_image_leaves_nothing_of_what_it_takes_the_place_of() {
        let mut fixture = Fixture::new(10);
        let image = fixture.pipeline.tree.image();
        snapshot::write(image, &fixture.dirs, SnapshotOptions::default()).expect("a disk");
        assert_eq!(fixture.snapshots(), [Zxid::ZERO, zxid(10)]);
        let theirs = Zxid::new(Epoch(2), 1);
        let mut leader = author();
        write_record(&mut leader, theirs, "theirs");
        let (_link, _stream) = fixture.read_image(&mut leader);
        assert!(fixture.pipeline.take_image());
        assert_eq!(fixture.snapshots(), [theirs]);
        let logs = fixture.dirs.logs().expect("a directory");
        assert!(logs.is_empty(), "{logs:?}");
        assert_eq!(fixture.pipeline.tree.last_applied(), theirs);
        let tree = &fixture.pipeline.tree;
        assert!(tree.node("/theirs").is_some() && tree.node("/10").is_none());
    }
}
