//! The simulated driver: carries out what the protocol asks for, as `effect.rs` tells a driver to, with a disk and a
//! network that take their time.

use crate::{
    checks::Check,
    plan::Sabotage,
    world::{Message, SYNC_LIMIT_TICKS, TICK_MS, What, World},
};
use bytes::Bytes;
use zkfast_wire::{Packet, Zxid, quorum::ForwardedRequest};
use zkfast_zab::{Effect, Event, LinkId, Node, Service, Trouble};

/// Troubles that no fault explains: FIFO links and this leader never cause them. (`Zab.tla`: `ShouldNotBeTriggered`.)
const IMPOSSIBLE: [Trouble; 5] = [
    Trouble::Gap,
    Trouble::OutOfPhase,
    Trouble::CutOutsideHistory,
    Trouble::SameServer,
    Trouble::ConfigAhead,
];

impl World {
    pub fn effect(&mut self, server: usize, effect: Effect, follow_up: &mut Vec<Event>) -> Check {
        match effect {
            Effect::Append { zxid, record } => {
                let payload = self.payload_of(&record);
                self.servers[server].disk.append(zxid, payload);
                if let Some(store) = &mut self.servers[server].store {
                    store.append(zxid, &record);
                }
            }
            Effect::Commit { through } => {
                self.apply(server, through)?;
                let known = self.checks.committed().len();
                let disks: Vec<_> = self.servers.iter().map(|server| &server.disk).collect();
                self.checks.commit(server, &disks, through)?;
                self.check_session_order(known)?;
            }
            Effect::Replay { through } => self.apply(server, through)?,
            Effect::Truncate { zxid } => {
                self.drop_clients(server);
                self.servers[server].flush_generation += 1;
                self.servers[server].flushing = false;
                self.servers[server].busy = true;
                let delay_us = self.disk_us(server);
                let whom = self.whom(server);
                self.after(delay_us, whom, What::Truncated { zxid });
            }
            Effect::Install { link, zxid } => {
                self.drop_clients(server);
                self.servers[server].installing = Some((link, zxid));
                let side = self.side(link, server);
                self.links[link.0 as usize].held[side] = true;
            }
            Effect::SaveEpoch { file, epoch } => {
                let delay_us = self.disk_us(server);
                let free_at_us = self.servers[server].epochs_free_at_us.max(self.now_us) + delay_us;
                self.servers[server].epochs_free_at_us = free_at_us;
                let whom = self.whom(server);
                self.at(free_at_us, whom, What::EpochSaved { file, epoch });
            }
            Effect::Dial { leader } => self.dial(server, leader.0 as usize - 1),
            Effect::Close { link, because } => {
                self.trouble(server, because)?;
                self.close(link, server);
            }
            Effect::Send { link, packet } => self.send(link, server, Message::Packet(packet)),
            Effect::SendAcks { link, first, last } => {
                for zxid in run(first, last) {
                    self.send(link, server, Message::Packet(Packet::Ack { zxid }));
                }
            }
            Effect::SendCommits { link, first, last } => {
                for zxid in run(first, last) {
                    self.send(link, server, Message::Packet(Packet::Commit { zxid }));
                }
            }
            Effect::SendInforms { link, first, last } => {
                for zxid in run(first, last) {
                    let record = self.record(server, zxid);
                    self.send(link, server, Message::Packet(Packet::Inform { zxid, record }));
                }
            }
            Effect::SendHistory { link, after, through, committed } => {
                self.send_history(server, link, after, through, committed);
            }
            Effect::SendSnapshot { link, zxid } => self.send_snapshot(server, link, zxid)?,
            Effect::Notify { to, notification } => self.notify(server, to.0 as usize - 1, notification),
            Effect::Serve { service, epoch } => {
                self.servers[server].serving = Some(service);
                if let Some(store) = &mut self.servers[server].store {
                    store.tree.discard_pending();
                }
                let state = &self.servers[server];
                if service == Service::Leading {
                    self.checks.lead(server, &state.disk, epoch)?;
                }
                let committed = state.node.as_ref().map_or(Zxid::ZERO, Node::committed);
                let shown =
                    state.applied.checked_sub(1).map_or(Zxid::ZERO, |last| state.disk.entries()[last].zxid);
                if shown > committed {
                    let story = format!("server {server} serves and shows {shown}, committed is {committed}");
                    return self.violated("AppliedIsCommitted", story);
                }
                if self.servers[server].clients.wait {
                    let whom = self.whom(server);
                    self.after(0, whom, What::AskAgain);
                }
            }
            Effect::StopServing | Effect::Suspend => {
                self.servers[server].serving = None;
                if effect == Effect::StopServing {
                    self.drop_clients(server);
                } else {
                    self.suspend(server);
                }
                if let Some(store) = &mut self.servers[server].store {
                    store.tree.discard_pending();
                }
            }
            Effect::Look { because } => {
                self.elections += 1;
                self.trouble(server, because)?;
            }
            Effect::AnswerPing { link, zxid } => {
                let touched = Some(Bytes::new());
                self.send(link, server, Message::Packet(Packet::Ping { zxid, touched }));
            }
            Effect::Touched { .. } | Effect::ConfigSeen { .. } => {}
            Effect::Request { link, request } => self.take_request(server, link, &request, follow_up),
            Effect::RevalidateAsked { link, session, .. } => {
                follow_up.push(Event::RevalidateAnswer { link, session, valid: true });
            }
            Effect::Revalidated { valid, .. } => assert!(valid),
            Effect::SyncDone => self.sync_done(server)?,
            other => unreachable!("an effect that this driver does not know: {other:?}"),
        }
        Ok(())
    }

