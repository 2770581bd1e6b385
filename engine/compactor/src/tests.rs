//! Compaction on a simulated machine: against a model, through power cuts and failing operations after every single one, with damage, beside readers.

mod crash;
mod damage;
mod model;
mod plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ::model::{Labels, Matcher, TenantId};
use block::{
    Builder, Catalog, Deletion, FileKind, FileWriter, Gone, Index, Info, Run, SealedRun,
    StoredBlock, Tombstone,
};
use chunk::HistogramAppender;
use reactor::{IoMode, Reactor, Sim};

use crate::{Compactor, Done, Error, Options, Place, Policy};

const HOUR_MS: i64 = 3_600_000;

/// A sample in a few bits: a float's, or the count of a histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Float(u64),
    Histogram(u64),
}

/// Samples by tenant, series and time.
type Content = BTreeMap<(TenantId, Labels), BTreeMap<i64, Told>>;

fn dir() -> PathBuf {
    PathBuf::from("data/blocks")
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn labels(name: &str, n: usize) -> Labels {
    Labels::from_pairs([("__name__", name), ("n", &n.to_string())]).unwrap()
}

/// Keeps everything, unless it is told otherwise.
#[derive(Debug, Clone, Default)]
struct Keep {
    retention_ms: Option<i64>,
    free: Option<u64>,
    /// What the bucket has of every tenant; `true`: it cannot be told.
    stored: Vec<Place>,
    out: bool,
}

impl Policy for Keep {
    fn retention_ms(&self, _: &TenantId) -> i64 {
        self.retention_ms.unwrap_or(i64::MAX)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.free
    }

    fn stored(&self, _: &TenantId) -> Option<Vec<Place>> {
        (!self.out).then(|| self.stored.clone())
    }
}

/// A machine, the catalog of a life of it, and what it must hold.
struct Node {
    sim: Sim,
    catalog: Arc<Catalog>,
    options: Options,
    keep: Keep,
    expected: Content,
}

impl Node {
    fn new(seed: u64) -> Node {
        let sim = Sim::new(seed);
        let options = Options {
            interval: Duration::from_secs(60),
            // Some series are a file of their own.
            own_file_bytes: 700,
            shared_file_bytes: 1500,
            io: IoMode::Auto,
            ..Options::new(dir())
        };
        let mut node = Node {
            sim,
            catalog: Arc::default(),
            options,
            keep: Keep::default(),
            expected: Content::new(),
        };
        node.start();
        node
    }

    /// A life begins.
    fn start(&mut self) {
        self.catalog = Arc::default();
        let mut reactor = Reactor::sim(&self.sim);
        let deletions = Path::new("data/deletions");
        let opened = self.catalog.open_deletions(&mut reactor, deletions);
        opened.expect("a sound machine starts");
        let opened = self.catalog.open(&mut reactor, &dir(), &|_| false);
        let notes = opened.expect("a sound machine starts");
        assert!(
            !notes.iter().any(|note| note.contains("left out")),
            "{notes:?}"
        );
    }

    /// A file of level 0, as a core cuts it; what was there of a time is replaced.
    fn cut(&mut self, samples: &Content) -> Arc<StoredBlock> {
        let mut reactor = Reactor::sim(&self.sim);
        let order = self.catalog.next_order();
        let info = Info {
            id: u128::from(order) << 64 | 7,
            kind: FileKind::Cut,
            level: 0,
            order,
            created_ms: reactor.wall_ms(),
            origin: String::new(),
            core: 0,
            sources: Vec::new(),
        };
        let path = dir().join(format!("cut-{order}.block"));
        let options = block::Options::default();
        let mut writer = FileWriter::begin(&mut reactor, &path, info, options, 0).unwrap();
        let mut current = None;
        for ((tenant, labels), samples) in samples {
            if current != Some(tenant) {
                writer.builder().tenant(tenant).unwrap();
                current = Some(tenant);
            }
            writer.builder().series(labels).unwrap();
            put(writer.builder(), samples);
        }
        writer.complete(&mut reactor).unwrap();
        self.catalog.add(&mut reactor, &path).unwrap();
        for (series, samples) in samples {
            let known = self.expected.entry(series.clone()).or_default();
            known.extend(samples.clone());
        }
        let list = self.catalog.list();
        list.last().expect("the newest").clone()
    }

    /// Deletes of a tenant, and of what is expected.
    fn delete(&mut self, name: &str, matchers: Vec<Matcher>, (min, max): (i64, i64)) {
        let order = self.catalog.next_order();
        let deletion = Deletion {
            id: u128::from(order) << 64 | 9,
            order,
            whole_tenant: matchers.is_empty(),
            selectors: vec![matchers.clone()],
            min_time: min,
            max_time: max,
            created_ms: 0,
            over_ms: None,
        };
        let deletions = self.catalog.deletions();
        let reactor = &mut Reactor::sim(&self.sim);
        deletions.add(reactor, &tenant(name), deletion).unwrap();
        for ((owner, labels), samples) in &mut self.expected {
            let passes = |m: &Matcher| m.matches(labels.get(m.name()).unwrap_or(""));
            if *owner == tenant(name) && matchers.iter().all(passes) {
                samples.retain(|time, _| !(min..=max).contains(time));
            }
        }
        self.expected.retain(|_, samples| !samples.is_empty());
    }

    fn compact(&mut self) -> Result<Done, Error> {
        self.compact_until(&AtomicBool::new(false))
    }

    fn compact_until(&mut self, stop: &AtomicBool) -> Result<Done, Error> {
        let mut compactor = self.compactor();
        compactor.run(&mut Reactor::sim(&self.sim), stop)
    }

    /// A run that was asked for.
    fn clean(&mut self) -> Result<Done, Error> {
        let mut compactor = self.compactor();
        compactor.clean(&mut Reactor::sim(&self.sim), &AtomicBool::new(false))
    }

    fn compactor(&self) -> Compactor {
        Compactor::new(
            self.options.clone(),
            self.catalog.clone(),
            Box::new(self.keep.clone()),
            &prometheus::Registry::new(),
        )
        .unwrap()
    }

    /// All that readers see: each part once, no time of a series twice unless the same is in another file.
    fn seen(&self) -> Content {
        let deleted = |tenant: &TenantId| self.catalog.deletions().tombstones(tenant);
        seen_without(&self.catalog.list(), &deleted)
    }

    #[track_caller]
    fn verify(&self, what: &str) {
        let seen = self.seen();
        for (series, samples) in &self.expected {
            let found = seen.get(series);
            assert_eq!(found, Some(samples), "{what}: {series:?}");
        }
        assert_eq!(seen.len(), self.expected.len(), "{what}");
    }

    fn files(&self) -> Vec<String> {
        let list = self.catalog.list();
        let name = |block: &Arc<StoredBlock>| {
            let name = block.path().file_name().unwrap();
            name.to_str().unwrap().to_owned()
        };
        list.iter().map(name).collect()
    }
}

fn put(builder: &mut Builder, samples: &BTreeMap<i64, Told>) {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let mut open: Option<HistogramAppender> = None;
    let mut closed = Vec::new();
    for (&time, told) in samples {
        match told {
            Told::Float(bits) => {
                closed.extend(open.take());
                times.push(time);
                values.push(f64::from_bits(*bits));
            }
            Told::Histogram(count) => {
                let histogram = ::model::HistogramSample::Int(::model::Histogram {
                    count: *count,
                    ..::model::Histogram::default()
                });
                open.get_or_insert_with(|| HistogramAppender::for_kind_of(&histogram))
                    .append(time, &histogram);
            }
        }
    }
    closed.extend(open);
    builder.samples(&times, &values).unwrap();
    for chunk in closed {
        let bytes = chunk.seal();
        let sealed = SealedRun {
            min_time: chunk.first_time(),
            max_time: chunk.last_time(),
            count: u64::from(chunk.count()),
            bytes: &bytes,
        };
        builder.sealed(&sealed).unwrap();
    }
}

/// What is in the files, whether it has been deleted or not.
fn seen(list: &[Arc<StoredBlock>]) -> Content {
    seen_without(list, &|_| Default::default())
}

fn seen_without(
    list: &[Arc<StoredBlock>],
    deleted: &dyn Fn(&TenantId) -> Arc<[Tombstone]>,
) -> Content {
    let mut all = Content::new();
    // Ascending by order: what was logged later replaces.
    for block in list {
        for part in block.parts() {
            let mut file = block.source();
            let index = block.block().index(&mut file, &part.tenant).unwrap();
            let mut here = Content::new();
            read(&index.unwrap(), &mut file, &part.tenant, &mut here);
            let (order, deleted) = (block.meta().info.order, deleted(&part.tenant));
            for (series, mut samples) in here {
                let gone = Gone::of(&series.1, order, i64::MIN, &deleted);
                samples.retain(|time, _| !gone.contains(*time));
                all.entry(series).or_default().extend(samples);
            }
        }
    }
    all.retain(|_, samples| !samples.is_empty());
    all
}

fn read(index: &Index, file: &mut dyn block::Source, tenant: &TenantId, all: &mut Content) {
    let numbers: Vec<u32> = (0..index.series_count()).collect();
    let labels = index.labels(file, &numbers).unwrap();
    let range = (i64::MIN, i64::MAX);
    let mut here = Content::new();
    index
        .read(file, &numbers, range, &mut |number, run| {
            let series = (tenant.clone(), labels[number as usize].clone());
            let samples = here.entry(series).or_default();
            let mut put = |time, told| {
                let twice = samples.insert(time, told);
                assert_eq!(twice, None, "{time} is twice in a file");
            };
            match run {
                Run::Floats { times, values } => {
                    let both = times.iter().zip(values);
                    both.for_each(|(&time, value)| put(time, Told::Float(value.to_bits())));
                }
                Run::Sealed(sealed) => {
                    let (mut times, mut decoded) = (Vec::new(), Vec::new());
                    chunk::decode_histograms(
                        sealed.bytes,
                        range.0,
                        range.1,
                        &mut times,
                        &mut decoded,
                    )
                    .unwrap();
                    for (time, histogram) in times.into_iter().zip(decoded) {
                        let ::model::HistogramSample::Int(histogram) = histogram else {
                            panic!("none of floats was written");
                        };
                        put(time, Told::Histogram(histogram.count));
                    }
                }
            }
        })
        .unwrap();
    for (series, samples) in here {
        all.entry(series).or_default().extend(samples);
    }
}
