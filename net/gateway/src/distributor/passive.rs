//! What of a body is passed over because another replica of its cluster is elected.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::Rest;
use crate::ha::sources::Pair;

/// Samples of replicas that are not elected.
#[derive(Debug, Default)]
pub(crate) struct Passive {
    /// Floats.
    pub(crate) samples: u64,
    pub(crate) histograms: u64,
    pub(crate) exemplars: u64,
    /// Samples of either kind by cluster.
    pub(crate) by_cluster: HashMap<Arc<str>, u64>,
    /// The first such replica, and who is elected in its place.
    pub(crate) first: Option<(Arc<str>, Arc<str>)>,
}

impl Passive {
    /// Counts a series.
    pub(super) fn add(
        &mut self,
        [cluster, replica]: &Pair,
        elected: &Arc<str>,
        floats: u64,
        rest: &Rest,
    ) {
        self.samples += floats;
        self.histograms += rest.histograms;
        self.exemplars += rest.exemplars;
        let count = floats + rest.histograms;
        match self.by_cluster.get_mut(cluster) {
            Some(samples) => *samples += count,
            None => drop(self.by_cluster.insert(cluster.clone(), count)),
        }
        let pair = || (replica.clone(), elected.clone());
        self.first.get_or_insert_with(pair);
    }
}
