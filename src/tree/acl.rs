//! Who may do what (rows A3-A5, A8, A13, A14): fix-up of lists that clients send, the permission check, and the table
//! in which equal lists share one allocation.
//!
//! Pure: providers that need configuration (which schemes exist at all) come in as [`AclRules`].

use hashbrown::HashTable;
use std::{
    borrow::Cow,
    hash::{BuildHasher, Hash},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};
use zkfast_wire::{Acl, ErrorCode, Id, Perms};

/// A list that nodes share. Only the tree's writer makes and drops owners, so a count of one means: unused.
#[derive(Debug)]
pub struct AclList {
    /// Number of the list in this server's snapshots (P21): 1 and up; -1 for [`Acl::OPEN`] alone.
    pub(crate) id: i64,
    /// The entries.
    pub(crate) entries: Arc<[Acl<'static>]>,
}

/// The list that almost every node has: `world:anyone` with every permission.
pub static OPEN_LIST: [Acl<'static>; 1] = [Acl::OPEN];

/// Number of [`OPEN_LIST`] in snapshots (`OPEN_UNSAFE_ACL_ID`); never written to the map of lists (P21).
pub const OPEN_ID: i64 = -1;

/// The ACL of a node: `None` is [`OPEN_LIST`], which needs no allocation and no counting.
pub type NodeAcl = Option<Arc<AclList>>;

/// The entries of a node's ACL.
pub(crate) fn entries(acl: &NodeAcl) -> &[Acl<'static>] {
    acl.as_ref().map_or(&OPEN_LIST, |list| &list.entries)
}

/// Which schemes this server accepts in ACLs, beyond `world`, `auth`, `digest` and `ip`.
#[derive(Clone, Debug, Default)]
pub struct AclRules {
    /// `DigestAuthenticationProvider.enabled=false`: there is no scheme `digest` (A2).
    pub without_digest: bool,
    /// Schemes of further providers (`sasl`, `x509` ...), whose ids are accepted if not empty (A2).
    pub extra_schemes: Vec<String>,
}

impl AclRules {
    /// Whether an id may stand in an ACL (the provider's `isValid`).
    fn is_valid(&self, id: &Id<'_>) -> bool {
        match &*id.scheme {
            "digest" => !self.without_digest && digest_id_is_valid(&id.id),
            "ip" => IpRange::parse(&id.id).is_some(),
            // IpAuthenticationProvider and Digest are built in; the `super` scheme exists only as an identity (A6).
            scheme => self.extra_schemes.iter().any(|extra| extra == scheme) && !id.id.is_empty(),
        }
    }

    /// Whether an identity proves who somebody is (the provider's `isAuthenticated`): all but `ip` (A13).
    fn is_authenticated(&self, id: &Id<'_>) -> bool {
        &*id.scheme == "digest" || self.extra_schemes.iter().any(|extra| *extra == id.scheme)
    }
}

/// A5: exactly two parts, counted as Java's `String.split` counts them: empty parts at the end do not count.
fn digest_id_is_valid(id: &str) -> bool {
    id.trim_end_matches(':').split(':').count() == 2 && !id.trim_end_matches(':').is_empty()
}

/// Checks and completes a list that a client sent (A13).
///
/// Duplicates go, `auth` becomes one entry per authenticated identity of the connection; order is kept.
///
/// # Errors
/// [`ErrorCode::INVALID_ACL`] for a null or empty list, an unknown scheme, an invalid id, `world` with another id than
/// `anyone`, or `auth` without an authenticated identity.
pub fn fix_up<'a>(
    rules: &AclRules,
    wanted: Option<&[Acl<'a>]>,
    identities: &[Id<'a>],
) -> Result<Vec<Acl<'a>>, ErrorCode> {
    let wanted = wanted.unwrap_or_default();
    let mut fixed = Vec::with_capacity(wanted.len());
    for (position, entry) in wanted.iter().enumerate() {
        if wanted[..position].contains(entry) {
            continue;
        }
        match (&*entry.id.scheme, &*entry.id.id) {
            ("world", "anyone") => fixed.push(entry.clone()),
            ("auth", _) => {
                let before = fixed.len();
                fixed.extend(
                    identities
                        .iter()
                        .filter(|identity| rules.is_authenticated(identity))
                        .map(|identity| Acl { perms: entry.perms, id: identity.clone() }),
                );
                if fixed.len() == before {
                    return Err(ErrorCode::INVALID_ACL);
                }
            }
            _ if rules.is_valid(&entry.id) => fixed.push(entry.clone()),
            _ => return Err(ErrorCode::INVALID_ACL),
        }
    }
    if fixed.is_empty() { Err(ErrorCode::INVALID_ACL) } else { Ok(fixed) }
}

/// Whether one of `identities` has one of the permissions `wanted` (A14). `skipACL` is the caller's business.
pub fn allowed(acl: &[Acl<'_>], wanted: Perms, identities: &[Id<'_>]) -> bool {
    // The list of almost every node, decided without a single comparison of text.
    if std::ptr::eq(acl.as_ptr().cast::<u8>(), OPEN_LIST.as_ptr().cast::<u8>()) && wanted.any(Perms::ALL) {
        return true;
    }
    acl.is_empty()
        || identities.iter().any(|identity| identity.scheme == "super")
        || acl.iter().any(|entry| {
            entry.perms.any(wanted)
                && ((entry.id.scheme == "world" && entry.id.id == "anyone")
                    || identities.iter().any(|identity| matches(identity, &entry.id)))
        })
}

/// Whether an identity is the one that an ACL entry means.
fn matches(identity: &Id<'_>, expected: &Id<'_>) -> bool {
    identity.scheme == expected.scheme
        && match &*expected.scheme {
            "ip" => ip_matches(&identity.id, &expected.id),
            _ => identity.id == expected.id,
        }
}

/// A8: `address` or `address/bits`.
fn ip_matches(address: &str, range: &str) -> bool {
    match (address.parse::<IpAddr>(), IpRange::parse(range)) {
        (Ok(address), Some(range)) => range.contains(address),
        _ => false,
    }
}

/// An address with the number of leading bits that count.
struct IpRange {
    base: IpAddr,
    bits: u32,
}

impl IpRange {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let base = ip_address(address)?;
        let bits_max = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(bits_max), |bits| u32::try_from(bits.parse::<i32>().ok()?).ok())?;
        (bits <= bits_max).then_some(Self { base, bits })
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                let differing = Ipv4Addr::to_bits(base) ^ Ipv4Addr::to_bits(address);
                self.bits == 0 || differing >> (32 - self.bits) == 0
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                let differing = Ipv6Addr::to_bits(base) ^ Ipv6Addr::to_bits(address);
                self.bits == 0 || differing >> (128 - self.bits) == 0
            }
            _ => false,
        }
    }
}

