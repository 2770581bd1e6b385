//! `myelin tool block inspect|verify|dump`: a block or cut for human eyes.

use std::cell::RefCell;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;

use block::{Block, FileKind, Index, LocalFile, Run, Source};
use model::TenantId;
use reactor::{IoMode, Options, Reactor};

/// Series whose labels and samples are read at once by a dump.
const SERIES_AT_ONCE: usize = 1000;

/// What ends a command: the file, or whoever reads our output.
#[derive(Debug)]
enum Stop {
    Failed(String),
    /// The reader of the output has seen enough, as `head`.
    Enough,
}

impl From<block::Error> for Stop {
    fn from(error: block::Error) -> Stop {
        Stop::Failed(error.to_string())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Enough,
            _ => Stop::Failed(format!("cannot write the output: {error}")),
        }
    }
}

fn open(file: &str) -> Result<LocalFile, Stop> {
    let options = Options {
        io: IoMode::Threads,
        ..Options::default()
    };
    let reactor = Reactor::open(&options).map_err(|e| Stop::Failed(e.to_string()))?;
    Ok(LocalFile::open(
        &Rc::new(RefCell::new(reactor)),
        Path::new(file),
    )?)
}

/// Runs `each` on every file; what is wrong with one does not keep the others from being looked at.
fn for_each(files: &[&str], each: impl Fn(&str, &mut dyn Write) -> Result<(), Stop>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let done = each(file, &mut out).and_then(|()| Ok(out.flush()?));
        match done {
            Ok(()) => {}
            Err(Stop::Enough) => break,
            Err(Stop::Failed(reason)) => {
                eprintln!("myelin tool: {reason}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// Prints footer and sizes.
pub(super) fn inspect(files: &[&str]) -> ExitCode {
    for_each(files, inspect_one)
}

fn inspect_one(file: &str, out: &mut dyn Write) -> Result<(), Stop> {
    let mut source = open(file)?;
    let block = Block::open(&mut source)?;
    let info = &block.meta().info;
    let kind = match info.kind {
        FileKind::Cut if info.level > 0 => format!("tenants together, level {}", info.level),
        FileKind::Cut => format!("cut of core {}", info.core),
        FileKind::Block => format!("block of level {}", info.level),
    };
    writeln!(
        out,
        "{file}: {kind}, format {}, {} bytes",
        block::VERSION,
        block.len()
    )?;
    writeln!(
        out,
        "  id {:032x}, order {}, made {} ms by {:?}, merged from {} files",
        info.id,
        info.order,
        info.created_ms,
        info.origin,
        info.sources.len()
    )?;
    for part in &block.meta().parts {
        if part.is_empty() {
            writeln!(out, "  tenant {}: nothing is left", part.tenant)?;
            continue;
        }
        let index = index(&block, &mut source, &part.tenant)?;
        let per = |bytes: u64, of: u64| bytes as f64 / of.max(1) as f64;
        let (series, samples) = (u64::from(part.series), part.samples);
        writeln!(
            out,
            "  tenant {}: {series} series, {samples} samples from {} to {} ms",
            part.tenant, part.min_time, part.max_time
        )?;
        writeln!(
            out,
            "    samples {} bytes in {} pages, {:.3} a sample; index {} bytes, {:.1} a series (symbols {}, label sets {}, postings {})",
            part.chunk_bytes(),
            index.page_count(),
            per(part.chunk_bytes(), samples),
            part.index_bytes(),
            per(part.index_bytes(), series),
            index.symbol_bytes(),
            index.series_bytes(),
            index.postings_bytes()
        )?;
    }
    Ok(())
}

fn index(block: &Block, source: &mut LocalFile, tenant: &TenantId) -> Result<Index, Stop> {
    let index = block.index(source, tenant)?;
    index.ok_or_else(|| {
        let held: Vec<&str> = block
            .meta()
            .parts
            .iter()
            .map(|part| part.tenant.as_str())
            .take(20)
            .collect();
        let name = source.name();
        Stop::Failed(format!(
            "{name} holds nothing of tenant {tenant}; it holds {held:?}"
        ))
    })
}

/// Verifies everything.
pub(super) fn verify(files: &[&str]) -> ExitCode {
    for_each(files, verify_one)
}

fn verify_one(file: &str, out: &mut dyn Write) -> Result<(), Stop> {
    let verified = block::verify(&mut open(file)?)?;
    writeln!(
        out,
        "{file}: sound: {} tenants, {} series, {} samples, {} pages",
        verified.tenants, verified.series, verified.samples, verified.pages
    )?;
    for (coding, spent) in &verified.codings {
        writeln!(
            out,
            "  {:9} {} runs, {} samples, {} bytes",
            coding.name(),
            spent.runs,
            spent.samples,
            spent.bytes
        )?;
    }
    Ok(())
}

/// Prints all series and samples, of one tenant or of all.
pub(super) fn dump(file: &str, tenant: Option<&str>) -> ExitCode {
    let tenant = match tenant.map(TenantId::new).transpose() {
        Ok(tenant) => tenant,
        Err(error) => {
            eprintln!("myelin tool: {error}");
            return ExitCode::from(2);
        }
    };
    for_each(&[file], |file, out| dump_one(file, tenant.as_ref(), out))
}

fn dump_one(file: &str, tenant: Option<&TenantId>, out: &mut dyn Write) -> Result<(), Stop> {
    let mut source = open(file)?;
    let block = Block::open(&mut source)?;
    let tenants: Vec<TenantId> = match tenant {
        Some(tenant) => vec![tenant.clone()],
        None => block
            .meta()
            .parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| part.tenant.clone())
            .collect(),
    };
    for tenant in tenants {
        let index = index(&block, &mut source, &tenant)?;
        writeln!(out, "# tenant {tenant}")?;
        let all: Vec<u32> = (0..index.series_count()).collect();
        for some in all.chunks(SERIES_AT_ONCE) {
            dump_series(&index, &mut source, some, out)?;
        }
    }
    Ok(())
}

fn dump_series(
    index: &Index,
    source: &mut LocalFile,
    series: &[u32],
    out: &mut dyn Write,
) -> Result<(), Stop> {
    let labels = index.labels(source, series)?;
    let mut written = Ok(());
    index.read(source, series, (i64::MIN, i64::MAX), &mut |number, run| {
        if written.is_ok() {
            written = dump_run(&labels[(number - series[0]) as usize], &run, out);
        }
    })?;
    Ok(written?)
}

fn dump_run(labels: &model::Labels, run: &Run<'_>, out: &mut dyn Write) -> io::Result<()> {
    match run {
        Run::Floats { times, values } => {
            for (time, value) in times.iter().zip(*values) {
                if model::is_stale(*value) {
                    writeln!(out, "{labels} stale {time}")?;
                } else {
                    writeln!(out, "{labels} {value:?} {time}")?;
                }
            }
        }
        Run::Sealed(sealed) => writeln!(
            out,
            "# {labels} a sealed chunk of {} samples in {} bytes, {} to {}",
            sealed.count,
            sealed.bytes.len(),
            sealed.min_time,
            sealed.max_time
        )?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use block::{Builder, Info, SealedRun};
    use model::Labels;

    use super::*;

    /// A cut of two tenants in a file.
    fn written(dir: &Path) -> String {
        let info = Info {
            id: 0xabc,
            kind: FileKind::Cut,
            level: 0,
            order: 7,
            created_ms: 1000,
            origin: "node-1".to_owned(),
            core: 3,
            sources: Vec::new(),
        };
        let mut builder = Builder::new(info, block::Options::default()).unwrap();
        for tenant in ["a", "b"] {
            builder.tenant(&TenantId::new(tenant).unwrap()).unwrap();
            let labels = Labels::from_pairs([("__name__", "up"), ("job", tenant)]).unwrap();
            builder.series(&labels).unwrap();
            builder
                .samples(&[10, 20, 30], &[1.0, 0.25, model::stale_nan()])
                .unwrap();
            builder
                .sealed(&SealedRun {
                    min_time: 5,
                    max_time: 9,
                    count: 2,
                    bytes: &[2; 12],
                })
                .unwrap();
        }
        builder.finish();
        let path = dir.join("one.cut");
        std::fs::write(&path, builder.take()).unwrap();
        path.display().to_string()
    }

    fn told(result: Result<(), Stop>, out: Vec<u8>) -> String {
        match result {
            Ok(()) => String::from_utf8(out).unwrap(),
            Err(Stop::Failed(reason)) => reason,
            Err(Stop::Enough) => panic!("a vector takes everything"),
        }
    }

    #[test]
    fn a_block_is_inspected_verified_and_dumped() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path());
        let mut out = Vec::new();
        let result = inspect_one(&file, &mut out);
        let text = told(result, out);
        assert!(text.contains("cut of core 3, format 1"), "{text}");
        assert!(
            text.contains("tenant b: 1 series, 5 samples from 5 to 30 ms"),
            "{text}"
        );
        let mut out = Vec::new();
        let result = verify_one(&file, &mut out);
        let text = told(result, out);
        assert!(
            text.contains("sound: 2 tenants, 2 series, 10 samples"),
            "{text}"
        );
        let mut out = Vec::new();
        let b = TenantId::new("b").unwrap();
        let result = dump_one(&file, Some(&b), &mut out);
        assert_eq!(
            told(result, out),
            "# tenant b\n\
             {__name__=\"up\", job=\"b\"} 1.0 10\n\
             {__name__=\"up\", job=\"b\"} 0.25 20\n\
             {__name__=\"up\", job=\"b\"} stale 30\n\
             # {__name__=\"up\", job=\"b\"} a sealed chunk of 2 samples in 12 bytes, 5 to 9\n"
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = written(dir.path());
        let mut bytes = std::fs::read(&file).unwrap();
        let c = TenantId::new("c").unwrap();
        let result = dump_one(&file, Some(&c), &mut Vec::new());
        let text = told(result, Vec::new());
        assert!(
            text.ends_with("holds nothing of tenant c; it holds [\"a\", \"b\"]"),
            "{text}"
        );
        bytes[70] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let result = verify_one(&file, &mut Vec::new());
        let text = told(result, Vec::new());
        assert!(
            text.starts_with(&format!("{file} is corrupt at offset 40")),
            "{text}"
        );
        std::fs::write(&file, b"something else").unwrap();
        let result = inspect_one(&file, &mut Vec::new());
        let text = told(result, Vec::new());
        assert!(
            text.starts_with(&format!("{file} is not a block")),
            "{text}"
        );
        let result = verify_one(&format!("{file}.gone"), &mut Vec::new());
        assert!(told(result, Vec::new()).contains(".gone"));
        // Story: these two panicked.
        std::fs::write(&file, b"").unwrap();
        for nothing in [file, dir.path().display().to_string()] {
            let text = told(inspect_one(&nothing, &mut Vec::new()), Vec::new());
            assert!(text.contains("is not a block"), "{text}");
            let text = told(verify_one(&nothing, &mut Vec::new()), Vec::new());
            assert!(text.contains("is not a block"), "{text}");
            let text = told(dump_one(&nothing, None, &mut Vec::new()), Vec::new());
            assert!(text.contains("is not a block"), "{text}");
        }
    }
}
