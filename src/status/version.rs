//! The version that we tell (row O74).

/// The ZooKeeper release whose protocols, files and commands this is, then our own name and version, then the commit.
///
/// Tools read the leading digits (kazoo, Curator) or split at the first `-` and at `, built on ` (`zkServer.sh version`,
/// monitoring plug-ins), so the shape is Apache's.
pub const FULL: &str = concat!(
    "3.9.5-zkfast-",
    env!("CARGO_PKG_VERSION"),
    "-",
    env!("ZKFAST_COMMIT"),
    ", built on ",
    env!("ZKFAST_BUILD_TIME")
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_has_apache_s_shape() {
        let (version, built) = FULL.split_once(", built on ").expect("two parts");
        assert!(version.starts_with("3.9.5-zkfast-") && !version.contains(' '), "{version}");
        let (date, rest) = built.split_once(' ').expect("date and time");
        assert_eq!((date.len(), rest.len(), &rest[5..]), (10, 9, " UTC"), "{built}");
    }
}
