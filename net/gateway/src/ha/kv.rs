//! Where elections are kept: a key for each cluster of a tenant, changed by compare and swap.
//!
//! In memory for a node of its own. The trait waits, so that a store of a cluster can follow; whoever can answer at once does so by
//! [`Kv::try_cas`], and then no push waits.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use model::TenantId;

/// Whose election.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The tenant.
    pub tenant: TenantId,
    /// Its cluster.
    pub cluster: Arc<str>,
}

impl Key {
    /// That of a cluster of a tenant.
    pub fn new(tenant: &TenantId, cluster: &str) -> Key {
        Key {
            tenant: tenant.clone(),
            cluster: Arc::from(cluster),
        }
    }
}

/// An election. Source: Cortex `ReplicaDesc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who is elected.
    pub replica: Arc<str>,
    /// When it was last heard of, Unix milliseconds.
    pub received_at_ms: i64,
    /// When it was given up, or 0.
    pub deleted_at_ms: i64,
}

/// What is to become of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// This.
    Put(Entry),
    /// It goes.
    Remove,
}

/// Tells what is to become of what is there; called again where somebody else was faster.
pub type Changing<'a> = dyn FnMut(Option<&Entry>) -> Change + Send + 'a;

/// An answer to wait for.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// A store of elections.
pub trait Kv: Debug + Send + Sync {
    /// Changes an entry, if that is possible without waiting; else does nothing and returns false.
    fn try_cas(&self, key: &Key, change: &mut Changing<'_>) -> bool;

    /// Changes an entry. Errors: why it cannot be known whether it has changed.
    fn cas<'a>(&'a self, key: &'a Key, change: &'a mut Changing<'_>) -> Waiting<'a, ()>;

    /// All there is.
    fn list(&self) -> Waiting<'_, Vec<(Key, Entry)>>;
}

/// Elections of a node of its own.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<HashMap<Key, Entry>>);

impl Kv for InMemory {
    fn try_cas(&self, key: &Key, change: &mut Changing<'_>) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match change(all.get(key)) {
            Change::Keep => {}
            Change::Put(entry) => drop(all.insert(key.clone(), entry)),
            Change::Remove => drop(all.remove(key)),
        }
        true
    }

    fn cas<'a>(&'a self, key: &'a Key, change: &'a mut Changing<'_>) -> Waiting<'a, ()> {
        self.try_cas(key, change);
        Box::pin(std::future::ready(Ok(())))
    }

    fn list(&self) -> Waiting<'_, Vec<(Key, Entry)>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.iter().map(|(key, entry)| (key.clone(), entry.clone()));
        Box::pin(std::future::ready(Ok(all.collect())))
    }
}
