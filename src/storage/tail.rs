//! What the end of a log means: its end, a torn flush, or damage.
//!
//! Why it matters: a flush that the power cut may leave any subset of its 512-byte sectors, so a good record may
//! follow a bad one although nobody was told of either; cutting both is right. A bad record among acknowledged ones
//! looks alike, and cutting there loses writes that clients rely on (FAST'18, "Protocol-Aware Recovery").
//!
//! What tells them apart is the flush mark: the newest one says where the last flush that left one began and ended.
//! One flush is in flight at a time, so all before its beginning was durable when it began and must be intact. Within
//! that flush the lost sectors testify: they still read as what was there before, zeros or an older mark. A record may
//! hold zeros of its own; how many portions of the flush do is in the mark, so a lost one makes more than that.
//!
//! | # | whose file | newest mark | first bad byte | behind it | verdict |
//! |---|---|---|---|---|---|
//! | 1 | any | ends there, or none | anything | only zeros | clean |
//! | 2 | any | any | at or behind its end | anything | torn: a later flush |
//! | 3 | any | any | inside | a good record behind its end | damage: it had completed |
//! | 4 | any | any | inside | an older mark, or more zeros than the mark says | torn: that flush |
//! | 5 | any | any | inside | no more than that | damage |
//! | 6 | any | any | before its beginning | anything | damage |
//! | 7 | any | none | anything | the file ends in the record | torn |
//! | 8 | own, whole blocks | none | anything | a lost sector, no good record beyond one flush | torn: its mark is lost too |
//! | 9 | another's | none | anything | a good record | damage |
//! | 10 | another's | none | anything | a lost sector, no good record | torn |
//! | 11 | any | none | anything | else | damage |
//!
//! What stays ambiguous: bytes of the very last flush that rotted into nothing but zeros, a whole sector of them, are
//! taken for a sector that never arrived (4); so is damage to that flush where its mark is gone as well (8), and to the
//! last record of another server's log, whose zeros nobody counted (10). Not ambiguous: flipped bits anywhere in a log
//! with its mark, and whatever lies before the last flush. A file of ours that was cut has no mark and no whole blocks,
//! and whatever is wrong in it is damage, unless the file ends in a record.
//!
//! Only the last log with anything in it may be torn; the caller sees to that. Pure.

use super::{
    records::{self, Ending},
    segment::{
        BLOCK_BYTES, FlushMark, LOG_HEADER, MARK_BYTES, RECORD_OVERHEAD_BYTES, SECTOR_BYTES, is_own, is_zero,
        portions,
    },
    window::HALF_BYTES,
};
use zkfast_wire::{TxnHeader, Zxid};

/// No flush is longer, but for one that is a single record.
const FLUSH_BYTES_MAX: usize = HALF_BYTES;

/// What the end of a log file means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing but zeros (and a mark) behind the last record.
    Clean,
    /// A flush that was never acknowledged: cut it.
    Torn,
    /// Acknowledged records may be gone: refuse.
    Damage,
}

/// Judges what lies at and behind `end`, the offset behind the last good record, where reading stopped with `ending`;
/// `last` is the zxid before it.
pub fn judge(bytes: &[u8], end: usize, ending: Ending, last: Zxid) -> Verdict {
    let mark = newest_mark(bytes, end);
    let marked_end = mark.map(|mark| mark.end as usize);
    let is_blank = is_blank(bytes, end);
    match mark {
        _ if is_blank && marked_end.is_none_or(|marked| marked == end) => Verdict::Clean,
        Some(mark) if end >= mark.end as usize => Verdict::Torn,
        Some(mark) if end < mark.begin as usize => Verdict::Damage,
        Some(mark) => {
            let is_complete = good_record_from(bytes, mark.end as usize, last).is_some();
            if !is_complete && has_lost_portion(bytes, mark) { Verdict::Torn } else { Verdict::Damage }
        }
        None => {
            let may_lack_its_mark = is_own(bytes) && bytes.len().is_multiple_of(BLOCK_BYTES);
            match good_record_from(bytes, end + 1, last) {
                None if ending == Ending::EndOfFile => Verdict::Torn,
                None if (may_lack_its_mark || !is_own(bytes)) && has_lost_sector(bytes, end, bytes.len()) => {
                    Verdict::Torn
                }
                Some((begin, _))
                    if may_lack_its_mark
                        && has_lost_sector(bytes, end, begin)
                        && last_good_record_behind(bytes, end, last) - end <= FLUSH_BYTES_MAX =>
                {
                    Verdict::Torn
                }
                None | Some(_) => Verdict::Damage,
            }
        }
    }
}

