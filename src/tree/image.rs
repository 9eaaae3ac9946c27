//! A snapshot's body: sessions, ACL map, nodes, end mark (rows P20-P23, P30, P32, S8).
//!
//! Writing runs on a helper thread beside the writer: an [`ImageWriter`] is a reader pinned at one zxid, so the image is
//! exact, not fuzzy, and nothing waits for it. Loading builds a tree from bytes, Apache's fuzzy images included.

use crate::{
    Tree, TreeConfig,
    acl::{AclList, OPEN_ID},
    digest::{self, node_digest},
    path,
    znodes::{NodeRef, Reading},
};
use bytes::BufMut;
use hashbrown::HashMap;
use std::{borrow::Cow, sync::Arc};
use zkfast_wire::{Acl, DecodeError, Decoder, Id, Perms, SessionId, StatPersisted, Zxid, jute};

/// A chunk ends after the node that makes it this long.
const CHUNK_BYTES: usize = 256 * 1024;
/// Nodes looked at per chunk while the lists in use are collected.
const CHUNK_NODES: usize = 16 * 1024;
/// With so many distinct ACLs or fewer, all of them are taken over at once when the image begins (some 40 us); with
/// more, the image looks at every node first, on its own thread, to find those in use.
const LISTS_AT_ONCE: usize = 4096;

/// Writes one image, chunk by chunk. `Send`: to be moved to a helper thread.
pub struct ImageWriter {
    reading: Reading,
    stage: Stage,
    node_count: usize,
    digest: u64,
    /// The sum that the writer keeps, where it keeps one.
    kept_digest: Option<i64>,
}

/// What comes next.
enum Stage {
    Sessions {
        sessions: Vec<(SessionId, i32)>,
        written: usize,
        lists: Option<Vec<Arc<AclList>>>,
    },
    Lists {
        lists: Vec<Arc<AclList>>,
        written: usize,
    },
    /// Looking for the lists in use; the path of the next node, and the map so far with its length.
    Collecting {
        at: String,
        known: HashMap<i64, ()>,
        encoded: Vec<u8>,
    },
    Nodes {
        at: String,
    },
    Done,
}

impl ImageWriter {
    /// The last transaction whose effects are in the image.
    pub fn zxid(&self) -> Zxid {
        self.reading.view()
    }

    /// Nodes written so far, the root counted once.
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    /// The digest of the tree at this zxid (P33) once the last chunk is written, with [`DIGEST_VERSION`].
    ///
    /// [`DIGEST_VERSION`]: Self::DIGEST_VERSION
    pub fn digest(&self) -> Option<i64> {
        matches!(self.stage, Stage::Done).then_some(self.digest as i64)
    }

    /// Whether the digest counted here is the one that the writer kept: false once the last chunk is written and they
    /// differ, which says that one of them is wrong.
    pub fn digest_agrees(&self) -> bool {
        self.digest().zip(self.kept_digest).is_none_or(|(counted, kept)| counted == kept)
    }

    /// `digestVersion` of [`digest`](Self::digest) (P25).
    pub const DIGEST_VERSION: i32 = digest::DIGEST_VERSION;

    /// Appends the next part of the image to `out`, some 256 kB and a node; may also append nothing. True while there
    /// is more to come.
    ///
    /// Between two calls the image holds nothing that the writer would have to wait for but its view.
    pub fn next_chunk(&mut self, out: &mut Vec<u8>) -> bool {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Sessions { sessions, written, lists } => put_sessions(sessions, written, lists, out),
            Stage::Lists { lists, written } => put_lists(lists, written, out),
            Stage::Collecting { at, known, encoded } => self.collect(&at, known, encoded, out),
            Stage::Nodes { at } => self.put_nodes(&at, out),
            Stage::Done => Stage::Done,
        };
        self.reading.publish();
        !matches!(self.stage, Stage::Done)
    }

    fn node(&self, path: &str) -> NodeRef<'_> {
        self.reading
            .node(self.reading.key(path))
            .expect("a node at the image's zxid stays while it is written")
    }

    fn collect(
        &self,
        at: &str,
        mut known: HashMap<i64, ()>,
        mut encoded: Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Stage {
        let root = self.reading.root();
        let mut node = self.node(at);
        for _ in 0..CHUNK_NODES {
            if let Some(list) = node.acl_list()
                && known.insert(list.id, ()).is_none()
            {
                put_list(list, &mut encoded);
            }
            match node.next_in_walk(root) {
                Some(next) => node = next,
                None => {
                    jute::put_count(out, known.len());
                    out.extend_from_slice(&encoded);
                    return Stage::Nodes { at: path::ROOT.to_owned() };
                }
            }
        }
        Stage::Collecting { at: node.path().to_owned(), known, encoded }
    }

    fn put_nodes(&mut self, at: &str, out: &mut Vec<u8>) -> Stage {
        let end = out.len() + CHUNK_BYTES;
        let (mut count, mut sum) = (0, 0_u64);
        let mut scratch = Vec::new();
        let root = self.reading.root();
        let mut node = self.node(at);
        let stage = loop {
            put_node(&node, out);
            count += 1;
            sum = sum.wrapping_add(node_digest(&node, &mut scratch));
            match node.next_in_walk(root) {
                Some(next) => node = next,
                None => {
                    jute::put_text(out, path::ROOT);
                    break Stage::Done;
                }
            }
            if out.len() >= end {
                break Stage::Nodes { at: node.path().to_owned() };
            }
        };
        self.node_count += count;
        self.digest = self.digest.wrapping_add(sum);
        stage
    }
}