    fn trouble(&mut self, server: usize, because: Trouble) -> Check {
        match self.troubles.iter_mut().find(|(known, _)| *known == because) {
            Some((_, count)) => *count += 1,
            None => self.troubles.push((because, 1)),
        }
        if IMPOSSIBLE.contains(&because) {
            return self.violated("ShouldNotBeTriggered", format!("server {server}: {because}"));
        }
        Ok(())
    }

    // The disk

    /// How long a disk operation takes.
    pub fn disk_us(&mut self, server: usize) -> u64 {
        let slow = if self.servers[server].slow_until_us > self.now_us { 100 } else { 1 };
        let max_us = self.plan.flush_us_max;
        self.rng.between(20, max_us.max(21)) * slow
    }

    pub fn start_flush(&mut self, server: usize) {
        let state = &mut self.servers[server];
        let count = state.disk.entries().len();
        let Some(node) = &state.node else { return };
        let hangs = state.flush_us == Some(u64::MAX);
        if state.flushing || state.busy || hangs || count == state.disk.synced() {
            return;
        }
        state.flushing = true;
        if let Some(store) = &mut state.store {
            store.start_flush();
        }
        let zxid = state.disk.last();
        let what = What::Flushed { generation: state.flush_generation, count, epoch: node.epoch(), zxid };
        let delay_us = self.servers[server].flush_us.unwrap_or_else(|| self.disk_us(server));
        let whom = self.whom(server);
        self.after(delay_us, whom, what);
    }

    /// A leader gives up when its disk has completed nothing for syncLimit, as `pipeline/member/upkeep.rs` has it.
    fn look_after_disk(&mut self, server: usize) -> Check {
        let now_us = self.now_us;
        let state = &mut self.servers[server];
        let synced = state.disk.synced();
        let is_stuck = synced < state.disk.entries().len();
        let since = state.stuck_since_us.filter(|(count, _)| is_stuck && *count == synced);
        state.stuck_since_us = since.or_else(|| is_stuck.then_some((synced, now_us)));
        let is_over = since.is_some_and(|(_, at_us)| now_us - at_us >= SYNC_LIMIT_TICKS * TICK_MS * 1000);
        if is_over && self.plan.sabotage != Some(Sabotage::HangIsBorne) {
            return self.step(server, Event::GiveUp { because: Trouble::DiskHangs });
        }
        Ok(())
    }

