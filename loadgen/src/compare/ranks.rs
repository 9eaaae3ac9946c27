//! Mann and Whitney's U: whether two sets of samples differ by more than chance.

/// Pairs of sizes up to which the distribution of U is counted instead of approximated.
const EXACT_LIMIT: usize = 20;

/// Two-sided probability of a difference like this between equal distributions; `None` below three samples a side.
pub fn mann_whitney(one: &[f64], two: &[f64]) -> Option<f64> {
    let (n, m) = (one.len(), two.len());
    if n < 3 || m < 3 {
        return None;
    }
    let mut all: Vec<(f64, bool)> =
        one.iter().map(|v| (*v, true)).chain(two.iter().map(|v| (*v, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut rank_sum, mut tie_sum, mut ties) = (0.0, 0.0, false);
    let mut at = 0;
    while at < all.len() {
        let end = at + all[at..].iter().take_while(|(value, _)| *value == all[at].0).count();
        let rank = (at + 1 + end) as f64 / 2.0;
        rank_sum += rank * all[at..end].iter().filter(|(_, first)| *first).count() as f64;
        let size = (end - at) as f64;
        tie_sum += size * size * size - size;
        ties |= end - at > 1;
        at = end;
    }
    let u = rank_sum - (n * (n + 1)) as f64 / 2.0;
    let u = u.min((n * m) as f64 - u);
    if !ties && n <= EXACT_LIMIT && m <= EXACT_LIMIT {
        return Some((2.0 * exact_tail(n, m, u as usize)).min(1.0));
    }
    let (n, m) = (n as f64, m as f64);
    let all = n + m;
    let deviation = (n * m / 12.0 * (all + 1.0 - tie_sum / (all * (all - 1.0)))).sqrt();
    if deviation == 0.0 {
        return Some(1.0);
    }
    let z = ((n * m / 2.0 - u).abs() - 0.5).max(0.0) / deviation;
    Some((2.0 * normal_tail(z)).min(1.0))
}

/// Share of the arrangements of n and m samples whose U is at most `u`.
fn exact_tail(n: usize, m: usize, u: usize) -> f64 {
    // counts[i][s]: ways to choose i of the ranks seen so far with U = s.
    let most = n * m;
    let mut counts = vec![vec![0.0_f64; most + 1]; n + 1];
    counts[0][0] = 1.0;
    for rank in 1..=n + m {
        for chosen in (1..=n.min(rank)).rev() {
            // Taken as the `chosen`-th smallest, a rank has rank - chosen of the others beneath it.
            let beneath = rank - chosen;
            for sum in beneath..=most {
                counts[chosen][sum] += counts[chosen - 1][sum - beneath];
            }
        }
    }
    let total: f64 = counts[n].iter().sum();
    counts[n][..=u.min(most)].iter().sum::<f64>() / total
}

/// Probability that a normal variable is above `z` (Abramowitz and Stegun 7.1.26, error below 1.5e-7).
fn normal_tail(z: f64) -> f64 {
    let x = z / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    0.5 * poly * (-x * x).exp()
}
