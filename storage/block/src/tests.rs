//! Blocks as a whole: against a model, under damage, through crashes, and the fixture that must open for ever.

mod catalog;
mod crash;
mod damage;
mod fixture;
mod model;
mod sparse;

use std::collections::BTreeMap;

use ::model::{Labels, TenantId};

use crate::{
    Block, Builder, Built, Effort, Error, FileKind, Info, Memory, Options, Run, SealedRun, Source,
};

/// Start, end, count, bytes.
type Sealed = (i64, i64, u64, Vec<u8>);

/// Samples by series and time, values as bits; sealed chunks by series and start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Content {
    floats: BTreeMap<Labels, BTreeMap<i64, u64>>,
    sealed: BTreeMap<Labels, Vec<Sealed>>,
}

impl Content {
    fn series(&self) -> Vec<Labels> {
        let mut all: Vec<Labels> = self
            .floats
            .keys()
            .chain(self.sealed.keys())
            .cloned()
            .collect();
        all.sort();
        all.dedup();
        all
    }

    fn put(&mut self, labels: &Labels, time: i64, value: f64) {
        let series = self.floats.entry(labels.clone()).or_default();
        series.insert(time, value.to_bits());
    }

    fn fill(&self, builder: &mut Builder) -> Result<(), Error> {
        for labels in self.series() {
            builder.series(&labels)?;
            if let Some(samples) = self.floats.get(&labels) {
                let times: Vec<i64> = samples.keys().copied().collect();
                let values: Vec<f64> = samples.values().map(|&b| f64::from_bits(b)).collect();
                // In two goes, as a streaming writer would.
                let (a, b) = times.split_at(times.len() / 3);
                let (c, d) = values.split_at(times.len() / 3);
                builder.samples(a, c)?;
                builder.samples(b, d)?;
            }
            for (min_time, max_time, count, bytes) in self.sealed.get(&labels).into_iter().flatten()
            {
                builder.sealed(&SealedRun {
                    min_time: *min_time,
                    max_time: *max_time,
                    count: *count,
                    bytes,
                })?;
            }
        }
        Ok(())
    }

    fn read(source: &mut dyn Source, tenant: &TenantId) -> Result<Content, Error> {
        let block = Block::open(source)?;
        let Some(index) = block.index(source, tenant)? else {
            return Ok(Content::default());
        };
        let all: Vec<u32> = (0..index.series_count()).collect();
        let labels = index.labels(source, &all)?;
        let mut content = Content::default();
        index.read(source, &all, (i64::MIN, i64::MAX), &mut |series, run| {
            content.take(&labels[series as usize], &run);
        })?;
        Ok(content)
    }

    fn take(&mut self, labels: &Labels, run: &Run<'_>) {
        match run {
            Run::Floats { times, values } => {
                for (&time, &value) in times.iter().zip(*values) {
                    self.put(labels, time, value);
                }
            }
            Run::Sealed(sealed) => {
                let all = self.sealed.entry(labels.clone()).or_default();
                all.push((
                    sealed.min_time,
                    sealed.max_time,
                    sealed.count,
                    sealed.bytes.to_vec(),
                ));
            }
        }
    }
}

fn info(id: u128, kind: FileKind, order: u64) -> Info {
    Info {
        id,
        kind,
        level: 0,
        order,
        created_ms: 1_700_000_000_000,
        origin: "node-1".to_owned(),
        core: 3,
        sources: vec![7, 8],
    }
}

fn options(page_bytes: usize, effort: Effort) -> Options {
    Options { page_bytes, effort }
}

