//! A second, naive tree: a map of everything, cloned whole for each transaction. No overlay, no versions, no sharing:
//! a request is checked and carried out in one step, straight from the rows of section 3. What it says, the real tree
//! must say too.

use std::collections::{BTreeMap, BTreeSet};
use zkfast_tree::owned::Owner;
use zkfast_wire::{
    Acl, ErrorCode, Id, OpCode, Perms, Request, SessionId, Stat, Zxid,
    request::{CreateRequest, PathVersion, SetAclRequest, SetDataRequest},
};

pub type Outcome<T> = Result<T, ErrorCode>;

#[derive(Clone, Debug, PartialEq)]
pub struct NaiveNode {
    pub data: Option<Vec<u8>>,
    pub acl: Vec<Acl<'static>>,
    pub owner: Owner,
    pub czxid: i64,
    pub mzxid: i64,
    pub pzxid: i64,
    pub ctime_ms: i64,
    pub mtime_ms: i64,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NaiveTree {
    pub nodes: BTreeMap<String, NaiveNode>,
    pub sessions: BTreeMap<SessionId, i32>,
    pub extended_types: bool,
}

/// Who asks, and when.
#[derive(Clone, Debug)]
pub struct Caller<'a> {
    pub session: SessionId,
    pub zxid: i64,
    pub time_ms: i64,
    pub identities: &'a [Id<'static>],
}

/// What the client is told, in the words of the reply.
#[derive(Clone, Debug, PartialEq)]
pub enum NaiveAnswer {
    Error(ErrorCode),
    Empty,
    Created(String, Option<Stat>),
    Stat(Stat),
    Multi(Vec<NaiveAnswer>),
    Checked,
    Session,
}

/// Event kind and path, in order.
pub type Events = Vec<(char, String)>;

fn parent_of(path: &str) -> String {
    let slash = path.rfind('/').unwrap();
    if slash == 0 { "/".into() } else { path[..slash].into() }
}

fn sane(path: &str) -> Outcome<()> {
    if path.contains('/') && !path.contains('\0') { Ok(()) } else { Err(ErrorCode::BAD_ARGUMENTS) }
}

/// T1 for the alphabet of the tests.
fn valid(path: &str) -> Outcome<()> {
    let good = path == "/"
        || (path.starts_with('/')
            && path[1..].split('/').all(|name| !name.is_empty() && name != "." && name != "..")
            && !path.chars().any(|c| c.is_control() || c == '\u{e000}'));
    if good { Ok(()) } else { Err(ErrorCode::BAD_ARGUMENTS) }
}

fn version_after(current: i32, expected: i32) -> Outcome<i32> {
    if expected != -1 && expected != current { Err(ErrorCode::BAD_VERSION) } else { Ok(current + 1) }
}

/// A14, for lists without ip ranges.
fn permitted(acl: &[Acl<'_>], perms: Perms, identities: &[Id<'_>]) -> Outcome<()> {
    let granted = acl.is_empty()
        || identities.iter().any(|id| id.scheme == "super")
        || acl.iter().any(|entry| {
            entry.perms.0 & perms.0 != 0
                && (entry.id == Id::new("world", "anyone") || identities.contains(&entry.id))
        });
    if granted { Ok(()) } else { Err(ErrorCode::NO_AUTH) }
}

/// A13, for the schemes of the tests.
fn fixed(acl: &Option<Vec<Acl<'_>>>, identities: &[Id<'static>]) -> Outcome<Vec<Acl<'static>>> {
    let mut unique: Vec<Acl<'_>> = Vec::new();
    for entry in acl.iter().flatten() {
        if !unique.contains(entry) {
            unique.push(entry.clone());
        }
    }
    let mut list = Vec::new();
    for entry in unique {
        match (&*entry.id.scheme, &*entry.id.id) {
            ("world", "anyone") => list.push(entry.into_owned()),
            ("digest", id) if id.split(':').filter(|part| !part.is_empty()).count() == 2 => {
                list.push(entry.into_owned());
            }
            ("auth", _) => {
                let mine = identities.iter().filter(|id| id.scheme == "digest");
                let mine: Vec<_> = mine.map(|id| Acl { perms: entry.perms, id: id.clone() }).collect();
                if mine.is_empty() {
                    return Err(ErrorCode::INVALID_ACL);
                }
                list.extend(mine);
            }
            _ => return Err(ErrorCode::INVALID_ACL),
        }
    }
    if list.is_empty() { Err(ErrorCode::INVALID_ACL) } else { Ok(list) }
}

