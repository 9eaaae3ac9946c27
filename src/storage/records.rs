//! The records of one log file, read from its bytes (rows P6, P7, P9).
//!
//! Pure. Reading never fails: it ends, and [`Ending`] says why. What an ending means, a torn tail or damage, depends
//! on what lies behind it and is decided in `tail`.

use super::segment::{LOG_HEADER, RECORD_END, RECORD_OVERHEAD_BYTES, checksum};
use zkfast_wire::{TxnHeader, Zxid};

/// One whole record with a matching checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// File offset of its first byte.
    pub offset: usize,
    /// File offset behind its last byte.
    pub end: usize,
    /// From its header.
    pub zxid: Zxid,
    /// Header, body and perhaps a digest.
    pub transaction: &'a [u8],
}

/// Why reading stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Length 0, as in the zeros behind the last record.
    ZeroLength,
    /// The file ends inside a record, or where one would begin.
    EndOfFile,
    /// A whole record, but the byte behind it is not 'B'.
    NoEndByte,
    /// A whole record whose checksum does not match.
    Checksum,
    /// A length that no transaction has: negative, shorter than its header, or beyond 2 GiB.
    Length(i32),
}

/// Iterates over the records of a log file.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Records<'a> {
    /// Starts behind the file header.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: LOG_HEADER.len().min(bytes.len()) }
    }

    /// File offset of the next record, or of what ended the file.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Why there is no further record here.
    ///
    /// # Panics
    /// If there is one.
    pub fn ending(&self) -> Ending {
        read(self.bytes, self.offset).expect_err("asked at the end")
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let record = read(self.bytes, self.offset).ok()?;
        self.offset = record.end;
        Some(record)
    }
}

/// Reads the record at `offset`.
///
/// # Errors
/// [`Ending`] if there is no good one.
pub fn read(bytes: &[u8], offset: usize) -> Result<Record<'_>, Ending> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let Some(prefix) = rest.first_chunk::<12>() else { return Err(Ending::EndOfFile) };
    let sum = u64::from_be_bytes(*prefix.first_chunk().expect("12 bytes"));
    let length = i32::from_be_bytes(*prefix.last_chunk().expect("12 bytes"));
    if length == 0 {
        return Err(Ending::ZeroLength);
    }
    let transaction_bytes = usize::try_from(length).map_err(|_| Ending::Length(length))?;
    if transaction_bytes < TxnHeader::ENCODED_BYTES {
        return Err(Ending::Length(length));
    }
    let Some(record) = rest.get(..transaction_bytes + RECORD_OVERHEAD_BYTES) else {
        return Err(Ending::EndOfFile);
    };
    let transaction = &record[12..12 + transaction_bytes];
    if record[record.len() - 1] != RECORD_END {
        return Err(Ending::NoEndByte);
    }
    if sum != u64::from(checksum(transaction)) {
        return Err(Ending::Checksum);
    }
    let zxid = Zxid(i64::from_be_bytes(*transaction[12..].first_chunk().expect("a whole header")));
    Ok(Record { offset, end: offset + record.len(), zxid, transaction })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::segment::put_record;

    fn file(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = LOG_HEADER.to_vec();
        for (index, &length) in lengths.iter().enumerate() {
            let mut transaction = vec![index as u8 + 1; length];
            transaction[12..20].copy_from_slice(&(index as i64 + 1).to_be_bytes());
            let start = bytes.len();
            bytes.resize(start + length + RECORD_OVERHEAD_BYTES, 0);
            put_record(&mut bytes[start..], &transaction);
        }
        bytes
    }

    /// P9: each way in which a file can end, by name.
    #[test]
    fn every_ending_has_its_name() {
        let good = file(&[40, 50]);
        let check = |change: &dyn Fn(&mut Vec<u8>), count: usize, ending: Ending| {
            let mut bytes = good.clone();
            change(&mut bytes);
            let mut records = Records::new(&bytes);
            assert_eq!(records.by_ref().count(), count, "{ending:?}");
            assert_eq!(records.ending(), ending);
        };
        check(&|_| {}, 2, Ending::EndOfFile);
        check(&|bytes| bytes.resize(4096, 0), 2, Ending::ZeroLength);
        check(&|bytes| bytes.truncate(16), 0, Ending::EndOfFile);
        check(&|bytes| bytes.truncate(16 + 53 + 11), 1, Ending::EndOfFile);
        check(&|bytes| bytes.truncate(good.len() - 1), 1, Ending::EndOfFile);
        check(&|bytes| *bytes.last_mut().unwrap() = 0, 1, Ending::NoEndByte);
        check(&|bytes| bytes[16 + 53 + 20] ^= 1, 1, Ending::Checksum);
        check(&|bytes| bytes[16] = 1, 0, Ending::Checksum);
        check(&|bytes| bytes[16 + 8] = 0x80, 0, Ending::Length(i32::MIN + 40));
        check(&|bytes| bytes[16 + 11] = 5, 0, Ending::Length(5));
    }

    #[test]
    fn any_bytes_end_somewhere_without_panic() {
        let mut state = 1u64;
        for length in 0..600 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 60) as u8
                })
                .collect();
            let mut records = Records::new(&bytes);
            records.by_ref().for_each(drop);
            records.ending();
        }
    }
}
