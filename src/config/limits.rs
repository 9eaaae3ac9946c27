//! Every bound of the server, with its reason, and what happens when it is reached.
//!
//! A queue that is not listed here does not exist: nothing grows without a bound. Operators set some of them through
//! `zoo.cfg` (see [`super::ZooCfg`]); the defaults and the outer limits of those stand here too.

/// Client cores at most: watch masks are one bit per core in a `u64` (design: reads without locks).
pub const CLIENT_CORES_MAX: usize = 63;

/// One client core sits beside the pipeline core unless both share one thread.
pub const CORES_MIN: usize = 1;

/// Submissions that wait between one client core and the pipeline. 64 connections with 64 requests in flight each
/// fit twice; at 200 bytes a request that is below 2 MB a core. Full: the core stops reading the sockets that write.
pub const SUBMIT_LANE_SLOTS: usize = 8192;

/// Commit batches that wait between the pipeline and one client core. A slot is one shared pointer to a batch. Full:
/// the pipeline waits for that core before it commits more; a core that is a quarter full is woken at once.
pub const COMMIT_LANE_SLOTS: usize = 4096;

/// Submissions that the pipeline takes from the lanes in one turn, so that no core starves the others, and so that the
/// first of a thousand requests are on their way to the disk while the last are still prepared (tuning.md, "The
/// pipeline").
pub const SUBMITS_PER_TURN: usize = 256;

/// Submissions after which a client core wakes the pipeline in the middle of its turn. With fewer the pipeline writes
/// batches that are not worth a flush; with more it sleeps while there is work.
pub const SUBMITS_PER_RING: usize = 128;

/// Applied transactions that go to the client cores as one batch, so that they answer the first while the last are still
/// applied.
pub const STEPS_PER_BATCH: usize = 64;

/// Requests whose znodes are fetched into the caches together, before the first of them is prepared or applied: about
/// as many cache misses as a core can have under way.
pub const PREFETCHED: usize = 32;

/// Requests of one connection that are in the server at once, answered or not. kazoo and the Java client pipeline
/// hundreds, Kafka's controller thousands. Full: its socket is not read until an answer leaves.
pub const OUTSTANDING_PER_CONNECTION: usize = 4096;

/// Requests of all connections of one client core that are in the server at once, if `globalOutstandingLimit` does not
/// say otherwise: 256 connections with 64 in flight each. Full: only connections that wait for nothing are read.
pub const OUTSTANDING_PER_CORE: usize = 16_384;

/// Bytes of request bodies that one client core holds at once, so that a few clients with packets of a megabyte cannot
/// fill the memory before the log has taken them. Full: as above.
pub const OUTSTANDING_BYTES_PER_CORE: usize = 64 << 20;

/// Sessions in one submission of touches (row S5).
pub const TOUCHES_PER_SUBMISSION: usize = 1024;

/// Connections that are sent nothing but events in one turn of a client core: a send costs some 5 us, so an event with
/// ten thousand watchers would hold up all other sessions for 50 ms, and so many hold them up for 5 ms. The rest follows
/// in the next turns, between which those who were told read what is new.
pub const TOLD_PER_TURN: usize = 1024;

/// How often in a tick a client core reports which sessions it heard of and looks for connections without a session: a
/// quarter of a tick late is within what the rounding of row S4 forgives.
pub const SWEEPS_PER_TICK: u32 = 4;

/// Milliseconds between two sweeps of a client core after which it takes itself to have been stopped or starved: no
/// connection is closed for having been idle meanwhile. Twice the longest interval of sweeps.
pub const SWEEP_LATE_MS: u64 = 1000;

/// Bytes of answers and events that one connection may leave unread before its socket is not read any more. Reads that
/// were taken in before and wait behind a write are answered later, unless another write waits behind them.
pub const OUT_BUFFER_BYTES_PAUSE: usize = 1 << 20;

/// Bytes of answers and events that one connection may leave unread when one more event or list of ephemeral nodes comes
/// for it; beyond it the connection is closed (row R9: Apache queues without limit). Above the largest single answer
/// that Apache's client accepts, 1 MiB, with room for a burst of events. Reads between two writes of one session, taken
/// in together, are answered up to here; beyond it they wait for the client to read, and may then show the later write.
/// Answers to writes, which are about as long as what was asked, are added beyond it: nothing more is read from such a
/// connection, so its session expires unless the client reads, and with its session it is closed at once.
pub const OUT_BUFFER_BYTES_MAX: usize = 16 << 20;

/// Bytes of connections' buffers that a client core frees between two sweeps before it gives them back to the kernel. A
/// hundred clients that do not read may hold a hundred times as much, and leave at once.
pub const FREED_BYTES_KEPT: usize = 16 << 20;

