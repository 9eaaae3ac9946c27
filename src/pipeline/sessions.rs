//! Who is connected where, and who has not been heard of for too long.
//!
//! The sessions themselves are replicated state and live in the tree; here is what only the server that expires them
//! knows: the connection of each session and the bucket in which it runs out.

use super::{Duty, Pipeline, PipelineOptions};
use crate::{
    config::limits,
    cores::messages::{CloseReason, ConnectionId, Delivery, Touched},
    status::picture::SessionsDump,
};
use std::collections::{HashMap, HashSet};
use zkfast_tree::{
    Tree,
    session::{self, ExpiryQueue},
};
use zkfast_wire::SessionId;

/// Connections and deadlines of the sessions.
#[derive(Debug)]
pub(super) struct SessionTable {
    connections: HashMap<SessionId, ConnectionId>,
    /// Sessions that came in on another server while their connection here stands, and when; milliseconds of the server's
    /// clock.
    moved: HashMap<SessionId, u64>,
    expiry: ExpiryQueue,
    /// Sessions whose end has been proposed and is not applied yet: nothing revives them.
    closing: HashSet<SessionId>,
    next_id: SessionId,
    tick_ms: i64,
    /// When sessions were last looked at, milliseconds of the server's clock.
    expired_at_ms: u64,
    /// Sessions with a deadline up to here are being closed, a few a turn.
    expire_until_ms: Option<u64>,
}

impl SessionTable {
    /// An empty table whose ids start where S1 says.
    pub(super) fn new(options: &PipelineOptions, machine_ms: i64) -> Self {
        Self {
            connections: HashMap::new(),
            moved: HashMap::new(),
            expiry: ExpiryQueue::new(i64::from(options.tick_ms)),
            closing: HashSet::new(),
            next_id: session::first_id(options.server_id, machine_ms),
            tick_ms: i64::from(options.tick_ms),
            expired_at_ms: 0,
            expire_until_ms: None,
        }
    }

    /// Forgets everybody: this server has no role.
    pub(super) fn clear(&mut self) {
        *self = Self {
            connections: HashMap::new(),
            moved: HashMap::new(),
            expiry: ExpiryQueue::new(self.tick_ms),
            closing: HashSet::new(),
            next_id: self.next_id,
            expired_at_ms: 0,
            expire_until_ms: None,
            tick_ms: self.tick_ms,
        };
    }

    /// Forgets every deadline: this server does not expire sessions for the moment, and keeps their connections.
    pub(super) fn forget_deadlines(&mut self) {
        self.expiry = ExpiryQueue::new(self.tick_ms);
        self.closing.clear();
        self.expire_until_ms = None;
    }

    /// Gives every session of a recovered tree its full timeout from now (S8).
    pub(super) fn track_all(&mut self, tree: &Tree, now_ms: u64) {
        self.expired_at_ms = now_ms;
        for (session, timeout_ms) in tree.sessions().iter() {
            self.expiry.touch(session, timeout_ms, now_ms.cast_signed());
        }
    }

    /// A session id that no session has: ids are only probably unique across reboots of the machine (S1).
    pub(super) fn new_id(&mut self, tree: &Tree) -> SessionId {
        loop {
            let id = self.next_id;
            self.next_id = SessionId(id.0.wrapping_add(1));
            // 0 means "none" and the smallest value marks containers.
            if id.0 != 0 && id.0 != i64::MIN && tree.sessions().timeout_ms(id).is_none() {
                return id;
            }
        }
    }

    /// Notes that a session lives on this connection, and returns the one it lived on before.
    pub(super) fn connect(
        &mut self,
        session: SessionId,
        connection: ConnectionId,
        timeout_ms: i32,
        now_ms: u64,
    ) -> Option<ConnectionId> {
        self.expiry.touch(session, timeout_ms, now_ms.cast_signed());
        self.connect_only(session, connection)
    }

    /// The same on a learner, where no session expires.
    pub(super) fn connect_only(
        &mut self,
        session: SessionId,
        connection: ConnectionId,
    ) -> Option<ConnectionId> {
        self.moved.remove(&session);
        self.connections.insert(session, connection).filter(|earlier| *earlier != connection)
    }

    /// Whether the session has a connection here.
    pub(super) fn is_connected(&self, session: SessionId) -> bool {
        self.connections.contains_key(&session)
    }

    /// Adds or renews the deadline of a session that lives on another server.
    pub(super) fn track(&mut self, session: SessionId, timeout_ms: i32, now_ms: u64) {
        self.expiry.touch(session, timeout_ms, now_ms.cast_signed());
    }

    /// The session came in on another server. A connection that it has here stays until its client speaks on it.
    pub(super) fn moved_away(&mut self, session: SessionId, timeout_ms: i32, now_ms: u64) {
        self.track(session, timeout_ms, now_ms);
        if self.connections.contains_key(&session) {
            self.moved.insert(session, now_ms);
        }
    }

