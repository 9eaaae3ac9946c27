//! What waits to be sent on a learner link, in order: small packets coalesced in one buffer, large records by
//! reference, the output of a reading thread, and marks that tell when everything before them has left.
//!
//! Bounded in bytes; what a thread produces is bounded by its channel instead, and holds back all that was queued behind
//! it.

use super::stream::{Produced, StreamEnd};
use crate::config::limits;
use bytes::{Buf, Bytes};
use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
    net::TcpStream,
    time::Instant,
};
use zkfast_wire::{Zxid, quorum};

/// A record from this size on is sent by reference: below it, copying costs less than another entry of the writev.
const SHARED_BYTES_MIN: usize = 1024;

/// A run of small packets ends at this size, so that its memory comes back while a slow link drains.
const RUN_BYTES: usize = 64 << 10;

/// Entries of one writev: enough for a megabyte of records of the least size that is shared.
const SLICES_MAX: usize = 256;

enum Part {
    /// Small packets, of which the first `sent` bytes have left.
    Run { bytes: Vec<u8>, sent: usize, packets: u64 },
    /// A record, or a piece of what a thread read.
    Shared(Bytes),
    /// More pieces to come; nothing behind it leaves before its end.
    Stream(StreamEnd),
    /// When everything before this has left, the transfer through this zxid is done.
    Mark(Zxid),
    /// Queued then: when everything before this has left, its waiting is over.
    Sample(Instant),
}

/// What came of an attempt to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// Nothing is left.
    All,
    /// More could leave as soon as the socket has room.
    Some,
    /// The next byte comes from a thread that has not produced it yet.
    Starved,
}

/// Why nothing more can leave.
#[derive(Debug)]
pub(super) enum WriteError {
    /// The socket is broken.
    Socket(io::Error),
    /// What should come next cannot be read.
    Source(io::Error),
}

#[derive(Default)]
pub(super) struct Outbox {
    parts: VecDeque<Part>,
    /// Bytes of runs and records. Pieces of a stream are not counted: the channel bounds them.
    waiting_bytes: usize,
    waiting_packets: u64,
    /// Bytes of a stream's pieces among the parts.
    piece_bytes: usize,
    spare: Vec<u8>,
    /// Samples that have left.
    samples: Vec<Instant>,
}

