//! A node's disk and a bucket, both simulated, and what becomes of blocks between them whatever happens.

mod crash;
mod deleting;
mod reading;
mod steady;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use block::{Catalog, Effort, FileKind, FileWriter, Gone, Info, Run};
use model::{Labels, TenantId};
use objstore::Bucket;
use prometheus::Registry;
use reactor::{Op, Reactor};

use crate::{Error, Indexes, Longterm, Options, Pass, Tally, Uploader};

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 1_700_000_000_000;

/// Tenant, series and time of a sample.
type Key = (String, String, i64);

/// What lasts: disk, bucket, and the truth.
struct Place {
    disk: reactor::Sim,
    store: objstore::Sim,
    truth: BTreeMap<Key, f64>,
    now_ms: i64,
    next: u128,
    retention_ms: i64,
}

/// What ends with the process.
struct Life {
    reactor: Reactor,
    catalog: Arc<Catalog>,
    uploader: Uploader,
    longterm: Longterm,
    registry: Registry,
}

fn dir() -> PathBuf {
    PathBuf::from("/data/blocks")
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn options() -> Options {
    Options {
        local_retention: Duration::from_secs(240 * 3600),
        ..Options::new(dir())
    }
}

impl Place {
    fn new(seed: u64) -> Place {
        let place = Place {
            disk: reactor::Sim::new(seed),
            store: objstore::Sim::new(seed),
            truth: BTreeMap::new(),
            now_ms: START_MS,
            next: 1,
            retention_ms: i64::MAX / 4,
        };
        place.set_clocks();
        place
    }

    fn set_clocks(&self) {
        self.disk.set_wall_ms(self.now_ms);
        self.store.set_now_ms(self.now_ms);
    }

    fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        self.set_clocks();
    }

    fn begin(&self) -> Life {
        self.begin_with(options(), None)
    }

    fn begin_with(&self, options: Options, headers: Option<(Arc<dyn Bucket>, u64)>) -> Life {
        let mut reactor = Reactor::sim(&self.disk);
        let catalog = Arc::new(Catalog::default());
        let deletions = PathBuf::from("/data/deletions");
        catalog.open_deletions(&mut reactor, &deletions).unwrap();
        catalog.open(&mut reactor, &dir(), &|_| false).unwrap();
        let bucket: Arc<dyn Bucket> = Arc::new(self.store.clone());
        let indexes = Arc::new(Indexes::new(bucket.clone(), 1 << 20));
        let registry = Registry::new();
        let retention_ms = self.retention_ms;
        let uploader = Uploader::new(
            options,
            catalog.clone(),
            bucket.clone(),
            indexes.clone(),
            move |_| retention_ms,
            &registry,
        )
        .unwrap();
        let disk = self.disk.clone();
        let clock = move || Reactor::sim(&disk).wall_ms();
        let longterm =
            Longterm::new(bucket, indexes, headers, 15 * 60_000, clock, &uploader).unwrap();
        Life {
            reactor,
            catalog,
            uploader,
            longterm,
            registry,
        }
    }

    /// Writes a block of samples at these times for each tenant, and shows it. Returns its id.
    fn write(
        &mut self,
        life: &mut Life,
        kind: FileKind,
        of: &[(&str, std::ops::Range<i64>)],
    ) -> u128 {
        let mut content: BTreeMap<String, BTreeMap<String, BTreeMap<i64, f64>>> = BTreeMap::new();
        for (tenant, times) in of {
            for series in ["a", "b"] {
                for time in times.clone() {
                    let value = time as f64 * 1.5;
                    let key = ((*tenant).to_owned(), series.to_owned(), time);
                    self.truth.insert(key, value);
                    let series = series.to_owned();
                    let samples = content.entry((*tenant).to_owned()).or_default();
                    samples.entry(series).or_default().insert(time, value);
                }
            }
        }
        self.write_block(life, kind, 1, Vec::new(), &content)
    }

    fn write_block(
        &mut self,
        life: &mut Life,
        kind: FileKind,
        level: u8,
        sources: Vec<u128>,
        content: &BTreeMap<String, BTreeMap<String, BTreeMap<i64, f64>>>,
    ) -> u128 {
        let id = self.next;
        self.next += 1;
        let info = Info {
            id,
            kind,
            level,
            order: life.catalog.next_order(),
            created_ms: self.now_ms,
            origin: String::new(),
            core: 0,
            sources,
        };
        let options = block::Options {
            effort: Effort::Fast,
            ..block::Options::default()
        };
        let path = dir().join(format!("{id}.block"));
        let reactor = &mut life.reactor;
        let mut writer = FileWriter::begin(reactor, &path, info, options, 0).unwrap();
        for (name, series) in content {
            writer.builder().tenant(&tenant(name)).unwrap();
            for (series, samples) in series {
                let labels = Labels::from_pairs([("__name__", "up"), ("series", series)]).unwrap();
                writer.builder().series(&labels).unwrap();
                let (times, values): (Vec<i64>, Vec<f64>) = samples.iter().unzip();
                writer.builder().samples(&times, &values).unwrap();
            }
        }
        writer.complete(reactor).unwrap();
        life.catalog.add(reactor, &path).unwrap();
        id
    }

    /// Merges all blocks of the disk into one, as the compactor does.
    fn merge(&mut self, life: &mut Life) {
        let list = life.catalog.list();
        let mut sources: Vec<u128> = Vec::new();
        let mut content: BTreeMap<String, BTreeMap<String, BTreeMap<i64, f64>>> = BTreeMap::new();
        for block in &*list {
            let info = &block.meta().info;
            sources.push(info.id);
            sources.extend(&info.sources);
            for part in block.parts() {
                for ((series, time), value) in read(life, block, &part.tenant).unwrap() {
                    let samples = content.entry(part.tenant.to_string()).or_default();
                    samples.entry(series).or_default().insert(time, value);
                }
            }
        }
        sources.sort_unstable();
        sources.dedup();
        if list.len() < 2 {
            return;
        }
        self.write_block(life, FileKind::Cut, 2, sources, &content);
        for block in &*list {
            life.catalog.remove(block);
            let path = block.path().to_owned();
            life.reactor.run(Op::Remove { path }).unwrap();
        }
        life.reactor.run(Op::SyncDir { path: dir() }).unwrap();
    }

    /// How often each sample is seen. Panics on one that was never written.
    fn seen(&self, life: &Life) -> Result<BTreeMap<Key, usize>, Error> {
        let mut seen = BTreeMap::new();
        for name in ["one", "two"] {
            let tenant = tenant(name);
            let list = life.catalog.list();
            let tally = Arc::new(Tally::default());
            let range = (i64::MIN, i64::MAX);
            let there = life.longterm.blocks(&tenant, range, &list, &tally)?;
            let here = list.iter().filter(|block| block.part(&tenant).is_some());
            for block in here.chain(&there) {
                for ((series, time), value) in read(life, block, &tenant)? {
                    let key = (name.to_owned(), series, time);
                    assert_eq!(self.truth.get(&key), Some(&value), "{key:?}");
                    *seen.entry(key).or_default() += 1;
                }
            }
        }
        Ok(seen)
    }

    /// Every sample is there.
    #[track_caller]
    fn check(&self, life: &Life, what: &str) {
        let seen = self
            .seen(life)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let missing: Vec<_> = self
            .truth
            .keys()
            .filter(|key| !seen.contains_key(*key))
            .collect();
        assert!(
            missing.is_empty(),
            "{what}: {} missing, {:?}",
            missing.len(),
            missing[0]
        );
    }

    /// Every sample is there once, and in the bucket nothing that no index names.
    #[track_caller]
    fn check_settled(&self, life: &Life, what: &str) {
        self.check(life, what);
        let twice: Vec<_> = self
            .seen(life)
            .unwrap()
            .into_iter()
            .filter(|(_, n)| *n > 1)
            .collect();
        assert!(
            twice.is_empty(),
            "{what}: {} twice, {:?}",
            twice.len(),
            twice[0]
        );
        assert_eq!(self.store.uploads(), 0, "{what}: unfinished uploads");
        let mut named: Vec<String> = Vec::new();
        for name in ["one", "two"] {
            let known = life
                .uploader
                .indexes
                .load(&tenant(name), self.now_ms)
                .unwrap();
            if known.etag.is_some() {
                named.push(crate::keys::index(&tenant(name)));
            }
            assert!(
                known.index.deletions.is_empty(),
                "{what}: {:?}",
                known.index.deletions
            );
            named.extend(known.index.blocks.iter().map(|entry| entry.key.clone()));
        }
        named.sort();
        named.dedup();
        let mut found = self.store.keys();
        found.retain(|key| key != crate::keys::LEASE);
        assert_eq!(found, named, "{what}");
    }
}

