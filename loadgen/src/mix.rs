//! What a load is made of, as the user wrote it: weights, values, keys and pace.

use crate::{keys::KeySpace, keys::Popularity, operation::Operation, units::ByteRange};

/// Weights of operations.
#[derive(Clone, PartialEq, Debug)]
pub struct Mix {
    parts: Vec<(Operation, f64)>,
    total: f64,
}

impl Mix {
    /// One operation only.
    pub fn only(operation: Operation) -> Self {
        Self { parts: vec![(operation, 1.0)], total: 1.0 }
    }

    /// The operations and their weights.
    pub fn parts(&self) -> &[(Operation, f64)] {
        &self.parts
    }

    /// Whether the operation may come.
    pub fn has(&self, operation: Operation) -> bool {
        self.parts.iter().any(|(part, _)| *part == operation)
    }

    /// The next operation.
    pub fn next(&self, random: &mut fastrand::Rng) -> Operation {
        if let [(only, _)] = self.parts[..] {
            return only;
        }
        let mut at = random.f64() * self.total;
        for (operation, weight) in &self.parts {
            if at < *weight {
                return *operation;
            }
            at -= weight;
        }
        self.parts[self.parts.len() - 1].0
    }

    /// The text that gives this mix.
    pub fn show(&self) -> String {
        let parts: Vec<String> =
            self.parts.iter().map(|(op, weight)| format!("{}={weight}", op.name())).collect();
        parts.join(",")
    }
}

/// Reads `set` or `set=40,get=40,create=10,delete=10`.
pub fn mix(text: &str) -> Result<Mix, String> {
    let names = || {
        let names: Vec<&str> = Operation::ALL
            .iter()
            .map(|op| op.name())
            .filter(|name| Operation::in_mix(name).is_some())
            .collect();
        names.join(", ")
    };
    let mut parts: Vec<(Operation, f64)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
        let operation = Operation::in_mix(name)
            .ok_or_else(|| format!("`{name}` is not an operation; there are {}", names()))?;
        let weight = weight.trim_end_matches('%').parse::<f64>().ok().filter(|w| w.is_finite() && *w >= 0.0);
        let weight =
            weight.ok_or_else(|| format!("`{part}` has no weight; write a number, such as {name}=40"))?;
        if parts.iter().any(|(seen, _)| *seen == operation) {
            return Err(format!("`{name}` is in the mix twice"));
        }
        parts.push((operation, weight));
    }
    parts.retain(|(_, weight)| *weight > 0.0);
    let total = parts.iter().map(|(_, weight)| weight).sum();
    if parts.is_empty() {
        return Err(format!(
            "`{text}` is an empty mix; write weights, such as set=40,get=60. There are {}",
            names()
        ));
    }
    Ok(Mix { parts, total })
}

/// Operations that come at one rate.
#[derive(Clone, PartialEq, Debug)]
pub struct Stream {
    /// Of the whole run, operations a second.
    pub rate: f64,
    /// What comes.
    pub mix: Mix,
}

/// How requests follow each other.
#[derive(Clone, PartialEq, Debug)]
pub enum Pace {
    /// At their own times, whatever the server does.
    Open {
        /// One or more streams, each with its rate.
        streams: Vec<Stream>,
        /// Exponential gaps instead of equal ones.
        poisson: bool,
        /// Requests that a connection may have in flight before later ones wait for a reply.
        in_flight_limit: usize,
    },
    /// Each connection keeps this many requests in flight.
    Closed {
        /// What is sent.
        mix: Mix,
        /// Requests in flight on each connection.
        in_flight: usize,
    },
}

impl Pace {
    /// Every mix in it.
    pub fn mixes(&self) -> impl Iterator<Item = &Mix> {
        let (streams, one): (&[Stream], Option<&Mix>) = match self {
            Self::Open { streams, .. } => (streams, None),
            Self::Closed { mix, .. } => (&[], Some(mix)),
        };
        streams.iter().map(|stream| &stream.mix).chain(one)
    }

    /// Whether the operation may come.
    pub fn has(&self, operation: Operation) -> bool {
        self.mixes().any(|mix| mix.has(operation))
    }
}

/// Everything that a core needs to know about the load.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How requests follow each other.
    pub pace: Pace,
    /// The nodes that are read and set.
    pub keys: KeySpace,
    /// How often each is chosen.
    pub popularity: Popularity,
    /// Sizes of values in bytes.
    pub values: ByteRange,
    /// setData parts of a multi.
    pub multi_parts: usize,
    /// Connections of the whole run.
    pub connections: usize,
    /// Where created nodes go: the base path of the run.
    pub root: String,
    /// First random seed.
    pub seed: u64,
    /// Check replies against each other.
    pub verify: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_comes_as_it_was_weighted() {
        let mix = mix("set=30,get=70").unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let sets = (0..100_000).filter(|_| mix.next(&mut random) == Operation::Set).count();
        assert!((29_000..31_000).contains(&sets), "{sets}");
        assert_eq!(mix.show(), "set=30,get=70");
    }

    #[test]
    fn a_wrong_mix_says_what_there_is() {
        assert!(mix("put=1").unwrap_err().contains("create-seq"));
        assert!(mix("set=x").unwrap_err().contains("set=40"));
        assert!(mix("").is_err());
        assert!(mix("set=0").is_err());
        assert!(mix("set,set").is_err());
    }
}
