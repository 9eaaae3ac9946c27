//! The three shapes of a snapshot file: plain, gzip, and snappy in xerial framing (rows P27, P28).
//!
//! Chosen by the file's extension, as Apache does. The checksum in the file is over the plain bytes.
//!
//! Xerial framing (Java's `SnappyOutputStream`): 8 bytes 82 'SNAPPY' 00, int version 1, int compatible 1, then blocks of
//! int length and that many bytes of raw snappy, 32 KiB plain each. The header may come again between blocks.

use flate2::{Compression as Level, read::MultiGzDecoder, write::GzEncoder};
use std::{
    io::{self, Read, Write},
    path::Path,
};

/// How the bytes of a snapshot lie in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// As they are.
    #[default]
    Plain,
    /// `.gz`
    Gzip,
    /// `.snappy`
    Snappy,
}

const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01";
const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\x00";
/// Plain bytes of a block; Java's default.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Plain bytes that a foreign block may claim. Java's writers use 32 KiB unless told otherwise.
const XERIAL_BLOCK_BYTES_MAX: usize = 64 << 20;

impl Compression {
    /// By the extension of the file name.
    pub fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Self::Gzip,
            Some("snappy") => Self::Snappy,
            _ => Self::Plain,
        }
    }

    /// What the file name ends with.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gz",
            Self::Snappy => ".snappy",
        }
    }

    /// Apache's quick test of a file before it is read (P27).
    pub fn looks_valid(self, file: &[u8]) -> bool {
        match self {
            Self::Plain => file.len() >= 10 && file.ends_with(b"\x00\x00\x00\x01/"),
            Self::Gzip => file.starts_with(b"\x1f\x8b"),
            Self::Snappy => file.starts_with(&XERIAL_MAGIC),
        }
    }

    /// Unpacks a whole file that is not plain.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof` if the file is damaged or cut.
    pub fn unpack(self, file: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        match self {
            Self::Plain => plain.extend_from_slice(file),
            Self::Gzip => {
                MultiGzDecoder::new(file).read_to_end(&mut plain)?;
            }
            Self::Snappy => unpack_xerial(file, &mut plain)?,
        }
        Ok(plain)
    }
}

fn unpack_xerial(file: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut decoder = snap::raw::Decoder::new();
    let mut rest = file;
    if !rest.starts_with(&XERIAL_MAGIC) {
        return Err(invalid("no snappy header"));
    }
    while !rest.is_empty() {
        if rest.starts_with(&XERIAL_MAGIC) {
            rest = rest.get(XERIAL_HEADER.len()..).ok_or(io::ErrorKind::UnexpectedEof)?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk::<4>().ok_or(io::ErrorKind::UnexpectedEof)?;
        let length =
            usize::try_from(i32::from_be_bytes(*length)).map_err(|_| invalid("a negative block length"))?;
        let block = behind.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        let plain_bytes = snap::raw::decompress_len(block).map_err(io::Error::other)?;
        // Snappy makes nothing smaller than a twenty-first part; a claim beyond that is no block.
        if plain_bytes > XERIAL_BLOCK_BYTES_MAX || plain_bytes > length.saturating_mul(24) + 64 {
            return Err(invalid("an impossible block length"));
        }
        let start = plain.len();
        plain.resize(start + plain_bytes, 0);
        decoder.decompress(block, &mut plain[start..]).map_err(io::Error::other)?;
        rest = &behind[length..];
    }
    Ok(())
}

/// Packs what is written to it into `out`.
pub enum Packer<W: Write> {
    /// As it is.
    Plain(W),
    /// gzip
    Gzip(Box<GzEncoder<W>>),
    /// snappy in xerial framing
    Snappy(Box<XerialWriter<W>>),
}

impl<W: Write> Packer<W> {
    /// Starts a file.
    pub fn new(compression: Compression, mut out: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::Plain => Self::Plain(out),
            Compression::Gzip => Self::Gzip(Box::new(GzEncoder::new(out, Level::default()))),
            Compression::Snappy => {
                out.write_all(&XERIAL_HEADER)?;
                let (encoder, block) = (snap::raw::Encoder::new(), Vec::with_capacity(XERIAL_BLOCK_BYTES));
                Self::Snappy(Box::new(XerialWriter { out, encoder, block }))
            }
        })
    }

    /// Appends plain bytes.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
            Self::Snappy(out) => out.write_all(bytes),
        }
    }

    /// Writes what is still held back and returns what is below.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Plain(out) => Ok(out),
            Self::Gzip(out) => out.finish(),
            Self::Snappy(mut out) => {
                out.put_block()?;
                Ok(out.out)
            }
        }
    }

    /// What is below.
    pub fn inner(&self) -> &W {
        match self {
            Self::Plain(out) => out,
            Self::Gzip(out) => out.get_ref(),
            Self::Snappy(out) => &out.out,
        }
    }
}

/// Snappy in xerial framing.
pub struct XerialWriter<W: Write> {
    out: W,
    encoder: snap::raw::Encoder,
    block: Vec<u8>,
}

impl<W: Write> XerialWriter<W> {
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = bytes.len().min(XERIAL_BLOCK_BYTES - self.block.len());
            self.block.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.block.len() == XERIAL_BLOCK_BYTES {
                self.put_block()?;
            }
        }
        Ok(())
    }

    fn put_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let packed = self.encoder.compress_vec(&self.block).map_err(io::Error::other)?;
        let length = i32::try_from(packed.len()).expect("32 KiB stay far below 2 GiB");
        self.out.write_all(&length.to_be_bytes())?;
        self.out.write_all(&packed)?;
        self.block.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let plain: Vec<u8> = (0..200_000u32).map(|i| (i / 7 % 251) as u8).collect();
        for compression in [Compression::Plain, Compression::Gzip, Compression::Snappy] {
            let mut packer = Packer::new(compression, Vec::new()).unwrap();
            for chunk in plain.chunks(9973) {
                packer.write_all(chunk).unwrap();
            }
            let packed = packer.finish().unwrap();
            assert!(compression == Compression::Plain || packed.len() < plain.len() / 4);
            assert!(compression.unpack(&packed).unwrap() == plain, "{compression:?}");
            if compression != Compression::Plain {
                assert!(compression.looks_valid(&packed));
                for cut in [0, 5, 17, 21, packed.len() / 2, packed.len() - 1] {
                    let unpacked = compression.unpack(&packed[..cut]);
                    assert!(
                        unpacked.is_err() || unpacked.unwrap().len() < plain.len(),
                        "{compression:?} {cut}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_claimed_block_length_is_never_trusted() {
        let mut file = XERIAL_HEADER.to_vec();
        file.extend_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
        assert!(Compression::Snappy.unpack(&file).is_err());
        let mut file = XERIAL_HEADER.to_vec();
        // A block of 6 bytes that claims 4 GiB - 1 of plain bytes.
        file.extend_from_slice(&[0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert!(Compression::Snappy.unpack(&file).is_err());
    }
}
