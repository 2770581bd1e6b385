//! Which times a reader looks at: a range, and of it, where a query looks at little, windows that come again and again.
//!
//! A hint that goes from whoever plans a query down to whoever holds the samples, and may be ignored anywhere: then more samples come than are looked at,
//! and the answer is the same. It is about time alone, so that all places that hold samples of a series leave out the same.

/// The times in `(end - width, end]`, milliseconds, for one end and all that lie a multiple of the step before or behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Of the ends: 0 to `step - 1`, so that equal windows are equal.
    phase: i64,
    step: i64,
    width: i64,
}

impl Windows {
    /// `None` where they leave nothing out (`width >= step`) or hold nothing.
    pub fn new(end: i64, step: i64, width: i64) -> Option<Windows> {
        (0 < width && width < step).then(|| Windows {
            phase: end.rem_euclid(step),
            step,
            width,
        })
    }

    /// One of the ends.
    pub fn end(&self) -> i64 {
        self.phase
    }

    /// From end to end.
    pub fn step(&self) -> i64 {
        self.step
    }

    /// How long each is.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// From `time` to the next end; 0 at one.
    #[inline]
    fn ahead(&self, time: i64) -> i64 {
        let left = self.phase - time.rem_euclid(self.step);
        if left < 0 { left + self.step } else { left }
    }

    /// Whether a time lies in one of them.
    #[inline]
    pub fn contains(&self, time: i64) -> bool {
        self.ahead(time) < self.width
    }

    /// The first time from `time` on that lies in one; `None`: there is no such number.
    #[inline]
    pub fn first_from(&self, time: i64) -> Option<i64> {
        let left = self.ahead(time);
        match left < self.width {
            true => Some(time),
            false => time.checked_add(left - self.width + 1),
        }
    }

    /// The last time of the one that `time` lies in.
    #[inline]
    pub fn last_of(&self, time: i64) -> i64 {
        time.saturating_add(self.ahead(time))
    }

    /// Whether any time of `min..=max` lies in one.
    pub fn overlap(&self, min: i64, max: i64) -> bool {
        self.first_from(min).is_some_and(|first| first <= max)
    }
}

/// Times that are asked for; milliseconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// First.
    pub min: i64,
    /// Last.
    pub max: i64,
    /// Where not all between matters: what does.
    pub windows: Option<Windows>,
}

impl TimeRange {
    /// All times.
    pub const ALL: TimeRange = TimeRange {
        min: i64::MIN,
        max: i64::MAX,
        windows: None,
    };

    /// Whether something that reaches over `min..=max` may matter.
    pub fn overlaps(&self, min: i64, max: i64) -> bool {
        let within = |windows: Windows| windows.overlap(self.min.max(min), self.max.min(max));
        self.min <= max && self.max >= min && self.windows.is_none_or(within)
    }
}

impl From<(i64, i64)> for TimeRange {
    fn from((min, max): (i64, i64)) -> TimeRange {
        TimeRange {
            min,
            max,
            windows: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_time() -> impl Strategy<Value = i64> {
        prop_oneof![-50i64..50, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
    }

    #[test]
    fn windows_that_leave_nothing_out_are_none() {
        assert_eq!(Windows::new(0, 10, 10), None);
        assert_eq!(Windows::new(0, 10, 0), None);
        assert_eq!(Windows::new(0, 0, 0), None);
        assert_eq!(Windows::new(-3, 10, 4), Windows::new(17, 10, 4));
        assert_ne!(Windows::new(-3, 10, 4), Windows::new(3, 10, 4));
    }

    proptest! {
        /// Against the definition, with numbers that cannot overflow.
        #[test]
        fn a_time_is_in_a_window_where_the_next_end_is_near(
            end in any_time(), step in prop_oneof![2i64..20, Just(i64::MAX)], width in 1i64..20, time in any_time()
        ) {
            let Some(windows) = Windows::new(end, step, width) else {
                return Ok(());
            };
            let (end, step, width) = (i128::from(end), i128::from(step), i128::from(width));
            let ends_at = |time: i64| {
                let ahead = (end - i128::from(time)).rem_euclid(step);
                (ahead < width).then_some(i128::from(time) + ahead)
            };
            prop_assert_eq!(windows.contains(time), ends_at(time).is_some());
            if let Some(last) = ends_at(time) {
                prop_assert_eq!(i128::from(windows.last_of(time)), last.min(i128::from(i64::MAX)));
            }
            let first = (0..step.min(50)).filter_map(|more| time.checked_add(more as i64)).find(|t| ends_at(*t).is_some());
            let found = windows.first_from(time);
            if step < 50 {
                prop_assert_eq!(found, first);
            }
            let until = time.saturating_add(7);
            let within = (0..8).filter_map(|more| time.checked_add(more)).any(|t| ends_at(t).is_some());
            prop_assert_eq!(windows.overlap(time, until), within);
            let range = TimeRange { min: time, max: until, windows: Some(windows) };
            prop_assert_eq!(range.overlaps(i64::MIN, i64::MAX), within);
            prop_assert!(!range.overlaps(until, time) || time == until);
        }
    }
}
