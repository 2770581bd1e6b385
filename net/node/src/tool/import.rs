//! `myelin tool import prometheus-block`: blocks of Prometheus become blocks of a node that does not run.
//!
//! A block is a step: written, synced, renamed. Its id follows from its name and the tenant, so an import that was interrupted is called again and passes over what is
//! there, or has been merged once. What is imported counts as logged later than all that is there.
//!
//! Memory: the index of one block, the samples of one series, a megabyte of chunks.

use std::collections::HashMap;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use block::{Catalog, FileKind, FileWriter, Info};
use model::TenantId;
use promblock::{ChunkRef, Index, Meta, Samples};
use reactor::Reactor;

use super::options::{Line, ended, open};

/// Bytes of a segment that are read at once.
const AHEAD_BYTES: usize = 1 << 20;

pub(super) fn run(words: &[&str]) -> ExitCode {
    match Line::parse(words, false) {
        Ok(line) => ended(import(&line)),
        Err(error) => {
            eprintln!("myelin tool import: {error}");
            ExitCode::from(2)
        }
    }
}

/// Imports all; tells what was done.
fn import(line: &Line) -> Result<String, String> {
    let mut blocks = Vec::new();
    for dir in &line.dirs {
        find(dir, &mut blocks)?;
    }
    blocks.sort_by(|a, b| (a.1.times, &a.1.ulid).cmp(&(b.1.times, &b.1.ulid)));
    let (mut reactor, catalog) = open(&line.data, true)?;
    let (mut series, mut samples, mut known) = (0, 0, 0);
    let count = blocks.len();
    for (number, (dir, meta)) in blocks.iter().enumerate() {
        let id = id_of(meta, &line.tenant)?;
        let is_there = catalog.list().iter().any(|block| {
            let info = &block.meta().info;
            info.id == id || info.sources.contains(&id)
        });
        if is_there {
            known += 1;
            continue;
        }
        let mut progress = Progress::new(format!("block {} of {count}, {}", number + 1, meta.ulid));
        let path = shard::blocks_directory(&line.data).join(format!("import-{id:032x}.block"));
        let mut one = One {
            reactor: &mut reactor,
            catalog: &catalog,
            tenant: &line.tenant,
            progress: &mut progress,
        };
        let done = one.import(dir, &path, id);
        let done = done.map_err(|reason| format!("{}: {reason}", dir.display()))?;
        progress.end(&format!("{} series, {} samples", done.0, done.1));
        series += done.0;
        samples += done.1;
    }
    let mut told = format!(
        "{} blocks with {samples} samples of {series} series were imported for tenant {} into {}",
        count - known,
        line.tenant,
        line.data.display()
    );
    if known > 0 {
        told.push_str(&format!("; {known} were there already"));
    }
    told.push_str(
        ".\nWhat is older than -ingester.retention, counted from the tenant's newest sample, goes when the node runs.\n",
    );
    Ok(told)
}

