//! A bucket in memory with seeded faults: what the tests of uploader and readers run against.
//!
//! Every step that a real store would see as a request is one *operation*, the parts of a large put too. An operation may fail before its effect or after
//! it (the answer is lost), by chance ([`Faults`]) or because the client died there ([`Sim::stop_after`]): then it had its effect or not, and all that
//! come later fail until [`Sim::revive`]. So a test stops after every single operation by counting [`Sim::operations`] in a run without a stop.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use xxhash_rust::xxh3::xxh3_128;

use crate::bucket::{
    Body, Bucket, Condition, Etag, Listed, Listing, Object, Piece, Stat, check_key,
};
use crate::error::Error;
use crate::limits::{LIST_MAX, WHOLE_BYTES_MAX};

/// Bytes of a part of a large put: small, so that little data has several.
const PART_BYTES: u64 = 1 << 12;

/// How often operations fail by chance.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Part of the operations that fail without effect.
    pub before: f64,
    /// Part of the operations that take effect and whose answer is lost.
    pub after: f64,
}

/// A handle; clones share the bucket.
#[derive(Clone)]
pub struct Sim {
    state: Arc<Mutex<State>>,
}

struct State {
    objects: BTreeMap<String, Stored>,
    /// Large puts that were begun and not finished: key and when.
    uploads: Vec<(String, i64)>,
    chance: SmallRng,
    faults: Faults,
    operations: u64,
    /// The number of the last operation before the client dies.
    stop_after: Option<u64>,
    is_out: bool,
    keeps_conditions: bool,
    now_ms: i64,
}

struct Stored {
    bytes: Arc<Vec<u8>>,
    etag: Etag,
    modified_ms: i64,
}

/// What becomes of an operation.
enum Fate {
    Lives,
    /// It fails, with its effect or without.
    Fails(bool),
}

