//! What a session sees, taken apart: words that must be equal on both servers, and numbers that each server counts
//! for itself (zxids, times, session ids), which must correspond.

use super::peers::tree::Node;
use std::fmt;
use zkfast_wire::{Acl, DecodeError, Decoder, OpCode, Stat};

/// A part of what a session sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    /// The same on both servers.
    Word(String),
    /// A transaction of this server.
    Zxid(i64),
    /// When that transaction was, milliseconds.
    Time {
        /// The transaction.
        zxid: i64,
        /// Milliseconds since 1970.
        ms: i64,
    },
    /// A session of this server.
    Session(i64),
}

/// Where a line comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The answer to the request with this index in its step.
    Reply {
        /// Index of the request.
        index: usize,
        /// Error of its header.
        err: i32,
    },
    /// The answer to the ping behind the step.
    Fence,
    /// A watch fired.
    Event {
        /// Event type.
        kind: i32,
        /// Path.
        path: String,
    },
    /// The answer to a handshake; whether it was granted.
    Welcome(bool),
    /// The connection ended.
    End,
    /// Nothing came for a long time.
    Silence,
}

/// One thing that a session saw.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// What it was.
    pub kind: Kind,
    /// What was in it.
    pub tokens: Vec<Token>,
}

impl Line {
    /// A line of words alone.
    pub fn of(kind: Kind, word: &str) -> Self {
        Self { kind, tokens: vec![Token::Word(word.into())] }
    }
}

/// The answer to an `op` request. What cannot be read is shown as bytes.
pub fn reply(index: usize, op: Option<OpCode>, xid: i32, zxid: i64, err: i32, body: &[u8]) -> Line {
    let mut tokens = vec![Token::Word(format!("reply xid={xid} err={err}")), Token::Zxid(zxid)];
    let mut decoder = Decoder::new(body);
    let start = tokens.len();
    if !body.is_empty() && fields(op, &mut decoder, &mut tokens).is_err() {
        tokens.truncate(start);
        decoder = Decoder::new(body);
    }
    if decoder.remaining() > 0 {
        tokens.push(Token::Word(format!("bytes {:02x?}", decoder.rest())));
    }
    Line { kind: Kind::Reply { index, err }, tokens }
}

fn fields(op: Option<OpCode>, decoder: &mut Decoder<'_>, tokens: &mut Vec<Token>) -> Result<(), DecodeError> {
    let Some(op) = op else { return Ok(()) };
    match op {
        OpCode::Create | OpCode::Sync => text(decoder, tokens),
        OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
            text(decoder, tokens)?;
            stat(decoder, tokens)
        }
        OpCode::Exists | OpCode::SetData | OpCode::SetAcl | OpCode::Check => stat(decoder, tokens),
        OpCode::GetData | OpCode::Reconfig => {
            data(decoder, tokens)?;
            stat(decoder, tokens)
        }
        OpCode::Sasl => data(decoder, tokens),
        OpCode::GetAcl => {
            let list = Acl::decode_list(decoder)?;
            tokens.push(Token::Word(list.map_or("acl=null".into(), |list| acl(&list))));
            stat(decoder, tokens)
        }
        OpCode::GetChildren | OpCode::GetEphemerals => names(decoder, tokens),
        OpCode::GetChildren2 => {
            names(decoder, tokens)?;
            stat(decoder, tokens)
        }
        OpCode::Multi | OpCode::MultiRead => results(decoder, tokens),
        OpCode::GetAllChildrenNumber | OpCode::AddWatch => {
            tokens.push(Token::Word(format!("number={}", decoder.i32("a number")?)));
            Ok(())
        }
        OpCode::WhoAmI => {
            let count = decoder.count(8, "identities")?.unwrap_or(0);
            let mut words = Vec::new();
            for _ in 0..count {
                words.push(format!("{}:{}", decoder.text("scheme")?, decoder.text("user")?));
            }
            // Identities have no order.
            words.sort_unstable();
            tokens.push(Token::Word(words.join(" ")));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn text(decoder: &mut Decoder<'_>, tokens: &mut Vec<Token>) -> Result<(), DecodeError> {
    // The bytes themselves: whether they are UTF-8 is part of the answer.
    let word = match decoder.buffer("text")? {
        None => "null".into(),
        Some(bytes) => shown(bytes).1,
    };
    tokens.push(Token::Word(word));
    Ok(())
}

/// What stands at the end of a text that Java wrote as surrogates.
pub const AS_SURROGATES: &str = " (as surrogates)";

/// A text, and how it is shown: UTF-8, Java's spelling of characters beyond U+FFFF, or bytes.
pub fn shown(bytes: &[u8]) -> (String, String) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (text.to_owned(), format!("{text:?}"));
    }
    // Java encodes each UTF-16 unit by itself (row J3).
    let mut units = Vec::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let length = match first {
            0..0x80 => 1,
            0xc0..0xe0 => 2,
            _ => 3,
        };
        let Some((unit, after)) = rest.split_at_checked(length) else { break };
        let start = u32::from(unit[0]) & (0x7f >> if length == 1 { 0 } else { length });
        let value = unit[1..].iter().fold(start, |value, byte| value << 6 | u32::from(byte & 0x3f));
        units.push(u16::try_from(value).unwrap_or(0));
        rest = after;
    }
    match String::from_utf16(&units) {
        Ok(text) if rest.is_empty() => {
            let word = format!("{text:?}{AS_SURROGATES}");
            (text, word)
        }
        _ => (String::from_utf8_lossy(bytes).into_owned(), format!("no text: {bytes:02x?}")),
    }
}

