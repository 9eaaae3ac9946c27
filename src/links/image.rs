//! The image that follows SNAP on a learner's link (row Q54). A thread of the driver reads it straight from the socket,
//! while the pipeline leaves that socket alone.
//!
//! The ends cannot be misused: [`ImageReader`] gives the bytes of the image and nothing behind it; its
//! [`finish`](ImageReader::finish) gives an [`ImageEnd`], and only
//! [`Links::resume`](super::Links::resume) with that lets the packets behind the image in. Dropping either closes the
//! link.

use super::poller::Waker;
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io::{self, Read},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use zkfast_wire::{ImageExtent, quorum::SNAPSHOT_SIGNATURE};
use zkfast_zab::LinkId;

/// Bytes read from the socket at a time.
const READ_BYTES: usize = 256 << 10;

/// Bytes of the signature: a string with its length.
const SIGNATURE_BYTES: usize = 4 + SNAPSHOT_SIGNATURE.len();

/// Links whose image was given up, with the reason.
pub(super) type GivenUp = Arc<Mutex<Vec<(LinkId, String)>>>;

/// The hold on a link whose image is being read. Dropped before its time, it closes the link.
struct Hold {
    link: LinkId,
    stream: Arc<TcpStream>,
    given_up: GivenUp,
    waker: Waker,
    /// Why the link is closed, if it is.
    reason: String,
    released: bool,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let _ = self.stream.shutdown(Shutdown::Both);
        let reason = std::mem::take(&mut self.reason);
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).push((self.link, reason));
        self.waker.wake();
    }
}

/// Reads the image of one link, and ends where the image ends. Blocks; for a thread of the driver's.
///
/// # Errors
/// `TimedOut` when nothing came for `initLimit`; `UnexpectedEof` when the link went down, which
/// [`Links::close`](super::Links::close) brings about as well; `InvalidData` where the bytes are no image or its
/// signature is missing.
pub struct ImageReader {
    hold: Hold,
    silence_limit: Duration,
    extent: ImageExtent,
    /// Bytes that were read and not given out.
    buffer: Vec<u8>,
    /// Those before this are given out.
    given: usize,
    /// Whether the signature was seen.
    signed: bool,
}

/// An image was read to its end: what lets its link go on.
#[must_use = "without it the link is closed"]
pub struct ImageEnd {
    hold: Hold,
    /// What was read of the packets behind the image.
    behind: Bytes,
}

impl ImageReader {
    pub(super) fn new(
        link: LinkId,
        stream: Arc<TcpStream>,
        read_already: Bytes,
        silence_limit: Duration,
        given_up: GivenUp,
        waker: Waker,
    ) -> Self {
        let reason = "its reader was dropped".to_owned();
        Self {
            hold: Hold { link, stream, given_up, waker, reason, released: false },
            silence_limit,
            extent: ImageExtent::default(),
            buffer: read_already.into(),
            given: 0,
            signed: false,
        }
    }

    /// Whose image this is.
    pub fn link(&self) -> LinkId {
        self.hold.link
    }

    /// Bytes of the image given out so far.
    pub fn bytes(&self) -> u64 {
        self.extent.bytes()
    }

    /// Ends the reading. The image must have been read to its end.
    ///
    /// # Errors
    /// If it was not, or is damaged; the link is then closed.
    pub fn finish(mut self) -> io::Result<ImageEnd> {
        if !self.signed {
            if self.read(&mut [0])? > 0 {
                return Err(self.broken("there is more of the image"));
            }
            assert!(self.signed, "the end of the image is told after its signature was seen");
        }
        let behind = Bytes::from(std::mem::take(&mut self.buffer)).slice(self.given..);
        Ok(ImageEnd { hold: self.hold, behind })
    }

    fn broken(&mut self, reason: impl std::fmt::Display) -> io::Error {
        self.hold.reason = format!("its image cannot be read: {reason}");
        io::Error::new(io::ErrorKind::InvalidData, self.hold.reason.clone())
    }

    /// Reads more from the socket.
    fn fill(&mut self) -> io::Result<()> {
        if self.given > 0 {
            self.buffer.drain(..self.given);
            self.given = 0;
        }
        let before = self.buffer.len();
        self.buffer.resize(before + READ_BYTES, 0);
        let outcome = read_some(&self.hold.stream, &mut self.buffer[before..], self.silence_limit);
        self.buffer.truncate(before + *outcome.as_ref().unwrap_or(&0));
        match outcome {
            Ok(0) => {
                self.hold.reason = "it went down in the middle of its image".to_owned();
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                self.hold.reason = format!("reading its image failed: {error}");
                Err(error)
            }
        }
    }

    fn read_signature(&mut self) -> io::Result<()> {
        while self.buffer.len() - self.given < SIGNATURE_BYTES {
            self.fill()?;
        }
        let signature = &self.buffer[self.given..self.given + SIGNATURE_BYTES];
        let expected_length = (SNAPSHOT_SIGNATURE.len() as i32).to_be_bytes();
        if signature[..4] != expected_length || signature[4..] != *SNAPSHOT_SIGNATURE.as_bytes() {
            return Err(self.broken("its signature is missing"));
        }
        self.given += SIGNATURE_BYTES;
        self.signed = true;
        Ok(())
    }
}

impl Read for ImageReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.signed || out.is_empty() {
            return Ok(0);
        }
        if self.extent.is_whole() {
            self.read_signature()?;
            return Ok(0);
        }
        if self.given == self.buffer.len() {
            self.fill()?;
        }
        let there = self.buffer.len() - self.given;
        let step = there.min(out.len());
        let offered = self.given..self.given + step;
        let taken = match self.extent.scan(&self.buffer[offered]) {
            Ok(taken) => taken,
            Err(error) => return Err(self.broken(error)),
        };
        out[..taken].copy_from_slice(&self.buffer[self.given..self.given + taken]);
        self.given += taken;
        Ok(taken)
    }
}

impl ImageEnd {
    /// Whose image it was.
    pub fn link(&self) -> LinkId {
        self.hold.link
    }

    /// What was read behind the image; the link is no longer held.
    pub(super) fn release(mut self) -> Bytes {
        self.hold.released = true;
        std::mem::take(&mut self.behind)
    }
}

impl std::fmt::Debug for ImageReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageReader").field("link", &self.hold.link).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ImageEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageEnd").field("link", &self.hold.link).finish_non_exhaustive()
    }
}

/// Reads from a non-blocking socket, waiting at most `limit` for a byte.
fn read_some(mut stream: &TcpStream, out: &mut [u8], limit: Duration) -> io::Result<usize> {
    loop {
        match stream.read(out) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => return outcome,
        }
        let limit = Timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
