//! The cache in this process: bounded in bytes, what is used least goes first.

use std::fmt;
use std::time::Duration;

use quick_cache::sync::{Cache as Quick, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::metrics::{Named, Operation};
use crate::{Cache, Key, Later, Value};

/// Bytes of an entry beside key and value.
const ENTRY_BYTES: u64 = 96;

/// Values are small against the whole; the estimate only sizes tables.
const VALUE_BYTES_ABOUT: u64 = 8 << 10;

/// A value above this share of the whole would push out too much else.
const SHARE_OF_ONE: u64 = 8;

/// See the module. It keeps what it is told for as long as there is room, whatever time it is told: what is here is
/// as true as what it was made of.
pub struct Memory {
    kept: Quick<Key, Value, Bytes>,
    bytes_max: u64,
    metrics: Named,
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Value> for Bytes {
    fn weight(&self, key: &Key, value: &Value) -> u64 {
        ENTRY_BYTES + (key.full().len() + value.len()) as u64
    }
}

impl Memory {
    /// With room for so many bytes.
    pub fn new(bytes_max: u64, metrics: Named) -> Memory {
        let items = usize::try_from(bytes_max / VALUE_BYTES_ABOUT).unwrap_or(usize::MAX);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items.clamp(16, 1 << 20))
            .weight_capacity(bytes_max)
            .shards(4)
            .build()
            .expect("both capacities are given");
        let lifecycle = DefaultLifecycle::default();
        Memory {
            kept: Quick::with_options(options, Bytes, DefaultHashBuilder::default(), lifecycle),
            bytes_max,
            metrics,
        }
    }

    /// Bytes and entries.
    pub fn size(&self) -> (u64, usize) {
        (self.kept.weight(), self.kept.len())
    }
}

impl Cache for Memory {
    fn get(&self, keys: &[Key]) -> Vec<Option<Value>> {
        let found: Vec<_> = keys.iter().map(|key| self.kept.get(key)).collect();
        self.metrics.found(&found);
        found
    }

    fn get_later(&self, keys: Vec<Key>) -> Later<'_> {
        let found = self.get(&keys);
        Box::pin(std::future::ready(found))
    }

    fn set(&self, entries: Vec<(Key, Value)>, _ttl: Duration) {
        for (key, value) in entries {
            if Bytes.weight(&key, &value) > self.bytes_max / SHARE_OF_ONE {
                self.metrics.skipped(Operation::Set, "max-item-size");
                continue;
            }
            self.kept.insert(key, value);
        }
        let (bytes, entries) = self.size();
        self.metrics.holds(bytes, entries);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    #[test]
    fn it_keeps_within_its_bytes_and_gives_what_it_was_given() {
        let metrics = Metrics::unregistered();
        let memory = Memory::new(100_000, metrics.of("test"));
        let key = |n: u32| Key::of(&[b"k", &n.to_le_bytes()]);
        let value = |n: u32| Value::from(vec![n as u8; 1000]);
        for n in 0..1000 {
            memory.set(vec![(key(n), value(n))], Duration::ZERO);
            assert!(memory.size().0 <= 100_000);
        }
        let keys: Vec<_> = (0..1000).map(key).collect();
        let found = memory.get(&keys);
        let kept = found.iter().flatten().count();
        assert!((50..100).contains(&kept), "{kept}");
        for (n, found) in found.iter().enumerate() {
            assert!(found.as_ref().is_none_or(|v| *v == value(n as u32)), "{n}");
        }
        memory.set(
            vec![(key(5000), Value::from(vec![0; 50_000]))],
            Duration::ZERO,
        );
        assert_eq!(memory.get(&[key(5000)]), [None]);
    }
}
