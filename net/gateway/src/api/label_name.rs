//! Label names in paths: any UTF-8, or the `U__` notation for clients that cannot send it.
//!
//! Source: Prometheus `model.UnescapeName` with values escaping: `U__`, then `__` for an underscore and `_<hex>_` for any other
//! character that is not allowed in a legacy name.

use crate::reply::ApiError;

/// The label's real name. Errors: an empty name.
pub(super) fn unescape(name: &str) -> Result<String, ApiError> {
    let decoded = name.strip_prefix("U__").and_then(decode);
    let name = decoded.unwrap_or_else(|| name.to_owned());
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    Ok(name)
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
            assert_eq!(unescape(text).unwrap(), name, "{text}");
        }
        for text in ["", "U__"] {
            assert!(unescape(text).is_err(), "{text}");
        }
    }
}
