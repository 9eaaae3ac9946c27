//! A leader whose disk takes nothing gives its leadership up (ZOOKEEPER-2247), if the others are a quorum without it: they
//! may have room, and disks that work. Apache's leader ends with an exception where its disk is full, and goes on leading
//! where it hangs.
//!
//! - *Full*: once for each shortage. Where all disks are full whoever is elected next leads on and refuses writes, as a
//!   server alone does, and reads go on.
//! - *Hanging*: a flush that has completed nothing for syncLimit. A short write hangs the pipeline itself, and its silence
//!   ends the reign; a long one hangs the thread that writes it, and nobody else would notice.

use super::Pipeline;
use crate::pipeline::Duty;
use zkfast_wire::Zxid;
use zkfast_zab::{Event, Trouble};

/// What is known of the disk of a member's log.
#[derive(Debug, Default)]
pub(super) struct DiskWatch {
    /// This shortage has cost the leadership already.
    gave_up_for_space: bool,
    /// Durable so far, with more to come, and since when nothing was added; milliseconds of the server's clock.
    stuck: Option<(Zxid, u64)>,
}

impl DiskWatch {
    /// How long nothing was completed though something is to be written, milliseconds.
    fn stuck_ms(&mut self, appended: Zxid, durable: Zxid, now_ms: u64) -> u64 {
        if durable >= appended {
            self.stuck = None;
            return 0;
        }
        let since = self.stuck.filter(|(before, _)| *before == durable);
        let (_, since_ms) = *self.stuck.insert(since.unwrap_or((durable, now_ms)));
        now_ms.saturating_sub(since_ms)
    }
}

impl Pipeline {
    /// With each tick of the node.
    pub(super) fn look_after_disk(&mut self) {
        let is_short = self.is_short_of_space();
        let (now_ms, appended, durable) = (self.clock.now_ms(), self.node.appended(), self.log.durable());
        let member = self.the_member();
        let config = &member.options.config;
        let hangs_ms = config.tick_ms * config.sync_limit_ticks;
        let hangs = member.disk.stuck_ms(appended, durable, now_ms) >= hangs_ms;
        member.disk.gave_up_for_space &= is_short;
        let is_new = is_short && !member.disk.gave_up_for_space;
        if self.duty != Duty::Orders {
            return;
        }
        if hangs {
            self.give_up(Trouble::DiskHangs);
        } else if is_new && self.give_up(Trouble::DiskFull) {
            self.the_member().disk.gave_up_for_space = true;
        }
    }

    /// Steps down, if the others can do without this server; whether it did.
    fn give_up(&mut self, because: Trouble) -> bool {
        self.step(Event::GiveUp { because });
        let gave_up = self.duty != Duty::Orders;
        if gave_up {
            self.counters.leaderships_given_up.increment();
            log::warn!("gave the leadership up to the others: {because}");
        }
        gave_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::member::fixture::Fixture;

    /// Danger: a disk that is slow, and gets on, is taken for one that hangs.
    #[test]
    fn a_disk_hangs_when_nothing_is_completed() {
        let mut watch = DiskWatch::default();
        let mut check = |appended, durable, now_ms, expected| {
            assert_eq!(watch.stuck_ms(Zxid(appended), Zxid(durable), now_ms), expected, "at {now_ms} ms");
        };
        check(5, 5, 100, 0);
        check(6, 5, 200, 0);
        check(7, 5, 900, 700);
        check(8, 6, 1000, 0);
        check(8, 6, 1500, 500);
        check(8, 8, 1600, 0);
        check(9, 8, 9000, 0);
        check(9, 8, 9001, 1);
    }

    /// ZOOKEEPER-2247. Danger: a leader that gave up for a full disk once never does again, however often its disk is full.
    #[test]
    fn a_shortage_that_is_over_counts_no_more() {
        let mut fixture = Fixture::new(1);
        let shared = fixture.use_up_the_log();
        fixture.pipeline.the_member().disk.gave_up_for_space = true;
        shared.find_room_after(1);
        fixture.pipeline.look_after_disk();
        assert!(fixture.pipeline.the_member().disk.gave_up_for_space, "it is full still");
        fixture.pipeline.look_after_disk();
        assert!(!fixture.pipeline.the_member().disk.gave_up_for_space, "there is room");
    }
}