    /// Whether it came over a connection that the session had left by then.
    fn is_left(&self, touch: &Touched) -> bool {
        self.is_current(touch)
            && self.moved.get(&touch.session).is_some_and(|moved_ms| touch.at_ms > *moved_ms)
    }

    /// Forgets where the session lives; returns the connection that it had here.
    pub(super) fn forget(&mut self, session: SessionId) -> Option<ConnectionId> {
        self.moved.remove(&session);
        self.connections.remove(&session)
    }

    /// Forgets a closed connection, unless the session has moved to another one meanwhile.
    pub(super) fn disconnect(&mut self, session: SessionId, connection: ConnectionId) {
        if self.connections.get(&session) == Some(&connection) {
            self.forget(session);
        }
    }

    /// A transaction that ends the session is on its way: it cannot expire a second time.
    pub(super) fn closing(&mut self, session: SessionId) {
        self.expiry.remove(session);
        self.closing.insert(session);
    }

    /// The session is gone.
    pub(super) fn closed(&mut self, session: SessionId) {
        self.expiry.remove(session);
        self.closing.remove(&session);
        self.forget(session);
    }

    /// Whether it came over the connection on which the session lives, as far as is known.
    pub(super) fn is_current(&self, touch: &Touched) -> bool {
        self.connections.get(&touch.session).is_none_or(|current| *current == touch.connection)
    }

    /// Whether the session exists and will go on existing.
    pub(super) fn is_alive(&self, session: SessionId, tree: &Tree) -> bool {
        tree.sessions().contains(session) && !self.closing.contains(&session)
    }
}

impl Pipeline {
    /// A client that names its session: right password and alive, or refused (C9, C10, S2).
    pub(super) fn resume_session(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        password: &[u8; 16],
        timeout_ms: i32,
    ) {
        let core = usize::from(connection.core);
        if !self.sessions.is_alive(session, &self.tree) || session::password(session) != *password {
            self.cores[core].push_and_kick(Delivery::Refused { connection });
            return;
        }
        let earlier = self.sessions.connect(session, connection, timeout_ms, self.clock.now_ms());
        self.own_here(session);
        self.welcome(connection, earlier, session, timeout_ms);
    }

    /// The session of this connection goes on elsewhere (C12).
    pub(super) fn close_moved(&mut self, earlier: ConnectionId) {
        let delivery = Delivery::Close { connection: earlier, reason: CloseReason::SessionMoved };
        self.cores[usize::from(earlier.core)].push_and_kick(delivery);
    }

    /// The session goes on over this connection, and its earlier one is closed (C12).
    pub(super) fn welcome(
        &mut self,
        connection: ConnectionId,
        earlier: Option<ConnectionId>,
        session: SessionId,
        timeout_ms: i32,
    ) {
        if let Some(earlier) = earlier {
            self.close_moved(earlier);
        }
        let resumed = Delivery::Resumed { connection, session, timeout_ms };
        self.cores[usize::from(connection.core)].push_and_kick(resumed);
    }

    /// Moves the deadlines of sessions that were heard of. One that is closing is not revived.
    pub(super) fn touch(&mut self, touched: &[Touched]) {
        for touch in touched {
            if !self.sessions.is_alive(touch.session, &self.tree) {
                // If its client ends it, that is to be answered.
                continue;
            }
            if self.sessions.is_left(touch) {
                self.close_moved(touch.connection);
            } else if self.sessions.is_current(touch) && !self.is_elsewhere(touch.session) {
                self.sessions.expiry.touch(touch.session, touch.timeout_ms, touch.at_ms.cast_signed());
            }
        }
    }

    /// Hears the touches that wait in the lanes before anybody is declared dead: after a pause of the whole process
    /// the sessions that did speak must not expire for want of our listening.
    pub(super) fn drain_touches(&mut self) {
        // Bounded: the lanes hold a bounded number, and what is drained leads to work that backs up.
        while !self.is_backed_up() && self.drain_submissions() {}
    }

    /// Looks at the clock, once a tick: whether sessions should be closed in the following turns.
    pub(super) fn look_for_expired(&mut self) {
        let now_ms = self.clock.now_ms();
        let since_ms = now_ms - self.sessions.expired_at_ms;
        self.sessions.expired_at_ms = now_ms;
        if since_ms > 2 * u64::from(self.options.tick_ms) {
            // The whole process stood still (SIGSTOP, a suspended machine). The pings of the meantime lie unread in
            // the sockets: hear them first, decide at the next tick.
            log::warn!("the server stood still for {since_ms} ms: no session expires in this tick");
            return;
        }
        self.sessions.expire_until_ms = Some(now_ms);
    }

