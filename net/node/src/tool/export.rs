//! `myelin tool export prometheus-block`: what the blocks of a node hold of a tenant, as blocks of Prometheus.
//!
//! 1. All parts of the tenant are merged into one file in the target directory, so that each sample is there once.
//! 2. For each day that has samples a block is written beside its name and renamed, as Prometheus does it.
//!
//! Memory: labels and places of chunks of a block, the samples of a thousand series over a day.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use block::{Block, Drops, FileKind, FileWriter, Index, Info, Input, Merge, Run, SharedFile};
use promblock::{Samples, Writer};
use reactor::Reactor;

use super::options::{Line, ended, open};

/// Time of a block, aligned to 1970.
const DAY_MS: i64 = 24 * 3_600_000;
/// Series whose samples are read at once.
const SERIES_AT_ONCE: usize = 1000;

pub(super) fn run(words: &[&str]) -> ExitCode {
    let line = Line::parse(words, true).and_then(|line| match line.dirs[..] {
        [_] => Ok(line),
        _ => Err("one directory, please".to_owned()),
    });
    match line {
        Ok(line) => ended(export(&line)),
        Err(error) => {
            eprintln!("myelin tool export: {error}");
            ExitCode::from(2)
        }
    }
}

fn export(line: &Line) -> Result<String, String> {
    let target = &line.dirs[0];
    let (mut reactor, catalog) = open(&line.data, false)?;
    fs::create_dir_all(target).map_err(|e| format!("{}: {e}", target.display()))?;
    let sources = catalog.overlapping(&line.tenant, line.times.0, line.times.1);
    if sources.is_empty() {
        let (tenant, data) = (&line.tenant, line.data.display());
        return Err(format!(
            "{data} has no blocks of tenant {tenant} in that time"
        ));
    }
    let whole = target.join("export.tmp");
    let deleted = catalog.deletions().tombstones(&line.tenant);
    let drops = Drops {
        keep_from: None,
        tombstones: deleted.to_vec(),
    };
    let merged = merge(&mut reactor, line, &sources, &drops, &whole);
    let done = merged.and_then(|()| {
        let opened = SharedFile::open(&mut reactor, &whole).and_then(|mut file| {
            let block = Block::open(&mut file)?;
            let index = block.index(&mut file, &line.tenant)?;
            Ok((file, index))
        });
        let (file, index) = opened.map_err(|error| error.to_string())?;
        let Some(index) = index else {
            return Ok((0, 0));
        };
        days(line, &index, file, target)
    });
    // What was merged is of no use any more.
    let _ = fs::remove_file(&whole);
    let (blocks, samples) = done?;
    Ok(format!(
        "{blocks} blocks with {samples} samples of tenant {} were written to {}.\n",
        line.tenant,
        target.display()
    ))
}

/// Each sample once, in one file, without what was deleted.
fn merge(
    reactor: &mut Reactor,
    line: &Line,
    sources: &[std::sync::Arc<block::StoredBlock>],
    drops: &Drops,
    path: &Path,
) -> Result<(), String> {
    let failed = |error: block::Error| error.to_string();
    let info = Info {
        id: block::fresh_id(0),
        kind: FileKind::Block,
        // Only so may nothing be left.
        level: 1,
        order: 1,
        created_ms: reactor.wall_ms(),
        origin: String::new(),
        core: 0,
        sources: Vec::new(),
    };
    let options = block::Options {
        effort: block::Effort::Fast,
        ..Default::default()
    };
    let mut writer = FileWriter::begin(reactor, path, info, options, 0).map_err(failed)?;
    writer.builder().tenant(&line.tenant).map_err(failed)?;
    let mut files: Vec<SharedFile> = sources.iter().map(|source| source.source()).collect();
    let mut inputs = Vec::new();
    for (file, source) in files.iter_mut().zip(sources) {
        let input = Input::of(source.block(), file, &line.tenant);
        inputs.extend(input.map_err(failed)?);
    }
    let mut merge = Merge::begin(&mut inputs, drops);
    loop {
        let step = merge.step(writer.builder());
        match step.and_then(|more| writer.settle(reactor).map(|()| more)) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => {
                writer.discard_now(reactor);
                return Err(failed(error));
            }
        }
    }
    writer.complete(reactor).map_err(failed)?;
    Ok(())
}

