//! Fuzz targets: whatever parses bytes or text that others wrote, or that a disk may have changed.
//!
//! Each target is a test, run on a few thousand random inputs within `cargo test`; a failure prints the seed that repeats it
//! (`BOLERO_RANDOM_SEED=.. cargo test -p tests --test fuzz NAME`). `make fuzz` runs the same targets for as long as one likes, and
//! they are bolero targets, so `cargo bolero test -p tests NAME` drives them by coverage where it is installed.
//!
//! A target does more than wait for a panic: it says what must hold of whatever was accepted. And since random bytes rarely get
//! past a checksum or a grammar, most targets come in two: any input, and input that is nearly right.

mod block;
mod chunk;
mod evaluation;
mod otlp;
mod params;
mod promql;
mod wal;
mod wire;

/// Inputs of a brief run; `make fuzz` overrides it. A second or so for each target.
const INPUTS: usize = 10_000;
