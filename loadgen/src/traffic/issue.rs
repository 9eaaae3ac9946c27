//! Writing each operation to a connection.

use super::{Errand, Stage, Traffic};
use crate::{
    clock::Nanos,
    engine::Links,
    keys::put_digits,
    link::{Ask, Link, Phase, Session},
    mix::Pace,
    operation::{
        Mode, Operation, put_create, put_delete, put_multi_end, put_multi_part, put_path, put_read, put_set,
    },
    stamp::Stamp,
};
use zkfast_wire::OpCode;

/// Appends the path of node `number` that connection `link` creates.
pub fn put_created_path(root: &str, link: u64, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(b"/created/c");
    put_digits(link, 5, out);
    out.push(b'-');
    put_digits(number, 9, out);
}

/// Appends the path of a sequential node, without its number.
pub fn put_sequence_path(root: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(b"/sequence/s-");
}

/// Appends the path of the parent of all ephemeral nodes.
pub fn put_ephemeral_directory(root: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(b"/ephemeral");
}

fn put_ephemeral_path(root: &str, link: u64, number: u64, out: &mut Vec<u8>) {
    put_ephemeral_directory(root, out);
    out.extend_from_slice(b"/e");
    put_digits(link, 5, out);
    out.push(b'-');
    put_digits(number, 9, out);
}

/// Appends the path of node `place` of those that connection `link` alone watches.
pub fn put_watched_path(root: &str, link: u64, place: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(b"/watched/w");
    put_digits(link, 5, out);
    out.push(b'-');
    put_digits(place, 3, out);
}

fn put_list_path(root: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(b"/list");
}

impl Traffic {
    /// The stamp of the next value, which no other write of this run has; `value` holds it, cut at its length.
    fn next_stamp(&mut self) -> Stamp {
        let bytes = self.plan.values.choose(&mut self.random);
        self.stamp_of(bytes)
    }

    /// The same for what follows an answer.
    pub(super) fn next_stamp_of_cycle(&mut self) -> Stamp {
        let bytes = self.plan.values.choose(&mut self.random_of_cycles);
        self.stamp_of(bytes)
    }

    fn stamp_of(&mut self, bytes: usize) -> Stamp {
        self.written += 1;
        let stamp = Stamp::new(self.core, self.written, bytes);
        stamp.write(&mut self.value);
        stamp
    }

