//! The keys that keep others out or hold them back (rows A2, A4, A6, A18, R2, R7, R8; O54-O56, O60, O62).

use super::{ConfigError, settings::Settings};

/// Algorithms for the digests of scheme `digest` (`DigestAuthenticationProvider.digestAlg`, A4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DigestAlgorithm {
    /// Java's `SHA1`, the default.
    #[default]
    Sha1,
    /// `SHA-224`.
    Sha224,
    /// `SHA-256`.
    Sha256,
    /// `SHA-384`.
    Sha384,
    /// `SHA-512`.
    Sha512,
}

impl DigestAlgorithm {
    /// By one of the names that Java knows it by.
    fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "SHA" | "SHA1" | "SHA-1" => Self::Sha1,
            "SHA224" | "SHA-224" => Self::Sha224,
            "SHA256" | "SHA-256" => Self::Sha256,
            "SHA384" | "SHA-384" => Self::Sha384,
            "SHA512" | "SHA-512" => Self::Sha512,
            _ => return None,
        })
    }
}

/// How fast new connections may become sessions (R7): a bucket of tokens, and a chance to be turned away that grows
/// while the bucket is empty.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectionThrottle {
    /// `connection_throttle_tokens`: tokens in a full bucket; 0 turns nobody away. Already times the weight of a new
    /// session, where weights count.
    pub tokens: i64,
    /// `connection_throttle_fill_time`: milliseconds in which `fill_count` tokens come back, at least 1.
    pub fill_time_ms: i64,
    /// `connection_throttle_fill_count`, weighed as `tokens`.
    pub fill_count: i64,
    /// `connection_throttle_freeze_time`: milliseconds between two changes of the chance; -1 leaves it at 0.
    pub freeze_time_ms: i64,
    /// `connection_throttle_drop_increase`: what an empty bucket adds to the chance.
    pub drop_increase: f64,
    /// `connection_throttle_drop_decrease`: what a full one takes off.
    pub drop_decrease: f64,
    /// `connection_throttle_decrease_ratio`: the part of the bucket that may be missing for it to count as full.
    pub decrease_ratio: f64,
    /// Tokens that a new session costs: `connection_throttle_global_session_weight`, or 1 where weights do not count.
    pub new_session_tokens: i64,
    /// Tokens that a session costs that comes back: `connection_throttle_renew_session_weight`, or 1.
    pub renewed_session_tokens: i64,
}

