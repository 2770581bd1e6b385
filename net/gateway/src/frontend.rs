//! Between the query API and the engine: identical queries in flight are one evaluation, answers have a bound, slow queries are told.
//!
//! The queue itself, its fairness and its bounds are the engine's (`query::Engine`): there is one for all threads. What stands here is of requests:
//! [`flights`] joins those that ask the same, [`report`] writes lines of what queries cost.

pub(crate) mod flights;
pub(crate) mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

/// Which requests of the query API are told in the log as slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlowerThan {
    /// None.
    #[default]
    Off,
    /// Those that took longer.
    Than(Duration),
    /// All.
    All,
}

impl SlowerThan {
    pub(crate) fn is_slow(self, elapsed: Duration) -> bool {
        match self {
            SlowerThan::Off => false,
            SlowerThan::Than(most) => elapsed > most,
            SlowerThan::All => true,
        }
    }
}
