//! `myelin tool wal inspect|verify`: the logs of a node for human eyes.
//!
//! Reading and judging are those of a start (`wal::survey` over the replay itself); here is what they are called on: which logs a directory has ([`places`]), what their records add
//! up to ([`held`]), and the words. Nothing is changed and no lock is taken, so a server may run: what it writes meanwhile may be seen or not, and where it removes what is being read the log is
//! read again.

mod held;
mod places;

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use ::wal::{Error, Flaw, Place, Record, Surveyed, Use};
use reactor::{IoMode, Options, Reactor};
use shard::ChunkAudit;

use held::Held;
use places::{Found, Log};

/// How often a log is read anew when its files go meanwhile.
const ATTEMPTS: usize = 10;

/// Damaged chunks that are told one by one.
const CHUNKS_TOLD: usize = 20;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Inspect,
    Verify,
}

/// Prints what the logs hold.
pub(super) fn inspect(dirs: &[&str]) -> ExitCode {
    run(Want::Inspect, dirs)
}

/// Reads all of them.
pub(super) fn verify(dirs: &[&str]) -> ExitCode {
    run(Want::Verify, dirs)
}

fn run(want: Want, dirs: &[&str]) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let told = all(want, dirs, &mut out, &mut |damage| {
        eprintln!("myelin tool: {damage}");
    });
    match told.and_then(|sound| out.flush().map(|()| sound)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader of the output has seen enough, as `head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("myelin tool: cannot write the output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is sound; what is not goes to `damage`, a sentence each, the first that is met first. Errors: the output.
fn all(
    want: Want,
    dirs: &[&str],
    out: &mut dyn Write,
    damage: &mut dyn FnMut(&str),
) -> io::Result<bool> {
    let mut sound = true;
    let mut damage = |text: &str| {
        sound = false;
        damage(text);
    };
    let mut reactor = match open() {
        Ok(reactor) => reactor,
        Err(error) => {
            damage(&error);
            return Ok(false);
        }
    };
    let paths: Vec<&Path> = dirs.iter().map(Path::new).collect();
    for found in places::find(&mut reactor, &paths) {
        match found {
            Found::Heading(text) => writeln!(out, "{text}")?,
            Found::Damage(text) => damage(&text),
            Found::Log(log) => one(want, &mut reactor, &log, out, &mut damage)?,
        }
        out.flush()?;
    }
    Ok(sound)
}

fn open() -> Result<Reactor, String> {
    let options = Options {
        io: IoMode::Threads,
        ..Options::default()
    };
    Reactor::open(&options).map_err(|error| error.to_string())
}

/// All that was read of a log.
struct Read {
    surveyed: Surveyed,
    /// What the records of each file add up to.
    held: BTreeMap<File, Held>,
    /// Chunks that were read in chunk files, and what is wrong with some.
    chunks: u64,
    chunk_flaws: Vec<String>,
    chunk_flaw_count: u64,
}

/// A file of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum File {
    Checkpoint(u32),
    Segment(u32),
}

fn one(
    want: Want,
    reactor: &mut Reactor,
    log: &Log,
    out: &mut dyn Write,
    damage: &mut dyn FnMut(&str),
) -> io::Result<()> {
    let mut attempts = 1;
    let read = loop {
        match read(want, reactor, log) {
            Err(error) if attempts == ATTEMPTS => break Err(error),
            Err(shard::Error::Log(Error::Changed { .. })) => attempts += 1,
            read => break read,
        }
    };
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            damage(&format!("core {}: {}", log.core, words(&error)));
            return Ok(());
        }
    };
    match want {
        Want::Inspect => print::files(out, log, &read)?,
        Want::Verify => print::verdict(out, log, &read)?,
    }
    if log.is_missed && read.surveyed.checkpoints.is_empty() {
        let dir = log.dir.display();
        damage(&format!(
            "{dir}: no log of core {} is in it: an old copy, or part of one? (A start is refused.)",
            log.core
        ));
    }
    for flaw in &read.surveyed.flaws {
        damage(&print::flaw(flaw));
    }
    for flaw in &read.chunk_flaws {
        damage(flaw);
    }
    let untold = read.chunk_flaw_count - read.chunk_flaws.len() as u64;
    if untold > 0 {
        damage(&format!(
            "{}: {untold} more chunks are damaged",
            log.dir.display()
        ));
    }
    Ok(())
}

fn read(want: Want, reactor: &mut Reactor, log: &Log) -> Result<Read, shard::Error> {
    let mut held: BTreeMap<File, Held> = BTreeMap::new();
    let (mut chunks, mut chunk_flaws, mut chunk_flaw_count) = (0, Vec::new(), 0);
    let mut audit = None;
    if want == Want::Verify {
        let reactor = open().map_err(|reason| shard::Error::Data {
            path: log.dir.clone(),
            reason,
        })?;
        audit = Some(ChunkAudit::new(reactor, &log.dir, log.core));
    }
    let mut see = |record: &Record<'_>, place: Place| {
        let file = match place {
            Place::Checkpoint(number) => File::Checkpoint(number),
            Place::Segment(number) => File::Segment(number),
        };
        held.entry(file).or_default().add(record);
        if let (Some(audit), Record::StoredChunk(chunk)) = (&mut audit, record) {
            chunks += 1;
            if let Err(error) = audit.check(chunk) {
                chunk_flaw_count += 1;
                if chunk_flaws.len() < CHUNKS_TOLD {
                    chunk_flaws.push(words(&error));
                }
            }
        }
    };
    let surveyed = ::wal::survey(reactor, &log.dir, log.core, &mut see)?;
    Ok(Read {
        surveyed,
        held,
        chunks,
        chunk_flaws,
        chunk_flaw_count,
    })
}

fn words(error: &shard::Error) -> String {
    match error {
        shard::Error::Log(error) => error.to_string(),
        error => error.to_string(),
    }
}

/// The words.
mod print {
    use super::*;

    /// One line of a log that was verified.
    pub(super) fn verdict(out: &mut dyn Write, log: &Log, read: &Read) -> io::Result<()> {
        let Surveyed {
            checkpoints,
            segments,
            flaws,
            start,
            ..
        } = &read.surveyed;
        let begun: Vec<_> = segments.iter().filter_map(|s| s.read.as_ref()).collect();
        let commits: u64 = begun.iter().map(|s| s.commits.end - s.commits.start).sum();
        let records: u64 = read.held.values().map(Held::records).sum();
        let sound = match flaws.is_empty() && read.chunk_flaw_count == 0 {
            true => "sound",
            false => "DAMAGED",
        };
        write!(
            out,
            "core {}: {sound}: {} checkpoints, {} segments, {commits} commits, {records} records, {} chunks in chunk files",
            log.core,
            checkpoints.len(),
            begun.len(),
            read.chunks
        )?;
        if start.tears.is_empty() {
            return writeln!(out);
        }
        writeln!(out, "; torn at its end, as is normal")?;
        tears(out, read)
    }

    /// All that is known of a log.
    pub(super) fn files(out: &mut dyn Write, log: &Log, read: &Read) -> io::Result<()> {
        let seen = &read.surveyed;
        writeln!(out, "core {}: {}", log.core, log.dir.display())?;
        for one in &seen.checkpoints {
            let before = match one.before {
                Some((commit, position)) => {
                    format!("all before commit {commit}, position {position}")
                }
                None => "its header is damaged".to_owned(),
            };
            let whole = if one.is_whole { "" } else { "; DAMAGED" };
            writeln!(
                out,
                "  checkpoint-{:010}: {} bytes, {before}{whole}; {}",
                one.number,
                one.len,
                usage(one.usage)
            )?;
            contents(out, read, File::Checkpoint(one.number))?;
        }
        for one in &seen.segments {
            write!(out, "  segment-{:010}: {} bytes", one.number, one.len)?;
            if let Some(read) = &one.read {
                let (commits, positions) = (&read.commits, &read.positions);
                match commits.is_empty() {
                    true => write!(out, ", no commit")?,
                    false => write!(
                        out,
                        ", {} of them with commits {} to {}, positions {} to {}",
                        read.bytes,
                        commits.start,
                        commits.end - 1,
                        positions.start,
                        positions.end
                    )?,
                }
                write!(out, ", epoch {}", read.epoch)?;
            }
            writeln!(out, "; {}", usage(one.usage))?;
            contents(out, read, File::Segment(one.number))?;
        }
        for path in &seen.unfinished {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            writeln!(out, "  {name}: being made, or a rest that a start removes")?;
        }
        let is_chunk_file = |name: &&str| name.starts_with("chunks-");
        let names: Vec<String> = seen
            .others
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let (chunks, strange): (Vec<&str>, Vec<&str>) =
            names.iter().map(String::as_str).partition(is_chunk_file);
        if !chunks.is_empty() {
            writeln!(out, "  {} chunk files", chunks.len())?;
        }
        for name in strange {
            writeln!(out, "  {name}: no file of a log, which minds it not")?;
        }
        restart(out, read)
    }

    fn usage(usage: Use) -> &'static str {
        match usage {
            Use::Read => "a start reads it",
            Use::Kept => "kept for the case that the newest checkpoint is damaged",
            Use::Prepared => "not begun: for commits to come",
            Use::Retired => "its content is in checkpoints: to be used again",
        }
    }

    fn contents(out: &mut dyn Write, read: &Read, file: File) -> io::Result<()> {
        match read.held.get(&file) {
            Some(held) => held.print(out, "    "),
            None => Ok(()),
        }
    }

    /// What a start would make of it.
    fn restart(out: &mut dyn Write, read: &Read) -> io::Result<()> {
        let seen = &read.surveyed;
        let start = &seen.start;
        let (mut all, mut files) = (Held::default(), Vec::new());
        if let Some(number) = start.checkpoint {
            files.push(File::Checkpoint(number));
        }
        files.extend(
            start
                .read
                .iter()
                .map(|segment| File::Segment(segment.number)),
        );
        for held in files.iter().filter_map(|file| read.held.get(file)) {
            all.merge(held);
        }
        let begins = match start.checkpoint {
            Some(number) => format!("checkpoint {number} and "),
            None => String::new(),
        };
        if start.is_new() {
            writeln!(out, "  a start finds nothing: a new log")?;
        } else {
            let bytes: u64 = start
                .read
                .iter()
                .map(|s| s.positions.end - s.positions.start)
                .sum();
            writeln!(
                out,
                "  a start replays {begins}{} commits with {bytes} bytes of records in {} segments, and goes on with commit {}:",
                start.commits,
                start.read.len(),
                start.next_commit
            )?;
            all.print(out, "    ")?;
        }
        tears(out, read)
    }

    fn tears(out: &mut dyn Write, read: &Read) -> io::Result<()> {
        for tear in &read.surveyed.start.tears {
            writeln!(
                out,
                "  commit {} is unfinished: {} at offset {}. That is normal: it was being written when the process or the machine stopped, or is being written now; nobody was told that it is durable, and a start drops it",
                tear.commit,
                tear.path.display(),
                tear.offset
            )?;
        }
        Ok(())
    }

    /// A flaw, with what a start makes of it.
    pub(super) fn flaw(flaw: &Flaw) -> String {
        let then = match flaw.refuses {
            true => "a start is refused; -wal.salvage drops the rest of the segment",
            false => "a start does not need it",
        };
        format!("{} ({then})", flaw.error)
    }
}

#[cfg(test)]
mod tests;
