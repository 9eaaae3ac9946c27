//! Who may do what: credentials, and lists of all kinds.

use super::{
    super::operation::{Entry, Field, Operation},
    Maker,
};
use zkfast_wire::{OpCode, Xid};

/// The identity of `alice:pw`.
const ALICE: &str = "alice:V55/p2T0OpjQ+low3NVAH4aLvm0=";
/// The identity of `bob:pw`.
const BOB: &str = "bob:ikIaKsbtGweaHnb/jKn7OHqbunM=";
/// Whom an entry may mean. Clients come from 127.0.0.1.
const WHOM: &[(&str, &str)] = &[
    ("world", "anyone"),
    ("world", "anyone"),
    ("digest", ALICE),
    ("digest", ALICE),
    ("digest", BOB),
    ("digest", BOB),
    ("digest", "alice:x"),
    ("digest", "super:D/InIHSb7yEEbrWz8b9l71RjZJU="),
    ("ip", "127.0.0.1"),
    ("ip", "127.0.0.2"),
    ("ip", "127.0.0.0/31"),
    ("ip", "127.0.0.2/31"),
    ("ip", "127.0.0.2/30"),
    ("ip", "126.0.0.0/7"),
    ("ip", "126.0.0.0/8"),
    ("ip", "127.0.0.1/32"),
    ("ip", "10.0.0.0/0"),
    ("ip", "127.000.0.01"),
    ("ip", "+127.0.0.0/+031"),
    ("auth", ""),
    ("auth", "ignored"),
];

fn entry(perms: i32, scheme: &'static str, id: &'static str) -> Entry {
    Entry { perms, scheme: Some(scheme), id: Some(id) }
}

impl Maker {
    /// A list for a new node, most of the time the open one.
    pub(super) fn acl(&mut self) -> Field {
        if self.dice.one_in(self.closed) {
            self.closed_acl()
        } else {
            Field::Acl(Some(vec![entry(31, "world", "anyone")]))
        }
    }

    /// A list that is not the open one.
    pub(super) fn closed_acl(&mut self) -> Field {
        let open = entry(31, "world", "anyone");
        let list = match (self.dice.one_in(8), self.dice.below(20)) {
            (true, 0 | 1) => return Field::Acl(None),
            (true, 2 | 3) => vec![],
            (true, 4 | 5) => vec![entry(31, "world", "somebody")],
            (true, 6) => vec![entry(31, "digest", "nocolon")],
            (true, 7 | 8) => vec![entry(31, "digest", "a:b:c"), open],
            (true, 9 | 10) => vec![entry(31, "nosuch", "x")],
            (true, 11) => vec![entry(31, "ip", "127.0.0.1/33")],
            (true, 12) => vec![entry(31, "ip", "::ffff:127.0.0.1")],
            (true, 13) => vec![open, entry(31, "ip", "localhost")],
            (true, 14) => vec![Entry { perms: 31, scheme: None, id: Some("x") }],
            (true, 15) => vec![Entry { perms: 31, scheme: Some("world"), id: None }],
            (true, 16) => vec![entry(31, "super", "")],
            (true, _) => vec![entry(self.pick(&[0, -1, 64, i32::MIN]), "world", "anyone")],
            // All but one: each operation has the one that it needs.
            (false, 0..8) => {
                let without = 31 & !self.pick(&[1, 2, 4, 8, 16]);
                let whom = self.pick(&[ALICE, BOB]);
                vec![entry(without, "world", "anyone"), entry(31, "digest", whom)]
            }
            // Who may read and not administrate sees no secrets.
            (false, 8..11) => {
                vec![entry(31, "digest", ALICE), entry(self.pick(&[1, 5, 15]), "world", "anyone")]
            }
            (false, 11) => vec![entry(31, "digest", BOB), entry(16, "world", "anyone")],
            (false, 12) => vec![open.clone(), open, entry(1, "auth", "ignored")],
            (false, 13 | 14) => vec![entry(31, "auth", "")],
            (false, _) => {
                let count = 1 + self.dice.below(3);
                let entries = std::iter::repeat_with(|| {
                    let (scheme, id) = self.pick(WHOM);
                    let perms = self.dice.below(32) as i32;
                    entry(if self.dice.one_in(3) { 31 } else { perms }, scheme, id)
                });
                entries.take(count).collect()
            }
        };
        Field::Acl(Some(list))
    }

    /// An auth packet.
    pub(super) fn auth(&mut self) -> Operation {
        let (scheme, credentials): (_, Option<&[u8]>) = match self.dice.below(20) {
            0..7 => ("digest", Some(b"alice:pw")),
            7..13 => ("digest", Some(b"bob:pw")),
            13 => ("digest", Some(b"bob:pw:with:colons")),
            14 => ("digest", Some(b"super:test")),
            15 => ("digest", Some(b"nocolon")),
            16 => ("ip", Some(b"127.0.0.1")),
            17 => ("nosuch", Some(b"x")),
            18 => ("world", Some(b"anyone")),
            _ => ("digest", self.pick(&[Some(b"".as_slice()), Some(b":")])),
        };
        let xid = if self.dice.one_in(4) { 5 } else { Xid::AUTH.0 };
        auth_packet(scheme, credentials, xid)
    }
}

/// The packet of `alice:pw` or `bob:pw`.
pub(super) fn credentials(user: usize) -> Operation {
    let credentials: &[u8] = if user == 0 { b"alice:pw" } else { b"bob:pw" };
    auth_packet("digest", Some(credentials), Xid::AUTH.0)
}

fn auth_packet(scheme: &'static str, credentials: Option<&[u8]>, xid: i32) -> Operation {
    let fields =
        vec![Field::Int("type", 0), Field::Text(Some(scheme)), Field::Data(credentials.map(<[u8]>::to_vec))];
    let mut operation = Operation::new(OpCode::Auth, fields);
    operation.xid = Some(xid);
    operation
}

/// An ACL in which each entry has an id.
pub(super) fn without_null_ids(mut field: Field) -> Field {
    if let Field::Acl(Some(entries)) = &mut field {
        entries.iter_mut().for_each(|entry| entry.id = entry.id.or(Some("")));
    }
    field
}
