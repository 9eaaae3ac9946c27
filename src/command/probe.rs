//! `zkfast status`: finds the client port as `zkServer.sh` finds it, asks `srvr`, prints the mode.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::arguments::Arguments;
use super::verbs::Lines;

/// How long the server may take to accept, and to answer (`FourLetterWordMain`: 5 s each).
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read at most: `srvr` has some 300.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// What the configuration says about where clients connect.
#[derive(Debug, PartialEq, Eq)]
struct ClientPort {
    host: String,
    port: String,
    is_secure: bool,
}

/// Prints where clients connect and what the server says that it is. Exit code 0 if it says so, else 1.
pub fn status(lines: &Lines, arguments: &Arguments) -> ExitCode {
    let (notes, found) = find(lines, arguments);
    for note in notes {
        println!("{note}");
    }
    let Some(ClientPort { host, port, is_secure }) = found else {
        println!("Unable to find either secure or unsecure client port in any configs. Terminating.");
        return ExitCode::FAILURE;
    };
    println!("Client port found: {port}. Client address: {host}. Client SSL: {is_secure}.");
    let answer = if is_secure { None } else { port.parse().ok().and_then(|port| ask(&host, port)) };
    match answer.as_deref().and_then(|text| text.lines().find(|line| line.contains("Mode"))) {
        Some(mode) => {
            println!("{}", mode.trim());
            ExitCode::SUCCESS
        }
        None => {
            println!("Error contacting service. It is probably not running.");
            ExitCode::FAILURE
        }
    }
}

/// The port, and the remarks that `zkServer.sh` makes on its way to it.
fn find(lines: &Lines, arguments: &Arguments) -> (Vec<&'static str>, Option<ClientPort>) {
    let mut notes = Vec::new();
    let plain = |host: String, port: String| Some(ClientPort { host, port, is_secure: false });
    let own_host = arguments.client_address.map(|address| address.to_string());
    let host = own_host.as_deref().or(lines.get("clientPortAddress")).unwrap_or("localhost").to_owned();
    if let Some(port) = arguments.client_port {
        return (notes, plain(host, port.to_string()));
    }
    if let Some(port) = lines.get("clientPort").filter(|port| is_number(port)) {
        return (notes, plain(host, port.to_owned()));
    }
    let data_dir = arguments.data_dir.as_deref().or(lines.get("dataDir").map(Path::new));
    let my_id = data_dir.and_then(|dir| std::fs::read_to_string(dir.join("myid")).ok());
    match my_id.as_deref().and_then(|text| text.lines().next()).map(str::trim).filter(|id| is_number(id)) {
        None => notes
            .push("myid could not be determined, will not able to locate clientPort in the server configs."),
        Some(id) => {
            let key = format!("server.{id}");
            let mut client = client_part(lines, &key);
            if client.is_none() {
                notes.push("Client port not found in static config file. Looking in dynamic config file.");
                let dynamic =
                    lines.get("dynamicConfigFile").and_then(|name| Lines::read(Path::new(name)).ok());
                client = dynamic.and_then(|dynamic| client_part(&dynamic, &key));
            }
            match client {
                Some((client_host, port)) => return (notes, plain(client_host.unwrap_or(host), port)),
                None => notes.push("Client port not found in the server configs"),
            }
        }
    }
    notes.push("Client port not found. Looking for secureClientPort in the static config.");
    let secure = lines.get("secureClientPort").map(|port| ClientPort {
        host: lines.get("secureClientPortAddress").unwrap_or("localhost").to_owned(),
        port: port.to_owned(),
        is_secure: true,
    });
    (notes, secure)
}

/// Host, if it has one, and port behind the `;` of a server line.
fn client_part(lines: &Lines, key: &str) -> Option<(Option<String>, String)> {
    let (_, client) = lines.get(key)?.split_once(';')?;
    match client.trim().rsplit_once(':') {
        None => Some((None, client.trim().to_owned())),
        Some((host, port)) => {
            Some((Some(host.trim_start_matches('[').trim_end_matches(']').to_owned()), port.to_owned()))
        }
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The answer to `srvr`; `None` if nobody gives one.
fn ask(host: &str, port: u16) -> Option<String> {
    // A name may stand for several addresses, of which the server listens on one.
    (host, port).to_socket_addrs().ok()?.find_map(|address| {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(b"srvr").ok()?;
        stream.shutdown(Shutdown::Write).ok()?;
        let mut text = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn found(text: &str, my_id: Option<&str>) -> (Vec<&'static str>, Option<ClientPort>) {
        let dir = tempfile::tempdir().expect("temporary directory");
        if let Some(id) = my_id {
            fs::write(dir.path().join("myid"), id).expect("myid");
        }
        let file = dir.path().join("zoo.cfg");
        let dynamic = dir.path().join("zoo.cfg.dynamic");
        fs::write(&dynamic, "server.7=a:1:2;[fe80::1]:2187\n").expect("dynamic file");
        let text = text.replace("DYNAMIC", &dynamic.display().to_string());
        fs::write(&file, format!("dataDir={}\n{text}", dir.path().display())).expect("zoo.cfg");
        find(&Lines::read(&file).expect("readable"), &Arguments::default())
    }

    #[test]
    fn the_port_is_found_where_zk_server_sh_finds_it() {
        let check = |text: &str, my_id: Option<&str>, host: &str, port: &str, notes: usize| {
            let (said, found) = found(text, my_id);
            let expected = ClientPort { host: host.to_owned(), port: port.to_owned(), is_secure: false };
            assert_eq!((said.len(), found), (notes, Some(expected)), "{text}: {said:?}");
        };
        check("clientPort=2181\n", None, "localhost", "2181", 0);
        check("clientPort=2181\nclientPortAddress=10.0.0.1\n", None, "10.0.0.1", "2181", 0);
        check("server.1=a:1:2;2182\n", Some("1\n"), "localhost", "2182", 0);
        check("server.1=a:1:2;10.0.0.2:2182\n", Some("1"), "10.0.0.2", "2182", 0);
        check("server.1=a:1:2:observer;[::1]:2182\n", Some("1"), "::1", "2182", 0);
        check("dynamicConfigFile=DYNAMIC\n", Some("7"), "fe80::1", "2187", 1);
        let (said, none) = found("server.1=a:1:2;2182\n", None);
        assert!(none.is_none() && said[0].starts_with("myid could not be determined"), "{said:?}");
        let (said, none) = found("server.1=a:1:2\n", Some("1"));
        assert!(none.is_none() && said.len() == 3, "{said:?}");
        let (_, secure) = found("secureClientPort=2281\n", Some("1"));
        assert!(secure.is_some_and(|found| found.is_secure));
    }
}
