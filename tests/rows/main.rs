//! Which tests stand for which row of what a ZooKeeper server must do.
//!
//! `rows.txt` lists the rows. A test cites a row by its id, in its doc comment or beside an assertion (`C24`,
//! `W11-W13`). This one reads the sources of all tests and fails if a row that a server must have is cited nowhere and
//! no reason is given, so that a promise cannot be forgotten. What a whole file says of itself is no citation, nor is an
//! exception of a comparison, nor a range of more than [`RANGE_MAX`] rows: whoever cites so much at once tests little of it.
//!
//! `pitfalls.txt` lists bugs that others have shipped, with the same rule: a test names each by its number.
//!
//! ```text
//! cargo test --test rows -- --nocapture        # prints the rows that no test cites, with the reasons
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

struct Row {
    id: String,
    is_must: bool,
    name: String,
    reason: Option<String>,
}

/// The letters of `rows.txt`; the sources cite others too.
const LETTERS: &[&str] = &["J", "C", "OP", "E", "T", "W", "S", "A", "R", "P", "Q", "G"];
/// Rows in a range that still says that each of them is tested.
const RANGE_MAX: u32 = 4;

fn rows(text: &str) -> Vec<Row> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (row, reason) = match line.split_once(" -- ") {
                Some((row, reason)) => (row, Some(reason.to_owned())),
                None => (line, None),
            };
            let mut words = row.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_else(|| panic!("a row has three parts: {line}"));
            let (id, need, name) = (word(), word(), word());
            assert!(split(id).is_some(), "no id: {line}");
            assert!(["must", "should"].contains(&need), "must or should: {line}");
            Row { id: id.into(), is_must: need == "must", name: name.into(), reason }
        })
        .collect()
}

/// `W11` as its letters and number, if the letters are those of a list.
fn split(word: &str) -> Option<(&str, u32)> {
    let digits = word.find(|char: char| char.is_ascii_digit())?;
    let (letters, number) = word.split_at(digits);
    (LETTERS.contains(&letters) && number.len() <= 3).then_some(())?;
    Some((letters, number.parse().ok()?))
}

/// Ids in a text: alone (`C24`) or as a range (`W11-W15`).
fn citations(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let words: Vec<(&str, bool)> = text
        .split_inclusive(|char: char| !char.is_ascii_alphanumeric())
        .map(|word| {
            let is_range = word.ends_with('-');
            (word.trim_end_matches(|char: char| !char.is_ascii_alphanumeric()), is_range)
        })
        .collect();
    let mut is_end = false;
    for (index, (word, is_range)) in words.iter().enumerate() {
        let Some((letters, first)) = split(word) else { continue };
        if std::mem::take(&mut is_end) {
            continue;
        }
        let next = words.get(index + 1).and_then(|(next, _)| split(next));
        let last = match next {
            Some((same, last)) if *is_range && same == letters => last,
            _ => first,
        };
        if last >= first + RANGE_MAX {
            is_end = true;
            continue;
        }
        found.extend((first..=last).map(|number| format!("{letters}{number}")));
    }
    found
}

/// The tests in the sources: whole files below `tests` folders, and what follows `#[cfg(test)]` elsewhere.
fn test_text(path: &str, source: &str) -> Option<String> {
    let is_test_file = path.starts_with("tests/")
        || path.contains("/tests/")
        || path.contains("_tests/")
        || path.ends_with("_tests.rs");
    // A difference that is excused is none that is tested.
    let is_excuse = path.ends_with("/exceptions.rs");
    if path.starts_with("tests/rows/") || path.starts_with("tests/tidy/") || is_excuse {
        None
    } else if is_test_file || path.ends_with("/golden.rs") {
        Some(source.to_owned())
    } else {
        // A module with a file of its own is declared there, and what follows is no test.
        let starts = source.match_indices("#[cfg(test)]\nmod ").map(|(at, _)| at);
        let mut inline = starts.filter(|at| {
            let declaration = source[*at..].lines().nth(1).unwrap_or_default();
            declaration.contains('{')
        });
        inline.next().map(|at| source[at..].to_owned())
    }
}

