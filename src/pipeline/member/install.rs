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
        let member = self.member.as_ref().expect("a member");
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
