//! The bytes of a log file (rows P2, P5-P9; ZooKeeper's `FileTxnLog`).
//!
//! ```text
//! offset 0   file header, 16 bytes: magic "ZKLG", int version 2, long dbid
//!        16  record*: long Adler-32 of the transaction, int length, transaction, byte 'B'
//!        T   zeros to the end of the file; the length field at T+8 is 0, which ends the file for every reader
//! ```
//!
//! Two additions, out of sight of other readers. The dbid, which no reader verifies (P5) and Apache writes as 0, says
//! whose file this is. And the last 32 bytes of the block in which a flush ends hold a *flush mark*, at least 12 zero
//! bytes behind the last record; Apache stops at the zero length before it. Only the newest mark survives (the next flush
//! rewrites that block), and that is the one recovery needs. It says
//! - where the flush began and ended, and how much of it is zeros of its own: that tells a torn flush, which nobody was
//!   told of, from damage to records that were acknowledged;
//! - which transaction was the last in the log before this file: that tells a lost file from a zxid that no transaction
//!   ever had.
//!
//! Pure: bytes in, bytes out.

use zkfast_wire::Zxid;

/// Unit of every write: O_DIRECT wants the device's logical block, 512 or 4096 bytes.
pub const BLOCK_BYTES: usize = 4096;

/// First bytes of each log file of ours.
pub const LOG_HEADER: [u8; 16] = *b"ZKLG\x00\x00\x00\x02zkfast\x00\x01";

/// Whether a log file with these bytes was begun by this kind of server.
pub fn is_own(file: &[u8]) -> bool {
    file.starts_with(&LOG_HEADER)
}

/// Bytes that a record adds to its transaction: checksum, length, end byte.
pub const RECORD_OVERHEAD_BYTES: usize = 8 + 4 + 1;

/// Last byte of each record.
pub const RECORD_END: u8 = b'B';

/// Bytes of a flush mark.
pub const MARK_BYTES: usize = 32;

/// Zero bytes between the last record and a mark: a checksum and a length field for readers that stop at length 0.
pub const MARK_GAP_BYTES: usize = 12;

const MARK_MAGIC: [u8; 4] = *b"zkM2";

/// What a portion of a flush is: as much of it as lies in one sector, the unit in which a disk loses what was being
/// written.
pub const SECTOR_BYTES: usize = 512;

/// Name of the log file whose first transaction is `first` (P2).
pub fn log_name(first: Zxid) -> String {
    format!("log.{:x}", first.0)
}

/// Adler-32 as Java's `Adler32` computes it: of the transaction bytes, starting from 1.
pub fn checksum(bytes: &[u8]) -> u32 {
    simd_adler32::adler32(&bytes)
}

/// Writes one record at the start of `out`; returns its length.
///
/// # Panics
/// If `out` is too short or the transaction is 2 GiB or longer; the window checks both before.
pub fn put_record(out: &mut [u8], transaction: &[u8]) -> usize {
    let length = i32::try_from(transaction.len()).expect("a transaction is shorter than 2 GiB");
    assert!(length > 0, "a record of length 0 would end the file for every reader");
    let bytes = RECORD_OVERHEAD_BYTES + transaction.len();
    out[..8].copy_from_slice(&u64::from(checksum(transaction)).to_be_bytes());
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[12..bytes - 1].copy_from_slice(transaction);
    out[bytes - 1] = RECORD_END;
    bytes
}

/// Rounds up to whole blocks.
pub const fn block_ceiling(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}

/// Rounds down to whole blocks.
pub const fn block_floor(bytes: u64) -> u64 {
    bytes - bytes % BLOCK_BYTES as u64
}

/// What one flush says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlushMark {
    /// File offset of the first byte that the flush added: all before it was durable when the flush began. Below 2^48.
    pub begin: u64,
    /// File offset behind the last record of the flush. Below 2^48.
    pub end: u64,
    /// The last transaction in the log before the first one of this file; the same in every mark of a file.
    pub previous: Zxid,
    /// How many portions of the flush, between `begin` and `end`, are all zeros because the records are.
    pub zero_portions: u32,
}

impl FlushMark {
    /// File offset at which the mark of a flush that ends at `end` lies: the last bytes of a block.
    pub const fn offset(end: u64) -> u64 {
        Self::file_end(end) - MARK_BYTES as u64
    }

    /// File offset behind that mark: so long is a finished file.
    pub const fn file_end(end: u64) -> u64 {
        block_ceiling(end + (MARK_GAP_BYTES + MARK_BYTES) as u64)
    }

