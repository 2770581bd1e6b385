//! From the text of a query to its answer, over all cores of this node.
//!
//! Steps 3 to 8 of the way of a query. [`Engine`] is called from the gateway's threads and is async only where it waits:
//!
//! 1. `engine`: a place among the queries at work (`turns`: bounded, fair among tenants, and so are the lines before it), a deadline,
//!    a flag that is set when the caller has gone, an account of its memory (`memory`), an entry among those in flight, by which
//!    it can be seen and killed (`inflight`);
//!    Before it waits, `judge` looks whether it may at all, and which priority it has; `patterns` bounds its regular expressions;
//! 2. `workers`: threads of low priority; everything that costs CPU happens there: parsing, planning, sorting, evaluation. A
//!    panic there is an error of this query, and its text is refused for a minute (`quarantine`);
//! 3. `fanout`: each selector of the plan goes to the mailboxes of all cores; the answers come back through oneshots;
//! 4. `blocks`: when the cores have answered, the blocks of this node are asked the same, on a worker;
//! 5. `merge`: sorted by labels, the same series joined, and thereby a [`promql::Source`]: chunks are decoded only when a
//!    worker evaluates their series.
//!
//! A range query may be put together from parts (`parts`): what is kept of earlier ones (`results`), and pieces of a day each. A query over several
//! tenants (`federation`) is a read of each.
//!
//! Nothing here names a series without its tenant. Every wait ends at the deadline. Limits of a query (series, bytes, samples,
//! length) are the tenant's; a query beyond one fails with an error that names it.

#![forbid(unsafe_code)]

mod blocks;
mod cardinality;
mod deletions;
mod engine;
mod error;
mod exemplars;
mod explain;
mod fanout;
mod federation;
mod inflight;
mod judge;
mod labels;
mod memory;
mod merge;
mod metrics;
mod options;
mod parts;
mod patterns;
mod peers;
mod quarantine;
mod remote_read;
mod results;
mod turns;
mod workers;

pub use block::Catalog;
pub use cardinality::{Count, Head, LabelCounts, Labeled};
pub use deletions::{Deleted, Deletion};
pub use engine::{Answer, Caller, Client, Engine, Query, Size, Times};
pub use error::Error;
pub use exemplars::SeriesExemplars;
pub use explain::{Explanation, Node, Run, SelectorReport, Sharding};
pub use fanout::{Holders, Told};
pub use inflight::{Journal, Running};
pub use labels::{LabelSets, Lookup, Texts};
pub use memory::Account;
pub use options::Options;
pub use peers::{Selected, Selection};
pub use promql::{Explained, NodeCost, SelectorCost, ShardLabels};
pub use remote_read::{Cursor, PrometheusChunk, PrometheusEncoding, ReadSelector, ReadSeries};
pub use results::Shared as SharedResults;
pub use shard::History;
