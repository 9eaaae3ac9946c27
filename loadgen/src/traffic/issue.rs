//! Writing each operation to a connection.

use super::{Errand, Traffic};
use crate::{
    clock::Nanos,
    engine::Links,
    keys::put_digits,
    link::{Ask, Link, Phase, Session},
    operation::{
        Mode, Operation, put_create, put_delete, put_multi_end, put_multi_part, put_path, put_read, put_set,
    },
};
use zkfast_wire::{OpCode, Zxid};

/// Bytes of a value that name the write it came from.
const STAMP_BYTES: usize = 8;

/// Appends the path of node `number` that connection `link` creates.
pub fn put_created_path(root: &str, link: u64, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(b"/created/c");
    put_digits(link, 5, out);
    out.push(b'-');
    put_digits(number, 9, out);
}

fn put_ephemeral_path(root: &str, link: u64, number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(b"/ephemeral/e");
    put_digits(link, 5, out);
    out.push(b'-');
    put_digits(number, 9, out);
}

/// Appends the path of the node that connection `link` alone watches.
pub fn put_watched_path(root: &str, link: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(b"/watched/w");
    put_digits(link, 5, out);
}

fn put_list_path(root: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(root.as_bytes());
    out.extend_from_slice(b"/list");
}

impl Traffic {
    /// A value of the next size, with a stamp that no other write of this run has.
    fn next_value(&mut self) -> (u64, usize) {
        self.stamp += 1;
        stamp(&mut self.value, self.stamp);
        (self.stamp, self.plan.values.choose(&mut self.random))
    }

