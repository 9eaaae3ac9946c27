//! A blocking client for what happens before and after a run: probing a server, laying out nodes, reading its facts.

use crate::{
    hosts::Host,
    operation::{Mode, put_create, put_delete, put_read},
    reply::Reply,
};
use anyhow::{Context, anyhow, bail};
use bytes::BufMut;
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};
use zkfast_wire::{
    ErrorCode, OpCode, SessionId, Stat, Xid, Zxid, frame,
    handshake::{ConnectRequest, ConnectResponse},
    jute::Decoder,
};

/// Largest reply: the children of a node with some million of them.
const FRAME_BYTES_LIMIT: usize = 256 << 20;
/// Largest request that a server takes unless it was told otherwise: jute.maxbuffer.
pub const REQUEST_BYTES_USUAL: usize = 0xF_FFFF;
/// How long a server may take to answer a request before it counts as dead.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to accept and to answer the handshake.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
/// The same for a four-letter word: its answer is worth a line in a report, not a wait.
const WORD_PATIENCE: Duration = Duration::from_secs(2);
/// What to write instead of a port that is not one for clients.
const RIGHT_PORT: &str =
    "give the client port without TLS with --hosts host:port (clientPort in zoo.cfg, usually 2181)";

/// A session that does one thing after the other (or several in one go, see [`Client::pipeline`]).
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    out: Vec<u8>,
    input: Vec<u8>,
    taken: usize,
    xid: i32,
    name: String,
    /// Size of the largest request so far in bytes.
    largest: usize,
    /// What the server negotiated.
    pub welcome: ConnectResponse,
}

impl Client {
    /// Connects and opens a session.
    ///
    /// # Errors
    /// That say what to do where nobody listens, nobody answers, or somebody answers who is not a ZooKeeper server.
    pub fn connect(host: &Host, timeout_ms: i32) -> anyhow::Result<Self> {
        Self::connect_within(host, timeout_ms, HANDSHAKE_PATIENCE)
    }

