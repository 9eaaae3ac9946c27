//! Four-letter words: a picture of the server in, Apache's text out (rows O43, O72-O87).
//!
//! Pure. The connection that reads the word calls [`Word::parse`], checks the whitelist with [`refusal`], fetches what
//! [`Word::needs`] and does what [`Word::act`] says, calls [`render`], writes the text and closes. It must also answer
//! a client that has already closed its sending side (`nc`, row O124).

use std::fmt::Write;

use zkfast_wire::{OpCode, SessionId, acl::address_text};

use super::calendar::Civil;
use super::environment;
use super::metrics::{self, decimal, fractional_ms, whole_ms};
use super::picture::{ConnectionPicture, Picture};
use super::version;
use crate::config::{Whitelist, limits};

macro_rules! words {
    ($($(#[$doc:meta])* $word:ident = $text:literal, $needs:ident;)*) => {
        /// A word that we answer.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Word {
            $($(#[$doc])* $word,)*
        }

        impl Word {
            /// Every word.
            pub const ALL: &'static [Self] = &[$(Self::$word,)*];

            /// The word as sent.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)*
                }
            }

            /// What must be in the picture beside the numbers.
            pub const fn needs(self) -> Needs {
                match self {
                    $(Self::$word => Needs::$needs,)*
                }
            }
        }
    };
}

/// Lists that the picture must hold for a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// None.
    Numbers,
    /// `connections` of every core.
    Connections,
    /// `watches` of every core.
    Watches,
    /// `connections` of every core, `sessions_dump` of the pipeline.
    Sessions,
    /// `digests` of the pipeline.
    Digests,
}

/// What must happen beside the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    /// Nothing.
    Tell,
    /// [`super::Board::reset`].
    ResetServer,
    /// Every core starts the counts of its connections anew.
    ResetConnections,
    /// [`super::Board::set_trace_mask`], with the eight bytes behind the word.
    SetTraceMask,
}

words! {
    /// Is the process alive?
    Ruok = "ruok", Numbers;
    /// Role, counts and latencies.
    Srvr = "srvr", Numbers;
    /// As `srvr`, with a line for each connection.
    Stat = "stat", Connections;
    /// The configuration in use.
    Conf = "conf", Numbers;
    /// Every metric.
    Mntr = "mntr", Numbers;
    /// Does it take writes?
    Isro = "isro", Numbers;
    /// Version and machine.
    Envi = "envi", Numbers;
    /// Sizes of the data directories.
    Dirs = "dirs", Numbers;
    /// Every connection in full.
    Cons = "cons", Connections;
    /// Start the counts of all connections anew.
    Crst = "crst", Numbers;
    /// Start the counts of the server anew.
    Srst = "srst", Numbers;
    /// Watches, counted.
    Wchs = "wchs", Watches;
    /// Watches by session.
    Wchc = "wchc", Watches;
    /// Watches by path.
    Wchp = "wchp", Watches;
    /// Sessions and ephemerals.
    Dump = "dump", Sessions;
    /// Digests of the tree behind some of the last transactions.
    Hash = "hash", Digests;
    /// The trace mask. It chooses what Apache traces; here it is kept and told, and nothing else.
    Gtmk = "gtmk", Numbers;
    /// Another trace mask.
    Stmk = "stmk", Numbers;
}

impl Word {
    /// The word in the first four bytes of a connection.
    pub fn parse(bytes: &[u8; 4]) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.text().as_bytes() == bytes)
    }

    /// What must happen beside the answer. Only for a word that the whitelist allows, on a server that serves.
    pub const fn act(self) -> Act {
        match self {
            Self::Srst => Act::ResetServer,
            Self::Crst => Act::ResetConnections,
            Self::Stmk => Act::SetTraceMask,
            _ => Act::Tell,
        }
    }
}

/// Are these bytes a word, and not the length of a first packet? As a length each would be above a gigabyte.
pub fn is_command(bytes: &[u8; 4]) -> bool {
    Word::parse(bytes).is_some()
}

