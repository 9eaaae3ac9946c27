//! The connect string: `host:port,host:port/chroot`, as ZooKeeper's own clients take it.

use anyhow::{Context, bail, ensure};
use std::net::{SocketAddr, ToSocketAddrs};

/// One server of the connect string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As the user wrote it.
    pub name: String,
    /// The first address that the name resolves to.
    pub address: SocketAddr,
}

/// The servers to spread connections over, and the path in front of every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// At least one server.
    pub list: Vec<Host>,
    /// Empty, or a path such as `/app`.
    pub chroot: String,
}

impl Hosts {
    /// Reads and resolves a connect string.
    ///
    /// # Errors
    /// If a name does not resolve or the text is not `host[:port],...[/chroot]`.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (servers, chroot) = match text.find('/') {
            Some(at) => (&text[..at], text[at..].trim_end_matches('/')),
            None => (text, ""),
        };
        let mut list = Vec::new();
        for name in servers.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            list.push(resolve(name)?);
        }
        ensure!(!list.is_empty(), "`{text}` names no server; write host:port, such as 127.0.0.1:2181");
        if chroot.contains("//") {
            bail!("`{chroot}` is not a path to work under; write one such as /app");
        }
        Ok(Self { list, chroot: chroot.to_owned() })
    }

    /// The connect string again.
    pub fn show(&self) -> String {
        let names: Vec<&str> = self.list.iter().map(|host| host.name.as_str()).collect();
        format!("{}{}", names.join(","), self.chroot)
    }
}

fn resolve(name: &str) -> anyhow::Result<Host> {
    let has_port = name.rsplit_once(':').is_some_and(|(host, port)| {
        !port.is_empty()
            && port.bytes().all(|b| b.is_ascii_digit())
            && (!host.contains(':') || host.ends_with(']'))
    });
    let with_port = if has_port { name.to_owned() } else { format!("{name}:2181") };
    let address = with_port
        .to_socket_addrs()
        .with_context(|| format!("cannot resolve `{name}`; write host:port, such as 127.0.0.1:2181"))?
        .next()
        .with_context(|| format!("`{name}` resolves to no address"))?;
    Ok(Host { name: with_port, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_strings_read_as_zookeeper_reads_them() {
        let hosts = Hosts::parse("127.0.0.1:2182,127.0.0.1/app/x/").unwrap();
        assert_eq!(hosts.list[0].address.port(), 2182);
        assert_eq!(hosts.list[1].address.port(), 2181, "2181 where no port is written");
        assert_eq!(hosts.chroot, "/app/x");
        assert_eq!(Hosts::parse("[::1]:99").unwrap().list[0].address.port(), 99);
        assert!(Hosts::parse("/app").is_err());
        assert!(Hosts::parse("127.0.0.1:port").is_err());
    }
}
