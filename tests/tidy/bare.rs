//! Rust source with comments and literals blanked out, so that rules see code alone.

/// `source` with every comment, string and character literal replaced by spaces. Lines and columns stay.
pub fn bare(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        match end {
            Some(end) => {
                out.extend(chars[at..end].iter().map(|&char| if char == '\n' { '\n' } else { ' ' }));
                at = end;
            }
            None => {
                out.push(chars[at]);
                at += 1;
            }
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends, `None` if none begins there.
fn literal_or_comment_end(chars: &[char], at: usize) -> Option<usize> {
    let rest = &chars[at..];
    let starts =
        |text: &str| text.chars().zip(rest).filter(|(left, right)| left == *right).count() == text.len();
    if starts("//") {
        return Some(rest.iter().position(|char| *char == '\n').map_or(chars.len(), |length| at + length));
    }
    if starts("/*") {
        return Some(block_comment_end(chars, at));
    }
    // `r` or `b` begins a literal only where no name runs into it.
    let in_name = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if !in_name && let Some(end) = raw_string_end(chars, at) {
        return Some(end);
    }
    match rest[0] {
        '"' => Some(quoted_end(chars, at, '"')),
        '\'' => character_end(chars, at),
        _ => None,
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

/// `r"..."`, `r#"..."#`, and the same after `b` or `c`.
fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let mut at = start;
    if matches!(chars[at], 'b' | 'c') {
        at += 1;
    }
    if chars.get(at) != Some(&'r') {
        return None;
    }
    at += 1;
    let hashes = chars[at..].iter().take_while(|char| **char == '#').count();
    at += hashes;
    if chars.get(at) != Some(&'"') {
        return None;
    }
    at += 1;
    while at < chars.len() {
        let closing = chars[at] == '"'
            && chars[at + 1..].iter().take(hashes).filter(|char| **char == '#').count() == hashes;
        if closing && chars.len() - at > hashes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(chars.len())
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            char if char == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A character literal, and not a lifetime.
fn character_end(chars: &[char], start: usize) -> Option<usize> {
    match (chars.get(start + 1)?, chars.get(start + 2)) {
        ('\\', _) => Some(quoted_end(chars, start, '\'')),
        (_, Some('\'')) => Some(start + 3),
        _ => None,
    }
}

#[test]
fn comments_and_literals_are_blanked_and_code_is_not() {
    let check = |source: &str, expected: &str| assert_eq!(bare(source), expected, "{source}");
    check("a // b\nc", "a     \nc");
    check("a /* b /* c */ d */ e", "a                   e");
    check(r#"f("un\"safe", 'x', '\'', b'y')"#, "f(          ,    ,     , b   )");
    check("let s = r#\"a \" b\"#; t", "let s =           ; t");
    check("fn f<'a>(x: &'a str) -> char { 'a' }", "fn f<'a>(x: &'a str) -> char {     }");
    check("for r in parser { br }", "for r in parser { br }");
    check("\"a\nb\" c", "  \n   c");
}
