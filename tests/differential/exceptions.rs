//! Where zkfast is allowed to differ from Apache's server, and nowhere else.
//!
//! Rows with a version: Apache changed its mind there, and zkfast does as the newer one. Against a server of that
//! version or later the row excuses nothing. Rows without: zkfast differs on purpose, for the reason given.
//! Rows that are avoided name what the streams never ask, because Apache's server does not survive it or changes its
//! state where zkfast refuses.

use super::{
    answer::{AS_SURROGATES, Kind, Line, STAT_TOKENS, Token},
    operation::{Field, Operation},
};
use zkfast_wire::OpCode;

/// A difference with its reason.
pub struct Exception {
    /// Name, as the tally shows it.
    pub id: &'static str,
    /// Apache's ticket, or why zkfast differs.
    pub ticket: &'static str,
    /// The first version of Apache's that does as zkfast.
    pub until: Option<(u32, u32, u32)>,
    /// Never asked by a stream.
    pub avoided: bool,
    /// What differs.
    pub what: &'static str,
}

/// The first version whose ensembles do not answer writes that they cannot read: see `unread-in-ensemble`.
pub const UNREAD_SINCE: (u32, u32, u32) = (3, 9, 0);

/// All of them.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        id: "event-zxid",
        ticket: "ZOOKEEPER-4655",
        until: Some((3, 9, 0)),
        avoided: false,
        what: "the header of an event carries the zxid of its transaction, before it carried -1 (row C19)",
    },
    Exception {
        id: "exists-read",
        ticket: "ZOOKEEPER-2590",
        until: Some((3, 9, 2)),
        avoided: false,
        what: "exists needs READ on a node that is there, and leaves no watch without (row OP7)",
    },
    Exception {
        id: "check-alone",
        ticket: "ZOOKEEPER-2623",
        until: Some((3, 9, 3)),
        avoided: true,
        what: "check outside a multi is refused as an unknown operation (rows OP16, C25), before one that held was \
               done and never answered",
    },
    Exception {
        id: "multi-create2",
        ticket: "ZOOKEEPER-4026",
        until: Some((3, 9, 0)),
        avoided: false,
        what: "create2 in a multi answers with a Stat, before as create did (row T32)",
    },
    Exception {
        id: "multi-flags",
        ticket: "ZOOKEEPER-4026",
        until: Some((3, 9, 0)),
        avoided: false,
        what: "a multi whose creates have impossible flags or no ACL cannot be read, before it failed there (row OP34)",
    },
    Exception {
        id: "multi-remains",
        ticket: "ZOOKEEPER-4026",
        until: Some((3, 9, 0)),
        avoided: true,
        what: "a multi that cannot be read leaves nothing behind, before its first parts counted for the requests on \
               their way behind it: such a multi is sent alone",
    },
    Exception {
        id: "watch-kinds",
        ticket: "ZOOKEEPER-4472",
        until: Some((3, 9, 0)),
        avoided: false,
        what: "removeWatches and checkWatches know persistent and recursive watches by themselves, and take any \
               path (row OP35)",
    },
    Exception {
        id: "null-watch",
        ticket: "ZOOKEEPER-4466",
        until: Some((3, 9, 0)),
        avoided: true,
        what: "addWatch of a null path is -5, before it also left a watch that kept the connection from being closed",
    },
    Exception {
        id: "check-watches",
        ticket: "ZOOKEEPER-4466",
        until: Some((3, 9, 0)),
        avoided: false,
        what: "checkWatches asks for the own watches, before it found those of other connections too, and none on the empty path \
               (row OP20)",
    },
    Exception {
        id: "pending-acl",
        ticket: "Apache looks at a node's old list while a setACL of it is under way, so that the answer is chance",
        until: None,
        avoided: true,
        what: "a request behind a setACL is checked against the new list: setACL is never sent ahead of others",
    },
    Exception {
        id: "pending-quota",
        ticket: "Apache counts a quota when a write is applied, so that requests under way and parts of a multi pass it",
        until: None,
        avoided: true,
        what: "what is under way is counted too (row T42): where quotas are hard, requests are sent one by one",
    },
    Exception {
        id: "watch-modes",
        ticket: "ZOOKEEPER-4466, ZOOKEEPER-4471",
        until: Some((3, 9, 0)),
        avoided: true,
        what: "a connection may watch a path in several modes (rows W3, W24), before the last one took the place of \
               the others: against such a server a session keeps to one mode",
    },
    Exception {
        id: "deleteContainer",
        ticket: "the reaper's own operation: Apache deletes any empty node with it, whatever the ACL says",
        until: None,
        avoided: false,
        what: "deleteContainer is refused as an unknown operation (rows OP6, G37); asked of absent nodes only",
    },
    Exception {
        id: "surrogates",
        ticket: "Java's jute writes a character beyond U+FFFF as two surrogates, which no reader of UTF-8 takes",
        until: None,
        avoided: false,
        what: "such characters are written as UTF-8 (row J3); paths cannot have them, questions about paths can",
    },
    Exception {
        id: "unreadable-write",
        ticket: "ZOOKEEPER-4575 gives the error of a write that cannot be read the last zxid once more",
        until: None,
        avoided: false,
        what: "each transaction has a zxid of its own, also that of a write whose body cannot be read (row C27); for learners \
               see `unread-multi`",
    },
    Exception {
        id: "unread-multi",
        ticket: "a leader of Apache's gives a multi that it cannot read a transaction or drops it: see `null-in-multi`",
        until: None,
        avoided: false,
        what: "a learner that cannot read a multi refuses it by itself, without a transaction; a leader or a server alone gives \
               it one (row C27)",
    },
    Exception {
        id: "error-body",
        ticket: "Java writes the results that it had gathered behind the header of an error",
        until: None,
        avoided: false,
        what: "an error reply is a header alone (row C17); no client reads on behind an error",
    },
    Exception {
        id: "impostor",
        ticket: "Apache ends a session's connection for anybody who names the session, before it looks at the password",
        until: None,
        avoided: true,
        what: "only who knows the password takes a session's connection away (row C12)",
    },
    Exception {
        id: "behind-close",
        ticket: "Apache answers what was sent behind a closeSession with -112 or not at all, as its threads happen to run",
        until: None,
        avoided: true,
        what: "nothing behind a closeSession is done or answered, the connection ends (rows C26, S6, E21)",
    },
    Exception {
        id: "behind-refusal",
        ticket: "Apache queues the refusal first and the end of the connection after it; an answer that comes to stand behind \
                 both before they are written leaves with them",
        until: None,
        avoided: true,
        what: "behind a refused operation nothing is asked: both connections must end by themselves (row C25)",
    },
    Exception {
        id: "asleep",
        ticket: "ZOOKEEPER-4537",
        until: Some((3, 9, 0)),
        avoided: true,
        what: "a member goes on by itself, before it could sleep over a committed write until somebody asked for something: \
               a ping of another session wakes it",
    },
    Exception {
        id: "unread-in-ensemble",
        ticket: "a leader of Apache's from 3.9 on makes no transaction of a write that it cannot read, and its member waits for \
                 one for good",
        until: None,
        avoided: true,
        what: "a write that cannot be read is answered with -5 (row C27); cut off bodies of writes are not sent to such \
               ensembles",
    },
    Exception {
        id: "null-in-multi",
        ticket: "a leader of Apache's makes no transaction of such a multi, and its member waits for one for good",
        until: None,
        avoided: true,
        what: "a multi with a null path is answered with -5 (row C27); not asked of ensembles",
    },
    Exception {
        id: "other-digits",
        ticket: "Java's numbers may have the digits of any script",
        until: None,
        avoided: true,
        what: "an address in a list has the digits 0 to 9, a to f; others are refused with -114 (row A8)",
    },
    Exception {
        id: "ip6",
        ticket: "ZOOKEEPER-4240",
        until: Some((3, 9, 4)),
        avoided: true,
        what: "a list may name IPv6 addresses, before it was refused with -114 (row A8)",
    },
    Exception {
        id: "no-limits",
        ticket: "Apache stumbles over a text of limits that it cannot read, and refuses every write below with -5",
        until: None,
        avoided: true,
        what: "limits that cannot be read are none (row T42)",
    },
    Exception {
        id: "first-frame",
        ticket: "Apache waits for a first frame of up to a megabyte",
        until: None,
        avoided: true,
        what: "a first frame of more than 1,024 bytes is no handshake: the connection ends",
    },
    Exception {
        id: "read-only-resume",
        ticket: "a read-only server of Apache's says of a session that it does not know that it has expired, although it may live \
                 with the others",
        until: None,
        avoided: true,
        what: "a read-only server closes without a word who names a session that is none of its own (rows C7, S16): the client \
               asks the next server",
    },
    Exception {
        id: "multi-read-bound",
        ticket: "Apache gathers the results of a multiRead without a bound",
        until: None,
        avoided: true,
        what: "more than 16 MiB, or four times jute.maxbuffer, are -5 (row R9, README)",
    },
    Exception {
        id: "late-null",
        ticket: "Java stumbles over a null when it uses it, after other checks of the same request",
        until: None,
        avoided: true,
        what: "a null path or id is -5 before everything else; only requests with a second fault can tell (row C27)",
    },
    Exception {
        id: "createTTL",
        ticket: "Apache logs a transaction that it cannot apply, and stops",
        until: None,
        avoided: true,
        what: "createTTL with a mode that is no TTL mode and a negative ttl is refused with -8 (row T18)",
    },
    Exception {
        id: "read-only-open",
        ticket: "a read-only server of Apache's 3.9 that has no local sessions refuses a new session and leaves its connection open",
        until: None,
        avoided: true,
        what: "the same answer, then the connection ends (row S16): the client asks the next server",
    },
    Exception {
        id: "local-ephemeral",
        ticket: "Apache logs the refusal of an ephemeral node in a local session, and in a multi answers it as the error of a part",
        until: None,
        avoided: true,
        what: "it is refused without a transaction, a multi by the header alone",
    },
    Exception {
        id: "createSession",
        ticket: "the server's own operation: Apache answers it with a second handshake",
        until: None,
        avoided: true,
        what: "createSession on a connection that has a session is refused as an unknown operation (rows OP30, G37)",
    },
];

