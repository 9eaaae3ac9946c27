//! Access control lists (rows J8, J9).

use crate::jute::{self, DecodeError, Decoder};
use bytes::BufMut;
use std::{borrow::Cow, net::IpAddr};

/// Permission bits of an ACL entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Perms(pub i32);

impl Perms {
    /// getData, getChildren, exists.
    pub const READ: Self = Self(1);
    /// setData.
    pub const WRITE: Self = Self(2);
    /// create a child.
    pub const CREATE: Self = Self(4);
    /// delete a child.
    pub const DELETE: Self = Self(8);
    /// setACL.
    pub const ADMIN: Self = Self(16);
    /// All five.
    pub const ALL: Self = Self(31);

    /// Whether any bit of `wanted` is granted (A14).
    pub const fn any(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }

    /// This or that.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// An address as Java writes it, and clients see it: all eight groups of an IPv6 one (`0:0:0:0:0:0:0:1`), and an IPv4
/// address that came in IPv6's clothes as what it is.
pub fn address_text(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => address.segments().map(|group| format!("{group:x}")).join(":"),
    }
}

/// Who somebody is: a scheme such as `ip` or `digest` and a name within it.
///
/// Ordered so that lists of them can be compared and interned.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Id<'a> {
    /// `world`, `ip`, `digest`, `auth`, `sasl`, `x509`, `super` ...
    pub scheme: Cow<'a, str>,
    /// The name within the scheme.
    pub id: Cow<'a, str>,
}

impl<'a> Id<'a> {
    /// Bytes of the smallest encoded `Id`: two empty strings.
    pub const ENCODED_BYTES_MIN: usize = 8;

    /// An id that borrows both parts.
    pub const fn new(scheme: &'a str, id: &'a str) -> Self {
        Self { scheme: Cow::Borrowed(scheme), id: Cow::Borrowed(id) }
    }

    /// What a connection from `address` proves by itself (A8): scheme `ip`, and the address as Java writes it.
    pub fn of_address(address: IpAddr) -> Id<'static> {
        Id { scheme: Cow::Borrowed("ip"), id: Cow::Owned(address_text(address)) }
    }

    /// Reads {scheme, id}. A null part reads as empty, which no provider accepts; but a null id of one of the schemes
    /// whose ids Java looks into cannot be read, because Java stumbles over it (-5 instead of -114).
    pub fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let scheme = decoder.string("Id.scheme")?.unwrap_or_default();
        let id = match &*scheme {
            "world" | "digest" | "ip" => decoder.text("Id.id")?,
            _ => decoder.string("Id.id")?.unwrap_or_default(),
        };
        Ok(Self { scheme, id })
    }

    /// Writes {scheme, id}.
    pub fn encode(&self, out: &mut impl BufMut) {
        jute::put_text(out, &self.scheme);
        jute::put_text(out, &self.id);
    }

    /// The same id with its own memory.
    pub fn into_owned(self) -> Id<'static> {
        Id { scheme: Cow::Owned(self.scheme.into_owned()), id: Cow::Owned(self.id.into_owned()) }
    }
}

/// One entry of an access control list.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Acl<'a> {
    /// What is allowed.
    pub perms: Perms,
    /// To whom.
    pub id: Id<'a>,
}

impl<'a> Acl<'a> {
    /// Bytes of the smallest encoded entry.
    pub const ENCODED_BYTES_MIN: usize = 4 + Id::ENCODED_BYTES_MIN;

    /// `world:anyone` with every permission (`OPEN_ACL_UNSAFE`).
    pub const OPEN: Acl<'static> = Acl { perms: Perms::ALL, id: Id::new("world", "anyone") };
    /// `world:anyone` with READ (`READ_ACL_UNSAFE`).
    pub const READ_ONLY: Acl<'static> = Acl { perms: Perms::READ, id: Id::new("world", "anyone") };

    /// Reads {perms, id}.
    pub fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self { perms: Perms(decoder.i32("ACL.perms")?), id: Id::decode(decoder)? })
    }

    /// Reads a vector of entries; null reads as `None`.
    pub fn decode_list(decoder: &mut Decoder<'a>) -> Result<Option<Vec<Self>>, DecodeError> {
        let Some(count) = decoder.count(Self::ENCODED_BYTES_MIN, "vector<ACL>")? else { return Ok(None) };
        // Bounded by the bytes that are there.
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(Self::decode(decoder)?);
        }
        Ok(Some(list))
    }

    /// Writes {perms, id}.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_i32(self.perms.0);
        self.id.encode(out);
    }

    /// Writes a vector of entries.
    pub fn encode_list(list: &[Self], out: &mut impl BufMut) {
        jute::put_count(out, list.len());
        for acl in list {
            acl.encode(out);
        }
    }

    /// The same entry with its own memory.
    pub fn into_owned(self) -> Acl<'static> {
        Acl { perms: self.perms, id: self.id.into_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Danger: a client looks for its own address in an ACL that whoAmI told it, and finds another spelling.
    #[test]
    fn addresses_are_written_as_java_does() {
        let check = |address: &str, expected: &str| {
            assert_eq!(Id::of_address(address.parse().unwrap()), Id::new("ip", expected));
        };
        check("::1", "0:0:0:0:0:0:0:1");
        check("2001:db8::a:0:ff", "2001:db8:0:0:0:a:0:ff");
        check("::ffff:10.0.0.1", "10.0.0.1");
        check("127.0.0.1", "127.0.0.1");
    }
}