/// The text for a word that must not run, `None` if it may.
pub fn refusal(word: Word, whitelist: &Whitelist) -> Option<String> {
    let text = word.text();
    (!whitelist.allows(text)).then(|| format!("{text} is not executed because it is not in the whitelist.\n"))
}

/// What a server without a role answers to most words.
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests";

/// The whole answer, the refusal included.
pub fn render(word: Word, picture: &Picture, whitelist: &Whitelist) -> String {
    if let Some(refusal) = refusal(word, whitelist) {
        return refusal;
    }
    let out = match word {
        Word::Ruok => "imok".to_owned(),
        Word::Isro if !picture.serving => "null".to_owned(),
        Word::Isro if picture.mode == super::picture::Mode::ReadOnly => "ro".to_owned(),
        Word::Isro => "rw".to_owned(),
        Word::Envi => envi(),
        Word::Gtmk | Word::Stmk => picture.trace_mask.to_string(),
        // Apache ends the line for all words but this one (O86).
        Word::Hash if !picture.serving => NOT_SERVING.to_owned(),
        _ if !picture.serving => format!("{NOT_SERVING}\n"),
        Word::Srvr | Word::Stat => srvr(picture, word == Word::Stat),
        Word::Conf => conf(picture),
        Word::Mntr => mntr(picture),
        Word::Dirs => {
            let (data, log) = picture.directory_bytes;
            format!("datadir_size: {data}\nlogdir_size: {log}\n")
        }
        Word::Cons => cons(picture),
        Word::Crst => "Connection stats reset.\n".to_owned(),
        Word::Srst => "Server stats reset.\n".to_owned(),
        Word::Wchs => wchs(picture),
        Word::Wchc => wchc(picture),
        Word::Wchp => wchp(picture),
        Word::Dump => dump(picture),
        Word::Hash => hash(picture),
    };
    bounded(out)
}

