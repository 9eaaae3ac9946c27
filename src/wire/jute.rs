//! Jute, ZooKeeper's serialisation (rows J1-J6): big-endian numbers, length-prefixed buffers, strings and vectors,
//! -1 for null, no tags and no padding.
//!
//! Decoding is a cursor over borrowed bytes. A length is compared with what is really there before anything is
//! reserved, so a claimed count of two billion costs nothing.

use bytes::BufMut;
use std::borrow::Cow;

/// Where and why bytes stopped making sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {offset}: {reason}")]
pub struct DecodeError {
    /// The field that was being read, such as `CreateRequest.path`.
    pub expected: &'static str,
    /// Offset in bytes from the start of the decoded slice.
    pub offset: usize,
    /// What was found instead.
    pub reason: Reason,
}

/// What a decoder found instead of the field it expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The bytes end inside the field.
    #[error("{have} bytes left where {need} are needed")]
    Truncated {
        /// Bytes the field needs.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// A length or count that is negative (other than the -1 of null) or beyond the bytes that follow.
    #[error("length {0} is impossible here")]
    Length(i32),
    /// Null where the protocol has none.
    #[error("null is not allowed here")]
    Null,
    /// A number outside the set that the field may hold.
    #[error("value {0} is not known")]
    Value(i64),
}

/// A cursor over jute bytes.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Bytes consumed so far.
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes not yet consumed.
    pub const fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The bytes not yet consumed.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    /// An error at the current offset.
    pub const fn error(&self, expected: &'static str, reason: Reason) -> DecodeError {
        DecodeError { expected, offset: self.offset, reason }
    }

    fn take(&mut self, need: usize, expected: &'static str) -> Result<&'a [u8], DecodeError> {
        let rest = self.rest();
        if rest.len() < need {
            return Err(self.error(expected, Reason::Truncated { need, have: rest.len() }));
        }
        self.offset += need;
        Ok(&rest[..need])
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], DecodeError> {
        let rest = self.rest();
        let Some(array) = rest.first_chunk::<N>() else {
            return Err(self.error(expected, Reason::Truncated { need: N, have: rest.len() }));
        };
        self.offset += N;
        Ok(*array)
    }

    /// One byte.
    pub fn u8(&mut self, expected: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(expected)?[0])
    }

    /// One byte; any non-zero value is true, as Java's `DataInput` reads it.
    pub fn bool(&mut self, expected: &'static str) -> Result<bool, DecodeError> {
        Ok(self.u8(expected)? != 0)
    }

    /// Four bytes.
    pub fn i32(&mut self, expected: &'static str) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array(expected)?))
    }

    /// Eight bytes.
    pub fn i64(&mut self, expected: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array(expected)?))
    }

    /// A length-prefixed buffer; `None` is null, which differs from empty.
    pub fn buffer(&mut self, expected: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        let start = self.offset;
        let length = self.i32(expected)?;
        if length == -1 {
            return Ok(None);
        }
        match usize::try_from(length) {
            Ok(need) if need <= self.remaining() => self.take(need, expected).map(Some),
            _ => {
                self.offset = start;
                Err(self.error(expected, Reason::Length(length)))
            }
        }
    }

    /// A length-prefixed UTF-8 string; `None` is null. Invalid sequences become U+FFFD, as in Java's reader (J3).
    pub fn string(&mut self, expected: &'static str) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let Some(bytes) = self.buffer(expected)? else { return Ok(None) };
        // Almost every string is good, and is checked faster alone than while it is searched for what is to be replaced.
        Ok(Some(match str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => java_text(bytes).into(),
        }))
    }

    /// A string that must not be null.
    pub fn text(&mut self, expected: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        let start = self.offset;
        self.string(expected)?.ok_or(DecodeError { expected, offset: start, reason: Reason::Null })
    }

    /// The count of a vector whose elements take at least `element_bytes_min` bytes each; `None` is null.
    ///
    /// A count that the remaining bytes cannot hold is refused before anything is reserved. Counts below -1 are those
    /// of an empty vector, as in Java.
    pub fn count(
        &mut self,
        element_bytes_min: usize,
        expected: &'static str,
    ) -> Result<Option<usize>, DecodeError> {
        let start = self.offset;
        let count = self.i32(expected)?;
        if count == -1 {
            return Ok(None);
        }
        match usize::try_from(count.max(0)) {
            Ok(n) if n.saturating_mul(element_bytes_min.max(1)) <= self.remaining() => Ok(Some(n)),
            _ => {
                self.offset = start;
                Err(self.error(expected, Reason::Length(count)))
            }
        }
    }

    /// A vector of strings; null reads as empty.
    pub fn texts(&mut self, expected: &'static str) -> Result<Vec<Cow<'a, str>>, DecodeError> {
        let count = self.count(4, expected)?.unwrap_or(0);
        (0..count).map(|_| self.text(expected)).collect()
    }
}

