//! The election port: how two servers greet (rows Q11, Q12, Q14) and what they tell each other about their votes
//! (Q10, Q15, Q19; ZooKeeper's `QuorumCnxManager` and `FastLeaderElection`).

use crate::{
    ids::{Epoch, ServerId, Zxid},
    jute::{DecodeError, Decoder, Reason},
};
use bytes::{BufMut, Bytes};

/// What a server is to the others; the numbers are those of the wire (Q10).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ServerState {
    /// Searching for a leader.
    Looking,
    /// Following one, with a vote of its own.
    Following,
    /// Leading.
    Leading,
    /// Following one, without a vote.
    Observing,
}

impl ServerState {
    const fn from_i32(value: i32) -> Option<Self> {
        match value {
            0 => Some(Self::Looking),
            1 => Some(Self::Following),
            2 => Some(Self::Leading),
            3 => Some(Self::Observing),
            _ => None,
        }
    }

    const fn to_i32(self) -> i32 {
        match self {
            Self::Looking => 0,
            Self::Following => 1,
            Self::Leading => 2,
            Self::Observing => 3,
        }
    }
}

/// What a server tells about its vote (Q19).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notification {
    /// What the sender is.
    pub state: ServerState,
    /// For whom it votes, or whom it follows. `i64::MIN` from an observer that has seen no vote yet.
    pub leader: ServerId,
    /// The last zxid of that candidate.
    pub zxid: Zxid,
    /// The sender's election round (its logical clock).
    pub election_epoch: i64,
    /// The candidate's current epoch.
    pub peer_epoch: Epoch,
    /// Format: 2 now; 0 and 1 from servers before 3.5.
    pub version: i32,
    /// The sender's configuration (Q60), in format 2.
    pub config: Option<Bytes>,
}

impl Notification {
    /// The format that carries a configuration.
    pub const VERSION: i32 = 2;
    /// Bytes before the configuration.
    pub const HEAD_BYTES: usize = 44;
    /// A message on the election port is at most this long (Q15).
    pub const MESSAGE_BYTES_MAX: usize = 524_288;

    /// Writes the message, without the length that frames it.
    ///
    /// # Panics
    /// If the configuration is 2 GiB or longer.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.state.to_i32());
        out.put_i64(self.leader.0);
        out.put_i64(self.zxid.0);
        out.put_i64(self.election_epoch);
        out.put_i64(self.peer_epoch.0);
        out.put_i32(Self::VERSION);
        let config = self.config.as_deref().unwrap_or_default();
        out.put_i32(i32::try_from(config.len()).expect("a configuration is shorter than 2 GiB"));
        out.put_slice(config);
    }

    /// Reads a message of the present format (44 bytes and more), of 3.4 (40 bytes) or of 3.3 (28 bytes).
    ///
    /// # Errors
    /// Too short a message, an unknown state and an impossible configuration length; the message is then dropped.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        let state = decoder.i32("Notification.state")?;
        let state = ServerState::from_i32(state)
            .ok_or_else(|| Decoder::new(bytes).error("Notification.state", Reason::Value(state.into())))?;
        let leader = ServerId(decoder.i64("Notification.leader")?);
        let zxid = Zxid(decoder.i64("Notification.zxid")?);
        let election_epoch = decoder.i64("Notification.electionEpoch")?;
        let mut notification =
            Self { state, leader, zxid, election_epoch, peer_epoch: zxid.epoch(), version: 0, config: None };
        if bytes.len() == 28 {
            return Ok(notification);
        }
        notification.peer_epoch = Epoch(decoder.i64("Notification.peerEpoch")?);
        if bytes.len() == 40 {
            return Ok(notification);
        }
        notification.version = decoder.i32("Notification.version")?;
        if notification.version > 1 {
            let length = decoder.i32("Notification.configLength")?;
            let start = decoder.offset();
            let end = usize::try_from(length).ok().and_then(|length| start.checked_add(length));
            match end {
                Some(end) if end <= bytes.len() => notification.config = Some(bytes.slice(start..end)),
                _ => return Err(decoder.error("Notification.configLength", Reason::Length(length))),
            }
        }
        Ok(notification)
    }
}

