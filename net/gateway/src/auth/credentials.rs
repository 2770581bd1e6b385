//! A file of credentials, understood: users with hashed secrets, their tenants and scopes.
//!
//! Passwords are hashed by argon2, in the PHC notation (`$argon2id$v=19$m=..`): slow on purpose, as people choose them. Tokens are 32 random bytes, which
//! nobody guesses, so SHA-256 is enough. Neither a password nor a token is kept, shown or logged; hashes are shown to nobody either.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use model::TenantId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Memory that a password may take: that of all of them at once is twice as much.
const MEMORY_KIB_MAX: u32 = 256 << 10;

/// Rounds over that memory.
const ROUNDS_MAX: u32 = 64;

/// What an identity may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Push samples.
    Write,
    /// Query.
    Read,
    /// See `/metrics`.
    Metrics,
    /// See and do what concerns the whole node.
    Admin,
}

impl Scope {
    const ALL: [Scope; 4] = [Scope::Write, Scope::Read, Scope::Metrics, Scope::Admin];

    /// The word in the file.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Write => "write",
            Scope::Read => "read",
            Scope::Metrics => "metrics",
            Scope::Admin => "admin",
        }
    }
}

/// Whose data an identity may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tenants {
    /// Anybody's.
    All,
    /// Of these.
    These(Vec<TenantId>),
}

impl Tenants {
    pub(super) fn has(&self, tenant: &str) -> bool {
        match self {
            Tenants::All => true,
            Tenants::These(these) => these.iter().any(|own| own.as_str() == tenant),
        }
    }

