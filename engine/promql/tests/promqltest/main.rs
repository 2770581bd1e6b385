//! Prometheus' test scripts against the engine, in process.
//!
//! Our own scripts (`tests/scripts`) must pass whole. The shared ones (`../shared/conformance/promqltest` beside the repository; a
//! printed skip where they are not) are a ratchet: every case must pass but those in `tests/expected_failures.txt`, and a case listed there
//! that passes must be taken off the list. `PROMQLTEST=file.test:12` shows the cases whose key contains that text.

mod compare;
mod memory;
mod notation;
mod run;
mod script;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use run::Outcome;

/// Parts of the language that are still to come: their cases are counted, but need not pass.
const NOT_YET: [&str; 1] = ["start-timestamp"];

fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(path)
}

/// All outcomes of a folder's scripts, by file.
fn run_folder(folder: &Path) -> BTreeMap<String, Vec<Outcome>> {
    let entries = std::fs::read_dir(folder).expect("the folder can be listed");
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.expect("the folder can be listed").path();
        if path.extension().is_none_or(|ending| ending != "test") {
            continue;
        }
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&path).expect("a script can be read");
        let blocks = script::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        files.insert(name, blocks.iter().flat_map(run::block).collect());
    }
    files
}

#[test]
fn our_own_scripts_pass() {
    let files = run_folder(&own("scripts"));
    assert!(!files.is_empty());
    let mut cases = 0;
    let mut failures = Vec::new();
    for (file, outcomes) in &files {
        for outcome in outcomes {
            cases += 1;
            let verdict = outcome.result.clone().and(outcome.notes.clone());
            if let Err(e) = verdict {
                failures.push(format!("{file}:{} {}\n  {e}", outcome.line, outcome.expr));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("{cases} cases of {} scripts pass", files.len());
    let divided = run::DIVIDED.load(Ordering::Relaxed);
    println!("{divided} evaluations in shards gave the same");
    assert!(divided > 0);
}

/// Reads `file:line reason`, or `file:line notes reason` where only warnings, infos or error texts are wrong.
fn expected_failures() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(own("expected_failures.txt")).expect("the list can be read");
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| {
            let (key, reason) = line.split_once(' ').expect("every line gives a reason");
            match reason.strip_prefix("notes ") {
                Some(reason) => (format!("{key} notes"), reason.to_owned()),
                None => (key.to_owned(), reason.to_owned()),
            }
        })
        .collect()
}

#[derive(Default)]
struct Counts {
    pass: usize,
    expected: usize,
    not_yet: usize,
    fail: usize,
    wrong_notes: usize,
}

#[test]
fn shared_scripts_pass_but_for_the_listed_cases() {
    let folder = own("../../../../shared/conformance/promqltest");
    if !folder.is_dir() {
        println!("skipped: no scripts in {}", folder.display());
        return;
    }
    let expected = expected_failures();
    let show = std::env::var("PROMQLTEST").ok();
    let mut complaints = Vec::new();
    println!("file                           pass  expected  not yet  fail  wrong notes");
    let mut total = Counts::default();
    let row = |name: &str, counts: &Counts| {
        println!(
            "{name:30} {:4} {:9} {:8} {:5} {:12}",
            counts.pass, counts.expected, counts.not_yet, counts.fail, counts.wrong_notes
        );
    };
    for (file, outcomes) in run_folder(&folder) {
        let mut counts = Counts::default();
        for outcome in &outcomes {
            let key = format!("{file}:{}", outcome.line);
            let not_yet = outcome.tags.iter().any(|tag| NOT_YET.contains(tag));
            let kinds = [
                (key.clone(), &outcome.result),
                (format!("{key} notes"), &outcome.notes),
            ];
            for (i, (key, result)) in kinds.into_iter().enumerate() {
                let listed = expected.contains_key(&key);
                let count = match (result, not_yet, listed) {
                    (Ok(()), _, true) => {
                        complaints.push(format!("{key} passes: take it off the list"));
                        &mut counts.pass
                    }
                    (Ok(()), _, false) => &mut counts.pass,
                    (Err(_), _, true) => &mut counts.expected,
                    (Err(_), true, false) => &mut counts.not_yet,
                    (Err(e), false, false) => {
                        complaints.push(format!("{key} {}\n  {e}", outcome.expr));
                        &mut counts.fail
                    }
                };
                match (i, result) {
                    (0, _) => *count += 1,
                    (_, Err(_)) => counts.wrong_notes += 1,
                    _ => {}
                }
                if let (Some(show), Err(e)) = (&show, result)
                    && key.contains(show.as_str())
                {
                    println!("{key} {} {:?}\n  {e}", outcome.expr, outcome.tags);
                }
            }
        }
        row(&file, &counts);
        total.pass += counts.pass;
        total.expected += counts.expected;
        total.not_yet += counts.not_yet;
        total.fail += counts.fail;
        total.wrong_notes += counts.wrong_notes;
    }
    row("all", &total);
    let divided = run::DIVIDED.load(Ordering::Relaxed);
    println!("{divided} evaluations in shards gave the same");
    assert!(
        complaints.is_empty(),
        "{} cases differ from what is expected:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}
