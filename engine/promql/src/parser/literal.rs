//! The values of number, duration and string tokens, by the rules of Go's `strconv` that Prometheus inherits.

use super::lexer::Token;
use super::{Fault, Parser};

impl Parser<'_> {
    /// The value of a number token: integers in any base Go knows (so `010` is 8), else a float.
    pub(super) fn number_of(&self, token: Token) -> Result<f64, Fault> {
        let text = self.slice(token.span);
        number(text).map_err(|reason| {
            Fault::new(
                token.span,
                format!("error parsing number: parsing {text:?}: {reason}"),
            )
        })
    }

    /// The milliseconds of a duration token.
    pub(super) fn milliseconds_of(&self, token: Token) -> Result<i64, Fault> {
        duration(self.slice(token.span)).map_err(|message| Fault::new(token.span, message))
    }

    /// The text of a string token.
    pub(super) fn text_of(&self, token: Token) -> Result<String, Fault> {
        let raw = self.slice(token.span);
        unquote(raw).map_err(|reason| {
            let shown: String = raw.chars().take(100).collect();
            Fault::new(
                token.span,
                format!("error unquoting string {shown:?}: {reason}"),
            )
        })
    }
}

fn number(text: &str) -> Result<f64, &'static str> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let lower = digits.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16)
            .map(|n| n as f64)
            .map_err(|_| "value out of range");
    }
    if lower == "inf" {
        return Ok(f64::INFINITY);
    }
    if lower == "nan" {
        return Ok(f64::NAN);
    }
    let whole = lower.bytes().all(|b| b.is_ascii_digit());
    if whole
        && lower.len() > 1
        && lower.starts_with('0')
        && let Ok(octal) = i64::from_str_radix(&lower, 8)
    {
        return Ok(octal as f64);
    }
    if !whole && digits.len() != text.len() {
        return Err("invalid syntax");
    }
    match lower.parse::<f64>() {
        Ok(value) if value.is_infinite() => Err("value out of range"),
        Ok(value) => Ok(value),
        Err(_) => Err("invalid syntax"),
    }
}

/// `1h30m` and the like: each unit once, from large to small. Milliseconds.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 24 * 3_600_000),
        ("w", 7 * 24 * 3_600_000),
        ("d", 24 * 3_600_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let malformed = || format!("not a valid duration string: {text:?}");
    let out_of_range = || "duration out of range".to_owned();
    let mut rest = text;
    let mut next_unit = 0;
    let mut total = 0i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(malformed());
        }
        let (count, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let index = UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .filter(|index| *index >= next_unit)
            .ok_or_else(malformed)?;
        let count: i64 = count.parse().map_err(|_| out_of_range())?;
        total = count
            .checked_mul(UNITS[index].1)
            .and_then(|ms| total.checked_add(ms))
            .filter(|ms| *ms as f64 <= super::duration::DURATION_MS_MAX)
            .ok_or_else(out_of_range)?;
        next_unit = index + 1;
        rest = tail;
    }
    Ok(total)
}

/// The text between the quotes, escapes resolved.
fn unquote(raw: &str) -> Result<String, String> {
    let quote = raw.as_bytes()[0];
    let inner = &raw[1..raw.len() - 1];
    if quote == b'`' || !inner.contains('\\') {
        return Ok(inner.to_owned());
    }
    let mut out: Vec<u8> = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = chars.next().ok_or("escape sequence not terminated")?;
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            '\\' => out.push(b'\\'),
            c if c as u32 == u32::from(quote) => out.push(quote),
            '0'..='7' => {
                let mut value = escape.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    let digit = chars.next().and_then(|c| c.to_digit(8));
                    value = value * 8 + digit.ok_or("illegal character in escape sequence")?;
                }
                out.push(u8::try_from(value).map_err(|_| "escape sequence is out of range")?);
            }
            'x' => out.push(hex(&mut chars, 2)? as u8),
            'u' | 'U' => {
                let value = hex(&mut chars, if escape == 'u' { 4 } else { 8 })?;
                let c = char::from_u32(value)
                    .ok_or("escape sequence is an invalid Unicode code point")?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => return Err(format!("unknown escape sequence {other:?}")),
        }
    }
    // Bytes that are no UTF-8 can be written by `\xc5`, but neither labels nor texts can hold them.
    String::from_utf8(out).map_err(|_| format!("not valid UTF-8, so an invalid label name {raw}"))
}

fn hex(chars: &mut std::str::Chars<'_>, digits: usize) -> Result<u32, String> {
    let mut value = 0u32;
    for _ in 0..digits {
        let digit = chars.next().and_then(|c| c.to_digit(16));
        value = (value << 4) | digit.ok_or("illegal character in escape sequence")?;
    }
    Ok(value)
}
