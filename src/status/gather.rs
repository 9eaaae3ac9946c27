//! A collector that travels round all client cores for the four-letter words that need rows from each of them: `stat`,
//! `cons`, `crst`, `wchs`, `wchc`, `wchp` (rows O75-O77, O84).
//!
//! The core that was asked makes it, the pipeline hands it to every core, each adds its rows, and whoever finds that
//! none is missing sends it back to be written out. No core ever reads another's tables.

use crate::cores::messages::ConnectionId;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use zkfast_wire::{SessionId, Zxid};

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GatherKind {
    /// `stat`: a short line per connection, in the middle of the server's own figures.
    Stat,
    /// `cons`: a full line per connection.
    Connections,
    /// `crst`: forget the connections' figures.
    ResetConnections,
    /// `wchs`: how many watch how much.
    WatchSummary,
    /// `wchc`: the paths that each session watches.
    WatchesBySession,
    /// `wchp`: the sessions that watch each path.
    WatchesByPath,
}

/// The figures of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// Remote address.
    pub peer: SocketAddr,
    /// What the server waits for on the socket: 1 to read, 4 to write, as in a Java selection key.
    pub interest: u8,
    /// Answers that are still owed.
    pub queued: u64,
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// The rest of the line, which `cons` alone shows; `None` while there is no session.
    pub session: Option<SessionRow>,
}

/// The figures of a connection's session.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// The session.
    pub session: SessionId,
    /// Short name of the last operation, such as `GETD`.
    pub last_operation: &'static str,
    /// When the connection was made, wall clock, milliseconds since 1970.
    pub established_ms: i64,
    /// Session timeout, milliseconds.
    pub timeout_ms: i32,
    /// xid of the last request; negative ones are not shown.
    pub last_cxid: i32,
    /// zxid of the last reply.
    pub last_zxid: Zxid,
    /// When the last reply was made, milliseconds of the server's monotonic clock.
    pub last_response_ms: u64,
    /// Latency of the last request, milliseconds.
    pub last_latency_ms: u64,
    /// Shortest latency, milliseconds.
    pub min_latency_ms: u64,
    /// Mean latency, milliseconds.
    pub mean_latency_ms: u64,
    /// Longest latency, milliseconds.
    pub max_latency_ms: u64,
}

impl ConnectionRow {
    /// The short line of `stat`, with its line end.
    pub fn write_short(&self, out: &mut String) {
        let Self { peer, interest, queued, received, sent, .. } = self;
        let _ = writeln!(out, " /{peer}[{interest:x}](queued={queued},recved={received},sent={sent})");
    }

    /// The long line of `cons`, with its line end.
    pub fn write_long(&self, out: &mut String) {
        let Self { peer, interest, queued, received, sent, session } = self;
        let _ = write!(out, " /{peer}[{interest:x}](queued={queued},recved={received},sent={sent}");
        if let Some(row) = session {
            let _ = write!(
                out,
                ",sid={},lop={},est={},to={}",
                row.session, row.last_operation, row.established_ms, row.timeout_ms
            );
            if row.last_cxid >= 0 {
                let _ = write!(out, ",lcxid=0x{:x}", row.last_cxid);
            }
            let _ = write!(
                out,
                ",lzxid={},lresp={},llat={},minlat={},avglat={},maxlat={}",
                row.last_zxid,
                row.last_response_ms,
                row.last_latency_ms,
                row.min_latency_ms,
                row.mean_latency_ms,
                row.max_latency_ms
            );
        }
        out.push_str(")\n");
    }
}

/// What one core adds.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// For `stat` and `cons`.
    pub connections: Vec<ConnectionRow>,
    /// For `wchs`, `wchc` and `wchp`: who watches what through the data table (W25).
    pub watches: Vec<(SessionId, Box<str>)>,
}

/// The collector.
#[derive(Debug)]
pub struct Gather {
    kind: GatherKind,
    origin: ConnectionId,
    missing: AtomicUsize,
    rows: Mutex<Rows>,
}

impl Gather {
    /// An empty collector for `cores` client cores, to be answered on `origin`.
    ///
    /// # Panics
    /// If there are no cores: nobody could ever send it back.
    pub fn new(kind: GatherKind, origin: ConnectionId, cores: usize) -> Self {
        assert!(cores > 0, "somebody must add the last rows");
        Self { kind, origin, missing: AtomicUsize::new(cores), rows: Mutex::default() }
    }

    /// What is asked for.
    pub fn kind(&self) -> GatherKind {
        self.kind
    }

    /// The connection that asked.
    pub fn origin(&self) -> ConnectionId {
        self.origin
    }

