//! What prose forgets: the rules of the house that a program can check.
//!
//! Files open with `//!`, none is orphaned or too long; nothing is left to do; the arrows between crates are those that
//! `ARCHITECTURE.md` draws, and every path which it names exists; some folders keep out of each other's business.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tests::root;

/// Above this a file is asked whether it is still one subject.
const LINES_MAX: usize = 1200;

fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["storage", "engine", "net", "bench", "tests"] {
        walk(&root().join(folder), extension, &mut found);
    }
    assert!(
        !found.is_empty(),
        "no .{extension} below {}",
        root().display()
    );
    found.sort();
    found
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            if path
                .file_name()
                .is_some_and(|n| n != "target" && n != "corpus")
            {
                walk(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .expect("it lies in the project")
        .display()
        .to_string()
}

#[test]
fn every_file_opens_with_its_purpose() {
    let silent: Vec<_> = files("rs")
        .into_iter()
        .filter(|p| !read(p).starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "without `//!` on top: {silent:?}");
}

#[test]
fn no_file_has_outgrown_its_subject() {
    let long: Vec<_> = files("rs")
        .into_iter()
        .map(|p| (read(&p).lines().count(), shown(&p)))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .collect();
    assert!(long.is_empty(), "longer than {LINES_MAX} lines: {long:?}");
}

#[test]
fn nothing_is_left_to_do_and_no_test_is_put_aside() {
    // Spelled so that this file does not find itself.
    let banned = [
        ["to", "do!("],
        ["unimple", "mented!("],
        ["#[igno", "re"],
        ["TO", "DO:"],
        ["FIX", "ME"],
        ["XX", "X:"],
    ]
    .map(|p| p.concat());
    let mut found = Vec::new();
    for path in files("rs") {
        for (i, line) in read(&path).lines().enumerate() {
            if banned.iter().any(|b| line.contains(b.as_str())) {
                found.push(format!("{}:{}: {}", shown(&path), i + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn no_folder_is_called_after_nothing() {
    let vague = ["util", "utils", "common", "helpers", "misc", "mod"];
    let found: Vec<_> = files("rs")
        .into_iter()
        .filter(|p| {
            p.file_stem()
                .is_some_and(|s| vague.contains(&s.to_string_lossy().as_ref()))
        })
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

/// A module file that no `mod` names compiles nowhere and rots.
#[test]
fn no_source_file_is_orphaned() {
    let sources = files("rs");
    let mut named: BTreeSet<PathBuf> = BTreeSet::new();
    for path in &sources {
        let stem = path
            .file_stem()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        let folder = path.parent().expect("it has a parent");
        let root_like = ["lib", "main"].contains(&stem.as_str())
            || folder
                .file_name()
                .is_some_and(|f| f == "benches" || f == "examples" || f == "tests");
        let inside = if root_like {
            folder.to_owned()
        } else {
            folder.join(&stem)
        };
        let text = read(path);
        let mut at: Option<String> = None;
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("#[path = \"") {
                at = rest.split('"').next().map(str::to_owned);
                continue;
            }
            let bare = line
                .strip_prefix("pub ")
                .or_else(|| line.strip_prefix("pub(crate) "))
                .or_else(|| line.strip_prefix("pub(super) "))
                .unwrap_or(line);
            if let Some(name) = bare.strip_prefix("mod ").and_then(|r| r.strip_suffix(';')) {
                match at.take() {
                    Some(file) => named.insert(folder.join(file)),
                    None => named.insert(inside.join(format!("{name}.rs"))),
                };
            }
        }
    }
    let mut targets = BTreeSet::new();
    for manifest in files("toml")
        .into_iter()
        .filter(|p| p.ends_with("Cargo.toml"))
    {
        let folder = manifest.parent().expect("it has a parent");
        for line in read(&manifest).lines() {
            if let Some(path) = line
                .strip_prefix("path = \"")
                .and_then(|r| r.strip_suffix('"'))
            {
                targets.insert(folder.join(path));
            }
        }
        for usual in ["src/lib.rs", "src/main.rs", "build.rs"] {
            targets.insert(folder.join(usual));
        }
    }
    let own_target = |p: &Path| {
        let folder = p
            .parent()
            .and_then(Path::file_name)
            .map(|f| f.to_string_lossy().into_owned())
            .unwrap_or_default();
        let crate_level = p
            .parent()
            .and_then(Path::parent)
            .is_some_and(|d| d.join("Cargo.toml").is_file());
        crate_level && ["tests", "benches", "examples"].contains(&folder.as_str())
    };
    let orphans: Vec<_> = sources
        .iter()
        .filter(|p| !named.contains(*p) && !targets.contains(*p) && !own_target(p))
        .map(|p| shown(p))
        .collect();
    assert!(orphans.is_empty(), "no `mod` names them: {orphans:?}");
}

/// Our own crates, by name, and what each depends on of ours (development dependencies apart).
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let manifests: Vec<(String, String)> = files("toml")
        .into_iter()
        .filter(|p| p.ends_with("Cargo.toml") && !p.ends_with("tests/fuzz/Cargo.toml"))
        .map(|p| {
            let folder = p
                .parent()
                .and_then(Path::file_name)
                .expect("it has a folder");
            (folder.to_string_lossy().into_owned(), read(&p))
        })
        .collect();
    let names: BTreeSet<String> = manifests.iter().map(|(n, _)| n.clone()).collect();
    let mut arrows = BTreeMap::new();
    for (name, text) in &manifests {
        let mut section = String::new();
        let mut uses = BTreeSet::new();
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.to_owned();
            } else if section == "[dependencies]" {
                let dependency = line.split(['.', ' ', '=']).next().unwrap_or("");
                if names.contains(dependency) {
                    uses.insert(dependency.to_owned());
                }
            }
        }
        arrows.insert(name.clone(), uses);
    }
    arrows
}

#[test]
fn the_arrow_table_of_the_architecture_is_the_real_one() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut drawn: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let table = text
        .split("<!-- arrows -->")
        .nth(1)
        .expect("ARCHITECTURE.md has an arrow table between its two marks");
    for line in table.lines().filter(|l| l.starts_with("| `")) {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let name = cells.next().unwrap_or("").trim_matches('`').to_owned();
        let uses = cells
            .next()
            .unwrap_or("")
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        drawn.insert(name, uses);
    }
    assert_eq!(
        drawn,
        arrows(),
        "left: drawn in ARCHITECTURE.md, right: the manifests"
    );
}

#[test]
fn arrows_between_folders_point_down() {
    let layer = |name: &str| {
        let is_in = |folder: &str| root().join(folder).join(name).is_dir();
        if is_in("storage") {
            0
        } else if is_in("engine") {
            1
        } else if is_in("net") {
            2
        } else {
            3
        }
    };
    for (name, uses) in arrows() {
        for used in uses {
            assert!(layer(&used) <= layer(&name), "{name} -> {used} points up");
        }
    }
}

#[test]
fn every_path_that_the_architecture_names_exists() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let mut missing = Vec::new();
    for word in text.split('`').skip(1).step_by(2) {
        let looks_like_a_path = word.contains('/')
            && !word.contains([' ', '*', '<', '{', '$'])
            && !word.starts_with(['/', '-', '.']);
        if looks_like_a_path && !root().join(word).exists() {
            missing.push(word.to_owned());
        }
    }
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what is not there: {missing:?}"
    );
}

#[test]
fn folders_keep_out_of_each_others_business() {
    let rules: [(&str, &[&str], &str); 4] = [
        (
            "engine/promql/src",
            &["async fn", "std::fs", "tokio"],
            "PromQL is pure",
        ),
        (
            "engine/shard/src",
            &["tokio", "async fn"],
            "no runtime on a core",
        ),
        (
            "storage/wal/src",
            &["std::fs::", "File::open"],
            "only the reactor opens files",
        ),
        (
            "net/wire/src",
            &["std::fs::", "tokio"],
            "wire sees bytes only",
        ),
    ];
    for (folder, words, why) in rules {
        let mut found = Vec::new();
        walk(&root().join(folder), "rs", &mut found);
        for path in found
            .iter()
            .filter(|p| !p.to_string_lossy().contains("test"))
        {
            let text = read(path);
            let code = text.lines().map(str::trim).filter(|l| !l.starts_with("//"));
            for line in code.take_while(|l| *l != "#[cfg(test)]") {
                for word in words {
                    assert!(
                        !line.contains(word),
                        "{why}: {} has `{word}`: {line}",
                        shown(path)
                    );
                }
            }
        }
    }
}

#[test]
fn unsafe_code_has_an_address() {
    let allowed = [
        "storage/reactor",
        "storage/chunk",
        "storage/model/src/prefetch.rs",
        "net/gateway/tests/allocations.rs",
        "net/node",
        "bench",
        "tests",
    ];
    for path in files("rs") {
        let name = shown(&path);
        if allowed.iter().any(|a| name.starts_with(a)) {
            continue;
        }
        for line in read(&path)
            .lines()
            .map(str::trim)
            .filter(|l| !l.starts_with("//"))
        {
            let word = ["uns", "afe {"].concat();
            assert!(!line.contains(&word), "{name}: {line}");
        }
    }
}

#[test]
fn versions_stand_in_the_workspace_only() {
    for manifest in files("toml")
        .into_iter()
        .filter(|p| p.ends_with("Cargo.toml") && !p.ends_with("tests/fuzz/Cargo.toml"))
    {
        let text = read(&manifest);
        let mut in_dependencies = false;
        for line in text.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains('=') {
                assert!(
                    line.contains("workspace = true"),
                    "{}: {line}",
                    shown(&manifest)
                );
            }
        }
    }
}

#[test]
fn the_pages_of_the_house_are_there() {
    let pages = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE",
        "docs/config.md",
        "docs/formats/wal.md",
        "docs/formats/identity.md",
    ];
    for page in pages {
        assert!(
            !read(&root().join(page)).trim().is_empty(),
            "{page} is empty"
        );
    }
    let decisions = std::fs::read_dir(root().join("docs/decisions"))
        .expect("it can be listed")
        .count();
    assert!(decisions >= 6, "{decisions} decision records");
}

#[test]
fn the_project_names_no_machine() {
    // Spelled so that this file does not find itself.
    let banned = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    for extension in ["rs", "toml", "sh", "md", "py", "yml", "yaml"] {
        let mut found = Vec::new();
        for folder in ["storage", "engine", "net", "bench", "tests", "docs", ".ci"] {
            walk(&root().join(folder), extension, &mut found);
        }
        for path in found {
            for word in &banned {
                assert!(
                    !read(&path).contains(word.as_str()),
                    "{} names a path of some machine",
                    shown(&path)
                );
            }
        }
    }
}
