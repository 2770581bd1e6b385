//! Blocks: the immutable files in which samples rest, small and made for reading a little of them, near or from a bucket.
//!
//! Promise: under its own name a file is whole; what is read of it is what was written, to the bit, or an error that names file and offset; damage of one
//! page fails only what needs that page; and no bytes whatever make a reader panic or take memory beyond the bounds in `limits`.
//!
//! ```text
//! writing   Builder  series in order -> pages of samples as they come, the index at the end        builder.rs, pack.rs
//!           FileWriter  the bytes to disk, visible when durable                                    file.rs
//!           merge  files of one tenant to one: later-logged wins, deletions, retention             merge.rs, tombstone.rs
//! reading   Block, Index  footer; matchers -> series -> pages -> columns                           reader.rs
//!           HeldRun  a run on a page that is kept packed until somebody wants its samples          held.rs
//!           Source  where the bytes are: a file, memory, an object                                 source.rs
//!           Catalog  the blocks of a directory, open; their indexes, cached; which have expired    catalog.rs
//!           verify  all of it against itself                                                       verify.rs
//! codecs    times.rs, values.rs over ints.rs over bits.rs; page.rs is frame and checksum
//! index     symbols.rs, series.rs, postings.rs, directory.rs; meta.rs is header, footer, trailer
//! ```
//!
//! The format is drawn in `docs/formats/block.md`, its choices and their figures in `docs/decisions/0008-block-pages-and-codecs.md`.
//!
//! What it costs (`cargo run --release -p block --example size`): on 60 scrapes of `myelin-bench`'s series 0.9 bytes and about 150 ns of encoding a sample, 5 ns
//! of decoding; 1 to 2 bytes of index a series; long runs are cheaper in all of it.
//!
//! Deliberately absent: which files to merge when (the compactor), uploading and buckets (`objstore`), the meaning of histograms (their sealed chunks
//! pass as they are), threads and clocks.

#![forbid(unsafe_code)]

mod bits;
mod builder;
mod catalog;
mod deletions;
mod directory;
mod error;
mod file;
mod held;
mod ints;
mod limits;
mod merge;
mod meta;
mod pack;
mod page;
mod postings;
mod reader;
mod series;
mod source;
mod symbols;
mod times;
mod tombstone;
mod values;
mod verify;

pub use builder::{Builder, Built, Options, Spent};
pub use catalog::{Catalog, EXTENSION, StoredBlock, Summary};
pub use deletions::{Deletion, Deletions, OfTenant, Refused};
pub use error::{Error, Malformed};
pub use file::{FileWriter, Progress, remove_unfinished};
pub use held::{FoundRun, HeldRun};
pub use ints::Effort;
pub use limits::{
    DELETIONS_KEPT_MAX, DELETIONS_MAX, DIRECTORY_BYTES_MAX, GAP_BYTES_MAX, LABELS_MAX, PAGE_BYTES,
    PAGE_BYTES_MAX, READ_BYTES_MAX, RUN_SAMPLES_MAX, SEALED_BYTES_MAX, SELECTOR_BYTES_MAX,
    SELECTORS_MAX, SERIES_MAX, SOURCES_MAX, SYMBOL_BYTES_MAX, TENANTS_MAX,
};
pub use merge::{Drops, Input, Merge, Merged, add_samples, merge};
pub use meta::{FileKind, Info, Meta, Part, Placement, VERSION, fresh_id};
pub use pack::{Run, SealedRun};
pub use page::Kind;
pub use reader::{Block, Index};
pub use source::{Fetch, LocalFile, Memory, SharedFile, Source, coalesce};
pub use tombstone::{Gone, Tombstone};
pub use values::Coding;
pub use verify::{Verified, verify};

#[cfg(test)]
mod tests;
