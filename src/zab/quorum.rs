//! Which sets of voters may decide: a majority (Q6, `QuorumMaj`), or most groups by most of their weight (Q7,
//! `QuorumHierarchical`). Two deciding sets always share a voter; everything else in this crate rests on that.

use zkfast_wire::{Ensemble, ServerId};

/// At most so many voters: a set of them is one word. Ensembles have three to nine; beyond that each write waits for
/// more disks and observers are the way to scale.
pub const VOTERS_MAX: usize = 64;

/// A set of voters, one bit for each place in [`Quorum`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Voters(u64);

impl Voters {
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// This set and the voter at `place`.
    pub const fn with(self, place: usize) -> Self {
        Self(self.0 | 1 << place)
    }

    /// This set but the voter at `place`.
    pub const fn without(self, place: usize) -> Self {
        Self(self.0 & !(1 << place))
    }

    /// Whether the voter at `place` is in.
    pub const fn has(self, place: usize) -> bool {
        self.0 & 1 << place != 0
    }

    /// How many are in.
    pub const fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

/// The voters of an ensemble and the rule by which they decide.
#[derive(Clone, Debug)]
pub struct Quorum {
    voters: Vec<ServerId>,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Majority,
    Groups {
        /// Group of each voter, as an index into `group_weights`.
        groups: Vec<usize>,
        weights: Vec<u64>,
        group_weights: Vec<u64>,
    },
}

/// Why an ensemble cannot decide anything.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuorumError {
    /// Every server is an observer.
    #[error("the ensemble has no voter")]
    NoVoter,
    /// More voters than [`VOTERS_MAX`].
    #[error("{0} voters; at most {VOTERS_MAX} are supported")]
    TooManyVoters(usize),
    /// `group.` lines leave a voter out.
    #[error("server {0} votes but is in no group")]
    NotInGroup(ServerId),
    /// All weights are zero.
    #[error("no group has a weight above zero")]
    NoWeight,
}

impl Quorum {
    /// The voters of `ensemble` and its rule.
    ///
    /// # Errors
    /// An ensemble in which no set could ever decide.
    pub fn new(ensemble: &Ensemble) -> Result<Self, QuorumError> {
        let mut voters: Vec<_> =
            ensemble.members.iter().filter(|member| !member.observer).map(|member| member.id).collect();
        voters.sort_unstable();
        if voters.is_empty() {
            return Err(QuorumError::NoVoter);
        }
        if voters.len() > VOTERS_MAX {
            return Err(QuorumError::TooManyVoters(voters.len()));
        }
        let rule = if ensemble.groups.is_empty() { Rule::Majority } else { Self::groups(ensemble, &voters)? };
        Ok(Self { voters, rule })
    }

