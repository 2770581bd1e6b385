//! Two caches, the nearer before the farther: what only the farther has is kept in the nearer too.

use std::sync::Arc;
use std::time::Duration;

use crate::{Cache, Key, Later, Value};

/// See the module.
#[derive(Debug)]
pub struct Tiers {
    near: Arc<dyn Cache>,
    far: Arc<dyn Cache>,
    /// For what is filled in.
    ttl: Duration,
}

impl Tiers {
    /// `ttl`: how long the nearer keeps what it has from the farther.
    pub fn new(near: Arc<dyn Cache>, far: Arc<dyn Cache>, ttl: Duration) -> Tiers {
        Tiers { near, far, ttl }
    }

    fn fill(&self, keys: Vec<Key>, found: &mut [Option<Value>], more: Vec<Option<Value>>) {
        let missing = found.iter_mut().filter(|found| found.is_none());
        let mut fill = Vec::new();
        for ((key, place), value) in keys.into_iter().zip(missing).zip(more) {
            if let Some(value) = value {
                fill.push((key, value.clone()));
                *place = Some(value);
            }
        }
        if !fill.is_empty() {
            self.near.set(fill, self.ttl);
        }
    }
}

fn missing(keys: &[Key], found: &[Option<Value>]) -> Vec<Key> {
    let pairs = keys.iter().zip(found);
    let missing = pairs.filter(|(_, found)| found.is_none());
    missing.map(|(key, _)| key.clone()).collect()
}

impl Cache for Tiers {
    fn get(&self, keys: &[Key]) -> Vec<Option<Value>> {
        let mut found = self.near.get(keys);
        let missing = missing(keys, &found);
        if !missing.is_empty() {
            let more = self.far.get(&missing);
            self.fill(missing, &mut found, more);
        }
        found
    }

    fn get_later(&self, keys: Vec<Key>) -> Later<'_> {
        Box::pin(async move {
            let mut found = self.near.get_later(keys.clone()).await;
            let missing = missing(&keys, &found);
            if !missing.is_empty() {
                let more = self.far.get_later(missing.clone()).await;
                self.fill(missing, &mut found, more);
            }
            found
        })
    }

    fn set(&self, entries: Vec<(Key, Value)>, ttl: Duration) {
        self.near.set(entries.clone(), ttl);
        self.far.set(entries, ttl);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, Metrics};

    #[test]
    fn what_the_farther_has_comes_into_the_nearer() {
        let metrics = Metrics::unregistered();
        let new = |name| Arc::new(Memory::new(1 << 20, metrics.of(name)));
        let (near, far) = (new("near"), new("far"));
        let tiers = Tiers::new(near.clone(), far.clone(), Duration::ZERO);
        let key = |n: u8| Key::of(&[&[n]]);
        let value = |n: u8| Value::from(vec![n]);
        tiers.set(vec![(key(1), value(1))], Duration::ZERO);
        near.set(vec![(key(2), value(2))], Duration::ZERO);
        far.set(vec![(key(3), value(3)), (key(5), value(5))], Duration::ZERO);
        let expected = [
            Some(value(1)),
            Some(value(2)),
            Some(value(3)),
            None,
            Some(value(5)),
        ];
        let keys: Vec<_> = (1..=5).map(key).collect();
        assert_eq!(tiers.get(&keys), expected);
        assert_eq!(near.get(&keys), expected);
        assert_eq!(far.get(&[key(1), key(2)]), [Some(value(1)), None]);
    }
}
