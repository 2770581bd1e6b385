//! Texts in quotes as Go's `%q` and `strconv.Quote` write them: errors and queries are shown as Prometheus shows them.

use std::fmt;

/// Writes a text in double quotes; what cannot be printed is escaped.
pub fn put_quoted(out: &mut impl fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\u{7}' => out.write_str("\\a")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\u{b}' => out.write_str("\\v")?,
            ' '..='~' => out.write_char(c)?,
            '\0'..='\u{7f}' => write!(out, "\\x{:02x}", c as u32)?,
            c if is_printable(c) => out.write_char(c)?,
            '\0'..='\u{ffff}' => write!(out, "\\u{:04x}", c as u32)?,
            c => write!(out, "\\U{:08x}", c as u32)?,
        }
    }
    out.write_char('"')
}

/// As [`put_quoted`].
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    put_quoted(&mut out, text).expect("a text takes all");
    out
}

/// Letters, marks, numbers, punctuation and symbols, as `strconv.IsPrint` of Go: no spaces but the one of ASCII, no format characters, nothing
/// that is private or unassigned. The tables are those of the standard library, which escapes the same, and marks too where a text begins with one.
fn is_printable(c: char) -> bool {
    let mut text = String::from("x");
    text.push(c);
    text.escape_debug().nth(1) != Some('\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each as `fmt.Sprintf("%q", ..)` prints it.
    #[test]
    fn texts_are_quoted_as_go_does() {
        for (text, expected) in [
            ("", r#""""#),
            ("a \"b\"\\", r#""a \"b\"\\""#),
            (
                "\u{7}\u{8}\u{c}\n\r\t\u{b}\0\u{1b}\u{7f}",
                r#""\a\b\f\n\r\t\v\x00\x1b\x7f""#,
            ),
            ("déjà vu 日本 😀", r#""déjà vu 日本 😀""#),
            ("e\u{301}\u{fffd}'", "\"e\u{301}\u{fffd}'\""),
            (
                "\u{80}\u{a0}\u{ad}\u{200b}\u{2028}\u{feff}\u{e000}\u{3000}",
                r#""\u0080\u00a0\u00ad\u200b\u2028\ufeff\ue000\u3000""#,
            ),
            ("\u{e0001}\u{10ffff}", r#""\U000e0001\U0010ffff""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
