//! The sockets of one client core: bytes between glommio's streams and the core's state, and the turns in which that
//! happens.
//!
//! One small task for each connection reads it, into a buffer that all of them share. Nobody writes to a socket but
//! the end of a turn, which runs behind all tasks that were ready: so whatever the turn brought for a connection,
//! answers of the pipeline and reads alike, leaves in one send.

use super::{EdgeCore, EdgeOptions, EdgeShared, accept, connection::Phase, core::Core};
use crate::{
    config::limits,
    cores::{lanes::Sleeper, messages::ConnectionId},
    status::CoreCounters,
};
use futures_lite::{AsyncRead, AsyncWrite, future::poll_fn};
use glommio::net::TcpStream;
use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Full read buffers taken from one socket before the others have their turn.
const READS_PER_TURN: usize = 2;
/// Sends to one socket before the others have their turn; the second one finds that the first took all there was room
/// for.
const SENDS_PER_TURN: usize = 2;

/// Runs a client core on the current executor until the pipeline says that the server stops.
pub async fn run(core: EdgeCore) {
    let EdgeCore { index, options, listener, reader, submissions, deliveries, bell, counters, shared } = core;
    let mut sleeper = bell.attach();
    let state =
        Core::new(index, options.clone(), shared.clone(), counters.clone(), reader, submissions, deliveries);
    let edge = Rc::new(Edge {
        options,
        shared,
        counters,
        state: RefCell::new(State {
            core: state,
            sockets: Vec::new(),
            buffer: vec![0; limits::READ_CHUNK_BYTES].into_boxed_slice(),
            ids: Vec::new(),
        }),
        turn: Turn::default(),
    });
    let accepting = glommio::spawn_local(accept::accept(edge.clone(), listener));
    let sweeping = glommio::spawn_local(sweep(edge.clone()));
    let turning = glommio::spawn_local(end_turns(edge.clone()));
    follow_pipeline(&edge, &mut sleeper).await;
    accepting.cancel().await;
    sweeping.cancel().await;
    turning.cancel().await;
    edge.close_all();
}

/// What the tasks of one client core share.
pub(super) struct Edge {
    options: Arc<EdgeOptions>,
    shared: Arc<EdgeShared>,
    counters: Arc<CoreCounters>,
    state: RefCell<State>,
    turn: Turn,
}

struct State {
    core: Core,
    /// By slot.
    sockets: Vec<Option<Box<Socket>>>,
    /// Into which every socket of this core is read.
    buffer: Box<[u8]>,
    ids: Vec<ConnectionId>,
}

/// One connection's socket.
pub(super) struct Socket {
    stream: TcpStream,
    host: IpAddr,
    id: ConnectionId,
    waker: Waker,
    /// It took no more; glommio wakes the task when it does again.
    is_full: bool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, host: IpAddr) -> Self {
        let id = ConnectionId { core: 0, slot: 0, generation: 0 };
        Self { stream, host, id, waker: Waker::noop().clone(), is_full: false }
    }
}

/// The end of the turn, asked for by whoever did something and run once behind all of them.
#[derive(Default)]
struct Turn {
    is_wanted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Turn {
    fn want_end(&self) {
        if !self.is_wanted.replace(true)
            && let Some(waker) = &*self.waker.borrow()
        {
            waker.wake_by_ref();
        }
    }
}

/// Does what the pipeline says, for as long as there is a server.
async fn follow_pipeline(edge: &Edge, sleeper: &mut Sleeper) {
    let spin = edge.options.spin;
    loop {
        if edge.state.borrow_mut().core.drain() {
            edge.turn.want_end();
        }
        if edge.state.borrow().core.is_stopping() {
            return;
        }
        if spin > Duration::ZERO {
            let start = Instant::now();
            while !edge.state.borrow().core.has_deliveries() && start.elapsed() < spin {
                glommio::executor().yield_task_queue_now().await;
            }
        }
        if let Err(error) = sleeper.sleep(|| !edge.state.borrow().core.has_deliveries()).await {
            log::error!("A client core cannot be woken any more: {error}.");
            return;
        }
    }
}

/// Runs the end of each turn.
async fn end_turns(edge: Rc<Edge>) {
    poll_fn(|context| {
        *edge.turn.waker.borrow_mut() = Some(context.waker().clone());
        if edge.turn.is_wanted.replace(false) {
            edge.state.borrow_mut().end_turn(&edge);
        }
        Poll::<()>::Pending
    })
    .await;
}

/// What happens a few times a tick.
async fn sweep(edge: Rc<Edge>) {
    let interval_ms = (edge.options.tick_ms / limits::SWEEPS_PER_TICK).clamp(10, 500);
    loop {
        glommio::timer::sleep(Duration::from_millis(interval_ms.into())).await;
        edge.state.borrow_mut().core.sweep();
        edge.turn.want_end();
    }
}

impl Edge {
    pub(super) fn options(&self) -> &EdgeOptions {
        &self.options
    }

    pub(super) fn shared(&self) -> &EdgeShared {
        &self.shared
    }

