//! Where an image ends that comes over a link (row Q54): it has no length, so its fields must be walked (rows P20-P23).
//!
//! [`ImageExtent`] is fed the bytes as they come, in pieces of any size, and keeps a few numbers only, whatever the image
//! holds. What the fields mean is none of its business.

use crate::jute::{DecodeError, Reason};

/// Session id and timeout.
const SESSION_BYTES: u64 = 12;
/// The number of an ACL.
const LIST_ID_BYTES: u64 = 8;
/// The permissions of an entry of an ACL.
const PERMISSIONS_BYTES: u64 = 4;
/// What follows the data of a node: the number of its ACL and its stat.
const NODE_TAIL_BYTES: u64 = 8 + 60;

/// What the next number says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Sessions,
    Lists,
    Entries,
    Scheme,
    Id,
    Path,
    /// The only byte of a path of one byte: `/` ends the image.
    PathByte,
    Data,
    End,
}

/// Finds the end of an image in a stream of bytes.
#[derive(Clone, Debug)]
pub struct ImageExtent {
    field: Field,
    /// Bytes to pass over before that field.
    skip: u64,
    /// The part of its number that has been seen: bytes, and their value.
    have: u8,
    value: u32,
    lists_left: u32,
    entries_left: u32,
    /// Bytes of the image so far.
    offset: u64,
}

impl Default for ImageExtent {
    fn default() -> Self {
        Self { field: Field::Sessions, skip: 0, have: 0, value: 0, lists_left: 0, entries_left: 0, offset: 0 }
    }
}

impl ImageExtent {
    /// Whether the end mark was seen.
    pub fn is_whole(&self) -> bool {
        self.field == Field::End
    }

    /// Bytes of the image so far.
    pub const fn bytes(&self) -> u64 {
        self.offset
    }

    /// Walks over the next bytes of the stream and says how many of them belong to the image: all, or less where it
    /// ends among them.
    ///
    /// # Errors
    /// A length or count that no image has.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<usize, DecodeError> {
        let mut at = 0;
        while self.field != Field::End && at < bytes.len() {
            if self.skip > 0 {
                let step = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.skip -= step as u64;
                at += step;
                continue;
            }
            let byte = bytes[at];
            at += 1;
            if self.field == Field::PathByte {
                self.field = if byte == b'/' { Field::End } else { Field::Data };
                continue;
            }
            self.value = (self.value << 8) | u32::from(byte);
            self.have += 1;
            if self.have == 4 {
                let number = self.value as i32;
                (self.have, self.value) = (0, 0);
                self.take(number).map_err(|reason| self.error(at, reason))?;
            }
        }
        self.offset += at as u64;
        Ok(at)
    }

    fn error(&self, at: usize, reason: Reason) -> DecodeError {
        let expected = match self.field {
            Field::Sessions => "image.sessions",
            Field::Lists => "image.acls",
            Field::Entries => "image.acls.list",
            Field::Scheme => "image.acls.scheme",
            Field::Id => "image.acls.id",
            Field::Path | Field::PathByte => "image.node.path",
            Field::Data => "image.node.data",
            Field::End => "the end of the image",
        };
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX).saturating_add(at - 4);
        DecodeError { expected, offset, reason }
    }

    fn take(&mut self, number: i32) -> Result<(), Reason> {
        // -1 is null and as good as nothing, but for a path.
        let length = match u32::try_from(number) {
            Ok(length) => length,
            Err(_) if number == -1 && self.field != Field::Path => 0,
            Err(_) => return Err(Reason::Length(number)),
        };
        match self.field {
            Field::Sessions => {
                self.skip = SESSION_BYTES * u64::from(length);
                self.field = Field::Lists;
            }
            Field::Lists => {
                self.lists_left = length;
                self.next_list();
            }
            Field::Entries => {
                self.entries_left = length;
                self.next_entry();
            }
            Field::Scheme => {
                self.skip = length.into();
                self.field = Field::Id;
            }
            Field::Id => {
                self.skip = length.into();
                self.entries_left -= 1;
                self.next_entry();
            }
            Field::Path if length == 1 => self.field = Field::PathByte,
            Field::Path => {
                self.skip = length.into();
                self.field = Field::Data;
            }
            Field::Data => {
                self.skip = u64::from(length) + NODE_TAIL_BYTES;
                self.field = Field::Path;
            }
            Field::PathByte | Field::End => unreachable!("no number is read there"),
        }
        Ok(())
    }

    fn next_list(&mut self) {
        if self.lists_left == 0 {
            self.field = Field::Path;
        } else {
            self.lists_left -= 1;
            self.skip += LIST_ID_BYTES;
            self.field = Field::Entries;
        }
    }

    fn next_entry(&mut self) {
        if self.entries_left == 0 {
            self.next_list();
        } else {
            self.skip += PERMISSIONS_BYTES;
            self.field = Field::Scheme;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BufMut;
    use proptest::prelude::*;

    fn text(out: &mut Vec<u8>, text: &str) {
        out.put_i32(text.len() as i32);
        out.put_slice(text.as_bytes());
    }

    fn node(out: &mut Vec<u8>, path: &str, data: Option<&[u8]>) {
        text(out, path);
        match data {
            None => out.put_i32(-1),
            Some(data) => {
                out.put_i32(data.len() as i32);
                out.put_slice(data);
            }
        }
        out.put_bytes(7, 68);
    }

    fn image() -> Vec<u8> {
        let mut out = Vec::new();
        out.put_i32(2);
        out.put_bytes(1, 24);
        out.put_i32(3);
        for entries in [0, 2, 1] {
            out.put_i64(entries);
            out.put_i32(entries as i32);
            for _ in 0..entries {
                out.put_i32(31);
                text(&mut out, "world");
                text(&mut out, "anyone");
            }
        }
        node(&mut out, "", None);
        node(&mut out, "/a", Some(b""));
        // Neither the content of a node nor a path of one byte that is not the mark ends an image.
        node(&mut out, "x", Some(b"\0\0\0\x01/"));
        node(&mut out, "/a/b", Some(&[0; 300]));
        text(&mut out, "/");
        out
    }

    /// Danger: packets behind an image are taken for its nodes, or its last nodes for packets.
    #[test]
    fn the_end_is_found_whatever_the_pieces() {
        let mut stream = image();
        let expected = stream.len();
        stream.extend_from_slice(b"\0\0\0\nBenWasHere and packets");
        for piece in [1, 2, 3, 5, 64, stream.len()] {
            let mut extent = ImageExtent::default();
            let taken: usize = stream.chunks(piece).map(|chunk| extent.scan(chunk).unwrap()).sum();
            assert_eq!((taken, extent.bytes()), (expected, expected as u64), "pieces of {piece}");
            assert!(extent.is_whole());
        }
        let mut extent = ImageExtent::default();
        assert_eq!(extent.scan(&stream[..expected - 1]), Ok(expected - 1));
        assert!(!extent.is_whole());
    }

    #[test]
    fn impossible_lengths_are_named() {
        let mut extent = ImageExtent::default();
        let error = extent.scan(&(-2_i32).to_be_bytes()).unwrap_err();
        assert_eq!((error.expected, error.offset, error.reason), ("image.sessions", 0, Reason::Length(-2)));
        let mut no_path = Vec::new();
        no_path.put_i32(0);
        no_path.put_i32(0);
        no_path.put_i32(-1);
        let error = ImageExtent::default().scan(&no_path).unwrap_err();
        assert_eq!((error.expected, error.offset), ("image.node.path", 8));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut extent = ImageExtent::default();
            let _ = extent.scan(&bytes);
        }
    }
}