/// Everything that holds clients back.
#[derive(Clone, PartialEq, Debug)]
pub struct Protection {
    /// `enforce.auth.schemes` with `enforce.auth.enabled`: a client must prove one of them before anything else (A18).
    /// Empty: anybody may ask.
    pub enforced_schemes: Vec<String>,
    /// `DigestAuthenticationProvider.enabled`: whether scheme `digest` exists (A2).
    pub digest_enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`.
    pub digest_algorithm: DigestAlgorithm,
    /// `largeRequestThreshold`: requests of more bytes count as large (R2); `None` for none.
    pub large_request_bytes: Option<usize>,
    /// `largeRequestMaxBytes`: bytes of large requests that the server holds at once.
    pub large_requests_bytes_max: usize,
    /// `request_throttle_max_requests`: requests in the server at once (R8); `None` for the server's own bound.
    pub requests_max: Option<usize>,
    /// `throttled_op_wait_time`: a request that was held back for longer is answered -127 (R8); `None` for never.
    pub throttled_wait_ms: Option<u64>,
    /// `request_stale_latency_check` with `request_throttle_drop_stale`: a connection whose requests were held back for
    /// longer than its session's timeout is closed, and they are dropped (R8).
    pub drops_stale: bool,
    /// The throttle of new connections.
    pub connection_throttle: ConnectionThrottle,
}

impl Protection {
    pub(super) fn read(set: &mut Settings) -> Result<Self, ConfigError> {
        let digest_enabled = set.property_switch("DigestAuthenticationProvider.enabled", true);
        let digest_algorithm = match set.property("DigestAuthenticationProvider.digestAlg") {
            None => DigestAlgorithm::default(),
            Some(name) => DigestAlgorithm::parse(name.trim()).ok_or_else(|| {
                set.error(
                    "DigestAuthenticationProvider.digestAlg",
                    format!("DigestAuthenticationProvider.digestAlg={name} is unknown"),
                    "Write SHA1, SHA-224, SHA-256, SHA-384 or SHA-512.",
                )
            })?,
        };
        let most = i64::from(i32::MAX);
        let large_request_bytes = set.property_number("largeRequestThreshold", -1, -1, most);
        let large_requests_bytes_max =
            set.property_number("largeRequestMaxBytes", 100 << 20, 0, most) as usize;
        let requests_max = set.property_number("request_throttle_max_requests", 0, 0, most);
        let throttled_wait_ms = set.property_number("throttled_op_wait_time", 0, 0, most);
        Ok(Self {
            enforced_schemes: enforced_schemes(set, digest_enabled)?,
            digest_enabled,
            digest_algorithm,
            large_request_bytes: usize::try_from(large_request_bytes).ok(),
            large_requests_bytes_max,
            requests_max: (requests_max > 0).then_some(requests_max as usize),
            throttled_wait_ms: (throttled_wait_ms > 0).then_some(throttled_wait_ms as u64),
            drops_stale: drops_stale(set),
            connection_throttle: connection_throttle(set),
        })
    }
}

/// A18: a scheme that does not exist would lock everybody out, so it stops the start, as in Apache.
fn enforced_schemes(set: &Settings, digest_enabled: bool) -> Result<Vec<String>, ConfigError> {
    if !set.property_switch("enforce.auth.enabled", false) {
        return Ok(Vec::new());
    }
    let cure = "List those that clients may prove, such as enforce.auth.schemes=digest.";
    let text = set.property("enforce.auth.schemes").unwrap_or_default();
    let schemes: Vec<String> =
        text.split(',').map(str::trim).filter(|scheme| !scheme.is_empty()).map(str::to_owned).collect();
    if schemes.is_empty() {
        let what = "enforce.auth.enabled=true without enforce.auth.schemes would let nobody in";
        return Err(set.error("enforce.auth.enabled", what, cure));
    }
    for scheme in &schemes {
        let exists = match scheme.as_str() {
            "ip" => true,
            "digest" => digest_enabled,
            _ => false,
        };
        if !exists {
            let what = format!("enforce.auth.schemes={text}: there is no scheme {scheme} here");
            return Err(set.error("enforce.auth.schemes", what, cure));
        }
    }
    Ok(schemes)
}

fn drops_stale(set: &Settings) -> bool {
    set.property_switch("request_stale_latency_check", false)
        && set.property_switch("request_throttle_drop_stale", true)
}

fn connection_throttle(set: &mut Settings) -> ConnectionThrottle {
    let most = i64::from(i32::MAX);
    let mut number = |key: &str, default: i64, least: i64| {
        set.property_number(&format!("connection_throttle_{key}"), default, least, most)
    };
    let (tokens, fill_time_ms, fill_count) =
        (number("tokens", 0, 0), number("fill_time", 1, 1), number("fill_count", 1, 0));
    let freeze_time_ms = number("freeze_time", -1, -1);
    let local = number("local_session_weight", 1, 1);
    let global = number("global_session_weight", 3, 1).max(local);
    let renewed = number("renew_session_weight", 2, 1).max(local);
    let weighs = set.property_switch("connection_throttle_weight_enabled", false);
    let (global, renewed) = if weighs { (global, renewed) } else { (1, 1) };
    let mut share = |key: &str, default: f64| {
        let key = format!("connection_throttle_{key}");
        match set.property(&key).map(str::parse::<f64>) {
            None => default,
            Some(Ok(share)) if (0.0..=1.0).contains(&share) => share,
            Some(_) => {
                set.warnings.push(format!("{key} is not a number from 0 to 1; {default} is used instead."));
                default
            }
        }
    };
    ConnectionThrottle {
        tokens: tokens * global,
        fill_time_ms,
        fill_count: fill_count * global,
        freeze_time_ms,
        drop_increase: share("drop_increase", 0.02),
        drop_decrease: share("drop_decrease", 0.002),
        decrease_ratio: share("decrease_ratio", 0.0),
        new_session_tokens: global,
        renewed_session_tokens: renewed,
    }
}
