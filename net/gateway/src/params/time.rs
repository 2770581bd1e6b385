//! Times and durations in all their notations, to milliseconds. Everything saturates; nothing panics on extreme values.

/// A Unix time in seconds with decimals, or RFC 3339, to milliseconds.
///
/// Errors: `cannot parse "x" to a valid timestamp`. Times beyond what fits are the first or last one that does, so that a
/// client can ask from the beginning of time to its end.
pub fn parse_time(text: &str) -> Result<i64, String> {
    if let Some(seconds) = float(text).filter(|s| !s.is_nan()) {
        // As Prometheus: the fraction alone is rounded to milliseconds, so that large times do not lose theirs.
        let fraction = (seconds.fract() * 1000.0).round();
        return Ok((seconds.trunc() as i64)
            .saturating_mul(1000)
            .saturating_add(fraction as i64));
    }
    match text {
        "-292273086-05-16T16:47:06Z" => return Ok(i64::MIN),
        "292277025-08-18T07:12:54.999999999Z" => return Ok(i64::MAX),
        _ => {}
    }
    rfc3339(text).ok_or_else(|| format!("cannot parse {text:?} to a valid timestamp"))
}

/// Seconds with decimals, or a duration as `1h30m`, to milliseconds; what is below one is cut off.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    if let Some(seconds) = float(text).filter(|s| !s.is_nan()) {
        let nanos = seconds * 1e9;
        if nanos > i64::MAX as f64 || nanos < i64::MIN as f64 {
            return Err(format!(
                "cannot parse {text:?} to a valid duration. It overflows int64"
            ));
        }
        return Ok(nanos as i64 / 1_000_000);
    }
    units(text).ok_or_else(|| format!("cannot parse {text:?} to a valid duration"))
}

/// Decimal notation, or the words for infinity and NaN. Both languages take the same, hexadecimal floats apart.
fn float(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// `1y2w3d4h5m6s7ms`: units descend, each at most once; or `0`.
fn units(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let mut rest = text;
    let mut left = &UNITS[..];
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(|b| !b.is_ascii_digit()).count();
        let at = left
            .iter()
            .position(|(unit, _)| *unit == &rest[..letters])?;
        total = total.checked_add(number.checked_mul(left[at].1)?)?;
        left = &left[at + 1..];
        rest = &rest[letters..];
    }
    // As the duration type of Prometheus, which counts nanoseconds.
    (!text.is_empty() && total <= i64::MAX / 1_000_000).then_some(total)
}

/// `2006-01-02T15:04:05.999Z` or with an offset as `+01:00`.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once('T')?;
    let mut date = date.split('-');
    let year = digits(date.next()?, 4)?;
    let month = digits(date.next()?, 2).filter(|m| (1..=12).contains(m))?;
    let day = digits(date.next()?, 2).filter(|d| (1..=days_of(year, month)).contains(d))?;
    if date.next().is_some() {
        return None;
    }
    let zone_at = time.find(['Z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let offset_minutes = match zone {
        "Z" => 0,
        zone => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let hours = digits(hours, 2).filter(|h| *h < 24)?;
            let minutes = digits(minutes, 2).filter(|m| *m < 60)?;
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            sign * (hours * 60 + minutes)
        }
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut clock = clock.split(':');
    let hour = digits(clock.next()?, 2).filter(|h| *h < 24)?;
    let minute = digits(clock.next()?, 2).filter(|m| *m < 60)?;
    let second = digits(clock.next()?, 2).filter(|s| *s < 60)?;
    if clock.next().is_some()
        || fraction.is_empty()
        || !fraction.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let millis = fraction
        .bytes()
        .chain(*b"000")
        .take(3)
        .fold(0, |n, b| n * 10 + i64::from(b - b'0'));
    let minutes = days_from_epoch(year, month, day) * 1440 + hour * 60 + minute - offset_minutes;
    Some((minutes * 60 + second) * 1000 + millis)
}

fn digits(text: &str, count: usize) -> Option<i64> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn days_of(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the Gregorian calendar; years begin in March here, so that the leap day is the last.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}
