//! What is written into nodes: values that name the write they came from, so that each can be expected to the last byte.
//!
//! A value begins with its stamp (or as much of it as fits) and goes on with random bytes, the same for all values of a
//! core. From the seed and the stamp the whole value follows.

/// Bits of a stamp for the number of the write; enough for 95 hours at 200,000 a second.
const NUMBER_BITS: u32 = 36;
/// Bits for the core.
const CORE_BITS: u32 = 8;

/// Names one write of a run: its number, its core and the length of its value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Write `number` of `core`, with a value of `bytes`.
    pub fn new(core: usize, number: u64, bytes: usize) -> Self {
        let number = number & ((1 << NUMBER_BITS) - 1);
        let core = core as u64 & ((1 << CORE_BITS) - 1);
        Self((bytes as u64) << (NUMBER_BITS + CORE_BITS) | core << NUMBER_BITS | number)
    }

    /// Length of the value.
    pub fn bytes(self) -> usize {
        (self.0 >> (NUMBER_BITS + CORE_BITS)) as usize
    }

    fn core(self) -> usize {
        (self.0 >> NUMBER_BITS) as usize & ((1 << CORE_BITS) - 1)
    }

    /// Writes it to the begin of a value; the low bytes first, so that a short value still tells some writes apart.
    pub fn write(self, value: &mut [u8]) {
        let bytes = self.0.to_le_bytes();
        let room = value.len().min(bytes.len());
        value[..room].copy_from_slice(&bytes[..room]);
    }

    /// The stamp at the begin of a value, if all of it is there.
    pub fn read(value: &[u8]) -> Option<Self> {
        value.first_chunk().map(|bytes| Self(u64::from_le_bytes(*bytes)))
    }
}

/// The random bytes of core `core`, `most` of them.
pub fn template(seed: u64, core: usize, most: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed.wrapping_add((core as u64).wrapping_mul(0x9E37_79B9)));
    std::iter::repeat_with(|| random.u8(..)).take(most).collect()
}

/// The values that the cores of a run write.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    templates: Vec<Vec<u8>>,
}

impl Expectation {
    /// Of a run with this seed on `cores` cores, whose largest value has `most` bytes.
    pub fn new(seed: u64, cores: usize, most: usize) -> Self {
        Self { templates: (0..cores).map(|core| template(seed, core, most)).collect() }
    }

    /// The value of a write; `None` if no core of this run has written it.
    pub fn value(&self, stamp: Stamp) -> Option<Vec<u8>> {
        let mut value = self.templates.get(stamp.core())?.get(..stamp.bytes())?.to_vec();
        stamp.write(&mut value);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_follows_from_its_stamp() {
        let expectation = Expectation::new(7, 3, 1_000_000);
        for (core, number, bytes) in [(0, 1, 100), (2, 1 << 35, 1_000_000), (1, 77, 8), (1, 78, 3), (0, 5, 0)]
        {
            let stamp = Stamp::new(core, number, bytes);
            let mut value = template(7, core, 1_000_000);
            stamp.write(&mut value);
            value.truncate(bytes);
            assert_eq!(expectation.value(stamp).as_deref(), Some(&value[..]), "{stamp:?}");
            assert_eq!(Stamp::read(&value), (bytes >= 8).then_some(stamp));
        }
        assert_eq!(expectation.value(Stamp::new(9, 1, 10)), None, "there is no tenth core");
    }

    /// Values of a few bytes are told apart as far as they can be.
    #[test]
    fn short_values_differ_from_one_write_to_the_next() {
        let expectation = Expectation::new(7, 1, 100);
        assert_ne!(expectation.value(Stamp::new(0, 1, 2)), expectation.value(Stamp::new(0, 2, 2)));
    }
}
