//! Where the series are that this node writes and reads: on its own cores, on other nodes, or nowhere.

use std::sync::Arc;

use gateway::peers::{Nobody, Peers};
use gateway::pull::Frontend;
use gateway::push;
use shard::{Cores, Mailboxes, SeriesCounts};

/// See the module.
pub(crate) enum Series {
    /// Here.
    Here(Box<Cores>),
    /// This node is a distributor or a querier.
    Elsewhere(Peers),
    /// It only keeps queries for others.
    Nowhere,
}

impl Series {
    /// The cores of this node.
    pub(crate) fn cores(&self) -> Option<&Cores> {
        match self {
            Series::Here(cores) => Some(cores),
            Series::Elsewhere(_) | Series::Nowhere => None,
        }
    }

    /// The ways to these.
    pub(crate) fn mailboxes(&self) -> Option<&Mailboxes> {
        self.cores().map(Cores::mailboxes)
    }

    /// Where to write.
    pub(crate) fn writes(&self) -> Arc<dyn push::Cores> {
        match self {
            Series::Here(cores) => Arc::new(cores.mailboxes().clone()),
            Series::Elsewhere(peers) => Arc::new(peers.clone()),
            Series::Nowhere => Arc::new(Nobody),
        }
    }

    /// How many series tenants have in the memory of this node.
    pub(crate) fn counts(&self) -> SeriesCounts {
        self.cores()
            .map_or_else(SeriesCounts::default, Cores::series_counts)
    }

    /// What tells whether this node can do its work, and why not.
    pub(crate) fn health(
        &self,
        frontend: Option<Arc<Frontend>>,
    ) -> Box<dyn Fn() -> Result<(), String> + Send + Sync> {
        let frontend = move || {
            frontend
                .as_ref()
                .map_or(Ok(()), |frontend| frontend.health())
        };
        match self {
            Series::Here(cores) => {
                let watch = cores.watch();
                Box::new(move || {
                    let health = watch.health();
                    match health.poisoned {
                        Some(refusal) => Err(refusal.to_string()),
                        None if !health.ready => Err("a core does not serve".to_owned()),
                        None => frontend(),
                    }
                })
            }
            Series::Elsewhere(peers) => {
                let peers = peers.clone();
                Box::new(move || peers.health().and_then(|()| frontend()))
            }
            Series::Nowhere => Box::new(frontend),
        }
    }
}