    /// Writes one operation that needs nothing but this link.
    pub(super) fn issue(&mut self, link: &mut Link, operation: Operation, intended: Nanos, now: Nanos) {
        self.in_flight += 1;
        let ask = |op, key, note| Ask { op, operation, key, note, intended };
        match operation {
            Operation::Set => {
                let key = self.chooser.next(&mut self.random);
                let (stamp, bytes) = self.next_value();
                let keys = &self.plan.keys;
                link.request(now, ask(OpCode::SetData, key, stamp), |out| {
                    put_set(out, |out| keys.put(key, out), &self.value[..bytes]);
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
                let (_, bytes) = self.next_value();
                let root = &self.plan.root;
                link.request(now, ask(OpCode::Create, 0, 0), |out| {
                    let path = |out: &mut Vec<u8>| {
                        out.extend_from_slice(root.as_bytes());
                        out.extend_from_slice(b"/sequence/s-");
                    };
                    put_create(out, path, &self.value[..bytes], Mode::Sequential);
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
                    link.request(now, ask(OpCode::Delete, 1, 0), |out| put_delete(out, path));
                } else {
                    link.request(now, ask(OpCode::Create, 0, 0), |out| {
                        put_create(out, path, b"", Mode::Ephemeral)
                    });
                }
            }
            Operation::Watch => {
                let tally = &mut self.tallies[link.index];
                tally.watching = true;
                tally.watch_set = 0;
                // Until the answer says at which zxid the watch was left, nothing can be newer than it.
                tally.watch_zxid = Zxid(i64::MAX);
                let (root, connection) = (&self.plan.root, link.number);
                link.request(now, ask(OpCode::GetData, 0, 0), |out| {
                    put_read(out, |out| put_watched_path(root, connection, out), true);
                });
            }
            Operation::Sync => {
                let root = &self.plan.root;
                link.request(now, ask(OpCode::Sync, 0, 0), |out| {
                    put_path(out, |out| out.extend_from_slice(root.as_bytes()));
                });
            }
            Operation::Ping => link.request(now, ask(OpCode::Ping, 0, 0), |_| {}),
            Operation::Session | Operation::Event | Operation::Step => {
                unreachable!("{} is not sent on one link", operation.name())
            }
        }
    }

    fn create(&mut self, link: &mut Link, operation: Operation, intended: Nanos, now: Nanos) {
        let tally = &mut self.tallies[link.index];
        let number = tally.created;
        tally.created += 1;
        let (_, bytes) = self.next_value();
        let (root, connection) = (&self.plan.root, link.number);
        let ask = Ask { op: OpCode::Create, operation, key: number, note: 0, intended };
        link.request(now, ask, |out| {
            let path = |out: &mut Vec<u8>| put_created_path(root, connection, number, out);
            put_create(out, path, &self.value[..bytes], Mode::Persistent);
        });
    }

    fn multi(&mut self, link: &mut Link, intended: Nanos, now: Nanos) {
        let first = self.chooser.next(&mut self.random);
        let (first_stamp, bytes) = self.next_value();
        let parts = self.plan.multi_parts as u64;
        self.stamp += parts;
        let keys = &self.plan.keys;
        let value = &mut self.value;
        let ask =
            Ask { op: OpCode::Multi, operation: Operation::Multi, key: first, note: first_stamp, intended };
        link.request(now, ask, |out| {
            for part in 0..parts {
                stamp(value, first_stamp + part);
                put_multi_part(out, OpCode::SetData, |out| {
                    put_set(out, |out| keys.put((first + part) % keys.count, out), &value[..bytes]);
                });
            }
            put_multi_end(out);
        });
    }

    /// Sets the node that link `index` watches, from its neighbour.
    pub(super) fn set_watched(&mut self, links: &mut Links, index: usize, now: Nanos) {
        let neighbour = if index + 1 == self.regular { 0 } else { index + 1 };
        let writer = [neighbour, index].into_iter().find(|at| links.all[*at].is_ready());
        let Some(writer) = writer else {
            self.tallies[index].watching = false;
            return;
        };
        let connection = links.all[index].number;
        self.stamp += 1;
        let (stamp, bytes) = (self.stamp, self.plan.values.choose(&mut self.random_of_cycles));
        self::stamp(&mut self.value, stamp);
        self.tallies[index].watch_set = now;
        self.in_flight += 1;
        let root = &self.plan.root;
        // The key is the watching link, so that the answer finds it.
        let ask = Ask {
            op: OpCode::SetData,
            operation: Operation::Set,
            key: u64::MAX - index as u64,
            note: stamp,
            intended: now,
        };
        links.to_write(writer).request(now, ask, |out| {
            put_set(out, |out| put_watched_path(root, connection, out), &self.value[..bytes]);
        });
    }

    /// Reads the node that this link watched, to see whether the new value overtakes the event.
    pub(super) fn read_watched(&mut self, link: &mut Link, now: Nanos) {
        self.in_flight += 1;
        let (root, connection) = (&self.plan.root, link.number);
        let ask =
            Ask { op: OpCode::GetData, operation: Operation::Get, key: u64::MAX, note: 0, intended: now };
        link.request(now, ask, |out| put_read(out, |out| put_watched_path(root, connection, out), false));
    }

    /// Opens a connection for one session of the churn; `false` if all of them are busy.
    pub(super) fn begin_session(&mut self, links: &mut Links, intended: Nanos) -> bool {
        let churn = links.all.len() - self.regular;
        for _ in 0..churn {
            let index = self.regular + self.churn_cursor;
            self.churn_cursor = (self.churn_cursor + 1) % churn;
            if links.all[index].phase == Phase::Idle {
                self.tallies[index].session_intended = intended;
                self.in_flight += 1;
                links.all[index].session = Session::default();
                links.connect(index);
                return true;
            }
        }
        false
    }

    /// The churn's session is there: close it.
    pub(super) fn session_ready(&mut self, link: &mut Link, now: Nanos) {
        link.close_session(self.tallies[link.index].session_intended, now);
    }

    /// The next request of a closed loop, on the link that just answered one.
    pub(super) fn next_of_closed_loop(&mut self, link: &mut Link, now: Nanos) {
        let crate::mix::Pace::Closed { mix, in_flight } = &self.plan.pace else { return };
        // The set and the read of a watch cycle come on top; their answers must not beget requests of their own.
        if link.index >= self.regular {
            // A session was opened or closed: whoever had to wait for that goes on.
            return self.errands.push(Errand::Refill(link.index % self.regular));
        }
        if !link.is_ready() || link.in_flight.len() >= *in_flight {
            return;
        }
        let operation = mix.next(&mut self.random);
        match operation {
            Operation::Session | Operation::Watch => self.errands.push(Errand::Begin(link.index, operation)),
            _ => self.issue(link, operation, now, now),
        }
    }
}

fn stamp(value: &mut [u8], stamp: u64) {
    if let Some(room) = value.get_mut(..STAMP_BYTES) {
        room.copy_from_slice(&stamp.to_be_bytes());
    }
}
