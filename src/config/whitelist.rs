//! Which four-letter words may run: `4lw.commands.whitelist` (row O43, `FourLetterCommands.isEnabled`).

use std::collections::BTreeSet;

/// The words that the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whitelist {
    every_word: bool,
    words: BTreeSet<String>,
}

impl Default for Whitelist {
    fn default() -> Self {
        Self::parse(None, false)
    }
}

impl Whitelist {
    /// From the value of the key. `srvr` is always in (`zkServer.sh status` needs it), `isro` with read-only mode.
    pub fn parse(value: Option<&str>, read_only_mode: bool) -> Self {
        let mut whitelist = Self { every_word: false, words: BTreeSet::from(["srvr".to_owned()]) };
        if read_only_mode {
            whitelist.words.insert("isro".to_owned());
        }
        for word in value.unwrap_or_default().split(',').map(str::trim) {
            match word {
                // As in Java, what follows a star is not looked at.
                "*" => {
                    whitelist.every_word = true;
                    break;
                }
                "" => {}
                word => {
                    whitelist.words.insert(word.to_owned());
                }
            }
        }
        whitelist
    }

    /// May this word run?
    pub fn allows(&self, word: &str) -> bool {
        self.every_word || self.words.contains(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_stars_and_the_default() {
        let check = |value: Option<&str>, read_only, yes: &[&str], no: &[&str]| {
            let whitelist = Whitelist::parse(value, read_only);
            assert!(yes.iter().all(|word| whitelist.allows(word)), "{value:?}");
            assert!(!no.iter().any(|word| whitelist.allows(word)), "{value:?}");
        };
        check(None, false, &["srvr"], &["ruok", "isro", "mntr", ""]);
        check(None, true, &["srvr", "isro"], &["ruok"]);
        check(Some(" ruok , mntr,,"), false, &["srvr", "ruok", "mntr"], &["isro", "ruo"]);
        check(Some("stat,*"), false, &["stat", "wchp", "ruok"], &[]);
        check(Some(""), false, &["srvr"], &["ruok"]);
    }
}
