//! The rules of the house, each a function from one file to what is wrong with it.

use crate::bare::bare;

/// One thing that is wrong: line (from 1) and words.
pub type Finding = (usize, String);

/// Which rooms a room may import. A crate of the workspace is a room like any other. The order is the floors of
/// `src/ARCHITECTURE.md`: command > ops > pipeline, edge > storage, links, cores > status > config > tree, zab > wire.
pub const FLOORS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("tree", &["wire"]),
    ("zab", &["wire"]),
    ("config", &["wire"]),
    ("status", &["config", "wire"]),
    ("storage", &["config", "tree", "wire"]),
    ("cores", &["status", "config", "tree", "wire"]),
    ("links", &["status", "config", "zab", "wire"]),
    ("pipeline", &["storage", "links", "cores", "status", "config", "tree", "zab", "wire"]),
    ("edge", &["cores", "status", "config", "tree", "wire"]),
    ("ops", &["storage", "cores", "status", "config", "wire"]),
    (
        "command",
        &["ops", "pipeline", "links", "edge", "storage", "cores", "status", "config", "tree", "zab", "wire"],
    ),
];

/// Imports between rooms of one floor, allowed one by one.
pub const ON_ONE_FLOOR: &[(&str, &str, &str)] = &[(
    "status",
    "cores",
    "a collector of rows names the connection that asked; messages carry the collector",
)];

/// Where `unsafe` may stand, and why it is needed there. A folder ends in `/`.
pub const UNSAFE_ROOMS: &[(&str, &str)] = &[
    (
        "src/storage/ring.rs",
        "hands buffers to the kernel, which writes them to disk after the call has returned",
    ),
    ("src/storage/map.rs", "maps files and memory"),
    ("src/cores/memory.rs", "advises kernel and allocator of memory that is not handed out yet, or no more"),
    ("benches/txlog_flush.rs", "maps a file to compare writing through a mapping"),
    ("src/tree/znodes/", "versions and slots, read by other cores while one writes"),
];

/// Where the wall clock may be read, and what for (R16): whoever sets it must not expire sessions, end a wait or decide an
/// election. Whatever lasts is measured with a clock that only goes forward.
pub const WALL_CLOCK_ROOMS: &[(&str, &str)] = &[
    ("src/cores/clock.rs", "reads it"),
    ("src/pipeline/mod.rs", "looks at it once a turn"),
    ("src/pipeline/submit.rs", "ctime and mtime of transactions; the dates in `dump`"),
    ("src/pipeline/commit.rs", "how old a transaction is by its header, for `mntr`"),
    ("src/pipeline/member/latency.rs", "how old a transaction is by its header, for `mntr`"),
    ("src/pipeline/reaper.rs", "a TTL counts from mtime"),
    ("src/pipeline/member/service.rs", "times of the node that holds the configuration"),
    ("src/pipeline/snapshots.rs", "a seed"),
    ("src/edge/connection.rs", "since when a connection stands, for `cons`"),
    ("src/command/serve.rs", "a seed"),
    ("src/command/logger.rs", "dates of lines"),
];

/// Names that say nothing: a noun that was not found yet.
const NOT_NOUNS: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "base", "misc"];

/// Lines that a file may have.
pub const LINES_MAX: usize = 800;

/// The room that `path` (from the root of the repository) lies in, `None` outside `src/` and at its top.
pub fn room(path: &str) -> Option<&str> {
    let (room, _) = path.strip_prefix("src/")?.split_once('/')?;
    Some(room)
}

/// Rooms that this file imports, with the line of each import.
pub fn imports(path: &str, source: &str) -> Vec<(usize, String)> {
    let code = bare(source);
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let head = before.rfind(|char: char| !is_word(char)).map_or(before, |end| &before[end + 1..]);
        let line = before.matches('\n').count() + 1;
        match head {
            "zkfast_wire" | "zkfast_tree" | "zkfast_zab" => {
                found.push((line, head["zkfast_".len()..].to_owned()))
            }
            // In a crate of its own, `crate` is that room itself.
            "crate" if !in_own_crate(path) => {
                found.extend(names_after(&code[at + 2..]).into_iter().map(|name| (line, name)));
            }
            "zkfast" => found.extend(names_after(&code[at + 2..]).into_iter().map(|name| (line, name))),
            "super" => {
                // A path that climbs out of its room must name `crate` instead, so that this rule can see it.
                let out =
                    names_after(&code[at + 2..]).into_iter().filter(|name| room(path) != Some(name.as_str()));
                found.extend(
                    out.filter(|name| is_room(name) && climbs_out(path, before)).map(|name| (line, name)),
                );
            }
            _ => {}
        }
    }
    found
}

