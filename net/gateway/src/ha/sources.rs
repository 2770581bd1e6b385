//! Pairs of cluster and replica of one tenant, numbered, so that an alias can say in 16 bits whose series it is.
//!
//! Numbers are only given out, never taken back, as long as the tenant is remembered; its aliases are of its own secret and go with it. Bounds:
//! [`NUMBERS_MAX`] pairs and [`BYTES_MAX`] bytes of names. A pair beyond has no number: its series are parsed every time.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Number of a series that belongs to no replica.
pub(crate) const NONE: u16 = 0;

/// In place of a number where there is none left.
pub(crate) const UNNUMBERED: u16 = u16::MAX;

const NUMBERS_MAX: usize = UNNUMBERED as usize - 1;
const BYTES_MAX: usize = 1 << 20;

/// Cluster and replica.
pub(crate) type Pair = [Arc<str>; 2];

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sources(RwLock<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    numbers: HashMap<Pair, u16>,
    /// By number, from 1 on.
    pairs: Vec<Pair>,
    bytes: usize,
}

impl Sources {
    /// The number of a pair; [`UNNUMBERED`] where there is no room for one more.
    pub(crate) fn number(&self, [cluster, replica]: [&str; 2]) -> u16 {
        let pair: Pair = [Arc::from(cluster), Arc::from(replica)];
        let known = {
            let numbered = self.0.read().unwrap_or_else(PoisonError::into_inner);
            numbered.numbers.get(&pair).copied()
        };
        if let Some(number) = known {
            return number;
        }
        let numbered = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(&number) = numbered.numbers.get(&pair) {
            return number;
        }
        let bytes = cluster.len() + replica.len();
        if numbered.pairs.len() >= NUMBERS_MAX || numbered.bytes + bytes > BYTES_MAX {
            return UNNUMBERED;
        }
        numbered.bytes += bytes;
        numbered.pairs.push(pair.clone());
        let number = numbered.pairs.len() as u16;
        numbered.numbers.insert(pair, number);
        number
    }

    /// The pair of a number that was given out.
    pub(crate) fn pair(&self, number: u16) -> Pair {
        let numbered = self.0.read().unwrap_or_else(PoisonError::into_inner);
        numbered.pairs[usize::from(number) - 1].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_keep_their_numbers_and_long_names_get_none() {
        let sources = Sources::default();
        let first = sources.number(["c", "a"]);
        let second = sources.number(["c", "b"]);
        assert!(first != second && first != NONE && second != NONE);
        assert_eq!(sources.number(["c", "a"]), first);
        assert_eq!(
            sources.pair(second).map(|name| name.to_string()),
            ["c", "b"]
        );
        let long = "x".repeat(BYTES_MAX);
        assert_eq!(sources.number([&long, "a"]), UNNUMBERED);
    }

    #[test]
    fn made_up_replicas_are_bounded() {
        let sources = Sources::default();
        for i in 0..NUMBERS_MAX + 10 {
            sources.number(["c", &format!("{i:x}")]);
        }
        let left = sources.0.read().unwrap();
        assert!(left.pairs.len() <= NUMBERS_MAX && left.bytes <= BYTES_MAX);
        assert_eq!(left.pairs.len(), left.numbers.len());
    }
}