fn put_sessions(
    sessions: Vec<(SessionId, i32)>,
    mut written: usize,
    lists: Option<Vec<Arc<AclList>>>,
    out: &mut Vec<u8>,
) -> Stage {
    let end = out.len() + CHUNK_BYTES;
    if written == 0 {
        jute::put_count(out, sessions.len());
    }
    while written < sessions.len() && out.len() < end {
        let (session, timeout_ms) = sessions[written];
        out.put_i64(session.0);
        out.put_i32(timeout_ms);
        written += 1;
    }
    match lists {
        _ if written < sessions.len() => Stage::Sessions { sessions, written, lists },
        Some(lists) => Stage::Lists { lists, written: 0 },
        None => Stage::Collecting { at: path::ROOT.to_owned(), known: HashMap::new(), encoded: Vec::new() },
    }
}

fn put_lists(lists: Vec<Arc<AclList>>, mut written: usize, out: &mut Vec<u8>) -> Stage {
    let end = out.len() + CHUNK_BYTES;
    if written == 0 {
        jute::put_count(out, lists.len());
    }
    while written < lists.len() && out.len() < end {
        put_list(&lists[written], out);
        written += 1;
    }
    if written < lists.len() {
        return Stage::Lists { lists, written };
    }
    Stage::Nodes { at: path::ROOT.to_owned() }
}

fn put_list(list: &AclList, out: &mut Vec<u8>) {
    out.put_i64(list.id);
    Acl::encode_list(&list.entries, out);
}

fn put_node(node: &NodeRef<'_>, out: &mut Vec<u8>) {
    jute::put_text(out, if node.is_root() { "" } else { node.path() });
    jute::put_buffer(out, node.data());
    out.put_i64(node.acl_list().map_or(OPEN_ID, |list| list.id));
    out.put_slice(&node.persisted().to_bytes());
}

impl Tree {
    /// An image of the tree as the last applied transaction left it. Costs a copy of the session table; the rest is
    /// read while it is written.
    pub fn image(&mut self) -> ImageWriter {
        let lists = (self.acls.len() <= LISTS_AT_ONCE).then(|| self.acls.all());
        let sessions = self.sessions.as_slice().to_vec();
        let stage = Stage::Sessions { sessions, written: 0, lists };
        let kept_digest = self.config.has_digests.then(|| self.digest());
        ImageWriter { reading: self.znodes.reading(true), stage, node_count: 0, digest: 0, kept_digest }
    }

    /// Deletes ephemerals whose session is not in the database (S8). To be called once, when image and log are loaded,
    /// before anybody reads. Returns how many there were.
    ///
    /// # Errors
    /// If one of them has children, which only other kinds of nodes can have; some may be deleted by then.
    pub fn remove_dead_ephemerals(&mut self) -> Result<usize, EphemeralParent> {
        let mut removed = 0;
        for session in self.ephemeral_owners() {
            if self.sessions.contains(session) {
                continue;
            }
            let paths: Vec<String> = self.ephemerals_of(session).map(str::to_owned).collect();
            for path in paths {
                if self.node(&path).is_some_and(|node| node.num_children() > 0) {
                    return Err(EphemeralParent { path, owner: session });
                }
                removed += usize::from(self.remove_ephemeral(&path));
            }
        }
        Ok(removed)
    }
}