/// Cut at the bound for answers, with a line that says so.
fn bounded(mut text: String) -> String {
    if text.len() > limits::FOUR_LETTER_BYTES_MAX {
        let end =
            (0..=limits::FOUR_LETTER_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("\n... cut here: the answer is too long\n");
    }
    text
}

// Writing to a String cannot fail; `let _ =` says so once per line below.

fn srvr(picture: &Picture, with_clients: bool) -> String {
    let mut out = format!("Zookeeper version: {}\n", version::FULL);
    if picture.mode == super::picture::Mode::ReadOnly {
        out.push_str("READ-ONLY mode; serving only read-only clients\n");
    }
    if with_clients {
        out.push_str("Clients:\n");
        for connection in &picture.connections {
            connection_line(&mut out, connection, true);
        }
        out.push('\n');
    }
    let latency = picture.totals.latency();
    let _ = write!(
        out,
        "Latency min/avg/max: {}/{}/{}\nReceived: {}\nSent: {}\nConnections: {}\nOutstanding: {}\nZxid: {}\n\
         Mode: {}\nNode count: {}\n",
        whole_ms(latency.min()),
        decimal(fractional_ms(latency.mean())),
        whole_ms(latency.max()),
        picture.totals.received(),
        picture.totals.sent(),
        picture.connections_open,
        picture.outstanding,
        picture.last_zxid,
        picture.mode.name(),
        picture.znodes
    );
    if picture.mode == super::picture::Mode::Leader {
        let [last, min, max] = picture.record_bytes;
        let _ = writeln!(out, "Proposal sizes last/min/max: {last}/{min}/{max}");
    }
    out
}

fn conf(picture: &Picture) -> String {
    let settings = &picture.settings;
    let (data_bytes, log_bytes) = picture.directory_bytes;
    let mut out = format!(
        "clientPort={}\nsecureClientPort=-1\ndataDir={}\ndataDirSize={data_bytes}\ndataLogDir={}\n\
         dataLogSize={log_bytes}\ntickTime={}\nmaxClientCnxns={}\nminSessionTimeout={}\nmaxSessionTimeout={}\n\
         clientPortListenBacklog={}\nserverId={}\n",
        settings.client_port,
        settings.data_dir.display(),
        settings.data_log_dir.display(),
        settings.tick_ms,
        settings.connections_per_host_limit,
        settings.session_timeout_ms_min,
        settings.session_timeout_ms_max,
        settings.client_listen_backlog,
        settings.server_id
    );
    if let Some(quorum) = &picture.quorum {
        let _ = write!(
            out,
            "initLimit={}\nsyncLimit={}\nelectionAlg=3\nelectionPort={}\nquorumPort={}\npeerType={}\n\
             membership: \n{}",
            quorum.init_limit_ticks,
            quorum.sync_limit_ticks,
            quorum.election_ports,
            quorum.quorum_ports,
            u8::from(quorum.observes),
            quorum.membership
        );
    }
    out
}

fn mntr(picture: &Picture) -> String {
    let mut out = String::with_capacity(8192);
    for (name, value) in metrics::lines(picture) {
        let _ = writeln!(out, "zk_{name}\t{value}");
    }
    out
}

fn envi() -> String {
    let mut out = "Environment:\n".to_owned();
    for (name, value) in environment::entries() {
        let _ = writeln!(out, "{name}={value}");
    }
    out
}

fn hash(picture: &Picture) -> String {
    let mut out = String::new();
    for (zxid, digest) in &picture.digests {
        let _ = writeln!(out, "{:x}: {digest}", zxid.0);
    }
    out
}

fn cons(picture: &Picture) -> String {
    let mut out = String::new();
    for connection in &picture.connections {
        connection_line(&mut out, connection, false);
    }
    out.push('\n');
    out
}

/// One line of `stat` (brief) or `cons` (row O76).
fn connection_line(out: &mut String, connection: &ConnectionPicture, brief: bool) {
    let _ = write!(
        out,
        " /{}[{:x}](queued={},recved={},sent={}",
        java_address(connection.peer),
        connection.interest,
        connection.outstanding,
        connection.received,
        connection.sent
    );
    if let (false, Some(session)) = (brief, &connection.session) {
        let _ = write!(
            out,
            ",sid={},lop={},est={},to={}",
            session.id, session.last_operation, session.established_ms, session.timeout_ms
        );
        if session.last_xid >= 0 {
            let _ = write!(out, ",lcxid=0x{:x}", session.last_xid);
        }
        let [last, min, mean, max] = session.latency_ms;
        let _ = write!(
            out,
            ",lzxid={},lresp={},llat={last},minlat={min},avglat={mean},maxlat={max}",
            session.last_zxid, session.last_response_ms
        );
    }
    out.push_str(")\n");
}

/// Address and port as Java prints them: an IPv6 address stands in brackets.
fn java_address(peer: std::net::SocketAddr) -> String {
    let address = address_text(peer.ip());
    match peer.ip().to_canonical() {
        std::net::IpAddr::V4(_) => format!("{address}:{}", peer.port()),
        std::net::IpAddr::V6(_) => format!("[{address}]:{}", peer.port()),
    }
}

fn wchs(picture: &Picture) -> String {
    let total: usize = picture.watches.iter().map(|(_, paths)| paths.len()).sum();
    let paths: std::collections::BTreeSet<&str> =
        picture.watches.iter().flat_map(|(_, paths)| paths).map(String::as_str).collect();
    let watching = picture.watches.iter().filter(|(_, paths)| !paths.is_empty()).count();
    format!("{watching} connections watching {} paths\nTotal watches:{total}\n", paths.len())
}

fn wchc(picture: &Picture) -> String {
    let mut out = String::new();
    for (session, paths) in picture.watches.iter().filter(|(_, paths)| !paths.is_empty()) {
        let _ = writeln!(out, "{session}");
        for path in paths {
            let _ = writeln!(out, "\t{path}");
        }
    }
    out.push('\n');
    out
}

fn wchp(picture: &Picture) -> String {
    let mut by_path: std::collections::BTreeMap<&str, Vec<SessionId>> = std::collections::BTreeMap::new();
    for (session, paths) in &picture.watches {
        for path in paths {
            by_path.entry(path).or_default().push(*session);
        }
    }
    let mut out = String::new();
    for (path, sessions) in by_path {
        let _ = writeln!(out, "{path}");
        for session in sessions {
            let _ = writeln!(out, "\t{session}");
        }
    }
    out.push('\n');
    out
}

fn dump(picture: &Picture) -> String {
    let dump = &picture.sessions_dump;
    let mut out = "SessionTracker dump:\n".to_owned();
    match &dump.global {
        Some(global) => {
            let _ = writeln!(out, "Global Sessions({}):", global.len());
            for (session, timeout_ms) in global {
                let _ = writeln!(out, "{session}\t{timeout_ms}ms");
            }
        }
        None => {
            let sessions: usize = dump.expiring.iter().map(|(_, sessions)| sessions.len()).sum();
            let _ = writeln!(out, "Session Sets ({})/({sessions}):", dump.expiring.len());
            for (expires_ms, sessions) in &dump.expiring {
                let _ = writeln!(out, "{} expire at {}:", sessions.len(), java_date(*expires_ms));
                for session in sessions {
                    let _ = writeln!(out, "\t{session}");
                }
            }
        }
    }
    out.push_str("ephemeral nodes dump:\n");
    let _ = writeln!(out, "Sessions with Ephemerals ({}):", dump.ephemerals.len());
    for (session, paths) in &dump.ephemerals {
        let _ = writeln!(out, "{session}:");
        for path in paths {
            let _ = writeln!(out, "\t{path}");
        }
    }
    // Apache lists its connections by the time at which it would close an idle one. Ours are closed when their
    // session ends, so there are no such times and the list says so with its counts.
    out.push_str("Connections dump:\n");
    let _ = writeln!(out, "Connections Sets (0)/({}):", picture.connections.len());
    for connection in &picture.connections {
        let session = connection.session.as_ref().map_or(SessionId(0), |session| session.id);
        let _ = writeln!(out, "\tip: /{} sessionId: {session}", java_address(connection.peer));
    }
    out
}

/// `java.util.Date.toString` in UTC: `Sun Nov 22 15:47:04 UTC 2026`.
fn java_date(ms: i64) -> String {
    let civil = Civil::of(ms.div_euclid(1000));
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][civil.days.rem_euclid(7) as usize];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[civil.month as usize - 1];
    let Civil { year, day, hour, minute, second, .. } = civil;
    format!("{weekday} {month} {day:02} {hour:02}:{minute:02}:{second:02} UTC {year}")
}