/// Writes the blocks of all days; gives how many, and how many samples.
fn days(
    line: &Line,
    index: &Index,
    mut file: SharedFile,
    target: &Path,
) -> Result<(usize, u64), String> {
    let part = index.part();
    let first = part.min_time.max(line.times.0).div_euclid(DAY_MS);
    let last = part.max_time.min(line.times.1).div_euclid(DAY_MS);
    let (mut blocks, mut samples) = (0, 0);
    for day in first..=last {
        let from = day.saturating_mul(DAY_MS).max(line.times.0);
        let to = (day + 1).saturating_mul(DAY_MS).saturating_sub(1);
        let range = (from, to.min(line.times.1));
        if let Some(written) = one_day(index, &mut file, range, target)? {
            blocks += 1;
            samples += written;
            let bounds = (range.0, range.1);
            eprintln!("{written} samples from {} to {} ms", bounds.0, bounds.1);
        }
    }
    Ok((blocks, samples))
}

fn one_day(
    index: &Index,
    file: &mut SharedFile,
    range: (i64, i64),
    target: &Path,
) -> Result<Option<u64>, String> {
    let all: Vec<u32> = (0..index.series_count()).collect();
    if index.pages(&all, &range.into()).is_empty() {
        return Ok(None);
    }
    let ulid = ulid();
    let name = promblock::ulid_text(ulid);
    let unfinished = target.join(format!("{name}.tmp-for-creation"));
    let told = |error: std::io::Error| format!("{}: {error}", unfinished.display());
    fs::create_dir_all(unfinished.join("chunks")).map_err(told)?;
    let mut writer = Writer::default();
    let mut segments = Segments {
        dir: unfinished.clone(),
        open: None,
    };
    for some in all.chunks(SERIES_AT_ONCE) {
        let labels = index.labels(file, some).map_err(|e| e.to_string())?;
        let mut samples = vec![Samples::default(); some.len()];
        let mut unsound = None;
        let read = index.read(file, some, range, &mut |number, run| {
            let of_series = &mut samples[(number - some[0]) as usize];
            if let Err(error) = take(&run, range, of_series) {
                unsound = Some(error.to_string());
            }
        });
        read.map_err(|e| e.to_string())?;
        if let Some(reason) = unsound {
            return Err(reason);
        }
        for (labels, samples) in labels.iter().zip(&samples) {
            writer.series(labels, samples);
            segments.append(&mut writer).map_err(told)?;
        }
    }
    let built = writer.finish(ulid);
    segments.append(&mut writer).map_err(told)?;
    let Some(built) = built else {
        fs::remove_dir_all(&unfinished).map_err(told)?;
        return Ok(None);
    };
    segments.end().map_err(told)?;
    for (name, bytes) in [("index", &built.index), ("meta.json", &built.meta)] {
        let mut file = File::create(unfinished.join(name)).map_err(told)?;
        file.write_all(bytes).map_err(told)?;
        file.sync_all().map_err(told)?;
    }
    fs::rename(&unfinished, target.join(name)).map_err(told)?;
    Ok(Some(built.samples))
}

/// Samples of a range out of a run. A sealed chunk comes whole.
fn take(run: &Run<'_>, (min, max): (i64, i64), into: &mut Samples) -> Result<(), chunk::Error> {
    match run {
        Run::Floats { times, values } => {
            into.times.extend_from_slice(times);
            into.values.extend_from_slice(values);
            Ok(())
        }
        Run::Sealed(sealed) if chunk::holds_histograms(sealed.bytes) => chunk::decode_histograms(
            sealed.bytes,
            min,
            max,
            &mut into.histogram_times,
            &mut into.histograms,
        ),
        Run::Sealed(sealed) => {
            chunk::decode_range(sealed.bytes, min, max, &mut into.times, &mut into.values)
        }
    }
}

/// The name of a new block: the time, and chance.
fn ulid() -> u128 {
    let now = crate::node::now_ms().max(0) as u128;
    let chance = block::fresh_id(now as u64);
    (now & ((1 << 48) - 1)) << 80 | chance & ((1 << 80) - 1)
}

/// The files of chunks that are being written.
struct Segments {
    dir: PathBuf,
    open: Option<(u32, File)>,
}

impl Segments {
    fn append(&mut self, writer: &mut Writer) -> std::io::Result<()> {
        for (number, bytes) in writer.take() {
            if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
                self.end()?;
                let path = self.dir.join(promblock::segment_name(number));
                self.open = Some((number, File::create(path)?));
            }
            let (_, file) = self.open.as_mut().expect("opened above");
            file.write_all(&bytes)?;
        }
        Ok(())
    }

    fn end(&mut self) -> std::io::Result<()> {
        match self.open.take() {
            Some((_, file)) => file.sync_all(),
            None => Ok(()),
        }
    }
}