    /// Writes one operation that needs nothing but this link.
    pub(super) fn issue(&mut self, link: &mut Link, operation: Operation, intended: Nanos, now: Nanos) {
        self.in_flight += 1;
        let ask = |op, key, note| Ask { op, operation, key, note, intended };
        match operation {
            Operation::Set => {
                let key = self.chooser.next(&mut self.random);
                let stamp = self.next_stamp();
                let keys = &self.plan.keys;
                link.request(now, ask(OpCode::SetData, key, stamp.0), |out| {
                    put_set(out, |out| keys.put(key, out), &self.value[..stamp.bytes()]);
                });
            }
            Operation::Get | Operation::Exists => {
                let key = self.chooser.next(&mut self.random);
                let keys = &self.plan.keys;
                let op = if operation == Operation::Get { OpCode::GetData } else { OpCode::Exists };
                link.request(now, ask(op, key, 0), |out| put_read(out, |out| keys.put(key, out), false));
            }
            Operation::Create => self.create(link, operation, intended, now),
            Operation::Delete => {
                let tally = &mut self.tallies[link.index];
                if tally.deleted == tally.created {
                    // Nothing to delete: create what the next delete will take.
                    return self.create(link, Operation::Create, intended, now);
                }
                let number = tally.deleted;
                tally.deleted += 1;
                let (root, connection) = (&self.plan.root, link.number);
                link.request(now, ask(OpCode::Delete, number, 0), |out| {
                    put_delete(out, |out| put_created_path(root, connection, number, out));
                });
            }
            Operation::CreateSequential => {
                let stamp = self.next_stamp();
                let root = &self.plan.root;
                link.request(now, ask(OpCode::Create, 0, stamp.0), |out| {
                    let value = &self.value[..stamp.bytes()];
                    put_create(out, |out| put_sequence_path(root, out), value, Mode::Sequential);
                });
            }
            Operation::Children => {
                let root = &self.plan.root;
                link.request(now, ask(OpCode::GetChildren2, 0, 0), |out| {
                    put_read(out, |out| put_list_path(root, out), false);
                });
            }
            Operation::Multi => self.multi(link, intended, now),
            Operation::Ephemeral => {
                let tally = &mut self.tallies[link.index];
                let exists = tally.ephemeral;
                tally.ephemeral = !exists;
                // A new name each time: after a lost connection nobody knows whether the old node is still there.
                tally.ephemerals += u64::from(!exists);
                let (root, connection, number) = (&self.plan.root, link.number, tally.ephemerals);
                let path = |out: &mut Vec<u8>| put_ephemeral_path(root, connection, number, out);
                if exists {
                    link.request(now, ask(OpCode::Delete, 1, number), |out| put_delete(out, path));
                } else {
                    link.request(now, ask(OpCode::Create, 0, number), |out| {
                        put_create(out, path, b"", Mode::Ephemeral)
                    });
                }
            }
            Operation::Sync => {
                let root = &self.plan.root;
                link.request(now, ask(OpCode::Sync, 0, 0), |out| {
                    put_path(out, |out| out.extend_from_slice(root.as_bytes()));
                });
            }
            Operation::Ping => link.request(now, ask(OpCode::Ping, 0, 0), |_| {}),
            Operation::Session
            | Operation::Watch
            | Operation::Event
            | Operation::Step
            | Operation::Check
            | Operation::Claim => {
                unreachable!("{} is begun elsewhere", operation.name())
            }
        }
    }

    fn create(&mut self, link: &mut Link, operation: Operation, intended: Nanos, now: Nanos) {
        let tally = &mut self.tallies[link.index];
        let number = tally.created;
        tally.created += 1;
        let stamp = self.next_stamp();
        let (root, connection) = (&self.plan.root, link.number);
        let ask = Ask { op: OpCode::Create, operation, key: number, note: stamp.0, intended };
        link.request(now, ask, |out| {
            let path = |out: &mut Vec<u8>| put_created_path(root, connection, number, out);
            put_create(out, path, &self.value[..stamp.bytes()], Mode::Persistent);
        });
    }

    fn multi(&mut self, link: &mut Link, intended: Nanos, now: Nanos) {
        let first = self.chooser.next(&mut self.random);
        let first_stamp = self.next_stamp();
        let parts = self.plan.multi_parts as u64;
        self.written += parts;
        let keys = &self.plan.keys;
        let value = &mut self.value;
        let ask =
            Ask { op: OpCode::Multi, operation: Operation::Multi, key: first, note: first_stamp.0, intended };
        link.request(now, ask, |out| {
            for part in 0..parts {
                // The number of the write is in the low bits.
                Stamp(first_stamp.0 + part).write(value);
                let value = &value[..first_stamp.bytes()];
                put_multi_part(out, OpCode::SetData, |out| {
                    put_set(out, |out| keys.put((first + part) % keys.count, out), value);
                });
            }
            put_multi_end(out);
        });
    }

    /// Looks at the ephemeral node that this connection has just created. Whether it must be there still (and is not
    /// being deleted) is noted.
    pub(super) fn check_ephemeral(&mut self, link: &mut Link, number: u64, now: Nanos) {
        let tally = self.tallies[link.index];
        let must_be = u64::from(tally.ephemeral && tally.ephemerals == number);
        self.in_flight += 1;
        let (root, connection) = (&self.plan.root, link.number);
        let operation = Operation::Check;
        let ask = Ask { op: OpCode::Exists, operation, key: number, note: must_be, intended: now };
        link.request(now, ask, |out| {
            put_read(out, |out| put_ephemeral_path(root, connection, number, out), false);
        });
    }

