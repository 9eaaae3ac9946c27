//! What a learner is sent that is not at hand: history from log files, the image of the tree. A thread reads or encodes
//! it into a bounded channel; it leaves in the link's order.

use super::{poller::Waker, threads::Threads};
use crate::config::limits;
use bytes::Bytes;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering, fence},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
};

/// Appends the next bytes to the buffer, some [`limits::STREAM_PIECE_BYTES`] and a record at most; true while there is
/// more to come. It runs on a thread of its own and may block on files; it is dropped early if the link goes down.
pub type Source = Box<dyn FnMut(&mut Vec<u8>) -> io::Result<bool> + Send>;

/// The scheduler gives it 110 shares; the pipeline has 1024.
const STREAM_NICE: i32 = 10;

enum Item {
    Piece(Bytes),
    Failed(io::Error),
    End,
}

/// What a stream has to give at the moment.
pub(super) enum Produced {
    Piece(Bytes),
    NotYet,
    End,
}

/// The link's end of a stream. Dropping it ends the thread at its next piece.
pub(super) struct StreamEnd {
    items: Receiver<Item>,
    /// Set while the link waits for a piece: the thread then wakes the pipeline.
    starved: Arc<AtomicBool>,
}

/// Starts to read.
pub(super) fn start(source: Source, threads: &Threads, waker: &Waker) -> io::Result<StreamEnd> {
    let (sender, items) = sync_channel(limits::STREAM_PIECES);
    let starved = Arc::new(AtomicBool::new(false));
    let producer = Producer { sender, starved: Arc::clone(&starved), waker: WakeAtEnd(waker.clone()) };
    threads.start("stream", move || {
        // Of this thread alone, on Linux: the pipeline and the clients come first. Where the system refuses, it is felt.
        let _ = rustix::process::nice(STREAM_NICE);
        producer.run(source);
    })?;
    Ok(StreamEnd { items, starved })
}

impl StreamEnd {
    /// The next piece. After `NotYet` the pipeline is woken when there is one.
    pub(super) fn next(&mut self) -> io::Result<Produced> {
        if let Some(produced) = self.take()? {
            return Ok(produced);
        }
        // Announce the wait, then look once more: either this look sees the piece, or the thread sees the flag.
        self.starved.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Ok(self.take()?.unwrap_or(Produced::NotYet))
    }

    fn take(&mut self) -> io::Result<Option<Produced>> {
        match self.items.try_recv() {
            Ok(Item::Piece(piece)) => Ok(Some(Produced::Piece(piece))),
            Ok(Item::End) => Ok(Some(Produced::End)),
            Ok(Item::Failed(error)) => Err(error),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(io::Error::other("its thread ended before its work")),
        }
    }
}

/// The fields go in this order: whoever is woken at the end finds the channel closed.
struct Producer {
    sender: SyncSender<Item>,
    starved: Arc<AtomicBool>,
    waker: WakeAtEnd,
}

/// Wakes the pipeline when it is dropped: a source that panicked must not leave the link waiting.
struct WakeAtEnd(Waker);

impl Producer {
    fn run(self, mut source: Source) {
        loop {
            let mut piece = Vec::with_capacity(limits::STREAM_PIECE_BYTES);
            let more = match source(&mut piece) {
                Ok(more) => more,
                Err(error) => {
                    self.send(Item::Failed(error));
                    return;
                }
            };
            if !piece.is_empty() && !self.send(Item::Piece(piece.into())) {
                return;
            }
            if !more {
                self.send(Item::End);
                return;
            }
        }
    }

    /// False where nobody listens any more.
    fn send(&self, item: Item) -> bool {
        let sent = self.sender.send(item).is_ok();
        fence(Ordering::SeqCst);
        if self.starved.swap(false, Ordering::Relaxed) {
            self.waker.0.wake();
        }
        sent
    }
}

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        self.0.wake();
    }
}
