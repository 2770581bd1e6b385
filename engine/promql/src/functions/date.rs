//! Functions of dates: a value as seconds since 1970, in UTC, by the proleptic Gregorian calendar.
//!
//! Without an argument they tell the time of the step. What is no number of seconds that fits 64 bits (NaN, infinities) gives the same strange
//! date as in Go on amd64.

use model::Labels;

use crate::Error;
use crate::functions::Call;
use crate::value::{Value, VectorSeries, is_absent};

const DAY: i64 = 86_400;

/// A civil date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    year: i64,
    /// 1 to 12.
    month: u8,
    /// 1 to 31.
    day: u8,
}

impl Date {
    /// The date of a second. Source: Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    fn of(seconds: i64) -> Date {
        let days = seconds.div_euclid(DAY) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        // Counted from the first of March.
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Date {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u8,
            day: day as u8,
        }
    }

    fn leap(self) -> bool {
        self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0)
    }

    fn days_in_month(self) -> u8 {
        match self.month {
            4 | 6 | 9 | 11 => 30,
            2 if self.leap() => 29,
            2 => 28,
            _ => 31,
        }
    }

    fn day_of_year(self) -> u16 {
        const BEFORE: [u16; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        BEFORE[usize::from(self.month) - 1]
            + u16::from(self.day)
            + u16::from(self.month > 2 && self.leap())
    }
}

/// Seconds after which the calendar repeats itself, weekdays included: 400 years.
const CYCLE: i64 = 146_097 * DAY;

/// What a value stands for: a second, and years to add to its date.
///
/// What does not fit 64 bits becomes the smallest number in Go on amd64, whose calendar then wraps around to 2^63 seconds: the 4th of December
/// 292277026596.
fn second_of(value: f64) -> (i64, i64) {
    const BEYOND: i128 = 1 << 63;
    if (-9.223_372_036_854_776e18..9.223_372_036_854_776e18).contains(&value)
        && value as i64 > i64::MIN
    {
        (value as i64, 0)
    } else {
        let cycle = CYCLE as i128;
        ((BEYOND % cycle) as i64, 400 * (BEYOND / cycle) as i64)
    }
}

fn map(call: Call<'_>, part: fn(i64, i64) -> f64) -> Result<Value, Error> {
    let mut series = match call.args.into_iter().next() {
        Some(Value::Vector(series)) => series,
        _ => {
            let times = call.steps.times().map(|t| t as f64 / 1000.0).collect();
            vec![VectorSeries::new(Labels::empty(), true, times)]
        }
    };
    for one in &mut series {
        one.drop_name = true;
        one.histograms.clear();
        for value in one.values.iter_mut().filter(|v| !is_absent(**v)) {
            let (second, years) = second_of(*value);
            *value = part(second, years);
        }
    }
    Ok(Value::Vector(series))
}

macro_rules! dates {
    ($($(#[$doc:meta])* $name:ident: ($seconds:ident, $years:ident) => $body:expr;)*) => {
        $($(#[$doc])* pub(super) fn $name(call: Call<'_>) -> Result<Value, Error> {
            map(call, |$seconds, $years| $body as f64)
        })*
    };
}

dates! {
    /// `minute`: 0 to 59.
    minute: (t, _y) => t.div_euclid(60).rem_euclid(60);
    /// `hour`: 0 to 23.
    hour: (t, _y) => t.div_euclid(3600).rem_euclid(24);
    /// `day_of_week`: 0 is Sunday.
    day_of_week: (t, _y) => (t.div_euclid(DAY) + 4).rem_euclid(7);
    /// `day_of_month`: 1 to 31.
    day_of_month: (t, _y) => Date::of(t).day;
    /// `day_of_year`: 1 to 366.
    day_of_year: (t, _y) => Date::of(t).day_of_year();
    /// `days_in_month`: 28 to 31.
    days_in_month: (t, _y) => Date::of(t).days_in_month();
    /// `month`: 1 to 12.
    month: (t, _y) => Date::of(t).month;
    /// `year`.
    year: (t, years) => (Date::of(t).year + years);
}

/// A time in milliseconds as RFC 3339 has it, to the second.
pub(crate) fn rfc3339(time: i64) -> String {
    let seconds = time.div_euclid(1000);
    let date = Date::of(seconds);
    let of_day = seconds.rem_euclid(DAY);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year,
        date.month,
        date.day,
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_seconds_are_those_of_the_calendar() {
        for (seconds, year, month, day, day_of_year) in [
            (0, 1970, 1, 1, 1),
            (-1, 1969, 12, 31, 365),
            (1_136_239_445, 2006, 1, 2, 2),
            (1_456_790_399, 2016, 2, 29, 60),
            (1_456_790_400, 2016, 3, 1, 61),
            (1_483_191_420, 2016, 12, 31, 366),
            (951_782_400, 2000, 2, 29, 60),
            (4_107_542_400, 2100, 3, 1, 60),
            (-62_135_596_800, 1, 1, 1, 1),
        ] {
            let date = Date::of(seconds);
            assert_eq!(date, Date { year, month, day }, "{seconds}");
            assert_eq!(date.day_of_year(), day_of_year, "{seconds}");
        }
    }

    #[test]
    fn months_have_their_days_in_leap_years_too() {
        for (seconds, days) in [
            (1_454_284_800, 29),
            (1_422_748_800, 28),
            (1_459_468_800, 30),
        ] {
            assert_eq!(Date::of(seconds).days_in_month(), days);
        }
    }

    #[test]
    fn no_value_is_too_strange_for_a_date() {
        for value in [
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1e300,
            -1e300,
            9.3e18,
        ] {
            let (second, years) = second_of(value);
            let date = Date::of(second);
            assert_eq!(
                (date.year + years, date.month, date.day),
                (292_277_026_596, 12, 4)
            );
        }
        assert_eq!(second_of(-1.9), (-1, 0));
        let _ = Date::of(i64::MIN).day_of_year();
        let _ = Date::of(i64::MAX).day_of_year();
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(1_136_239_445_999), "2006-01-02T22:04:05Z");
    }
}
