//! Reading from the bucket: how many requests it takes, what is kept on the disk, and blocks that vanish.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use block::FileKind;
use cache::{Key, Value};
use objstore::{Body, Bucket, Condition, Filesystem, Listing, Object, Piece, Stat, list_all};
use reactor::Reactor;

use super::{HOUR_MS, Life, Place, options, read, tenant};
use crate::{Caches, Error, Indexes, Pages, Tally};

/// A directory of headers on the disk of the place, and a hand on it.
fn headers(place: &Place) -> Arc<dyn Bucket> {
    let disk = place.disk.clone();
    let opened = Filesystem::open(Path::new("/data/headers"), move || Ok(Reactor::sim(&disk)));
    Arc::new(opened.unwrap())
}

/// All samples of a tenant, and what that took of the bucket.
fn fetch(life: &Life, name: &str) -> Result<(usize, u64), Error> {
    let (tenant, tally) = (tenant(name), Arc::new(Tally::default()));
    let list = life.catalog.list();
    let blocks = life
        .longterm
        .blocks(&tenant, (i64::MIN, i64::MAX), &list, &tally)?;
    let mut samples = 0;
    for block in &blocks {
        samples += read(life, block, &tenant)?.len();
    }
    Ok((samples, tally.requests()))
}

/// Two blocks of each tenant, in the bucket only.
fn prepared() -> Place {
    let mut place = Place::new(1);
    let mut life = place.begin();
    for i in 0..2 {
        let times = i * 500..i * 500 + 500;
        place.write(
            &mut life,
            FileKind::Cut,
            &[("one", times.clone()), ("two", times)],
        );
    }
    life.pass().unwrap();
    place.wait(300 * HOUR_MS);
    assert_eq!(life.pass().unwrap().removed, 2);
    place
}

#[test]
fn a_block_costs_a_request_for_its_index_once_and_one_for_what_lies_together() {
    let place = prepared();
    let files = headers(&place);
    let life = place.begin_with(options(), Some((files.clone(), 1 << 20)));
    let (samples, requests) = fetch(&life, "one").unwrap();
    assert_eq!((samples, requests), (2000, 4));
    // The catalog has the indexes in memory now.
    assert_eq!(fetch(&life, "one").unwrap(), (2000, 2));
    // Another life finds them on the disk.
    let life = place.begin_with(options(), Some((files.clone(), 1 << 20)));
    assert_eq!(fetch(&life, "one").unwrap(), (2000, 2));
    assert_eq!(life.metric("myelin_bucket_header_hits_total"), 2.0);
    // Without a place for them, they are read piece by piece.
    let life = place.begin();
    let (samples, requests) = fetch(&life, "one").unwrap();
    assert!(samples == 2000 && requests > 4, "{requests}");
}

/// Caches of pages in memory, and these memories.
fn caches() -> (Caches, [Arc<cache::Memory>; 2]) {
    let metrics = cache::Metrics::unregistered();
    let memory = |name| Arc::new(cache::Memory::new(1 << 20, metrics.of(name)));
    let (index, chunks) = (memory("index"), memory("chunks"));
    let pages = |memory: &Arc<cache::Memory>| Pages::new(memory.clone(), 300, 3, Duration::ZERO);
    let caches = Caches {
        index: Some(pages(&index)),
        chunks: Some(pages(&chunks)),
    };
    (caches, [index, chunks])
}

#[test]
fn what_was_read_through_caches_costs_the_bucket_nothing_the_second_time() {
    let place = prepared();
    let (caches, _) = caches();
    for headers in [Some((headers(&place), 1 << 20)), None] {
        let begin = || {
            let mut life = place.begin_with(options(), headers.clone());
            life.longterm = life.longterm.clone().with_caches(caches.clone());
            life
        };
        let life = begin();
        let (samples, requests) = fetch(&life, "one").unwrap();
        println!("headers {}: {requests} requests cold", headers.is_some());
        assert_eq!(samples, 2000);
        assert_eq!(fetch(&life, "one").unwrap(), (2000, 0));
        assert_eq!(fetch(&begin(), "one").unwrap(), (2000, 0), "another life");
        // With pages of both tenants in them: who asks sees his own.
        assert_eq!(fetch(&life, "two").unwrap().0, 2000);
    }
}

/// Each byte of what is kept is wrong once; the bucket has the truth.
#[test]
fn what_a_cache_has_wrong_is_read_from_the_bucket_again() {
    let place = prepared();
    let wrong: Arc<Wrong> = Arc::default();
    let pages = || Some(Pages::new(wrong.clone(), 300, 0, Duration::ZERO));
    let caches = Caches {
        index: pages(),
        chunks: pages(),
    };
    let begin = || {
        let mut life = place.begin();
        life.longterm = life.longterm.clone().with_caches(caches.clone());
        life
    };
    let (_, cold) = fetch(&begin(), "one").unwrap();
    for bit in (0..300 * 8).step_by(37) {
        *wrong.flip.lock().unwrap() = Some(bit);
        let life = begin();
        let (samples, requests) = fetch(&life, "one").unwrap();
        assert_eq!(samples, 2000, "bit {bit}");
        assert!(requests <= 2 * cold, "{requests} after {cold}");
        *wrong.flip.lock().unwrap() = None;
        assert_eq!(
            fetch(&begin(), "one").unwrap(),
            (2000, 0),
            "it was put right"
        );
    }
}

