//! What one frame costs: cutting and decoding a request, writing a reply, and the notification that a fan-out copies.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use zkfast_wire::{
    ErrorCode, EventKind, OpCode, ReplyHeader, Request, RequestHeader, Stat, Xid, Zxid, frame, reply,
    request::{PathWatch, SetDataRequest},
    watch,
};

const PATH: &str = "/loadgen/n0000000000001";

fn frames(request: &Request<'_>, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for xid in 0..count {
        request.write(Xid(xid as i32), &mut out);
    }
    out
}

fn decode_all(bytes: &[u8]) -> usize {
    let mut seen = 0;
    for frame in frame::decoders(bytes, 1 << 20) {
        let mut decoder = frame.expect("whole frames");
        let header = RequestHeader::decode(&mut decoder).expect("a header");
        let op = OpCode::from_i32(header.op).expect("a known operation");
        let request = Request::decode(op, &mut decoder).expect("a body");
        seen += usize::from(black_box(request).op() == op);
    }
    seen
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    group.throughput(Throughput::Elements(16));
    let gets = frames(&Request::GetData(PathWatch { path: PATH.into(), watch: false }), 16);
    group.bench_function("decode 16 getData", |bencher| bencher.iter(|| decode_all(black_box(&gets))));
    let set = SetDataRequest { path: PATH.into(), data: Some(&[7; 100]), version: -1 };
    let sets = frames(&Request::SetData(set), 16);
    group.bench_function("decode 16 setData", |bencher| bencher.iter(|| decode_all(black_box(&sets))));
    let mut out = Vec::with_capacity(1 << 16);
    group.bench_function("write 16 replies of getData", |bencher| {
        bencher.iter(|| {
            out.clear();
            for xid in 0..16 {
                let header = ReplyHeader { xid: Xid(xid), zxid: Zxid(7), err: ErrorCode::OK };
                reply::write(&mut out, header, |out| {
                    reply::put_data(out, black_box(Some(&[7; 100])), black_box(&Stat::default()));
                });
            }
            out.len()
        })
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("write a notification", |bencher| {
        bencher.iter(|| {
            out.clear();
            watch::put_notification(&mut out, Zxid(7), EventKind::NodeDataChanged, black_box(PATH));
            out.len()
        })
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