    /// The same for a server that is being started, which may accept and never answer: waits for each step of the
    /// handshake no longer than `patience`.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect_within(host: &Host, timeout_ms: i32, patience: Duration) -> anyhow::Result<Self> {
        let name = &host.name;
        let stream =
            TcpStream::connect_timeout(&host.address, patience).map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => anyhow!(
                    "nobody listens on {name}; start the server, or name another with --hosts host:port"
                ),
                _ => {
                    anyhow!("cannot reach {name}: {error}; check the address and that no firewall is between")
                }
            })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        let welcome = ConnectResponse::refused(None);
        let mut client = Self {
            stream,
            out: Vec::new(),
            input: Vec::new(),
            taken: 0,
            xid: 1,
            name: name.clone(),
            largest: 0,
            welcome,
        };
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid::ZERO,
            timeout_ms,
            session: SessionId(0),
            password: &[0; 16],
            read_only: Some(false),
        };
        frame::write(&mut client.out, |out| hello.encode(out));
        client.send().with_context(|| format!("{name} does not take a handshake"))?;
        let strange = || format!("{name} does not speak the ZooKeeper protocol; {RIGHT_PORT}");
        let payload = match client.receive() {
            Ok(payload) => payload,
            Err(error) => {
                let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
                return Err(match kind {
                    Some(io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => anyhow!(
                        "{name} closed the connection during the handshake: it does not serve yet (no quorum), \
                         its maxClientCnxns is reached, or it is not a ZooKeeper server; {RIGHT_PORT}"
                    ),
                    Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => anyhow!(
                        "{name} accepted the connection and sent {} in answer to the ZooKeeper handshake within \
                         {patience:?}: the server hangs, or it is not a ZooKeeper server; {RIGHT_PORT}",
                        match client.input.len() {
                            0 => "not one byte".to_owned(),
                            1 => "1 byte".to_owned(),
                            bytes => format!("no more than {bytes} bytes"),
                        }
                    ),
                    _ => error.context(strange()),
                });
            }
        };
        client.stream.set_read_timeout(Some(PATIENCE))?;
        client.welcome = ConnectResponse::decode(&mut Decoder::new(&payload)).with_context(strange)?;
        if client.welcome.timeout_ms <= 0 {
            bail!("{name} refused to open a session");
        }
        Ok(client)
    }

    /// Sends one request and waits for its reply.
    ///
    /// # Errors
    /// If the connection is lost; an error code of the server is not an error here.
    pub fn call(
        &mut self,
        op: OpCode,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> anyhow::Result<(ErrorCode, Vec<u8>)> {
        self.push(op, body);
        let reply = self.send().and_then(|()| self.next_reply());
        reply.map_err(|error| self.told(op, error))
    }

    /// Sends `count` requests, at most 1,000 ahead of their replies, and hands each reply to `each`.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn pipeline(
        &mut self,
        count: u64,
        op: OpCode,
        mut body: impl FnMut(u64, &mut Vec<u8>),
        mut each: impl FnMut(u64, ErrorCode, &[u8]),
    ) -> anyhow::Result<()> {
        // Two batches in flight fit the socket buffers, so that neither side can wait for the other for ever.
        const BATCH: u64 = 500;
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            while sent < count && sent < answered + 2 * BATCH {
                let batch_end = count.min(sent + BATCH);
                for index in sent..batch_end {
                    self.push(op, |out| body(index, out));
                }
                self.send().map_err(|error| self.told(op, error))?;
                sent = batch_end;
            }
            let batch_end = sent.min(answered + BATCH);
            for index in answered..batch_end {
                let (code, body) = self.next_reply().map_err(|error| self.told(op, error))?;
                each(index, code, &body);
            }
            answered = batch_end;
        }
        Ok(())
    }

    /// Creates a persistent node; one that exists already is fine.
    ///
    /// # Errors
    /// If the server refuses for another reason.
    pub fn ensure_node(&mut self, path: &str) -> anyhow::Result<()> {
        let (code, _) = self.call(OpCode::Create, |out| {
            put_create(out, |out| out.extend_from_slice(path.as_bytes()), b"", Mode::Persistent)
        })?;
        match code {
            ErrorCode::OK | ErrorCode::NODE_EXISTS => Ok(()),
            code => bail!("the server refuses to create {path}: {code}"),
        }
    }

    /// Names of the children; `None` if the node does not exist.
    ///
    /// # Errors
    /// If the connection is lost or the reply does not decode.
    pub fn children(&mut self, path: &str) -> anyhow::Result<Option<Vec<String>>> {
        let (code, body) = self.call(OpCode::GetChildren, |out| {
            put_read(out, |out| out.extend_from_slice(path.as_bytes()), false);
        })?;
        match code {
            ErrorCode::OK => {
                let names = Decoder::new(&body).texts("GetChildrenResponse.children")?;
                Ok(Some(names.into_iter().map(|name| name.into_owned()).collect()))
            }
            ErrorCode::NO_NODE => Ok(None),
            code => bail!("cannot list {path}: {code}"),
        }
    }

    /// Data and stat of a node; `None` if it does not exist.
    ///
    /// # Errors
    /// If the connection is lost or the reply does not decode.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Option<(Vec<u8>, Stat)>> {
        let (code, body) = self.call(OpCode::GetData, |out| {
            put_read(out, |out| out.extend_from_slice(path.as_bytes()), false);
        })?;
        match code {
            ErrorCode::OK => {
                let mut decoder = Decoder::new(&body);
                let data = decoder.buffer("GetDataResponse.data")?.unwrap_or_default().to_vec();
                Ok(Some((data, Stat::decode(&mut decoder)?)))
            }
            ErrorCode::NO_NODE => Ok(None),
            code => bail!("cannot read {path}: {code}"),
        }
    }

    /// Deletes a node and all beneath it, deepest first. Returns how many went.
    ///
    /// # Errors
    /// If the connection is lost or a node cannot be deleted.
    pub fn delete_tree(&mut self, root: &str) -> anyhow::Result<u64> {
        let mut found: Vec<String> = vec![root.to_owned()];
        let mut level = 0..1;
        while !level.is_empty() {
            let (mut below, mut broken) = (Vec::new(), None);
            self.pipeline(
                level.len() as u64,
                OpCode::GetChildren,
                |index, out| {
                    let path = &found[level.start + index as usize];
                    put_read(out, |out| out.extend_from_slice(path.as_bytes()), false);
                },
                |index, code, body| match (code, Decoder::new(body).texts("GetChildrenResponse.children")) {
                    (ErrorCode::OK, Ok(names)) => {
                        let parent = &found[level.start + index as usize];
                        below.extend(names.iter().map(|name| format!("{parent}/{name}")));
                    }
                    (ErrorCode::OK, Err(error)) => broken = Some(error),
                    // Gone meanwhile, such as an ephemeral: nothing to delete.
                    _ => {}
                },
            )?;
            if let Some(error) = broken {
                return Err(error.into());
            }
            level = found.len()..found.len() + below.len();
            found.append(&mut below);
        }
        found.reverse();
        let mut refused = None;
        let mut gone = 0;
        let paths = &found;
        self.pipeline(
            found.len() as u64,
            OpCode::Delete,
            |index, out| put_delete(out, |out| out.extend_from_slice(paths[index as usize].as_bytes())),
            |index, code, _| match code {
                ErrorCode::OK => gone += 1,
                ErrorCode::NO_NODE => {}
                code => refused = Some((index, code)),
            },
        )?;
        match refused {
            Some((index, code)) => bail!("cannot delete {}: {code}", found[index as usize]),
            None => Ok(gone),
        }
    }

    /// Ends the session, so that the server need not expire it.
    pub fn close(mut self) {
        // A server that is gone has no session to end.
        let _ = self.call(OpCode::CloseSession, |_| {});
    }

    /// Which server it was, and what was asked of it.
    fn told(&self, op: OpCode, error: anyhow::Error) -> anyhow::Error {
        let name = &self.name;
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let lost = match kind {
            Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return anyhow!(
                    "{name} did not answer a request ({op:?}) within {PATIENCE:?}: it hangs or is overloaded"
                );
            }
            Some(io::ErrorKind::UnexpectedEof) => {
                format!("{name} closed the connection instead of answering a request ({op:?})")
            }
            Some(_) => {
                format!("the connection to {name} was lost with a request ({op:?}) in flight: {error}")
            }
            None => {
                return error.context(format!("{name} answered a request ({op:?}) with what is no answer"));
            }
        };
        if self.largest > REQUEST_BYTES_USUAL {
            let bytes = self.largest;
            return anyhow!("{lost}; a request was {bytes} bytes long, {}", too_large());
        }
        anyhow!(lost)
    }

    fn push(&mut self, op: OpCode, body: impl FnOnce(&mut Vec<u8>)) {
        let xid = self.xid;
        self.xid = if xid == i32::MAX { 1 } else { xid + 1 };
        let before = self.out.len();
        frame::write(&mut self.out, |out| {
            out.put_i32(xid);
            out.put_i32(op.to_i32());
            body(out);
        });
        self.largest = self.largest.max(self.out.len() - before);
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn next_reply(&mut self) -> anyhow::Result<(ErrorCode, Vec<u8>)> {
        loop {
            let payload = self.receive()?;
            let reply = Reply::decode(&payload)?;
            if reply.xid != Xid::NOTIFICATION && reply.xid != Xid::PING {
                return Ok((reply.code, reply.body.to_vec()));
            }
        }
    }

    fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(payload) = frame::cut(&self.input[self.taken..], FRAME_BYTES_LIMIT)? {
                let payload = payload.to_vec();
                self.taken += frame::LENGTH_BYTES + payload.len();
                return Ok(payload);
            }
            self.input.drain(..self.taken);
            self.taken = 0;
            let mut chunk = [0; 64 << 10];
            let read = read_some(&mut self.stream, &mut chunk)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.input.extend_from_slice(&chunk[..read]);
        }
    }
}