    /// Closes what ran out, a bounded number a turn, so that a storm of expiries does not stall the others; whether
    /// there was anything.
    pub(super) fn expire_sessions(&mut self) -> bool {
        let Some(until_ms) = self.sessions.expire_until_ms else { return false };
        if self.duty != Duty::Orders || self.is_backed_up() {
            return false;
        }
        self.roll_over();
        // What a session leaves behind is deleted with it, and takes its time too.
        let mut deaths = 0;
        while deaths < limits::EXPIRIES_PER_TURN && !self.is_backed_up() && self.node.next_zxid().is_some() {
            let Some(&session) = self.sessions.expiry.pop_expired(until_ms.cast_signed(), 1).first() else {
                self.sessions.expire_until_ms = None;
                break;
            };
            if self.await_reserve(0) && !self.has_room_for_end(session) {
                // It gets another timeout: until then there may be room.
                if let Some(timeout_ms) = self.tree.sessions().timeout_ms(session) {
                    self.sessions.track(session, timeout_ms, self.clock.now_ms());
                }
                deaths += 1;
                continue;
            }
            log::info!("session {session} expired");
            self.counters.sessions_expired.increment();
            deaths += 1 + self.tree.ephemerals_of(session).count();
            self.close_session(session);
        }
        deaths > 0
    }

    /// Sessions by the time at which they run out, and their ephemerals: for the word `dump` (row O83). Copies names
    /// only; a hundred thousand sessions hold the pipeline up for some milliseconds. `begin_ms` is where the server's clock
    /// begins, in milliseconds since 1970.
    pub(super) fn sessions_dump(&self, begin_ms: i64) -> SessionsDump {
        let paths = |session| self.tree.ephemerals_of(session).map(str::to_owned).collect();
        let global = (self.duty == Duty::Forwards).then(|| {
            let mut sessions: Vec<_> = self.tree.sessions().iter().collect();
            sessions.sort_unstable();
            sessions
        });
        SessionsDump {
            global,
            expiring: self
                .sessions
                .expiry
                .buckets()
                .map(|(deadline_ms, sessions)| (deadline_ms + begin_ms, sessions))
                .collect(),
            ephemerals: self
                .tree
                .ephemeral_owners()
                .into_iter()
                .map(|session| (session, paths(session)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SessionTable;
    use crate::{
        cores::clock,
        pipeline::{Pipeline, StopFlag, member::fixture::Fixture},
    };
    use std::time::{Duration, Instant};
    use zkfast_wire::SessionId;

    /// R16. Danger: somebody corrects the machine's clock, and all sessions expire at once, or none any more. Transactions do
    /// have the new time (T15), which shows that the clock leapt.
    #[test]
    fn a_leap_of_the_wall_clock_expires_nobody_early_or_late() {
        const TICK_MS: u32 = 100;
        const TIMEOUT: Duration = Duration::from_millis(300);
        const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;
        const PATIENCE: Duration = Duration::from_secs(30);
        let (session, stop) = (SessionId(5), StopFlag::default());
        for leap_ms in [YEAR_MS, -YEAR_MS] {
            let mut fixture = Fixture::new(0);
            fixture.make_session(session, TIMEOUT.as_millis() as i32);
            let pipeline = fixture.alone();
            pipeline.options.tick_ms = TICK_MS;
            pipeline.next_tick_ms = 0;
            pipeline.sessions = SessionTable::new(&pipeline.options, 1);
            pipeline.sessions.track_all(&pipeline.tree, pipeline.clock.now_ms());
            let begun = Instant::now();
            let turn = |pipeline: &mut Pipeline| pipeline.work(&stop).map(|_| ()).expect("a disk");
            turn(pipeline);
            let before_ms = pipeline.wall_ms;
            clock::leap(leap_ms);
            while pipeline.tree.sessions().contains(session) {
                assert!(begun.elapsed() < PATIENCE, "{leap_ms} ms: it never expires");
                turn(pipeline);
            }
            // Counted from a millisecond that had begun before.
            let lived = begun.elapsed() + Duration::from_millis(1);
            assert!(lived >= TIMEOUT, "{leap_ms} ms: gone after {lived:?}");
            let leapt_ms = pipeline.wall_ms - before_ms;
            assert!(
                (leapt_ms - leap_ms).abs() < YEAR_MS / 2,
                "{leapt_ms} ms: transactions have the new time"
            );
            clock::leap(-leap_ms);
        }
    }

    /// Danger: after a pause of the whole process (SIGSTOP, a suspended machine) sessions expire whose clients have spoken
    /// all the time: what they said lies unread in the sockets.
    #[test]
    fn after_a_pause_of_the_process_nobody_expires_in_the_first_tick() {
        let mut pipeline = Fixture::new(0).pipeline;
        // The last look was at 0 and the clock begins at 1: with ticks of no length that was long ago.
        pipeline.options.tick_ms = 0;
        pipeline.look_for_expired();
        assert_eq!(pipeline.sessions.expire_until_ms, None);
        let looked_ms = pipeline.sessions.expired_at_ms;
        assert!(looked_ms > 0, "the next tick is measured from this one");
        pipeline.options.tick_ms = 1_000_000;
        pipeline.look_for_expired();
        assert!(pipeline.sessions.expire_until_ms >= Some(looked_ms));
    }
}
