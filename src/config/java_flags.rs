//! System properties from `SERVER_JVMFLAGS` and `JVMFLAGS` (row O3).
//!
//! Properties without the `zookeeper.` prefix cannot be set in `zoo.cfg`, so operators pass them as `-Dname=value` in
//! these variables. We read the same ones. Heap sizes and every other JVM flag mean nothing here and are passed over.

use std::collections::BTreeMap;

/// The `-D` flags in effect, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JavaFlags {
    properties: BTreeMap<String, String>,
}

impl JavaFlags {
    /// The flags of this process's environment. `ZOO_DATADIR_AUTOCREATE_DISABLE` is one more, as in `zkServer.sh`
    /// (row O108).
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let mut flags = Self::parse(&variable("SERVER_JVMFLAGS"), &variable("JVMFLAGS"));
        if !variable("ZOO_DATADIR_AUTOCREATE_DISABLE").is_empty() {
            let name = "zookeeper.datadir.autocreate".to_owned();
            flags.properties.entry(name).or_insert_with(|| "false".to_owned());
        }
        flags
    }

    /// Splits at white space as the unquoted shell variable in `zkServer.sh` does. `jvm` comes after `server` on
    /// Java's command line there, so it wins.
    pub fn parse(server: &str, jvm: &str) -> Self {
        let mut properties = BTreeMap::new();
        for word in server.split_whitespace().chain(jvm.split_whitespace()) {
            if let Some(definition) = word.strip_prefix("-D") {
                let (name, value) = definition.split_once('=').unwrap_or((definition, ""));
                properties.insert(name.to_owned(), value.to_owned());
            }
        }
        Self { properties }
    }

    /// Value of the system property with this full name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// All names and values, in order of the name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_definitions_and_passes_over_the_rest() {
        let flags =
            JavaFlags::parse("-Xmx1000m -Djute.maxbuffer=5 -Da", "  -Djute.maxbuffer=0x400000\t-Dz.b=c=d ");
        assert_eq!(
            flags.iter().collect::<Vec<_>>(),
            [("a", ""), ("jute.maxbuffer", "0x400000"), ("z.b", "c=d")]
        );
    }
}
