//! Bounds of the log, with the reasons for their values. The format's own sizes are in `docs/formats/wal.md`.

/// Frames, headers and segments are multiples of this: what O_DIRECT asks for.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// Header in front of a frame's records.
pub(crate) const FRAME_HEADER_BYTES: usize = 64;

/// A frame the reader accepts, header and padding included. Bounds what replay allocates for one frame, whatever a damaged length says.
pub(crate) const FRAME_BYTES_MAX: usize = 8 << 20;

/// Default size of a group, i.e. of the largest frame written. A commit costs ~150 us up to 64 KiB and then the disk's
/// bandwidth; 1 MiB holds ten bodies of 2000 samples with new series, fifty of known ones.
pub const GROUP_BYTES: usize = 1 << 20;

/// Smallest group allowed: a page of records, so that tests can roll often.
pub(crate) const GROUP_BYTES_MIN: usize = 2 * BLOCK_BYTES;

/// Groups that may wait behind the write in flight before batches are refused: with the open one, 8 MiB per core at the default size.
pub const QUEUE_GROUPS_MAX: usize = 6;

/// Default size of a segment. Large, since a roll costs a directory sync (in the background) and absolute samples anew; small enough that
/// three of them per core (current, next, retired) do not hurt.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Default size of the first segment of a new log: made by one `fallocate`, so that a fresh node serves at once. Each
/// new one is twice as large, up to [`SEGMENT_BYTES`].
pub const SEGMENT_BYTES_FIRST: u64 = 4 << 20;

/// Largest segment: offsets stay far from any limit and a scan for evidence stays a matter of seconds.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// Piece of a new segment that is filled with zeros by one write in the background: small, as the commits wait behind it.
pub(crate) const FILL_BYTES: usize = 256 << 10;

/// Retired segments kept for reuse; others are removed. One is in the making while one waits.
pub(crate) const RETIRED_MAX: usize = 2;

/// Largest record: its length has 24 bits.
pub(crate) const RECORD_BYTES_MAX: usize = (1 << 24) - 1;

/// Header of a record.
pub(crate) const RECORD_HEADER_BYTES: usize = 4;

/// Most that one sample can take: control byte, ref 5, time 10, value 9.
pub const SAMPLE_BYTES_MAX: usize = 25;

/// What [`crate::Log::sample`] may need: a record header, its first ref and time, and the sample. Also covers the eight-byte stores of the coder, which
/// write past the end of a short value.
pub const SAMPLE_ROOM: usize = 48;

/// First ref and first time of a samples record.
pub(crate) const SAMPLES_PREFIX_BYTES: usize = 12;

/// Series a reader accepts per core, by their ref, which is an index: 134 million. Bounds replay's table of last values to 2 GiB, whatever damaged bytes say.
pub const SERIES_REF_MAX: u32 = 1 << 27;

/// Buckets, spans or bounds of one histogram; more cannot come from a sender we accept and would let damaged bytes allocate.
pub(crate) const HISTOGRAM_PARTS_MAX: usize = 1 << 16;

/// Matchers of one tombstone.
pub(crate) const TOMBSTONE_MATCHERS_MAX: usize = 1 << 10;

/// Window of the reader, unless a frame is larger.
pub(crate) const READ_BYTES: usize = 1 << 20;

/// Relaxed frames are synced after this long without a durable commit.
pub const RELAXED_SYNC_MS: u64 = 1000;

/// Pause before space is asked for again.
pub const SPACE_RETRY_MS: u64 = 1000;

/// Tears described in a report; further ones are only counted.
pub(crate) const TEARS_DESCRIBED_MAX: usize = 16;

const _: () = assert!(reactor::DIRECT_ALIGNMENT == BLOCK_BYTES);
const _: () = assert!(GROUP_BYTES <= FRAME_BYTES_MAX && GROUP_BYTES >= GROUP_BYTES_MIN);
const _: () = assert!(
    FRAME_BYTES_MAX < RECORD_BYTES_MAX,
    "any record that fits a frame has a length"
);
const _: () = assert!(SEGMENT_BYTES_FIRST >= (BLOCK_BYTES + GROUP_BYTES) as u64);
const _: () = assert!(SEGMENT_BYTES_FIRST <= SEGMENT_BYTES && SEGMENT_BYTES <= SEGMENT_BYTES_MAX);
const _: () =
    assert!(SAMPLE_ROOM >= RECORD_HEADER_BYTES + SAMPLES_PREFIX_BYTES + SAMPLE_BYTES_MAX + 7);
const _: () = assert!(FILL_BYTES.is_multiple_of(BLOCK_BYTES) && READ_BYTES >= 2 * BLOCK_BYTES);
const _: () = assert!(GROUP_BYTES_MIN >= FRAME_HEADER_BYTES + SAMPLE_ROOM);

/// Directories that the logs of a node are spread over: more disks than a machine has.
pub const DIRECTORIES_MAX: usize = 64;

/// Longest path of one of them in a manifest, as the kernel takes them.
pub const DIRECTORY_PATH_BYTES_MAX: usize = 4096;

/// A manifest with all of these, and with as many cores as a `u16` counts. Bounds what a reader allocates, whatever a damaged length says.
pub(crate) const MANIFEST_BYTES_MAX: usize = 512 << 10;

const _: () = assert!(
    64 + DIRECTORIES_MAX * (20 + DIRECTORY_PATH_BYTES_MAX) + 2 * 65_535 + BLOCK_BYTES
        <= MANIFEST_BYTES_MAX
);
