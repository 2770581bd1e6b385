//! Numbers as Go writes them.

/// Appends a float as Prometheus' JSON has it: the shortest digits that read back as the same bits, with an exponent below 1e-6
/// and from 1e21 on (`1e-07`, `1e+21`), `+Inf`, `-Inf`, `NaN`, `-0`. Without quotes.
///
/// Cost: whole numbers, which most counters are, take a few divisions; others go through `ryu`, and only those below
/// 1e-5 or from 1e16 on need a second look.
pub fn put_float(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = (1u64 << 53) as f64;
    if value.abs() < EXACT && value.trunc() == value {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        put_u64(out, value.abs() as u64);
    } else if value.is_finite() {
        put_shortest(out, value, -6..21);
    } else {
        out.extend_from_slice(match value {
            f64::INFINITY => b"+Inf",
            f64::NEG_INFINITY => b"-Inf",
            _ => b"NaN",
        });
    }
}

/// Appends a float as Prometheus writes a scalar: as [`put_float`], but never with an exponent.
pub(super) fn put_scalar(out: &mut Vec<u8>, value: f64) {
    match value.is_finite() {
        true => put_shortest(out, value, i32::MIN..i32::MAX),
        false => put_float(out, value),
    }
}

/// Appends a time of milliseconds as seconds: `1500000`, `1500000.250`, `-0.001`.
pub fn put_time(out: &mut Vec<u8>, time_ms: i64) {
    if time_ms < 0 {
        out.push(b'-');
    }
    let magnitude = time_ms.unsigned_abs();
    put_u64(out, magnitude / 1000);
    let fraction = magnitude % 1000;
    if fraction != 0 {
        out.push(b'.');
        out.extend([fraction / 100, fraction / 10 % 10, fraction % 10].map(|d| b'0' + d as u8));
    }
}

/// Appends decimal digits.
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    const PAIRS: &[u8; 200] =
        b"00010203040506070809101112131415161718192021222324252627282930313233343536373839\
          40414243444546474849505152535455565758596061626364656667686970717273747576777879\
          8081828384858687888990919293949596979899";
    // From the left, so that all twenty places can be copied at once; what is too much is cut off.
    let mut digits = [0u8; 20];
    let count = value.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut at = count;
    while value >= 100 {
        let pair = (value % 100) as usize * 2;
        value /= 100;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    }
    if value >= 10 {
        let pair = value as usize * 2;
        at -= 2;
        digits[at..at + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
    } else {
        at -= 1;
        digits[at] = b'0' + value as u8;
    }
    debug_assert_eq!(at, 0);
    let end = out.len() + count;
    out.extend_from_slice(&digits);
    out.truncate(end);
}

/// `ryu` finds the same digits as Go but writes large and small magnitudes with an exponent, and whole numbers with `.0`.
///
/// Exponents in `expanded` are spelled out.
fn put_shortest(out: &mut Vec<u8>, value: f64, expanded: std::ops::Range<i32>) {
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value);
    if (1e-5..1e16).contains(&value.abs()) {
        // Here ryu writes no exponent, which needs not be looked for.
        return out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    }
    match text.split_once('e') {
        None => out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes()),
        Some((mantissa, exponent)) => {
            let exponent: i32 = exponent.parse().expect("ryu writes a number behind the e");
            if expanded.contains(&exponent) {
                put_expanded(out, mantissa, exponent);
            } else {
                put_scientific(out, mantissa, exponent);
            }
        }
    }
}

/// Go writes a sign and two digits at least.
fn put_scientific(out: &mut Vec<u8>, mantissa: &str, exponent: i32) {
    out.extend_from_slice(mantissa.strip_suffix(".0").unwrap_or(mantissa).as_bytes());
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    let magnitude = u64::from(exponent.unsigned_abs());
    if magnitude < 10 {
        out.push(b'0');
    }
    put_u64(out, magnitude);
}

/// `mantissa` is `d` or `d.ddd` with an optional sign.
fn put_expanded(out: &mut Vec<u8>, mantissa: &str, exponent: i32) {
    let magnitude = mantissa.strip_prefix('-').unwrap_or(mantissa);
    if magnitude.len() < mantissa.len() {
        out.push(b'-');
    }
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let fraction = if fraction == "0" { "" } else { fraction };
    assert_eq!(whole.len(), 1, "ryu writes one digit before the point");
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-exponent) as usize - 1, b'0');
        out.extend_from_slice(whole.as_bytes());
        out.extend_from_slice(fraction.as_bytes());
    } else {
        let places = exponent as usize;
        assert!(
            fraction.len() <= places,
            "ryu uses an exponent only from 1e16 on"
        );
        out.extend_from_slice(whole.as_bytes());
        out.extend_from_slice(fraction.as_bytes());
        out.resize(out.len() + places - fraction.len(), b'0');
    }
}
