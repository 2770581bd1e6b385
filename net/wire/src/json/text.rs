//! JSON strings.

/// Appends `text` in quotes, escaped.
///
/// Escaped are what JSON demands (quote, backslash, controls) and U+2028 and U+2029, which end a line in older JavaScript.
/// Cost: runs that need no escape are copied whole.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    put_utf8(out, text.as_bytes());
}

/// As [`put_string`], for bytes that are UTF-8.
pub(super) fn put_utf8(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    put_escaped(out, text);
    out.push(b'"');
}

fn put_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' && byte != 0xe2 {
            continue;
        }
        let (escape, taken): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0xe2 => match bytes[at..] {
                [_, 0x80, 0xa8, ..] => (b"\\u2028", 3),
                [_, 0x80, 0xa9, ..] => (b"\\u2029", 3),
                _ => continue,
            },
            control => (&hex_escape(control), 1),
        };
        out.extend_from_slice(&bytes[copied..at]);
        out.extend_from_slice(escape);
        copied = at + taken;
    }
    out.extend_from_slice(&bytes[copied..]);
}

fn hex_escape(control: u8) -> [u8; 6] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let (high, low) = (
        HEX[usize::from(control >> 4)],
        HEX[usize::from(control & 15)],
    );
    [b'\\', b'u', b'0', b'0', high, low]
}
