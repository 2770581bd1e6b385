//! What every store must do, as one suite that the tests of each run: [`run`] panics with the first claim that does not hold.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::bucket::{Body, Bucket, Condition, Etag, Piece, list_all};
use crate::error::Error;
use crate::limits::WHOLE_BYTES_MAX;
use crate::probe::{Conditions, probe};

/// How much of it a store can do.
#[derive(Debug, Clone, Copy)]
pub struct Claims {
    /// Whether conditions are kept.
    pub conditions: bool,
    /// Bytes of an object that is put in several parts.
    pub large_bytes: usize,
    /// Steps of the comparison with a map.
    pub steps: usize,
}

/// Runs the suite on an empty bucket; nothing is left in it.
pub fn run(bucket: &dyn Bucket, claims: Claims) {
    what_was_put_is_there_and_nothing_else_is(bucket);
    ranges_are_read_in_the_order_asked(bucket);
    large_objects_are_whole_or_not_there(bucket, claims.large_bytes);
    odd_keys_are_refused(bucket);
    if claims.conditions {
        of_several_who_create_an_object_one_does(bucket);
    }
    let found = probe(bucket, "probe/object", 1).expect("the bucket can be probed");
    let expected = match claims.conditions {
        true => Conditions::Kept,
        false => Conditions::Ignored,
    };
    assert_eq!(found, expected);
    like_a_map(bucket, claims);
    list_all(bucket, "", &mut |left| panic!("{left:?} is left")).expect("it can be listed");
}

fn what_was_put_is_there_and_nothing_else_is(bucket: &dyn Bucket) {
    assert_eq!(bucket.head("a/b").unwrap(), None);
    assert_eq!(bucket.get("a/b").unwrap(), None);
    let put = bucket.put("a/b", b"first", &Condition::Always).unwrap();
    assert_eq!(put.len, 5);
    let got = bucket.get("a/b").unwrap().unwrap();
    assert_eq!(got.bytes, b"first");
    assert_eq!(put.etag.as_ref(), Some(&got.etag));
    let head = bucket.head("a/b").unwrap().unwrap();
    assert_eq!(head.len, 5);
    assert!(head.etag.is_none() || head.etag == put.etag);
    // Neither a prefix of a key nor a longer one is an object.
    assert_eq!(bucket.head("a").unwrap(), None);
    assert_eq!(bucket.get("a/b/c").unwrap(), None);
    bucket.put("a/b", b"", &Condition::Always).unwrap();
    let emptied = bucket.get("a/b").unwrap().unwrap();
    assert!(emptied.bytes.is_empty());
    assert_ne!(emptied.etag, got.etag);
    bucket.delete("a/b").unwrap();
    bucket.delete("a/b").unwrap();
    assert_eq!(bucket.get("a/b").unwrap(), None);
}

fn piece(key: &str, range: std::ops::Range<u64>) -> Piece {
    let key = key.to_owned();
    Piece { key, range }
}

fn ranges_are_read_in_the_order_asked(bucket: &dyn Bucket) {
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    bucket.put("r/one", &bytes, &Condition::Always).unwrap();
    bucket
        .put("r/two", b"0123456789", &Condition::Always)
        .unwrap();
    let mut pieces = vec![
        piece("r/two", 9..10),
        piece("r/one", 0..1),
        piece("r/two", 0..10),
    ];
    pieces.extend((0..40).map(|i| piece("r/one", i * 250..(i + 1) * 250)));
    let read = bucket.read(&pieces).unwrap();
    assert_eq!(read.len(), pieces.len());
    assert_eq!(read[..3], [b"9".to_vec(), vec![0], b"0123456789".to_vec()]);
    assert_eq!(read[3..].concat(), bytes);
    assert_eq!(bucket.read(&[]).unwrap(), Vec::<Vec<u8>>::new());
    for range in [5..11, 10..12, 100..200] {
        let error = bucket.read(&[piece("r/two", range)]).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
    let gone = bucket.read(&[piece("r/one", 0..1), piece("r/none", 0..1)]);
    let error = gone.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert!(error.to_string().contains("r/none"), "{error}");
    // Whoever reads after a put reads the new object.
    bucket
        .put("r/two", b"abcdefghij", &Condition::Always)
        .unwrap();
    assert_eq!(bucket.read(&[piece("r/two", 0..3)]).unwrap(), [b"abc"]);
    bucket.delete("r/one").unwrap();
    bucket.delete("r/two").unwrap();
    let error = bucket.read(&[piece("r/two", 0..3)]).unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
}

/// A body that ends in an error.
struct Broken<'a>(&'a [u8]);

