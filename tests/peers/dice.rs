//! Numbers that look random and come from a seed, so that a failure can be played again.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of this run: `ZKFAST_SEED` if set, else a new one; print it in the failure message.
    pub fn seed() -> u64 {
        match std::env::var("ZKFAST_SEED") {
            Ok(text) => text.parse().expect("ZKFAST_SEED is a number"),
            Err(_) => {
                let now = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
                now.as_secs() * 1_000 + u64::from(now.subsec_millis()) + u64::from(std::process::id())
            }
        }
    }

    /// 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_be_bytes()[..chunk.len()]);
        }
    }
}
