//! Four-letter words of a server with a client on it, each number replaced by `N` but for those that must be equal.

use super::peers::{self, Server, client};
use zkfast_wire::OpCode;

/// Each run of digits as `N`, and of hexadecimal digits behind `0x` as `H`; lines in order, since sets have none.
fn shape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let (mark, from, is_digit): (_, _, fn(&char) -> bool) = match char {
            '0' if rest.starts_with("0x") => ("H", 2, char::is_ascii_hexdigit),
            '0'..='9' => ("N", 0, char::is_ascii_digit),
            _ => {
                out.push(char);
                rest = &rest[char.len_utf8()..];
                continue;
            }
        };
        out.push_str(mark);
        rest = rest[from..].trim_start_matches(|char: char| is_digit(&char));
    }
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// What the words tell.
pub fn tell(server: &Server) -> String {
    let mut client = server.client(10_000);
    client.create("/w", b"", 0).expect("a node");
    // Digests are remembered behind every 128th transaction.
    for _ in 0..300 {
        client.submit(OpCode::SetData, &client::set("/w", Some(b"x"), -1));
    }
    client.flush().expect("an open connection");
    (0..300).for_each(|_| assert!(matches!(client.next(), Some(peers::Incoming::Reply { err: 0, .. }))));
    client.get("/w", true).expect("a node");
    client.children("/w", true).expect("a node");
    assert_eq!(client.exists("/absent", true), Err(-101));
    client.call(OpCode::AddWatch, &client::path_version("/w", 0)).expect("a watch");
    let mut told = Vec::new();
    let mut tell = |word: &str, text: String| told.push(format!("{word}:\n{text}"));
    let ask = |word: &str| server.four_letter(word).unwrap_or_else(|| panic!("{word} is not answered"));
    // As they are.
    for word in ["ruok", "isro", "wchs", "gtmk", "stmk\0\0\0\0\0\0\u{1}\u{2}", "gtmk"] {
        tell(word, ask(word));
    }
    // Of digests, which depend on the time, the zxids alone.
    let zxids: Vec<String> =
        ask("hash").lines().map(|line| line.split_once(": ").expect("zxid: digest").0.to_owned()).collect();
    assert_eq!(zxids, ["80", "100"]);
    tell("hash", zxids.join(" "));
    let told_of_reset = ask("crst");
    assert!(ask("cons").contains(",lzxid=0xffffffffffffffff,"), "the counts of the connection begin anew");
    client.ping();
    for word in ["wchc", "wchp", "cons", "dirs", "srst", "conf"] {
        let text = ask(word);
        // Each of the two has a directory of its own.
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("Dir=")).collect();
        tell(word, shape(&lines.join("\n")));
    }
    tell("crst", told_of_reset);
    told.join("\n")
}

/// Danger: two words that differ look the same.
#[test]
fn shapes_keep_what_is_no_number() {
    assert_eq!(shape("b=12,c=0x1f\na[1](x=-1)"), "a[N](x=-N)\nb=N,c=H");
}
