//! Whether a store keeps its word about conditions: some take them, say yes, and do as if they had not been there.

use crate::bucket::{Bucket, Condition, Etag};
use crate::error::Error;

/// What a store does with conditions of puts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// It keeps them: compare-and-swap can be relied on.
    Kept,
    /// It ignores or refuses them.
    Ignored,
}

/// Tries conditions out on an object of its own, which it removes again.
///
/// Errors: what the store says of plain reads and writes.
pub fn probe(bucket: &dyn Bucket, key: &str) -> Result<Conditions, Error> {
    bucket.delete(key)?;
    let conditions = tried(bucket, key);
    let removed = bucket.delete(key);
    let conditions = conditions?;
    removed?;
    Ok(conditions)
}

fn tried(bucket: &dyn Bucket, key: &str) -> Result<Conditions, Error> {
    bucket.put(key, b"one", &Condition::Always)?;
    let refused = |condition: &Condition| match bucket.put(key, b"two", condition) {
        Err(Error::Condition { .. }) => Ok(true),
        // Stores that know no conditions say that they are not implemented, or that the request is a bad one.
        Err(Error::Refused { .. }) | Ok(_) => Ok(false),
        Err(error) => Err(error),
    };
    if !refused(&Condition::Absent)? {
        return Ok(Conditions::Ignored);
    }
    let Some(object) = bucket.get(key)? else {
        return Ok(Conditions::Ignored);
    };
    let mut other = object.etag.0.clone();
    // Of the same form, and not it.
    let last = other.rfind(|c: char| c.is_ascii_hexdigit());
    if let Some(at) = last {
        let digit = if other[at..].starts_with('0') {
            "1"
        } else {
            "0"
        };
        other.replace_range(at..=at, digit);
    }
    let is_kept = refused(&Condition::Is(Etag(other)))?
        && bucket.put(key, b"two", &Condition::Is(object.etag)).is_ok()
        && bucket.get(key)?.is_some_and(|found| found.bytes == b"two");
    Ok(match is_kept {
        true => Conditions::Kept,
        false => Conditions::Ignored,
    })
}