fn build(contents: &[(&str, &Content)], info: Info, options: Options) -> (Vec<u8>, Built) {
    let mut builder = Builder::new(info, options).unwrap();
    for (tenant, content) in contents {
        builder.tenant(&TenantId::new(tenant).unwrap()).unwrap();
        content.fill(&mut builder).unwrap();
    }
    let built = builder.finish();
    let bytes = builder.take();
    assert_eq!(bytes.len() as u64, built.bytes);
    (bytes, built)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// A few series of every coding, small.
fn sample_content() -> Content {
    let mut content = Content::default();
    for (n, name) in ["counter", "gauge", "constant", "odd", "sum"]
        .into_iter()
        .enumerate()
    {
        for job in ["a", "bb"] {
            let labels = labels(&[("__name__", name), ("job", job), ("zone", "eu")]);
            let mut sum = 0.1;
            for i in 0..20i64 {
                sum += (i as f64).sqrt();
                let value = match n {
                    0 => (i * 17 + i % 3) as f64,
                    1 => (i * 7 % 11) as f64 / 100.0,
                    2 => 4.0,
                    3 if i % 5 == 0 => ::model::stale_nan(),
                    3 => 1e300 / 3.0,
                    _ => sum * 1e100,
                };
                content.put(&labels, 1_700_000_000_000 + i * 15_000 + i % 2, value);
            }
        }
    }
    let histogram = labels(&[("__name__", "histogram"), ("job", "a")]);
    content.sealed.insert(
        histogram,
        vec![(1_700_000_000_000, 1_700_000_300_000, 20, vec![2; 40])],
    );
    content
}

#[test]
fn what_is_out_of_order_or_homeless_is_refused_and_nothing_is_added() {
    let mut builder = Builder::new(info(1, FileKind::Block, 1), Options::default()).unwrap();
    let (a, b) = (labels(&[("x", "1")]), labels(&[("x", "2")]));
    assert!(builder.series(&a).is_err(), "no tenant");
    builder.tenant(&TenantId::fake()).unwrap();
    assert!(builder.samples(&[1], &[1.0]).is_err(), "no series");
    builder.series(&b).unwrap();
    assert!(builder.series(&a).is_err());
    assert!(builder.series(&b).is_err());
    builder.samples(&[1, 5], &[1.0, 2.0]).unwrap();
    let refused = builder.samples(&[5], &[1.0]).unwrap_err();
    assert!(refused.to_string().contains("{x=\"2\"}"), "{refused}");
    assert!(builder.samples(&[9, 8], &[1.0, 1.0]).is_err());
    assert!(
        builder.tenant(&TenantId::new("other").unwrap()).is_err(),
        "a block has one"
    );
    builder.finish();
    let mut source = Memory::new("b", builder.take());
    let read = Content::read(&mut source, &TenantId::fake()).unwrap();
    let mut expected = Content::default();
    expected.put(&b, 1, 1.0);
    expected.put(&b, 5, 2.0);
    assert_eq!(read, expected);
}

#[test]
fn a_file_without_samples_opens_and_is_empty() {
    let mut builder = Builder::new(info(1, FileKind::Cut, 1), Options::default()).unwrap();
    builder.tenant(&TenantId::fake()).unwrap();
    builder.series(&labels(&[("x", "1")])).unwrap();
    builder.finish();
    let mut source = Memory::new("b", builder.take());
    let block = Block::open(&mut source).unwrap();
    assert!(block.is_empty());
    assert!(
        block
            .index(&mut source, &TenantId::fake())
            .unwrap()
            .is_none()
    );
    assert_eq!(crate::verify(&mut source).unwrap().series, 0);
}

#[test]
fn what_is_no_block_is_told_apart_from_a_damaged_one() {
    for bytes in [vec![], vec![1; 30], vec![1; 5000]] {
        let error = Block::open(&mut Memory::new("file-x", bytes)).unwrap_err();
        assert!(matches!(error, Error::NotABlock { .. }), "{error}");
        assert!(
            error.to_string().starts_with("file-x is not a block"),
            "{error}"
        );
    }
    let content = sample_content();
    let (mut bytes, _) = build(
        &[("a", &content)],
        info(1, FileKind::Block, 1),
        Options::default(),
    );
    let at = bytes.len() - crate::meta::TRAILER_BYTES + 12;
    bytes[at] = 9;
    // A newer version with a right checksum.
    let end = bytes.len();
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[end - 48..end - 16]);
    bytes[end - 16..end - 8].copy_from_slice(&sum.to_le_bytes());
    let error = Block::open(&mut Memory::new("file-y", bytes)).unwrap_err();
    let told = error.to_string();
    assert_eq!(
        told,
        "file-y has block format version 9, this program reads 1"
    );
}
