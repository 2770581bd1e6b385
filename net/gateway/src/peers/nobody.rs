//! No series at all: for nodes that only pass queries on.

use std::sync::Arc;

use model::CoreId;
use query::{Catalog, Holders};
use shard::{Changes, Message, Push, Refusal};

use crate::push::{Cores, Sleepers, Spread};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Cores for Nobody {
    fn spread(&self) -> Spread {
        Spread::here(1)
    }

    fn push(&self, _parts: Vec<(CoreId, u32, Push)>) -> Result<Sleepers, Refusal> {
        Err(Refusal::Elsewhere("this node takes no samples".to_owned()))
    }

    fn wake(&self, _core: CoreId) {}

    fn queue(&self, _core: CoreId) -> (u64, u64) {
        (0, 0)
    }
}

impl Holders for Nobody {
    fn count(&self) -> u16 {
        0
    }

    fn send(&self, _holder: u16, _message: Message) {
        unreachable!("there is nobody")
    }

    fn blocks(&self) -> Option<&Arc<Catalog>> {
        None
    }

    fn changes(&self) -> Option<&Arc<Changes>> {
        None
    }
}