    /// The mark's bytes.
    pub fn encode(&self) -> [u8; MARK_BYTES] {
        assert!(self.end >> 48 == 0, "a log file is shorter than 256 TiB");
        let mut bytes = [0; MARK_BYTES];
        bytes[..4].copy_from_slice(&MARK_MAGIC);
        bytes[4..8].copy_from_slice(&self.zero_portions.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.previous.0.to_be_bytes());
        bytes[16..22].copy_from_slice(&self.begin.to_be_bytes()[2..]);
        bytes[22..28].copy_from_slice(&self.end.to_be_bytes()[2..]);
        let sum = checksum(&bytes[..28]);
        bytes[28..].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Reads the mark at the end of the block that ends at file offset `block_end`; `None` if there is none, or one
    /// that does not belong there.
    pub fn decode(bytes: &[u8; MARK_BYTES], block_end: u64) -> Option<Self> {
        let offset = |at: usize| bytes[at..at + 6].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let word = |at: usize| u32::from_be_bytes(*bytes[at..].first_chunk().expect("within 32 bytes"));
        let mark = Self {
            begin: offset(16),
            end: offset(22),
            previous: Zxid(i64::from_be_bytes(*bytes[8..].first_chunk().expect("within 32 bytes"))),
            zero_portions: word(4),
        };
        let plausible = bytes[..4] == MARK_MAGIC
            && word(28) == checksum(&bytes[..28])
            && mark.begin >= LOG_HEADER.len() as u64
            && mark.begin < mark.end
            && Self::file_end(mark.end) == block_end;
        plausible.then_some(mark)
    }
}

/// The portions of what lies from file offset `begin` up to `end`: the offsets of each.
pub fn portions(begin: usize, end: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut from = begin;
    std::iter::from_fn(move || {
        let until = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        let portion = from..until;
        from = until;
        (!portion.is_empty()).then_some(portion)
    })
}

/// Whether all bytes are 0.
pub fn is_zero(bytes: &[u8]) -> bool {
    // In words: there are up to 64 MiB of zeros to see through.
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && tail.iter().all(|&byte| byte == 0)
}

const _: () = assert!(BLOCK_BYTES.is_power_of_two());
const _: () = assert!(LOG_HEADER.len() + MARK_GAP_BYTES + MARK_BYTES < BLOCK_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    /// Adler-32 by its definition.
    fn adler32_by_hand(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), &byte| {
            let a = (a + u32::from(byte)) % 65521;
            (a, (b + a) % 65521)
        });
        b << 16 | a
    }

    /// P6.
    #[test]
    fn a_record_is_byte_for_byte_what_apache_writes() {
        let mut out = [0xff; 32];
        assert_eq!(put_record(&mut out, b"Wikipedia"), 22);
        assert_eq!(out[..8], 0x11e6_0398_u64.to_be_bytes());
        assert_eq!(out[8..12], [0, 0, 0, 9]);
        assert_eq!(&out[12..22], b"WikipediaB");
        assert_eq!(out[22], 0xff);
    }

    #[test]
    fn the_fast_checksum_is_the_plain_one() {
        for length in [0, 1, 15, 16, 31, 64, 5552, 5553, 70_000] {
            let bytes: Vec<u8> =
                (0..length).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            assert_eq!(checksum(&bytes), adler32_by_hand(&bytes), "length {length}");
        }
    }

    /// P2.
    #[test]
    fn file_names_are_lower_case_hex_without_padding() {
        assert_eq!(log_name(Zxid(0x2_0000_00ab)), "log.2000000ab");
    }

    #[test]
    fn a_mark_stays_clear_of_the_zero_length_that_ends_the_file() {
        for end in [17, 4000, 4051, 4052, 4053, 4095, 4096, 8191, 1 << 26] {
            let mark = FlushMark { begin: 16, end, previous: Zxid(i64::MAX), zero_portions: 7 };
            let offset = FlushMark::offset(end);
            assert!(offset >= end + MARK_GAP_BYTES as u64, "{end}");
            assert!(offset - end < (BLOCK_BYTES + MARK_GAP_BYTES + MARK_BYTES) as u64, "{end}");
            let block_end = offset + MARK_BYTES as u64;
            assert_eq!(block_end % BLOCK_BYTES as u64, 0);
            assert_eq!(FlushMark::decode(&mark.encode(), block_end), Some(mark));
            assert_eq!(FlushMark::decode(&mark.encode(), block_end + 4096), None, "not at its own place");
        }
    }

    #[test]
    fn a_damaged_mark_is_no_mark() {
        let good = FlushMark { begin: 100, end: 300, previous: Zxid(5), zero_portions: 0 }.encode();
        for bit in 0..MARK_BYTES * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FlushMark::decode(&bytes, 4096), None, "bit {bit}");
        }
    }
}
