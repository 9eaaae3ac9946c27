//! Which znodes a load works on, what they are called and how often each is chosen.

use std::io::Write;

/// How keys are chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Popularity {
    /// Each key as often as any other.
    Uniform,
    /// The k-th key with a weight of 1 / k^exponent.
    Zipf {
        /// 0.99 in YCSB; larger is more skewed.
        exponent: f64,
    },
}

impl Popularity {
    /// The text that gives this one.
    pub fn show(&self) -> String {
        match self {
            Self::Uniform => "uniform".to_owned(),
            Self::Zipf { exponent } => format!("zipf:{exponent}"),
        }
    }
}

/// Reads `uniform`, `zipf` or `zipf:0.99`.
pub fn popularity(text: &str) -> Result<Popularity, String> {
    let wrong = || format!("`{text}` is not a way to choose keys; write uniform, zipf or zipf:1.2");
    match text.split_once(':') {
        None if text == "uniform" => Ok(Popularity::Uniform),
        None if text == "zipf" => Ok(Popularity::Zipf { exponent: 0.99 }),
        Some(("zipf", exponent)) => match exponent.parse::<f64>() {
            Ok(exponent) if (0.01..=10.0).contains(&exponent) => Ok(Popularity::Zipf { exponent }),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

/// Deepest tree that may be asked for.
pub const DEPTH_LIMIT: u32 = 8;
/// Directories beneath a directory of a deep tree.
const FANOUT: u64 = 16;

/// The names of the znodes that a load reads and sets.
#[derive(Clone, Debug)]
pub struct KeySpace {
    /// `chroot` + `--root`, without a slash at the end.
    pub root: String,
    /// How many.
    pub count: u64,
    /// Levels beneath the root: 1 puts all keys directly under it.
    pub depth: u32,
}

impl KeySpace {
    /// Appends the path of key `key`.
    pub fn put(&self, key: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.root.as_bytes());
        let mut rest = key;
        for level in 1..self.depth {
            write!(out, "/{}{:x}", char::from(b'a' + level as u8 - 1), rest % FANOUT)
                .expect("a Vec takes all");
            rest /= FANOUT;
        }
        out.extend_from_slice(b"/k");
        put_digits(key, 9, out);
    }

    /// The path of key `key`.
    pub fn path(&self, key: u64) -> String {
        let mut out = Vec::new();
        self.put(key, &mut out);
        String::from_utf8(out).expect("paths are UTF-8")
    }

    /// The directories that must exist before the keys, parents first; the root is among them.
    pub fn directories(&self) -> Vec<String> {
        let mut all: Vec<String> = parents_of(&self.root);
        all.push(self.root.clone());
        let mut level = vec![self.root.clone()];
        for depth in 1..self.depth {
            let letter = char::from(b'a' + depth as u8 - 1);
            // Not more directories than keys could reach: key k uses the digits of k from the lowest on.
            let digits = FANOUT.min(self.count.div_ceil(FANOUT.pow(depth - 1)));
            level = level
                .iter()
                .flat_map(|parent| (0..digits).map(move |digit| format!("{parent}/{letter}{digit:x}")))
                .collect();
            all.extend(level.iter().cloned());
        }
        all
    }
}

/// `/a` and `/a/b` for `/a/b/c`.
fn parents_of(path: &str) -> Vec<String> {
    path.match_indices('/').skip(1).map(|(at, _)| path[..at].to_owned()).collect()
}

/// Appends `value` in decimal with at least `digits` digits.
pub fn put_digits(value: u64, digits: usize, out: &mut Vec<u8>) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    let mut rest = value;
    while rest > 0 {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text[at.min(text.len() - digits)..]);
}

/// Chooses keys; one per core, each with its own random numbers.
#[derive(Clone, Debug)]
pub struct Chooser {
    count: u64,
    zipf: Option<Zipf>,
}

impl Chooser {
    /// A chooser among `count` keys.
    ///
    /// # Panics
    /// If there is no key.
    pub fn new(count: u64, popularity: Popularity) -> Self {
        assert!(count > 0, "a load needs a key to choose");
        let zipf = match popularity {
            Popularity::Uniform => None,
            Popularity::Zipf { exponent } => Some(Zipf::new(count, exponent)),
        };
        Self { count, zipf }
    }

    /// The next key, below the count.
    pub fn next(&self, random: &mut fastrand::Rng) -> u64 {
        match &self.zipf {
            None => random.u64(0..self.count),
            Some(zipf) => zipf.next(random) - 1,
        }
    }
}

/// Zipf by rejection-inversion (W. Hörmann and G. Derflinger, ACM TOMACS 6, 1996): no table, constant time.
#[derive(Clone, Debug)]
struct Zipf {
    count: f64,
    exponent: f64,
    integral_first: f64,
    integral_last: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Self {
        let mut zipf =
            Self { count: count as f64, exponent, integral_first: 0.0, integral_last: 0.0, shortcut: 0.0 };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(zipf.count + 0.5);
        zipf.shortcut = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.weight(2.0));
        zipf
    }

    fn next(&self, random: &mut fastrand::Rng) -> u64 {
        loop {
            let u = self.integral_last + random.f64() * (self.integral_first - self.integral_last);
            let x = self.integral_inverse(u);
            let k = x.round().clamp(1.0, self.count);
            if k - x <= self.shortcut || u >= self.integral(k + 0.5) - self.weight(k) {
                return k as u64;
            }
        }
    }

    fn weight(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// Integral of the weight, written so that an exponent of 1 needs no case of its own.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        exp_minus_1_over((1.0 - self.exponent) * log) * log
    }

    fn integral_inverse(&self, x: f64) -> f64 {
        let t = (x * (1.0 - self.exponent)).max(-1.0);
        (log_1_plus_over(t) * x).exp()
    }
}