fn in_own_crate(path: &str) -> bool {
    matches!(room(path), Some("wire" | "tree" | "zab")) || path.starts_with("loadgen/")
}

fn is_room(name: &str) -> bool {
    FLOORS.iter().any(|(room, _)| *room == name)
}

/// Does the last of the `super`s in `before` leave the room? `super` in `mod.rs` does, the second one elsewhere.
fn climbs_out(path: &str, before: &str) -> bool {
    let supers = 1 + before.strip_suffix("super").map_or(0, |start| usize::from(start.ends_with("super::")));
    supers >= if path.ends_with("/mod.rs") { 1 } else { 2 }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The first names of a path that follows `::`: one, or those of a group in braces.
fn names_after(code: &str) -> Vec<String> {
    let code = code.trim_start();
    let first_name =
        |text: &str| text.trim_start().chars().take_while(|char| is_word(*char)).collect::<String>();
    let Some(group) = code.strip_prefix('{') else {
        return vec![first_name(code)];
    };
    let mut names = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Imports against the direction of the floors.
pub fn wrong_imports(path: &str, source: &str) -> Vec<Finding> {
    let (from, allowed): (&str, &[&str]) = match room(path) {
        Some(room) => match FLOORS.iter().find(|(name, _)| *name == room) {
            Some((name, allowed)) => (name, allowed),
            None => {
                return vec![(1, format!("room {room} is not in the table of floors (tests/tidy/rules.rs)"))];
            }
        },
        // The load generator is a client: it must know nothing of the server but the wire.
        None if path.starts_with("loadgen/") => ("loadgen", &["wire"]),
        None => return Vec::new(),
    };
    let words = |name: &str| format!("{from} must not import {name}: it may import {}", allowed.join(", "));
    imports(path, source)
        .into_iter()
        .filter(|(_, name)| is_room(name) && name != from && !allowed.contains(&name.as_str()))
        .filter(|(_, name)| !ON_ONE_FLOOR.iter().any(|(left, right, _)| *left == from && right == name))
        .map(|(line, name)| (line, words(&name)))
        .collect()
}

/// `unsafe` outside its rooms, and inside them without the reason why it is sound.
pub fn wrong_unsafe(path: &str, source: &str) -> Vec<Finding> {
    let allowed =
        UNSAFE_ROOMS.iter().any(|(name, _)| *name == path || (name.ends_with('/') && path.starts_with(name)));
    let code = bare(source);
    let lines: Vec<&str> = source.lines().collect();
    let mut findings = Vec::new();
    for (index, line) in code.lines().enumerate() {
        for keyword in words(line).filter(|(word, _)| *word == "unsafe") {
            let after = line[keyword.1 + "unsafe".len()..].trim_start();
            let is_declaration =
                after.starts_with("fn") || after.starts_with("trait") || after.starts_with("extern");
            let wanted = if is_declaration { "# Safety" } else { "SAFETY:" };
            if !allowed {
                findings.push((
                    index + 1,
                    "unsafe outside its rooms (UNSAFE_ROOMS in tests/tidy/rules.rs)".to_owned(),
                ));
            } else if !comment_above(&lines, index).contains(wanted) {
                findings.push((index + 1, format!("unsafe without a `{wanted}` text right above it")));
            }
        }
    }
    findings
}

/// The wall clock outside its rooms and outside tests.
pub fn wrong_clock(path: &str, source: &str) -> Vec<Finding> {
    const NAMES: &[&str] =
        &["SystemTime", "UNIX_EPOCH", "CLOCK_REALTIME", "Realtime", "RealtimeCoarse", "wall_ms"];
    if !path.starts_with("src/") || WALL_CLOCK_ROOMS.iter().any(|(name, _)| *name == path) {
        return Vec::new();
    }
    let found = |line: &str| words(line).any(|(word, _)| NAMES.contains(&word));
    let code = source.split_once("#[cfg(test)]\nmod tests {").map_or(source, |(code, _)| code);
    bare(code)
        .lines()
        .enumerate()
        .filter(|(_, line)| found(line))
        .map(|(index, _)| (index + 1, "the wall clock outside its rooms (WALL_CLOCK_ROOMS)".to_owned()))
        .collect()
}

/// The words of a line of code, with their columns in bytes.
fn words(line: &str) -> impl Iterator<Item = (&str, usize)> {
    line.split(|char: char| !is_word(char))
        .filter(|word| !word.is_empty())
        .map(move |word| (word, word.as_ptr() as usize - line.as_ptr() as usize))
}

/// The comment on this line and those right above its statement; attributes and the statement's own lines may lie
/// between.
fn comment_above(lines: &[&str], index: usize) -> String {
    let mut text = lines[index].split_once("//").map_or(String::new(), |(_, comment)| comment.to_owned());
    let mut code_lines = 0;
    for line in lines[..index].iter().rev() {
        let line = line.trim();
        if line.starts_with("//") {
            text = format!("{line}\n{text}");
        } else if line.starts_with("#[") || line.starts_with("#![") {
            continue;
        } else if !text.is_empty() || line.is_empty() || line.ends_with([';', '}']) || code_lines == 3 {
            break;
        } else {
            code_lines += 1;
        }
    }
    text
}

/// A file that outgrew its room, or does not say at its head what it is.
pub fn wrong_shape(source: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = source.lines().count();
    if lines > LINES_MAX {
        findings.push((lines, format!("{lines} lines, more than {LINES_MAX}: split it by phase or noun")));
    }
    if !source.starts_with("//!") {
        findings.push((1, "the first line must say what this file is: //! ...".to_owned()));
    }
    findings
}

/// A path with a part that is not a noun of the field.
pub fn wrong_name(path: &str) -> Vec<Finding> {
    let parts = path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    parts
        .filter(|part| NOT_NOUNS.contains(part))
        .map(|part| (1, format!("'{part}' names nothing: find the noun")))
        .collect()
}

/// Text that would tie the project to one machine or one registry.
pub fn wrong_text(source: &str) -> Vec<Finding> {
    // Put together here, so that this file does not contain them.
    let places = [
        ["crates", ".io"].concat(),
        ["pypi", ".org"].concat(),
        ["files.python", "hosted.org"].concat(),
        ["deb.debian", ".org"].concat(),
        ["repo1.maven", ".org"].concat(),
        ["/ro", "ot/"].concat(),
        ["/ho", "me/"].concat(),
        ["/wo", "rk/"].concat(),
    ];
    let mut findings = Vec::new();
    for (index, line) in source.lines().enumerate() {
        for place in places.iter().filter(|place| line.contains(place.as_str())) {
            findings
                .push((index + 1, format!("'{place}': a host or a path that other machines do not have")));
        }
    }
    findings
}

/// Sleeping in a test, unless a comment above says that something is polled which tells nobody when it is done, or why
/// the time itself is what the test is about.
pub fn wrong_sleep(path: &str, source: &str) -> Vec<Finding> {
    let is_python = path.ends_with(".py");
    let code = if is_python { source.to_owned() } else { bare(source) };
    let lines: Vec<&str> = source.lines().collect();
    let whole_file = path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("_tests.rs");
    let mut in_tests = whole_file;
    let mut findings = Vec::new();
    for (index, line) in code.lines().enumerate() {
        in_tests |= line.contains("#[cfg(test)]");
        let sleeps = line.contains("thread::sleep(") || (is_python && line.contains("time.sleep("));
        if in_tests && sleeps {
            let comments = lines[index.saturating_sub(4)..index].iter().map(|line| line.trim());
            let above: String = comments.filter(|line| line.starts_with(['/', '#'])).collect();
            if !["poll", "sleep"].iter().any(|word| above.to_lowercase().contains(word)) {
                findings.push((
                    index + 1,
                    "a test sleeps: await the event, or say in a comment what is polled or why it sleeps"
                        .to_owned(),
                ));
            }
        }
    }
    findings
}