/// An address as Apache 3.9.5 reads it in an ACL (A8): every part is a number with or without a sign and leading zeros,
/// so `127.000.0.01` and `+1::` are addresses; an IPv4 address inside an IPv6 one is none. Digits of other scripts, which
/// Java takes too, are refused.
fn ip_address(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        let mut octets = [0; 4];
        let mut parts = text.split('.');
        for octet in &mut octets {
            *octet = u8::try_from(parts.next()?.parse::<i32>().ok()?).ok()?;
        }
        return parts.next().is_none().then(|| octets.into());
    }
    let mut segments = [0; 8];
    match text.split_once("::") {
        None => (put_segments(&mut segments, text)? == 8).then_some(())?,
        Some((head, tail)) => {
            let head = if head.is_empty() { 0 } else { put_segments(&mut segments, head)? };
            let mut behind = [0; 8];
            let tail = if tail.is_empty() { 0 } else { put_segments(&mut behind, tail)? };
            (head + tail < 8).then_some(())?;
            segments[8 - tail..].copy_from_slice(&behind[..tail]);
        }
    }
    Some(segments.into())
}

/// Reads hexadecimal numbers of up to four characters between colons; how many there are.
fn put_segments(segments: &mut [u16; 8], text: &str) -> Option<usize> {
    let mut count = 0;
    for part in text.split(':') {
        let number = (part.len() <= 4).then(|| i32::from_str_radix(part, 16).ok())??;
        // A negative number counts with its last 16 bits, as in Java.
        *segments.get_mut(count)? = number as u16;
        count += 1;
    }
    Some(count)
}

/// The lists in use, one allocation for each (Java's `ReferenceCountedACLCache`).
#[derive(Debug)]
pub(crate) struct AclTable {
    lists: HashTable<Arc<AclList>>,
    /// The same lists in the order of the round-robin sweep.
    sweep: Vec<Arc<AclList>>,
    sweep_at: usize,
    last_id: i64,
    hasher: foldhash::fast::FixedState,
}

/// Owners of a list that no node uses: the two collections of the table itself.
const OWNERS_IDLE: usize = 2;
/// Lists looked at per interning of a new one. Two, so that the sweep overtakes the growth.
const SWEEP_STEP: usize = 2;

impl AclTable {
    pub(crate) fn new(hash_seed: u64) -> Self {
        Self {
            lists: HashTable::new(),
            sweep: Vec::new(),
            sweep_at: 0,
            last_id: 0,
            hasher: foldhash::fast::FixedState::with_seed(hash_seed),
        }
    }

    /// Number of lists, without the open one.
    pub(crate) fn len(&self) -> usize {
        self.lists.len()
    }

    /// Every list.
    pub(crate) fn all(&self) -> Vec<Arc<AclList>> {
        self.sweep.clone()
    }

