//! Keys: everything that decides a value, and a hash of it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128;

/// What a value is kept under. Two keys are equal when all their parts are; the hash decides nothing alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    full: Arc<[u8]>,
    hash: u128,
}

impl Key {
    /// Of parts, in this order; where one ends and the next begins matters.
    pub fn of(parts: &[&[u8]]) -> Key {
        let bytes = parts.iter().map(|part| part.len() + 4).sum();
        let mut full = Vec::with_capacity(bytes);
        for part in parts {
            full.extend_from_slice(&(part.len() as u32).to_le_bytes());
            full.extend_from_slice(part);
        }
        let hash = xxh3_128(&full);
        let full = full.into();
        Key { full, hash }
    }

    /// All parts.
    pub(crate) fn full(&self) -> &[u8] {
        &self.full
    }

    /// Stable over processes and versions.
    pub(crate) fn hash128(&self) -> u128 {
        self.hash
    }

    /// For a server to know it by: short, and of letters that every protocol takes.
    pub(crate) fn wire(&self) -> String {
        format!("myelin-{:032x}", self.hash)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:032x})", self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(Key::of(&[b"ab", b"c"]), Key::of(&[b"a", b"bc"]));
        assert_ne!(Key::of(&[b"ab"]), Key::of(&[b"ab", b""]));
        assert_eq!(Key::of(&[b"ab", b"c"]), Key::of(&[b"ab", b"c"]));
        assert_eq!(Key::of(&[&[b'x'; 9000]]).wire().len(), 39);
    }
}