/// What to say of requests above [`REQUEST_BYTES_USUAL`].
pub fn too_large() -> &'static str {
    "and a server refuses those above its jute.maxbuffer, which is 1 MiB unless it was raised: raise it there, or use \
     smaller values (--value, --multi-parts)"
}

/// Reads once; a signal, such as Ctrl-C, which ends a run in its own way, is no reason to fail.
fn read_some(stream: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Sends a four-letter word and returns the answer, empty if the server says nothing.
///
/// # Errors
/// If the server cannot be reached.
pub fn four_letter_word(host: &Host, word: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&host.address, WORD_PATIENCE)?;
    stream.set_read_timeout(Some(WORD_PATIENCE))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = Vec::new();
    // A server that resets the connection behind its answer has answered all the same.
    let _ = stream.take(4 << 20).read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    struct Interrupted(bool);

    impl Read for Interrupted {
        fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
            if !std::mem::replace(&mut self.0, true) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            chunk[0] = 7;
            Ok(1)
        }
    }

    /// Danger: Ctrl-C while the nodes are laid out ends the run with `Interrupted system call`.
    #[test]
    fn a_signal_interrupts_no_read() {
        let mut chunk = [0; 4];
        assert_eq!(read_some(&mut Interrupted(false), &mut chunk).unwrap(), 1);
        assert_eq!(chunk[0], 7);
    }

    /// Danger: `unexpected end of file`, and nobody knows of what.
    #[test]
    fn a_lost_connection_is_told_with_server_and_request() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut chunk = [0; 1024];
            let _ = stream.read(&mut chunk).unwrap();
            let mut out = Vec::new();
            let welcome = ConnectResponse {
                timeout_ms: 9_000,
                session: SessionId(1),
                ..ConnectResponse::refused(None)
            };
            frame::write(&mut out, |out| welcome.encode(out));
            stream.write_all(&out).unwrap();
            let _ = stream.read(&mut chunk).unwrap();
        });
        let host = Host { name: address.to_string(), address };
        let mut client = Client::connect(&host, 9_000).unwrap();
        let words = format!("{:#}", client.get("/a").unwrap_err());
        assert!(words.contains(&host.name) && words.contains("GetData"), "{words}");
        assert!(!words.contains("jute.maxbuffer"), "{words}");
        client.largest = REQUEST_BYTES_USUAL + 1;
        let words = client.told(OpCode::SetData, io::Error::from(io::ErrorKind::ConnectionReset).into());
        assert!(words.to_string().contains("jute.maxbuffer"), "{words}");
        server.join().unwrap();
    }
}