/// A cache whose values have a bit wrong, until they are set again.
#[derive(Debug, Default)]
struct Wrong {
    kept: Mutex<HashMap<Key, Value>>,
    flip: Mutex<Option<usize>>,
}

impl cache::Cache for Wrong {
    fn get(&self, keys: &[Key]) -> Vec<Option<Value>> {
        let flip = *self.flip.lock().unwrap();
        let wrong = |value: &Value| {
            let mut bytes = value.to_vec();
            if let Some(bit) = flip
                && bit / 8 < bytes.len()
            {
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Value::from(bytes)
        };
        let kept = self.kept.lock().unwrap();
        keys.iter().map(|key| kept.get(key).map(wrong)).collect()
    }

    fn get_later(&self, keys: Vec<Key>) -> cache::Later<'_> {
        let found = self.get(&keys);
        Box::pin(std::future::ready(found))
    }

    fn set(&self, entries: Vec<(Key, Value)>, _ttl: Duration) {
        self.kept.lock().unwrap().extend(entries);
    }
}

#[test]
fn a_header_that_the_disk_has_changed_is_fetched_again() {
    let place = prepared();
    let files = headers(&place);
    let life = place.begin_with(options(), Some((files.clone(), 1 << 20)));
    fetch(&life, "one").unwrap();
    let mut names = Vec::new();
    list_all(&*files, "", &mut |object| names.push(object.key)).unwrap();
    assert_eq!(names.len(), 2);
    let mut bytes = files.get(&names[0]).unwrap().unwrap().bytes;
    bytes[20] ^= 4;
    files.put(&names[0], &bytes, &Condition::Always).unwrap();
    files.put(&names[1], b"short", &Condition::Always).unwrap();
    let life = place.begin_with(options(), Some((files, 1 << 20)));
    assert_eq!(fetch(&life, "one").unwrap(), (2000, 4));
    assert_eq!(life.metric("myelin_bucket_header_misses_total"), 2.0);
}

#[test]
fn headers_are_bounded() {
    let place = prepared();
    let files = headers(&place);
    let life = place.begin_with(options(), Some((files.clone(), 600)));
    for _ in 0..3 {
        fetch(&life, "one").unwrap();
        fetch(&life, "two").unwrap();
    }
    let mut bytes = 0;
    list_all(&*files, "", &mut |object| bytes += object.len).unwrap();
    assert!(bytes <= 600, "{bytes}");
}

/// A node with a bucket of a few hours kept the headers of all blocks there ever were, open ones among them, until their bytes were too many.
#[test]
fn headers_of_blocks_that_are_in_no_index_any_more_go() {
    let mut place = prepared();
    let files = headers(&place);
    let life = place.begin_with(options(), Some((files.clone(), 1 << 20)));
    let old = fetch(&life, "one").unwrap();
    let names = || {
        let mut names = Vec::new();
        list_all(&*files, "", &mut |object| names.push(object.key)).unwrap();
        names
    };
    let before = names();
    assert_eq!(before.len(), 2);
    let mut other = place.begin();
    let known = other.longterm.entries(&tenant("one")).unwrap();
    let sources = known.iter().map(|(id, ..)| *id).collect();
    let content = ["one", "two"].map(|name| {
        let of = |series: &str| {
            let samples = (0..1000).map(|t| (t, t as f64 * 1.5)).collect();
            (series.to_owned(), samples)
        };
        (name.to_owned(), ["a", "b"].map(of).into())
    });
    place.write_block(&mut other, FileKind::Cut, 2, sources, &content.into());
    other.pass().unwrap();
    life.longterm.refresh(&tenant("one")).unwrap();
    assert_eq!(fetch(&life, "one").unwrap().0, old.0);
    let after = names();
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(!before.contains(&after[0]));
}

#[test]
fn a_block_that_vanished_is_told_and_found_under_its_new_name_by_a_fresh_index() {
    let mut place = prepared();
    let life = place.begin();
    let (tenant, tally) = (tenant("one"), Arc::new(Tally::default()));
    let old = life
        .longterm
        .blocks(&tenant, (0, 1000), &[], &tally)
        .unwrap();
    assert_eq!(old.len(), 2);
    // Meanwhile somebody merges them.
    let mut other = place.begin();
    let sources = old.iter().map(|block| block.meta().info.id).collect();
    let content = ["one", "two"].map(|name| {
        let of = |series: &str| {
            let samples = (0..1000).map(|t| (t, t as f64 * 1.5)).collect();
            (series.to_owned(), samples)
        };
        (name.to_owned(), ["a", "b"].map(of).into())
    });
    place.write_block(&mut other, FileKind::Cut, 2, sources, &content.into());
    other.pass().unwrap();
    place.wait(13 * HOUR_MS);
    other.pass().unwrap();
    let blocks = place.store.keys();
    let blocks = blocks.iter().filter(|key| key.ends_with(".block"));
    assert_eq!(blocks.count(), 1);
    let error = read(&life, &old[0], &tenant).unwrap_err();
    assert!(matches!(error, block::Error::Gone { .. }), "{error}");
    assert!(tally.take_vanished());
    assert!(!tally.take_vanished(), "told once");
    life.longterm.refresh(&tenant).unwrap();
    assert_eq!(fetch(&life, "one").unwrap().0, 2000);
}