/// The last transaction in the log before this file's first, if the file is ours and has a mark to say so.
pub fn previous(bytes: &[u8]) -> Option<Zxid> {
    if is_own(bytes) { previous_of_blocks(bytes, 0) } else { None }
}

/// The same of whole blocks that begin at `offset` of a file of ours; what is behind the last whole one counts for nothing.
pub fn previous_of_blocks(bytes: &[u8], offset: u64) -> Option<Zxid> {
    let blocks = bytes.chunks_exact(BLOCK_BYTES).enumerate();
    // The newest is the last one.
    let newest = blocks.rev().find_map(|(block, bytes)| {
        let end = offset + ((block + 1) * BLOCK_BYTES) as u64;
        FlushMark::decode(bytes.last_chunk::<MARK_BYTES>()?, end)
    });
    newest.map(|mark| mark.previous)
}

/// Ends of the blocks behind `from`, and of the block in which it lies.
fn block_ends(bytes: &[u8], from: usize) -> impl Iterator<Item = usize> {
    let first = from / BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES;
    (first..=bytes.len()).step_by(BLOCK_BYTES)
}

fn mark_before(bytes: &[u8], block_end: usize) -> Option<FlushMark> {
    FlushMark::decode(bytes[..block_end].last_chunk::<MARK_BYTES>()?, block_end as u64)
}

/// The mark with the highest end in the blocks at and behind `from`.
fn newest_mark(bytes: &[u8], from: usize) -> Option<FlushMark> {
    block_ends(bytes, from).filter_map(|end| mark_before(bytes, end)).max_by_key(|mark| mark.end)
}

/// Whether nothing but zeros and marks lies at and behind `from`.
fn is_blank(bytes: &[u8], from: usize) -> bool {
    let mut at = from;
    for block_end in block_ends(bytes, from).chain([bytes.len()]) {
        let zeros_end = match mark_before(bytes, block_end) {
            Some(_) if block_end % BLOCK_BYTES == 0 => block_end - MARK_BYTES,
            _ => block_end,
        };
        if at < zeros_end && !is_zero(&bytes[at..zeros_end]) {
            return false;
        }
        at = at.max(block_end);
    }
    true
}

/// Whether a sector of the flush that left `mark`, the newest, never arrived: it has the mark of an earlier flush still,
/// or there are more zeros than were written.
fn has_lost_portion(bytes: &[u8], mark: FlushMark) -> bool {
    let mut zeros = 0;
    for portion in portions(mark.begin as usize, mark.end as usize) {
        if mark_in_sector(bytes, portion.start).is_some_and(|old| old.end < mark.end) {
            return true;
        }
        zeros += u32::from(is_zero(&bytes[portion]));
    }
    zeros > mark.zero_portions
}

/// The mark at the end of the sector in which `at` lies.
fn mark_in_sector(bytes: &[u8], at: usize) -> Option<FlushMark> {
    let sector_end = at / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
    let has_place = sector_end.is_multiple_of(BLOCK_BYTES) && sector_end <= bytes.len();
    has_place.then(|| mark_before(bytes, sector_end))?
}

/// Whether a sector of the bad record at `at`, which ends at `bound` or before, still reads as zeros, or zeros and an
/// older mark. The record may have zeros of its own there.
fn has_lost_sector(bytes: &[u8], at: usize, bound: usize) -> bool {
    // The checksum's upper half is zero in every record, so those four bytes testify nothing.
    let start = at + 4;
    let length = bytes.get(at + 8..at + 12).map_or(0, |length| {
        i32::from_be_bytes(*length.first_chunk().expect("four bytes")).try_into().unwrap_or(0usize)
    });
    let end = match length {
        // The length itself may be lost: then within the sectors of the record's first bytes.
        0 => at + TxnHeader::ENCODED_BYTES + RECORD_OVERHEAD_BYTES,
        length => at.saturating_add(length).saturating_add(RECORD_OVERHEAD_BYTES),
    }
    .min(bound)
    .min(bytes.len());
    portions(start, end).any(|portion| {
        let zeros_end = match mark_in_sector(bytes, portion.start) {
            Some(_) => {
                let sector_end = portion.start / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
                portion.end.min(sector_end - MARK_BYTES).max(portion.start)
            }
            None => portion.end,
        };
        is_zero(&bytes[portion.start..zeros_end])
    })
}

