//! Bounds of what passes between us and a bucket.

/// Longest key: S3 takes 1024 bytes, a file name 255; a tenant's name is at most 150 of it.
pub const KEY_BYTES_MAX: usize = 512;

/// Largest object that is put or got whole; larger ones are put by [`Bucket::put_large`](crate::Bucket::put_large) and read by ranges. An index of
/// a tenant with a hundred thousand blocks has 40 MB.
pub const WHOLE_BYTES_MAX: usize = 64 << 20;

/// Entries of one page of a listing, as S3 has it.
pub const LIST_MAX: usize = 1000;

/// Ranges that a store reads side by side; of more, some wait. Sixteen in flight fill a link of 10 Gbit/s at 20 ms and pieces of 2 MiB.
pub const PIECES_MAX: usize = 16;

/// Open files that [`Filesystem`](crate::Filesystem) keeps for its readers.
pub(crate) const OPEN_MAX: usize = 128;

/// Bytes copied at once by [`Filesystem`](crate::Filesystem).
pub(crate) const COPY_BYTES: usize = 1 << 20;

const _: () = assert!(COPY_BYTES <= WHOLE_BYTES_MAX);
const _: () = assert!(WHOLE_BYTES_MAX < reactor::BUFFER_BYTES_MAX);
