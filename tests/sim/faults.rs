//! What goes wrong, and how it ends.

use crate::{
    checks::Check,
    clients::Clients,
    plan::Fault,
    world::{Deed, INIT_LIMIT_TICKS, SYNC_LIMIT_TICKS, TICK_MS, What, Whom, World},
};
use zkfast_zab::{Role, Service, quorum::Voters};

impl World {
    pub fn deed(&mut self, deed: Deed) -> Check {
        match deed {
            Deed::Start(server) => return self.start(server),
            Deed::Heal => self.heal(),
            Deed::EndFaults => return self.end_faults(),
            Deed::Fault if self.faults_on && !self.plan.faults.is_empty() => {
                let fault = *self.rng.pick(&self.plan.faults.clone());
                self.fault(fault);
                let every_us = self.plan.fault_every_us;
                let delay_us = self.rng.below(2 * every_us);
                self.after(delay_us, Whom::World(Deed::Fault), What::Tick);
            }
            Deed::Load if self.faults_on => {
                let server = self.any_server();
                let whom = self.whom(server);
                self.after(0, whom, What::Client);
                if self.next_payload.is_multiple_of(self.plan.snapshot_every) {
                    self.after(0, whom, What::Snapshot);
                }
                let delay_us = self.rng.below(2 * self.plan.write_every_us);
                self.after(delay_us, Whom::World(Deed::Load), What::Tick);
            }
            Deed::Fault | Deed::Load => {}
        }
        Ok(())
    }

    pub fn any_server(&mut self) -> usize {
        self.rng.below(self.servers.len() as u64) as usize
    }

    pub fn leader(&self) -> Option<usize> {
        self.servers.iter().position(|server| server.serving == Some(Service::Leading))
    }

    pub fn fault(&mut self, fault: Fault) {
        let server = self.any_server();
        self.note(server, || format!("fault {fault:?}"));
        match fault {
            Fault::Crash => self.crash(server),
            Fault::CrashLeader => {
                if let Some(leader) = self.leader() {
                    self.crash(leader);
                }
            }
            Fault::CrashAll => (0..self.servers.len()).for_each(|server| self.crash(server)),
            // Happens by itself, see `crash_at_disk_now`.
            Fault::CrashAtDisk => {}
            Fault::Partition => {
                let half = self.half();
                self.block(|from, to| half[from] != half[to]);
            }
            Fault::Bridge => {
                let half = self.half();
                self.block(|from, to| half[from] != half[to] && from != server && to != server);
            }
            Fault::OneWay => {
                let other = self.any_server();
                self.block(|from, to| from == server && to == other);
            }
            Fault::IsolateLeader => {
                if let Some(leader) = self.leader() {
                    self.block(|from, to| from == leader || to == leader);
                }
            }
            Fault::BreakLink => {
                let open: Vec<_> = (0..self.links.len())
                    .filter(|link| !self.links[*link].broken && self.links[*link].open == [true; 2])
                    .collect();
                if !open.is_empty() {
                    let link = *self.rng.pick(&open);
                    self.break_link(link);
                }
            }
            Fault::SlowDisk => {
                let span_us = self.rng.between(50_000, 800_000);
                self.servers[server].slow_until_us = self.now_us + span_us;
            }
            Fault::ClockJump => {
                self.servers[server].ahead_ms += self.rng.between(1, 3 * INIT_LIMIT_TICKS * TICK_MS)
            }
            Fault::Pause => {
                let span_us = self.rng.between(20_000, 2 * SYNC_LIMIT_TICKS * TICK_MS * 1000);
                self.pause(server, span_us);
            }
        }
    }

    fn half(&mut self) -> Vec<bool> {
        (0..self.servers.len()).map(|_| self.rng.chance(50)).collect()
    }

    // Crashes

    pub fn crash_at_disk_now(&mut self) -> bool {
        self.faults_on && self.plan.faults.contains(&Fault::CrashAtDisk) && self.rng.per_mille(8)
    }

    pub fn crash(&mut self, server: usize) {
        if !self.is_up(server) {
            return;
        }
        self.kill(server);
        let delay_us = self.rng.between(1_000, 400_000);
        self.after(delay_us, Whom::World(Deed::Start(server)), What::Tick);
    }

    /// Power off, until somebody starts it.
    pub fn kill(&mut self, server: usize) {
        self.note(server, || "loses power".to_owned());
        let state = &mut self.servers[server];
        state.node = None;
        state.life += 1;
        if let Some(store) = &mut state.store {
            // What is left is found out at once: the checks want to know it while the server is down.
            store.lose_power(&mut self.rng);
            let found = store.recover();
            state.disk.recovered_as(found.last, &found.history);
            state.found = Some(found.history);
        } else {
            state.disk.lose_power(&mut self.rng);
        }
        state.serving = None;
        state.clients = Clients::default();
        state.busy = false;
        state.paused_until_us = 0;
        state.inbox.clear();
        state.flush_generation += 1;
        state.flushing = false;
        state.epochs_free_at_us = 0;
        state.installing = None;
        state.alone_since_us = None;
        self.drop_links(server);
    }

