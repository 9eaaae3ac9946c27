//! From a stream that shows a difference to a short one that still does: delta debugging over its steps, then over
//! the requests that leave together.

use super::stream::{Action, Step};

/// The shortest list of steps found with which `fails` is still true, in at most `tries` tries.
///
/// First halves, then quarters, and so on are left out (Zeller's ddmin); at the end single requests of bursts.
pub fn shrink(steps: &[Step], tries: usize, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut best = steps.to_vec();
    let mut tries_left = tries;
    let mut size = best.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut is_shorter = false;
        while at < best.len() && tries_left > 0 {
            let mut candidate = best.clone();
            candidate.drain(at..(at + size).min(best.len()));
            tries_left -= 1;
            if !candidate.is_empty() && fails(&candidate) {
                best = candidate;
                is_shorter = true;
            } else {
                at += size;
            }
        }
        if tries_left == 0 || (size == 1 && !is_shorter) {
            break;
        }
        size = if is_shorter && size == 1 { 1 } else { size.div_ceil(2).max(1) };
    }
    for index in 0..best.len() {
        let mut request = 0;
        while let Action::Ask(operations) = &best[index].action
            && operations.len() > 1
            && request < operations.len()
            && tries_left > 0
        {
            let mut candidate = best.clone();
            if let Action::Ask(operations) = &mut candidate[index].action {
                operations.remove(request);
            }
            tries_left -= 1;
            if fails(&candidate) {
                best = candidate;
            } else {
                request += 1;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{
        super::stream::{Avoid, Stream},
        *,
    };

    /// Danger: a shrinker that stops early shows hundreds of steps, and nobody reads them.
    #[test]
    fn a_pair_of_steps_that_belong_together_is_found() {
        let steps = Stream::of(7, 400, 1, Avoid::default()).steps;
        let (first, last) = (steps[40].clone(), steps[steps.len() - 30].clone());
        let fails = |steps: &[Step]| {
            let at = steps.iter().position(|step| *step == first);
            at.is_some_and(|at| steps[at + 1..].contains(&last))
        };
        assert!(fails(&steps));
        assert!(shrink(&steps, 1_000, fails).len() <= 3);
    }
}
