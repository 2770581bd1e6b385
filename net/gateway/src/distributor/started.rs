//! Which start of its counter a series was last sent with, so that a sender that repeats it with every sample costs its core nothing.
//!
//! Per core a row of (start, generation) by the number of the series. The numbers of series that are scraped together lie together, so a look is a
//! read of memory forwards. It only says what a core has answered for: a start that is not in here is sent, and the core decides.
//!
//! Bounds: 16 bytes for each series number up to the highest that came with a start, at most [`STARTED_MAX`] a core; series beyond that are
//! sent to their core every time. Nothing is held while nobody sends starts.

use model::{CoreId, Generation, SeriesKey};

use crate::alias::Target;

/// Series numbers remembered of one core.
const STARTED_MAX: usize = 1 << 22;

/// Rows grow by so many series.
const STEP: usize = 1 << 12;

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// 0: none.
    start: i64,
    generation: Generation,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Started {
    of_core: Vec<Vec<Known>>,
}

impl Started {
    /// Whether the core knows that the counter of this series began then.
    #[inline]
    pub(crate) fn is_known(&self, target: Target, start: i64) -> bool {
        let row = self.of_core.get(usize::from(target.core.0));
        row.and_then(|row| row.get(target.key.series.0 as usize))
            .is_some_and(|known| known.start == start && known.generation == target.key.generation)
    }

    /// A core has answered for a start.
    pub(crate) fn learn(&mut self, core: CoreId, key: SeriesKey, start: i64) {
        let (core, at) = (usize::from(core.0), key.series.0 as usize);
        if at >= STARTED_MAX {
            return;
        }
        if self.of_core.len() <= core {
            self.of_core.resize_with(core + 1, Vec::new);
        }
        let row = &mut self.of_core[core];
        if row.len() <= at {
            row.resize(at.next_multiple_of(STEP) + STEP, Known::default());
        }
        row[at] = Known {
            start,
            generation: key.generation,
        };
    }
}

#[cfg(test)]
mod tests {
    use model::SeriesRef;

    use super::*;

    #[test]
    fn a_start_is_known_of_one_life_of_a_series_on_one_core() {
        let mut started = Started::default();
        let key = |series, generation| SeriesKey {
            series: SeriesRef(series),
            generation: Generation(generation),
        };
        let target = |core, key| Target {
            core: CoreId(core),
            key,
            source: 0,
        };
        started.learn(CoreId(1), key(5000, 3), 77);
        assert!(started.is_known(target(1, key(5000, 3)), 77));
        for (other, start) in [
            (target(1, key(5000, 3)), 78),
            (target(1, key(5000, 4)), 77),
            (target(1, key(5001, 3)), 77),
            (target(0, key(5000, 3)), 77),
            (target(2, key(5000, 3)), 77),
        ] {
            assert!(!started.is_known(other, start));
        }
        started.learn(CoreId(0), key(u32::MAX, 1), 5);
        assert!(!started.is_known(target(0, key(u32::MAX, 1)), 5), "bounded");
    }
}
