//! Names of znodes: what is valid, where the parent ends, how a sequence number is spelled (rows T1, T6-T8).
//!
//! Pure functions over text; they know no tree.

/// The root, spelled as clients spell it. In files and digests it is the empty string (P22, P33).
pub const ROOT: &str = "/";
/// Parent of everything that the server keeps for itself.
pub const ZOOKEEPER: &str = "/zookeeper";
/// Parent of the quota nodes (T39).
pub const QUOTA: &str = "/zookeeper/quota";
/// The membership (T44).
pub const CONFIG: &str = "/zookeeper/config";

/// Whether `path` is a full, valid path of a znode (T1, Java's `PathUtils.validatePath`).
pub fn is_valid(path: &str) -> bool {
    let bytes = path.as_bytes();
    match bytes {
        [] => return false,
        [b'/'] => return true,
        [b'/', .., b'/'] => return false,
        [b'/', ..] => {}
        _ => return false,
    }
    // Both looks go through to the end, which is several bytes at a time; an early way out would be one at a time.
    let is_odd = |byte: u8| !(0x20..0x7f).contains(&byte);
    if bytes.iter().fold(false, |odd, &byte| odd | is_odd(byte)) && !path.chars().all(is_valid_character) {
        return false;
    }
    // An element that is empty, "." or ".." begins with a slash followed by a slash or a dot: rare enough to look twice.
    let pairs = bytes.iter().zip(&bytes[1..]);
    let suspicious = pairs.fold(false, |odd, (&first, &second)| {
        odd | ((first == b'/') & ((second == b'/') | (second == b'.')))
    });
    !suspicious || path[1..].split('/').all(|name| !matches!(name, "" | "." | ".."))
}

/// T1's forbidden characters. Java looks at UTF-16 units, where each supplementary character is two surrogates.
fn is_valid_character(character: char) -> bool {
    !matches!(
        character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{10ffff}'
    )
}

/// The text before the last slash, which is where Java looks for the parent (T8): `None` without any slash or with a
/// NUL in the path. The empty text is the root and is returned as [`ROOT`].
pub fn parent(path: &str) -> Option<&str> {
    let slash = last_slash(path)?;
    if path.as_bytes().iter().fold(false, |found, &byte| found | (byte == 0)) {
        return None;
    }
    Some(if slash == 0 { ROOT } else { &path[..slash] })
}

/// Where the last slash is. Names are short, so a plain loop finds it sooner than a search by words.
fn last_slash(path: &str) -> Option<usize> {
    path.as_bytes().iter().rposition(|&byte| byte == b'/')
}

/// Where the last name of a valid path starts: 1 for `/a`, 3 for `/a/b`, 1 (the end) for the root.
pub(crate) fn name_offset(path: &str) -> usize {
    last_slash(path).map_or(0, |slash| slash + 1)
}

/// Whether `path` may not be deleted (T3).
pub fn is_protected(path: &str) -> bool {
    matches!(path, ROOT | ZOOKEEPER | QUOTA | CONFIG)
}

/// Appends the sequence number that follows from the parent's raw cversion: Java's `%010d`, sign inside the width
/// (T6, T7).
pub fn push_sequence(path: &mut String, parent_cversion: i32) {
    use std::fmt::Write;
    write!(path, "{parent_cversion:010}").expect("writing to a String cannot fail");
}

/// Every proper ancestor of `path`, nearest first, ending with the root; none for the root itself.
pub fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let mut current = if path == ROOT { None } else { parent(path) };
    std::iter::from_fn(move || {
        let this = current?;
        current = if this == ROOT { None } else { parent(this) };
        Some(this)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that one replica accepts and another refuses splits the ensemble: T1 to the letter.
    #[test]
    fn validity_is_javas() {
        for valid in ["/", "/a", "/a/b", "/a.b/..c/d..", "/...", "/a b", "/\u{a0}", "/\u{fff}", "/日本"] {
            assert!(is_valid(valid), "{valid:?}");
        }
        for invalid in [
            "",
            "a",
            "a/b",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/\0",
            "/a\u{1}",
            "/a\u{1f}",
            "/a\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{ffff}",
            "/\u{1f600}",
            "/\u{fffd}",
        ] {
            assert!(!is_valid(invalid), "{invalid:?}");
        }
    }

    #[test]
    fn the_parent_is_the_text_before_the_last_slash() {
        for (path, expected) in [
            ("/", Some("/")),
            ("/a", Some("/")),
            ("/a/b", Some("/a")),
            ("/a/", Some("/a")),
            ("/a//b", Some("/a/")),
            ("a/b", Some("a")),
            ("a", None),
            ("", None),
            ("/a/\0", None),
        ] {
            assert_eq!(parent(path), expected, "{path:?}");
        }
        assert_eq!(ancestors("/a/b/c").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(ancestors("/").count(), 0);
    }

    /// T6, T7: expected values printed by Java's String.format("%010d").
    #[test]
    fn sequence_numbers_overflow_as_in_java() {
        for (cversion, expected) in [
            (0, "0000000000"),
            (5, "0000000005"),
            (i32::MAX, "2147483647"),
            (i32::MIN, "-2147483648"),
            (i32::MIN + 1, "-2147483647"),
            (-1, "-000000001"),
        ] {
            let mut path = String::new();
            push_sequence(&mut path, cversion);
            assert_eq!(path, expected);
        }
    }
}
