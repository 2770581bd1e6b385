//! Nodes that hold series, asked by nodes that have none: distributors write to them, queriers read from them.
//!
//! [`Peers`] is to the write path what the mailboxes of this node's cores are ([`crate::push::Cores`]), and to the read path likewise
//! ([`query::Holders`]): columns of known keys, chunks as they lie in memory. So everything above works as if the cores were here. [`serve`] is the
//! other side; `convert` has the messages, which are those of `rpc::ingester`.
//!
//! - A key of a series means something to the process that gave it out, and carries its seal (`convert::Seal`); another process finds it
//!   dead, as a core does one of a series that has left, and the series is sent again with labels.
//! - A push is acknowledged when every node has said that its part is durable. If one cannot be asked, the whole push is 503 and is repeated; what others
//!   have stored is found there then.
//! - How many cores a node has is fixed while a distributor runs: where a series lies depends on it. A node that comes back with another
//!   number is not written to, and says so, until the distributor is started anew.
//!
//! Bounds: bytes on the way to one node ([`PeerOptions::queue_bytes_max`]); a read takes memory from its query as it arrives and ends with it.

mod client;
mod convert;
mod deletions;
mod metrics;
mod nobody;
pub(crate) mod serve;

pub use client::{PeerOptions, Peers};
pub use metrics::PeerMetrics;
pub use nobody::Nobody;