    fn apply(&mut self, server: usize, through: Zxid) -> Check {
        let state = &mut self.servers[server];
        let (from, to) = (state.applied, state.disk.count_through(through));
        state.applied = from.max(to);
        if state.store.is_some() {
            self.apply_to_tree(server, from, to)?;
        }
        self.answer(server, from..to);
        Ok(())
    }

    /// A disk operation is about to take effect, or has just done so: the moment at which a loss of power tells most.
    fn crashes_at_disk(&mut self, server: usize) -> bool {
        let crashes = self.crash_at_disk_now();
        if crashes {
            self.crash(server);
        }
        crashes
    }

    pub fn dispatch(&mut self, server: usize, what: What) -> Check {
        match what {
            What::Tick => {
                let node = self.servers[server].node.as_ref().expect("alive");
                let every_us = node.tick_every_ms() * 1000;
                let whom = self.whom(server);
                self.after(every_us, whom, What::Tick);
                self.step(server, Event::Tick)?;
                self.look_after_disk(server)?;
                return self.check_isolation(server);
            }
            What::Flushed { generation, epoch, zxid, .. }
                if generation != self.servers[server].flush_generation =>
            {
                if self.plan.sabotage == Some(Sabotage::LateFlushCounts) {
                    return self.step(server, Event::Durable { epoch, zxid });
                }
            }
            What::Flushed { count, epoch, zxid, .. } => return self.flushed(server, count, epoch, zxid),
            What::EpochSaved { file, epoch } => {
                if self.crash_at_disk_now() {
                    if let Some(store) = &self.servers[server].store {
                        store.tear_epoch(file);
                    }
                    self.crash(server);
                    return Ok(());
                }
                self.servers[server].disk.save_epoch(file, epoch);
                if let Some(store) = &self.servers[server].store {
                    store.save_epoch(file, epoch);
                }
                if self.crashes_at_disk(server) {
                    return Ok(());
                }
                return self.step(server, Event::EpochSaved { file, epoch });
            }
            What::Truncated { zxid } => {
                if self.crashes_at_disk(server) {
                    return Ok(());
                }
                let state = &mut self.servers[server];
                if let Some(store) = &mut state.store {
                    store.truncate(zxid);
                }
                state.disk.truncate(zxid);
                let kept = state.disk.entries().len();
                state.applied = state.applied.min(kept);
                self.checks.cut(kept, &self.disks())?;
                self.compare_trees(server)?;
                if self.crashes_at_disk(server) {
                    return Ok(());
                }
                self.servers[server].busy = false;
                self.step(server, Event::Truncated { zxid })?;
                return self.resume(server);
            }
            What::InstallCut { image, zxid } => {
                if self.crashes_at_disk(server) {
                    return Ok(());
                }
                self.servers[server].disk.cut_log(zxid);
                if let Some(store) = &mut self.servers[server].store {
                    store.install_cut(zxid);
                }
                self.checks.cut(self.servers[server].disk.entries().len(), &self.disks())?;
                let delay_us = self.disk_us(server);
                let whom = self.whom(server);
                self.after(delay_us, whom, What::InstallRename { image, zxid });
            }
            What::InstallRename { image, zxid } => return self.installed(server, image, zxid),
            What::Dialled { leader } => return self.dialled(server, leader),
            What::Accepted { link } => {
                if self.links[link].open[1] {
                    return self.step(server, Event::Up { link: LinkId(link as u64), dialled: None });
                }
            }
            What::Connected { link } => {
                if self.links[link].open[0] {
                    let leader = zkfast_wire::ServerId(self.links[link].ends[1] as i64 + 1);
                    return self.step(server, Event::Up { link: LinkId(link as u64), dialled: Some(leader) });
                }
            }
            What::Link { link, to } => return self.arrive(server, link, to),
            What::LinkDown { link } => {
                let side = self.side(LinkId(link as u64), server);
                return self.link_down(server, link, side);
            }
            What::Transferred { link, through } => {
                return self.step(server, Event::Transferred { link: LinkId(link as u64), through });
            }
            What::Heard { from, notification } => {
                let from = zkfast_wire::ServerId(from as i64 + 1);
                return self.step(server, Event::Notification { from, notification });
            }
            What::PeerUp { peer } => {
                if self.is_up(peer) {
                    let peer = zkfast_wire::ServerId(peer as i64 + 1);
                    return self.step(server, Event::PeerUp { peer });
                }
            }
            What::PeerDown { peer } => {
                let peer = zkfast_wire::ServerId(peer as i64 + 1);
                return self.step(server, Event::PeerDown { peer });
            }
            What::Client => return self.client(server),
            What::AskAgain => return self.ask_again(server),
            What::Snapshot => {
                self.snapshot(server)?;
                return self.cheaper(server);
            }
            What::Healthy | What::Resume => {}
        }
        Ok(())
    }

