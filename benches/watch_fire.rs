//! The watch table: firing 10,000 one-shot watches of one node, looking for watches that are not there, watches that come
//! and go, and what a million watches take.

use criterion::{
    BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use std::hint::black_box;
use zkfast::edge::watches::{Interests, Modes, WatchTable};
use zkfast_wire::EventKind;

struct Nobody;

impl Interests for Nobody {
    fn watch(&mut self, _: &str, _: bool) {}
    fn unwatch(&mut self, _: &str, _: bool) {}
}

/// Bytes of memory that this process has, from the kernel.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or(0) * 1024
}

/// A million watches, each on a path of its own of 24 bytes, spread over 1,000 connections.
fn million(modes: Modes) -> WatchTable {
    let mut table = WatchTable::default();
    for number in 0..1_000_000u32 {
        let path = format!("/watched/node-{number:010}");
        assert_eq!(path.len(), 24);
        table.add(number % 1000, &path, modes, &mut Nobody);
    }
    table
}

/// A path is watched and no longer watched, beside a million others.
fn come_and_go(group: &mut BenchmarkGroup<'_, WallTime>, table: &mut WatchTable, kind: &str, modes: Modes) {
    let mut number = 0u32;
    group.bench_function(format!("{kind} watch comes and goes, beside a million"), |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(7919) % 1_000_000;
            let path = format!("/elsewhere/it-{number:010}");
            table.add(number % 1000, &path, modes, &mut Nobody);
            table.remove(number % 1000, &path, modes, &mut Nobody)
        })
    });
}

fn fire(criterion: &mut Criterion) {
    let before = resident_bytes();
    let mut table = million(Modes::DATA);
    let bytes = resident_bytes().saturating_sub(before);
    println!("1,000,000 watches on 1,000,000 paths: {} MB resident", bytes / 1_000_000);

    let mut group = criterion.benchmark_group("watches");
    come_and_go(&mut group, &mut table, "one-shot", Modes::DATA);
    let mut notified = Vec::new();
    let mut number = 0u32;
    group.bench_function("nobody watches, beside a million", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(1);
            let path = ["/other/node", "/other/leaf"][number as usize % 2];
            table.fire(black_box(path), EventKind::NodeDataChanged, &mut Nobody, &mut notified);
            notified.len()
        })
    });
    group.bench_function("one of a million fires and is left again", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(7919) % 1_000_000;
            let path = format!("/watched/node-{number:010}");
            notified.clear();
            table.fire(&path, EventKind::NodeDataChanged, &mut Nobody, &mut notified);
            table.add(number % 1000, &path, Modes::DATA, &mut Nobody);
            notified.len()
        })
    });
    drop(table);
    let mut table = million(Modes::RECURSIVE);
    come_and_go(&mut group, &mut table, "recursive", Modes::RECURSIVE);
    group.bench_function("one of a million recursive hears of a child", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(7919) % 1_000_000;
            let path = format!("/watched/node-{number:010}/child");
            notified.clear();
            table.fire(&path, EventKind::NodeDataChanged, &mut Nobody, &mut notified);
            notified.len()
        })
    });
    drop(table);
    group.bench_function("10,000 connections hear of one node", |bencher| {
        let crowd = || {
            let mut table = WatchTable::default();
            for slot in 0..10_000 {
                table.add(slot, "/node", Modes::DATA, &mut Nobody);
            }
            table
        };
        bencher.iter_batched(
            crowd,
            |mut table| {
                let mut notified = Vec::new();
                table.fire("/node", EventKind::NodeDataChanged, &mut Nobody, &mut notified);
                assert_eq!(notified.len(), 10_000);
                table
            },
            BatchSize::LargeInput,
        )
    });
    group.finish();
}

criterion_group!(benches, fire);
criterion_main!(benches);
