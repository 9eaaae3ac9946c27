//! What the tree costs on 1,000,000 znodes (24-byte path, 100 bytes of data): set, create, delete, get, create under a
//! parent with 100,000 children, image and load, and bytes of memory per znode. Figures: tuning.md, "The tree".
//!
//! Writes go through prepare and apply in batches of 64, as the pipeline runs them; a reader follows and publishes after
//! each batch, so that superseded versions are freed on the way. Times are the thread's CPU time: other processes on
//! the machine should not count.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, time::Duration};
use zkfast_tree::{Ask, Reader, Tree, TreeConfig, image};
use zkfast_wire::{
    Acl, Id, OpCode, Request, SessionId, Zxid,
    request::{CreateRequest, PathVersion, SetDataRequest},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NODES: u64 = 1_000_000;
const BATCH: u64 = 64;
const WIDE_CHILDREN: u64 = 100_000;
const DATA: [u8; 100] = [7; 100];
const SESSION: SessionId = SessionId(1);

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory of this process in bytes.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has /proc");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of /proc/self/status");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kilobytes * 1024
}

/// A path of 24 bytes.
fn path(node: u64) -> String {
    format!("/bench-dir-{:04}/n{node:07}", node % 1000)
}

struct World {
    tree: Tree,
    reader: Reader,
    zxid: i64,
    random: u64,
    next_node: u64,
    next_wide: u64,
    identities: [Id<'static>; 1],
}

impl World {
    fn new() -> Self {
        let before = resident_bytes();
        // ZKFAST_DIGESTS=off tells what the digest costs (P34).
        let has_digests = std::env::var("ZKFAST_DIGESTS").as_deref() != Ok("off");
        let mut tree = Tree::new(TreeConfig { hash_seed: 12_345, has_digests, ..TreeConfig::default() });
        let reader = tree.reader();
        let identities = [Id::new("ip", "127.0.0.1")];
        let (random, zxid) = (88_172_645_463_325_252, 0);
        let mut world = Self { tree, reader, zxid, random, next_node: 0, next_wide: 0, identities };
        world.run(&[Request::CreateSession(30_000)]);
        let parents = (0..1000).map(|parent| format!("/bench-dir-{parent:04}"));
        let parents: Vec<String> = parents.chain(["/wide".to_owned()]).collect();
        world.run(&parents.iter().map(|path| create(path)).collect::<Vec<_>>());
        while world.next_node < NODES {
            world.create_batch();
        }
        world.tree.settle();
        println!("memory: {} bytes a znode", (resident_bytes() - before) / NODES);
        while world.next_wide < WIDE_CHILDREN {
            world.create_wide_batch();
        }
        world
    }

    fn random_path(&mut self) -> String {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        path(self.random % NODES)
    }