    /// The shared form of a list.
    pub(crate) fn intern(&mut self, list: &[Acl<'_>]) -> NodeAcl {
        if let [only] = list
            && *only == Acl::OPEN
        {
            return None;
        }
        let hash = self.hash(list);
        if let Some(found) = self.lists.find(hash, |held| *held.entries == *list) {
            return Some(found.clone());
        }
        self.sweep();
        let id = self.last_id + 1;
        Some(self.insert(id, list, hash))
    }

    /// Takes over a list of a snapshot with its number there. Equal lists under two numbers share one allocation.
    pub(crate) fn adopt(&mut self, id: i64, list: &[Acl<'_>]) -> Arc<AclList> {
        let hash = self.hash(list);
        if let Some(found) = self.lists.find(hash, |held| *held.entries == *list) {
            self.last_id = self.last_id.max(id);
            return found.clone();
        }
        self.insert(id, list, hash)
    }

    fn insert(&mut self, id: i64, list: &[Acl<'_>], hash: u64) -> Arc<AclList> {
        self.last_id = self.last_id.max(id);
        let entries = list.iter().map(|entry| entry.clone().into_owned()).collect();
        let list = Arc::new(AclList { id, entries });
        let hasher = &self.hasher;
        self.lists.insert_unique(hash, list.clone(), |held| hash_of(hasher, &held.entries));
        self.sweep.push(list.clone());
        list
    }

    /// Frees lists that no version of any node holds any more. Versions that a view still needs hold theirs.
    fn sweep(&mut self) {
        for _ in 0..SWEEP_STEP.min(self.sweep.len()) {
            self.sweep_at = if self.sweep_at >= self.sweep.len() { 0 } else { self.sweep_at };
            let list = &self.sweep[self.sweep_at];
            if Arc::strong_count(list) > OWNERS_IDLE {
                self.sweep_at += 1;
                continue;
            }
            let list = self.sweep.swap_remove(self.sweep_at);
            let hash = self.hash(&list.entries);
            let found = self.lists.find_entry(hash, |held| Arc::ptr_eq(held, &list));
            found.expect("every swept list is in the table").remove();
        }
    }

    fn hash(&self, list: &[Acl<'_>]) -> u64 {
        hash_of(&self.hasher, list)
    }
}

fn hash_of(hasher: &foldhash::fast::FixedState, list: &[Acl<'_>]) -> u64 {
    // The derived Hash of Cow hashes the text, so owned and borrowed lists agree.
    let mut state = hasher.build_hasher();
    list.hash(&mut state);
    std::hash::Hasher::finish(&state)
}

/// The user name in a digest id, with the secret part masked: `user:x` (OP10).
pub fn masked(entry: &Acl<'_>) -> Acl<'static> {
    let mut entry = entry.clone().into_owned();
    if entry.id.scheme == "digest"
        && let Some((user, _)) = entry.id.id.split_once(':')
    {
        entry.id.id = Cow::Owned(format!("{user}:x"));
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(perms: i32, scheme: &'static str, id: &'static str) -> Acl<'static> {
        Acl { perms: Perms(perms), id: Id::new(scheme, id) }
    }

    /// A13: a fix-up that lets a list through which Java refuses makes a tree that Java cannot have.
    #[test]
    fn fix_up_follows_a13() {
        let rules = AclRules { extra_schemes: vec!["sasl".into()], ..AclRules::default() };
        let me = [Id::new("ip", "10.0.0.1"), Id::new("digest", "u:h"), Id::new("sasl", "bob")];
        let check = |wanted: &[Acl<'static>], expected: Result<Vec<Acl<'static>>, ErrorCode>| {
            assert_eq!(fix_up(&rules, Some(wanted), &me), expected, "{wanted:?}");
        };
        let refused = Err(ErrorCode::INVALID_ACL);
        assert_eq!(fix_up(&rules, None, &me), refused);
        check(&[], refused.clone());
        check(&[Acl::OPEN, Acl::OPEN], Ok(vec![Acl::OPEN]));
        check(&[acl(1, "world", "somebody")], refused.clone());
        check(&[acl(3, "auth", "ignored")], Ok(vec![acl(3, "digest", "u:h"), acl(3, "sasl", "bob")]));
        assert_eq!(fix_up(&rules, Some(&[acl(3, "auth", "")]), &me[..1]), refused);
        check(&[acl(1, "digest", "u:h:more")], refused.clone());
        check(&[acl(1, "digest", "u")], refused.clone());
        check(&[acl(1, "digest", "u:")], refused.clone());
        check(&[acl(1, "digest", "u:h")], Ok(vec![acl(1, "digest", "u:h")]));
        check(&[acl(1, "ip", "10.0.0.0/8"), Acl::OPEN], Ok(vec![acl(1, "ip", "10.0.0.0/8"), Acl::OPEN]));
        for wrong in ["10.0.0", "10.0.0.0/33", "10.0.0.0/x", "localhost", "::1/129", ""] {
            check(&[acl(1, "ip", wrong)], refused.clone());
        }
        check(&[acl(1, "super", "")], refused.clone());
        check(&[acl(1, "x509", "CN=a")], refused);
    }

    /// A14, A8.
    #[test]
    fn permissions_are_granted_by_any_matching_entry() {
        let me = [Id::new("ip", "10.1.2.3"), Id::new("digest", "u:h")];
        for (list, wanted, expected) in [
            (vec![], Perms::ADMIN, true),
            (vec![Acl::OPEN], Perms::ADMIN, true),
            (vec![Acl::READ_ONLY], Perms::READ, true),
            (vec![Acl::READ_ONLY], Perms::WRITE, false),
            (vec![Acl::READ_ONLY], Perms::READ.or(Perms::ADMIN), true),
            (vec![acl(2, "digest", "u:h")], Perms::WRITE, true),
            (vec![acl(2, "digest", "u:other")], Perms::WRITE, false),
            (vec![acl(2, "ip", "10.1.2.3")], Perms::WRITE, true),
            (vec![acl(2, "ip", "10.1.0.0/16")], Perms::WRITE, true),
            (vec![acl(2, "ip", "10.2.0.0/16")], Perms::WRITE, false),
            (vec![acl(2, "ip", "0.0.0.0/0")], Perms::WRITE, true),
            (vec![acl(2, "ip", "::/0")], Perms::WRITE, false),
        ] {
            assert_eq!(allowed(&list, wanted, &me), expected, "{list:?} {wanted:?}");
        }
        assert!(allowed(&OPEN_LIST, Perms::ADMIN, &[]));
        assert!(allowed(&[acl(0, "digest", "x:y")], Perms::ADMIN, &[Id::new("super", "")]));
        assert!(ip_matches("2001:db8::1", "2001:db8::/32"));
        assert!(!ip_matches("2001:db9::1", "2001:db8::/32"));
    }

    /// A8: what is an address, and which one, goes by Apache 3.9.5; also where a list was not checked here.
    #[test]
    fn addresses_are_read_as_apache_reads_them() {
        for (text, expected) in [
            ("127.0.0.01", "127.0.0.1"),
            ("127.000.000.001", "127.0.0.1"),
            ("0000127.0.0.1", "127.0.0.1"),
            ("+127.0.0.1", "127.0.0.1"),
            ("-0.0.0.1", "0.0.0.1"),
            ("+1::", "1::"),
            ("-1::", "ffff::"),
            ("-ff::2", "ff01::2"),
            ("::", "::"),
            ("2001:DB8::1", "2001:db8::1"),
            ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
            ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
            ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
        ] {
            assert_eq!(ip_address(text), Some(expected.parse().unwrap()), "{text}");
        }
        for wrong in [
            "",
            "1",
            "1.2.3",
            "1.2.3.",
            "1.2.3.4.5",
            "256.0.0.1",
            "-1.0.0.1",
            "1.2.3.+",
            "127.0.0.1%lo",
            " 1.2.3.4",
            "::1.2.3.4",
            "::ffff:1.2.3.4",
            "1:2:3:4:5:6:1.2.3.4",
            "00001::",
            "12345::",
            "::g",
            "::1%lo",
            "[::1]",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7",
            "1::2::3",
            ":::",
            ":1::",
            "1:",
            ":",
            "1:2:3:4::5:6:7:8",
            "\u{661}::",
        ] {
            assert_eq!(ip_address(wrong), None, "{wrong}");
        }
        assert!(ip_matches("127.0.0.1", "127.0.0.01"));
        assert!(ip_matches("127.0.0.1", "126.00.0.0/+07"));
        assert!(ip_matches("127.0.0.1", "1.2.3.4/-0"));
        assert!(!ip_matches("127.0.0.1", "127.0.0.1/-1"));
    }

    /// ZOOKEEPER-4846: a list must live exactly as long as something refers to it.
    #[test]
    fn equal_lists_share_and_unused_lists_go() {
        let mut table = AclTable::new(7);
        assert!(table.intern(&[Acl::OPEN]).is_none());
        let first = table.intern(&[Acl::READ_ONLY]).unwrap();
        let same = table.intern(&[Acl::READ_ONLY]).unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        drop(same);
        for user in 0..1_000 {
            let id = Id { scheme: "digest".into(), id: format!("u{user}:h").into() };
            table.intern(&[Acl { perms: Perms::READ, id }]);
        }
        assert!(table.len() < 10, "{} lists are kept", table.len());
        assert!(Arc::ptr_eq(&first, &table.intern(&[Acl::READ_ONLY]).unwrap()));
    }
}