impl Body for Broken<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, range: std::ops::Range<u64>) -> Result<Vec<u8>, String> {
        match range.end == self.len() {
            true => Err("the disk is broken".to_owned()),
            false => (&mut self.0).read(range),
        }
    }
}

fn large_objects_are_whole_or_not_there(bucket: &dyn Bucket, large_bytes: usize) {
    let mut chance = SmallRng::seed_from_u64(large_bytes as u64);
    let bytes: Vec<u8> = (0..large_bytes).map(|_| chance.random()).collect();
    let error = bucket
        .put_large("large/one", &mut Broken(&bytes))
        .unwrap_err();
    assert!(matches!(error, Error::Body { .. }), "{error:?}");
    assert_eq!(bucket.head("large/one").unwrap(), None);
    let put = bucket.put_large("large/one", &mut &bytes[..]).unwrap();
    assert_eq!(put.len, large_bytes as u64);
    let head = bucket.head("large/one").unwrap().unwrap();
    assert_eq!(head.len, put.len);
    assert!(head.etag.is_none() || put.etag.is_none() || head.etag == put.etag);
    let half = large_bytes as u64 / 2;
    let halves = [
        piece("large/one", 0..half),
        piece("large/one", half..put.len),
    ];
    assert!(bucket.read(&halves).unwrap().concat() == bytes);
    // A failed one leaves what was there.
    let error = bucket
        .put_large("large/one", &mut Broken(&bytes[1..]))
        .unwrap_err();
    assert!(matches!(error, Error::Body { .. }), "{error:?}");
    assert!(bucket.read(&halves).unwrap().concat() == bytes);
    bucket.put_large("large/none", &mut &b""[..]).unwrap();
    assert_eq!(bucket.head("large/none").unwrap().unwrap().len, 0);
    bucket.delete("large/one").unwrap();
    bucket.delete("large/none").unwrap();
    assert_eq!(bucket.sweep("large/", i64::MAX).unwrap(), 0);
}

fn odd_keys_are_refused(bucket: &dyn Bucket) {
    let long = "x".repeat(1000);
    for key in [
        "", "/a", "a//b", "a/", "../a", "a/../b", ".lock", "a b", "ä", "a\n", &long,
    ] {
        let error = bucket.put(key, b"x", &Condition::Always).unwrap_err();
        assert!(matches!(error, Error::Input { .. }), "{key:?}: {error:?}");
        assert!(bucket.get(key).is_err(), "{key:?}");
        assert!(bucket.delete(key).is_err(), "{key:?}");
    }
    let error = bucket.put("a", &vec![0; WHOLE_BYTES_MAX + 1], &Condition::Always);
    assert!(matches!(error, Err(Error::Input { .. })));
    // What tenants may be called.
    let key = "t/a-Z_9!.*'()/x.block";
    bucket.put(key, b"x", &Condition::Always).unwrap();
    assert_eq!(bucket.get(key).unwrap().unwrap().bytes, b"x");
    let page = bucket.list("t/a-Z_9!.*'()/", "").unwrap();
    assert_eq!(page.objects.len(), 1);
    assert_eq!(page.objects[0].key, key);
    bucket.delete(key).unwrap();
}