/// Bytes of the results of one multiRead, if `jute.maxbuffer` does not allow more: what one connection may leave unread.
/// More: the whole is answered by MarshallingError (-5), before anything is copied.
pub const MULTI_READ_BYTES: usize = OUT_BUFFER_BYTES_MAX;

/// The same for a `jute.maxbuffer` of `frame_bytes`: four of the largest values must fit. Clients refuse packets that are
/// much longer than theirs.
pub const fn multi_read_bytes(frame_bytes: usize) -> usize {
    let four = frame_bytes.saturating_mul(4);
    if four > MULTI_READ_BYTES { four } else { MULTI_READ_BYTES }
}

/// Bytes read from one socket at a time: a full frame of the usual sizes, and 512 connections stay within 32 MiB.
pub const READ_CHUNK_BYTES: usize = 64 << 10;

/// `jute.maxbuffer` unless set: largest request packet in bytes (row R1, 0xfffff in Java). Larger: the connection is
/// closed with a log line that names session, path and size.
pub const FRAME_BYTES_DEFAULT: u32 = 0xf_ffff;

/// Small values of `jute.maxbuffer` are obeyed, as Apache obeys them: below 45 no handshake with a password fits, and
/// nobody can connect. So it is with less than nothing, which counts as this.
pub const FRAME_BYTES_MIN: u32 = 0;

/// Above this one request would hold more memory than a whole log segment of the default size.
pub const FRAME_BYTES_MAX: u32 = 64 << 20;

/// Bytes of one flush, so that a burst does not make the first request of the next batch wait for a huge write.
pub const FLUSH_BYTES_MAX: usize = 1 << 20;

/// `preAllocSize` at most, in KiB: 4 GiB of preparation is already a minute of writing on a slow disk.
pub const PREALLOC_KIB_MAX: i64 = 4 << 20;

/// `commitLogCount` at most: each entry keeps its transaction in memory.
pub const COMMIT_LOG_COUNT_MAX: i64 = 10_000_000;

/// `tickTime` at most, in milliseconds: 20 ticks must fit a session timeout of 32 bits.
pub const TICK_MS_MAX: u32 = 100_000_000;

/// Bytes of a whole answer to a four-letter word. `cons` and `wchp` of a large server can be long; beyond this the
/// text ends with a line that says so.
pub const FOUR_LETTER_BYTES_MAX: usize = 64 << 20;

/// Log lines that wait for standard error. Full: lines are dropped and counted, no core waits.
pub const LOG_LINES: usize = 4096;

/// Connections accepted in one turn of a client core, so that a connect storm does not delay established sessions.
pub const ACCEPTS_PER_TURN: usize = 64;

/// Sessions and ephemeral nodes that expire in one turn (row S4 expires whole buckets): 10,000 deaths at once must not
/// hold up the writes of the living. One session with more ephemerals still goes in one turn, since it is one
/// transaction.
pub const EXPIRIES_PER_TURN: usize = 256;

/// File descriptors kept free of client connections, for log, snapshots, peers and figures (row R6). A connection for
/// which none is left besides these is refused as one above `maxCnxns` is.
pub const FILES_RESERVED: u64 = 128;

/// Nanoseconds that the reads of one connection may take before the others have their turn. A thousand short reads take
/// half of it; only lists and counts of very many children take longer, one of them at a time.
pub const TIME_PER_CONNECTION_NS: u64 = 1_000_000;

/// Children from which on a client core keeps the list that it sends, for others who ask for it: fewer are gathered as
/// soon as copied (tuning.md, "The tree").
pub const LIST_KEPT_MIN: usize = 1_000;
/// Lists that one client core keeps. Full: the oldest one goes.
pub const LISTS_MAX: usize = 32;
/// Bytes of the lists that one client core keeps: those of 500,000 children with names of 28 bytes. Full: as above, and
/// a longer list is not kept.
pub const LISTS_BYTES_MAX: usize = 16 << 20;

/// File descriptors of a client core itself, kept free as well: its listener, epoll instance and bell, and one to spare.
pub const FILES_PER_CORE: u64 = 4;

/// `RLIMIT_MEMLOCK` in bytes below which the log's ring may not be had from kernels that charge rings to it.
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Transactions proposed and not yet applied. Sixty-four turns of the pipeline: far more than one flush can hold, and at
/// 200 bytes each some 3 MB. Full: the lanes are not drained until a flush has ended.
pub const PENDING_TRANSACTIONS: usize = 64 * SUBMITS_PER_TURN;

/// Bytes of the newest transactions that a member of an ensemble keeps in memory: what a learner that was away for a
/// moment is sent, and what is not applied yet. 150,000 transactions of 200 bytes.
pub const RECENT_RECORD_BYTES: usize = 32 << 20;

/// Bytes of log before the newest snapshot that a member reads when it starts, so that it can tell others its history
/// from further back than that snapshot. A quarter of a second of reading.
pub const TOLD_LOG_BYTES: u64 = 256 << 20;