    /// Prepares all, then applies all; the CPU time of both.
    fn run(&mut self, requests: &[Request<'_>]) -> Duration {
        let start = cpu_time();
        self.tree.prefetch(requests.iter().map(path_of));
        let mut records = Vec::with_capacity(requests.len() * 256);
        let mut ends = Vec::with_capacity(requests.len());
        for request in requests {
            self.zxid += 1;
            let ask = Ask {
                session: SESSION,
                cxid: 1,
                zxid: Zxid(self.zxid),
                time_ms: self.zxid,
                op: op_of(request),
                request,
                identities: &self.identities,
            };
            assert!(self.tree.prepare(&ask, &mut records).error.is_ok());
            ends.push(records.len());
        }
        let records = Bytes::from(records);
        let mut begin = 0;
        for end in ends {
            black_box(self.tree.apply(&records.slice(begin..end)).expect("just prepared"));
            begin = end;
        }
        let elapsed = cpu_time() - start;
        self.reader.set_view(Zxid(self.zxid));
        self.reader.publish();
        elapsed
    }

    fn create_batch(&mut self) -> Duration {
        let paths: Vec<String> = (self.next_node..self.next_node + BATCH).map(path).collect();
        self.next_node += BATCH;
        self.run(&paths.iter().map(|path| create(path)).collect::<Vec<_>>())
    }

    fn create_wide_batch(&mut self) -> Duration {
        let children = self.next_wide..self.next_wide + BATCH;
        let paths: Vec<String> = children.map(|child| format!("/wide/child-{child:011}")).collect();
        self.next_wide += BATCH;
        self.run(&paths.iter().map(|path| create(path)).collect::<Vec<_>>())
    }

    fn delete_wide_batch(&mut self) -> Duration {
        self.next_wide -= BATCH;
        let children = self.next_wide..self.next_wide + BATCH;
        let paths: Vec<String> = children.map(|child| format!("/wide/child-{child:011}")).collect();
        let delete = |path: &String| Request::Delete(PathVersion { path: path.clone().into(), version: -1 });
        self.run(&paths.iter().map(delete).collect::<Vec<_>>())
    }

    fn set_batch(&mut self) -> Duration {
        let paths: Vec<String> = (0..BATCH).map(|_| self.random_path()).collect();
        let set = |path: &String| {
            let path = path.clone().into();
            Request::SetData(SetDataRequest { path, data: Some(&DATA), version: -1 })
        };
        self.run(&paths.iter().map(set).collect::<Vec<_>>())
    }

    /// The walks that one client core does in one go.
    fn walks(&mut self) {
        let mut names = Vec::new();
        for _ in 0..3 {
            // What the caches held of the children is gone.
            (0..2_000).for_each(|_| {
                black_box(self.get_batch());
            });
            let node = self.reader.node("/wide").expect("created above");
            let start = cpu_time();
            names.clear();
            node.put_children(&mut names);
            let list = cpu_time() - start;
            let root = self.reader.node("/").expect("the root");
            let start = cpu_time();
            let count = black_box(root.descendant_count());
            let walk = cpu_time() - start;
            println!("names of {} children: {list:?}; {count} descendants: {walk:?}", node.num_children());
        }
    }

    fn get_batch(&mut self) -> Duration {
        let paths: Vec<String> = (0..BATCH).map(|_| self.random_path()).collect();
        let start = cpu_time();
        for path in &paths {
            let node = self.reader.node(path).expect("created above");
            black_box((node.data().map(|data| data[0]), node.stat()));
        }
        cpu_time() - start
    }
}

fn create(path: &str) -> Request<'_> {
    let acl = Some(vec![Acl::OPEN]);
    let create = CreateRequest { path: path.into(), data: Some(&DATA), acl, flags: 0, ttl_ms: None };
    Request::Create(OpCode::Create, create)
}

fn op_of(request: &Request<'_>) -> OpCode {
    match request {
        Request::Create(op, _) => *op,
        Request::SetData(_) => OpCode::SetData,
        Request::Delete(_) => OpCode::Delete,
        _ => OpCode::CreateSession,
    }
}

fn path_of<'a>(request: &'a Request<'_>) -> &'a str {
    match request {
        Request::Create(_, create) => &create.path,
        Request::SetData(set) => &set.path,
        Request::Delete(delete) => &delete.path,
        _ => "/",
    }
}

fn tree_apply(criterion: &mut Criterion) {
    let mut world = World::new();
    let mut group = criterion.benchmark_group("tree, 1M znodes");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(2));
    let mut bench = |name: &str, batch: &mut dyn FnMut(&mut World) -> Duration| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let batches = iterations.div_ceil(BATCH);
                let spent: Duration = (0..batches).map(|_| batch(&mut world)).sum();
                spent.mul_f64(iterations as f64 / (batches * BATCH) as f64)
            });
        });
    };
    bench("prepare and apply a set", &mut World::set_batch);
    bench("get with stat", &mut World::get_batch);
    bench("prepare and apply a create under 100k children", &mut |world| {
        let spent = world.create_wide_batch();
        world.delete_wide_batch();
        spent
    });
    bench("prepare and apply a delete under 100k children", &mut |world| {
        world.create_wide_batch();
        world.delete_wide_batch()
    });
    bench("prepare and apply a create", &mut World::create_batch);
    group.finish();

    world.walks();
    let start = cpu_time();
    let mut image = world.tree.image();
    let mut bytes = Vec::new();
    while image.next_chunk(&mut bytes) {}
    let written = cpu_time() - start;
    let count = image.node_count() as u32;
    drop(image);
    let start = cpu_time();
    let (loaded, _) = image::load(TreeConfig::default(), &bytes).expect("just written");
    let load = cpu_time() - start;
    assert_eq!(loaded.digest(), world.tree.digest());
    println!(
        "image: {count} znodes, {} bytes; written at {:?} a znode, loaded at {:?} a znode",
        bytes.len(),
        written / count,
        load / count
    );
}

criterion_group!(benches, tree_apply);
criterion_main!(benches);
