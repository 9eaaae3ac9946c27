//! The syntax of a Java properties file, as `java.util.Properties.load(InputStream)` reads it (row O1).
//!
//! Comments start with `#` or `!`; the key ends at the first unescaped `=`, `:` or white space; a line that ends in an
//! odd number of backslashes continues on the next one, whose leading white space is dropped; `\t \n \r \f \uXXXX` are
//! escapes and any other escaped character stands for itself. Bytes are ISO 8859-1, not UTF-8.

/// One `key=value` of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The key, trimmed.
    pub key: String,
    /// The value, trimmed (ZooKeeper's `QuorumPeerConfig` trims what Java would keep at the end of a line).
    pub value: String,
    /// Line on which it starts, counted from 1.
    pub line: usize,
}

/// A `\u` that is not followed by four hexadecimal digits: the only thing that Java refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedEscape {
    /// Line on which the property starts, counted from 1.
    pub line: usize,
}

/// All properties of `bytes` in file order. A key may occur several times; the last one counts.
/// A mark that the bytes are UTF-8, which some editors put at the start, is no part of the first key.
pub fn parse(bytes: &[u8]) -> Result<Vec<Property>, MalformedEscape> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut properties = Vec::new();
    let mut lines = natural_lines(bytes).enumerate();
    while let Some((index, first)) = lines.next() {
        let first = skip_white(first);
        if matches!(first.first(), None | Some(b'#' | b'!')) {
            continue;
        }
        let mut logical = first.to_vec();
        while ends_in_continuation(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.extend_from_slice(skip_white(next)),
                None => break,
            }
        }
        let line = index + 1;
        let (key, value) = split(&logical);
        let key = unescape(key).ok_or(MalformedEscape { line })?;
        let value = unescape(value).ok_or(MalformedEscape { line })?;
        properties.push(Property { key: key.trim().to_owned(), value: value.trim().to_owned(), line });
    }
    Ok(properties)
}

/// Lines ended by `\n`, `\r` or `\r\n`.
fn natural_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        match bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            None => {
                rest = None;
                Some(bytes)
            }
            Some(end) => {
                let skip = if bytes[end..].starts_with(b"\r\n") { 2 } else { 1 };
                rest = Some(&bytes[end + skip..]);
                Some(&bytes[..end])
            }
        }
    })
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0c)
}

fn skip_white(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|byte| is_white(**byte)).count()..]
}

fn ends_in_continuation(bytes: &[u8]) -> bool {
    bytes.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Key and value of a logical line, both still escaped.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let mut end = line.len();
    for (index, byte) in line.iter().enumerate() {
        if !escaped && (is_white(*byte) || matches!(byte, b'=' | b':')) {
            end = index;
            break;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    let (key, rest) = line.split_at(end);
    let rest = skip_white(rest);
    let value = match rest.first() {
        Some(b'=' | b':') => skip_white(&rest[1..]),
        _ => rest,
    };
    (key, value)
}

fn unescape(bytes: &[u8]) -> Option<String> {
    let mut units: Vec<u16> = Vec::with_capacity(bytes.len());
    let mut bytes = bytes.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            units.push(u16::from(byte));
            continue;
        }
        units.push(match bytes.next() {
            None => break,
            Some(b't') => 0x09,
            Some(b'n') => 0x0a,
            Some(b'f') => 0x0c,
            Some(b'r') => 0x0d,
            Some(b'u') => {
                let mut unit = 0u16;
                for _ in 0..4 {
                    unit = unit << 4 | char::from(bytes.next()?).to_digit(16)? as u16;
                }
                unit
            }
            Some(other) => u16::from(other),
        });
    }
    Some(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected pairs were produced with OpenJDK 17's `Properties.load`, then trimmed.
    fn check(text: &str, expected: &[(&str, &str)]) {
        let found = parse(text.as_bytes()).expect("well-formed");
        let found: Vec<_> = found.iter().map(|p| (p.key.as_str(), p.value.as_str())).collect();
        assert_eq!(found, expected, "text: {text:?}");
    }

    #[test]
    fn reads_what_java_reads() {
        check("", &[]);
        check("# a\n ! b\n\n   \t\n", &[]);
        check("a=1\nb:2\nc 3\n", &[("a", "1"), ("b", "2"), ("c", "3")]);
        check("a = 1 \r\nb : 2\rc\t\t3", &[("a", "1"), ("b", "2"), ("c", "3")]);
        check("a==1\nb=:2\nc : = 3", &[("a", "=1"), ("b", ":2"), ("c", "= 3")]);
        check("key\nkey2=", &[("key", ""), ("key2", "")]);
        check("a=one \\\n   two\\\n\tthree", &[("a", "one twothree")]);
        check("a=x\\\\\nb=2", &[("a", "x\\"), ("b", "2")]);
        check("a=x\\", &[("a", "x")]);
        check("a\\=b=c\\:d", &[("a=b", "c:d")]);
        check("a=\\u0041\\t\\q", &[("a", "A\tq")]);
        check("server.1=host:2888:3888;2181", &[("server.1", "host:2888:3888;2181")]);
        check("dataDir=C\\:\\\\data", &[("dataDir", "C:\\data")]);
        check("a=1\n# \\\nb=2", &[("a", "1"), ("b", "2")]);
    }

    #[test]
    fn lines_are_counted_where_the_property_starts() {
        let found = parse(b"# c\n\na=1\\\n  2\nb=3\n").expect("well-formed");
        assert_eq!(found.iter().map(|p| p.line).collect::<Vec<_>>(), [3, 5]);
    }

    #[test]
    fn a_broken_unicode_escape_is_refused_and_bytes_are_latin_1() {
        assert_eq!(parse(b"a=1\nb=\\u12g4"), Err(MalformedEscape { line: 2 }));
        assert_eq!(parse(b"b=\\u12"), Err(MalformedEscape { line: 1 }));
        assert_eq!(parse(b"b=\xe9").expect("well-formed")[0].value, "\u{e9}");
    }
}
