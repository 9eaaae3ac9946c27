//! Packets out of the bytes of a learner link. The stream has no frames (row J7): a packet ends where its fields end.
//!
//! An idle link holds no buffer: sockets are read into memory that all links share, and only a packet that is not whole
//! yet is kept. What is kept is bounded by the largest packet that is due: from a learner that is not served yet, little.

use bytes::{Buf, Bytes, BytesMut};
use zkfast_wire::{
    DecodeError, Packet,
    quorum::{Direction, HEAD_BYTES, TAIL},
};

/// Bytes of a packet's identities, above its data: a connection has a handful.
const IDENTITIES_BYTES_MAX: usize = 64 << 10;

/// Bytes of the data, and of the identities, of a packet to a leader until it serves the learner: FOLLOWERINFO or
/// OBSERVERINFO has 20, ACKEPOCH 4, ACK none. Whoever reaches the port may say that it is a learner.
const JOINING_BYTES_MAX: usize = 4 << 10;

#[derive(Debug)]
pub(super) struct Inbox {
    direction: Direction,
    data_bytes_max: usize,
    /// The other side leads, or is a learner that was sent UPTODATE. Requests and touched sessions come only then.
    is_served: bool,
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
        let is_served = direction == Direction::ToLearner;
        Self { direction, data_bytes_max, is_served, rest: BytesMut::new() }
    }

    /// From now on packets may be as long as any.
    pub(super) fn serve(&mut self) {
        self.is_served = true;
    }

    /// Bytes kept for a packet that is not whole yet.
    pub(super) fn kept_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Whether what is kept is more than a learner may say that is not served.
    pub(super) fn is_long(&self) -> bool {
        self.kept_bytes() > HEAD_BYTES + 2 * JOINING_BYTES_MAX
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
        if self.is_served { self.data_bytes_max } else { JOINING_BYTES_MAX }
    }

    const fn bytes_max(&self) -> usize {
        let identities = if self.is_served { IDENTITIES_BYTES_MAX } else { JOINING_BYTES_MAX };
        HEAD_BYTES + self.data_bytes_max() + identities
    }

    fn check_length(&self) -> Result<Option<Bytes>, Garbage> {
        if self.rest.len() > self.bytes_max() { Err(Garbage::TooLong(self.bytes_max())) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkfast_wire::{
        Epoch, ServerId, SessionId, Zxid,
        quorum::{ForwardedRequest, LearnerInfo},
    };

    /// Danger: whoever reaches the port, and says that it is a learner, has this server keep 16 MiB for each connection.
    #[test]
    fn nothing_long_is_kept_for_a_learner_that_is_not_served() {
        let info = LearnerInfo {
            server: Some(ServerId(1)),
            protocol_version: 0x10000,
            config_version: 0,
            observer: false,
            accepted_epoch: Epoch(1),
        };
        let mut joining = Vec::new();
        for packet in [
            Packet::LearnerInfo(info),
            Packet::AckEpoch { last: Zxid(7), current_epoch: Some(Epoch(1)) },
            Packet::Ack { zxid: Zxid::new(Epoch(2), 0) },
        ] {
            packet.encode(&mut joining);
        }
        let request = |body_bytes: usize| {
            let mut bytes = Vec::new();
            let body = vec![7; body_bytes].into();
            let request =
                ForwardedRequest { session: SessionId(1), cxid: 2, op: 5, body, identities: Vec::new() };
            Packet::Request(Box::new(request)).encode(&mut bytes);
            bytes.truncate(bytes.len() - 1);
            bytes
        };
        let (short, long) = (request(JOINING_BYTES_MAX - 16), request(JOINING_BYTES_MAX - 15));

        for said in [&[][..], &joining] {
            let joined = || {
                let mut inbox = Inbox::new(Direction::ToLeader, 1 << 20);
                assert!(inbox.feed(said, |_| true).is_ok() && inbox.kept_bytes() == 0);
                inbox
            };
            let mut inbox = joined();
            assert!(inbox.feed(&short, |_| true).is_ok() && inbox.kept_bytes() == short.len());
            assert!(joined().feed(&long, |_| true).is_err());
            let mut inbox = joined();
            inbox.serve();
            assert!(inbox.feed(&long, |_| true).is_ok() && inbox.kept_bytes() == long.len());
        }

        let mut long = Vec::new();
        let record = vec![7; 2 * JOINING_BYTES_MAX].into();
        Packet::Proposal { zxid: Zxid(1), record }.encode(&mut long);
        let mut inbox = Inbox::new(Direction::ToLearner, 1 << 20);
        assert!(inbox.feed(&long[..long.len() - 1], |_| true).is_ok(), "a leader is who was dialled");
    }
}
