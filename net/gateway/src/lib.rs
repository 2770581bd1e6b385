//! How others reach a node: HTTP in both directions of the data, and the gRPC port.
//!
//! Thin and stateless but for what is named here: the alias table of each thread (`alias`), limits per tenant (`overrides`), metadata
//! (`metadata`), elections of HA replicas (`ha`). Read on by direction:
//!
//! - in front of both: `server` (acceptor, threads, stop), `tls`, `connection` (patience with clients), `router`, `auth` (who asks), `handle`, `state`;
//! - a sample comes in: `push`, `distributor`, `alias`, `ha` (which of several replicas is taken), `relabel`;
//! - a query goes out: `api`, `params`, `frontend` (identical ones are one, slow ones are told), `reply`;
//! - operators and probes: `admin`, `mode` (whether writes are taken), `metrics`, `limit_metrics`, `also` (Cortex' names of metrics), `told` (lines about refusals), `grpc`;
//! - other nodes: `peers`, `pull`, `dial` (connections to them).
//!
//! Only here a class of error becomes an HTTP status. Every wait on a client and every body has a bound, and a tenant's
//! request reaches cores with that tenant's name only.

#![forbid(unsafe_code)]

mod admin;
pub mod alias;
mod also;
mod api;
pub mod auth;
mod connection;
mod dial;
mod distributor;
mod frontend;
mod grpc;
pub mod ha;
mod handle;
mod limit_metrics;
pub mod metadata;
mod metrics;
mod mode;
pub mod overrides;
pub mod params;
pub mod peers;
pub mod pull;
pub mod push;
pub mod relabel;
mod reply;
mod router;
mod server;
mod state;
pub mod tenant;
mod tenant_metrics;
pub mod tls;
mod told;

pub use dial::{Dial, NodeSecret};
pub use frontend::SlowerThan;
pub use grpc::{GrpcOptions, GrpcServer};
pub use handle::CorsOrigin;
pub use limit_metrics::LimitMetrics;
pub use server::{Calls, Server};
pub use state::{
    ConfigPages, CpuProfile, Gateway, Held, LimitValue, LimitValues, Options, Phase, Roles,
    Services,
};
pub use tenant_metrics::TenantMetrics;