fn data(decoder: &mut Decoder<'_>, tokens: &mut Vec<Token>) -> Result<(), DecodeError> {
    let word = match decoder.buffer("data")? {
        None => "data=null".into(),
        Some(bytes) if bytes.starts_with(b"server.") => format!("data={:?}", without_ports(bytes)),
        Some(bytes) if bytes.len() <= 32 => format!("data={:?}", String::from_utf8_lossy(bytes)),
        Some(bytes) => {
            let sum =
                bytes.iter().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
            format!("data={} bytes {sum:x}", bytes.len())
        }
    };
    tokens.push(Token::Word(word));
    Ok(())
}

/// What the configuration node says, but for the ports, of which each server has its own.
fn without_ports(config: &[u8]) -> String {
    let text = String::from_utf8_lossy(config);
    let is_port = |field: &&str| field.len() > 1 && field.bytes().all(|byte| byte.is_ascii_digit());
    let name = |field: &str| if is_port(&field) { "port".to_owned() } else { field.to_owned() };
    let lines = text.lines().map(|line| line.split(':').map(name).collect::<Vec<String>>().join(":"));
    lines.collect::<Vec<String>>().join("\n")
}

/// Children come in no order (T26).
fn names(decoder: &mut Decoder<'_>, tokens: &mut Vec<Token>) -> Result<(), DecodeError> {
    let mut names: Vec<String> = decoder.texts("names")?.iter().map(|name| format!("{name:?}")).collect();
    names.sort_unstable();
    tokens.push(Token::Word(format!("[{}]", names.join(" "))));
    Ok(())
}

/// Entries in their order, but several digest entries of one `auth` entry have none among themselves.
fn acl(list: &[Acl<'_>]) -> String {
    let mut entries: Vec<(i32, String)> =
        list.iter().map(|entry| (entry.perms.0, format!("{}:{}", entry.id.scheme, entry.id.id))).collect();
    for run in
        entries.chunk_by_mut(|a, b| a.0 == b.0 && a.1.starts_with("digest") && b.1.starts_with("digest"))
    {
        run.sort_unstable();
    }
    let words: Vec<String> = entries.into_iter().map(|(perms, id)| format!("{id}:{perms}")).collect();
    format!("acl=[{}]", words.join(", "))
}

fn stat(decoder: &mut Decoder<'_>, tokens: &mut Vec<Token>) -> Result<(), DecodeError> {
    put_stat(&Stat::decode(decoder)?, tokens);
    Ok(())
}

/// A znode of a whole tree.
pub fn node(path: &str, node: &Node) -> Line {
    let data =
        node.data.as_ref().map(|data| (data.len(), data.iter().map(|byte| u64::from(*byte)).sum::<u64>()));
    let mut tokens = vec![Token::Word(format!("{path:?} data={data:?}")), Token::Word(acl(&node.acl))];
    put_stat(&node.stat, &mut tokens);
    Line { kind: Kind::Fence, tokens }
}

/// Number of tokens of a Stat.
pub const STAT_TOKENS: usize = 11;

fn put_stat(stat: &Stat, tokens: &mut Vec<Token>) {
    tokens.push(Token::Word(format!(
        "version={} cversion={} aversion={} length={} children={}",
        stat.version, stat.cversion, stat.aversion, stat.data_length, stat.num_children
    )));
    tokens.push(Token::Word("czxid".into()));
    tokens.push(Token::Zxid(stat.czxid.0));
    tokens.push(Token::Time { zxid: stat.czxid.0, ms: stat.ctime_ms });
    tokens.push(Token::Word("mzxid".into()));
    tokens.push(Token::Zxid(stat.mzxid.0));
    tokens.push(Token::Time { zxid: stat.mzxid.0, ms: stat.mtime_ms });
    tokens.push(Token::Word("pzxid".into()));
    tokens.push(Token::Zxid(stat.pzxid.0));
    tokens.push(Token::Word("owner".into()));
    tokens.push(Token::Session(stat.ephemeral_owner.0));
}

fn results(decoder: &mut Decoder<'_>, tokens: &mut Vec<Token>) -> Result<(), DecodeError> {
    loop {
        let kind = decoder.i32("type")?;
        let done = decoder.bool("done")?;
        let err = decoder.i32("err")?;
        tokens.push(Token::Word(format!("| type={kind} done={done} err={err}")));
        match (done, OpCode::from_i32(kind)) {
            (true, _) => return Ok(()),
            (false, Some(OpCode::Error)) => {
                tokens.push(Token::Word(format!("err={}", decoder.i32("err")?)));
            }
            // Deleted and checked parts have no body.
            (false, Some(OpCode::Delete | OpCode::Check)) => {}
            (false, op) => fields(op, decoder, tokens)?,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, token) in self.tokens.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            match token {
                Token::Word(word) => write!(out, "{space}{word}")?,
                Token::Zxid(zxid) => write!(out, "{space}{zxid:#x}")?,
                Token::Time { ms, .. } => write!(out, "{space}at {ms}")?,
                Token::Session(0) => write!(out, "{space}0")?,
                Token::Session(id) => write!(out, "{space}{id:#x}")?,
            }
        }
        Ok(())
    }
}