/// Offset and end of the first good record that begins at or behind `from` and is newer than `last`.
fn good_record_from(bytes: &[u8], from: usize, last: Zxid) -> Option<(usize, usize)> {
    let shortest = RECORD_OVERHEAD_BYTES + TxnHeader::ENCODED_BYTES;
    let mut at = from;
    while at + shortest <= bytes.len() {
        // Through zeros in large steps: a record's checksum and length lie within 12 bytes.
        if at + 4096 <= bytes.len() && is_zero(&bytes[at..at + 4096]) {
            at += 4096 - 12;
            continue;
        }
        if bytes[at..at + 4] == [0; 4]
            && let Ok(record) = records::read(bytes, at)
            && record.zxid > last
        {
            return Some((at, record.end));
        }
        at += 1;
    }
    None
}

/// End of the last good record behind the bad one at `at`; `at` if there is none.
fn last_good_record_behind(bytes: &[u8], at: usize, last: Zxid) -> usize {
    let (mut found, mut from) = (at, at + 1);
    while let Some((_, end)) = good_record_from(bytes, from, last) {
        (found, from) = (end, end);
    }
    found
}

const _: () = assert!(LOG_HEADER.len() < SECTOR_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{records::Records, window::Half};

    /// A log written in flushes of records of these lengths, in a file of `file_bytes`; returns where each flush
    /// began and ended, too.
    fn log(flushes: &[&[usize]], file_bytes: usize) -> (Vec<u8>, Vec<(usize, usize)>) {
        log_of(flushes, file_bytes, |i| 1 + (i % 251) as u8)
    }

    /// The same with data of our choice.
    fn log_of(
        flushes: &[&[usize]],
        file_bytes: usize,
        data: impl Fn(usize) -> u8,
    ) -> (Vec<u8>, Vec<(usize, usize)>) {
        let mut file = vec![0; file_bytes];
        let mut half = Half::new(HALF_BYTES).unwrap();
        half.begin_file();
        let (mut base, mut begin, mut zxid) = (0, LOG_HEADER.len(), 0i64);
        let mut ranges = Vec::new();
        for lengths in flushes {
            for &length in *lengths {
                zxid += 1;
                let mut transaction: Vec<u8> = (0..length).map(&data).collect();
                transaction[12..20].copy_from_slice(&zxid.to_be_bytes());
                half.append(&transaction);
            }
            let length = half.seal(base as u64, begin as u64, Zxid::ZERO);
            file[base..base + length].copy_from_slice(&half.memory()[..length]);
            let end = base + half.filled_bytes();
            ranges.push((begin, end));
            let mut next = Half::new(HALF_BYTES).unwrap();
            next.begin_behind(&half);
            (base, begin, half) = (end / BLOCK_BYTES * BLOCK_BYTES, end, next);
        }
        (file, ranges)
    }

    fn verdict(bytes: &[u8]) -> (Verdict, Zxid) {
        let mut records = Records::new(bytes);
        let last = records.by_ref().last().map_or(Zxid::ZERO, |record| record.zxid);
        (judge(bytes, records.offset(), records.ending(), last), last)
    }

    #[test]
    fn a_log_that_ends_with_a_flush_is_clean() {
        let (bytes, ranges) = log(&[&[100, 200], &[5000], &[40]], 65536);
        assert_eq!(verdict(&bytes), (Verdict::Clean, Zxid(4)));
        assert_eq!(verdict(&bytes[..ranges[2].1]), (Verdict::Clean, Zxid(4)), "trimmed");
    }

    /// Data without a zero, all zeros, and sectors of zeros among others.
    const DATA: [fn(usize) -> u8; 3] =
        [|i| 1 + (i % 251) as u8, |_| 0, |i| if i / 600 % 2 == 0 { 0 } else { 1 + (i % 7) as u8 }];

    /// Every subset of the sectors of the flush in flight: cut, and never a record of an earlier flush.
    #[test]
    fn every_torn_flush_is_cut() {
        for data in DATA {
            for (before, flight) in [
                (&[&[300usize, 700][..]][..], &[200usize, 300, 400, 500, 600][..]),
                (&[&[300, 3600], &[100]], &[40, 41, 42, 900, 43, 44, 1200]),
                (&[&[4019]], &[3000, 32, 32]),
                (&[&[4023], &[32]], &[600, 3500]),
                (&[], &[500, 40, 3000, 50]),
            ] {
                every_subset_is_cut(before, flight, data);
            }
        }
    }

    fn every_subset_is_cut(before: &[&[usize]], flight: &[usize], data: fn(usize) -> u8) {
        let mut flushes = before.to_vec();
        let (mut old, ranges) = log_of(&flushes, 16384, data);
        if flushes.is_empty() {
            old[..16].copy_from_slice(&LOG_HEADER);
        }
        flushes.push(flight);
        let (new, _) = log_of(&flushes, 16384, data);
        let base = ranges.last().map_or(0, |range| range.1) / BLOCK_BYTES * BLOCK_BYTES;
        let sectors: Vec<usize> = (base..new.len())
            .step_by(SECTOR_BYTES)
            .filter(|&at| old[at..at + SECTOR_BYTES] != new[at..at + SECTOR_BYTES])
            .collect();
        assert!(sectors.len() <= 20);
        let acknowledged = before.iter().map(|flush| flush.len() as i64).sum::<i64>();
        for subset in 0u32..1 << sectors.len() {
            let mut bytes = old.clone();
            for (bit, &at) in sectors.iter().enumerate() {
                if subset >> bit & 1 == 1 {
                    bytes[at..at + SECTOR_BYTES].copy_from_slice(&new[at..at + SECTOR_BYTES]);
                }
            }
            let (verdict, last) = verdict(&bytes);
            assert_ne!(verdict, Verdict::Damage, "{before:?} {flight:?} subset {subset:b} last {last}");
            assert!(last.0 >= acknowledged, "{before:?} {flight:?} subset {subset:b} last {last}");
        }
    }

    /// One flipped bit in an acknowledged record must never look like a torn tail.
    #[test]
    fn every_flipped_bit_in_a_record_is_damage() {
        for data in DATA {
            for last in [&[60usize, 60][..], &[900, 1700], &[1700]] {
                let (whole, ranges) = log_of(&[&[100, 200], &[700, 2500], last], 16384, data);
                let end = ranges[2].1;
                // As a crash leaves it, finished, and cut to its records.
                for length in [whole.len(), FlushMark::file_end(end as u64) as usize, end] {
                    every_flip_is_damage(&whole[..length], end, 4 + last.len() as i64);
                }
            }
        }
    }

    fn every_flip_is_damage(file: &[u8], end: usize, records: i64) {
        for at in LOG_HEADER.len()..end {
            let mut bytes = file.to_vec();
            bytes[at] ^= 0x10;
            let (found, last) = verdict(&bytes);
            // The last record of a log without a mark: a length beyond the end cannot be told from a file cut short.
            let is_last_length = file.len() == end && last.0 == records - 1;
            assert!(found == Verdict::Damage || is_last_length, "byte {at}: {found:?} behind {last}");
        }
    }

    /// Danger: Apache's server refuses such a log, and we would cut off 300 acknowledged records behind one of zeros.
    #[test]
    fn damage_among_the_records_of_another_server_is_never_cut() {
        let lengths: Vec<usize> = [2000].into_iter().chain([100; 300]).collect();
        let (mut bytes, ranges) = log_of(&[&lengths], 65536, |_| 0);
        let end = ranges[0].1;
        bytes[end..].fill(0);
        bytes[..16].copy_from_slice(b"ZKLG\0\0\0\x02\0\0\0\0\0\0\0\0");
        assert_eq!(verdict(&bytes).0, Verdict::Clean);
        for at in [16 + 12 + 20, 16 + 600] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(verdict(&flipped), (Verdict::Damage, Zxid::ZERO), "byte {at}");
        }
    }

    /// A zeroed page among acknowledged records ends the file for Apache: silent loss. The mark gives it away.
    #[test]
    fn acknowledged_records_that_read_as_zeros_are_damage() {
        let (mut bytes, ranges) = log(&[&[2000, 2000, 2000, 2000], &[2000], &[50]], 65536);
        assert!(ranges[2].0 > 8192);
        bytes[4096..8192].fill(0);
        assert_eq!(verdict(&bytes).0, Verdict::Damage);
    }

    /// Logs of other servers have no marks: P9 as far as it is safe.
    #[test]
    fn a_log_without_marks_is_judged_by_its_lost_sectors() {
        let (mut bytes, ranges) = log(&[&[100; 100]], 65536);
        let end = ranges[0].1;
        bytes[end..].fill(0);
        bytes[8..16].fill(0);
        assert_eq!(verdict(&bytes), (Verdict::Clean, Zxid(100)));
        let mut short = bytes[..end - 20].to_vec();
        assert_eq!(verdict(&short), (Verdict::Torn, Zxid(99)));
        short.resize(65536, 0);
        assert_eq!(verdict(&short).0, Verdict::Damage, "no sector of the record is missing");
        let mut lost = bytes.clone();
        lost[end / 512 * 512..].fill(0);
        assert_eq!(verdict(&lost).0, Verdict::Torn);
        let mut flipped = bytes.clone();
        flipped[1000] ^= 1;
        assert_eq!(verdict(&flipped).0, Verdict::Damage);
    }
}
