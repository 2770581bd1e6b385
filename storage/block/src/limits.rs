//! Bounds of a block, with the reasons for their values. The sizes of the format itself stand in `docs/formats/block.md`.

/// Samples of one run, i.e. of one entry of a chunk page. A longer series gets several runs: so a reader of a short time range decodes at most
/// this many samples too much, and a writer holds at most this many of a series.
pub const RUN_SAMPLES_MAX: usize = 4096;

/// Default payload of a chunk page, before it is sealed: some hundred short runs, so that frame and checksum are a thousandth; one read of
/// a disk or a bucket either way; hashed in two microseconds.
pub const PAGE_BYTES: usize = 16 << 10;

/// Largest payload of a page that is not a directory or footer. A page holds at least one entry, however large: the longest is a run of
/// raw floats with irregular times (64 KiB) or a sealed chunk of histograms.
pub const PAGE_BYTES_MAX: usize = 32 << 20;

/// Largest sealed chunk that an entry may hold: as long as `chunk` makes them.
pub const SEALED_BYTES_MAX: usize = chunk::SEALED_LEN_MAX;

/// Largest payload of a directory or a footer: 4 million pages (64 GiB of samples at the default page) or half a million tenants.
pub const DIRECTORY_BYTES_MAX: usize = 64 << 20;

/// Series of one tenant in one file. Bounds what a damaged count may allocate, and the memory of a writer.
pub const SERIES_MAX: u32 = 1 << 26;

/// Labels of one series, far beyond what the gateway lets pass.
pub const LABELS_MAX: usize = 1 << 10;

/// Longest label name or value in bytes.
pub const SYMBOL_BYTES_MAX: usize = 1 << 20;

/// Series of one page of the series section: enough for columns to compress, few enough to be read for one series.
pub(crate) const SERIES_PER_PAGE: usize = 1024;

/// Payload of a page of symbols or postings at which the next one begins.
pub(crate) const INDEX_PAGE_BYTES: usize = 64 << 10;

/// Bytes of indexes that a catalog keeps, and how many: those of a day of blocks of some hundred thousand series. What is used at the moment comes on top.
pub(crate) const INDEX_CACHE_BYTES: usize = 128 << 20;
/// See [`INDEX_CACHE_BYTES`].
pub(crate) const INDEX_CACHE_ENTRIES: usize = 8192;

/// An index that nobody has asked for in so many minutes goes: of the blocks that a dashboard's range has moved past, and of those that the bucket
/// no longer has.
pub(crate) const INDEX_IDLE_MINUTES: u64 = 30;

/// Tenants of one file.
pub const TENANTS_MAX: usize = 1 << 19;

/// Blocks that one block is told to be merged from.
pub const SOURCES_MAX: usize = 1 << 12;

/// Largest ranged read made of neighbouring pages, and the largest gap read along with them: a request to a bucket costs as much as 256 KiB.
pub const READ_BYTES_MAX: usize = 8 << 20;
/// See [`READ_BYTES_MAX`].
pub const GAP_BYTES_MAX: u64 = 256 << 10;

/// Deletions of one tenant that may apply to blocks at a time: each is looked at for each block that a query reads.
pub const DELETIONS_MAX: usize = 128;

/// Deletions of one tenant that are over and still listed.
pub const DELETIONS_KEPT_MAX: usize = 64;

/// Selectors of one deletion.
pub const SELECTORS_MAX: usize = 32;

/// Bytes of the selectors of one deletion; the log has them in one record each.
pub const SELECTOR_BYTES_MAX: usize = 4 << 10;

/// Largest file of deletions: those of a tenant with all the selectors that they may have, and what has been applied to a million blocks.
pub(crate) const DELETIONS_BYTES_MAX: usize = 32 << 20;

/// Bytes of one write of a file in the making.
pub(crate) const WRITE_BYTES: usize = 256 << 10;

const _: () = assert!(PAGE_BYTES <= PAGE_BYTES_MAX);
const _: () = assert!(SEALED_BYTES_MAX + (1 << 20) <= PAGE_BYTES_MAX);
const _: () = assert!(RUN_SAMPLES_MAX * 24 + 1024 <= PAGE_BYTES_MAX);
const _: () = assert!(INDEX_PAGE_BYTES + 2 * SYMBOL_BYTES_MAX <= PAGE_BYTES_MAX);
const _: () = assert!(WRITE_BYTES.is_multiple_of(reactor::DIRECT_ALIGNMENT));