    /// Opens a connection for one session of the churn, wanted by link `owner` of a closed loop; `false` if all of them
    /// are busy.
    pub(super) fn begin_session(
        &mut self,
        links: &mut Links,
        owner: usize,
        intended: Nanos,
        now: Nanos,
    ) -> bool {
        let churn = links.all.len() - self.regular;
        for _ in 0..churn {
            let index = self.regular + self.churn_cursor;
            self.churn_cursor = (self.churn_cursor + 1) % churn;
            if links.all[index].phase == Phase::Idle {
                let tally = &mut self.tallies[index];
                (tally.session_intended, tally.session_began, tally.session_owner) = (intended, now, owner);
                self.in_flight += 1;
                links.all[index].session = Session::default();
                links.connect(index);
                return true;
            }
        }
        false
    }

    /// Begins the sessions that wait, as far as there are connections for them.
    pub(super) fn begin_waiting_sessions(&mut self, links: &mut Links, now: Nanos) {
        while self.may_begin(now)
            && let Some((owner, since)) = self.waiting_sessions.front().copied()
            && self.begin_session(links, owner, since, now)
        {
            self.waiting_sessions.pop_front();
        }
    }

    /// The churn's session is there: close it.
    pub(super) fn session_ready(&mut self, link: &mut Link, now: Nanos) {
        let tally = self.tallies[link.index];
        link.close_session(tally.session_intended, tally.session_began, now);
    }

    /// A session of the churn is over: whoever had to wait for that goes on.
    pub(super) fn session_over(&mut self, link: usize) {
        let owner = self.tallies[link].session_owner;
        if owner < self.regular {
            let own = &mut self.tallies[owner].own_sessions;
            *own = own.saturating_sub(1);
            self.errands.push(Errand::Refill(owner));
            self.errands.push(Errand::BeginSessions);
        }
    }

    fn may_begin(&self, now: Nanos) -> bool {
        self.stage == Stage::Running && now < self.until()
    }

    /// In a closed loop: an operation of this link is complete, and another takes its place.
    pub(super) fn complete(&mut self, link: &mut Link, now: Nanos) {
        if !matches!(self.plan.pace, Pace::Closed { .. }) || link.index >= self.regular {
            return;
        }
        let tally = &mut self.tallies[link.index];
        tally.own = tally.own.saturating_sub(1);
        self.fill(link, now);
    }

    /// Begins operations on a link of a closed loop until as many are under way as are wanted. A watch cycle is one from
    /// its read to its event, a session from the wish to its end, so that all come as often as the mix says.
    pub(super) fn fill(&mut self, link: &mut Link, now: Nanos) {
        let plan = self.plan.clone();
        let Pace::Closed { mix, in_flight } = &plan.pace else { return };
        let index = link.index;
        if !self.may_begin(now) || !link.is_ready() {
            return;
        }
        while self.tallies[index].waiting_watches > 0
            && let Some(place) = self.watches.free(index)
        {
            self.tallies[index].waiting_watches -= 1;
            self.begin_watch(link, place, now, now);
        }
        // A link with bytes unsent has requests in flight, whose answers come back to this place.
        while self.tallies[index].own + self.tallies[index].own_sessions < *in_flight
            && link.unsent() < self.unsent_limit
        {
            match mix.next(&mut self.random) {
                Operation::Session => {
                    self.tallies[index].own_sessions += 1;
                    self.waiting_sessions.push_back((index, now));
                    self.errands.push(Errand::BeginSessions);
                }
                Operation::Watch => {
                    self.tallies[index].own += 1;
                    match self.watches.free(index) {
                        Some(place) => self.begin_watch(link, place, now, now),
                        None => self.tallies[index].waiting_watches += 1,
                    }
                }
                operation => {
                    self.tallies[index].own += 1;
                    self.issue(link, operation, now, now);
                }
            }
        }
    }
}
