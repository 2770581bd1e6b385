//! From the text of a query to its answer, over all cores of this node.
//!
//! Steps 3 to 8 of the way of a query. [`Engine`] is called from the gateway's threads and is async only where it waits:
//!
//! 1. `engine`: a place among the queries at work (bounded, and so is the queue before it), a deadline, a flag that is set when
//!    the caller has gone;
//! 2. `workers`: threads of low priority; everything that costs CPU happens there: parsing, planning, sorting, evaluation. A
//!    panic there is an error of this query, and its text is refused for a minute (`quarantine`);
//! 3. `fanout`: each selector of the plan goes to the mailboxes of all cores; the answers come back through oneshots;
//! 4. `merge`: sorted by labels, the same series joined, and thereby a [`promql::Source`]: chunks are decoded only when a
//!    worker evaluates their series.
//!
//! Nothing here names a series without its tenant. Every wait ends at the deadline. Limits of a query (series, bytes, samples,
//! length) are the tenant's; a query beyond one fails with an error that names it.

#![forbid(unsafe_code)]

mod engine;
mod error;
mod exemplars;
mod fanout;
mod labels;
mod merge;
mod metrics;
mod options;
mod quarantine;
mod workers;

pub use engine::{Answer, Caller, Engine, Query, Times};
pub use error::Error;
pub use exemplars::SeriesExemplars;
pub use labels::{Lookup, Texts};
pub use options::Options;
