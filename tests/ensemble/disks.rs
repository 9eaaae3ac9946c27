//! Disks that are full, or that hang, under an ensemble (ZOOKEEPER-2247). A follower whose disk is full ends, and comes back
//! when there is room; a leader hands over.

use crate::{
    catch_up::same_state,
    cluster::{Cluster, Shape},
    peers::{DEADLINE, Kind, server},
    session::{Failure, Session},
    small_disk::{Medium, SmallDisk},
};
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use zkfast_wire::ErrorCode;

/// Some segments of the log, each of 8 MiB.
const DISK_MEBIBYTES: u32 = 48;
const VALUE_BYTES: usize = 64 << 10;

fn launch_on(cluster: &mut Cluster, index: usize, disk: &SmallDisk) {
    cluster.launch_behind(index, disk.launcher(), &disk.file("myid"));
}

/// Writes nodes through one session, one after the other.
struct Writer {
    session: Session,
    acknowledged: Vec<String>,
    tried: usize,
}

impl Writer {
    fn new(cluster: &Cluster, servers: &[usize]) -> Self {
        let addresses = servers.iter().map(|index| cluster.address(*index)).collect();
        let session = Session::new(addresses, 8_000, Duration::from_secs(3));
        Self { session, acknowledged: Vec::new(), tried: 0 }
    }

    fn write(&mut self) -> Result<(), Failure> {
        assert!(self.session.connect(DEADLINE), "somebody takes the session");
        self.tried += 1;
        let path = format!("/node-{}", self.tried);
        let outcome = self.session.create(&path, &vec![b'v'; VALUE_BYTES], 0);
        if outcome.is_ok() {
            self.acknowledged.push(path);
        } else if let Err(Failure::Refused(code)) = outcome {
            assert_eq!(code, ErrorCode::SYSTEM_ERROR.0, "what a full disk is answered with");
        }
        outcome
    }

    /// Writes until `is_over` says so of the last outcome.
    fn write_until(&mut self, what: &str, mut is_over: impl FnMut(Result<(), Failure>) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let outcome = self.write();
            if is_over(outcome) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: not in time, {} writes", self.acknowledged.len());
        }
    }

    fn check(mut self, cluster: &Cluster) {
        let mut client = cluster.server(cluster.leader()).client(8_000);
        for path in &self.acknowledged {
            client.exists(path, false).unwrap_or_else(|code| panic!("{path} was acknowledged: {code}"));
        }
        client.close();
        self.session.connect(DEADLINE);
        self.session.close(DEADLINE);
    }
}

/// Danger: one full disk, the leader's, stops the writes of all.
#[test]
fn zookeeper_2247_a_leader_whose_disk_is_full_hands_over() {
    let mut cluster = Cluster::new(&[Kind::Zkfast; 3], Shape::default());
    let Some(disk) = SmallDisk::mount(cluster.home(2), Medium::Tmpfs, DISK_MEBIBYTES, "rw") else { return };
    // The one with the larger number leads.
    launch_on(&mut cluster, 2, &disk);
    cluster.launch(0);
    cluster.await_modes("a leader with a small disk", |modes| modes[2].as_deref() == Some("leader"));
    cluster.launch(1);
    cluster.await_all();
    let mut writer = Writer::new(&cluster, &[0, 1]);
    writer.write().expect("there is room");
    disk.fill("filler", DISK_MEBIBYTES as usize * (1 << 20));
    let mut refused = 0;
    writer.write_until("another leader", |outcome| {
        refused += usize::from(matches!(outcome, Err(Failure::Refused(_))));
        outcome.is_ok()
            && [0, 1].iter().any(|index| cluster.server(*index).mode().as_deref() == Some("leader"))
    });
    for _ in 0..20 {
        writer.write().expect("the new leader has room");
    }
    println!("{} writes, {refused} refused", writer.acknowledged.len());
    cluster.server(2).await_log(&["the disk of", "is full"]);
    cluster.server(2).await_log(&["gave the leadership up", "disk is full"]);
    std::fs::remove_file(disk.file("filler")).expect("room again");
    // It ended when what it was to log did not fit, or it may just go on.
    cluster.kill(2);
    launch_on(&mut cluster, 2, &disk);
    cluster.await_all();
    same_state(&cluster);
    writer.check(&cluster);
}

