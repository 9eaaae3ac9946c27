//! The rules of the house that the compiler does not know: directions of imports, rooms for `unsafe`, sizes, names.
//!
//! Walks the whole repository, so a new file is under the rules from its first line. `rules` has the rules and their
//! tables, each with a small test below that shows it can fail.

mod bare;
mod rules;

use rules::Finding;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are not ours to judge: build output, tools, and bytes that other programs wrote.
const PASSED_OVER: &[&str] = &["target", ".git", ".venv", "zkfast-data", "golden", "__pycache__", "corpus"];

/// All text files of the repository with their paths from its root.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.to_path_buf()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries: Vec<PathBuf> = fs::read_dir(&folder)
            .expect("a folder of the repository")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        for path in entries {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_symlink() || PASSED_OVER.contains(&name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let shown =
                    path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8 path").to_owned();
                files.push((shown, text));
            }
        }
    }
    assert!(files.iter().any(|(path, _)| path == "src/lib.rs"), "the walk found the sources");
    files.sort();
    files
}

fn check(applies: impl Fn(&str) -> bool, rule: impl Fn(&str, &str) -> Vec<Finding>) {
    let mut report = String::new();
    for (path, text) in files().iter().filter(|(path, _)| applies(path)) {
        for (line, words) in rule(path, text) {
            report.push_str(&format!("{path}:{line}: {words}\n"));
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

#[test]
fn imports_run_one_way() {
    check(is_rust, rules::wrong_imports);
}

#[test]
fn unsafe_stays_in_its_rooms_with_its_reasons() {
    check(is_rust, rules::wrong_unsafe);
}

/// R16. Danger: a correction of the machine's clock expires sessions, or makes servers give up their leader.
#[test]
fn the_wall_clock_stays_in_its_rooms() {
    check(is_rust, rules::wrong_clock);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    check(is_rust, |_, source| rules::wrong_shape(source));
}

#[test]
fn names_are_nouns_of_the_field() {
    check(|_| true, |path, _| rules::wrong_name(path));
}

#[test]
fn nothing_ties_the_project_to_one_machine() {
    // The lock file names the registry of every crate; cargo writes it.
    check(|path| !path.ends_with("Cargo.lock"), |_, text| rules::wrong_text(text));
}

#[test]
fn tests_do_not_sleep() {
    check(|path| is_rust(path) || path.ends_with(".py"), rules::wrong_sleep);
}

#[test]
fn floors_lie_above_what_they_import() {
    let position = |name: &str| rules::FLOORS.iter().position(|(other, _)| *other == name);
    for (room, allowed) in rules::FLOORS {
        for lower in *allowed {
            assert!(position(lower) < position(room), "{room} imports {lower}, which is not below it");
        }
    }
}

#[test]
fn a_wrong_import_is_found_in_every_form() {
    let check = |path: &str, source: &str, expected: usize| {
        let found = rules::wrong_imports(path, source);
        assert_eq!(found.len(), expected, "{path}: {source}: {found:?}");
    };
    check("src/edge/deliver.rs", "use crate::pipeline::commit;", 1);
    check("src/edge/deliver.rs", "use crate::{config::limits, pipeline::{commit, submit}, storage};", 2);
    check("src/edge/deliver.rs", "let x = crate::storage::TxnLog::open();", 1);
    check(
        "src/edge/deliver.rs",
        "use crate::cores::lanes; // crate::pipeline\nlet s = \"crate::pipeline\";",
        0,
    );
    check("src/edge/deliver.rs", "use super::super::pipeline;", 1);
    check("src/edge/deliver.rs", "use super::reads; use super::super::edge::reads;", 0);
    check("src/status/mod.rs", "use super::pipeline::Pipeline;", 1);
    check("src/tree/prepare.rs", "use zkfast_zab::Node;", 1);
    check("src/tree/prepare.rs", "use crate::zab; use zkfast_wire::Zxid;", 0);
    check("src/zab/node.rs", "fn f(tree: &zkfast_tree::Tree) {}", 1);
    check(
        "src/pipeline/commit.rs",
        "use zkfast_tree::Tree;\nuse zkfast_zab::Node;\nuse crate::edge::deliver;",
        1,
    );
    check("loadgen/src/main.rs", "use zkfast_wire::Zxid; use zkfast::config;", 1);
    check("src/newroom/noun.rs", "", 1);
    check("src/main.rs", "use zkfast::command;", 0);
}

#[test]
fn stray_and_unexplained_unsafe_is_found() {
    let check = |path: &str, source: &str, expected: usize| {
        let found = rules::wrong_unsafe(path, source);
        assert_eq!(found.len(), expected, "{path}: {source}: {found:?}");
    };
    check("src/edge/reads.rs", "// SAFETY: fine\nunsafe { f() }", 1);
    check("src/edge/reads.rs", "// unsafe\n#![deny(unsafe_code)]\nlet unsafe_word = \"unsafe\";", 0);
    check("src/storage/ring.rs", "unsafe { f() }", 1);
    check("src/storage/ring.rs", "// SAFETY: the ring owns it\nunsafe { f() }", 0);
    check("src/storage/ring.rs", "// SAFETY: the ring owns it\nlet x =\n    unsafe { f() };", 0);
    check("src/storage/ring.rs", "// SAFETY: the ring owns it\nunsafe { f() }\nunsafe { g() }", 1);
    check("src/storage/ring.rs", "/// Does it.\nunsafe fn f() {}", 1);
    check(
        "src/storage/ring.rs",
        "/// Does it.\n///\n/// # Safety\n/// Be careful.\n#[inline]\nunsafe fn f() {}",
        0,
    );
    check("src/tree/znodes/slot.rs", "// SAFETY: no reader is left\nunsafe impl Send for Slot {}", 0);
}

#[test]
fn a_stray_wall_clock_is_found() {
    let check = |path: &str, source: &str, expected: usize| {
        let found = rules::wrong_clock(path, source);
        assert_eq!(found.len(), expected, "{path}: {source}: {found:?}");
    };
    check("src/links/peer.rs", "use std::time::{Duration, SystemTime};", 1);
    check("src/links/peer.rs", "let until = std::time::UNIX_EPOCH + LIMIT;", 1);
    check("src/pipeline/sessions.rs", "let now_ms = self.wall_ms;", 1);
    check("src/pipeline/member/leader.rs", "use crate::cores::clock; let now_ms = clock::wall_ms();", 1);
    check("src/zab/node.rs", "clock_gettime(ClockId::Realtime)", 1);
    check("src/zab/node.rs", "// wall_ms\nlet name = \"SystemTime\";", 0);
    check("src/pipeline/submit.rs", "let time_ms = self.wall_ms;", 0);
    check("src/zab/node.rs", "#[cfg(test)]\nmod tests {\nuse std::time::SystemTime;", 0);
    check("tests/links/votes.rs", "use std::time::SystemTime;", 0);
}

#[test]
fn shapes_names_places_and_sleeps_are_found() {
    assert_eq!(rules::wrong_shape("//! A file.\n").len(), 0);
    assert_eq!(rules::wrong_shape("use std::fs;\n").len(), 1);
    assert_eq!(rules::wrong_shape(&format!("//! Long.\n{}", "\n".repeat(rules::LINES_MAX))).len(), 1);
    assert_eq!(rules::wrong_name("src/edge/utils.rs").len(), 1);
    assert_eq!(rules::wrong_name("src/common/noun.rs").len(), 1);
    assert_eq!(rules::wrong_name("src/edge/reads.rs").len(), 0);
    assert_eq!(rules::wrong_text(&["cd /wo", "rk/place"].concat()).len(), 1);
    assert_eq!(rules::wrong_text("cd /var/lib/zookeeper").len(), 0);
    let sleep = "std::thread::sleep(PAUSE);";
    assert_eq!(rules::wrong_sleep("tests/crash.rs", sleep).len(), 1);
    assert_eq!(
        rules::wrong_sleep("tests/crash.rs", &format!("// Polled: it tells nobody.\n{sleep}")).len(),
        0
    );
    assert_eq!(rules::wrong_sleep("src/storage/preparer.rs", sleep).len(), 0);
    assert_eq!(
        rules::wrong_sleep("src/storage/preparer.rs", &format!("#[cfg(test)]\nmod tests {{ {sleep} }}"))
            .len(),
        1
    );
    assert_eq!(rules::wrong_sleep("tests/script.py", "time.sleep(1)").len(), 1);
}
