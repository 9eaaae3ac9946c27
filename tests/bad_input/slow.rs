//! Thousands who begin something and do not go on: what they sent so far is all that they may cost.

use super::{
    beside_a_good_client,
    peers::{self, Client, Handshake, Kind, Server, Settings, client},
    progress, raise_own_file_limit,
};
use std::io::Write;
use zkfast_wire::OpCode;

/// Danger: a client announces a packet of a megabyte and sends a byte now and then; a thousand of them make the server
/// reserve a gigabyte (R1), or keep the others waiting.
#[test]
fn thousands_of_slow_packets_cost_what_was_sent_of_them() {
    const CONNECTIONS: usize = 2_000;
    raise_own_file_limit();
    let home = peers::directory();
    let server =
        Server::start(Kind::under_test(), home.path(), &Settings { tick_ms: 3_000, ..Settings::default() });
    beside_a_good_client(&server, |answers| {
        // Sessions with nothing but themselves, for what they cost by themselves.
        let mut slow: Vec<Client> = (0..CONNECTIONS).map(|_| server.client(60_000)).collect();
        progress(answers, "many sessions");
        let before = server.resident_kib();
        let mut begin = 1_000_000_i32.to_be_bytes().to_vec();
        begin.extend([0, 0, 0, 9]);
        begin.extend(OpCode::SetData.to_i32().to_be_bytes());
        for client in &mut slow {
            client.submit_raw(&begin);
            client.flush().expect("an open connection");
        }
        progress(answers, "the begin of slow packets");
        for round in 0..5 {
            for client in &slow {
                client.stream().write_all(&[round]).expect("the server waits for the rest");
            }
            progress(answers, "slow packets");
        }
        let grown = server.resident_kib().saturating_sub(before);
        // 4 KiB for each of them, and slack for the allocator; Apache reserves what is announced.
        let limit = if server.kind == Kind::Zkfast { 24 * 1024 } else { 4 << 20 };
        assert!(grown < limit, "{CONNECTIONS} slow packets cost {grown} KiB");
        // Half a handshake is no session, and costs even less.
        let before = server.resident_kib();
        let half = &Handshake::new(10_000).frame()[..20];
        let shaking: Vec<_> = (0..400)
            .map(|_| {
                let mut stream = client::dial(server.address);
                stream.write_all(half).expect("the server waits for the rest");
                stream
            })
            .collect();
        progress(answers, "half handshakes");
        let grown = server.resident_kib().saturating_sub(before);
        assert!(grown < limit, "{} half handshakes cost {grown} KiB", shaking.len());
    });
}
