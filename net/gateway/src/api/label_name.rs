//! Label names in paths: any UTF-8, or the `U__` notation for clients that cannot send it.
//!
//! Source: Prometheus `model.UnescapeName` with values escaping: `U__`, then `__` for an underscore and `_<hex>_` for any other
//! character that is not allowed in a legacy name.

use model::NameScheme;
use percent_encoding::percent_decode_str;

use crate::reply::ApiError;

/// The name that a part of a path stands for.
///
/// Errors: a broken percent escape, which Go's server refuses too; no name, or none that the tenant's scheme takes.
pub(super) fn read(part: &str, scheme: NameScheme) -> Result<String, ApiError> {
    let wrong = |name: &str| ApiError::bad_data(format!("invalid label name: {name:?}"));
    let is_escape = |after: &str| {
        let digits = after.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !part.split('%').skip(1).all(is_escape) {
        return Err(wrong(part));
    }
    let name = percent_decode_str(part);
    let name = name.decode_utf8().map_err(|_| wrong(part))?.into_owned();
    // Where names are legacy ones, `U__` begins a name as any other.
    let decoded = match scheme {
        NameScheme::Legacy => None,
        NameScheme::Utf8 => name.strip_prefix("U__").and_then(decode),
    };
    let name = decoded.unwrap_or(name);
    match scheme.takes_label(&name) {
        true => Ok(name),
        false => Err(wrong(&name)),
    }
}

/// `None` where the text is not in the notation: the name is then what it says.
fn decode(escaped: &str) -> Option<String> {
    let mut name = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        name.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            name.push('_');
            rest = after;
            continue;
        }
        let end = rest.find('_').filter(|end| (1..=6).contains(end))?;
        name.push(char::from_u32(u32::from_str_radix(&rest[..end], 16).ok()?)?);
        rest = &rest[end + 1..];
    }
    name.push_str(rest);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names_are_read_and_others_are_left_alone() {
        for (text, name) in [
            ("job", "job"),
            ("U__my_2e_name", "my.name"),
            ("U__a__b", "a_b"),
            ("U___1f600_", "😀"),
            ("U__broken_zz_", "U__broken_zz_"),
            ("U__cut_2e", "U__cut_2e"),
            ("mein.ä", "mein.ä"),
        ] {
            assert_eq!(read(text, NameScheme::Utf8).unwrap(), name, "{text}");
        }
        for text in ["", "U__"] {
            assert!(read(text, NameScheme::Utf8).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_paths_are_decoded_and_broken_ones_named() {
        let utf8 = |part| read(part, NameScheme::Utf8).map_err(|error| error.message);
        assert_eq!(utf8("a%2Fb%20c").unwrap(), "a/b c");
        assert_eq!(utf8("%c3%a4").unwrap(), "ä");
        for part in ["%zz", "a%", "a%4", "a%4g", "%%41", "%ff", "a%é"] {
            assert_eq!(
                utf8(part),
                Err(format!("invalid label name: {part:?}")),
                "{part}"
            );
        }
    }

    #[test]
    fn the_tenants_scheme_decides_what_is_a_name() {
        let legacy = |part| read(part, NameScheme::Legacy).map_err(|error| error.message);
        for name in ["job", "_a1", "U__my_2e_name"] {
            assert_eq!(legacy(name).unwrap(), name);
        }
        for name in ["a-b", "1x", "a:b", "ä"] {
            assert_eq!(legacy(name), Err(format!("invalid label name: {name:?}")));
            assert!(read(name, NameScheme::Utf8).is_ok(), "{name}");
        }
    }
}
