//! The bounds of a query's text and tree.

use std::mem::size_of;

/// How large a query's text and tree may be.
///
/// Length alone is cheap: the parser is linear and keeps at most one token per byte, so a megabyte of text (a regular expression that
/// lists ten thousand pods is 100 kB) is harmless. What costs stack and time is depth and the number of operators, so those
/// are bounded tightly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseLimits {
    /// Bytes of text.
    pub length_max: usize,
    /// Parentheses, calls and operands within each other.
    pub nesting_max: usize,
    /// Binary and unary operators, those in durations included.
    pub operators_max: usize,
}

impl Default for ParseLimits {
    fn default() -> ParseLimits {
        ParseLimits {
            length_max: 1 << 20,
            nesting_max: 128,
            operators_max: 1_000,
        }
    }
}

/// Places in the text are 32 bit.
pub(crate) const LENGTH_CEILING: usize = 64 << 20;

const _: () = assert!(LENGTH_CEILING < u32::MAX as usize);
const _: () = assert!(size_of::<crate::expr::Span>() == 8);
