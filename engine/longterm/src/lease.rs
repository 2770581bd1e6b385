//! One writer of a bucket whose store has no compare-and-swap: an object names it, for a while.
//!
//! Taking it: write, then look whether it is still ours at the next pass; only then does the writing begin. Two who take it at the same moment
//! both read what came last, and one of them finds another's name. Who holds it renews it with each pass, and stops writing when he could not.

use objstore::{Bucket, Condition};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::keys::LEASE;

/// How long it holds: passes come each minute, and an upload of a large block takes some.
const HOLDS_MS: i64 = 30 * 60_000;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    holder: String,
    until_ms: i64,
}

/// What this process knows of it.
#[derive(Debug)]
pub(crate) struct Holding {
    holder: String,
}

impl Holding {
    /// `node` and a number by chance: another process of the same name is another writer.
    pub(crate) fn new(node: &str, chance: u64) -> Holding {
        Holding {
            holder: format!("{node}-{chance:016x}"),
        }
    }

    /// Makes sure that we may write. Errors: [`Error::Leased`], also in the pass that takes the lease.
    pub(crate) fn ensure(&mut self, bucket: &dyn Bucket, now_ms: i64) -> Result<(), Error> {
        let found = bucket.get(LEASE)?.map(|object| object.bytes);
        let found: Option<Lease> = match found {
            None => None,
            // One that cannot be read holds nobody off for ever: it is taken, and looked at again like any other.
            Some(bytes) => serde_json::from_slice(&bytes).ok(),
        };
        let is_ours = found.as_ref().is_some_and(|f| f.holder == self.holder);
        if let Some(lease) = &found
            && !is_ours
            && lease.until_ms > now_ms
        {
            return Err(Error::Leased {
                holder: lease.holder.clone(),
                seconds: (lease.until_ms - now_ms) / 1000,
            });
        }
        let renewed = Lease {
            holder: self.holder.clone(),
            until_ms: now_ms.saturating_add(HOLDS_MS),
        };
        let bytes = serde_json::to_vec(&renewed).expect("two plain fields");
        bucket.put(LEASE, &bytes, &Condition::Always)?;
        match is_ours {
            true => Ok(()),
            false => Err(Error::Leased {
                holder: self.holder.clone(),
                seconds: 0,
            }),
        }
    }
}
