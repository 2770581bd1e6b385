//! The server from outside: first light, a real Prometheus, hostile clients, tenants, graceful stops.

mod bucket;
mod caches;
mod deletions;
mod fair;
mod first_light;
mod flood;
mod frontend;
mod ha;
mod histograms;
mod hostile;
mod import;
mod memory;
mod mixin;
mod observe;
mod otlp;
mod places;
mod prometheus;
mod queries;
mod remote_read;
mod roles;
mod security;
mod separation;
mod series;
mod soak;
mod srv;
mod tenants;
