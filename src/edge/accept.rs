//! Letting connections in (rows R3, R4, R6, C30).
//!
//! A room with `unsafe`: glommio takes a listener that exists already only as a raw descriptor.
#![allow(unsafe_code)]

use super::{
    census::RareLine,
    socket::{Edge, Socket},
};
use crate::config::limits;
use glommio::net::{AcceptedTcpStream, TcpListener, TcpStream};
use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd},
    rc::Rc,
    time::Duration,
};

/// How long accepting rests after an error such as "too many open files" (R6).
const REST_AFTER_ERROR: Duration = Duration::from_millis(10);

/// Accepts connections until it is cancelled.
pub(super) async fn accept(edge: Rc<Edge>, listener: std::net::TcpListener) {
    // glommio makes single calls non-blocking by itself; a listener that is so for good would end its waiting accept
    // at once with EAGAIN.
    if let Err(error) = listener.set_nonblocking(false) {
        log::error!("The listener cannot be set up: {error}.");
        return;
    }
    // SAFETY: `into_raw_fd` gives up the only owner of the descriptor, which is a listening stream socket.
    let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
    let mut refusals = RareLine::default();
    let mut errors = RareLine::default();
    let mut accepted_in_turn = 0;
    loop {
        match listener.shared_accept().await {
            Ok(accepted) => {
                // A client that has gone again has no address any more.
                let Ok(peer) = accepted.peer_addr() else { continue };
                let_in(&edge, accepted, peer, &mut refusals);
                accepted_in_turn += 1;
                if accepted_in_turn == limits::ACCEPTS_PER_TURN {
                    accepted_in_turn = 0;
                    glommio::executor().yield_task_queue_now().await;
                }
            }
            Err(error) => {
                if let Some(unsaid) = errors.may_say(edge.options().clock.now_ms()) {
                    log::warn!("Accepting connections fails ({unsaid} more since the last line): {error}.");
                }
                glommio::timer::sleep(REST_AFTER_ERROR).await;
            }
        }
    }
}

fn let_in(edge: &Rc<Edge>, accepted: AcceptedTcpStream, peer: SocketAddr, refusals: &mut RareLine) {
    let stream = accepted.bind_to_executor();
    let host = peer.ip().to_canonical();
    if let Err(reason) = edge.shared().enter(host, edge.options()) {
        edge.count_refusal();
        if let Some(unsaid) = refusals.may_say(edge.options().clock.now_ms()) {
            log::warn!("Refusing {peer} ({unsaid} more since the last line): {reason}.");
        }
        return reset(stream);
    }
    if let Err(error) = stream.set_nodelay(true) {
        log::debug!("{peer}: TCP_NODELAY cannot be set: {error}.");
    }
    edge.serve(Socket::new(stream, host), peer);
}

/// Closes with a reset (R3), so that the client's connect does not look like a success that was then lost.
fn reset(stream: TcpStream) {
    // SAFETY: `stream` owns the descriptor and lives until the end of this function.
    let descriptor = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
    // If it fails the connection closes in the ordinary way.
    let _ = socket2::SockRef::from(&descriptor).set_linger(Some(Duration::ZERO));
}
