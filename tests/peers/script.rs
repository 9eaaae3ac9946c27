//! Programs that the tests drive: Python with kazoo, Java with Debian's ZooKeeper jars, the C client's shell.

use super::{DEADLINE, server};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

/// Debian's jar; its manifest names the jars it needs.
pub const ZOOKEEPER_JAR: &str = "/usr/share/java/zookeeper.jar";
/// The C client's shell from Debian's `zookeeper-bin`.
pub const CLI_MT: &str = "/usr/lib/zookeeper/bin/cli_mt";

/// The Python that has kazoo: the project's own environment if the install script made one.
pub fn python() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    if own.exists() { own } else { "python3".into() }
}

/// A file of the tests' folder.
pub fn test_file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// `java` with ZooKeeper on its class path and the log on stderr, then `words`.
pub fn java_words(words: &[&str]) -> Vec<String> {
    // Another version of Apache's, if the environment names one.
    let class_path = std::env::var("ZKFAST_APACHE_CLASS_PATH").unwrap_or_else(|_| {
        assert!(
            Path::new(ZOOKEEPER_JAR).exists(),
            "{ZOOKEEPER_JAR} is missing: install Debian's package zookeeper"
        );
        format!("{ZOOKEEPER_JAR}:/usr/share/java/slf4j-simple.jar")
    });
    let mut all: Vec<String> = [
        "java",
        "-Xmx384m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xshare:auto",
        "-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.server.NIOServerCnxn=warn",
        "-cp",
        &class_path,
    ]
    .map(String::from)
    .to_vec();
    all.extend(words.iter().map(|word| (*word).to_owned()));
    all
}

/// Compiles one Java source against Debian's jars into `classes`.
pub fn compile(source: &Path, classes: &Path) {
    compile_with(source, classes, "");
}

/// The same against further jars, in the form of a class path.
pub fn compile_with(source: &Path, classes: &Path, more_jars: &str) {
    let jars = format!("{ZOOKEEPER_JAR}:/usr/share/java/zookeeper-jute.jar:{more_jars}");
    let output = run(Command::new("javac").args(["-cp", &jars, "-d"]).arg(classes).arg(source));
    assert!(output.status.success(), "javac {}: {}", source.display(), text(&output.stderr));
}

/// The command that runs a compiled class.
pub fn java(class: &str, classes: &Path) -> Command {
    java_with(class, classes, "")
}

/// The same with further jars, in the form of a class path.
pub fn java_with(class: &str, classes: &Path, more_jars: &str) -> Command {
    let mut words = java_words(&[class]);
    let at = words.iter().position(|word| word == "-cp").expect("a class path") + 1;
    words[at] = format!("{}:{}:{more_jars}", classes.display(), words[at]);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// Runs a program to its end, at most four deadlines long.
pub fn run(command: &mut Command) -> Output {
    run_with_input(command, "")
}

/// The same with text on its stdin.
pub fn run_with_input(command: &mut Command, input: &str) -> Output {
    use std::io::{Read, Write};
    const LIMIT: Duration = DEADLINE.saturating_mul(4);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    // A program that ends early closes its stdin; what it printed tells more than the failed write.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut stderr = child.stderr.take().expect("a pipe");
    std::thread::scope(|scope| {
        let out = scope.spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let err = scope.spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).map(|_| bytes)
        });
        let Some(status) = server::wait(&mut child, LIMIT) else {
            let _ = child.kill();
            let _ = child.wait();
            let out = out.join().expect("a reader").unwrap_or_default();
            let err = err.join().expect("a reader").unwrap_or_default();
            panic!("{command:?} does not end within {LIMIT:?}\n{}\n{}", text(&out), text(&err));
        };
        let stdout = out.join().expect("a reader").expect("its stdout");
        let stderr = err.join().expect("a reader").expect("its stderr");
        Output { status, stdout, stderr }
    })
}

/// The stdout of a program that must succeed.
pub fn transcript(command: &mut Command) -> String {
    transcript_of(run(command), command)
}

/// The stdout of an ended program that must have succeeded.
pub fn transcript_of(output: Output, command: &Command) -> String {
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
