//! The guide of the README, step by step: three directories, one zoo.cfg, three myids, and the verbs.

use crate::peers::{self, Client, DEADLINE, Kind, script, server};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Three servers that were made by the guide's commands, ended with the test.
struct Site {
    kind: Kind,
    home: tempfile::TempDir,
    ports: Vec<u16>,
}

impl Site {
    fn new(kind: Kind) -> Self {
        let home = peers::directory();
        let ports: Vec<u16> = (0..9).map(|_| server::free_port()).collect();
        let mut text =
            "tickTime=400\ninitLimit=20\nsyncLimit=5\ndataDir=data\nadmin.enableServer=false\n".to_owned();
        for id in 1..=3 {
            let port = |which: usize| ports[(id - 1) * 3 + which];
            text += &format!("server.{id}=127.0.0.1:{}:{};127.0.0.1:{}\n", port(0), port(1), port(2));
            let data = home.path().join(format!("{id}/data"));
            fs::create_dir_all(&data).expect("a data directory");
            fs::write(data.join("myid"), format!("{id}\n")).expect("myid");
        }
        fs::write(home.path().join("zoo.cfg"), text).expect("zoo.cfg");
        Self { kind, home, ports }
    }

    fn dir(&self, id: usize) -> PathBuf {
        self.home.path().join(id.to_string())
    }

    fn client(&self, id: usize) -> Client {
        Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[id * 3 - 1])), 6_000)
    }

    /// A verb in the directory of server `id`: exit code and standard output.
    fn verb(&self, id: usize, verb: &str) -> (Option<i32>, String) {
        let mut command = match self.kind {
            Kind::Zkfast => Command::new(env!("CARGO_BIN_EXE_zkfast")),
            Kind::Apache => Command::new("/usr/share/zookeeper/bin/zkServer.sh"),
        };
        command.arg(verb).arg("../zoo.cfg").current_dir(self.dir(id));
        if self.kind == Kind::Apache {
            command.env("CLASSPATH", script::ZOOKEEPER_JAR).env("JVMFLAGS", "-Xmx384m -XX:+UseSerialGC");
        }
        let output = script::run(&mut command);
        (output.status.code(), script::text(&output.stdout) + &script::text(&output.stderr))
    }

    fn modes(&self) -> Vec<String> {
        let mode = |id| {
            let (_, text) = self.verb(id, "status");
            text.lines().find_map(|line| line.strip_prefix("Mode: ")).unwrap_or("none").to_owned()
        };
        (1..=3).map(mode).collect()
    }

    /// The modes of the three, once `wanted` likes them.
    fn await_modes(&self, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let modes = self.modes();
            if wanted(&modes) {
                return modes;
            }
            assert!(Instant::now() < deadline, "{modes:?}\n{}", self.logs());
            // Polled, as whoever follows the guide would.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn logs(&self) -> String {
        let output = |id: usize| {
            let files = fs::read_dir(self.dir(id).join("data")).into_iter().flatten().flatten();
            let mut logs =
                files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "out"));
            logs.next().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
        };
        (1..=3).map(|id| format!("--- server {id}\n{}", output(id))).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for id in 1..=3 {
            end(&self.dir(id).join("data/zookeeper_server.pid"));
        }
    }
}

/// kill -9 to the process that the file names.
fn end(pid_file: &Path) {
    if let Ok(pid) = fs::read_to_string(pid_file) {
        let _ = Command::new("/bin/kill").args(["-9", pid.trim()]).status();
    }
}

fn count(modes: &[String], wanted: &str) -> usize {
    modes.iter().filter(|mode| *mode == wanted).count()
}

/// Danger: whoever follows the guide does not get an ensemble.
#[test]
fn the_guide_leads_to_an_ensemble() {
    let site = Site::new(Kind::under_test());
    for id in 1..=3 {
        let (code, text) = site.verb(id, "start");
        assert!(
            code == Some(0) && text.contains("Starting zookeeper ... STARTED\n"),
            "{text}\n{}",
            site.logs()
        );
    }
    let modes = site.await_modes(|modes| count(modes, "leader") == 1 && count(modes, "follower") == 2);
    let leader = modes.iter().position(|mode| mode == "leader").expect("a leader") + 1;
    let (one, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);

    let mut writer = site.client(one);
    writer.create("/guide", b"written on one server", 0).expect("create");
    writer.close();
    let mut reader = site.client(other);
    reader.call(zkfast_wire::OpCode::Sync, &peers::client::path_alone("/guide")).expect("sync");
    assert_eq!(reader.get("/guide", false).expect("get").0.expect("data"), b"written on one server");
    reader.close();

    let (code, text) = site.verb(leader, "stop");
    assert!(code == Some(0) && text.contains("Stopping zookeeper ... STOPPED\n"), "{text}");
    let modes = site.await_modes(|modes| count(modes, "leader") == 1 && count(modes, "follower") == 1);
    assert_eq!(modes[leader - 1], "none", "the stopped one is no server");
    let mut writer = site.client(one);
    writer.set("/guide", b"written without the first leader", -1).expect("set");
    writer.close();

    let (code, text) = site.verb(leader, "start");
    assert_eq!(code, Some(0), "{text}");
    let modes = site.await_modes(|modes| count(modes, "leader") == 1 && count(modes, "follower") == 2);
    assert_eq!(modes[leader - 1], "follower", "who comes back follows");
    let mut reader = site.client(leader);
    reader.call(zkfast_wire::OpCode::Sync, &peers::client::path_alone("/guide")).expect("sync");
    assert_eq!(
        reader.get("/guide", false).expect("get").0.expect("data"),
        b"written without the first leader"
    );
    reader.close();
    for id in 1..=3 {
        assert_eq!(site.verb(id, "stop").0, Some(0));
    }
}
