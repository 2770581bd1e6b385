//! What was verified: hashes of headers under a key of this process, and whose they are.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Identity;

/// Headers remembered: one for each password or token in use, and a node has far fewer. A full memory forgets all of them.
const ENTRIES_MAX: usize = 10_000;

/// The hash of a header.
pub(super) type Key = [u8; 32];

/// See the module.
pub(super) struct Cache {
    secret: Key,
    entries: HashMap<Key, Arc<Identity>>,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            secret: super::credentials::random(),
            entries: HashMap::new(),
        }
    }
}

impl Cache {
    /// Key of a header. The secret has a length of its own, so no other header begins as secret and header do.
    pub(super) fn key(&self, header: &[u8]) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.secret);
        hash.update(header);
        hash.finalize().into()
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Identity>> {
        self.entries.get(key).cloned()
    }

    pub(super) fn put(&mut self, key: Key, identity: Arc<Identity>) {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.clear();
        }
        self.entries.insert(key, identity);
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({} entries)", self.entries.len())
    }
}
