//! The nodes that must be there before a load runs, and their removal after it.

use crate::{
    claim,
    client::Client,
    mix::Plan,
    operation::{Mode, Operation, put_create, put_read, put_set},
    traffic::{cycles_of, put_watched_path},
    units::ByteRange,
};
use anyhow::{Context, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use zkfast_wire::{ErrorCode, OpCode, Stat, jute::Decoder};

/// What the root of a load holds, so that nothing that belongs to somebody else is taken for one and deleted.
pub const MARK: &[u8] = b"made by loadgen, which deletes it with all that is beneath";

/// Nodes that are made between two looks at Ctrl-C.
const NODES_AT_ONCE: u64 = 10_000;

/// Makes the root of a load and the nodes above it. One of an earlier load is taken over.
///
/// # Errors
/// If there is a node already that no load has made or that another is using, or the server refuses.
pub fn own(client: &mut Client, root: &str) -> anyhow::Result<()> {
    for (at, _) in root.match_indices('/').skip(1) {
        client.ensure_node(&root[..at])?;
    }
    let path = |out: &mut Vec<u8>| out.extend_from_slice(root.as_bytes());
    match client.call(OpCode::Create, |out| put_create(out, path, MARK, Mode::Persistent))?.0 {
        ErrorCode::OK => Ok(()),
        ErrorCode::NODE_EXISTS if is_own(client, root)? => claim::check(client, root),
        ErrorCode::NODE_EXISTS => bail!(
            "{root} is there and was not made by loadgen, which would delete it at the end; name a node of its own \
             with --root"
        ),
        code => bail!("the server refuses to create {root}: {code}"),
    }
}

/// Deletes the root of a load and all beneath it, unless no load has made it.
///
/// # Errors
/// If it is somebody else's, another load is using it, the connection is lost or a node cannot be deleted.
pub fn remove(client: &mut Client, root: &str) -> anyhow::Result<()> {
    match client.get(root)? {
        None => Ok(()),
        Some((data, _)) if data == MARK => {
            claim::check(client, root)?;
            client.delete_tree(root).map(drop)
        }
        Some(_) => bail!("{root} was not made by loadgen and is left as it is"),
    }
}

fn is_own(client: &mut Client, root: &str) -> anyhow::Result<bool> {
    Ok(client.get(root)?.is_none_or(|(data, _)| data == MARK))
}

/// Lays out what the plan needs, until `stop`. Nodes that exist already are kept; those whose value has another size than
/// this run wants are set, so that reads have the size that was asked for; to verify, all are. What earlier loads have created goes.
///
/// # Errors
/// If the server refuses a node for any other reason.
pub fn prepare(
    client: &mut Client,
    plan: &Plan,
    list_children: u64,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    own(client, &plan.root)?;
    for path in plan.keys.directories() {
        client.ensure_node(&path)?;
    }
    let values = Values::new(plan.values, plan.seed).renewing(plan.verify);
    let uses = |operations: &[Operation]| operations.iter().any(|operation| plan.pace.has(*operation));
    if uses(&[Operation::Set, Operation::Get, Operation::Exists, Operation::Multi]) {
        create_all(client, plan.keys.count, |key, out| plan.keys.put(key, out), &values, stop)?;
    }
    for (operations, directory) in [
        (&[Operation::Create, Operation::Delete][..], "created"),
        (&[Operation::CreateSequential][..], "sequence"),
        (&[Operation::Ephemeral][..], "ephemeral"),
        (&[Operation::Watch][..], "watched"),
        (&[Operation::Children][..], "list"),
    ] {
        if uses(operations) {
            let path = format!("{}/{directory}", plan.root);
            if ["created", "sequence", "ephemeral"].contains(&directory) {
                client.delete_tree(&path)?;
            }
            client.ensure_node(&path)?;
        }
    }
    if uses(&[Operation::Watch]) {
        let cycles = cycles_of(plan) as u64;
        let path = |at, out: &mut Vec<u8>| put_watched_path(&plan.root, at / cycles, at % cycles, out);
        create_all(client, plan.connections as u64 * cycles, path, &values, stop)?;
    }
    if uses(&[Operation::Children]) {
        let path = |number: u64, out: &mut Vec<u8>| {
            out.extend_from_slice(format!("{}/list/n{number:06}", plan.root).as_bytes());
        };
        create_all(client, list_children, path, &values, stop)?;
    }
    Ok(())
}

/// What the first values are made of.
pub const FIRST_BYTE: u8 = b'.';

/// The first value of each node: its size comes from the range, by the number of the node and the seed.
#[derive(Debug)]
pub struct Values {
    range: ByteRange,
    seed: u64,
    bytes: Vec<u8>,
    /// Nodes that exist already are set, whatever they hold.
    renews: bool,
}

impl Values {
    /// Values of the sizes of `range`.
    pub fn new(range: ByteRange, seed: u64) -> Self {
        Self { range, seed, bytes: vec![FIRST_BYTE; range.most], renews: false }
    }

    /// The same, for a run that must know what is in every node.
    pub fn renewing(self, renews: bool) -> Self {
        Self { renews, ..self }
    }

    /// The value of node `number`.
    pub fn of(&self, number: u64) -> &[u8] {
        let seed = self.seed ^ (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.bytes[..self.range.choose(&mut fastrand::Rng::with_seed(seed))]
    }
}

/// Creates `count` persistent nodes through one pipelined connection, until `stop`.
///
/// # Errors
/// If the server refuses one that does not exist already.
pub fn create_all(
    client: &mut Client,
    count: u64,
    path: impl Fn(u64, &mut Vec<u8>),
    values: &Values,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    for from in (0..count).step_by(NODES_AT_ONCE as usize) {
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        create_some(client, from, NODES_AT_ONCE.min(count - from), &path, values)?;
    }
    Ok(())
}

fn create_some(
    client: &mut Client,
    from: u64,
    count: u64,
    path: &impl Fn(u64, &mut Vec<u8>),
    values: &Values,
) -> anyhow::Result<()> {
    const LOST: &str = "the connection was lost while the nodes were laid out";
    let mut refused = None;
    let mut existing = Vec::new();
    client
        .pipeline(
            count,
            OpCode::Create,
            |at, out| {
                put_create(out, |out| path(from + at, out), values.of(from + at), Mode::Persistent);
            },
            |at, code, _| match code {
                ErrorCode::OK => {}
                ErrorCode::NODE_EXISTS => existing.push(from + at),
                code => refused = Some((from + at, code)),
            },
        )
        .context(LOST)?;
    let mut unlike = Vec::new();
    client
        .pipeline(
            existing.len() as u64,
            OpCode::Exists,
            |index, out| put_read(out, |out| path(existing[index as usize], out), false),
            |index, _, body| {
                let number = existing[index as usize];
                let size = Stat::decode(&mut Decoder::new(body)).map_or(-1, |stat| stat.data_length);
                if values.renews || usize::try_from(size) != Ok(values.of(number).len()) {
                    unlike.push(number);
                }
            },
        )
        .context(LOST)?;
    client
        .pipeline(
            unlike.len() as u64,
            OpCode::SetData,
            |index, out| {
                let number = unlike[index as usize];
                put_set(out, |out| path(number, out), values.of(number));
            },
            |index, code, _| {
                if !code.is_ok() {
                    refused = Some((unlike[index as usize], code));
                }
            },
        )
        .context(LOST)?;
    if let Some((number, code)) = refused {
        let mut name = Vec::new();
        path(number, &mut name);
        bail!("the server refuses to write {}: {code}", String::from_utf8_lossy(&name));
    }
    Ok(())
}
