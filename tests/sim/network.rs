//! Links and election messages. A learner link is FIFO; it delays and it breaks, and a partition lets messages wait,
//! as TCP does. Election messages are also lost and repeated, as connections come and go.

use crate::{
    checks::Check,
    plan::Sabotage,
    world::{Link, Message, What, World},
};
use std::collections::VecDeque;
use zkfast_wire::{Notification, ServerId};
use zkfast_zab::{Event, LinkId};

impl World {
    pub fn latency_us(&mut self) -> u64 {
        let max_us = self.plan.latency_us_max;
        self.rng.between(30, max_us.max(31))
    }

    pub fn side(&self, link: LinkId, server: usize) -> usize {
        usize::from(self.links[link.0 as usize].ends[0] != server)
    }

    // Connecting

    pub fn dial(&mut self, server: usize, leader: usize) {
        let delay_us = self.latency_us() + self.latency_us();
        let whom = self.whom(server);
        self.after(delay_us, whom, What::Dialled { leader });
    }

    pub fn dialled(&mut self, server: usize, leader: usize) -> Check {
        let cut_off = self.blocked[server][leader] || self.blocked[leader][server];
        if !self.is_up(leader) || cut_off {
            return self.step(server, Event::DialFailed { leader: ServerId(leader as i64 + 1) });
        }
        let link = self.links.len();
        let accepted_at_us = self.now_us + self.latency_us();
        self.links.push(Link {
            ends: [server, leader],
            lives: [self.servers[server].life, self.servers[leader].life],
            open: [true; 2],
            wire: [VecDeque::new(), VecDeque::new()],
            free_at_us: [self.now_us, accepted_at_us],
            held: [false; 2],
            broken: false,
        });
        let whom = self.whom(leader);
        self.at(accepted_at_us, whom, What::Accepted { link });
        self.dispatch(server, What::Connected { link })
    }

    // Messages

    pub fn send(&mut self, link: LinkId, server: usize, message: Message) {
        let side = self.side(link, server);
        let latency_us = self.latency_us();
        let state = &mut self.links[link.0 as usize];
        if !state.open[side] || state.broken {
            return;
        }
        let to = 1 - side;
        let at_us = state.free_at_us[to].max(self.now_us + latency_us);
        state.free_at_us[to] = at_us;
        state.wire[to].push_back((at_us, message));
        self.poke(link.0 as usize, to, at_us);
    }

    fn poke(&mut self, link: usize, to: usize, at_us: u64) {
        let state = &self.links[link];
        let whom = crate::world::Whom::Server(state.ends[to], state.lives[to]);
        self.at(at_us, whom, What::Link { link, to });
    }

    /// What is due on a link is read, in order, unless the way is blocked or the reader waits.
    pub fn arrive(&mut self, server: usize, link: usize, to: usize) -> Check {
        loop {
            let from = self.links[link].ends[1 - to];
            let blocked = self.blocked[from][server];
            let state = &mut self.links[link];
            if !state.open[to] || state.broken || blocked || self.servers[server].busy {
                return Ok(());
            }
            let due = state.wire[to].front().is_some_and(|(at_us, _)| *at_us <= self.now_us);
            if !due {
                return Ok(());
            }
            let for_disk = matches!(state.wire[to].front(), Some((_, Message::Image(..) | Message::Close)));
            if state.held[to] && !for_disk {
                return Ok(());
            }
            let (_, message) = state.wire[to].pop_front().expect("looked at");
            match message {
                Message::Packet(packet) => {
                    self.step(server, Event::Packet { link: LinkId(link as u64), packet })?;
                }
                Message::Image(image, bytes) => {
                    let (_, zxid) = self.servers[server].installing.expect("an image follows SNAP");
                    let image = match self.plan.sabotage {
                        Some(Sabotage::HalfImageTaken) => image[..image.len() / 2].to_vec().into(),
                        _ => image,
                    };
                    if let Some(store) = &mut self.servers[server].store {
                        store.take_image(zxid, &bytes);
                    }
                    self.servers[server].flush_generation += 1;
                    self.servers[server].flushing = false;
                    self.servers[server].busy = true;
                    let delay_us = self.disk_us(server);
                    let whom = self.whom(server);
                    self.after(delay_us, whom, What::InstallCut { image, zxid });
                }
                Message::Close => return self.link_down(server, link, to),
            }
            if !self.is_up(server) {
                return Ok(());
            }
        }
    }