/// What may be excused.
pub struct Case<'a> {
    /// What Apache's session saw, unless that is over.
    pub apache: Option<&'a Line>,
    /// What zkfast's saw.
    pub zkfast: Option<&'a Line>,
    /// What was asked.
    pub operations: &'a [Operation],
    /// Apache's version.
    pub version: (u32, u32, u32),
    /// The stream's root.
    pub root: &'a str,
    /// Whether the zxids of the two lines may stand for the same transaction.
    pub zxids_fit: bool,
    /// Whether zkfast's session is with a server that follows another one.
    pub is_learner: bool,
}

/// How the comparison goes on.
#[derive(Debug)]
pub enum Excuse {
    /// The two lines are taken for equal.
    Both,
    /// One side (0 is Apache's) took a zxid more; the lines are compared again.
    ExtraZxid(usize, i64),
    /// Apache's line is to be compared with this one.
    As(Line),
    /// The connections are no longer in the same state, and what zkfast refused has a transaction on Apache's side: both
    /// shall begin new ones.
    HangUp {
        /// That transaction, if there is one.
        apache_zxid: Option<i64>,
    },
    /// Apache left a data watch here that zkfast did not.
    WatchLeft(String),
}

impl Case<'_> {
    fn operation(&self) -> Option<&Operation> {
        match (&self.apache?.kind, &self.zkfast?.kind) {
            (Kind::Reply { index, .. }, _) | (_, Kind::Reply { index, .. }) => self.operations.get(*index),
            _ => None,
        }
    }

    fn op(&self) -> Option<OpCode> {
        self.operation()?.op()
    }

    fn try_row(&self, id: &str) -> Option<Excuse> {
        let (apache, zkfast) = (self.apache, self.zkfast);
        match id {
            "event-zxid" => match (apache?, zkfast?) {
                (a, b)
                    if matches!(a.kind, Kind::Event { .. })
                        && a.kind == b.kind
                        && a.tokens[0] == b.tokens[0]
                        && a.tokens[1] == Token::Zxid(-1) =>
                {
                    Some(Excuse::Both)
                }
                _ => None,
            },
            "deleteContainer" => {
                let is_refused = zkfast?.tokens.first()? == &Token::Word(self.refusal(-6)?);
                let Token::Zxid(apache_zxid) = *apache?.tokens.get(1)? else { return None };
                (self.op() == Some(OpCode::DeleteContainer) && is_refused)
                    .then_some(Excuse::HangUp { apache_zxid: Some(apache_zxid) })
            }
            "surrogates" => {
                let (apache, zkfast) = (apache?, zkfast?);
                let is_equal = |pair: (&Token, &Token)| match pair {
                    (Token::Word(left), Token::Word(right)) => left.replace(AS_SURROGATES, "") == *right,
                    // Of these there are others that are compared.
                    (Token::Zxid(_), Token::Zxid(_)) => true,
                    (left, right) => left == right,
                };
                let is_fitting = apache.kind == zkfast.kind
                    && apache.tokens.len() == zkfast.tokens.len()
                    && apache.to_string().contains(AS_SURROGATES)
                    && apache.tokens.iter().zip(&zkfast.tokens).all(is_equal);
                is_fitting.then_some(Excuse::Both)
            }
            "error-body" => {
                let (apache, zkfast) = (apache?, zkfast?);
                let is_fitting = matches!(self.op(), Some(OpCode::MultiRead | OpCode::Multi))
                    && matches!(apache.kind, Kind::Reply { err: -5, .. })
                    && apache.kind == zkfast.kind
                    && apache.tokens[0] == zkfast.tokens[0]
                    && zkfast.tokens.len() == 2
                    && apache.tokens.len() > 2;
                is_fitting.then_some(Excuse::Both)
            }
            // What was asked in the same burst, before the watch could be taken away on Apache's side too.
            "exists-read" if self.op() == Some(OpCode::RemoveWatches) => {
                let Kind::Reply { index, err: 0, .. } = apache?.kind else { return None };
                let is_absent = matches!(zkfast?.kind, Kind::Reply { err: -121, .. });
                let path = self.operation()?.path(self.root)?;
                let is_of_refused = self.operations[..index].iter().any(|earlier| {
                    earlier.op() == Some(OpCode::Exists)
                        && earlier.fields.contains(&Field::Watch(true))
                        && earlier.path(self.root).as_deref() == Some(&*path)
                });
                (is_absent && is_of_refused).then_some(Excuse::Both)
            }
            "exists-read" => {
                let is_refused = zkfast?.tokens.first()? == &Token::Word(self.refusal(-102)?);
                let is_found = matches!(apache?.kind, Kind::Reply { err: 0, .. });
                if self.op() != Some(OpCode::Exists) || !is_refused || !is_found {
                    return None;
                }
                let operation = self.operation()?;
                match operation.fields.contains(&Field::Watch(true)) {
                    true => Some(Excuse::WatchLeft(operation.path(self.root)?)),
                    false => Some(Excuse::Both),
                }
            }
            "check-watches" => {
                let is_found = matches!(apache?.kind, Kind::Reply { err: 0, .. });
                let is_absent = matches!(zkfast?.kind, Kind::Reply { err: -121, .. });
                // And none on the empty path, which is the root's other name.
                let is_empty = self.operation()?.path(self.root).as_deref() == Some("")
                    && matches!(apache?.kind, Kind::Reply { err: -121, .. })
                    && matches!(zkfast?.kind, Kind::Reply { err: 0, .. });
                (self.op() == Some(OpCode::CheckWatches) && (is_empty || is_found && is_absent))
                    .then_some(Excuse::Both)
            }
            "multi-create2" => {
                let is_multi = self.op() == Some(OpCode::Multi) && apache?.kind == zkfast?.kind;
                is_multi.then(|| without_create2(apache?, zkfast?).map(Excuse::As)).flatten()
            }
            "multi-flags" => {
                let is_refused = zkfast?.tokens.first()? == &Token::Word(self.refusal(-5)?);
                let is_failed = matches!(apache?.kind, Kind::Reply { err: 0, .. })
                    && apache?
                        .tokens
                        .iter()
                        .any(|token| *token == Token::Word("err=-2".into()) || is_failure(token));
                (self.op() == Some(OpCode::Multi) && is_refused && is_failed).then_some(Excuse::Both)
            }
            "watch-kinds" => {
                let operation = self.operation()?;
                let is_new = operation.fields.iter().any(|field| matches!(field, Field::Int("kind", 4 | 5)))
                    || operation.path(self.root).is_none_or(|path| !path.starts_with('/'));
                let is_refused = matches!(apache?.kind, Kind::Reply { err: -5, .. });
                if !is_new || !is_refused {
                    return None;
                }
                match (operation.op()?, &zkfast?.kind) {
                    (OpCode::CheckWatches, Kind::Reply { err: 0 | -121, .. })
                    | (OpCode::RemoveWatches, Kind::Reply { err: -121, .. }) => Some(Excuse::Both),
                    // A watch is gone on one of the two: without the connection it is gone on both.
                    (OpCode::RemoveWatches, Kind::Reply { err: 0, .. }) => {
                        Some(Excuse::HangUp { apache_zxid: None })
                    }
                    _ => None,
                }
            }
            "unreadable-write" => {
                let is_unreadable = |line: &Line| matches!(line.kind, Kind::Reply { err: -5, .. });
                let is_unread = self.is_learner && self.op() == Some(OpCode::Multi);
                let is_fitting = is_unreadable(apache?)
                    && is_unreadable(zkfast?)
                    && self.operation()?.is_write()
                    && !is_unread;
                let Token::Zxid(zxid) = *zkfast?.tokens.get(1)? else { return None };
                (is_fitting && !self.zxids_fit).then_some(Excuse::ExtraZxid(1, zxid))
            }
            "unread-multi" => {
                let is_unreadable = |line: &Line| matches!(line.kind, Kind::Reply { err: -5, .. });
                let is_fitting = self.is_learner && is_unreadable(apache?) && is_unreadable(zkfast?);
                let Token::Zxid(zxid) = *apache?.tokens.get(1)? else { return None };
                (is_fitting && self.op() == Some(OpCode::Multi) && !self.zxids_fit)
                    .then_some(Excuse::ExtraZxid(0, zxid))
            }
            _ => None,
        }
    }

    /// How zkfast's refusal of the request with `err` begins.
    fn refusal(&self, err: i32) -> Option<String> {
        let Token::Word(word) = self.apache?.tokens.first()? else { return None };
        let (head, _) = word.split_once(" err=")?;
        Some(format!("{head} err={err}"))
    }
}