fn of_several_who_create_an_object_one_does(bucket: &dyn Bucket) {
    for round in 0..4 {
        let put = |by: u8| bucket.put("c/one", &[by; 9], &Condition::Absent);
        let results: Vec<_> = std::thread::scope(|scope| {
            let puts: Vec<_> = (0..8).map(|by| scope.spawn(move || put(by))).collect();
            puts.into_iter().map(|put| put.join().unwrap()).collect()
        });
        let winners: Vec<usize> = (0..8).filter(|&by| results[by].is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {results:?}");
        let got = bucket.get("c/one").unwrap().unwrap();
        assert_eq!(got.bytes, [winners[0] as u8; 9]);
        bucket.delete("c/one").unwrap();
    }
    let gone = Condition::Is(Etag("\"0123456789abcdef0123456789abcdef\"".to_owned()));
    let error = bucket.put("c/one", b"x", &gone).unwrap_err();
    assert!(matches!(error, Error::Condition { .. }), "{error:?}");
    assert_eq!(bucket.get("c/one").unwrap(), None);
}

/// Random operations, compared with a map after each.
fn like_a_map(bucket: &dyn Bucket, claims: Claims) {
    let keys = ["m/a", "m/a-b/c", "m/a/b", "m/b", "m/b.c", "m/b/c/d", "n/a"];
    // `m/a` is no directory as well, where a store has such.
    let keys: Vec<&str> = keys
        .into_iter()
        .filter(|key| !["m/a", "m/b"].contains(key))
        .collect();
    let mut chance = SmallRng::seed_from_u64(7);
    let mut map: BTreeMap<&str, (Vec<u8>, Etag)> = BTreeMap::new();
    for step in 0..claims.steps {
        let key = keys[chance.random_range(0..keys.len())];
        let known = map.get(key).map(|(_, etag)| etag.clone());
        match chance.random_range(0..10) {
            0..5 => {
                let bytes: Vec<u8> = (0..chance.random_range(0..50))
                    .map(|_| chance.random())
                    .collect();
                let stale = map.values().map(|(_, etag)| etag.clone()).next();
                let condition = match chance.random_range(0..4) {
                    1 if claims.conditions => Condition::Absent,
                    2 if claims.conditions => {
                        known.clone().map_or(Condition::Absent, Condition::Is)
                    }
                    3 if claims.conditions => stale.map_or(Condition::Absent, Condition::Is),
                    _ => Condition::Always,
                };
                let holds = match &condition {
                    Condition::Always => true,
                    Condition::Absent => known.is_none(),
                    Condition::Is(etag) => known.as_ref() == Some(etag),
                };
                match bucket.put(key, &bytes, &condition) {
                    Ok(stat) => {
                        assert!(
                            holds,
                            "step {step}: {key} was put in spite of {condition:?}"
                        );
                        map.insert(key, (bytes, stat.etag.expect("told by a put")));
                    }
                    Err(Error::Condition { .. }) => assert!(!holds, "step {step}: {condition:?}"),
                    Err(error) => panic!("step {step}: {error}"),
                }
            }
            5..7 => {
                bucket.delete(key).unwrap();
                map.remove(key);
            }
            7..9 => {
                let got = bucket.get(key).unwrap();
                assert_eq!(got.map(|got| (got.bytes, got.etag)), map.get(key).cloned());
            }
            _ => {
                let prefix = ["", "m/", "m/a", "m/b/", "n/a", "o"][chance.random_range(0..6)];
                let after = ["", "m/a/b", "m/b.c", "n"][chance.random_range(0..4)];
                let listed = bucket.list(prefix, after).unwrap();
                assert!(!listed.more);
                let found: Vec<(&str, u64)> = listed
                    .objects
                    .iter()
                    .map(|o| (o.key.as_str(), o.len))
                    .collect();
                let expected: Vec<(&str, u64)> = map
                    .iter()
                    .filter(|(key, _)| key.starts_with(prefix) && **key > after)
                    .map(|(key, (bytes, _))| (*key, bytes.len() as u64))
                    .collect();
                assert_eq!(found, expected, "step {step}: {prefix:?} after {after:?}");
            }
        }
    }
    for key in keys {
        bucket.delete(key).unwrap();
    }
}
