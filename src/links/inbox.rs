//! Packets out of the bytes of a learner link. The stream has no frames (row J7): a packet ends where its fields end.
//!
//! An idle link holds no buffer: sockets are read into memory that all links share, and only a packet that is not whole
//! yet is kept. What is kept is bounded by the largest packet.

use bytes::{Buf, Bytes, BytesMut};
use zkfast_wire::{
    DecodeError, Packet,
    quorum::{Direction, HEAD_BYTES, TAIL},
};

/// Bytes of a packet's identities, above its data: a connection has a handful.
const IDENTITIES_BYTES_MAX: usize = 64 << 10;

/// Bytes of the data of a link's first packet to a leader: LearnerInfo has 20. Whoever reaches the port may send it.
const INTRODUCTION_BYTES_MAX: usize = 4 << 10;

#[derive(Debug)]
pub(super) struct Inbox {
    direction: Direction,
    data_bytes_max: usize,
    /// A packet has come. Before that a learner has nothing to say but who it is.
    is_introduced: bool,
    /// The beginning of a packet that is not whole yet.
    rest: BytesMut,
}

/// Why bytes are no packets.
#[derive(Debug, thiserror::Error)]
pub(super) enum Garbage {
    #[error("{0}")]
    Undecodable(#[from] DecodeError),
    #[error("a packet is longer than {0} bytes")]
    TooLong(usize),
}

impl Inbox {
    pub(super) fn new(direction: Direction, data_bytes_max: usize) -> Self {
        let is_introduced = direction == Direction::ToLearner;
        Self { direction, data_bytes_max, is_introduced, rest: BytesMut::new() }
    }

    /// Bytes kept for a packet that is not whole yet.
    pub(super) fn kept_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Takes what was read; `take` gets each whole packet and says whether to go on. If it does not, what is behind that
    /// packet comes back.
    pub(super) fn feed(
        &mut self,
        read: &[u8],
        mut take: impl FnMut(Packet) -> bool,
    ) -> Result<Option<Bytes>, Garbage> {
        self.rest.extend_from_slice(read);
        // Decoding looks at whole buffers, so a long packet is decoded once, when it is there, not at each read.
        if self.rest.len() < self.least_bytes() {
            return self.check_length();
        }
        let mut chunk = self.rest.split().freeze();
        while let Some((packet, taken)) = Packet::decode(&chunk, self.direction, self.data_bytes_max())? {
            self.is_introduced = true;
            let go_on = take(packet);
            chunk.advance(taken);
            if !go_on {
                return Ok(Some(chunk));
            }
        }
        self.rest.extend_from_slice(&chunk);
        self.check_length()
    }

    /// How many bytes a packet that begins like the kept ones has at least.
    fn least_bytes(&self) -> usize {
        let Some(length) = self.rest.get(HEAD_BYTES - 4..HEAD_BYTES) else {
            return HEAD_BYTES;
        };
        let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
        match usize::try_from(length) {
            Ok(data_bytes) if data_bytes <= self.data_bytes_max() => HEAD_BYTES + data_bytes + TAIL.len(),
            // Null, or nonsense that the decoder names.
            _ => HEAD_BYTES,
        }
    }

    const fn data_bytes_max(&self) -> usize {
        if self.is_introduced { self.data_bytes_max } else { INTRODUCTION_BYTES_MAX }
    }

    const fn bytes_max(&self) -> usize {
        let identities = if self.is_introduced { IDENTITIES_BYTES_MAX } else { INTRODUCTION_BYTES_MAX };
        HEAD_BYTES + self.data_bytes_max() + identities
    }

    fn check_length(&self) -> Result<Option<Bytes>, Garbage> {
        if self.rest.len() > self.bytes_max() { Err(Garbage::TooLong(self.bytes_max())) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::{Epoch, ServerId, Zxid, quorum::LearnerInfo};

    /// Danger: whoever reaches the port has this server keep 16 MiB for each connection.
    #[test]
    fn nothing_long_is_kept_before_the_introduction() {
        let info = LearnerInfo {
            server: Some(ServerId(1)),
            protocol_version: 0x10000,
            config_version: 0,
            observer: false,
            accepted_epoch: Epoch(1),
        };
        let mut long = Vec::new();
        let record = vec![7; 2 * INTRODUCTION_BYTES_MAX].into();
        Packet::Proposal { zxid: Zxid(1), record }.encode(&mut long);
        let begun = &long[..long.len() - 1];

        let mut inbox = Inbox::new(Direction::ToLeader, 1 << 20);
        assert!(inbox.feed(begun, |_| true).is_err());

        let mut inbox = Inbox::new(Direction::ToLeader, 1 << 20);
        let mut introduction = Vec::new();
        Packet::LearnerInfo(info).encode(&mut introduction);
        assert!(inbox.feed(&introduction, |_| true).is_ok());
        assert!(inbox.feed(begun, |_| true).is_ok() && inbox.kept_bytes() == begun.len());

        let mut inbox = Inbox::new(Direction::ToLearner, 1 << 20);
        assert!(inbox.feed(begun, |_| true).is_ok(), "a leader is who was dialled");
    }
}
