//! The trait of all stores, and what it speaks of.

use std::fmt;
use std::ops::Range;

use crate::error::Error;
use crate::limits::KEY_BYTES_MAX;

/// The store's word for one content of an object; equal means equal content. Opaque.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Etag(pub String);

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a store says of an object without handing it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub len: u64,
    /// `None` where the store would have to read the object to tell.
    pub etag: Option<Etag>,
}

/// An object read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Of these bytes.
    pub etag: Etag,
}

/// When a put is to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Whatever is there.
    Always,
    /// Nothing is there.
    Absent,
    /// What is there is still this.
    Is(Etag),
}

/// Some bytes of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Of the object.
    pub key: String,
    /// Which bytes; not empty.
    pub range: Range<u64>,
}

/// An object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub len: u64,
    /// When it was written by the store's clock, milliseconds since 1970; `None` where that is not known.
    pub modified_ms: Option<i64>,
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Ascending by key, at most [`LIST_MAX`](crate::LIST_MAX).
    pub objects: Vec<Listed>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

/// What is put in several pieces, some of them perhaps twice.
pub trait Body {
    /// Bytes.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of a range within; the error says why not.
    fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>, String>;
}

impl Body for &[u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read(&mut self, range: Range<u64>) -> Result<Vec<u8>, String> {
        Ok(self[range.start as usize..range.end as usize].to_vec())
    }
}

/// A store of objects. See the crate for what every store promises.
pub trait Bucket: Send + Sync + fmt::Debug {
    /// For messages: kind and place, never credentials.
    fn name(&self) -> &str;

    /// What is there under a key; `None`: nothing.
    fn head(&self, key: &str) -> Result<Option<Stat>, Error>;

    /// A small object whole; `None`: nothing is there. Errors: [`Error::Input`] if it is longer than [`WHOLE_BYTES_MAX`](crate::WHOLE_BYTES_MAX).
    fn get(&self, key: &str) -> Result<Option<Object>, Error>;

    /// The bytes of each piece, whole and in order; a request each, up to [`PIECES_MAX`](crate::PIECES_MAX) of them side by side.
    ///
    /// Errors: [`Error::NotFound`] if one of the objects is not there; [`Error::Corrupt`] if it is shorter than a range.
    fn read(&self, pieces: &[Piece]) -> Result<Vec<Vec<u8>>, Error>;

    /// Puts a small object whole. Errors: [`Error::Condition`] with nothing written.
    ///
    /// A store may try again by itself. So after [`Error::Condition`] our own first try may be what is there.
    fn put(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Stat, Error>;

    /// Puts an object of any size, replacing what is there, and checks as it goes that what arrived is what was sent.
    fn put_large(&self, key: &str, body: &mut dyn Body) -> Result<Stat, Error>;

    /// Objects whose keys begin with `prefix` and are greater than `after`, ascending.
    fn list(&self, prefix: &str, after: &str) -> Result<Listing, Error>;

    /// Removes an object; that it is not there is no error.
    fn delete(&self, key: &str) -> Result<(), Error>;

    /// Removes what [`Bucket::put_large`] left unfinished below `prefix` and began before that time by the store's clock. Returns how many.
    fn sweep(&self, prefix: &str, begun_before_ms: i64) -> Result<u64, Error>;
}

/// Checks a key: segments of what all stores take, joined by `/`.
///
/// Errors: [`Error::Input`].
pub fn check_key(key: &str) -> Result<(), Error> {
    let wrong = |reason: String| {
        Err(Error::Input {
            key: key.to_owned(),
            reason,
        })
    };
    if key.len() > KEY_BYTES_MAX {
        return wrong(format!("a key of {} bytes is too long", key.len()));
    }
    if key.starts_with('.') {
        return wrong("a key does not begin with a dot".to_owned());
    }
    for segment in key.split('/') {
        if segment.is_empty() || segment == "." || segment == ".." {
            return wrong(format!("{segment:?} is no segment of a key"));
        }
        if let Some(odd) = segment
            .chars()
            .find(|&c| !c.is_ascii_graphic() || "\\?#%\"<>|:".contains(c))
        {
            return wrong(format!("{odd:?} does not belong into a key"));
        }
    }
    Ok(())
}

/// All objects below a prefix, page by page, handed to `each`.
pub fn list_all(
    bucket: &dyn Bucket,
    prefix: &str,
    each: &mut dyn FnMut(Listed),
) -> Result<(), Error> {
    let mut after = String::new();
    loop {
        let page = bucket.list(prefix, &after)?;
        let Some(last) = page.objects.last() else {
            return Ok(());
        };
        after = last.key.clone();
        page.objects.into_iter().for_each(&mut *each);
        if !page.more {
            return Ok(());
        }
    }
}