impl NaiveTree {
    pub fn new(extended_types: bool) -> Self {
        let node = |acl, aversion| NaiveNode {
            data: Some(Vec::new()),
            acl,
            owner: Owner::Nobody,
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime_ms: 0,
            mtime_ms: 0,
            version: 0,
            cversion: 0,
            aversion,
        };
        let open = vec![Acl::OPEN];
        let nodes = BTreeMap::from([
            ("/".to_owned(), node(open.clone(), 0)),
            ("/zookeeper".to_owned(), node(open.clone(), 0)),
            ("/zookeeper/quota".to_owned(), node(open, 0)),
            ("/zookeeper/config".to_owned(), node(vec![Acl::READ_ONLY], -1)),
        ]);
        Self { nodes, sessions: BTreeMap::new(), extended_types }
    }

    pub fn children(&self, path: &str) -> BTreeSet<String> {
        let of_this = |other: &&String| *other != "/" && parent_of(other) == path;
        self.nodes
            .keys()
            .filter(of_this)
            .map(|child| child[child.rfind('/').unwrap() + 1..].to_owned())
            .collect()
    }

    pub fn stat(&self, path: &str) -> Stat {
        let node = &self.nodes[path];
        let num_children = self.children(path).len() as i32;
        Stat {
            czxid: Zxid(node.czxid),
            mzxid: Zxid(node.mzxid),
            ctime_ms: node.ctime_ms,
            mtime_ms: node.mtime_ms,
            version: node.version,
            cversion: node.cversion * 2 - num_children,
            aversion: node.aversion,
            ephemeral_owner: match node.owner {
                Owner::Session(session) => session,
                _ => SessionId(0),
            },
            data_length: node.data.as_ref().map_or(0, Vec::len) as i32,
            num_children,
            pzxid: Zxid(node.pzxid),
        }
    }

    pub fn ephemerals_of(&self, session: SessionId) -> Vec<String> {
        let owned = |(path, node): (&String, &NaiveNode)| {
            (node.owner == Owner::Session(session)).then(|| path.clone())
        };
        self.nodes.iter().filter_map(owned).collect()
    }

    /// Checks a request and carries it out; on refusal nothing changes.
    pub fn run(&mut self, caller: &Caller<'_>, request: &Request<'_>) -> (NaiveAnswer, Events) {
        let mut events = Vec::new();
        let before = self.clone();
        let answer = match request {
            Request::Multi(parts) => self.multi(caller, parts, &mut events),
            request => self.one(caller, request, false, &mut events),
        };
        match answer {
            Ok(answer) => (answer, events),
            Err(error) => {
                *self = before;
                (NaiveAnswer::Error(error), Vec::new())
            }
        }
    }

