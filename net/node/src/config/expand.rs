//! Environment variables in the file (`-config.expand-env`): `${VAR}`, and `${VAR:default}` for where it is not set or empty, as Cortex
//! has them. What is put in is read as YAML, like all else. Unlike there, a variable that is not set and has no default is an error, as a
//! password that became nothing would be found out late; and `$VAR`, `$1` and `${1}` stay as they are, since relabel rules have them.

use std::ffi::OsString;

/// Where variables are looked up.
pub(super) type Environment = dyn Fn(&str) -> Option<OsString>;

/// The text with its variables put in. Lines that are comments are left alone.
///
/// Errors: the line, and the variable that is not set or no text.
pub(super) fn expanded(text: &str, environment: &Environment) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    for (number, line) in text.split_inclusive('\n').enumerate() {
        match line.trim_start().starts_with('#') {
            true => out.push_str(line),
            false => put_line(&mut out, line, environment)
                .map_err(|reason| format!("line {}: {reason}", number + 1))?,
        }
    }
    Ok(out)
}

fn put_line(out: &mut String, line: &str, environment: &Environment) -> Result<(), String> {
    let mut rest = line;
    while let Some((before, behind)) = rest.split_once("${") {
        out.push_str(before);
        let Some((inside, after)) = behind.split_once('}') else {
            return Err("a ${ has no }".to_owned());
        };
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        rest = after;
        if !is_name(name) {
            out.push_str("${");
            out.push_str(inside);
            out.push('}');
            continue;
        }
        let value = environment(name).map(OsString::into_string);
        match value {
            Some(Ok(value)) if !value.is_empty() || default.is_none() => out.push_str(&value),
            Some(Err(_)) => return Err(format!("the environment variable {name} is no text")),
            _ => match default {
                Some(default) => out.push_str(default),
                None => {
                    return Err(format!(
                        "the environment variable {name} is not set; ${{{name}:default}} says what else to take"
                    ));
                }
            },
        }
    }
    out.push_str(rest);
    Ok(())
}

/// Whether a variable can be called so.
fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String, String> {
        expanded(text, &|name: &str| match name {
            "KEY" => Some("se cret".into()),
            "EMPTY" => Some("".into()),
            _ => None,
        })
    }

    #[test]
    fn variables_are_put_in_with_defaults_where_they_are_missing_or_empty() {
        for (text, wanted) in [
            (
                "a: ${KEY}\nb: ${KEY:x}${EMPTY:y}\n",
                "a: se cret\nb: se crety\n",
            ),
            ("a: ${NONE:http://x:1}", "a: http://x:1"),
            ("a: ${NONE:}${EMPTY}.", "a: ."),
            ("replacement: ${1}-$2 $KEY", "replacement: ${1}-$2 $KEY"),
            ("  # ${NONE}\nb: 1", "  # ${NONE}\nb: 1"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        let error = of("a: 1\nb: ${NONE}\n").unwrap_err();
        assert!(
            error.starts_with("line 2: ") && error.contains("NONE is not set"),
            "{error}"
        );
        assert_eq!(of("a: ${KEY").unwrap_err(), "line 1: a ${ has no }");
    }
}