    /// The reader of a link goes on.
    pub fn release(&mut self, link: usize, side: usize) {
        self.links[link].held[side] = false;
        self.poke(link, side, self.now_us);
    }

    // Ends

    pub fn link_down(&mut self, server: usize, link: usize, side: usize) -> Check {
        if !self.links[link].open[side] {
            return Ok(());
        }
        self.shut(link, side);
        self.step(server, Event::Down { link: LinkId(link as u64) })
    }

    fn shut(&mut self, link: usize, side: usize) {
        let state = &mut self.links[link];
        state.open[side] = false;
        state.wire[side].clear();
        let server = state.ends[side];
        if self.servers[server].installing.is_some_and(|(from, _)| from.0 as usize == link)
            && !self.servers[server].busy
        {
            // Half an image is no image.
            self.servers[server].installing = None;
        }
    }

    pub fn close(&mut self, link: LinkId, server: usize) {
        let side = self.side(link, server);
        let link = link.0 as usize;
        if !self.links[link].open[side] {
            return;
        }
        self.shut(link, side);
        let to = 1 - side;
        if !self.links[link].open[to] {
            return;
        }
        let abrupt = self.rng.chance(30);
        let latency_us = self.latency_us();
        let state = &mut self.links[link];
        if abrupt {
            state.wire[to].clear();
        }
        let at_us = state.free_at_us[to].max(self.now_us + latency_us);
        state.free_at_us[to] = at_us;
        state.wire[to].push_back((at_us, Message::Close));
        self.poke(link, to, at_us);
    }

    pub fn break_link(&mut self, link: usize) {
        self.links[link].broken = true;
        for side in 0..2 {
            if self.links[link].open[side] {
                let latency_us = self.latency_us();
                let state = &self.links[link];
                let whom = crate::world::Whom::Server(state.ends[side], state.lives[side]);
                self.after(latency_us, whom, What::LinkDown { link });
            }
        }
    }

    /// A server is gone: its links break, as far as anybody can notice.
    pub fn drop_links(&mut self, server: usize) {
        for link in 0..self.links.len() {
            let Some(side) = self.links[link].ends.iter().position(|end| *end == server) else { continue };
            if !self.links[link].open[side] {
                continue;
            }
            let other = self.links[link].ends[1 - side];
            self.shut(link, side);
            if !self.blocked[server][other] {
                self.break_link(link);
            }
        }
        for peer in (0..self.servers.len()).filter(|peer| *peer != server) {
            if self.is_up(peer) && !self.blocked[server][peer] {
                let latency_us = self.latency_us();
                let whom = self.whom(peer);
                self.after(latency_us, whom, What::PeerDown { peer: server });
            }
        }
    }

    // Election links

    pub fn connect_peers(&mut self, one: usize, other: usize) {
        if !self.is_up(one) || !self.is_up(other) || self.blocked[one][other] || self.blocked[other][one] {
            return;
        }
        for (server, peer) in [(one, other), (other, one)] {
            let latency_us = self.latency_us();
            let whom = self.whom(server);
            self.after(latency_us, whom, What::PeerUp { peer });
        }
    }

    pub fn notify(&mut self, from: usize, to: usize, notification: Notification) {
        if !self.is_up(to) || self.blocked[from][to] {
            return;
        }
        let copies = 1 + usize::from(self.faults_on && self.rng.chance(3));
        for _ in 0..copies {
            let latency_us = self.latency_us();
            let whom = self.whom(to);
            self.after(latency_us, whom, What::Heard { from, notification: notification.clone() });
        }
    }
}
