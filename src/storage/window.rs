//! The memory in which batches are laid out before they are written.
//!
//! Two halves, each an anonymous map aligned to a page: while the kernel reads one, records are appended to the other.
//! So the bytes of a write never change under the device (a single ring would share its last block between the write
//! in flight and the next batch, which checksumming block layers punish), and a batch is always one contiguous write.
//!
//! A half is *owned* by whoever may touch it: the log while it is being filled, the flusher while it is in flight.

use super::segment::{
    BLOCK_BYTES, FlushMark, LOG_HEADER, MARK_BYTES, MARK_GAP_BYTES, RECORD_OVERHEAD_BYTES, is_zero, portions,
};
use super::segment::{block_ceiling, put_record};
use memmap2::MmapMut;
use std::io;
use zkfast_wire::Zxid;

/// Bytes of a half: one record of the default `jute.maxbuffer` (1 MiB) and what is around it, or 5,000 records of
/// 200 bytes, five times what 64 connections with 16 requests in flight each can bring. Two of them, 2.5 MiB, are
/// registered with the ring and count against RLIMIT_MEMLOCK, of which 8 MiB is the usual allowance.
pub const HALF_BYTES: usize = 1280 * 1024;

/// One half of the window.
#[derive(Debug)]
pub struct Half {
    map: MmapMut,
    /// Index in the ring's table of registered buffers.
    registered: Option<u16>,
    /// Bytes laid out so far.
    filled_bytes: usize,
}

impl Half {
    /// A half of at least `bytes` bytes, its pages present.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let mut map = MmapMut::map_anon(bytes.next_multiple_of(BLOCK_BYTES))?;
        // Touch every page now: a page fault belongs here, not in the first flush.
        map.fill(0);
        Ok(Self { map, registered: None, filled_bytes: 0 })
    }

    /// Bytes that a batch of one record of `transaction_bytes` can need, wherever in a block it starts.
    pub const fn bytes_for(transaction_bytes: usize) -> usize {
        BLOCK_BYTES + RECORD_OVERHEAD_BYTES + transaction_bytes + MARK_GAP_BYTES + MARK_BYTES
    }

    /// All its memory.
    pub fn memory(&self) -> &[u8] {
        &self.map
    }

    /// Index in the ring's table of registered buffers, if it is there.
    pub fn registered(&self) -> Option<u16> {
        self.registered
    }

    /// Remembers the index under which the ring registered this memory.
    pub fn set_registered(&mut self, index: u16) {
        self.registered = Some(index);
    }

    /// Bytes laid out so far, the part that an earlier flush already wrote included.
    pub fn filled_bytes(&self) -> usize {
        self.filled_bytes
    }

    /// Whether a record of `transaction_bytes` still fits, with the mark behind it.
    pub fn fits(&self, transaction_bytes: usize) -> bool {
        self.filled_bytes
            .saturating_add(transaction_bytes)
            .saturating_add(RECORD_OVERHEAD_BYTES + MARK_GAP_BYTES + MARK_BYTES)
            <= self.map.len()
    }

    /// Starts a new file: the header alone.
    pub fn begin_file(&mut self) {
        self.map[..LOG_HEADER.len()].copy_from_slice(&LOG_HEADER);
        self.filled_bytes = LOG_HEADER.len();
    }

    /// Starts where `before` ended: its last, partial block is written again with what follows.
    pub fn begin_behind(&mut self, before: &Half) {
        let partial_bytes = before.filled_bytes % BLOCK_BYTES;
        let block = before.filled_bytes - partial_bytes;
        self.map[..partial_bytes].copy_from_slice(&before.map[block..before.filled_bytes]);
        self.filled_bytes = partial_bytes;
    }

    /// Takes over what `other`, which this half replaces, has laid out.
    pub fn begin_like(&mut self, other: &Half) {
        self.map[..other.filled_bytes].copy_from_slice(&other.map[..other.filled_bytes]);
        self.filled_bytes = other.filled_bytes;
    }

    /// Appends one record; returns its length in the file.
    pub fn append(&mut self, transaction: &[u8]) -> usize {
        assert!(self.fits(transaction.len()), "the caller asks for room before it appends");
        let bytes = put_record(&mut self.map[self.filled_bytes..], transaction);
        self.filled_bytes += bytes;
        bytes
    }

    /// Ends a batch that will be written at file offset `file_offset` and whose new bytes begin at `begin`: zeros up
    /// to the end of the block and the mark into its last bytes. `previous` is the last transaction before this file.
    /// Returns the length of the write.
    pub fn seal(&mut self, file_offset: u64, begin: u64, previous: Zxid) -> usize {
        assert!(file_offset.is_multiple_of(BLOCK_BYTES as u64));
        let end = file_offset + self.filled_bytes as u64;
        assert!(file_offset <= begin && begin < end);
        let mark_at = (FlushMark::offset(end) - file_offset) as usize;
        let length = mark_at + MARK_BYTES;
        assert!(length as u64 == block_ceiling(length as u64));
        self.map[self.filled_bytes..mark_at].fill(0);
        let zeros = portions((begin - file_offset) as usize, self.filled_bytes)
            .filter(|portion| is_zero(&self.map[portion.clone()]))
            .count();
        let zero_portions = u32::try_from(zeros).expect("a flush is shorter than 2 TiB");
        let mark = FlushMark { begin, end, previous, zero_portions };
        self.map[mark_at..length].copy_from_slice(&mark.encode());
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_half_still_has_room_for_its_mark() {
        let mut half = Half::new(BLOCK_BYTES).unwrap();
        half.begin_file();
        let largest = BLOCK_BYTES - 16 - RECORD_OVERHEAD_BYTES - MARK_GAP_BYTES - MARK_BYTES;
        assert!(half.fits(largest) && !half.fits(largest + 1));
        half.append(&vec![7; largest]);
        assert_eq!(half.seal(0, 16, Zxid::ZERO), BLOCK_BYTES);
    }

    #[test]
    fn the_next_half_repeats_the_partial_block_and_forgets_the_old_mark() {
        let mut first = Half::new(4 * BLOCK_BYTES).unwrap();
        first.begin_file();
        first.append(&[1; 5000]);
        assert_eq!(first.seal(0, 16, Zxid(3)), 2 * BLOCK_BYTES);
        let mut second = Half::new(4 * BLOCK_BYTES).unwrap();
        second.begin_behind(&first);
        let end = 16 + 5013;
        assert_eq!(second.filled_bytes(), end - BLOCK_BYTES);
        second.append(&[2; 10]);
        assert_eq!(second.seal(BLOCK_BYTES as u64, end as u64, Zxid(3)), BLOCK_BYTES);
        let mark = FlushMark::decode(second.memory()[4064..4096].first_chunk().unwrap(), 8192);
        let expected =
            FlushMark { begin: end as u64, end: end as u64 + 23, previous: Zxid(3), zero_portions: 0 };
        assert_eq!(mark, Some(expected));
    }

    #[test]
    fn bytes_for_one_record_suffice_wherever_the_block_is_left() {
        for partial in [0, 1, 4050, 4095] {
            let mut half = Half::new(Half::bytes_for(100_000)).unwrap();
            half.filled_bytes = partial;
            assert!(half.fits(100_000));
        }
    }
}