/// The first thing that the dialling server sends on an election connection (Q11). There is no reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Greeting {
    /// Who dials. `None`: an observer without a number (Q14, `Long.MAX_VALUE` on the wire).
    pub server: Option<ServerId>,
    /// Its election addresses, `host:port` as configured, IPv6 hosts in brackets. Empty from servers before 3.5.
    pub addresses: Vec<String>,
}

impl Greeting {
    const ONE_ADDRESS: i64 = -65536;
    const MANY_ADDRESSES: i64 = -65535;
    /// Longest text of addresses that is accepted (Q12).
    pub const ADDRESS_BYTES_MAX: usize = 2048;
    /// Bytes before the addresses.
    pub const HEAD_BYTES: usize = 20;

    /// Writes the greeting; several addresses are joined with `|` and take the second format.
    ///
    /// # Panics
    /// If the addresses are 2 GiB or longer.
    pub fn encode(&self, out: &mut impl BufMut) {
        let format = if self.addresses.len() > 1 { Self::MANY_ADDRESSES } else { Self::ONE_ADDRESS };
        let text = self.addresses.join("|");
        out.put_i64(format);
        out.put_i64(self.server.map_or(i64::MAX, |server| server.0));
        out.put_i32(i32::try_from(text.len()).expect("addresses are shorter than 2 GiB"));
        out.put_slice(text.as_bytes());
    }

