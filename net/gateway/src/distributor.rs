//! From an unpacked body to one message per core, and from the cores' replies to the answer.
//!
//! Steps 3 and 4 of the way of a sample. Read on in this order: [`assemble`] is the hot path, one pass over the body; [`names`] is how the
//! two protocols say which series it is; [`validate`] is what
//! a series goes through that no alias knows; [`outcome`] turns replies into aliases, counters and the first error; [`tenants`]
//! keeps what is shared between the gateway threads (limits, rate, counters), [`rate`] the token bucket, [`refused`] what is known of series
//! that were refused before, [`started`] which starts of counters are, [`texts`] the words of Cortex.
//!
//! Order of checks as in Cortex: labels (each series by itself), then its sample times, then the rate of the tenant over all that is
//! left, all or nothing, then the cores (limits of series, order in time). One bad sample refuses its series object, the
//! others are stored, and the answer is 400 with the first error.

pub(crate) mod assemble;
pub(crate) mod metadata;
pub(crate) mod metrics;
pub(crate) mod names;
pub(crate) mod others;
pub(crate) mod outcome;
pub(crate) mod passive;
pub(crate) mod rate;
pub(crate) mod refused;
pub(crate) mod spread;
pub(crate) mod started;
pub(crate) mod tenants;
pub(crate) mod texts;
pub(crate) mod validate;

use wire::snappy;

use crate::alias::AliasTable;
use assemble::Scratch;

/// Buffers kept for the next bodies. More than a few bodies are seldom in work on one thread.
const SPARE_BUFFERS_MAX: usize = 8;

/// A buffer that a larger body has made larger is given back to the allocator: bodies of Prometheus unpack to under 1 MiB.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// What one gateway thread owns: its aliases, and memory that is used again and again.
#[derive(Debug)]
pub(crate) struct Distributor {
    pub(crate) aliases: AliasTable,
    pub(crate) scratch: Scratch,
    packed: Vec<Vec<u8>>,
    /// The body that is being split, or was last.
    pub(crate) unpacked: snappy::Buffer,
}

impl Distributor {
    pub(crate) fn new(aliases_max: u32) -> Distributor {
        Distributor {
            aliases: AliasTable::new(aliases_max),
            scratch: Scratch::default(),
            packed: Vec::new(),
            unpacked: snappy::Buffer::default(),
        }
    }

    /// A buffer for a body as it comes.
    pub(crate) fn packed(&mut self) -> Vec<u8> {
        self.packed.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(crate) fn recycle_packed(&mut self, mut buffer: Vec<u8>) {
        if self.packed.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            buffer.clear();
            self.packed.push(buffer);
        }
    }

    /// Gives the memory of an unusually large body back.
    pub(crate) fn shrink(&mut self) {
        if self.unpacked.capacity() > SPARE_BYTES_MAX {
            self.unpacked = snappy::Buffer::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_usual_bodies_stays_and_that_of_a_large_one_goes() {
        let mut distributor = Distributor::new(1);
        for (len, stays) in [(1 << 20, true), (5 << 20, false)] {
            let body = snappy::pack(&vec![7; len]);
            snappy::unpack(&body, 100 << 20, &mut distributor.unpacked).unwrap();
            assert_eq!(distributor.unpacked.as_slice().len(), len);
            distributor.shrink();
            assert_eq!(distributor.unpacked.capacity() >= len, stays, "{len}");
        }
    }
}
