//! Frames of the client port: a 4-byte length, then that many bytes (rows J7, R1).
//!
//! Cutting looks at lengths only, so nothing is reserved for a frame before its bytes are there, and a length that no
//! client may send is refused as soon as its four bytes have come.

use crate::jute::Decoder;
use bytes::BufMut;

/// Bytes of the length in front of each frame.
pub const LENGTH_BYTES: usize = 4;

/// A length that ends the connection (R1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("frame of {length} bytes where at most {limit} are allowed")]
pub struct FrameTooLong {
    /// What the four bytes say, signed as Java reads them.
    pub length: i32,
    /// `jute.maxbuffer`, bytes.
    pub limit: usize,
}

/// Cuts the first frame off `bytes`.
///
/// Returns its payload, without the length, or `None` while it is incomplete. The caller drops
/// `LENGTH_BYTES + payload.len()` bytes. Lengths below zero or above `limit` are an error, even when incomplete.
pub fn cut(bytes: &[u8], limit: usize) -> Result<Option<&[u8]>, FrameTooLong> {
    let Some(length) = length(bytes) else { return Ok(None) };
    match usize::try_from(length) {
        Ok(payload_bytes) if payload_bytes <= limit => Ok(bytes[LENGTH_BYTES..].get(..payload_bytes)),
        _ => Err(FrameTooLong { length, limit }),
    }
}

/// What the first four bytes say, if they are there.
pub fn length(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|prefix| i32::from_be_bytes(*prefix))
}

/// Starts a frame at the end of `out` and returns where, for [`end`].
pub fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.put_i32(0);
    start
}

/// Writes the length of the frame that began at `start` and ends where `out` ends.
///
/// # Panics
/// If the frame is 2 GiB or longer, or `start` is not what [`begin`] returned.
pub fn end(out: &mut [u8], start: usize) {
    let payload_bytes =
        out.len().checked_sub(start + LENGTH_BYTES).expect("a frame ends behind its beginning");
    let length = i32::try_from(payload_bytes).expect("a frame is shorter than 2 GiB");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Writes a whole frame whose payload `body` appends.
pub fn write(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = begin(out);
    body(out);
    end(out, start);
}

/// Cuts and decodes every complete frame of `bytes`, for tests and load generators; stops at the first incomplete one.
pub fn decoders(bytes: &[u8], limit: usize) -> impl Iterator<Item = Result<Decoder<'_>, FrameTooLong>> {
    let mut rest = bytes;
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed {
            return None;
        }
        match cut(rest, limit) {
            Ok(Some(payload)) => {
                rest = &rest[LENGTH_BYTES + payload.len()..];
                Some(Ok(Decoder::new(payload)))
            }
            Ok(None) => None,
            Err(error) => {
                failed = true;
                Some(Err(error))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cut_when_its_last_byte_is_there() {
        let mut bytes = Vec::new();
        write(&mut bytes, |out| out.extend_from_slice(b"payload"));
        for have in 0..bytes.len() {
            assert_eq!(cut(&bytes[..have], 100), Ok(None), "{have} bytes");
        }
        bytes.extend_from_slice(b"next");
        assert_eq!(cut(&bytes, 100), Ok(Some(&b"payload"[..])));
    }

    #[test]
    fn an_impossible_length_is_refused_before_its_payload_comes() {
        for length in [-1, i32::MIN, 101, i32::MAX, 0x4745_5420] {
            let bytes = length.to_be_bytes();
            assert_eq!(cut(&bytes, 100), Err(FrameTooLong { length, limit: 100 }));
        }
        assert_eq!(cut(&100i32.to_be_bytes(), 100), Ok(None));
        assert_eq!(cut(&0i32.to_be_bytes(), 100), Ok(Some(&b""[..])));
    }

    #[test]
    fn all_complete_frames_are_found_in_order() {
        let mut bytes = Vec::new();
        for value in 0..3u8 {
            write(&mut bytes, |out| out.put_u8(value));
        }
        bytes.truncate(bytes.len() - 1);
        let found: Vec<_> = decoders(&bytes, 10).map(|frame| frame.unwrap().u8("byte").unwrap()).collect();
        assert_eq!(found, [0, 1]);
    }
}
