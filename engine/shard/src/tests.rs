//! Tests of whole cores. `node` is a node of several cores driven by hand on a simulated machine; `client` is a gateway in
//! small, which remembers what it sent and what was acknowledged; `behavior`, `chunks`, `crew`, `cuts`, `late`, `simulation`, `snapshots`, `model`, `memory` and `worlds` are the tests, `pauses` is a measurement.

mod behavior;
mod chunks;
mod client;
mod crew;
mod cuts;
mod directories;
mod late;
mod memory;
mod model;
mod node;
mod pauses;
mod simulation;
mod snapshots;
mod worlds;