    /// Reads the greeting at the start of `bytes` and says how many bytes it took; `Ok(None)` asks for more.
    ///
    /// # Errors
    /// An unknown format, and a text that is empty or longer than [`Greeting::ADDRESS_BYTES_MAX`]: close.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let mut decoder = Decoder::new(bytes);
        if decoder.remaining() < 8 {
            return Ok(None);
        }
        let format = decoder.i64("InitialMessage.protocolVersion")?;
        if format >= 0 {
            // Before 3.5 the number itself was the whole greeting.
            return Ok(Some((Self { server: Self::server(format), addresses: Vec::new() }, 8)));
        }
        if format != Self::ONE_ADDRESS && format != Self::MANY_ADDRESSES {
            return Err(Decoder::new(bytes).error("InitialMessage.protocolVersion", Reason::Value(format)));
        }
        if decoder.remaining() < 12 {
            return Ok(None);
        }
        let server = Self::server(decoder.i64("InitialMessage.sid")?);
        let length = decoder.i32("InitialMessage.addresses")?;
        let text_bytes = match usize::try_from(length) {
            Ok(text_bytes @ 1..=Self::ADDRESS_BYTES_MAX) => text_bytes,
            _ => return Err(decoder.error("InitialMessage.addresses", Reason::Length(length))),
        };
        if decoder.remaining() < text_bytes {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&decoder.rest()[..text_bytes]);
        let addresses = text.split('|').map(str::to_owned).collect();
        Ok(Some((Self { server, addresses }, Self::HEAD_BYTES + text_bytes)))
    }

    const fn server(number: i64) -> Option<ServerId> {
        if number == i64::MAX { None } else { Some(ServerId(number)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn notification(config: Option<&'static [u8]>) -> Notification {
        Notification {
            state: ServerState::Following,
            leader: ServerId(3),
            zxid: Zxid::new(Epoch(4), 9),
            election_epoch: 2,
            peer_epoch: Epoch(4),
            version: Notification::VERSION,
            config: config.map(Bytes::from_static),
        }
    }

    fn bytes(text: &str) -> Vec<u8> {
        let text = text.replace(' ', "");
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// Q10, Q19: the numbers are written by hand. Danger: our own servers elect each other, and no server of Apache's
    /// understands them.
    #[test]
    fn a_notification_is_byte_for_byte_apaches() {
        use ServerState::{Following, Leading, Looking, Observing};
        for (number, state) in [(0, Looking), (1, Following), (2, Leading), (3, Observing)] {
            let mut out = Vec::new();
            let sent = Notification { state, ..notification(Some(b"version=0")) };
            sent.encode(&mut out);
            let expected = format!(
                "0000000{number} 0000000000000003 0000000400000009 0000000000000002 0000000000000004 \
                 00000002 00000009 76657273696f6e3d30"
            );
            assert_eq!(out, bytes(&expected), "{state:?}");
            assert_eq!(Notification::decode(&out.into()), Ok(sent));
        }
        for unknown in [-1_i32, 4] {
            let mut out = Vec::new();
            notification(None).encode(&mut out);
            out[..4].copy_from_slice(&unknown.to_be_bytes());
            assert!(Notification::decode(&out.into()).is_err());
        }
    }

    /// Q11: one address in the first format, several in the second.
    #[test]
    fn a_greeting_is_byte_for_byte_apaches() {
        for (addresses, expected) in [
            (&["a:3888"][..], "ffffffffffff0000 0000000000000002 00000006 613a33383838"),
            (&["a:1", "[::1]:2"], "ffffffffffff0001 0000000000000002 0000000b 613a31 7c 5b3a3a315d3a32"),
        ] {
            let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
            let mut out = Vec::new();
            Greeting { server: Some(ServerId(2)), addresses }.encode(&mut out);
            assert_eq!(out, bytes(expected));
        }
    }

    #[test]
    fn a_notification_comes_back_as_it_went() {
        for expected in
            [notification(Some(b"server.1=a:1:2:participant\nversion=0")), notification(Some(b""))]
        {
            let mut out = Vec::new();
            expected.encode(&mut out);
            assert_eq!(out.len(), Notification::HEAD_BYTES + expected.config.as_ref().map_or(0, Bytes::len));
            assert_eq!(Notification::decode(&out.into()), Ok(expected));
        }
    }

    /// Danger: a rolling upgrade from 3.4 cannot elect a leader because a short notification is dropped.
    #[test]
    fn notifications_of_old_servers_are_read() {
        let mut out = Vec::new();
        notification(None).encode(&mut out);
        let v34 = Notification::decode(&Bytes::copy_from_slice(&out[..40])).unwrap();
        assert_eq!((v34.version, v34.peer_epoch), (0, Epoch(4)));
        let v33 = Notification::decode(&Bytes::copy_from_slice(&out[..28])).unwrap();
        assert_eq!((v33.version, v33.peer_epoch), (0, Epoch(4)));
        assert!(Notification::decode(&Bytes::copy_from_slice(&out[..27])).is_err());
    }

    #[test]
    fn a_configuration_longer_than_its_message_is_refused() {
        for claimed in [1, -1, i32::MAX] {
            let mut out = Vec::new();
            notification(None).encode(&mut out);
            out[40..44].copy_from_slice(&claimed.to_be_bytes());
            assert!(Notification::decode(&out.into()).is_err());
        }
    }

    #[test]
    fn a_greeting_comes_back_as_it_went() {
        for addresses in [vec!["localhost:3888"], vec!["[::1]:3888", "10.0.0.1:3888"]] {
            let expected = Greeting {
                server: Some(ServerId(2)),
                addresses: addresses.into_iter().map(str::to_owned).collect(),
            };
            let mut out = Vec::new();
            expected.encode(&mut out);
            for short in 0..out.len() {
                assert_eq!(Greeting::decode(&out[..short]), Ok(None));
            }
            let taken = out.len();
            out.extend_from_slice(b"next message");
            assert_eq!(Greeting::decode(&out), Ok(Some((expected, taken))));
        }
    }

    /// Q12. Danger: a server of 3.4 is shut out, or a stranger's length is believed.
    #[test]
    fn greetings_of_old_servers_and_of_strangers() {
        let old = Greeting { server: Some(ServerId(7)), addresses: Vec::new() };
        assert_eq!(Greeting::decode(&7i64.to_be_bytes()), Ok(Some((old, 8))));
        assert!(Greeting::decode(&(-1i64).to_be_bytes()).is_err());
        assert!(Greeting::decode(b"GET / HT").is_ok_and(|greeting| greeting.is_some()), "a large old number");
        for format in [-65537_i64, -65534, i64::MIN] {
            assert!(Greeting::decode(&format.to_be_bytes()).is_err(), "{format}");
        }
        for (length, is_taken) in [(-1_i32, false), (0, false), (1, true), (2048, true), (2049, false)] {
            let mut greeting = Vec::new();
            greeting.put_i64(-65536);
            greeting.put_i64(1);
            greeting.put_i32(length);
            greeting.resize(20 + 2049, b'x');
            let decoded = Greeting::decode(&greeting);
            let taken = decoded.ok().flatten().map(|(_, taken)| taken);
            assert_eq!(taken, is_taken.then(|| 20 + length as usize), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoders_panic(bytes: Vec<u8>) {
            let _ = Greeting::decode(&bytes);
            let _ = Notification::decode(&Bytes::from(bytes));
        }
    }
}
