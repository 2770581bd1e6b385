//! kill -9 (of the store of the blocks too) and power cuts under load: nothing acknowledged is missing afterwards, nothing is found that was not sent.
//!
//! `myelin-bench verify write` remembers in a state file what was acknowledged, `verify check` asks for all of it. A power cut is a
//! loop-mounted filesystem that is shut down without a flush of its log (`xfs_io -x -c shutdown`): what was not synced is really
//! gone. That the test can fail is a test of its own: with `ack: written` acknowledged samples do get lost.

mod kill;
mod one;
mod power;
mod snapshot;
mod store;
mod verify;