    fn flushed(&mut self, server: usize, count: usize, epoch: zkfast_wire::Epoch, zxid: Zxid) -> Check {
        if self.crashes_at_disk(server) {
            return Ok(());
        }
        let state = &mut self.servers[server];
        state.flushing = false;
        state.disk.flushed(count);
        if let Some(store) = &mut state.store {
            store.complete_through(zxid);
        }
        if self.crashes_at_disk(server) {
            return Ok(());
        }
        self.step(server, Event::Durable { epoch, zxid })?;
        self.start_flush(server);
        Ok(())
    }

    fn installed(&mut self, server: usize, image: std::rc::Rc<Vec<crate::disk::Entry>>, zxid: Zxid) -> Check {
        if self.crashes_at_disk(server) {
            return Ok(());
        }
        let state = &mut self.servers[server];
        state.applied = image.len();
        state.disk.install(image);
        if let Some(store) = &mut state.store {
            store.install_rename();
        }
        if self.crashes_at_disk(server) {
            return Ok(());
        }
        let keeps = self.plan.sabotage == Some(Sabotage::HistoryAcrossImages);
        if let Some(store) = &mut self.servers[server].store {
            store.install_done(zxid, keeps);
        }
        self.compare_trees(server)?;
        let state = &mut self.servers[server];
        state.busy = false;
        let (link, _) = state.installing.take().expect("an installation");
        let side = self.side(link, server);
        self.step(server, Event::Installed { zxid })?;
        self.release(link.0 as usize, side);
        self.resume(server)
    }

    /// The driver counted what records and images cost: any place in the history may come of that, also one that is gone.
    fn cheaper(&mut self, server: usize) -> Check {
        if self.rng.chance(5) {
            // Or that its disk is full.
            self.step(server, Event::GiveUp { because: Trouble::DiskFull })?;
        }
        let entries = self.servers[server].disk.entries();
        let Some(choices) = entries.len().checked_sub(1) else { return Ok(()) };
        let floor = entries[self.rng.below(choices as u64 + 1) as usize].zxid;
        self.step(server, Event::Cheaper { floor })
    }

    /// A snapshot of what is committed, and a purge of the log before the one before it.
    fn snapshot(&mut self, server: usize) -> Check {
        let state = &mut self.servers[server];
        let committed = state.node.as_ref().map_or(Zxid::ZERO, Node::committed);
        let count = state.disk.count_through(committed).min(state.applied);
        let purge = count.saturating_sub(3);
        if count == 0 {
            return Ok(());
        }
        if let Some(store) = &mut state.store {
            if state.serving.is_none() || state.applied != count {
                return Ok(());
            }
            let floor = store.snapshot();
            let purged = state.disk.count_through(floor);
            state.disk.snapshot(count, purged);
            return self.step(server, Event::Purged { floor });
        }
        state.disk.snapshot(count, purge);
        let floor = state.disk.floor();
        self.step(server, Event::Purged { floor })
    }