/// A directory that is a block, or those in it that are.
fn find(dir: &Path, blocks: &mut Vec<(PathBuf, Meta)>) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
    let read = |dir: &Path| -> Result<Option<Meta>, String> {
        match std::fs::read(dir.join("meta.json")) {
            Ok(bytes) => Ok(Some(Meta::parse(&bytes).map_err(|e| told(&e))?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(told(&error)),
        }
    };
    if let Some(meta) = read(dir)? {
        blocks.push((dir.to_owned(), meta));
        return Ok(());
    }
    let before = blocks.len();
    for entry in std::fs::read_dir(dir).map_err(|e| told(&e))? {
        let path = entry.map_err(|e| told(&e))?.path();
        // Prometheus has other directories and half-made blocks beside them.
        let name = path.file_name().and_then(|name| name.to_str());
        if path.is_dir()
            && name.is_some_and(|name| promblock::ulid_value(name).is_some())
            && let Some(meta) = read(&path)?
        {
            blocks.push((path, meta));
        }
    }
    match blocks.len() > before {
        true => Ok(()),
        false => Err(told(
            &"neither a block of Prometheus (no meta.json) nor a directory of such",
        )),
    }
}

/// The id of what a block becomes: that of its name, apart for each tenant.
fn id_of(meta: &Meta, tenant: &TenantId) -> Result<u128, String> {
    let ulid = promblock::ulid_value(&meta.ulid).ok_or_else(|| {
        format!(
            "meta.json names the block {:?}, which is no ULID",
            meta.ulid
        )
    })?;
    // FNV-1a: the same on every machine and in every version.
    let mix = |sum: u128, byte: u8| {
        (sum ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    };
    Ok(tenant.as_str().bytes().fold(ulid, mix))
}

/// The import of one block.
struct One<'a> {
    reactor: &'a mut Reactor,
    catalog: &'a Catalog,
    tenant: &'a TenantId,
    progress: &'a mut Progress,
}

impl One<'_> {
    /// Gives how many series and samples it had.
    fn import(&mut self, dir: &Path, path: &Path, id: u128) -> Result<(u64, u64), String> {
        let bytes = std::fs::read(dir.join("index")).map_err(|e| format!("index: {e}"))?;
        let index = Index::parse(bytes).map_err(|e| e.to_string())?;
        let gone = match std::fs::read(dir.join("tombstones")) {
            Ok(bytes) => promblock::tombstones(&bytes).map_err(|e| e.to_string())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => HashMap::new(),
            Err(error) => return Err(format!("tombstones: {error}")),
        };
        let info = Info {
            id,
            kind: FileKind::Block,
            level: 0,
            order: self.catalog.next_order(),
            created_ms: self.reactor.wall_ms(),
            origin: String::new(),
            core: 0,
            sources: Vec::new(),
        };
        let failed = |error: block::Error| error.to_string();
        let options = block::Options::default();
        let mut writer = FileWriter::begin(self.reactor, path, info, options, 0).map_err(failed)?;
        let filled = self.fill(&mut writer, dir, &index, &gone);
        match filled {
            Ok((series, samples)) if samples > 0 => {
                writer.complete(self.reactor).map_err(failed)?;
                self.catalog.add(self.reactor, path).map_err(failed)?;
                Ok((series, samples))
            }
            other => {
                writer.discard_now(self.reactor);
                other
            }
        }
    }

    fn fill(
        &mut self,
        writer: &mut FileWriter,
        dir: &Path,
        index: &Index,
        gone: &HashMap<u64, Vec<(i64, i64)>>,
    ) -> Result<(u64, u64), String> {
        let failed = |error: block::Error| error.to_string();
        writer.builder().tenant(self.tenant).map_err(failed)?;
        let mut segments = Segments::new(dir);
        let (mut series, mut samples) = (0, 0);
        for at in 0..index.series_count() {
            let (reference, labels, chunks) = index.series(at).map_err(|e| e.to_string())?;
            let mut found = Samples::default();
            for chunk in chunks {
                let bytes = segments.chunk(chunk)?;
                promblock::decode_chunk(&bytes, chunk, &mut found).map_err(|e| e.to_string())?;
            }
            if let Some(gone) = gone.get(&reference) {
                remove(&mut found, gone);
            }
            let histograms = found.histogram_times.into_iter().zip(found.histograms);
            let floats = (&found.times[..], &found.values[..]);
            writer.builder().series(&labels).map_err(failed)?;
            let added = block::add_samples(writer.builder(), floats, histograms.collect());
            let added = added.map_err(failed)?;
            samples += added;
            series += u64::from(added > 0);
            writer.settle(self.reactor).map_err(failed)?;
            self.progress.show(at + 1, index.series_count());
        }
        Ok((series, samples))
    }
}