/// Danger: where all disks are full the leadership goes round and round, and nobody serves reads.
#[test]
fn where_all_disks_are_full_somebody_leads_and_reads_go_on() {
    let mut cluster = Cluster::new(&[Kind::Zkfast; 3], Shape::default());
    let mut disks = Vec::new();
    for index in 0..3 {
        let Some(disk) = SmallDisk::mount(cluster.home(index), Medium::Tmpfs, DISK_MEBIBYTES, "rw") else {
            return;
        };
        launch_on(&mut cluster, index, &disk);
        disks.push(disk);
    }
    cluster.await_all();
    let mut writer = Writer::new(&cluster, &[0, 1, 2]);
    writer.write().expect("there is room");
    for disk in &disks {
        disk.fill("filler", DISK_MEBIBYTES as usize * (1 << 20));
    }
    // Refused again and again by one and the same leader, and nothing else happens meanwhile.
    let mut in_a_row = (0, None);
    writer.write_until("a leader that stays", |outcome| {
        let leaders = cluster.leaders();
        let same = outcome == Err(Failure::Refused(ErrorCode::SYSTEM_ERROR.0))
            && in_a_row.1 == Some(leaders.clone());
        in_a_row = (if same { in_a_row.0 + 1 } else { 0 }, Some(leaders));
        if outcome.is_err() {
            // Polled: twenty looks, for longer than a server keeps out after it gave up.
            std::thread::sleep(Duration::from_millis(150));
        }
        in_a_row.0 == 20
    });
    let mut gave_up = 0;
    for index in 0..3 {
        let count =
            cluster.server(index).monitor("zk_leadership_given_up_count").expect("a server that serves");
        gave_up += count.parse::<u32>().expect("a number");
        assert_eq!(cluster.server(index).monitor("zk_log_space_low").as_deref(), Some("1"));
    }
    assert!((1..=3).contains(&gave_up), "{gave_up} times for one shortage");
    writer.session.get("/node-1", false).expect("reads go on");
    for disk in &disks {
        std::fs::remove_file(disk.file("filler")).expect("room again");
    }
    writer.write_until("room", |outcome| outcome.is_ok());
    writer.check(&cluster);
}

/// Makes every write of a process to its files take long, until it is dropped.
struct Hang(Child);

impl Hang {
    fn of(pid: u32) -> Option<Self> {
        let delays = "inject=pwrite64,pwritev,pwritev2,fdatasync:delay_enter=20000000";
        let spawned = Command::new("strace")
            .args([
                "-qq",
                "-f",
                "-p",
                &pid.to_string(),
                "-e",
                "trace=pwrite64,pwritev,pwritev2,fdatasync",
                "-e",
                delays,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut tracer = spawned.expect("strace");
        let traced = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        let deadline = Instant::now() + DEADLINE;
        while !traced(pid) {
            if tracer.try_wait().expect("the state of a child").is_some() {
                eprintln!("skipped: this machine does not let strace look at another process");
                return None;
            }
            assert!(Instant::now() < deadline, "strace does not attach");
            // Polled: the kernel tells nobody who traces whom.
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(Self(tracer))
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        // It lets go of the process.
        server::terminate(&self.0);
        if server::wait(&mut self.0, Duration::from_secs(2)).is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Danger: the leader's disk hangs while a thread writes a long batch; the pipeline goes on pinging, so it leads on, and
/// nobody's writes are answered.
#[test]
fn zookeeper_2247_a_leader_whose_disk_hangs_hands_over() {
    let cluster = Cluster::start(&[Kind::Zkfast; 3], Shape::default());
    let old = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|index| *index != old).collect();
    let mut clients: Vec<_> = (0..4).map(|_| cluster.server(old).client(20_000)).collect();
    let Some(hang) = Hang::of(cluster.server(old).pid()) else { return };
    let begun = Instant::now();
    // Long batches: whatever is written of them is on its way for longer than syncLimit.
    let data = vec![b'd'; 20_000];
    for (number, client) in clients.iter_mut().enumerate() {
        for index in 0..60 {
            let path = format!("/hung-{number}-{index}");
            let body = crate::peers::client::create(&path, Some(&data), &[zkfast_wire::Acl::OPEN], 0);
            client.submit(zkfast_wire::OpCode::Create, &body);
        }
        client.flush().expect("a connection");
    }
    let mut writer = Writer::new(&cluster, &others);
    let leads = |index: &usize| cluster.server(*index).mode().as_deref() == Some("leader");
    writer.write_until("another leader", |outcome| outcome.is_ok() && others.iter().any(leads));
    println!("another one led {:.2?} after the leader's disk began to hang", begun.elapsed());
    writer.write().expect("it has a disk that works");
    drop(clients);
    drop(hang);
    cluster.await_all();
    same_state(&cluster);
    writer.check(&cluster);
}