/// A failed part of a multi.
fn is_failure(token: &Token) -> bool {
    matches!(token, Token::Word(word) if word.starts_with("| type=-1 done=false"))
}

/// zkfast's answer to a multi, with the parts that are creates for Apache shown as such: without their Stat.
fn without_create2(apache: &Line, zkfast: &Line) -> Option<Line> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = zkfast.tokens.as_slice();
    let mut is_other = false;
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        let create = Token::Word("| type=1 done=false err=0".into());
        if *token == Token::Word("| type=15 done=false err=0".into())
            && apache.tokens.get(tokens.len()) == Some(&create)
        {
            is_other = true;
            tokens.push(create);
            tokens.push(rest.first()?.clone());
            rest = rest.get(1 + STAT_TOKENS..)?;
        } else {
            tokens.push(token.clone());
        }
    }
    is_other.then(|| Line { kind: zkfast.kind.clone(), tokens })
}

/// The row that excuses a difference, and how.
pub fn excuse(case: &Case<'_>) -> Option<(&'static str, Excuse)> {
    EXCEPTIONS
        .iter()
        .filter(|row| !row.avoided && row.until.is_none_or(|until| case.version < until))
        .find_map(|row| case.try_row(row.id).map(|excuse| (row.id, excuse)))
}

/// Whether streams must not ask what this row names of a server of `version`.
pub fn is_avoided(id: &str, version: (u32, u32, u32)) -> bool {
    EXCEPTIONS.iter().any(|row| row.id == id && row.avoided && row.until.is_none_or(|until| version < until))
}