    pub fn pause(&mut self, server: usize, span_us: u64) {
        let until_us = self.now_us + span_us;
        let state = &mut self.servers[server];
        state.paused_until_us = state.paused_until_us.max(until_us);
        state.alone_since_us = None;
        let whom = self.whom(server);
        self.at(until_us, whom, What::Resume);
    }

    // Partitions

    pub fn block(&mut self, blocks: impl Fn(usize, usize) -> bool) {
        let servers = self.servers.len();
        for from in 0..servers {
            for to in (0..servers).filter(|to| *to != from) {
                if !blocks(from, to) || self.blocked[from][to] {
                    continue;
                }
                self.blocked[from][to] = true;
                // An end may notice at once, or not before its own timeouts.
                if self.is_up(to) && self.rng.chance(50) {
                    let delay_us = self.rng.below(300_000);
                    let whom = self.whom(to);
                    self.after(delay_us, whom, What::PeerDown { peer: from });
                }
            }
        }
        if self.faults_on {
            let span_us = self.rng.between(50_000, 1_500_000);
            self.after(span_us, Whom::World(Deed::Heal), What::Tick);
        }
    }

    pub fn heal(&mut self) {
        let servers = self.servers.len();
        for from in 0..servers {
            for to in 0..servers {
                if std::mem::take(&mut self.blocked[from][to]) {
                    self.connect_peers(from, to);
                }
            }
        }
        // Who could speak for a moment is not alone, even if nobody looked at that moment.
        self.servers.iter_mut().for_each(|server| server.alone_since_us = None);
        // What waited goes on its way; who speaks to a server that is gone is told so.
        for link in 0..self.links.len() {
            for side in 0..2 {
                if !self.links[link].open[side] {
                    continue;
                }
                let whom = Whom::Server(self.links[link].ends[side], self.links[link].lives[side]);
                self.after(0, whom, What::Link { link, to: side });
                let other_gone =
                    self.servers[self.links[link].ends[1 - side]].life != self.links[link].lives[1 - side];
                if other_gone {
                    self.after(1_000, whom, What::LinkDown { link });
                }
            }
        }
    }

    fn end_faults(&mut self) -> Check {
        self.faults_on = false;
        self.heal();
        for server in 0..self.servers.len() {
            self.servers[server].slow_until_us = 0;
            self.servers[server].paused_until_us = 0;
            if self.down.contains(&server) {
                continue;
            }
            if self.is_up(server) {
                self.resume(server)?;
            } else {
                self.start(server)?;
            }
        }
        Ok(())
    }

    // Isolation

    /// A leader that cannot reach a quorum stops serving within syncLimit (and the time to look at the clock).
    pub fn check_isolation(&mut self, server: usize) -> Check {
        if self.servers[server].serving != Some(Service::Leading) || self.reaches_quorum(server) {
            self.servers[server].alone_since_us = None;
            return Ok(());
        }
        let since_us = *self.servers[server].alone_since_us.get_or_insert(self.now_us);
        let limit_us = (SYNC_LIMIT_TICKS + 3) * TICK_MS * 1000;
        if self.now_us - since_us > limit_us {
            let story = format!("server {server} leads alone since {since_us}");
            return self.violated("LeaderHasQuorum", story);
        }
        Ok(())
    }

    fn reaches_quorum(&self, server: usize) -> bool {
        let mut reached = Voters::NONE;
        for place in 0..self.plan.voters {
            let state = &self.servers[place];
            let speaks = place == server
                || (state.node.is_some()
                    && state.paused_until_us <= self.now_us
                    && !self.blocked[server][place]
                    && !self.blocked[place][server]);
            if speaks {
                reached = reached.with(place);
            }
        }
        self.quorum.decides(reached)
    }

    // Health

    /// One leader, everybody else up to date with it.
    pub fn is_healthy(&self) -> bool {
        let roles =
            || self.servers.iter().filter_map(|server| server.node.as_ref()).map(zkfast_zab::Node::role);
        let followers = (0..self.plan.voters).filter(|server| !self.down.contains(server)).count() - 1;
        let leads = roles()
            .filter(|role| matches!(role, Role::Leading { established: true, synced_followers } if *synced_followers == followers))
            .count();
        let learns = roles()
            .filter(|role| {
                matches!(role, Role::Following { active: true, .. } | Role::Observing { active: true, .. })
            })
            .count();
        leads == 1 && learns == self.servers.len() - self.down.len() - 1
    }

    /// Everybody has committed, applied and synced the same.
    pub fn is_settled(&self) -> bool {
        let last = self.checks.committed_last();
        self.is_healthy()
            && self.servers.iter().filter(|server| server.node.is_some()).all(|server| {
                let node = server.node.as_ref().expect("healthy");
                node.committed() == last
                    && node.appended() == last
                    && server.disk.synced() == server.disk.entries().len()
                    && server.applied == server.disk.entries().len()
            })
    }
}