/// A node that looks like an ephemeral of a session that is gone, and has children. It is a TTL node (T21): without
/// `extendedTypesEnabled` nobody can tell its owner from a session's id. Apache's servers delete it and keep its children
/// until the next snapshot, which lacks them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} belongs to session {owner:?}, which is gone, and has children")]
pub struct EphemeralParent {
    /// The node.
    pub path: String,
    /// Its owner.
    pub owner: SessionId,
}

/// Why bytes are no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// They end early, or a field is impossible.
    #[error("the image cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    /// A node came before its parent, or twice.
    #[error("node {path:?} at byte {offset} has no parent or came before")]
    Misplaced {
        /// The node.
        path: String,
        /// Where it begins.
        offset: usize,
    },
}

/// The list of a node whose list is missing from the map (P30, ZOOKEEPER-4846): nobody but a super user may do anything
/// until the log, replayed, brings the list.
const MISSING: Acl<'static> = Acl { perms: Perms(0), id: Id::new("world", "anyone") };

/// Nodes decoded before the first of them is added, so that the waits for memory overlap.
const GROUP: usize = 32;

/// A node as an image holds it.
struct ImageNode<'a> {
    /// Where it begins.
    offset: usize,
    path: Cow<'a, str>,
    data: Option<&'a [u8]>,
    /// Number of its list in the image.
    list: i64,
    stat: StatPersisted,
}

impl<'a> ImageNode<'a> {
    /// `None` at the end mark (P23).
    fn decode(decoder: &mut Decoder<'a>) -> Result<Option<Self>, DecodeError> {
        let offset = decoder.offset();
        let path = match decoder.text("image.node.path")? {
            path if path == path::ROOT => return Ok(None),
            path if path.is_empty() => Cow::Borrowed(path::ROOT),
            path => path,
        };
        let data = decoder.buffer("image.node.data")?;
        let list = decoder.i64("image.node.acl")?;
        Ok(Some(Self { offset, path, data, list, stat: StatPersisted::decode(decoder)? }))
    }
}

/// Builds a tree from an image. Returns it with the number of bytes consumed; what follows them is the seal (P24).
///
/// The caller then names the image's zxid with [`Tree::set_last_applied`], replays the log, and calls
/// [`Tree::remove_dead_ephemerals`].
///
/// # Errors
/// If the bytes are no image. Lengths and counts are never trusted, and nothing panics.
pub fn load(config: TreeConfig, bytes: &[u8]) -> Result<(Tree, usize), ImageError> {
    let mut tree = Tree::empty(config);
    let mut decoder = Decoder::new(bytes);
    let sessions = decoder.count(12, "image.sessions")?.unwrap_or(0);
    for _ in 0..sessions {
        let session = SessionId(decoder.i64("image.sessions.id")?);
        tree.sessions.put(session, decoder.i32("image.sessions.timeout")?);
    }
    let count = decoder.count(12, "image.acls")?.unwrap_or(0);
    let mut lists = HashMap::with_capacity(count);
    for _ in 0..count {
        let id = decoder.i64("image.acls.id")?;
        let list = Acl::decode_list(&mut decoder)?.unwrap_or_default();
        // Apache numbers the open list like any other when a client sent it.
        lists.insert(id, (*list != [Acl::OPEN]).then(|| tree.acls.adopt(id, &list)));
    }
    let mut group: Vec<ImageNode<'_>> = Vec::with_capacity(GROUP);
    loop {
        group.clear();
        while group.len() < GROUP
            && let Some(node) = ImageNode::decode(&mut decoder)?
        {
            group.push(node);
        }
        tree.prefetch(group.iter().map(|node| &*node.path));
        for ImageNode { offset, path, data, list, stat } in &group {
            let list = match lists.get(list) {
                Some(list) => list.clone(),
                None if *list == OPEN_ID => None,
                None => tree.acls.intern(&[MISSING]),
            };
            // The root comes first, once.
            let is_first = tree.data_bytes == 0;
            if is_first != (*path == path::ROOT) || !tree.load_node(path, stat, list, *data) {
                return Err(ImageError::Misplaced { path: path.clone().into_owned(), offset: *offset });
            }
        }
        if group.len() < GROUP {
            break;
        }
    }
    if tree.data_bytes == 0 {
        return Err(ImageError::Misplaced { path: path::ROOT.to_owned(), offset: decoder.offset() });
    }
    tree.add_system_nodes();
    tree.load_quotas();
    Ok((tree, decoder.offset()))
}
