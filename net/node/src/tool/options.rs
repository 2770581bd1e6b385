//! The command line of import and export: flags as the server has them, then directories; and what both do first.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use block::Catalog;
use model::TenantId;
use reactor::{IoMode, Reactor};

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) tenant: TenantId,
    pub(super) data: PathBuf,
    /// Milliseconds, both ends included.
    pub(super) times: (i64, i64),
    pub(super) dirs: Vec<PathBuf>,
}

impl Line {
    /// Reads flags and directories; the error is a sentence.
    pub(super) fn parse(words: &[&str], with_times: bool) -> Result<Line, String> {
        let mut line = Line {
            tenant: TenantId::fake(),
            data: PathBuf::from("./data"),
            times: (i64::MIN, i64::MAX),
            dirs: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-') else {
                line.dirs.push(PathBuf::from(word));
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (name, value) = match flag.split_once('=') {
                Some(pair) => pair,
                None => {
                    let value = words.next();
                    (flag, *value.ok_or(format!("-{flag} has no value"))?)
                }
            };
            let number = || -> Result<i64, String> {
                let number = value.parse();
                number.map_err(|_| format!("-{name}: {value:?} are no milliseconds since 1970"))
            };
            match name {
                "tenant" => {
                    let tenant = TenantId::new(value);
                    line.tenant = tenant.map_err(|error| format!("-tenant: {error}"))?;
                }
                "data.dir" => line.data = PathBuf::from(value),
                "start" if with_times => line.times.0 = number()?,
                "end" if with_times => line.times.1 = number()?,
                _ => return Err(format!("no such flag: -{name}")),
            }
        }
        match line.dirs.is_empty() {
            true => Err("which directory?".to_owned()),
            false => Ok(line),
        }
    }
}

/// Takes the data directory, which no server may have, and opens its blocks. `makes`: one that is not there is made, in a directory that is.
pub(super) fn open(data: &Path, makes: bool) -> Result<(Reactor, Catalog), String> {
    let blocks = shard::blocks_directory(data);
    let wanted = match data.parent() {
        _ if !makes => blocks.as_path(),
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    if !wanted.is_dir() {
        let wanted = wanted.display();
        return Err(format!("-data.dir: there is no directory {wanted}"));
    }
    let options = reactor::Options {
        io: IoMode::Threads,
        ..Default::default()
    };
    let mut reactor = Reactor::open(&options).map_err(|error| error.to_string())?;
    shard::lock_data(&mut reactor, data).map_err(|error| error.to_string())?;
    let catalog = Catalog::default();
    let deletions = shard::deletions_directory(data);
    let opened = catalog.open_deletions(&mut reactor, &deletions);
    opened.map_err(|error| error.to_string())?;
    // Which of the pending ones count, a start of the node will know.
    let notes = catalog.open(&mut reactor, &blocks, &|_| false);
    for note in notes.map_err(|error| error.to_string())? {
        eprintln!("myelin tool: {note}");
    }
    Ok((reactor, catalog))
}

/// Tells how a tool ended.
pub(super) fn ended(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(told) => crate::say(&told),
        Err(reason) => {
            eprintln!("myelin tool: {reason}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_the_server_reads_them() {
        let words = ["-tenant=t", "--data.dir", "/d", "a", "-end=5", "b"];
        let line = Line::parse(&words, true).unwrap();
        assert_eq!(line.tenant.as_str(), "t");
        assert_eq!(line.data, PathBuf::from("/d"));
        assert_eq!(line.times, (i64::MIN, 5));
        assert_eq!(line.dirs, [PathBuf::from("a"), PathBuf::from("b")]);
        for (words, told) in [
            (&["-tenant=a/b", "x"][..], "-tenant"),
            (&["-start=x", "x"], "no milliseconds"),
            (&["-tenant"], "no value"),
            (&["-nothing=1", "x"], "no such flag: -nothing"),
            (&[], "which directory"),
        ] {
            let error = Line::parse(words, true).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        assert!(Line::parse(&["-start=1", "x"], false).is_err());
    }

    /// Story: a name that was mistyped became an empty node.
    #[test]
    fn a_data_directory_is_made_only_by_import_and_only_the_last_of_its_names() {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().join("data");
        assert!(open(&data, false).is_err());
        assert!(open(&data.join("deeper"), true).is_err());
        assert!(!data.exists());
        assert!(open(&data, true).is_ok());
        assert!(open(&data, false).is_ok());
    }
}
