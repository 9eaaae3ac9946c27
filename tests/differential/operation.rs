//! One request of a stream: a number and the fields of its body, printable, and encoded only when it is sent.
//!
//! Fields are written one by one with the jute primitives, so that a request may also be one that no client library
//! would send: null paths, unknown flags, parts that a multi may not have, a body that is cut off.

use super::peers::client;
use bytes::BufMut;
use std::fmt;
use zkfast_wire::{OpCode, jute};

/// Where quotas are kept.
pub const QUOTAS: &str = "/zookeeper/quota";

/// A path of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// Below the stream's own root; "" is the root itself.
    Below(String),
    /// Where the quota of such a path is kept.
    Quota(String),
    /// As it stands.
    Absolute(String),
    /// Null.
    Null,
}

/// One entry of an ACL as a client may send it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Bits.
    pub perms: i32,
    /// `world`, `digest`, ...
    pub scheme: Option<&'static str>,
    /// Whom the entry means.
    pub id: Option<&'static str>,
}

/// A zxid that a client names: the two servers count by themselves, so it is named by when the session saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// This very number.
    Exactly(i64),
    /// The last zxid that the session had seen this many steps ago.
    StepsAgo(usize),
}

/// A field of a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Field {
    /// A path.
    Path(Place),
    /// Data or credentials; null differs from empty.
    Data(Option<Vec<u8>>),
    /// Text that is no path.
    Text(Option<&'static str>),
    /// Four bytes, with their name.
    Int(&'static str, i32),
    /// Eight bytes, with their name.
    Long(&'static str, i64),
    /// One byte.
    Watch(bool),
    /// A list of entries.
    Acl(Option<Vec<Entry>>),
    /// A list of paths, with its name.
    Paths(&'static str, Vec<Place>),
    /// A zxid.
    Zxid(Seen),
    /// The header in front of a part of a multi.
    Part(i32),
    /// The header behind the last part.
    End,
}

/// A request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The number in the request's header.
    pub code: i32,
    /// The body.
    pub fields: Vec<Field>,
    /// Bytes of the body that are left out at its end.
    pub cut: usize,
    /// Number of the request; the next one of the connection if none is given.
    pub xid: Option<i32>,
}

impl Operation {
    /// A whole request.
    pub fn new(op: OpCode, fields: Vec<Field>) -> Self {
        Self { code: op.to_i32(), fields, cut: 0, xid: None }
    }

    /// The operation, if it is a known one.
    pub fn op(&self) -> Option<OpCode> {
        OpCode::from_i32(self.code)
    }

    /// Whether it goes through the log, so that a body that cannot be read has a transaction of its own (C27).
    pub fn is_write(&self) -> bool {
        self.op().is_some_and(OpCode::is_write)
    }

    /// The first path of the body as the server sees it.
    pub fn path(&self, root: &str) -> Option<String> {
        self.fields.iter().find_map(|field| match field {
            Field::Path(place) => place.text(root),
            _ => None,
        })
    }

    /// The body. `seen` gives the zxid that the session had seen so many steps ago.
    pub fn body(&self, root: &str, seen: impl Fn(usize) -> i64) -> Vec<u8> {
        let mut out = Vec::new();
        let put_place = |out: &mut Vec<u8>, place: &Place| {
            jute::put_buffer(out, place.text(root).as_deref().map(str::as_bytes))
        };
        for field in &self.fields {
            match field {
                Field::Path(place) => put_place(&mut out, place),
                Field::Data(data) => jute::put_buffer(&mut out, data.as_deref()),
                Field::Text(text) => jute::put_buffer(&mut out, text.map(str::as_bytes)),
                Field::Int(_, value) => out.put_i32(*value),
                Field::Long(_, value) => out.put_i64(*value),
                Field::Watch(watch) => jute::put_bool(&mut out, *watch),
                Field::Acl(None) => out.put_i32(-1),
                Field::Acl(Some(entries)) => {
                    jute::put_count(&mut out, entries.len());
                    for entry in entries {
                        out.put_i32(entry.perms);
                        jute::put_buffer(&mut out, entry.scheme.map(str::as_bytes));
                        jute::put_buffer(&mut out, entry.id.map(str::as_bytes));
                    }
                }
                Field::Paths(_, places) => {
                    jute::put_count(&mut out, places.len());
                    places.iter().for_each(|place| put_place(&mut out, place));
                }
                Field::Zxid(Seen::Exactly(zxid)) => out.put_i64(*zxid),
                Field::Zxid(Seen::StepsAgo(steps)) => out.put_i64(seen(*steps)),
                Field::Part(code) => {
                    out.put_i32(*code);
                    jute::put_bool(&mut out, false);
                    out.put_i32(-1);
                }
                Field::End => out.extend(client::multi(&[])),
            }
        }
        out.truncate(out.len().saturating_sub(self.cut));
        out
    }
}

impl Place {
    /// What the server reads.
    pub fn text(&self, root: &str) -> Option<String> {
        match self {
            Self::Below(rest) => Some(format!("{root}{rest}")),
            Self::Quota(rest) => Some(format!("{QUOTAS}{root}{rest}")),
            Self::Absolute(path) => Some(path.clone()),
            Self::Null => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(rest) => write!(out, "~{}", rest.escape_debug()),
            Self::Quota(rest) => write!(out, "{QUOTAS}~{rest}"),
            Self::Absolute(path) => write!(out, "{path:?}"),
            Self::Null => write!(out, "null"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |code: i32| match OpCode::from_i32(code) {
            Some(op) => format!("{op:?}"),
            None => format!("operation {code}"),
        };
        write!(out, "{}", name(self.code))?;
        for field in &self.fields {
            match field {
                Field::Path(place) => write!(out, " {place}")?,
                Field::Data(None) => write!(out, " data=null")?,
                Field::Data(Some(data)) if data.len() < 20 => {
                    write!(out, " data={:?}", String::from_utf8_lossy(data))?;
                }
                Field::Data(Some(data)) => write!(out, " data={} bytes", data.len())?,
                Field::Text(text) => write!(out, " {text:?}")?,
                Field::Int(name, value) => write!(out, " {name}={value}")?,
                Field::Long(name, value) => write!(out, " {name}={value}")?,
                Field::Watch(watch) => write!(out, "{}", if *watch { " watch" } else { "" })?,
                Field::Acl(None) => write!(out, " acl=null")?,
                Field::Acl(Some(entries)) => {
                    let words: Vec<String> = entries
                        .iter()
                        .map(|entry| {
                            let text = |text: Option<&'static str>| text.unwrap_or("null");
                            format!("{}:{}:{}", text(entry.scheme), text(entry.id), entry.perms)
                        })
                        .collect();
                    write!(out, " acl=[{}]", words.join(", "))?;
                }
                Field::Paths(name, places) => {
                    let words: Vec<String> = places.iter().map(Place::to_string).collect();
                    write!(out, " {name}=[{}]", words.join(", "))?;
                }
                Field::Zxid(Seen::Exactly(zxid)) => write!(out, " zxid={zxid}")?,
                Field::Zxid(Seen::StepsAgo(steps)) => write!(out, " zxid as of {steps} steps ago")?,
                Field::Part(code) => write!(out, " | {}", name(*code))?,
                Field::End => write!(out, " |")?,
            }
        }
        if self.cut > 0 {
            write!(out, " (last {} bytes missing)", self.cut)?;
        }
        if let Some(xid) = self.xid {
            write!(out, " (xid {xid})")?;
        }
        Ok(())
    }
}