/// (e^x - 1) / x.
fn exp_minus_1_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.exp_m1() / x } else { 1.0 + x / 2.0 }
}

/// ln(1 + x) / x.
fn log_1_plus_over(x: f64) -> f64 {
    if x.abs() > 1e-8 { x.ln_1p() / x } else { 1.0 - x / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_length_and_their_directories() {
        let flat = KeySpace { root: "/loadgen/keys".into(), count: 1000, depth: 1 };
        assert_eq!(flat.path(7), "/loadgen/keys/k000000007");
        assert_eq!(flat.directories(), ["/loadgen", "/loadgen/keys"]);
        let deep = KeySpace { root: "/r".into(), count: 1000, depth: 3 };
        let directories = deep.directories();
        for key in 0..deep.count {
            let path = deep.path(key);
            let parent = &path[..path.rfind('/').unwrap()];
            assert!(directories.iter().any(|directory| directory == parent), "{path}");
        }
    }

    /// A generator that is not what it says would compare two different loads.
    #[test]
    fn zipf_frequencies_follow_the_law() {
        for exponent in [0.5, 0.99, 1.0, 1.5] {
            let chooser = Chooser::new(1000, Popularity::Zipf { exponent });
            let mut random = fastrand::Rng::with_seed(7);
            let mut seen = vec![0_u64; 1000];
            let draws = 200_000;
            for _ in 0..draws {
                seen[chooser.next(&mut random) as usize] += 1;
            }
            let sum: f64 = (1..=1000).map(|k| (k as f64).powf(-exponent)).sum();
            for k in [1_usize, 2, 10] {
                let expected = (k as f64).powf(-exponent) / sum * f64::from(draws);
                let got = seen[k - 1] as f64;
                assert!(
                    (got - expected).abs() < 5.0 * expected.sqrt() + 1.0,
                    "s {exponent} k {k}: {got} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_wrong_popularity_says_what_to_write() {
        assert_eq!(popularity("zipf:1.2"), Ok(Popularity::Zipf { exponent: 1.2 }));
        assert!(popularity("pareto").unwrap_err().contains("zipf"));
    }
}