    /// Adds a core's rows; each core calls this exactly once. True for the last, which then sends the collector back.
    pub fn add(&self, mut rows: Rows) -> bool {
        {
            let mut all = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
            all.connections.append(&mut rows.connections);
            all.watches.append(&mut rows.watches);
        }
        self.missing.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Takes the rows out and renders them: the whole answer, but for `stat` only the lines of its connections.
    pub fn render(&self) -> String {
        let rows = std::mem::take(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner));
        let mut out = String::new();
        match self.kind {
            GatherKind::Stat => rows.connections.iter().for_each(|row| row.write_short(&mut out)),
            GatherKind::Connections => {
                rows.connections.iter().for_each(|row| row.write_long(&mut out));
                out.push('\n');
            }
            GatherKind::ResetConnections => out.push_str("Connection stats reset.\n"),
            GatherKind::WatchSummary => {
                let sessions: BTreeSet<_> = rows.watches.iter().map(|(session, _)| session.0).collect();
                let paths: BTreeSet<_> = rows.watches.iter().map(|(_, path)| path).collect();
                let _ = writeln!(out, "{} connections watching {} paths", sessions.len(), paths.len());
                let _ = writeln!(out, "Total watches:{}", rows.watches.len());
            }
            GatherKind::WatchesBySession => {
                let mut by_session = BTreeMap::<i64, Vec<&str>>::new();
                for (session, path) in &rows.watches {
                    by_session.entry(session.0).or_default().push(path);
                }
                for (session, paths) in by_session {
                    let _ = writeln!(out, "{}", SessionId(session));
                    paths.iter().for_each(|path| drop(writeln!(out, "\t{path}")));
                }
                out.push('\n');
            }
            GatherKind::WatchesByPath => {
                let mut by_path = BTreeMap::<&str, Vec<SessionId>>::new();
                for (session, path) in &rows.watches {
                    by_path.entry(path).or_default().push(*session);
                }
                for (path, sessions) in by_path {
                    let _ = writeln!(out, "{path}");
                    sessions.iter().for_each(|session| drop(writeln!(out, "\t{session}")));
                }
                out.push('\n');
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: ConnectionId = ConnectionId { core: 1, slot: 2, generation: 3 };

    #[test]
    fn the_last_core_sends_it_back() {
        let gather = Gather::new(GatherKind::Connections, ORIGIN, 3);
        assert!(!gather.add(Rows::default()));
        assert!(!gather.add(Rows::default()));
        assert!(gather.add(Rows::default()));
        assert_eq!(gather.origin(), ORIGIN);
    }

    #[test]
    fn lines_have_the_shape_that_dashboards_parse() {
        let mut row = ConnectionRow {
            peer: "127.0.0.1:4711".parse().unwrap(),
            interest: 1,
            queued: 0,
            received: 12,
            sent: 13,
            session: None,
        };
        let mut out = String::new();
        row.write_short(&mut out);
        assert_eq!(out, " /127.0.0.1:4711[1](queued=0,recved=12,sent=13)\n");
        row.session = Some(SessionRow {
            session: SessionId(0x100),
            last_operation: "PING",
            established_ms: 17,
            timeout_ms: 30_000,
            last_cxid: -2,
            last_zxid: Zxid(0x2a),
            last_response_ms: 99,
            last_latency_ms: 0,
            min_latency_ms: 0,
            mean_latency_ms: 1,
            max_latency_ms: 7,
        });
        out.clear();
        row.write_long(&mut out);
        assert_eq!(
            out,
            " /127.0.0.1:4711[1](queued=0,recved=12,sent=13,sid=0x100,lop=PING,est=17,to=30000,lzxid=0x2a,lresp=99,\
             llat=0,minlat=0,avglat=1,maxlat=7)\n"
        );
    }

    #[test]
    fn watches_are_counted_and_grouped_across_cores() {
        let render = |kind| {
            let gather = Gather::new(kind, ORIGIN, 2);
            let watch = |session, path: &str| (SessionId(session), Box::from(path));
            gather.add(Rows { watches: vec![watch(2, "/a"), watch(2, "/b")], ..Rows::default() });
            gather.add(Rows { watches: vec![watch(1, "/a")], ..Rows::default() });
            gather.render()
        };
        assert_eq!(render(GatherKind::WatchSummary), "2 connections watching 2 paths\nTotal watches:3\n");
        assert_eq!(render(GatherKind::WatchesBySession), "0x1\n\t/a\n0x2\n\t/a\n\t/b\n\n");
        assert_eq!(render(GatherKind::WatchesByPath), "/a\n\t0x2\n\t0x1\n/b\n\t0x2\n\n");
    }
}
