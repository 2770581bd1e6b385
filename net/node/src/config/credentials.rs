//! The file of credentials (`auth.credentials_file`): YAML to users.
//!
//! ```yaml
//! users:
//! - name: prometheus-a
//!   password_hash: "$argon2id$.."
//!   token_sha256: ["64 hexadecimal digits"]
//!   certificate_names: [prometheus-a.example.org]
//!   tenants: [team-a]
//!   scopes: [write]
//! ```
//!
//! As strict as the configuration. What is wrong is told by user and key, never by value: a value may be a secret.

use gateway::auth::User;
use serde_json::{Map, Value};

/// Reads the text of a file.
///
/// Errors: a sentence for the operator, without a word of the file but names of users and keys.
pub(crate) fn read(text: &str) -> Result<Vec<User>, String> {
    let options = serde_saphyr::options! { strict_booleans: true };
    let tree: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        match error.location() {
            Some(at) => format!("not YAML, line {}, column {}", at.line(), at.column()),
            None => "not YAML".to_owned(),
        }
    })?;
    let Value::Object(sections) = &tree else {
        return Err("expected `users:` and a list".to_owned());
    };
    if let Some(name) = sections.keys().find(|name| *name != "users") {
        return Err(format!("unknown key {name:.40?}; only `users` is known"));
    }
    let Some(Value::Array(users)) = sections.get("users") else {
        return Err("users: expected a list".to_owned());
    };
    let all = users.iter().enumerate();
    all.map(|(number, value)| match value {
        Value::Object(fields) => user(fields).map_err(|text| format!("users[{number}]: {text}")),
        _ => Err(format!("users[{number}]: expected keys and values")),
    })
    .collect()
}

fn user(fields: &Map<String, Value>) -> Result<User, String> {
    let mut user = User::default();
    for (key, value) in fields {
        match key.as_str() {
            "name" => user.name = text(key, value)?,
            "password_hash" => user.password_hash = text(key, value)?,
            "token_sha256" => user.token_sha256 = list(key, value)?,
            "certificate_names" => user.certificate_names = list(key, value)?,
            "tenants" => user.tenants = list(key, value)?,
            "scopes" => user.scopes = list(key, value)?,
            "password" | "token" => {
                return Err(format!(
                    "{key}: only hashes belong into this file (`myelin tool hash-password`, `myelin tool new-token`)"
                ));
            }
            other => {
                return Err(format!(
                    "unknown key {other:.40?}; known are name, password_hash, token_sha256, certificate_names, tenants, scopes"
                ));
            }
        }
    }
    Ok(user)
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(format!("{key}: expected a text")),
    }
}

/// One text is a list of it.
fn list(key: &str, value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(items) => items.iter().map(|item| text(key, item)).collect(),
        single => Ok(vec![text(key, single)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_what_is_wrong_is_told_without_secrets() {
        let good = "users:\n- {name: a, password_hash: x, tenants: t, scopes: [read, write]}\n";
        let users = read(good).unwrap();
        assert_eq!((users[0].name.as_str(), users[0].scopes.len()), ("a", 2));
        assert_eq!(users[0].tenants, ["t"]);
        for (bad, wanted) in [
            ("users: {", "not YAML"),
            ("", "expected `users:`"),
            ("people: []", "unknown key \"people\""),
            ("users: x", "users: expected a list"),
            (
                "users: [{name: a}, {name: b, password: geheim}]",
                "users[1]: password: only hashes",
            ),
            (
                "users: [{name: a, token_sha256: 5}]",
                "token_sha256: expected a text",
            ),
            ("users: [{name: a, geheim: 5}]", "unknown key"),
            (
                "users:\n- name: a\n  password_hash: geheim: geheim",
                "not YAML",
            ),
        ] {
            let told = read(bad).err().unwrap();
            assert!(told.contains(wanted), "{bad}: {told}");
            assert!(!told.contains(" geheim"), "{told}");
        }
    }
}
