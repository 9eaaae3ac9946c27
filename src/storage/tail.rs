//! What the end of a log means: its end, a torn flush, or damage.
//!
//! Why it matters: a flush that the power cut may leave any subset of its 512-byte sectors, so a good record may
//! follow a bad one although nobody was told of either; cutting both is right. A bad record among acknowledged ones
//! looks alike, and cutting there loses writes that clients rely on (FAST'18, "Protocol-Aware Recovery").
//!
//! What tells them apart is the flush mark: the newest one says where the last flush that left one began and ended.
//! One flush is in flight at a time, so all before its beginning was durable when it began. Where there is no mark
//! (its sector is among the lost ones, the file was trimmed, or another server wrote it), the lost sectors themselves
//! testify: they still read as zeros.
//!
//! | # | newest mark | first bad byte | behind it | verdict |
//! |---|---|---|---|---|
//! | 1 | ends there, or none | anything | only zeros | clean |
//! | 2 | any | at or behind its end | anything | torn: a later flush |
//! | 3 | any | inside | a good record behind its end | damage: it had completed |
//! | 4 | any | inside | a lost sector in the bad record | torn: that flush |
//! | 5 | any | inside | no lost sector | damage |
//! | 6 | any | before its beginning | anything | damage |
//! | 7 | none | anything | the file ends in the record | torn |
//! | 8 | none | anything | a lost sector, no good record beyond one flush | torn |
//! | 9 | none | anything | else | damage |
//!
//! Only the last log with anything in it may be torn; the caller sees to that. Pure.

use super::{
    records::{self, Ending},
    segment::{BLOCK_BYTES, FlushMark, LOG_HEADER, MARK_BYTES, RECORD_OVERHEAD_BYTES},
    window::HALF_BYTES,
};
use zkfast_wire::{TxnHeader, Zxid};

/// Unit in which a disk loses what was being written.
const SECTOR_BYTES: usize = 512;

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
            let mark_end = mark.end as usize;
            let has_successor = good_record_from(bytes, mark_end, last).is_some();
            let bound =
                good_record_from(bytes, end + 1, last).map_or(mark_end, |(begin, _)| begin.min(mark_end));
            if !has_successor && has_lost_sector(bytes, end, bound) { Verdict::Torn } else { Verdict::Damage }
        }
        None => match good_record_from(bytes, end + 1, last) {
            None if ending == Ending::EndOfFile => Verdict::Torn,
            None if has_lost_sector(bytes, end, bytes.len()) => Verdict::Torn,
            Some((begin, _))
                if has_lost_sector(bytes, end, begin)
                    && last_good_record_behind(bytes, end, last) - end <= FLUSH_BYTES_MAX =>
            {
                Verdict::Torn
            }
            None | Some(_) => Verdict::Damage,
        },
    }
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

fn is_zero(bytes: &[u8]) -> bool {
    // In words: there are up to 64 MiB of zeros to see through.
    let (words, tail) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && tail.iter().all(|&byte| byte == 0)
}

/// Whether a sector of the bad record at `at`, which ends at `bound` or before, still reads as zeros where the record
/// must have bytes.
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
    let mut from = start;
    while from < end {
        let sector_end = (from / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let until = sector_end.min(end);
        // What was there before may be the mark of the flush before, at the end of a block.
        let has_old_mark = bytes.len() >= sector_end && mark_before(bytes, sector_end).is_some();
        let zeros_until = if has_old_mark { until.min(sector_end - MARK_BYTES).max(from) } else { until };
        if is_zero(&bytes[from..zeros_until]) {
            return true;
        }
        from = sector_end;
    }
    false
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
        let mut file = vec![0; file_bytes];
        let mut half = Half::new(HALF_BYTES).unwrap();
        half.begin_file();
        let (mut base, mut begin, mut zxid) = (0, LOG_HEADER.len(), 0i64);
        let mut ranges = Vec::new();
        for lengths in flushes {
            for &length in *lengths {
                zxid += 1;
                let mut transaction: Vec<u8> = (0..length).map(|i| 1 + (i % 251) as u8).collect();
                transaction[12..20].copy_from_slice(&zxid.to_be_bytes());
                half.append(&transaction);
            }
            let length = half.seal(base as u64, begin as u64);
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

    /// Every subset of the sectors of the flush in flight: cut, and never a record of an earlier flush.
    #[test]
    fn every_torn_flush_is_cut() {
        for (before, flight) in [
            (&[&[300usize, 700][..]][..], &[200usize, 300, 400, 500, 600][..]),
            (&[&[300, 3600], &[100]], &[40, 41, 42, 900, 43, 44, 1200]),
            (&[&[4019]], &[3000, 32, 32]),
            (&[&[4023], &[32]], &[600, 3500]),
            (&[], &[500, 40, 3000, 50]),
        ] {
            let mut flushes = before.to_vec();
            let (mut old, ranges) = log(&flushes, 16384);
            if flushes.is_empty() {
                old[..16].copy_from_slice(&LOG_HEADER);
            }
            flushes.push(flight);
            let (new, _) = log(&flushes, 16384);
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
    }

    /// One flipped bit in an acknowledged record must never look like a torn tail.
    #[test]
    fn every_flipped_bit_in_a_record_is_damage() {
        let (whole, ranges) = log(&[&[100, 200], &[700, 40], &[60, 60]], 16384);
        let trimmed = &whole[..ranges[2].1];
        for file in [&whole[..], trimmed] {
            for at in LOG_HEADER.len()..ranges[2].1 {
                let mut bytes = file.to_vec();
                bytes[at] ^= 0x10;
                let (found, last) = verdict(&bytes);
                // The last record of a trimmed file: a length beyond the end cannot be told from a file cut short.
                let is_last_length = file.len() == ranges[2].1 && last == Zxid(5);
                assert!(found == Verdict::Damage || is_last_length, "byte {at}: {found:?} behind {last}");
            }
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