impl Outbox {
    pub(super) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Packets of which a part at least is still here, those behind them in one run included.
    pub(super) const fn waiting_packets(&self) -> u64 {
        self.waiting_packets
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Stream(_)))
    }

    /// Appends a number of small packets.
    pub(super) fn put(&mut self, count: u64, encode: impl FnOnce(&mut Vec<u8>)) {
        if !matches!(self.parts.back(), Some(Part::Run { bytes, .. }) if bytes.len() < RUN_BYTES) {
            self.parts.push_back(Part::Run { bytes: std::mem::take(&mut self.spare), sent: 0, packets: 0 });
        }
        let Some(Part::Run { bytes, packets, .. }) = self.parts.back_mut() else {
            unreachable!("pushed above")
        };
        let before = bytes.len();
        encode(bytes);
        *packets += count;
        self.waiting_packets += count;
        self.waiting_bytes += bytes.len() - before;
    }

    /// Appends a packet whose data is a record.
    pub(super) fn put_record(&mut self, head: [u8; quorum::HEAD_BYTES], record: &Bytes) {
        if record.len() < SHARED_BYTES_MIN {
            self.put(1, |out| {
                out.extend_from_slice(&head);
                out.extend_from_slice(record);
                out.extend_from_slice(&quorum::TAIL);
            });
            return;
        }
        self.put(1, |out| out.extend_from_slice(&head));
        self.waiting_bytes += record.len();
        self.parts.push_back(Part::Shared(record.clone()));
        self.put(0, |out| out.extend_from_slice(&quorum::TAIL));
    }

    pub(super) fn put_stream(&mut self, stream: StreamEnd) {
        self.parts.push_back(Part::Stream(stream));
    }

    pub(super) fn put_mark(&mut self, through: Zxid) {
        self.parts.push_back(Part::Mark(through));
    }

    /// From now on until what is queued now has left is a sample of how long packets wait.
    pub(super) fn put_sample(&mut self, now: Instant) {
        self.parts.push_back(Part::Sample(now));
    }

    /// When the samples were queued that have left since this was asked last.
    pub(super) fn take_samples(&mut self) -> impl Iterator<Item = Instant> {
        self.samples.drain(..)
    }

    /// Writes once what the socket takes; `done` gets the marks that were passed.
    ///
    /// # Errors
    /// Of the socket, and of the thread that a stream comes from.
    pub(super) fn write(
        &mut self,
        stream: &TcpStream,
        done: &mut Vec<Zxid>,
    ) -> Result<(Written, usize), WriteError> {
        let starved = self.pull(done)?;
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        for part in &self.parts {
            let bytes: &[u8] = match part {
                Part::Run { bytes, sent, .. } => &bytes[*sent..],
                Part::Shared(bytes) => bytes,
                Part::Mark(_) | Part::Sample(_) => continue,
                Part::Stream(_) => break,
            };
            if count == SLICES_MAX {
                break;
            }
            slices[count] = IoSlice::new(bytes);
            count += 1;
        }
        if count == 0 {
            return Ok((if starved { Written::Starved } else { Written::All }, 0));
        }
        let sent = match (&mut &*stream).write_vectored(&slices[..count]) {
            Ok(0) => return Err(WriteError::Socket(io::ErrorKind::WriteZero.into())),
            Ok(sent) => sent,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok((Written::Some, 0));
            }
            Err(error) => return Err(WriteError::Socket(error)),
        };
        self.take_sent(sent, done);
        let starved = self.pull(done)?;
        let written = match self.parts.front() {
            None => Written::All,
            Some(Part::Stream(_)) if starved => Written::Starved,
            Some(_) => Written::Some,
        };
        Ok((written, sent))
    }

    /// Passes marks at the head and gets pieces of a stream there; whether that stream has none at the moment.
    fn pull(&mut self, done: &mut Vec<Zxid>) -> Result<bool, WriteError> {
        while let Some(part) = self.parts.front_mut() {
            match part {
                Part::Run { bytes, sent, .. } if *sent < bytes.len() => return Ok(false),
                Part::Shared(bytes) if !bytes.is_empty() => return Ok(false),
                Part::Run { .. } | Part::Shared(_) => {
                    self.parts.pop_front();
                }
                Part::Mark(through) => {
                    done.push(*through);
                    self.parts.pop_front();
                }
                Part::Sample(queued) => {
                    self.samples.push(*queued);
                    self.parts.pop_front();
                }
                Part::Stream(stream) => match stream.next().map_err(WriteError::Source)? {
                    Produced::Piece(piece) => {
                        self.piece_bytes += piece.len();
                        self.parts.push_front(Part::Shared(piece));
                    }
                    Produced::NotYet => return Ok(true),
                    Produced::End => {
                        self.parts.pop_front();
                    }
                },
            }
        }
        Ok(false)
    }

    fn take_sent(&mut self, mut sent: usize, done: &mut Vec<Zxid>) {
        // Pieces lie at the head, in front of their stream; what is counted lies behind it or there is none.
        let of_pieces = sent.min(self.piece_bytes);
        self.piece_bytes -= of_pieces;
        self.waiting_bytes -= sent - of_pieces;
        while sent > 0 {
            let part = self.parts.front_mut().expect("only what was queued was sent");
            match part {
                Part::Run { bytes, sent: before, packets } => {
                    let step = sent.min(bytes.len() - *before);
                    *before += step;
                    sent -= step;
                    if *before < bytes.len() {
                        return;
                    }
                    self.waiting_packets -= *packets;
                    let Some(Part::Run { mut bytes, .. }) = self.parts.pop_front() else {
                        unreachable!("the head is a run")
                    };
                    if bytes.capacity() <= 2 * RUN_BYTES {
                        bytes.clear();
                        self.spare = bytes;
                    }
                }
                Part::Shared(bytes) => {
                    let step = sent.min(bytes.len());
                    bytes.advance(step);
                    sent -= step;
                    if !bytes.is_empty() {
                        return;
                    }
                    self.parts.pop_front();
                }
                Part::Mark(through) => {
                    done.push(*through);
                    self.parts.pop_front();
                }
                Part::Sample(queued) => {
                    self.samples.push(*queued);
                    self.parts.pop_front();
                }
                Part::Stream(_) => unreachable!("nothing behind a stream was written"),
            }
        }
    }

    /// Frees the memory that an idle link does not need.
    pub(super) fn shrink(&mut self) {
        if self.parts.is_empty() && self.spare.capacity() > limits::LINK_IDLE_BYTES {
            self.spare = Vec::new();
        }
    }
}