/// The tests of all sources, without what a whole file says of itself, by path.
fn test_texts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    let mut folders = vec![root.join("tests"), root.join("src"), root.join("loadgen")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository").flatten() {
            let path = entry.path();
            let shown = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(text) = shown
                .ends_with(".rs")
                .then(|| fs::read_to_string(&path).ok())
                .flatten()
                .and_then(|source| test_text(&shown, &source))
            {
                let text: Vec<&str> =
                    text.lines().filter(|line| !line.trim_start().starts_with("//!")).collect();
                texts.push((shown, text.join("\n")));
            }
        }
    }
    texts
}

fn cited() -> BTreeMap<String, BTreeSet<String>> {
    let mut cited: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in test_texts() {
        for id in citations(&text) {
            cited.entry(id).or_default().insert(path.clone());
        }
    }
    cited
}

/// Danger: a part of ZooKeeper that clients rely on is never tested, and nobody knows.
#[test]
fn every_row_has_a_test_or_a_reason() {
    let rows = rows(include_str!("rows.txt"));
    let ids: BTreeSet<&String> = rows.iter().map(|row| &row.id).collect();
    assert_eq!(ids.len(), rows.len(), "an id stands twice");
    let cited = cited();
    let mut without = Vec::new();
    let mut tested = 0;
    for row in &rows {
        let need = if row.is_must { "must" } else { "should" };
        match (cited.get(&row.id), &row.reason) {
            (Some(_), _) => tested += 1,
            (None, Some(reason)) => println!("{:5} {need:6} {}: {reason}", row.id, row.name),
            (None, None) => without.push(format!("{:5} {need:6} {}", row.id, row.name)),
        }
    }
    println!("{tested} of {} rows are cited by tests", rows.len());
    assert!(without.is_empty(), "rows without a test and without a reason:\n{}", without.join("\n"));
}

/// Danger: a bug that others have shipped is shipped again, and the test that would have told was never written.
#[test]
fn every_known_bug_has_a_test_or_a_reason() {
    let tests = test_texts();
    let words: BTreeSet<&str> = tests
        .iter()
        .flat_map(|(_, text)| text.split(|char: char| !char.is_ascii_digit()))
        .filter(|word| !word.is_empty())
        .collect();
    let mut seen = BTreeSet::new();
    let mut without = Vec::new();
    let lines = include_str!("pitfalls.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let (bug, reason) = line.split_once(" -- ").map_or((line, None), |(bug, reason)| (bug, Some(reason)));
        let (id, what) = bug.split_once(' ').unwrap_or_else(|| panic!("an id and what went wrong: {line}"));
        let number = id.rsplit('-').next().unwrap_or_default();
        assert!(seen.insert(id), "{id} stands twice");
        assert!(!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()), "{line}");
        match reason {
            Some(reason) => println!("{id}: {what}: {reason}"),
            None if words.contains(number) => {}
            None => without.push(bug),
        }
    }
    println!("{} known bugs", seen.len());
    assert!(without.is_empty(), "bugs without a test and without a reason:\n{}", without.join("\n"));
}

/// Danger: the scan takes for a citation what is none, or misses one.
#[test]
fn citations_are_found() {
    let found = citations("/// W3, W11-W13 (C24): see ZOOKEEPER-4655, T1x, OP7. U+1F600 and E-3, S2;R1-T4");
    assert_eq!(citations("// T1-T13: all of it, W2").into_iter().collect::<Vec<_>>(), ["W2"]);
    let expected = ["W3", "W11", "W12", "W13", "C24", "OP7", "S2", "R1", "T4"];
    assert_eq!(found, expected.map(String::from).into());
    assert_eq!(test_text("src/a.rs", "//! C1\nfn f() {}\n"), None);
    assert_eq!(
        test_text("src/a.rs", "C1\n#[cfg(test)]\nmod tests {} // C2").as_deref(),
        Some("#[cfg(test)]\nmod tests {} // C2")
    );
    assert_eq!(test_text("src/a.rs", "#[cfg(test)]\nmod a_tests;\n/// C1\nfn f() {}\n"), None);
    assert!(test_text("tests/order/main.rs", "x").is_some());
    assert_eq!(test_text("tests/differential/exceptions.rs", "(row OP30)"), None);
}