    fn multi(
        &mut self,
        caller: &Caller<'_>,
        parts: &[Request<'_>],
        events: &mut Events,
    ) -> Outcome<NaiveAnswer> {
        // Java decodes the parts into its own objects first, and those go by the flags.
        let mut parts = parts.to_vec();
        for part in &mut parts {
            if let Request::Create(op, create) = part {
                let (has_ttl, has_ttl_mode) = (*op == OpCode::CreateTtl, matches!(create.flags, 5 | 6));
                let is_known = (0..=6).contains(&create.flags) && create.acl.is_some();
                if !has_ttl && (has_ttl_mode || !is_known) {
                    return Err(ErrorCode::MARSHALLING_ERROR);
                }
                if has_ttl && has_ttl_mode {
                    continue;
                }
                create.ttl_ms = None;
                if create.flags == 4 {
                    *op = OpCode::CreateContainer;
                } else if has_ttl {
                    *op = OpCode::Create;
                }
            }
        }
        let before = self.clone();
        let mut answers = Vec::new();
        for (position, part) in parts.iter().enumerate() {
            match self.one(caller, part, true, events) {
                Ok(answer) => answers.push(answer),
                Err(error) => {
                    *self = before;
                    events.clear();
                    let result = |at: usize| match at.cmp(&position) {
                        std::cmp::Ordering::Less => NaiveAnswer::Error(ErrorCode::OK),
                        std::cmp::Ordering::Equal => NaiveAnswer::Error(error),
                        std::cmp::Ordering::Greater => NaiveAnswer::Error(ErrorCode::RUNTIME_INCONSISTENCY),
                    };
                    return Ok(NaiveAnswer::Multi((0..parts.len()).map(result).collect()));
                }
            }
        }
        Ok(NaiveAnswer::Multi(answers))
    }

    fn one(
        &mut self,
        caller: &Caller<'_>,
        request: &Request<'_>,
        in_multi: bool,
        events: &mut Events,
    ) -> Outcome<NaiveAnswer> {
        match request {
            Request::Create(op, create) => self.create(caller, *op, create, events),
            Request::Delete(PathVersion { path, version }) => {
                self.alive(caller)?;
                self.deletable(path)?;
                let parent = self.nodes.get(&parent_of(path)).ok_or(ErrorCode::NO_NODE)?;
                permitted(&parent.acl, Perms::DELETE, caller.identities)?;
                let node = self.nodes.get(&**path).ok_or(ErrorCode::NO_NODE)?;
                version_after(node.version, *version)?;
                if !self.children(path).is_empty() {
                    return Err(ErrorCode::NOT_EMPTY);
                }
                self.remove(caller, path, events);
                Ok(NaiveAnswer::Empty)
            }
            Request::DeleteContainer(path) => {
                let path = std::str::from_utf8(path).unwrap();
                self.deletable(path)?;
                let node = self.nodes.get(path).ok_or(ErrorCode::NO_NODE)?;
                if !self.children(path).is_empty() {
                    return Err(ErrorCode::NOT_EMPTY);
                }
                if matches!(node.owner, Owner::Session(_)) {
                    return Err(ErrorCode::BAD_VERSION);
                }
                self.remove(caller, path, events);
                Ok(NaiveAnswer::Empty)
            }
            Request::SetData(SetDataRequest { path, data, version }) => {
                self.alive(caller)?;
                valid(path)?;
                let node = self.nodes.get_mut(&**path).ok_or(ErrorCode::NO_NODE)?;
                permitted(&node.acl, Perms::WRITE, caller.identities)?;
                node.version = version_after(node.version, *version)?;
                node.data = data.map(<[u8]>::to_vec);
                (node.mzxid, node.mtime_ms) = (caller.zxid, caller.time_ms);
                events.push(('d', path.clone().into_owned()));
                Ok(NaiveAnswer::Stat(self.stat(path)))
            }
            Request::SetAcl(SetAclRequest { path, acl, version }) => {
                self.alive(caller)?;
                valid(path)?;
                let list = fixed(acl, caller.identities)?;
                let node = self.nodes.get_mut(&**path).ok_or(ErrorCode::NO_NODE)?;
                permitted(&node.acl, Perms::ADMIN, caller.identities)?;
                node.aversion = version_after(node.aversion, *version)?;
                node.acl = list;
                Ok(NaiveAnswer::Stat(self.stat(path)))
            }
            Request::Check(PathVersion { path, version }) if in_multi => {
                self.alive(caller)?;
                valid(path)?;
                let node = self.nodes.get(&**path).ok_or(ErrorCode::NO_NODE)?;
                permitted(&node.acl, Perms::READ, caller.identities)?;
                version_after(node.version, *version)?;
                Ok(NaiveAnswer::Checked)
            }
            Request::CreateSession(timeout_ms) => {
                self.sessions.insert(caller.session, *timeout_ms);
                Ok(NaiveAnswer::Session)
            }
            Request::CloseSession => {
                for path in self.ephemerals_of(caller.session) {
                    self.remove(caller, &path, events);
                }
                self.sessions.remove(&caller.session);
                Ok(NaiveAnswer::Session)
            }
            _ => Err(ErrorCode::UNIMPLEMENTED),
        }
    }

    fn create(
        &mut self,
        caller: &Caller<'_>,
        op: OpCode,
        create: &CreateRequest<'_>,
        events: &mut Events,
    ) -> Outcome<NaiveAnswer> {
        let flags = create.flags;
        if !(0..=6).contains(&flags) {
            return Err(ErrorCode::BAD_ARGUMENTS);
        }
        let ttl_ms = create.ttl_ms.unwrap_or(-1);
        match flags {
            5 | 6 if !self.extended_types => return Err(ErrorCode::UNIMPLEMENTED),
            5 | 6 if !(1..1 << 40).contains(&ttl_ms) => return Err(ErrorCode::BAD_ARGUMENTS),
            5 | 6 => {}
            _ if ttl_ms >= 0 || op == OpCode::CreateTtl => return Err(ErrorCode::BAD_ARGUMENTS),
            _ => {}
        }
        self.alive(caller)?;
        sane(&create.path)?;
        let acl = fixed(&create.acl, caller.identities)?;
        let parent_path = parent_of(&create.path);
        let parent = self.nodes.get(&parent_path).ok_or(ErrorCode::NO_NODE)?;
        permitted(&parent.acl, Perms::CREATE, caller.identities)?;
        let mut path = create.path.clone().into_owned();
        if matches!(flags, 2 | 3 | 6) {
            path += &format!("{:010}", parent.cversion);
        }
        valid(&path)?;
        if self.nodes.contains_key(&path) {
            return Err(ErrorCode::NODE_EXISTS);
        }
        if matches!(parent.owner, Owner::Session(_)) {
            return Err(ErrorCode::NO_CHILDREN_FOR_EPHEMERALS);
        }
        let owner = match op {
            OpCode::CreateContainer => Owner::Container,
            OpCode::CreateTtl => Owner::Ttl(ttl_ms),
            _ if matches!(flags, 1 | 3) => Owner::Session(caller.session),
            _ => Owner::Nobody,
        };
        let parent = self.nodes.get_mut(&parent_path).unwrap();
        (parent.cversion, parent.pzxid) = (parent.cversion + 1, caller.zxid);
        let node = NaiveNode {
            data: create.data.map(<[u8]>::to_vec),
            acl,
            owner,
            czxid: caller.zxid,
            mzxid: caller.zxid,
            pzxid: caller.zxid,
            ctime_ms: caller.time_ms,
            mtime_ms: caller.time_ms,
            version: 0,
            cversion: 0,
            aversion: 0,
        };
        self.nodes.insert(path.clone(), node);
        events.push(('c', path.clone()));
        let stat = (op != OpCode::Create).then(|| self.stat(&path));
        Ok(NaiveAnswer::Created(path, stat))
    }

    fn remove(&mut self, caller: &Caller<'_>, path: &str, events: &mut Events) {
        self.nodes.remove(path).unwrap();
        self.nodes.get_mut(&parent_of(path)).unwrap().pzxid = caller.zxid;
        events.push(('x', path.to_owned()));
    }

    fn alive(&self, caller: &Caller<'_>) -> Outcome<()> {
        if self.sessions.contains_key(&caller.session) { Ok(()) } else { Err(ErrorCode::SESSION_EXPIRED) }
    }

    fn deletable(&self, path: &str) -> Outcome<()> {
        sane(path)?;
        match path {
            "/" | "/zookeeper" | "/zookeeper/quota" | "/zookeeper/config" => Err(ErrorCode::BAD_ARGUMENTS),
            _ => Ok(()),
        }
    }
}