    // History for learners

    fn record(&self, server: usize, zxid: Zxid) -> Bytes {
        let disk = &self.servers[server].disk;
        let entry = disk.entries()[disk.count_through(zxid) - 1];
        assert_eq!(entry.zxid, zxid, "asked for a record that is not there");
        self.record_of(entry.payload)
    }

    fn send_history(&mut self, server: usize, link: LinkId, after: Zxid, through: Zxid, committed: Zxid) {
        let disk = &self.servers[server].disk;
        let range = disk.count_through(after)..disk.count_through(through);
        assert!(after >= disk.floor(), "history that was purged");
        let entries: Vec<_> = disk.entries()[range].to_vec();
        if let Some(store) = &mut self.servers[server].store {
            let read = store.read_history(after, through);
            for ((zxid, record), entry) in read.iter().zip(&entries) {
                let same = *zxid == entry.zxid && self.library.get(&entry.payload) == Some(record);
                assert!(same, "told {zxid} where {} is", entry.zxid);
            }
        }
        for entry in entries {
            let (zxid, record) = (entry.zxid, self.record_of(entry.payload));
            self.send(link, server, Message::Packet(Packet::Proposal { zxid, record }));
            if zxid <= committed {
                self.send(link, server, Message::Packet(Packet::Commit { zxid }));
            }
        }
        self.transferred_later(server, link, through);
    }

    fn send_snapshot(&mut self, server: usize, link: LinkId, zxid: Zxid) -> Check {
        let state = &self.servers[server];
        if state.applied != state.disk.count_through(zxid) {
            let story =
                format!("server {server} sends an image at {zxid}, the tree shows {} entries", state.applied);
            return self.violated("ImageIsExact", story);
        }
        let image = state.disk.image(zxid);
        self.send(link, server, Message::Packet(Packet::Snap { zxid }));
        let bytes = self.servers[server].store.as_mut().map_or_else(Bytes::new, |store| store.image());
        self.send(link, server, Message::Image(image, bytes));
        self.transferred_later(server, link, zxid);
        Ok(())
    }

    fn transferred_later(&mut self, server: usize, link: LinkId, through: Zxid) {
        let delay_us = self.rng.below(5_000);
        let whom = self.whom(server);
        self.after(delay_us, whom, What::Transferred { link: link.0 as usize, through });
    }

    // Clients

    fn take_request(
        &mut self,
        server: usize,
        link: LinkId,
        request: &ForwardedRequest,
        follow_up: &mut Vec<Event>,
    ) {
        if request.op == ForwardedRequest::SYNC {
            let appended = self.servers[server].node.as_ref().expect("alive").appended();
            self.promised_syncs.entry(link.0 as usize).or_default().push_back(appended);
            follow_up.push(Event::Sync { link });
        } else if let Some(zxid) = self.servers[server].node.as_ref().and_then(Node::next_zxid) {
            let payload = u64::from_be_bytes((*request.body).try_into().expect("eight bytes"));
            let record = self.prepare(server, request.session, payload, zxid);
            let payload = self.payload_of(&record);
            self.checks.submitted(zxid, payload);
            follow_up.push(Event::Submit { zxid, record });
        }
    }

    fn sync_done(&mut self, server: usize) -> Check {
        let link = self.links.iter().rposition(|link| link.ends[0] == server && link.open[0]);
        let link = link.expect("a sync is answered on an open link");
        self.sync_answered(server);
        let promised = self.promised_syncs.get_mut(&link).and_then(|syncs| syncs.pop_front());
        let promised = promised.expect("a sync that was asked for");
        let committed = self.servers[server].node.as_ref().map_or(Zxid::ZERO, Node::committed);
        self.checks.synced(server, committed, promised)
    }
}

fn run(first: Zxid, last: Zxid) -> impl Iterator<Item = Zxid> {
    assert!(first <= last && first.epoch() == last.epoch());
    (first.0..=last.0).map(Zxid)
}