/// Four letters (or six) for an operation, as the `lop` of `cons` (`FinalRequestProcessor`).
pub const fn operation_name(op: OpCode) -> &'static str {
    match op {
        OpCode::Ping => "PING",
        OpCode::CreateSession => "SESS",
        OpCode::Multi => "MULT",
        OpCode::MultiRead => "MLTR",
        OpCode::Create | OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => "CREA",
        OpCode::Delete | OpCode::DeleteContainer => "DELE",
        OpCode::SetData => "SETD",
        OpCode::Reconfig => "RECO",
        OpCode::SetAcl => "SETA",
        OpCode::CloseSession => "CLOS",
        OpCode::Sync => "SYNC",
        OpCode::Check => "CHEC",
        OpCode::Exists => "EXIS",
        OpCode::GetData => "GETD",
        OpCode::SetWatches => "SETW",
        OpCode::SetWatches2 => "STW2",
        OpCode::AddWatch => "ADDW",
        OpCode::GetAcl => "GETA",
        OpCode::GetChildren | OpCode::GetChildren2 => "GETC",
        OpCode::GetAllChildrenNumber => "GETACN",
        OpCode::CheckWatches => "CHKW",
        OpCode::RemoveWatches => "REMW",
        OpCode::WhoAmI => "HOMI",
        OpCode::GetEphemerals => "GETE",
        OpCode::Auth | OpCode::Sasl | OpCode::Error => "NA",
    }
}

#[cfg(test)]
#[path = "four_letter_tests.rs"]
mod tests;
