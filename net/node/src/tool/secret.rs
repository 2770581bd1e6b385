//! Entries for the file of credentials: hashed passwords and new tokens.
//!
//! A password is read from standard input, never from the command line, where every process of the machine can see it.

use std::io::BufRead;
use std::process::ExitCode;

/// Longest password.
const PASSWORD_BYTES_MAX: usize = 1024;

/// `hash-password`: one line of standard input.
pub(super) fn hash_password() -> ExitCode {
    eprintln!("the password, one line:");
    let mut line = String::new();
    if let Err(error) = std::io::stdin().lock().read_line(&mut line) {
        return failed(&format!("cannot read the password: {error}"));
    }
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return failed("an empty password is none");
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return failed(&format!(
            "a password has at most {PASSWORD_BYTES_MAX} bytes"
        ));
    }
    match gateway::auth::hash_password(password) {
        Ok(hash) => crate::say(&format!("password_hash: \"{hash}\"\n")),
        Err(error) => failed(&error),
    }
}

/// `new-token`: for whoever sends it, and for the file.
pub(super) fn new_token() -> ExitCode {
    let token = gateway::auth::new_token();
    let hash = gateway::auth::token_hash(&token);
    crate::say(&format!("# token: {token}\ntoken_sha256: [\"{hash}\"]\n"))
}

fn failed(error: &str) -> ExitCode {
    eprintln!("myelin tool: {error}");
    ExitCode::FAILURE
}