impl Life {
    fn pass(&mut self) -> Result<Pass, Error> {
        self.uploader
            .run(&mut self.reactor, &AtomicBool::new(false))
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metric = &family.unwrap_or_else(|| panic!("no {name}")).get_metric()[0];
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }
}

/// The samples of a tenant in a block, by series and time.
fn read(
    life: &Life,
    block: &block::StoredBlock,
    tenant: &TenantId,
) -> Result<BTreeMap<(String, i64), f64>, block::Error> {
    let mut found = BTreeMap::new();
    let deleted = life.catalog.deletions().tombstones(tenant);
    let order = block.meta().info.order;
    let Some(slot) = life.catalog.index(block, tenant)? else {
        return Ok(found);
    };
    let mut index = slot.write().unwrap();
    let Some(index) = &mut *index else {
        return Ok(found);
    };
    let mut source = block.source();
    let series = index.select(&mut source, &[])?;
    let labels = index.labels(&mut source, &series)?;
    index.read(
        &mut source,
        &series,
        (i64::MIN, i64::MAX),
        &mut |number, run| {
            let Run::Floats { times, values } = run else {
                panic!("floats were written")
            };
            let name = labels[number as usize].get("series").unwrap().to_owned();
            let gone = Gone::of(&labels[number as usize], order, i64::MIN, &deleted);
            let samples = times.iter().zip(values);
            for (&time, &value) in samples.filter(|(time, _)| !gone.contains(**time)) {
                found.insert((name.clone(), time), value);
            }
        },
    )?;
    Ok(found)
}
