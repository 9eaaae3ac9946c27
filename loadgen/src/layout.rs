//! The nodes that must be there before a load runs, and their removal after it.

use crate::{
    client::Client,
    mix::Plan,
    operation::{Mode, Operation, put_create},
    traffic::put_watched_path,
};
use anyhow::{Context, bail};
use zkfast_wire::{ErrorCode, OpCode};

/// Lays out what the plan needs. Nodes that exist already are used as they are.
///
/// # Errors
/// If the server refuses a node for any other reason.
pub fn prepare(client: &mut Client, plan: &Plan, list_children: u64) -> anyhow::Result<()> {
    for path in plan.keys.directories() {
        client.ensure_node(&path)?;
    }
    let value = vec![b'.'; plan.values.most];
    let uses = |operations: &[Operation]| operations.iter().any(|operation| plan.pace.has(*operation));
    if uses(&[Operation::Set, Operation::Get, Operation::Exists, Operation::Multi]) {
        create_all(client, plan.keys.count, |key, out| plan.keys.put(key, out), &value)?;
    }
    for (operations, directory) in [
        (&[Operation::Create, Operation::Delete][..], "created"),
        (&[Operation::CreateSequential][..], "sequence"),
        (&[Operation::Ephemeral][..], "ephemeral"),
        (&[Operation::Watch][..], "watched"),
        (&[Operation::Children][..], "list"),
    ] {
        if uses(operations) {
            client.ensure_node(&format!("{}/{directory}", plan.root))?;
        }
    }
    if uses(&[Operation::Watch]) {
        create_all(
            client,
            plan.connections as u64,
            |link, out| put_watched_path(&plan.root, link, out),
            &value,
        )?;
    }
    if uses(&[Operation::Children]) {
        let path = |number: u64, out: &mut Vec<u8>| {
            out.extend_from_slice(format!("{}/list/n{number:06}", plan.root).as_bytes());
        };
        create_all(client, list_children, path, &value)?;
    }
    Ok(())
}

/// Creates `count` persistent nodes through one pipelined connection.
///
/// # Errors
/// If the server refuses one that does not exist already.
pub fn create_all(
    client: &mut Client,
    count: u64,
    path: impl Fn(u64, &mut Vec<u8>),
    value: &[u8],
) -> anyhow::Result<()> {
    let mut refused = None;
    client
        .pipeline(
            count,
            OpCode::Create,
            |number, out| put_create(out, |out| path(number, out), value, Mode::Persistent),
            |number, code, _| match code {
                ErrorCode::OK | ErrorCode::NODE_EXISTS => {}
                code => refused = Some((number, code)),
            },
        )
        .context("the connection was lost while the nodes were laid out")?;
    if let Some((number, code)) = refused {
        let mut name = Vec::new();
        path(number, &mut name);
        bail!("the server refuses to create {}: {code}", String::from_utf8_lossy(&name));
    }
    Ok(())
}