#[test]
fn a_bucket_that_does_not_answer_is_an_error_and_not_an_empty_answer() {
    let mut place = prepared();
    let life = place.begin();
    place.store.set_out(true);
    assert!(fetch(&life, "one").unwrap_err().is_passing());
    // Who comes right behind does not wait for another timeout.
    let before = place.store.operations();
    assert!(fetch(&life, "one").unwrap_err().is_passing());
    assert_eq!(place.store.operations(), before);
    place.store.set_out(false);
    place.wait(6_000);
    fetch(&life, "one").unwrap();
    // The index is known now, and an old one is better than none.
    place.store.set_out(true);
    place.wait(2 * HOUR_MS);
    let tally = Arc::new(Tally::default());
    let blocks = life
        .longterm
        .blocks(&tenant("one"), (0, 10), &[], &tally)
        .unwrap();
    assert_eq!(blocks.len(), 1);
    let error = read(&life, &blocks[0], &tenant("one")).unwrap_err();
    assert!(matches!(error, block::Error::Unreachable { .. }), "{error}");
    assert!(!tally.take_vanished());
}

#[test]
fn times_and_tenants_that_have_nothing_cost_nothing() {
    let place = prepared();
    let life = place.begin();
    let tally = Arc::new(Tally::default());
    let blocks = |name: &str, range| {
        let list = life.catalog.list();
        life.longterm
            .blocks(&tenant(name), range, &list, &tally)
            .unwrap()
            .len()
    };
    assert_eq!(blocks("one", (1000, i64::MAX)), 0);
    assert_eq!(blocks("one", (499, 500)), 2);
    assert_eq!(blocks("one", (0, 499)), 1);
    assert_eq!(blocks("three", (i64::MIN, i64::MAX)), 0);
    let before = place.store.operations();
    assert_eq!(blocks("three", (i64::MIN, i64::MAX)), 0);
    assert_eq!(blocks("one", (499, 500)), 2);
    assert_eq!(
        place.store.operations(),
        before,
        "that there is nothing is known too"
    );
}

/// A bucket whose first answer is late: something happens after it was found and before it is known.
struct Late {
    store: objstore::Sim,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Late")
    }
}

impl Bucket for Late {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn head(&self, key: &str) -> Result<Option<Stat>, objstore::Error> {
        self.store.head(key)
    }

    fn get(&self, key: &str) -> Result<Option<Object>, objstore::Error> {
        let found = self.store.get(key);
        let meanwhile = self.meanwhile.lock().unwrap().take();
        meanwhile.into_iter().for_each(|happens| happens());
        found
    }

    fn read(&self, pieces: &[Piece]) -> Result<Vec<Vec<u8>>, objstore::Error> {
        self.store.read(pieces)
    }

    fn put(&self, key: &str, bytes: &[u8], when: &Condition) -> Result<Stat, objstore::Error> {
        self.store.put(key, bytes, when)
    }

    fn put_large(&self, key: &str, body: &mut dyn Body) -> Result<Stat, objstore::Error> {
        self.store.put_large(key, body)
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing, objstore::Error> {
        self.store.list(prefix, after)
    }

    fn delete(&self, key: &str) -> Result<(), objstore::Error> {
        self.store.delete(key)
    }

    fn sweep(&self, prefix: &str, begun_before_ms: i64) -> Result<u64, objstore::Error> {
        self.store.sweep(prefix, begun_before_ms)
    }
}

/// A query found no index, then the uploader wrote the first one of the tenant and kept it in memory, where the query looked whether there had been one before: 503, "was there and is gone".
#[test]
fn a_first_index_that_is_written_while_a_reader_looks_was_never_gone() {
    let bucket = Arc::new(Late {
        store: objstore::Sim::new(1),
        meanwhile: Mutex::default(),
    });
    let indexes = Arc::new(Indexes::new(bucket.clone(), 1 << 20));
    let uploader = Arc::clone(&indexes);
    let first = move || assert!(uploader.change(&tenant("one"), 1, &mut |_| true).unwrap());
    *bucket.meanwhile.lock().unwrap() = Some(Box::new(first));
    let known = indexes.load(&tenant("one"), 2).unwrap();
    assert!(known.etag.is_some(), "the newer of the two is known");
    // One that was there before the look is missed all the same.
    bucket
        .store
        .delete(&crate::keys::index(&tenant("one")))
        .unwrap();
    let error = indexes.load(&tenant("one"), 3).unwrap_err();
    assert!(error.to_string().contains("is gone"), "{error}");
}