/// Requests of a learner's clients that are on their way to the leader. Full: the lanes are not drained until some of
/// them are answered.
pub const FORWARDED_REQUESTS: usize = 65_536;

/// Bytes of their bodies. Full: as above.
pub const FORWARDED_BYTES: usize = 64 << 20;

/// Transactions that are applied between two reigns while clients wait for the second one (S25). More: their connections
/// are closed. As many as may be under way at the end of an epoch.
pub const SUSPENDED_STEPS: usize = PENDING_TRANSACTIONS;

/// Requests of all learners that a leader has not ordered yet; each learner bounds its own. Full: the link that brought
/// one more is closed.
pub const LEARNERS_REQUESTS: usize = 1 << 20;

/// Bytes of their bodies. Full: as above.
pub const LEARNERS_REQUEST_BYTES: usize = 512 << 20;

/// Connections that the kernel may hold before they are accepted. Java's 50 loses connections in a reconnect storm; the
/// kernel caps this at `net.core.somaxconn`.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Sockets of which a client core is told in one turn. The rest waits in the kernel, in its order; answers to the first
/// do not wait for requests of the last.
pub const EVENTS_PER_TURN: usize = 256;

/// Learner connections of one server: as many as `zab` leads at once. More: closed as they come.
pub const QUORUM_LINKS_MAX: usize = 1024;

/// Servers with which this one has election connections, observers without a number included. More: not answered.
pub const ELECTION_PEERS_MAX: usize = 1024;

/// Callers on the election port who have not yet said who they are. More: the oldest is closed.
pub const ELECTION_CALLERS_MAX: usize = 64;

/// Connections of other servers accepted in one turn.
pub const LINK_ACCEPTS_PER_TURN: usize = 64;

/// Connections of other servers that the kernel holds before they are accepted: a whole ensemble that comes at once.
pub const LINK_BACKLOG: i32 = 1024;

/// Bytes read from one socket of another server in one turn: a thousand proposals of the usual size, and 10,000 ACKs.
pub const LINK_READ_BYTES: usize = 256 << 10;

/// Bytes of memory that a learner connection with nothing to send keeps.
pub const LINK_IDLE_BYTES: usize = 16 << 10;

/// Bytes of data of one packet between servers, if `jute.maxbuffer` does not allow more: a PING's answer has 12 for each
/// session that was heard of, and a million of them must fit.
pub const LINK_PACKET_BYTES: usize = 16 << 20;

/// Bytes of packets that have begun and are not whole yet, of all learners together, or 16 times `jute.maxbuffer` where
/// that is more: eight learners with the longest packet each. Full: the link with most of them is closed. A learner that is
/// not served yet has 8 KiB of it at most.
pub const LINKS_KEPT_BYTES: usize = 128 << 20;

/// Bytes that may wait for one learner besides what is read from files for it: a second of full network at 1 Gbit/s.
/// Records are shared, so they count once in memory however many learners are behind. Full: the link is closed, and the
/// learner comes back for what it missed.
pub const LINK_QUEUE_BYTES: usize = 128 << 20;

/// Bytes that a thread reads at a time of what a learner is sent from files.
pub const STREAM_PIECE_BYTES: usize = 256 << 10;

/// The same of history: some tenth of a millisecond of a learner's time.
pub const HISTORY_PIECE_BYTES: usize = 16 << 10;

/// Bytes of history that a learner is sent in a second while clients write: 1,000,000 transactions of 100 bytes take
/// less than four seconds. tuning.md, "A learner that comes back".
pub const HISTORY_BYTES_PER_SECOND: u64 = 72 << 20;

/// Such pieces that wait in memory for one learner. Full: its thread waits.
pub const STREAM_PIECES: usize = 4;

/// Servers whose queues and acknowledgements a leader measures, 8 KiB each; of further ones it tells nothing. Any number may
/// come to the quorum port.
pub const LEARNERS_TIMED: usize = 64;

/// Lookups of names that may hang at once, each on a thread of its own. More: the dial fails and is tried again.
pub const LOOKUPS_MAX: usize = 64;

/// Addresses that are tried in one dial.
pub const DIAL_ADDRESSES_MAX: usize = 32;

const _: () = assert!(OUT_BUFFER_BYTES_PAUSE < OUT_BUFFER_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MIN < FRAME_BYTES_DEFAULT && FRAME_BYTES_DEFAULT < FRAME_BYTES_MAX);
const _: () = assert!(SUBMITS_PER_TURN <= SUBMIT_LANE_SLOTS);
const _: () = assert!(SUBMIT_LANE_SLOTS.is_power_of_two() && COMMIT_LANE_SLOTS.is_power_of_two());
const _: () = assert!(TICK_MS_MAX < u32::MAX / 20);