    pub(super) fn count_refusal(&self) {
        self.counters.connections_rejected.increment();
    }

    /// Takes a new connection in and starts its task.
    pub(super) fn serve(self: &Rc<Self>, mut socket: Socket, peer: SocketAddr) {
        let id = {
            let mut state = self.state.borrow_mut();
            let id = state.core.accepted(peer);
            socket.id = id;
            let slot = id.slot as usize;
            if state.sockets.len() <= slot {
                state.sockets.resize_with(slot + 1, || None);
            }
            assert!(state.sockets[slot].is_none(), "a free slot has a socket");
            state.sockets[slot] = Some(Box::new(socket));
            id
        };
        let edge = self.clone();
        let task = async move { poll_fn(|context| edge.state.borrow_mut().poll(&edge, id, context)).await };
        glommio::spawn_local(task).detach();
    }

    /// The server stops: what is written is sent as far as the sockets take it, then all are closed.
    fn close_all(&self) {
        let mut state = self.state.borrow_mut();
        for slot in 0..state.sockets.len() {
            if let Some(id) = state.sockets[slot].as_ref().map(|socket| socket.id) {
                state.flush(self, id);
                state.close(self, id);
            }
        }
        state.core.publish();
    }
}

impl State {
    fn socket(&mut self, id: ConnectionId) -> Option<&mut Socket> {
        let socket = self.sockets.get_mut(id.slot as usize)?.as_deref_mut()?;
        (socket.id == id).then_some(socket)
    }

    /// One turn of a connection's task. Ready when the socket has been closed.
    fn poll(&mut self, edge: &Edge, id: ConnectionId, context: &mut Context<'_>) -> Poll<()> {
        let Self { core, sockets, buffer, .. } = self;
        let Some(socket) = sockets.get_mut(id.slot as usize).and_then(Option::as_mut) else {
            return Poll::Ready(());
        };
        if socket.id != id {
            return Poll::Ready(());
        }
        if !socket.waker.will_wake(context.waker()) {
            socket.waker = context.waker().clone();
        }
        // What the pipeline has said comes before what clients ask now.
        let mut is_end_wanted = core.drain();
        if socket.is_full {
            socket.is_full = false;
            core.mark_dirty(id);
            is_end_wanted = true;
        }
        for read in 0.. {
            if !core.wants_input(id) {
                break;
            }
            if read == READS_PER_TURN {
                context.waker().wake_by_ref();
                break;
            }
            match Pin::new(&mut socket.stream).poll_read(context, buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) if count > 0 => core.received(id, &buffer[..count]),
                Poll::Ready(_) => {
                    core.hung_up(id);
                    is_end_wanted = true;
                    break;
                }
            }
            is_end_wanted = true;
        }
        if is_end_wanted {
            edge.turn.want_end();
        }
        Poll::Pending
    }

    fn end_turn(&mut self, edge: &Edge) {
        self.core.end_turn();
        let mut ids = std::mem::take(&mut self.ids);
        if self.core.take_dirty(&mut ids) {
            edge.turn.want_end();
        }
        for id in ids.drain(..) {
            self.flush(edge, id);
        }
        self.core.take_rearmed(&mut ids);
        for id in ids.drain(..) {
            if let Some(socket) = self.socket(id) {
                socket.waker.wake_by_ref();
            }
        }
        self.ids = ids;
        self.core.publish();
    }

    /// Sends what a connection has to send, and closes it if that was all.
    fn flush(&mut self, edge: &Edge, id: ConnectionId) {
        let Self { core, sockets, .. } = self;
        let Some(socket) = sockets.get_mut(id.slot as usize).and_then(Option::as_mut) else { return };
        let mut is_broken = false;
        for _ in 0..SENDS_PER_TURN {
            let Some((unsent, phase)) = core.output(id) else { return };
            if unsent.is_empty() {
                if matches!(phase, Phase::Finishing | Phase::Dead) {
                    break;
                }
                return;
            }
            let waker = socket.waker.clone();
            match Pin::new(&mut socket.stream).poll_write(&mut Context::from_waker(&waker), unsent) {
                Poll::Ready(Ok(count)) if count > 0 => {
                    core.sent(id, count);
                    if core.has_held() {
                        edge.turn.want_end();
                    }
                }
                Poll::Pending => {
                    socket.is_full = true;
                    return;
                }
                Poll::Ready(_) => {
                    is_broken = true;
                    break;
                }
            }
        }
        match core.output(id) {
            Some(([], Phase::Finishing | Phase::Dead)) => self.close(edge, id),
            Some(_) if is_broken => self.close(edge, id),
            Some(([_, ..], _)) => {
                // The socket takes more: again in the next turn.
                core.mark_dirty(id);
                edge.turn.want_end();
            }
            _ => {}
        }
    }

    /// Closes a socket and forgets its connection; its task ends.
    fn close(&mut self, edge: &Edge, id: ConnectionId) {
        let Some(socket) = self.sockets[id.slot as usize].take() else { return };
        edge.shared.leave(socket.host);
        self.core.closed(id);
        socket.waker.wake_by_ref();
    }
}
