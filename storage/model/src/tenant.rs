//! Who owns a series: a tenant name that has passed the rules.

use std::fmt;
use std::sync::Arc;

/// Longest tenant id in bytes. Source: Cortex `pkg/tenant`.
pub const TENANT_LEN_MAX: usize = 150;

/// Names that have a role of their own in a bucket or a path.
const RESERVED: [&str; 4] = [".", "..", "__markers__", "user-index.json.gz"];

/// A valid tenant id; cheap to clone. Case matters, nothing is normalised.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Why a text is not a tenant id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TenantError {
    /// No characters at all.
    #[error("no org id")]
    Empty,
    /// More than [`TENANT_LEN_MAX`] bytes.
    #[error("tenant ID is too long: max 150 characters")]
    TooLong,
    /// A character outside of `a-z A-Z 0-9 ! - _ . * ' ( )`.
    #[error("tenant ID {id:?} contains unsupported character {character:?}")]
    Character {
        /// The whole id.
        id: String,
        /// The first bad character.
        character: char,
    },
    /// A name with a role of its own.
    #[error("tenant ID {0:?} is reserved")]
    Reserved(String),
    /// `a|b` where only one tenant makes sense.
    #[error("multiple org IDs present")]
    Several,
}

impl TenantId {
    /// Checks the rules of `docs/operations` and Cortex: 1 to 150 bytes of `a-z A-Z 0-9 ! - _ . * ' ( )`.
    pub fn new(id: &str) -> Result<TenantId, TenantError> {
        if id.is_empty() {
            return Err(TenantError::Empty);
        }
        if id.contains('|') {
            return Err(TenantError::Several);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()".contains(c);
        if let Some(character) = id.chars().find(|&c| !allowed(c)) {
            let id = id.chars().take(TENANT_LEN_MAX).collect();
            return Err(TenantError::Character { id, character });
        }
        if id.len() > TENANT_LEN_MAX {
            return Err(TenantError::TooLong);
        }
        if RESERVED.contains(&id) {
            return Err(TenantError::Reserved(id.to_owned()));
        }
        Ok(TenantId(Arc::from(id)))
    }

    /// Several tenants whose data one query reads, each once and sorted: `a|b`. Nobody's data lies under such a name; one tenant alone is itself.
    ///
    /// Panics without tenants.
    pub fn joined(tenants: &[TenantId]) -> TenantId {
        let mut names: Vec<&str> = tenants.iter().map(TenantId::as_str).collect();
        names.sort_unstable();
        names.dedup();
        assert!(!names.is_empty(), "a query reads somebody's data");
        TenantId(Arc::from(names.join("|")))
    }

    /// The tenants of a [joined](TenantId::joined) name; the tenant itself of any other.
    pub fn members(&self) -> impl Iterator<Item = TenantId> {
        self.0.split('|').map(|name| TenantId(Arc::from(name)))
    }

    /// Whether this is a [joined](TenantId::joined) name.
    pub fn is_joined(&self) -> bool {
        self.0.contains('|')
    }

    /// The tenant of everybody where authentication is off.
    pub fn fake() -> TenantId {
        TenantId(Arc::from("fake"))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_like_and_reserved_names_are_refused() {
        for id in [
            "..",
            ".",
            "../x",
            "a/b",
            "a\\b",
            "",
            "a|b",
            "ä",
            "__markers__",
            "a b",
            "a\n",
        ] {
            assert!(TenantId::new(id).is_err(), "{id:?} passed");
        }
        assert_eq!(
            TenantId::new("a/b").unwrap_err().to_string(),
            "tenant ID \"a/b\" contains unsupported character '/'"
        );
    }

    #[test]
    fn joined_names_are_sorted_and_no_tenant_has_one() {
        let [a, b] = ["a", "b"].map(|name| TenantId::new(name).unwrap());
        let joined = TenantId::joined(&[b.clone(), a.clone(), b.clone()]);
        assert_eq!(joined.as_str(), "a|b");
        assert!(joined.is_joined() && TenantId::new("a|b").is_err());
        assert_eq!(joined.members().collect::<Vec<_>>(), [a.clone(), b]);
        assert_eq!(TenantId::joined(std::slice::from_ref(&a)), a);
        assert!(!a.is_joined());
    }

    #[test]
    fn up_to_150_characters_are_accepted() {
        assert!(TenantId::new(&"x".repeat(150)).is_ok());
        assert_eq!(TenantId::new(&"x".repeat(151)), Err(TenantError::TooLong));
        assert!(TenantId::new("a.b-c_d!*'()").is_ok());
    }
}
