//! The servers that one side of a comparison consists of: one alone, or an ensemble of three on loopback.

use crate::{
    rows::free_ports,
    servers::{ANSWER_PATIENCE, Make, Member, Place, Server},
};
use anyhow::{Context, anyhow, ensure};
use loadgen::{
    client::{Client, four_letter_word},
    hosts::Hosts,
    operation::{Mode, put_create},
};
use std::{
    fmt::Write,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use zkfast_wire::OpCode;

/// How long an ensemble may take to serve again after the loss of its leader, or to take a member back.
const PATIENCE: Duration = Duration::from_secs(60);

/// One server or three.
#[derive(Debug)]
pub struct Group {
    /// Which kind.
    pub make: Make,
    /// All of them.
    pub hosts: Hosts,
    members: Vec<Server>,
}

impl Group {
    /// Starts `count` servers beneath `directory` and waits until each opens sessions.
    ///
    /// # Errors
    /// If one does not; the end of its log is in the error.
    pub fn start(make: &Make, directory: &Path, count: usize) -> anyhow::Result<Self> {
        let mut ports = free_ports(3 * count)?;
        let peer_ports = ports.split_off(count);
        let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let hosts = Hosts::parse(&hosts.join(","))?;
        let mut members = Vec::new();
        if let [port] = ports[..] {
            members.push(Server::start(make, directory, port)?);
            return Ok(Self { make: make.clone(), hosts, members });
        }
        let mut server_lines = String::new();
        for (index, pair) in peer_ports.chunks(2).enumerate() {
            writeln!(server_lines, "server.{}=127.0.0.1:{}:{}", index + 1, pair[0], pair[1])?;
        }
        for (index, port) in ports.into_iter().enumerate() {
            let id = u8::try_from(index + 1)?;
            let member = Some(Member { id, server_lines: server_lines.clone() });
            members.push(Server::spawn(
                make,
                Place { directory: directory.join(id.to_string()), port, member },
            )?);
        }
        for member in &mut members {
            member.wait()?;
        }
        Ok(Self { make: make.clone(), hosts, members })
    }

    /// Process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Server::pid).collect()
    }

    /// Halts all of them, so that they take no CPU time while the others are measured.
    pub fn pause(&self) {
        self.members.iter().for_each(Server::pause);
    }

    /// Lets them run again, and waits until all of them open sessions: an ensemble that was halted for long elects anew.
    ///
    /// # Errors
    /// If they do not.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.members.iter().for_each(Server::resume);
        if self.members.len() > 1 {
            self.members.iter_mut().try_for_each(Server::wait)?;
        }
        Ok(())
    }

    /// Which member leads.
    ///
    /// # Errors
    /// If none says so.
    pub fn leader(&self) -> anyhow::Result<usize> {
        let leads = |host| four_letter_word(host, "srvr").is_ok_and(|text| text.contains("Mode: leader"));
        self.hosts.list.iter().position(leads).context("no member says that it leads")
    }

    /// `kill -9` of a member.
    pub fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// Starts a member that was killed, on its data, and waits until it serves.
    ///
    /// # Errors
    /// If it does not.
    pub fn revive(&mut self, member: usize) -> anyhow::Result<()> {
        let dead = self.members.remove(member);
        self.members.insert(member, dead.spawn_again()?);
        self.members[member].wait()
    }

    /// Kills the leader and returns the time until a survivor has accepted a write; then takes the dead one back.
    ///
    /// # Errors
    /// If no survivor accepts one within a minute.
    pub fn lose_leader(&mut self, round: usize) -> anyhow::Result<Duration> {
        let leader = self.leader()?;
        let survivors: Vec<_> = (0..self.hosts.list.len()).filter(|at| *at != leader).collect();
        ensure!(survivors.len() > 1, "an ensemble of three is needed");
        let (report, reports) = mpsc::channel();
        let killed = Instant::now();
        self.kill(leader);
        for survivor in survivors {
            let (host, report) = (self.hosts.list[survivor].clone(), report.clone());
            thread::spawn(move || {
                while killed.elapsed() < PATIENCE {
                    // Refused, closed or cut off: ask again at once, as a client in a hurry does.
                    if let Ok(mut client) = Client::connect_within(&host, 30_000, ANSWER_PATIENCE) {
                        let path = format!("/after-{round}-{survivor}");
                        let created = client.call(OpCode::Create, |out| {
                            put_create(
                                out,
                                |out| out.extend_from_slice(path.as_bytes()),
                                b"",
                                Mode::Persistent,
                            );
                        });
                        if created.is_ok_and(|(code, _)| code.is_ok()) {
                            // Nobody listens if the other was first.
                            let _ = report.send(killed.elapsed());
                            client.close();
                            return;
                        }
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        drop(report);
        let first = reports.recv().map_err(|_| anyhow!("no survivor accepts a write within {PATIENCE:?}"))?;
        self.revive(leader)?;
        Ok(first)
    }
}
