//! The state file: one line before a body is sent, one when its fate is known.
//!
//! ```text
//! myelin-bench verify 1 RUN CONNECTIONS SERIES
//! s CONNECTION TIME           about to be sent
//! a CONNECTION TIME           acknowledged: 2xx
//! r CONNECTION TIME STATUS    refused; part of it may have been stored
//! ```
//!
//! Each line is one `write` to a file opened for appending, so that lines of several threads do not mix and none that was
//! written before a kill of this process is missing. A last line without its end is ignored. The file is not synced: the
//! machine of the bench is not the one whose power is cut.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use super::pattern::Pattern;

const TITLE: &str = "myelin-bench verify 1";

/// What became of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Sent, but never answered with 2xx: it may be there, in whole or in part.
    Sent,
    /// Answered with 2xx: it must be there.
    Acknowledged,
}

/// The content of a state file.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) pattern: Pattern,
    /// For each connection: the times of its bodies.
    pub(super) bodies: Vec<BTreeMap<i64, Fate>>,
}

impl Journal {
    /// Reads a state file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Journal> {
        let text =
            fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Journal::parse(&text).with_context(|| format!("reading {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Journal> {
        // What stands behind the last line end is a line whose writing was cut short.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut lines = whole.lines();
        let pattern = lines
            .next()
            .and_then(parse_head)
            .with_context(|| format!("the first line is not \"{TITLE} ...\""))?;
        let mut bodies = vec![BTreeMap::new(); usize::from(pattern.connections)];
        for (number, line) in lines.enumerate() {
            let entry =
                parse_line(line).with_context(|| format!("line {}: {line:?}", number + 2))?;
            let (kind, connection, time) = entry;
            let Some(bodies) = bodies.get_mut(usize::from(connection)) else {
                bail!("line {}: there is no connection {connection}", number + 2);
            };
            match kind {
                // A body that is sent again stays acknowledged if it ever was.
                "s" => {
                    bodies.entry(time).or_insert(Fate::Sent);
                }
                "a" => {
                    let known = bodies.insert(time, Fate::Acknowledged);
                    ensure!(
                        known.is_some(),
                        "line {}: acknowledged but never sent",
                        number + 2
                    );
                }
                _ => ensure!(
                    bodies.contains_key(&time),
                    "line {}: never sent",
                    number + 2
                ),
            }
        }
        Ok(Journal { pattern, bodies })
    }
}

fn parse_head(line: &str) -> Option<Pattern> {
    let mut fields = line.strip_prefix(TITLE)?.split_ascii_whitespace();
    let pattern = Pattern {
        run: u64::from_str_radix(fields.next()?, 16).ok()?,
        connections: fields.next()?.parse().ok()?,
        series: fields.next()?.parse().ok()?,
    };
    fields.next().is_none().then_some(pattern)
}

fn parse_line(line: &str) -> Option<(&str, u16, i64)> {
    let mut fields = line.split(' ');
    let kind = fields.next()?;
    let connection = fields.next()?.parse().ok()?;
    let time = fields.next()?.parse().ok()?;
    let fits = match kind {
        "s" | "a" => fields.next().is_none(),
        "r" => fields.next()?.parse::<u16>().is_ok() && fields.next().is_none(),
        _ => false,
    };
    fits.then_some((kind, connection, time))
}

/// Appends to a state file; shared by all connections.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
}

impl Writer {
    /// Begins a new file; one that exists is an error.
    pub(super) fn create(path: &Path, pattern: &Pattern) -> anyhow::Result<Writer> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .with_context(|| format!("creating {}", path.display()))?;
        let writer = Writer { file };
        let Pattern {
            connections,
            series,
            ..
        } = pattern;
        writer.put(&format!(
            "{TITLE} {} {connections} {series}\n",
            pattern.run_label()
        ))?;
        Ok(writer)
    }

    /// Goes on with a file that was read before.
    pub(super) fn append(path: &Path) -> anyhow::Result<Writer> {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| format!("opening {}", path.display()))?;
        // The rest of a line that was cut short must not run into the next one.
        let end = text
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        file.set_len(end as u64)
            .with_context(|| format!("cutting {}", path.display()))?;
        Ok(Writer { file })
    }

    fn put(&self, line: &str) -> anyhow::Result<()> {
        let written = (&self.file)
            .write(line.as_bytes())
            .context("writing the state file")?;
        ensure!(written == line.len(), "the state file has no room");
        Ok(())
    }

    pub(super) fn sent(&self, connection: u16, time: i64) -> anyhow::Result<()> {
        self.put(&format!("s {connection} {time}\n"))
    }

    pub(super) fn acknowledged(&self, connection: u16, time: i64) -> anyhow::Result<()> {
        self.put(&format!("a {connection} {time}\n"))
    }

    pub(super) fn refused(&self, connection: u16, time: i64, status: u16) -> anyhow::Result<()> {
        self.put(&format!("r {connection} {time} {status}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: Pattern = Pattern {
        run: 0xabc,
        connections: 2,
        series: 3,
    };

    #[test]
    fn a_state_file_is_read_back_and_gone_on_with() {
        let path =
            std::env::temp_dir().join(format!("myelin-bench-journal-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let writer = Writer::create(&path, &PATTERN).unwrap();
        assert!(Writer::create(&path, &PATTERN).is_err());
        writer.sent(0, 5).unwrap();
        writer.acknowledged(0, 5).unwrap();
        writer.sent(1, 6).unwrap();
        writer.refused(1, 6, 503).unwrap();
        writer.put("s 1 77").unwrap();
        let writer = Writer::append(&path).unwrap();
        writer.sent(0, 7).unwrap();
        let journal = Journal::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(journal.pattern, PATTERN);
        assert_eq!(
            journal.bodies[0],
            BTreeMap::from([(5, Fate::Acknowledged), (7, Fate::Sent)])
        );
        assert_eq!(journal.bodies[1], BTreeMap::from([(6, Fate::Sent)]));
    }

    #[test]
    fn a_body_that_is_sent_again_stays_acknowledged() {
        let journal = Journal::parse("myelin-bench verify 1 1 1 1\ns 0 5\na 0 5\ns 0 5\n").unwrap();
        assert_eq!(journal.bodies[0][&5], Fate::Acknowledged);
    }

    #[test]
    fn what_is_not_a_state_file_is_refused() {
        for text in [
            "",
            "something else\n",
            "myelin-bench verify 1 1 1\n",
            "myelin-bench verify 1 1 1 1\nx 0 5\n",
            "myelin-bench verify 1 1 1 1\ns 1 5\n",
            "myelin-bench verify 1 1 1 1\na 0 5\n",
            "myelin-bench verify 1 1 1 1\ns 0 5 6\n",
        ] {
            assert!(Journal::parse(text).is_err(), "{text:?}");
        }
    }
}
