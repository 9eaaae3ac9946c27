//! Every decoder of `zkfast-wire` against random bytes and mutated valid frames: no panic, no allocation beyond what
//! the bytes that are really there can fill.
//!
//! The tests make 200,000 frames; `ZKFAST_FUZZ_FRAMES=10000000 cargo test --release --test fuzz` makes ten million.
//! `ZKFAST_SEED` plays a run again.

#[path = "../peers/dice.rs"]
mod dice;

mod allocation;
mod corpus;

use bytes::Bytes;
use dice::Dice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use zkfast_wire::{
    Acl, Decoder, Id, OpCode, Request, Stat, StatPersisted, Txn, frame,
    handshake::{ConnectRequest, ConnectResponse},
    multi::MultiResult,
    quorum::{self, Direction, Packet},
    reply::{Reply, ReplyHeader},
    request::{MultiHeader, RequestHeader},
    vote::{Greeting, Notification},
    watch::WatcherEvent,
};

/// Live bytes that decoding may hold per byte of input: a 4-byte empty string becomes a `Cow<str>` of 24 bytes, an
/// 8-byte part of a transaction a `Txn`, and growing vectors hold up to three times what they need for a moment.
const ALLOCATED_PER_BYTE: usize = 100;
/// What errors, empty vectors and shared handles cost at most.
const ALLOCATED_FIXED: usize = 4_096;

/// Feeds `bytes` to every decoder. Results do not matter, only that there are some.
fn decode_all(bytes: &[u8]) {
    for op in OpCode::ALL {
        let _ = Request::decode(*op, &mut Decoder::new(bytes));
        let _ = Reply::decode(*op, &mut Decoder::new(bytes));
        let _ = Txn::decode_body(*op, &mut Decoder::new(bytes), true);
    }
    let mut decoder = Decoder::new(bytes);
    if let Ok(header) = RequestHeader::decode(&mut decoder)
        && let Some(op) = OpCode::from_i32(header.op)
    {
        let _ = Request::decode(op, &mut decoder);
    }
    let _ = ReplyHeader::decode(&mut Decoder::new(bytes));
    let _ = MultiHeader::decode(&mut Decoder::new(bytes));
    let _ = MultiResult::decode_list(&mut Decoder::new(bytes));
    let _ = ConnectRequest::decode(&mut Decoder::new(bytes));
    let _ = ConnectResponse::decode(&mut Decoder::new(bytes));
    let _ = WatcherEvent::decode(&mut Decoder::new(bytes));
    let _ = Txn::decode_record(bytes);
    let _ = Acl::decode_list(&mut Decoder::new(bytes));
    let _ = Id::decode(&mut Decoder::new(bytes));
    let _ = Stat::decode(&mut Decoder::new(bytes));
    let _ = StatPersisted::decode(&mut Decoder::new(bytes));
    let _ = Decoder::new(bytes).texts("texts");
    let _ = frame::cut(bytes, 1_048_575);
    let _ = frame::decoders(bytes, 1_048_575).count();
    let _ = Greeting::decode(bytes);
    let shared = Bytes::copy_from_slice(bytes);
    let _ = Notification::decode(&shared);
    for direction in [Direction::ToLeader, Direction::ToLearner] {
        let _ = Packet::decode(&shared, direction, 1_048_575);
    }
    let _ = quorum::touches(bytes).count();
}

/// Danger: a client, a peer or a damaged file makes a decoder panic, and the process with it; or a length field that
/// promises two billion elements makes it reserve them.
#[test]
fn no_bytes_make_a_decoder_panic_or_allocate_without_bound() {
    let frames: u64 = match std::env::var("ZKFAST_FUZZ_FRAMES") {
        Ok(text) => text.parse().expect("ZKFAST_FUZZ_FRAMES is a number"),
        Err(_) => 200_000,
    };
    let seed = Dice::seed();
    println!("ZKFAST_SEED={seed}, {frames} frames");
    let mut dice = Dice::new(seed);
    let corpus = corpus::valid_frames();
    for frame in &corpus {
        check(frame, seed, 0);
    }
    let mut bytes = Vec::new();
    for count in 1..=frames {
        bytes.clear();
        if dice.one_in(8) {
            bytes.resize(dice.below(400), 0);
            dice.fill(&mut bytes);
        } else {
            bytes.extend_from_slice(&corpus[dice.below(corpus.len())]);
            for _ in 0..1 + dice.below(4) {
                corpus::mutate(&mut bytes, &corpus, &mut dice);
            }
        }
        check(&bytes, seed, count);
    }
}

fn check(bytes: &[u8], seed: u64, count: u64) {
    let before = allocation::start();
    let result = catch_unwind(AssertUnwindSafe(|| decode_all(bytes)));
    let peak = allocation::peak_since(before);
    assert!(result.is_ok(), "a decoder panicked: seed {seed}, frame {count}: {bytes:02x?}");
    let limit = bytes.len() * ALLOCATED_PER_BYTE + ALLOCATED_FIXED;
    assert!(
        peak <= limit,
        "{peak} bytes held for a frame of {} (limit {limit}): seed {seed}, frame {count}: {bytes:02x?}",
        bytes.len()
    );
}