/// Takes out what has been deleted.
fn remove(samples: &mut Samples, gone: &[(i64, i64)]) {
    let stays = |time: &i64| !gone.iter().any(|(min, max)| (min..=max).contains(&time));
    let mut kept = samples.times.iter().map(stays);
    samples.values.retain(|_| kept.next().unwrap_or(true));
    samples.times.retain(stays);
    let mut kept = samples.histogram_times.iter().map(stays);
    samples.histograms.retain(|_| kept.next().unwrap_or(true));
    samples.histogram_times.retain(stays);
}

/// The files of chunks of a block, read ahead: chunks lie in the order of series.
struct Segments<'a> {
    dir: &'a Path,
    open: Option<(u32, File)>,
    /// Where in the segment `ahead` begins.
    from: u64,
    ahead: Vec<u8>,
}

impl Segments<'_> {
    fn new(dir: &Path) -> Segments<'_> {
        Segments {
            dir,
            open: None,
            from: 0,
            ahead: Vec::new(),
        }
    }

    /// The bytes of a chunk; more may follow.
    fn chunk(&mut self, chunk: ChunkRef) -> Result<Vec<u8>, String> {
        let told = |error: &dyn std::fmt::Display| {
            format!("{}: {error}", promblock::segment_name(chunk.segment))
        };
        if self
            .open
            .as_ref()
            .is_none_or(|open| open.0 != chunk.segment)
        {
            let path = self.dir.join(promblock::segment_name(chunk.segment));
            let file = File::open(path).map_err(|e| told(&e))?;
            self.open = Some((chunk.segment, file));
            self.ahead.clear();
        }
        let (_, file) = self.open.as_ref().expect("opened above");
        let offset = u64::from(chunk.offset);
        let mut wanted = 16;
        loop {
            let inside = offset
                .checked_sub(self.from)
                .and_then(|at| self.ahead.get(at as usize..));
            if let Some(bytes) = inside.filter(|bytes| bytes.len() >= wanted) {
                let len = promblock::framed_len(bytes).map_err(|e| e.to_string())?;
                if bytes.len() >= len {
                    return Ok(bytes[..len].to_vec());
                }
                wanted = len;
            }
            let len = wanted.max(AHEAD_BYTES);
            let before = (self.from, self.ahead.len());
            self.from = offset;
            self.ahead.clear();
            let mut part = vec![0; len];
            let mut got = 0;
            while got < len {
                match file.read_at(&mut part[got..], offset + got as u64) {
                    Ok(0) => break,
                    Ok(more) => got += more,
                    Err(error) => return Err(told(&error)),
                }
            }
            part.truncate(got);
            self.ahead = part;
            // Shorter than asked for: the segment ends.
            if got < wanted || (self.from, got) == before {
                let whole = promblock::framed_len(&self.ahead).map_err(|e| e.to_string())?;
                return match self.ahead.get(..whole) {
                    Some(bytes) => Ok(bytes.to_vec()),
                    None => Err(told(&"it ends within a chunk")),
                };
            }
        }
    }
}

/// A line that is written over on a terminal; elsewhere a line for each block.
struct Progress {
    what: String,
    shown: Option<Instant>,
    live: bool,
}

/// How often the line changes.
const SHOW_EVERY: Duration = Duration::from_millis(200);
/// Letters of the bar.
const BAR: usize = 30;

impl Progress {
    fn new(what: String) -> Progress {
        let live = std::io::stderr().is_terminal();
        Progress {
            what,
            shown: None,
            live,
        }
    }

    fn show(&mut self, done: usize, total: usize) {
        if !self.live || self.shown.is_some_and(|at| at.elapsed() < SHOW_EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        let full = (done * BAR).checked_div(total).unwrap_or(BAR);
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
        eprint!("\r{}: [{bar}] {done} of {total} series", self.what);
        let _ = std::io::stderr().flush();
    }

    fn end(&self, told: &str) {
        let over = if self.live { "\r\x1b[K" } else { "" };
        eprintln!("{over}{}: {told}", self.what);
    }
}
