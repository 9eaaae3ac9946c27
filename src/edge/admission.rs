//! How fast connections may become sessions (row R7; Java's `BlueThrottle`): after a failure of the network ten
//! thousand clients come back at once, and each new session is a transaction.
//!
//! Shared by the client cores behind a lock that only handshakes take, and only where the throttle is on.

use crate::config::protection::ConnectionThrottle;
use std::sync::{Mutex, PoisonError};

/// The bucket.
#[derive(Debug)]
pub struct Admission {
    rules: ConnectionThrottle,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: i64,
    filled_ms: u64,
    /// Chance to be turned away though there are tokens.
    drop: f64,
    changed_ms: u64,
    random: u64,
}

impl Admission {
    /// A full bucket.
    pub fn new(rules: ConnectionThrottle, seed: u64) -> Self {
        let bucket =
            Bucket { tokens: rules.tokens, filled_ms: 0, drop: 0.0, changed_ms: 0, random: seed | 1 };
        Self { rules, bucket: Mutex::new(bucket) }
    }

    /// Whether a session may be asked for now, milliseconds of the server's clock. A client that is turned away is
    /// closed without a reply and tries again, there or on another server.
    pub fn admits(&self, is_new: bool, now_ms: u64) -> bool {
        let rules = &self.rules;
        if rules.tokens == 0 {
            return true;
        }
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed_ms = i64::try_from(now_ms.saturating_sub(bucket.filled_ms)).unwrap_or(i64::MAX);
        if elapsed_ms > rules.fill_time_ms {
            let refill = elapsed_ms.saturating_mul(rules.fill_count) / rules.fill_time_ms;
            bucket.tokens = bucket.tokens.saturating_add(refill).min(rules.tokens);
            bucket.filled_ms = now_ms;
        }
        if rules.freeze_time_ms != -1 && bucket.is_dropped(rules, now_ms) {
            return false;
        }
        let cost = if is_new { rules.new_session_tokens } else { rules.renewed_session_tokens };
        if bucket.tokens < cost {
            return false;
        }
        bucket.tokens -= cost;
        true
    }
}

impl Bucket {
    /// The chance grows while the bucket is empty and shrinks while it is full, once a freeze time.
    fn is_dropped(&mut self, rules: &ConnectionThrottle, now_ms: u64) -> bool {
        let missing = rules.tokens - self.tokens;
        if now_ms.saturating_sub(self.changed_ms) > rules.freeze_time_ms.unsigned_abs() {
            if missing == rules.tokens {
                self.drop = (self.drop + rules.drop_increase).min(1.0);
            } else if missing as f64 <= (rules.tokens as f64 * rules.decrease_ratio).round() {
                self.drop = (self.drop - rules.drop_decrease).max(0.0);
            }
            self.changed_ms = now_ms;
        }
        // Xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((self.random >> 11) as f64 / (1_u64 << 53) as f64) < self.drop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(tokens: i64) -> ConnectionThrottle {
        ConnectionThrottle {
            tokens,
            fill_time_ms: 10,
            fill_count: 1,
            freeze_time_ms: -1,
            drop_increase: 0.5,
            drop_decrease: 0.25,
            decrease_ratio: 0.0,
            new_session_tokens: 3,
            renewed_session_tokens: 2,
        }
    }

    /// R7: a burst takes what the bucket holds, then as much passes as flows in.
    #[test]
    fn a_bucket_passes_a_burst_and_then_what_flows_in() {
        let admission = Admission::new(rules(9), 1);
        let passed = |from_ms: u64, to_ms: u64, is_new: bool| {
            (from_ms..to_ms).filter(|now_ms| admission.admits(is_new, *now_ms)).count()
        };
        assert_eq!(passed(0, 1, true) + (0..10).filter(|_| admission.admits(true, 0)).count(), 3);
        let in_a_second = passed(1, 1001, true);
        assert!((28..=33).contains(&in_a_second), "100 tokens, 3 each: {in_a_second}");
        let renewed = passed(1001, 2001, false);
        assert!((44..=50).contains(&renewed), "100 tokens, 2 each: {renewed}");
        assert!(Admission::new(rules(0), 1).admits(true, 0), "0 turns nobody away");
    }

    /// R7: the chance to be turned away grows while the bucket is empty, and goes again.
    #[test]
    fn an_empty_bucket_turns_more_and_more_away() {
        let admission = Admission::new(
            ConnectionThrottle { freeze_time_ms: 0, fill_count: 0, new_session_tokens: 1, ..rules(2) },
            7,
        );
        assert!(admission.admits(true, 0) && admission.admits(true, 0));
        for now_ms in 1..4 {
            assert!(!admission.admits(true, now_ms), "empty");
        }
        let mut bucket = admission.bucket.lock().unwrap();
        assert_eq!(bucket.drop, 1.0);
        bucket.tokens = 2;
        drop(bucket);
        let refused = (4..8).filter(|now_ms| !admission.admits(true, *now_ms)).count();
        assert!(refused >= 1, "the chance shrinks step by step");
    }
}
