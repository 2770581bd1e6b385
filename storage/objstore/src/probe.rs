//! Whether a store keeps its word about conditions: some take them, say yes, and do as if they had not been there.

use crate::bucket::{Bucket, Condition, Etag, list_all};
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
/// Whoever else tries with the same key at the same time looks like a store that ignores conditions: so that is said only after a second try
/// under a key that others at most delete, `KEY-` and the number `chance`. What such a try has left behind, because the process ended in it, goes with the next one.
///
/// Errors: what the store says of plain reads and writes; [`Error::Unavailable`] where somebody else wrote to the object meanwhile.
pub fn probe(bucket: &dyn Bucket, key: &str, chance: u64) -> Result<Conditions, Error> {
    if let Conditions::Kept = tried(bucket, key)? {
        return Ok(Conditions::Kept);
    }
    let second = format!("{key}-");
    let mut left = Vec::new();
    list_all(bucket, &second, &mut |object| left.push(object.key))?;
    for key in &left {
        bucket.delete(key)?;
    }
    tried(bucket, &format!("{second}{chance:016x}"))
}

fn tried(bucket: &dyn Bucket, key: &str) -> Result<Conditions, Error> {
    bucket.delete(key)?;
    let conditions = asked(bucket, key);
    let removed = bucket.delete(key);
    let conditions = conditions?;
    removed?;
    Ok(conditions)
}

fn asked(bucket: &dyn Bucket, key: &str) -> Result<Conditions, Error> {
    let put = |bytes: &[u8], condition: &Condition| match bucket.put(key, bytes, condition) {
        Ok(_) => Ok(Put::Done),
        Err(Error::Condition { .. }) => Ok(Put::DoesNotHold),
        // Stores that know no conditions say that they are not implemented, or that the request is a bad one. Without one it is fine then.
        Err(Error::Refused { .. }) => bucket
            .put(key, bytes, &Condition::Always)
            .map(|_| Put::Refused),
        Err(error) => Err(error),
    };
    put(b"first", &Condition::Always)?;
    let is_done = || Ok::<_, Error>(put(b"absent", &Condition::Absent)? != Put::DoesNotHold);
    // Whoever tries at the same time may take away what was put first, for good measure: then it is there again for the second.
    if is_done()? && is_done()? {
        return Ok(Conditions::Ignored);
    }
    let Some(object) = bucket.get(key)?.filter(|found| found.bytes == b"first") else {
        return Err(meddled(key));
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
    if put(b"other", &Condition::Is(Etag(other)))? != Put::DoesNotHold {
        return Ok(Conditions::Ignored);
    }
    let told = put(b"same", &Condition::Is(object.etag))?;
    // A put whose answer was lost is repeated below us, and then its condition does not hold any more: what is there tells whether it did.
    match (told, bucket.get(key)?.map(|found| found.bytes).as_deref()) {
        (Put::Done | Put::DoesNotHold, Some(b"same")) => Ok(Conditions::Kept),
        (Put::Refused, _) | (Put::DoesNotHold, Some(b"first")) => Ok(Conditions::Ignored),
        _ => Err(meddled(key)),
    }
}

/// What became of a put.
#[derive(Debug, PartialEq, Eq)]
enum Put {
    Done,
    DoesNotHold,
    /// With its condition; without it was taken.
    Refused,
}

fn meddled(key: &str) -> Error {
    Error::Unavailable {
        key: key.to_owned(),
        reason: "somebody else wrote to it while conditions were tried out".to_owned(),
    }
}
