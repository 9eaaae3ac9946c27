//! Servers in network namespaces of their own, whose links are taken down: real loss, of which nobody is told. No segment
//! ends a connection; what is under way is sent again and again, as in the field when a cable is pulled.

use crate::{
    cluster::{Cluster, SYNC_LIMIT_TICKS, Shape, TICK_MS},
    history::Syncs,
    load::{Load, Plan},
    peers::{DEADLINE, Kind, script, server::four_letter_within},
};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A network namespace, for as long as the process that holds it lives.
struct Namespace(Child);

impl Namespace {
    /// # Errors
    /// Why this machine does not let the test have one.
    fn new() -> Result<Self, String> {
        let script = "ip link set lo up && echo up && exec cat";
        let spawned = Command::new("unshare")
            .args(["--net", "/bin/sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut holder = spawned.map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        let _ = BufReader::new(holder.stdout.as_mut().expect("piped")).read_line(&mut line);
        if line == "up\n" {
            return Ok(Self(holder));
        }
        let output = holder.wait_with_output().expect("the end of a process");
        Err(script::text(&output.stderr))
    }

    /// The words that start a command in it.
    fn launcher(&self) -> Vec<String> {
        ["nsenter", "--net", "--target", &self.0.id().to_string()].map(String::from).to_vec()
    }

    /// Runs `ip` in it.
    fn ip(&self, words: &str) -> Result<(), String> {
        let launcher = self.launcher();
        let output = Command::new(&launcher[0])
            .args(&launcher[1..])
            .arg("ip")
            .args(words.split(' '))
            .output()
            .map_err(|error| format!("ip: {error}"))?;
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("ip {words}: {}", script::text(&output.stderr)))
        }
    }

    /// Lets the calling thread, and those that it starts, speak from here.
    fn enter(&self) {
        let file = File::open(format!("/proc/{}/ns/net", self.0.id())).expect("a namespace");
        let kind = rustix::thread::LinkNameSpaceType::Network;
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(kind)).expect("root");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three hosts with a link each to one bridge, at which the clients are.
struct Network {
    hub: Namespace,
    hosts: Vec<Namespace>,
}

impl Network {
    fn new() -> Result<Self, String> {
        let hub = Namespace::new()?;
        hub.ip("link add bridge0 type bridge")?;
        hub.ip("addr add 10.99.0.254/24 dev bridge0")?;
        hub.ip("link set bridge0 up")?;
        let mut hosts = Vec::new();
        for index in 0..3 {
            let host = Namespace::new()?;
            hub.ip(&format!("link add port{index} type veth peer name eth0 netns {}", host.0.id()))?;
            hub.ip(&format!("link set port{index} master bridge0 up"))?;
            host.ip(&format!("addr add {}/24 dev eth0", address(index)))?;
            host.ip("link set eth0 up")?;
            hosts.push(host);
        }
        Ok(Self { hub, hosts })
    }

    /// Takes the host's link down, or up.
    fn link(&self, index: usize, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        self.hub.ip(&format!("link set port{index} {state}")).expect("a link");
    }

    /// What the server says that it is to those on its own host.
    fn mode_at_home(&self, cluster: &Cluster, index: usize) -> Option<String> {
        let address = cluster.address(index);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                self.hosts[index].enter();
                four_letter_within(address, "srvr", Duration::from_millis(500))
            });
            let answer = asked.join().expect("the asking thread")?;
            answer.lines().find_map(|line| line.strip_prefix("Mode: ")).map(str::to_owned)
        })
    }

    /// How long until the server says that it serves nobody as `mode` any more.
    fn await_end(&self, cluster: &Cluster, index: usize, mode: &str) -> Duration {
        let begun = Instant::now();
        while self.mode_at_home(cluster, index).as_deref() == Some(mode) {
            assert!(begun.elapsed() < DEADLINE, "server {} goes on as {mode}", index + 1);
            // Polled: servers tell nobody when their role changes.
            std::thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed()
    }
}

fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, index as u8 + 1)
}

/// Danger: where packets are lost and no connection ends, an isolated leader goes on; or what was under way when the
/// link went down is lost, or done twice, when it comes back.
#[test]
fn links_that_are_taken_down_lose_nothing() {
    let network = match Network::new() {
        Ok(network) => network,
        Err(why) => {
            eprintln!("skipped, because this machine does not let the test make networks: {why}");
            return;
        }
    };
    // The clients' threads are started by this one, and speak from where it is.
    let outcome = std::thread::scope(|scope| scope.spawn(|| run(&network)).join());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn run(network: &Network) {
    network.hub.enter();
    let shape = Shape {
        hosts: (0..3).map(address).collect(),
        launchers: network.hosts.iter().map(Namespace::launcher).collect(),
        ..Shape::default()
    };
    let cluster = Cluster::start(&[Kind::under_test(); 3], shape);
    let plan = Plan { patience: Duration::from_millis(700), ..Plan::default() };
    let load = Load::start(&cluster, plan);
    load.await_writes(50);
    let limit = Duration::from_millis(u64::from(TICK_MS * (SYNC_LIMIT_TICKS + 2)));

    let old = cluster.leader();
    let moment = load.now();
    network.link(old, false);
    let time = network.await_end(&cluster, old, "leader");
    let writes = load.await_write_after(moment);
    println!(
        "a leader without a link stopped after {:.3} s; the others took writes after {:.3} s",
        time.as_secs_f64(),
        writes.as_secs_f64()
    );
    assert!(time < limit, "{time:?} is more than {limit:?}");
    network.link(old, true);
    cluster.await_all();
    load.await_writes(50);

    // Down and up again within syncLimit: nobody need notice; what was under way is sent again.
    let follower = cluster.follower();
    network.link(follower, false);
    load.await_writes(20);
    network.link(follower, true);
    cluster.await_all();

    // Nobody reaches anybody.
    let leader = cluster.leader();
    (0..3).for_each(|index| network.link(index, false));
    for index in 0..3 {
        let mode = if index == leader { "leader" } else { "follower" };
        let time = network.await_end(&cluster, index, mode);
        println!("{mode} {} stopped after {:.3} s", index + 1, time.as_secs_f64());
        assert!(time < limit, "{time:?} is more than {limit:?}");
    }
    let healed = load.now();
    (0..3).for_each(|index| network.link(index, true));
    let writes = load.await_write_after(healed);
    println!("a write {:.3} s after all links came back", writes.as_secs_f64());
    cluster.await_all();
    let report = load.finish(&cluster, Syncs::MayMeetADeposedLeader);
    assert_eq!(report.expired, 0, "seed {}: sessions are lost", report.seed);
}
