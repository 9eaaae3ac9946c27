//! What a client core's loop costs before it does any work: servers that count requests of 60 bytes and answer each with
//! 190 bytes, on epoll as `src/edge` does it and on glommio's executor, against one closed-loop client. It keeps the
//! choice of the client cores' loop honest. Run on a quiet machine with two CPUs: `cargo bench --bench client_loop`.
//!
//! CPU is that of the server's thread; work that a ring hands to kernel threads is not in it.

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::{LocalExecutorBuilder, Placement};
use rustix::{
    event::epoll,
    time::{ClockId, clock_gettime},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, Instant},
};
use zkfast::cores::placement::pin_to;

const REQUEST_BYTES: usize = 60;
const REPLY_BYTES: usize = 190;
const READ_BYTES: usize = 64 << 10;
const EVENTS: usize = 256;
const RUN: Duration = Duration::from_secs(2);
const PAIRS: usize = 3;
/// Connections and requests in flight on each.
const LOADS: [(usize, usize); 4] = [(1, 1), (64, 1), (64, 16), (512, 1)];

/// What is left of a request that has begun, and the replies that are due.
#[derive(Default)]
struct Counter {
    begun: usize,
}

impl Counter {
    fn replies<'a>(&mut self, received: usize, zeros: &'a [u8]) -> &'a [u8] {
        let bytes = self.begun + received;
        self.begun = bytes % REQUEST_BYTES;
        &zeros[..bytes / REQUEST_BYTES * REPLY_BYTES]
    }
}

fn zeros() -> Vec<u8> {
    vec![0; (READ_BYTES / REQUEST_BYTES + 1) * REPLY_BYTES]
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("a time since the thread began")
}

/// An edge-triggered epoll set with every socket in it, its index as the data.
fn watched(sockets: &[TcpStream]) -> rustix::fd::OwnedFd {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll instance");
    for (index, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true).expect("a socket");
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&set, socket, epoll::EventData::new_u64(index as u64), flags)
            .expect("a socket can be watched");
    }
    set
}

/// Calls `ready` for each socket that has something to be read, until it says that it is over.
fn turns(set: &rustix::fd::OwnedFd, mut ready: impl FnMut(usize) -> bool) {
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        match epoll::wait(set, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => panic!("epoll: {error}"),
        }
        for event in &events {
            if !ready(event.data.u64() as usize) {
                return;
            }
        }
    }
}

const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Tells where it listens, takes so many connections, answers them on epoll until the first hangs up; returns the CPU
/// time.
fn on_epoll(connections: usize, bound: &Sender<SocketAddr>) -> Duration {
    pin_to(0);
    let listener = TcpListener::bind(LOOPBACK).expect("a port");
    bound.send(listener.local_addr().expect("bound")).expect("the client waits");
    let accept = || listener.accept().expect("a connection").0;
    let mut sockets: Vec<TcpStream> = (0..connections).map(|_| accept()).collect();
    for socket in &sockets {
        socket.set_nodelay(true).expect("a TCP socket");
    }
    let zeros = zeros();
    let mut buffer = vec![0; READ_BYTES];
    let mut counters: Vec<Counter> = sockets.iter().map(|_| Counter::default()).collect();
    let set = watched(&sockets);
    let start = thread_cpu();
    turns(&set, |index| match sockets[index].read(&mut buffer) {
        Ok(0) => false,
        Ok(received) => {
            sockets[index].write_all(counters[index].replies(received, &zeros)).expect("the client reads");
            true
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => true,
        Err(_) => false,
    });
    thread_cpu() - start
}

/// The same on glommio's executor, one task for each connection.
fn on_glommio(connections: usize, bound: &Sender<SocketAddr>) -> Duration {
    let executor = LocalExecutorBuilder::new(Placement::Fixed(0)).make().expect("an executor");
    executor.run(async move {
        let listener = glommio::net::TcpListener::bind(LOOPBACK).expect("a port");
        bound.send(listener.local_addr().expect("bound")).expect("the client waits");
        let mut sockets = vec![];
        for _ in 0..connections {
            sockets.push(listener.accept().await.expect("a connection"));
        }
        let start = thread_cpu();
        let tasks: Vec<_> =
            sockets.into_iter().map(|socket| glommio::spawn_local(answer(socket)).detach()).collect();
        for task in tasks {
            task.await;
        }
        thread_cpu() - start
    })
}

async fn answer(mut socket: glommio::net::TcpStream) {
    socket.set_nodelay(true).expect("a TCP socket");
    let zeros = zeros();
    let mut buffer = vec![0; READ_BYTES];
    let mut counter = Counter::default();
    while let Ok(received @ 1..) = socket.read(&mut buffer).await {
        if socket.write_all(counter.replies(received, &zeros)).await.is_err() {
            return;
        }
    }
}

/// Keeps `in_flight` requests on each socket for [`RUN`]; returns the replies and the time that they took.
fn load(mut sockets: Vec<TcpStream>, in_flight: usize) -> (usize, Duration) {
    let requests = vec![0; READ_BYTES];
    let mut buffer = vec![0; READ_BYTES];
    let mut begun = vec![0; sockets.len()];
    let mut replies = 0;
    let set = watched(&sockets);
    let start = Instant::now();
    for socket in &mut sockets {
        socket.write_all(&requests[..in_flight * REQUEST_BYTES]).expect("room for the first requests");
    }
    turns(&set, |index| {
        let received = match sockets[index].read(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) => panic!("the server went: {error}"),
        };
        let answered = (begun[index] + received) / REPLY_BYTES;
        begun[index] = (begun[index] + received) % REPLY_BYTES;
        replies += answered;
        sockets[index].write_all(&requests[..answered * REQUEST_BYTES]).expect("room for the next requests");
        start.elapsed() < RUN
    });
    (replies, start.elapsed())
}

type Serve = fn(usize, &Sender<SocketAddr>) -> Duration;

/// Replies a second, and CPU time of the server for each in microseconds.
fn measure(serve: Serve, connections: usize, in_flight: usize) -> (f64, f64) {
    let (bound, address) = channel();
    let server = thread::spawn(move || serve(connections, &bound));
    let address = address.recv().expect("the server listens");
    let connect = || {
        let socket = TcpStream::connect(address).expect("a connection");
        socket.set_nodelay(true).expect("a TCP socket");
        socket
    };
    let (replies, elapsed) = load((0..connections).map(|_| connect()).collect(), in_flight);
    let cpu = server.join().expect("the server ends when its clients hang up");
    (replies as f64 / elapsed.as_secs_f64(), cpu.as_secs_f64() * 1e6 / replies as f64)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let ways: [(&str, Serve); 2] = [("epoll", on_epoll), ("glommio", on_glommio)];
    println!("replies/s and us of CPU of the server for each, medians of {PAIRS}");
    println!("| connections x requests in flight | {} | {} |\n|---|---|---|", ways[0].0, ways[1].0);
    for (connections, in_flight) in LOADS {
        let mut measured = [(vec![], vec![]), (vec![], vec![])];
        for _ in 0..PAIRS {
            for ((rates, costs), (_, serve)) in measured.iter_mut().zip(ways) {
                let (rate, cost) = measure(serve, connections, in_flight);
                rates.push(rate);
                costs.push(cost);
            }
        }
        let cells = measured.map(|(rates, costs)| format!("{:.0}, {:.2}", median(rates), median(costs)));
        println!("| {connections} x {in_flight} | {} | {} |", cells[0], cells[1]);
    }
}