    /// The one that need not be named.
    pub(super) fn only(&self) -> Option<&str> {
        match self {
            Tenants::These(these) if these.len() == 1 => Some(these[0].as_str()),
            _ => None,
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// As the file has it.
    pub name: String,
    /// Whose data it may name.
    pub tenants: Tenants,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl Identity {
    pub(super) fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// A user as the file has it.
#[derive(Clone, Default)]
pub struct User {
    /// The user name of a password, and what logs call it.
    pub name: String,
    /// PHC notation; empty: none.
    pub password_hash: String,
    /// SHA-256 of its tokens, hexadecimal.
    pub token_sha256: Vec<String>,
    /// Common names of its client certificates.
    pub certificate_names: Vec<String>,
    /// Names, or `*`.
    pub tenants: Vec<String>,
    /// Words of [`Scope`].
    pub scopes: Vec<String>,
}

/// What is wrong with a user of the file; no secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CredentialsError(String);

/// See the module.
pub struct Credentials {
    passwords: HashMap<String, (String, Arc<Identity>)>,
    tokens: Vec<([u8; 32], Arc<Identity>)>,
    certificates: HashMap<String, Arc<Identity>>,
    /// What a name that nobody has is compared with, as slowly as any.
    nobody: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<&String> = self.passwords.keys().collect();
        names.sort();
        write!(f, "Credentials({names:?}, {} tokens)", self.tokens.len())
    }
}

impl Credentials {
    /// Understands the users of a file.
    ///
    /// Errors: a sentence that names the user.
    pub fn new(users: Vec<User>) -> Result<Credentials, CredentialsError> {
        let mut credentials = Credentials {
            passwords: HashMap::new(),
            tokens: Vec::new(),
            certificates: HashMap::new(),
            nobody: String::new(),
        };
        let mut names = std::collections::HashSet::new();
        for (number, user) in users.into_iter().enumerate() {
            if user.name.is_empty() {
                let text = format!("users[{number}]: a name is missing");
                return Err(CredentialsError(text));
            }
            let name = user.name.clone();
            let wrong = |text: String| CredentialsError(format!("user {name:?}: {text}"));
            if name.contains(':') {
                return Err(wrong("a name must not have a colon in it".to_owned()));
            }
            if !names.insert(name.clone()) {
                return Err(wrong("is there twice".to_owned()));
            }
            credentials.add(user).map_err(wrong)?;
        }
        // As slow as those of the file.
        let usual = credentials.passwords.values().next();
        credentials.nobody = match usual {
            Some((hash, _)) => hash.clone(),
            None => hash_password("").map_err(CredentialsError)?,
        };
        Ok(credentials)
    }

    fn add(&mut self, user: User) -> Result<(), String> {
        let identity = Arc::new(Identity {
            name: user.name.clone(),
            tenants: tenants(&user.tenants)?,
            scopes: scopes(&user.scopes)?,
        });
        let secrets = user.token_sha256.len() + user.certificate_names.len();
        if secrets == 0 && user.password_hash.is_empty() {
            return Err("needs a password_hash, a token_sha256 or a certificate_names".to_owned());
        }
        if !user.password_hash.is_empty() {
            check_hash(&user.password_hash)?;
            let entry = (user.password_hash, identity.clone());
            self.passwords.insert(user.name, entry);
        }
        for text in &user.token_sha256 {
            let hash = from_hex(text).ok_or(
                "token_sha256: 64 hexadecimal digits are expected (`myelin tool new-token`)",
            )?;
            if self.tokens.iter().any(|(known, _)| *known == hash) {
                return Err("token_sha256: is there twice".to_owned());
            }
            self.tokens.push((hash, identity.clone()));
        }
        for name in user.certificate_names {
            if name.is_empty() {
                return Err("certificate_names: a name is empty".to_owned());
            }
            if self
                .certificates
                .insert(name.clone(), identity.clone())
                .is_some()
            {
                return Err(format!("certificate_names: {name:?} is there twice"));
            }
        }
        Ok(())
    }

    pub(super) fn by_certificate(&self, name: &str) -> Option<Arc<Identity>> {
        self.certificates.get(name).cloned()
    }

    /// Compares with all tokens, so that the time tells nothing.
    pub(super) fn by_token(&self, token: &str) -> Option<Arc<Identity>> {
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for (known, identity) in &self.tokens {
            if bool::from(known.ct_eq(&hash)) {
                found = Some(identity.clone());
            }
        }
        found
    }

    pub(super) fn has_password(&self, name: &str) -> bool {
        self.passwords.contains_key(name)
    }

    /// Slow. A name that nobody has is compared too, with a hash that is not its own.
    pub(super) fn by_password(&self, name: &str, password: &str) -> Option<Arc<Identity>> {
        let known = self.passwords.get(name);
        let hash = known.map_or(&self.nobody, |(hash, _)| hash);
        // The crate compares in constant time.
        let right = Argon2::default().verify_password(password.as_bytes(), hash.as_str());
        let (_, identity) = known?;
        right.is_ok().then(|| identity.clone())
    }
}

fn tenants(names: &[String]) -> Result<Tenants, String> {
    if names.iter().any(|name| name == "*") {
        return match names.len() {
            1 => Ok(Tenants::All),
            _ => Err("tenants: beside \"*\" nobody is named".to_owned()),
        };
    }
    let own = names.iter().map(|name| TenantId::new(name));
    let own = own.collect::<Result<Vec<_>, _>>();
    Ok(Tenants::These(
        own.map_err(|error| format!("tenants: {error}"))?,
    ))
}

fn scopes(words: &[String]) -> Result<Vec<Scope>, String> {
    if words.is_empty() {
        return Err("scopes: none is given; write, read, metrics and admin are known".to_owned());
    }
    let known = |word: &String| {
        let scope = Scope::ALL.into_iter().find(|scope| scope.name() == word);
        scope.ok_or_else(|| match word.as_str() {
            "rules" | "alerts" => format!("scopes: {word:?} is not built yet"),
            _ => format!("scopes: {word:?} is none of write, read, metrics, admin"),
        })
    };
    words.iter().map(known).collect()
}

/// Refuses what no password can be compared with.
fn check_hash(hash: &str) -> Result<(), String> {
    const WANTED: &str =
        "password_hash: a hash by argon2 in PHC notation is expected (`myelin tool hash-password`)";
    let parsed = PasswordHash::new(hash).map_err(|_| WANTED.to_owned())?;
    let argon2 = parsed.algorithm.as_str().starts_with("argon2");
    if !argon2 || parsed.salt.is_none() || parsed.hash.is_none() {
        return Err(WANTED.to_owned());
    }
    let params = argon2::Params::try_from(&parsed).map_err(|_| WANTED.to_owned())?;
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > ROUNDS_MAX {
        return Err(format!(
            "password_hash: takes more than {MEMORY_KIB_MAX} KiB or {ROUNDS_MAX} rounds"
        ));
    }
    Ok(())
}

/// Hashes a password for the file. Errors: the system has no random numbers.
pub fn hash_password(password: &str) -> Result<String, String> {
    let salt: [u8; 16] = random();
    let hash = Argon2::default().hash_password_with_salt(password.as_bytes(), &salt);
    Ok(hash.map_err(|error| error.to_string())?.to_string())
}

/// A new token.
pub fn new_token() -> String {
    hex(&random::<32>())
}

/// What the file has of a token.
pub fn token_hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the system has random numbers");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16);
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
}