/// Writes a buffer with its length; `None` as -1.
///
/// # Panics
/// If the buffer is 2 GiB or longer; every caller's input was bounded by `jute.maxbuffer` long before.
pub fn put_buffer(out: &mut impl BufMut, bytes: Option<&[u8]>) {
    match bytes {
        None => out.put_i32(-1),
        Some(bytes) => {
            out.put_i32(i32::try_from(bytes.len()).expect("a jute buffer is shorter than 2 GiB"));
            out.put_slice(bytes);
        }
    }
}

/// Writes a string with its length in bytes.
pub fn put_text(out: &mut impl BufMut, text: &str) {
    put_buffer(out, Some(text.as_bytes()));
}

/// Writes a boolean as one byte.
pub fn put_bool(out: &mut impl BufMut, value: bool) {
    out.put_u8(u8::from(value));
}

/// Writes the count of a vector.
///
/// # Panics
/// If there are 2^31 elements or more.
pub fn put_count(out: &mut impl BufMut, count: usize) {
    out.put_i32(i32::try_from(count).expect("a jute vector has fewer than 2^31 elements"));
}

/// Bytes that are not all UTF-8, read as Java does: U+FFFD for each broken piece, but one alone for what stands for half
/// of a surrogate pair, whole or cut off (`ED A0..BF`, and one byte more).
fn java_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut of_surrogate = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.valid().is_empty() {
            of_surrogate = 0;
        }
        of_surrogate = match (of_surrogate, chunk.invalid()) {
            (_, []) => 0,
            (1, [0xa0..=0xbf]) => 2,
            (2, [0x80..=0xbf]) => 0,
            (_, [first, ..]) => {
                text.push(char::REPLACEMENT_CHARACTER);
                u8::from(*first == 0xed)
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// J2: clients tell null from empty.
    #[test]
    fn null_and_empty_buffers_differ() {
        let mut out = Vec::new();
        put_buffer(&mut out, None);
        put_buffer(&mut out, Some(b""));
        let mut decoder = Decoder::new(&out);
        assert_eq!(decoder.buffer("a"), Ok(None));
        assert_eq!(decoder.buffer("b"), Ok(Some(&b""[..])));
        assert_eq!(decoder.remaining(), 0);
    }

    /// J1: a byte other than 0 and 1, which no client of ours would send, means true to Java.
    #[test]
    fn any_byte_but_zero_is_true() {
        let read = |byte| Decoder::new(&[byte]).bool("flag");
        assert_eq!([0, 1, 2, 0x80, 0xff].map(read), [Ok(false), Ok(true), Ok(true), Ok(true), Ok(true)]);
    }

    /// J4, J6: a length of two billion reserves nothing.
    #[test]
    fn a_claimed_length_is_never_trusted() {
        for claimed in [5, i32::MAX, -2, i32::MIN] {
            let mut out = Vec::new();
            out.put_i32(claimed);
            out.put_slice(b"four");
            let error = Decoder::new(&out).buffer("field").unwrap_err();
            assert_eq!(error, DecodeError { expected: "field", offset: 0, reason: Reason::Length(claimed) });
            match claimed {
                0.. => assert!(Decoder::new(&out).count(1, "vector").is_err()),
                _ => {
                    assert_eq!(Decoder::new(&out).count(1, "vector"), Ok(Some(0)), "as Java reads {claimed}")
                }
            }
        }
    }

    /// J3. The expectations are those of `new String(bytes, UTF_8)` of Java 17.
    #[test]
    fn invalid_utf8_reads_as_java_reads_it() {
        for (bytes, expected) in [
            (&b"/a\xff"[..], "/a\u{fffd}"),
            (b"/\xed\xa0\x80", "/\u{fffd}"),
            (b"/\xed\xbf\xbfb", "/\u{fffd}b"),
            (b"\xed\xa0\x80\xed\xb0\x80", "\u{fffd}\u{fffd}"),
            (b"\xed\xa0b", "\u{fffd}b"),
            (b"\xed\xa0", "\u{fffd}"),
            (b"\xed", "\u{fffd}"),
            (b"\xedb\xa0", "\u{fffd}b\u{fffd}"),
            (b"\xed\xa0\x80\x80", "\u{fffd}\u{fffd}"),
            (b"\xe0\x80\x80", "\u{fffd}\u{fffd}\u{fffd}"),
            (b"\xc0\x80", "\u{fffd}\u{fffd}"),
            (b"\xe2\x82", "\u{fffd}"),
            (b"\xf4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        ] {
            let mut out = Vec::new();
            put_buffer(&mut out, Some(bytes));
            assert_eq!(Decoder::new(&out).text("path").unwrap(), expected, "{bytes:x?}");
        }
    }
}
