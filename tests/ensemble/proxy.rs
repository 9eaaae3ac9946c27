//! The network between two servers: a TCP proxy for each of the ports on which one server dials another, and the
//! switches that a test turns: pass, delay, hold (a partition), break.
//!
//! A partition in the field loses packets; TCP sends them again once it heals, if neither side has given up by then. So a
//! held direction keeps its bytes, and its end of file, and delivers them after healing. `break_all` is the other fault: connections end.
//!
//! The first message of an election connection tells where its sender can be dialled, and the receiver does dial back
//! (Q11, Q13). The proxy writes its own address into it, or the connection back would go round it.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

/// How one direction of a link behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// As fast as it goes.
    Pass,
    /// Every chunk later by this long.
    Delay(Duration),
    /// Nothing comes through.
    Hold,
}

/// One direction between two servers, of whoever's connections.
pub struct Direction {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    way: Way,
    is_over: bool,
}

impl Direction {
    /// A direction that passes everything.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State { way: Way::Pass, is_over: false }),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Turns the switch.
    pub fn set(&self, way: Way) {
        self.lock().way = way;
        self.changed.notify_all();
    }

    fn finish(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Waits until what was read at `read` may go on. False when the proxy is over.
    fn pass(&self, read: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return false;
            }
            let wait = match state.way {
                Way::Pass => return true,
                Way::Hold => Duration::from_secs(3600),
                Way::Delay(delay) => match delay.checked_sub(read.elapsed()) {
                    None | Some(Duration::ZERO) => return true,
                    Some(left) => left,
                },
            };
            state = self.changed.wait_timeout(state, wait).expect("no holder panics").0;
        }
    }
}

/// What is done to the bytes that the dialling side sends first.
#[derive(Clone, Copy, Debug)]
pub enum Opening {
    /// Nothing.
    Plain,
    /// The address in an election handshake becomes loopback with this port.
    Election {
        /// Where the other proxy of the pair listens.
        back: u16,
    },
}

/// One listener that stands for one port of one server, as seen by one other server.
pub struct Proxy {
    /// Where it listens, on loopback.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    there: Arc<Direction>,
    back: Arc<Direction>,
    opening: Opening,
    /// Both ends of each connection, until it is over or broken.
    streams: Mutex<BTreeMap<u64, Vec<TcpStream>>>,
}

impl Shared {
    fn remember(&self, number: u64, stream: &TcpStream) -> io::Result<()> {
        let stream = stream.try_clone()?;
        self.streams.lock().expect("no holder panics").entry(number).or_default().push(stream);
        Ok(())
    }
}

impl Proxy {
    /// Starts to listen on `listener` for connections to `target`. `there` rules what the dialling side sends.
    pub fn start(
        listener: TcpListener,
        target: u16,
        there: &Arc<Direction>,
        back: &Arc<Direction>,
        opening: Opening,
    ) -> Self {
        let port = listener.local_addr().expect("a bound listener").port();
        let shared = Arc::new(Shared {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, target)),
            there: Arc::clone(there),
            back: Arc::clone(back),
            opening,
            streams: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &own));
        Self { port, shared }
    }

    /// Ends all connections; what was held is lost.
    pub fn break_all(&self) {
        let streams = std::mem::take(&mut *self.shared.streams.lock().expect("no holder panics"));
        close(streams.into_values().flatten());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.there.finish();
        self.shared.back.finish();
        self.break_all();
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in (0..).zip(listener.incoming()) {
        if shared.there.lock().is_over {
            return;
        }
        let Ok(near) = stream else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A connection that fails is what its two sides see; nobody else needs to know.
            let _ = carry(near, number, &shared);
            let streams = shared.streams.lock().expect("no holder panics").remove(&number);
            close(streams.into_iter().flatten());
        });
    }
}

fn close(streams: impl IntoIterator<Item = TcpStream>) {
    for stream in streams {
        // It may be over by itself.
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn carry(near: TcpStream, number: u64, shared: &Arc<Shared>) -> io::Result<()> {
    near.set_nodelay(true)?;
    shared.remember(number, &near)?;
    // What is held has not arrived: the far side must not even see a connection.
    if !shared.there.pass(Instant::now()) {
        return Ok(());
    }
    let far = TcpStream::connect(shared.target)?;
    far.set_nodelay(true)?;
    shared.remember(number, &far)?;
    let (far_read, near_write) = (far.try_clone()?, near.try_clone()?);
    let back = Arc::clone(&shared.back);
    let answers = thread::spawn(move || copy(far_read, near_write, &back));
    let mut near = near;
    let mut far = far;
    if let Opening::Election { back } = shared.opening {
        let handshake = rewritten_handshake(&mut near, back)?;
        if !shared.there.pass(Instant::now()) {
            return Ok(());
        }
        far.write_all(&handshake)?;
    }
    copy(near, far, &shared.there);
    answers.join().map_err(|_| io::Error::other("the way back panicked"))
}

/// Reads the first message of an election connection (Q11, V1) and puts the proxy's port into it.
fn rewritten_handshake(near: &mut TcpStream, back: u16) -> io::Result<Vec<u8>> {
    const VERSION_1: i64 = -65_536;
    let mut head = [0; 20];
    near.read_exact(&mut head)?;
    let number = |at: usize| i64::from_be_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    let length = i32::from_be_bytes(head[16..20].try_into().expect("4 bytes"));
    if number(0) != VERSION_1 || !(1..=2048).contains(&length) {
        return Err(io::Error::other(format!("no election handshake: {head:?}")));
    }
    let mut address = vec![0; usize::try_from(length).expect("positive")];
    near.read_exact(&mut address)?;
    let address = format!("127.0.0.1:{back}");
    let length = i32::try_from(address.len()).expect("short");
    let mut message = head[..16].to_vec();
    message.extend(length.to_be_bytes());
    message.extend(address.as_bytes());
    Ok(message)
}

/// Carries bytes, and then the end of file, as the direction allows.
fn copy(mut from: TcpStream, mut to: TcpStream, direction: &Direction) {
    let mut chunk = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut chunk).unwrap_or(0);
        if !direction.pass(Instant::now()) {
            return;
        }
        if count == 0 || to.write_all(&chunk[..count]).is_err() {
            // The other direction ends when its own reader sees it.
            let _ = to.shutdown(Shutdown::Write);
            let _ = from.shutdown(Shutdown::Read);
            return;
        }
    }
}