    fn groups(ensemble: &Ensemble, voters: &[ServerId]) -> Result<Rule, QuorumError> {
        let mut names = Vec::new();
        let mut groups = Vec::with_capacity(voters.len());
        let mut weights = Vec::with_capacity(voters.len());
        for voter in voters {
            let name = *ensemble.groups.get(voter).ok_or(QuorumError::NotInGroup(*voter))?;
            let group = names.iter().position(|known| *known == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            groups.push(group);
            weights.push(ensemble.weights.get(voter).copied().unwrap_or(1));
        }
        let mut group_weights = vec![0u64; names.len()];
        for (group, weight) in groups.iter().zip(&weights) {
            group_weights[*group] = group_weights[*group].saturating_add(*weight);
        }
        if group_weights.iter().all(|weight| *weight == 0) {
            return Err(QuorumError::NoWeight);
        }
        Ok(Rule::Groups { groups, weights, group_weights })
    }

    /// The voters, by rising id.
    pub fn voters(&self) -> &[ServerId] {
        &self.voters
    }

    /// The place of a server among the voters; `None` for observers and strangers.
    pub fn place(&self, server: ServerId) -> Option<usize> {
        self.voters.binary_search(&server).ok()
    }

    /// Whether a server may be elected: a voter whose weight is not zero.
    pub fn electable(&self, server: ServerId) -> bool {
        self.place(server).is_some_and(|place| match &self.rule {
            Rule::Majority => true,
            Rule::Groups { weights, .. } => weights[place] > 0,
        })
    }

    /// Whether these voters may decide.
    pub fn decides(&self, set: Voters) -> bool {
        match &self.rule {
            Rule::Majority => set.count() > self.voters.len() / 2,
            Rule::Groups { groups, weights, group_weights } => {
                let mut weighing = 0;
                let mut won = 0;
                for (group, total) in group_weights.iter().enumerate().filter(|(_, total)| **total > 0) {
                    weighing += 1;
                    let weight: u64 = (0..self.voters.len())
                        .filter(|place| groups[*place] == group && set.has(*place))
                        .map(|place| weights[place])
                        .fold(0, u64::saturating_add);
                    won += usize::from(weight > total / 2);
                }
                won > weighing / 2
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn ensemble(lines: &str) -> Ensemble {
        Ensemble::parse(lines).unwrap()
    }

    fn servers(count: usize) -> String {
        (1..=count).map(|id| format!("server.{id}=h{id}:1:2\n")).collect()
    }

    /// Danger: two halves of a partition both decide.
    #[test]
    fn deciding_sets_share_a_voter() {
        let shapes = [
            servers(1),
            servers(2),
            servers(3),
            servers(4),
            servers(5),
            servers(6) + "group.1=1:2:3\ngroup.2=4:5:6",
            servers(9) + "group.1=1:2:3\ngroup.2=4:5:6\ngroup.3=7:8:9",
            servers(5) + "group.1=1:2:3:4:5\nweight.1=3\nweight.2=0",
            servers(7) + "group.1=1:2:3\ngroup.2=4:5\ngroup.3=6:7\nweight.6=0\nweight.7=0",
        ];
        for shape in shapes {
            let quorum = Quorum::new(&ensemble(&shape)).unwrap();
            let sets: Vec<_> =
                (0..1u64 << quorum.voters().len()).map(Voters).filter(|set| quorum.decides(*set)).collect();
            assert!(!sets.is_empty(), "{shape}");
            for one in &sets {
                for other in &sets {
                    assert_ne!(one.0 & other.0, 0, "{shape}: {one:?} and {other:?}");
                }
            }
        }
    }

    /// A second implementation, after the words of row Q7 alone.
    fn naive(ensemble: &Ensemble, set: &[ServerId]) -> bool {
        let mut groups = BTreeMap::<i64, (u64, u64)>::new();
        for member in ensemble.members.iter().filter(|member| !member.observer) {
            let weight = ensemble.weights.get(&member.id).copied().unwrap_or(1);
            let group = groups.entry(ensemble.groups[&member.id]).or_default();
            group.1 += weight;
            if set.contains(&member.id) {
                group.0 += weight;
            }
        }
        groups.retain(|_, (_, total)| *total > 0);
        groups.values().filter(|(have, total)| have * 2 > *total).count() * 2 > groups.len()
    }

    #[test]
    fn groups_decide_as_the_words_say() {
        let text = servers(7) + "group.1=1:2:3\ngroup.2=4:5\ngroup.3=6:7\nweight.1=5\nweight.7=0\nweight.4=3";
        let ensemble = ensemble(&text);
        let quorum = Quorum::new(&ensemble).unwrap();
        for bits in 0..1u64 << 7 {
            let set: Vec<_> = quorum
                .voters()
                .iter()
                .copied()
                .enumerate()
                .filter(|(i, _)| bits & 1 << i != 0)
                .map(|(_, id)| id)
                .collect();
            assert_eq!(quorum.decides(Voters(bits)), naive(&ensemble, &set), "{set:?}");
        }
        assert!(!quorum.electable(ServerId(7)) && quorum.electable(ServerId(6)));
        assert!(!quorum.electable(ServerId(8)));
    }

    #[test]
    fn an_ensemble_that_cannot_decide_is_refused() {
        let check = |text: String, expected| {
            assert_eq!(Quorum::new(&ensemble(&text)).unwrap_err(), expected);
        };
        check("server.1=a:1:2:observer".into(), QuorumError::NoVoter);
        check(servers(65), QuorumError::TooManyVoters(65));
        check(servers(3) + "group.1=1:2", QuorumError::NotInGroup(ServerId(3)));
        check(servers(2) + "group.1=1:2\nweight.1=0\nweight.2=0", QuorumError::NoWeight);
    }

    #[test]
    fn observers_do_not_count() {
        let quorum = Quorum::new(&ensemble(&(servers(3) + "server.4=a:1:2:observer"))).unwrap();
        assert_eq!(quorum.place(ServerId(4)), None);
        assert!(quorum.decides(Voters::NONE.with(0).with(2)));
        assert!(!quorum.decides(Voters::NONE.with(1)));
    }
}
