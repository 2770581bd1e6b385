//! How a log is opened.

use crate::error::Error;
use crate::limits::{
    BLOCK_BYTES, FRAME_BYTES_MAX, GROUP_BYTES, GROUP_BYTES_MIN, SEGMENT_BYTES, SEGMENT_BYTES_FIRST,
    SEGMENT_BYTES_MAX,
};

/// Settings of one core's log; resolved values, no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Size of a segment once the log has grown, a multiple of 4096.
    pub segment_bytes: u64,
    /// Size of the first segment of a new log; each new one is twice as large, up to `segment_bytes`.
    pub segment_bytes_first: u64,
    /// Largest group, i.e. write, a multiple of 4096.
    pub group_bytes: usize,
    /// Open segments with O_DIRECT (as probed; see `Reactor::probe`).
    pub direct: bool,
    /// Tokens `token_base..token_base + TOKENS` of the reactor belong to this log, for operations and timers.
    pub token_base: u64,
}

/// How many tokens a log and its checkpoint use.
pub const TOKENS: u64 = 16;

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: SEGMENT_BYTES,
            segment_bytes_first: SEGMENT_BYTES_FIRST,
            group_bytes: GROUP_BYTES,
            direct: true,
            token_base: 0,
        }
    }
}

impl Options {
    /// Checks bounds and relations.
    pub fn validate(&self) -> Result<(), Error> {
        let block = BLOCK_BYTES as u64;
        let group = self.group_bytes as u64;
        if !group.is_multiple_of(block)
            || !(GROUP_BYTES_MIN..=FRAME_BYTES_MAX).contains(&self.group_bytes)
        {
            let bounds = "8 KiB to 8 MiB in steps of 4 KiB";
            return Err(Error::Option {
                name: "group_bytes",
                value: group,
                bounds,
            });
        }
        // A group with its header block fits into any segment.
        let sizes = [
            (
                "segment_bytes_first",
                self.segment_bytes_first,
                self.segment_bytes,
            ),
            ("segment_bytes", self.segment_bytes, SEGMENT_BYTES_MAX),
        ];
        for (name, value, max) in sizes {
            if !value.is_multiple_of(block) || !(group + block..=max).contains(&value) {
                let bounds = "a multiple of 4 KiB from group_bytes + 4 KiB to 1 GiB, the first not larger than the others";
                return Err(Error::Option {
                    name,
                    value,
                    bounds,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_a_segment_smaller_than_a_group_is_not() {
        Options::default().validate().unwrap();
        let small = Options {
            segment_bytes_first: GROUP_BYTES as u64,
            ..Options::default()
        };
        assert!(matches!(
            small.validate(),
            Err(Error::Option {
                name: "segment_bytes_first",
                ..
            })
        ));
        let odd = Options {
            segment_bytes: SEGMENT_BYTES + 1,
            ..Options::default()
        };
        assert!(matches!(
            odd.validate(),
            Err(Error::Option {
                name: "segment_bytes",
                ..
            })
        ));
        let group = Options {
            group_bytes: 4096,
            ..Options::default()
        };
        assert!(matches!(
            group.validate(),
            Err(Error::Option {
                name: "group_bytes",
                ..
            })
        ));
    }
}
