//! Frames recorded between real clients and Apache's server, read and written again byte for byte (rule 25).

use crate::{
    ConnectRequest, ConnectResponse, Decoder, OpCode, Reply, ReplyHeader, Request, RequestHeader,
    WatcherEvent, Xid, Zxid, frame, reply, watch,
};

struct Recorded {
    from_client: bool,
    what: String,
    frame: Vec<u8>,
}

fn recorded() -> Vec<Recorded> {
    let texts = [include_str!("golden/client-3.8.0.txt"), include_str!("golden/client-3.9.5.txt")];
    texts
        .into_iter()
        .flat_map(str::lines)
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let columns: Vec<&str> = line.split(' ').collect();
            let [side, _client, what, hex] = columns[..] else { panic!("four columns: {line}") };
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            Recorded {
                from_client: side == "C",
                what: what.into(),
                frame: (0..hex.len()).step_by(2).map(byte).collect(),
            }
        })
        .collect()
}

fn payload(frame: &[u8]) -> &[u8] {
    let payload = frame::cut(frame, 1 << 20).unwrap().expect("a whole frame");
    assert_eq!(payload.len() + frame::LENGTH_BYTES, frame.len());
    payload
}

/// What a client's frame says, written by us.
fn client_frame_again(what: &str, bytes: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(payload(bytes));
    let mut out = Vec::new();
    if what == "connect" {
        let request = ConnectRequest::decode(&mut decoder).unwrap();
        frame::write(&mut out, |out| request.encode(out));
    } else {
        let header = RequestHeader::decode(&mut decoder).unwrap();
        assert_eq!(header.op.to_string(), what);
        let op = OpCode::from_i32(header.op).unwrap();
        let request = Request::decode(op, &mut decoder).unwrap();
        assert_eq!(request.op(), op);
        request.write(header.xid, &mut out);
    }
    assert_eq!(decoder.remaining(), 0, "{what}");
    out
}

/// What a server's frame says, written by us.
fn server_frame_again(what: &str, bytes: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(payload(bytes));
    let mut out = Vec::new();
    if what == "connect" {
        let response = ConnectResponse::decode(&mut decoder).unwrap();
        frame::write(&mut out, |out| response.encode(out));
        return out;
    }
    let header = ReplyHeader::decode(&mut decoder).unwrap();
    if what == "event" {
        // 3.8 sends -1 where 3.9 sends the transaction's zxid; for setWatches both send -1 (C19).
        assert_eq!(header.xid, Xid::NOTIFICATION);
        assert!(header.zxid == Zxid(-1) || header.zxid > Zxid(0));
        let event = WatcherEvent::decode(&mut decoder).unwrap();
        assert_eq!(event.state, watch::STATE_SYNC_CONNECTED);
        watch::put_notification(&mut out, header.zxid, event.kind, &event.path);
    } else if header.err.is_ok() {
        let op = OpCode::from_i32(what.parse().unwrap()).unwrap();
        let body = Reply::decode(op, &mut decoder).unwrap();
        reply::write(&mut out, header, |out| body.encode(out));
    } else {
        reply::write_empty(&mut out, header);
    }
    assert_eq!(decoder.remaining(), 0, "{what}");
    out
}

/// Danger: a codec that agrees with itself alone: frames (J7), numbers (J1), buffers, strings, vectors and records (J2-J5),
/// identities and lists (J8, J9), stats (J10), both handshakes and headers (C2, C3, C15), each operation.
#[test]
fn frames_of_real_clients_and_servers_come_out_as_they_went_in() {
    let recorded = recorded();
    assert!(recorded.len() > 180);
    for op in OpCode::ALL {
        // Those that clients send and servers take (check stands inside the multis).
        let is_asked =
            !matches!(op, OpCode::Check | OpCode::DeleteContainer | OpCode::CreateSession | OpCode::Error);
        let number = op.to_i32().to_string();
        let sides = recorded.iter().filter(|one| one.what == number).map(|one| one.from_client);
        assert!(
            !is_asked || sides.collect::<std::collections::HashSet<_>>().len() == 2,
            "{op:?} is not recorded"
        );
    }
    for Recorded { from_client, what, frame } in &recorded {
        let again =
            if *from_client { client_frame_again(what, frame) } else { server_frame_again(what, frame) };
        assert_eq!(again, *frame, "{what}, from_client {from_client}");
    }
}

/// R14: whatever is cut off or changed in a real frame, decoding ends in a value or an error.
#[test]
fn damaged_frames_never_panic() {
    for Recorded { from_client, what, frame } in &recorded() {
        let op = what.parse().ok().and_then(OpCode::from_i32);
        let payload = payload(frame);
        let header_bytes =
            if *from_client { RequestHeader::ENCODED_BYTES } else { ReplyHeader::ENCODED_BYTES };
        let mut bytes = payload.to_vec();
        for at in 0..payload.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                bytes[at] = value;
                for cut in [at, payload.len()] {
                    let _ = ConnectRequest::decode(&mut Decoder::new(&bytes[..cut]));
                    let _ = ConnectResponse::decode(&mut Decoder::new(&bytes[..cut]));
                    let Some(body) = bytes[..cut].get(header_bytes..) else { continue };
                    let _ = WatcherEvent::decode(&mut Decoder::new(body));
                    if let Some(op) = op {
                        let _ = Request::decode(op, &mut Decoder::new(body));
                        let _ = Reply::decode(op, &mut Decoder::new(body));
                    }
                }
            }
            bytes[at] = payload[at];
        }
    }
}
