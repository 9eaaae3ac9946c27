//! Where an image ends, found while it comes in pieces (rows Q54, P20-P23).
//!
//! On a learner's link the image has no length and no frame: only its own structure tells where it ends and the next
//! packet begins. This walks over that structure and keeps nothing but a place in it, so that the bytes can go to a
//! file meanwhile. Whether they make a tree is for [`crate::image::load`] to say.

use zkfast_wire::StatPersisted;

/// Longest buffer or text that an image may hold, bytes; a node of Apache's default limit has 1 MiB.
const PART_BYTES_MAX: i32 = 256 << 20;
/// Identity lists of one ACL, and ACLs of one image, that are not mistaken for garbage.
const COUNT_MAX: i32 = 100_000_000;

/// What the bytes at the current place are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    SessionCount,
    ListCount,
    /// The number of a list, then how many entries it has.
    AclCount,
    SchemeLength,
    IdLength,
    PathLength,
    /// A path of one byte: the end mark if it is "/".
    ShortPath,
    DataLength,
    End,
}

/// A walk over an image that comes in pieces.
#[derive(Clone, Debug)]
pub struct ImageEnd {
    place: Place,
    /// Bytes to pass over before `place`.
    skip: u64,
    /// Bytes of the number at `place` that have come.
    partial: [u8; 4],
    partial_bytes: usize,
    lists_left: i32,
    acls_left: i32,
}

/// A length or a count that no image has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the image has {number} where a {what} belongs")]
pub struct NoImage {
    /// What was expected.
    what: &'static str,
    /// What was there.
    number: i32,
}

impl Default for ImageEnd {
    fn default() -> Self {
        Self {
            place: Place::SessionCount,
            skip: 0,
            partial: [0; 4],
            partial_bytes: 0,
            lists_left: 0,
            acls_left: 0,
        }
    }
}

impl ImageEnd {
    /// Walks over the next piece. `Some(bytes)`: the image ends behind that many bytes of it.
    ///
    /// # Errors
    /// [`NoImage`] if a length or count is impossible.
    ///
    /// # Panics
    /// If the end was found before.
    pub fn pass(&mut self, piece: &[u8]) -> Result<Option<usize>, NoImage> {
        assert!(self.place != Place::End, "the image has ended");
        let mut rest = piece;
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(rest.len());
            self.skip -= skipped as u64;
            rest = &rest[skipped..];
            let Some((&first, behind)) = rest.split_first() else { return Ok(None) };
            rest = behind;
            if self.place == Place::ShortPath {
                if first == b'/' {
                    self.place = Place::End;
                    return Ok(Some(piece.len() - rest.len()));
                }
                self.place = Place::DataLength;
                continue;
            }
            self.partial[self.partial_bytes] = first;
            self.partial_bytes += 1;
            if self.partial_bytes == self.partial.len() {
                self.partial_bytes = 0;
                self.step(i32::from_be_bytes(self.partial))?;
            }
        }
    }

    /// Takes the number at the current place.
    fn step(&mut self, number: i32) -> Result<(), NoImage> {
        let is_count = matches!(self.place, Place::SessionCount | Place::ListCount | Place::AclCount);
        let (what, max) = if is_count { ("count", COUNT_MAX) } else { ("length", PART_BYTES_MAX) };
        if !(-1..=max).contains(&number) {
            return Err(NoImage { what, number });
        }
        let length = u64::try_from(number).unwrap_or(0);
        (self.skip, self.place) = match self.place {
            Place::SessionCount => (length * 12, Place::ListCount),
            Place::ListCount => {
                self.lists_left = number.max(0);
                self.next_list()
            }
            Place::AclCount => {
                self.acls_left = number.max(0);
                self.next_acl()
            }
            Place::SchemeLength => (length, Place::IdLength),
            Place::IdLength => {
                let (more, place) = self.next_acl();
                (length + more, place)
            }
            Place::PathLength if number == 1 => (0, Place::ShortPath),
            Place::PathLength => (length, Place::DataLength),
            // Behind the data: the number of the ACL list and the stat.
            Place::DataLength => (length + 8 + StatPersisted::ENCODED_BYTES as u64, Place::PathLength),
            Place::ShortPath | Place::End => unreachable!("no number is there"),
        };
        Ok(())
    }

    const fn next_list(&mut self) -> (u64, Place) {
        if self.lists_left == 0 {
            return (0, Place::PathLength);
        }
        self.lists_left -= 1;
        (8, Place::AclCount)
    }

    const fn next_acl(&mut self) -> (u64, Place) {
        if self.acls_left == 0 {
            return self.next_list();
        }
        self.acls_left -= 1;
        (4, Place::SchemeLength)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ask, Tree, TreeConfig};
    use zkfast_wire::{Acl, Id, OpCode, Perms, Request, SessionId, Zxid, request::CreateRequest};

    fn image() -> Vec<u8> {
        let mut tree = Tree::new(TreeConfig::default());
        let mut zxid = 0;
        let mut run = |tree: &mut Tree, session: i64, op, request: &Request<'_>| {
            zxid += 1;
            let mut record = Vec::new();
            let session = SessionId(session);
            let identities = [Id::new("ip", "127.0.0.1")];
            let ask =
                Ask { session, cxid: 1, zxid: Zxid(zxid), time_ms: 7, op, request, identities: &identities };
            tree.prepare(&ask, &mut record);
            tree.apply(&record.into()).expect("applies");
        };
        run(&mut tree, 5, OpCode::CreateSession, &Request::CreateSession(4000));
        run(&mut tree, 6, OpCode::CreateSession, &Request::CreateSession(4000));
        let acl = vec![Acl { perms: Perms::ALL, id: Id::new("digest", "a:b") }, Acl::OPEN];
        for (path, data, acl) in
            [("/a", Some(&b"/"[..]), vec![Acl::OPEN]), ("/a/b", None, acl.clone()), ("/a/c", Some(b""), acl)]
        {
            let create = CreateRequest { path: path.into(), data, acl: Some(acl), flags: 0, ttl_ms: None };
            run(&mut tree, 5, OpCode::Create, &Request::Create(OpCode::Create, create));
        }
        let (mut image, mut bytes) = (tree.image(), Vec::new());
        while image.next_chunk(&mut bytes) {}
        bytes
    }

    /// Danger: the packet behind an image is taken for a part of it, or a part of it for a packet.
    #[test]
    fn the_end_is_found_wherever_the_pieces_are_cut() {
        let image = image();
        let stream = [&image[..], b"\x00\x00\x00\x0aBenWasHere"].concat();
        for piece_bytes in 1..stream.len() {
            let (mut end, mut passed) = (ImageEnd::default(), 0);
            let found = stream.chunks(piece_bytes).find_map(|piece| {
                let found = end.pass(piece).expect("an image");
                passed += if found.is_none() { piece.len() } else { 0 };
                found.map(|bytes| passed + bytes)
            });
            assert_eq!(found, Some(image.len()), "pieces of {piece_bytes}");
        }
        assert_eq!(crate::image::load(TreeConfig::default(), &image).expect("loads").1, image.len());
    }

    #[test]
    fn impossible_numbers_are_refused() {
        assert!(ImageEnd::default().pass(&[0xff, 0xff, 0xff, 0xfe]).is_err());
        let mut end = ImageEnd::default();
        assert!(end.pass(&[0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]).is_err());
    }
}
