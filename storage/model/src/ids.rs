//! Numbers with a meaning: one type each, so that two of them can never be swapped unseen.

use std::fmt;

/// Milliseconds since the Unix epoch, negative before it. Arithmetic saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeMs(pub i64);

/// A pinned core of this node, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CoreId(pub u16);

/// A series on one core: an index into that core's series table, over all tenants. Reused only when no segment and
/// no checkpoint names it any more, and then with another [`Generation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeriesRef(pub u32);

/// How often a [`SeriesRef`] has been given out; an alias with an old generation is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Generation(pub u32);

/// What an alias remembers of a series on its core: 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeriesKey {
    /// Index on the core.
    pub series: SeriesRef,
    /// Must equal the generation stored there.
    pub generation: Generation,
}

/// Stable 128-bit identity of a series, see [`crate::identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeriesId(pub u128);

/// A position in one core's log: bytes since that log began, never reset by segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl TimeMs {
    /// The earliest time.
    pub const MIN: TimeMs = TimeMs(i64::MIN);
    /// The latest time.
    pub const MAX: TimeMs = TimeMs(i64::MAX);
}

impl fmt::Display for CoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
