//! How others reach a node: HTTP in both directions of the data, and the gRPC port.
//!
//! Thin and stateless but for what is named here: the alias table of each thread (`alias`), limits per tenant (`overrides`), metadata
//! (`metadata`), elections of HA replicas (`ha`). Read on by direction:
//!
//! - in front of both: `server` (acceptor, threads, stop), `connection` (patience with clients), `router`, `handle`, `state`;
//! - a sample comes in: `push`, `distributor`, `alias`, `ha` (which of several replicas is taken), `relabel`;
//! - a query goes out: `api`, `params`, `frontend` (identical ones are one, slow ones are told), `reply`;
//! - operators and probes: `admin`, `metrics`, `limit_metrics`, `grpc`.
//!
//! Only here a class of error becomes an HTTP status. Every wait on a client and every body has a bound, and a tenant's
//! request reaches cores with that tenant's name only.

#![forbid(unsafe_code)]

mod admin;
pub mod alias;
mod api;
mod connection;
mod distributor;
mod frontend;
mod grpc;
pub mod ha;
mod handle;
mod limit_metrics;
pub mod metadata;
mod metrics;
pub mod overrides;
pub mod params;
pub mod push;
pub mod relabel;
mod reply;
mod router;
mod server;
mod state;
pub mod tenant;

pub use frontend::SlowerThan;
pub use grpc::GrpcServer;
pub use limit_metrics::LimitMetrics;
pub use server::Server;
pub use state::{ConfigPages, Gateway, LimitValue, LimitValues, Options, Phase, Services};