impl Sim {
    /// An empty bucket without faults.
    pub fn new(seed: u64) -> Sim {
        let state = State {
            objects: BTreeMap::new(),
            uploads: Vec::new(),
            chance: SmallRng::seed_from_u64(seed),
            faults: Faults::default(),
            operations: 0,
            stop_after: None,
            is_out: false,
            keeps_conditions: true,
            now_ms: 0,
        };
        let state = Arc::new(Mutex::new(state));
        Sim { state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// An outage begins or ends.
    pub fn set_out(&self, is_out: bool) {
        self.state().is_out = is_out;
    }

    /// Whether conditions of puts are kept (they are at first) or ignored.
    pub fn keep_conditions(&self, keeps: bool) {
        self.state().keeps_conditions = keeps;
    }

    /// The store's clock, milliseconds since 1970.
    pub fn set_now_ms(&self, now_ms: i64) {
        self.state().now_ms = now_ms;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The client dies at this operation, counted from now: it is in flight then, all later ones fail.
    pub fn stop_after(&self, operations: u64) {
        let mut state = self.state();
        state.stop_after = Some(state.operations + operations);
    }

    /// Another client comes: nothing is stopped any more.
    pub fn revive(&self) {
        self.state().stop_after = None;
    }

    /// Keys of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// Large puts that were begun and neither finished nor swept.
    pub fn uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Flips bits of a byte of an object.
    pub fn flip(&self, key: &str, at: usize, mask: u8) {
        let mut state = self.state();
        let stored = state.objects.get_mut(key).expect("there is such an object");
        Arc::make_mut(&mut stored.bytes)[at] ^= mask;
    }

    /// Begins an operation: the state, and what becomes of it.
    fn begin(&self) -> (MutexGuard<'_, State>, Fate) {
        let mut state = self.state();
        state.operations += 1;
        let (now, faults) = (state.operations, state.faults);
        let by_chance: f64 = state.chance.random();
        let halfway: bool = state.chance.random();
        let fate = match state.stop_after {
            Some(last) if now == last => Fate::Fails(halfway),
            Some(last) if now > last => Fate::Fails(false),
            _ if state.is_out || by_chance < faults.before => Fate::Fails(false),
            _ if by_chance < faults.before + faults.after => Fate::Fails(true),
            _ => Fate::Lives,
        };
        (state, fate)
    }

    /// One operation: `effect` happens or not, its answer arrives or not.
    fn operate<T>(
        &self,
        key: &str,
        effect: impl FnOnce(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (mut state, fate) = self.begin();
        let lost = || {
            Err(Error::Unavailable {
                key: key.to_owned(),
                reason: "the simulated store does not answer".to_owned(),
            })
        };
        match fate {
            Fate::Fails(false) => lost(),
            Fate::Lives => effect(&mut state),
            Fate::Fails(true) => {
                let _ = effect(&mut state);
                lost()
            }
        }
    }
}

impl State {
    fn store(&mut self, key: &str, bytes: Vec<u8>) -> Stat {
        let etag = Etag(format!("{:032x}", xxh3_128(&bytes)));
        let stat = Stat {
            len: bytes.len() as u64,
            etag: Some(etag.clone()),
        };
        let stored = Stored {
            bytes: Arc::new(bytes),
            etag,
            modified_ms: self.now_ms,
        };
        self.objects.insert(key.to_owned(), stored);
        stat
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sim")
    }
}

impl Bucket for Sim {
    fn name(&self) -> &str {
        "sim"
    }

    fn head(&self, key: &str) -> Result<Option<Stat>, Error> {
        check_key(key)?;
        self.operate(key, |state| {
            Ok(state.objects.get(key).map(|stored| Stat {
                len: stored.bytes.len() as u64,
                etag: Some(stored.etag.clone()),
            }))
        })
    }

    fn get(&self, key: &str) -> Result<Option<Object>, Error> {
        check_key(key)?;
        self.operate(key, |state| {
            Ok(state.objects.get(key).map(|stored| Object {
                bytes: stored.bytes.to_vec(),
                etag: stored.etag.clone(),
            }))
        })
    }

    fn read(&self, pieces: &[Piece]) -> Result<Vec<Vec<u8>>, Error> {
        let read = pieces.iter().map(|Piece { key, range }| {
            check_key(key)?;
            self.operate(key, |state| {
                let Some(stored) = state.objects.get(key) else {
                    let key = key.clone();
                    return Err(Error::NotFound { key });
                };
                let bytes = stored.bytes.get(range.start as usize..range.end as usize);
                bytes.map(<[u8]>::to_vec).ok_or_else(|| Error::Corrupt {
                    key: key.clone(),
                    what: "the length",
                    expected: format!("{} or more", range.end),
                    found: stored.bytes.len().to_string(),
                })
            })
        });
        read.collect()
    }

    fn put(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Stat, Error> {
        check_key(key)?;
        if bytes.len() > WHOLE_BYTES_MAX {
            let (key, reason) = (key.to_owned(), "it is too large".to_owned());
            return Err(Error::Input { key, reason });
        }
        self.operate(key, |state| {
            let found = state.objects.get(key).map(|stored| &stored.etag);
            let holds = match condition {
                _ if !state.keeps_conditions => true,
                Condition::Always => true,
                Condition::Absent => found.is_none(),
                Condition::Is(etag) => found == Some(etag),
            };
            if !holds {
                let key = key.to_owned();
                return Err(Error::Condition { key });
            }
            Ok(state.store(key, bytes.to_vec()))
        })
    }

    fn put_large(&self, key: &str, body: &mut dyn Body) -> Result<Stat, Error> {
        check_key(key)?;
        let upload = self.operate(key, |state| {
            let upload = (key.to_owned(), state.now_ms);
            state.uploads.push(upload.clone());
            Ok(upload)
        })?;
        let forget = |state: &mut State| {
            let at = state.uploads.iter().position(|other| *other == upload);
            at.map(|at| state.uploads.remove(at));
        };
        let mut bytes = Vec::new();
        let mut filled = Ok(());
        while (bytes.len() as u64) < body.len() && filled.is_ok() {
            let from = bytes.len() as u64;
            let part = body.read(from..body.len().min(from + PART_BYTES));
            filled = match part {
                Err(reason) => Err(Error::Body {
                    key: key.to_owned(),
                    reason,
                }),
                Ok(mut part) => self.operate(key, |_| {
                    bytes.append(&mut part);
                    Ok(())
                }),
            };
        }
        let stored = filled.and_then(|()| {
            self.operate(key, |state| {
                forget(state);
                Ok(state.store(key, bytes))
            })
        });
        if stored.is_err() {
            // As a real store's client does; it may fail too.
            let _ = self.operate(key, |state| {
                forget(state);
                Ok(())
            });
        }
        stored
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing, Error> {
        self.operate(prefix, |state| {
            let from = prefix.max(after).to_owned();
            let mut found = state
                .objects
                .range(from..)
                .take_while(|(key, _)| key.starts_with(prefix))
                .filter(|(key, _)| key.as_str() > after)
                .map(|(key, stored)| Listed {
                    key: key.clone(),
                    len: stored.bytes.len() as u64,
                    modified_ms: Some(stored.modified_ms),
                });
            let objects = found.by_ref().take(LIST_MAX).collect();
            let more = found.next().is_some();
            Ok(Listing { objects, more })
        })
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        check_key(key)?;
        self.operate(key, |state| {
            state.objects.remove(key);
            Ok(())
        })
    }

    fn sweep(&self, prefix: &str, begun_before_ms: i64) -> Result<u64, Error> {
        self.operate(prefix, |state| {
            let before = state.uploads.len();
            let is_old =
                |(key, begun): &(String, i64)| key.starts_with(prefix) && *begun < begun_before_ms;
            state.uploads.retain(|upload| !is_old(upload));
            Ok((before - state.uploads.len()) as u64)
        })
    }
}
