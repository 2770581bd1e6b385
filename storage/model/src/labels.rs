//! A canonical label set in one allocation.
//!
//! The packed form is, for every label in ascending byte order of its name: varint length and bytes of the name,
//! varint length and bytes of the value. No name occurs twice, no value is empty (an empty value is the same as no label).
//! So equal label sets are equal bytes, a clone is a reference count, and the packed bytes are what
//! [`crate::identity`] hashes, what the log stores and what crosses the mailboxes.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::{NameScheme, put_quoted, varint};

/// The label that holds the metric's name.
pub const METRIC_NAME: &str = "__name__";

/// A canonical label set; cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels {
    packed: Arc<[u8]>,
}

/// Why bytes or pairs are not a label set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelsError {
    /// The packed form ends inside a label, or has a length beyond its end.
    #[error("label set is cut short at byte {0}")]
    Truncated(usize),
    /// Name or value is not UTF-8.
    #[error("label {0:?} is not valid UTF-8")]
    NotUtf8(String),
    /// The same name twice.
    #[error("duplicate label name {0:?}")]
    Duplicate(String),
    /// Names are not ascending in the packed form.
    #[error("label {0:?} is out of order")]
    Unsorted(String),
    /// A name or value is empty in the packed form.
    #[error("label {0:?} has an empty name or value")]
    Empty(String),
}

impl Labels {
    /// The set without labels.
    pub fn empty() -> Labels {
        Labels {
            packed: Arc::from(&[][..]),
        }
    }

    /// Builds a set from pairs in any order; empty values are dropped.
    ///
    /// Errors: [`LabelsError::Duplicate`] when a name occurs twice (with non-empty values).
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Labels, LabelsError> {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.push(name.as_ref(), value.as_ref());
        }
        builder.finish()
    }

    /// Takes over bytes in packed form after checking every rule of it.
    pub fn from_packed(bytes: &[u8]) -> Result<Labels, LabelsError> {
        check_packed(bytes)?;
        Ok(Labels {
            packed: Arc::from(bytes),
        })
    }

    /// Takes over bytes that are in packed form because they were put together from checked labels; nothing is checked again. Where that
    /// is not so, what is made of the labels panics or is wrong.
    pub fn from_canonical(bytes: &[u8]) -> Labels {
        debug_assert_eq!(check_packed(bytes), Ok(()));
        Labels {
            packed: Arc::from(bytes),
        }
    }

    /// Checks every rule of the packed form without taking the bytes over.
    pub fn check_packed(bytes: &[u8]) -> Result<(), LabelsError> {
        check_packed(bytes)
    }

    /// The packed form.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The pairs, ascending by name.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.packed }
    }

    /// The pairs as bytes, which are UTF-8, ascending by name: for whoever copies them.
    pub fn iter_bytes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = &*self.packed;
        std::iter::from_fn(move || (!rest.is_empty()).then(|| (take(&mut rest), take(&mut rest))))
    }

    /// The value of `name`; `None` where there is no such label. Cost: a scan.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|&(n, _)| n >= name)
            .filter(|&(n, _)| n == name)
            .map(|(_, v)| v)
    }

    /// The value of `__name__`.
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// Number of labels. Cost: a scan.
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// True for the set without labels.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// The set with only those labels for which `keep` is true.
    pub fn filter(&self, mut keep: impl FnMut(&str) -> bool) -> Labels {
        let mut packed = Vec::with_capacity(self.packed.len());
        for (name, value) in self.iter().filter(|(name, _)| keep(name)) {
            put_label(&mut packed, name, value);
        }
        Labels {
            packed: Arc::from(packed),
        }
    }

    /// The set without `__name__`.
    pub fn without_name(&self) -> Labels {
        self.filter(|name| name != METRIC_NAME)
    }

    /// The set with `name` set to `value`; an empty value removes the label.
    pub fn with(&self, name: &str, value: &str) -> Labels {
        let mut packed = Vec::with_capacity(self.packed.len() + name.len() + value.len() + 4);
        let mut placed = value.is_empty();
        for (n, v) in self.iter() {
            if !placed && n >= name {
                put_label(&mut packed, name, value);
                placed = true;
            }
            if n != name {
                put_label(&mut packed, n, v);
            }
        }
        if !placed {
            put_label(&mut packed, name, value);
        }
        Labels {
            packed: Arc::from(packed),
        }
    }
}

/// Collects labels in any order and makes them canonical.
#[derive(Debug, Default, Clone)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Adds a label; nothing is checked before [`LabelsBuilder::finish`].
    pub fn push(&mut self, name: &str, value: &str) {
        self.pairs.push((name.to_owned(), value.to_owned()));
    }

    /// Sorts, drops empty values, refuses duplicates.
    pub fn finish(mut self) -> Result<Labels, LabelsError> {
        self.pairs.retain(|(_, value)| !value.is_empty());
        self.pairs.sort_by(|a, b| a.0.cmp(&b.0));
        let mut packed =
            Vec::with_capacity(self.pairs.iter().map(|(n, v)| n.len() + v.len() + 4).sum());
        let mut last: Option<&str> = None;
        for (name, value) in &self.pairs {
            if last == Some(name) {
                return Err(LabelsError::Duplicate(name.clone()));
            }
            put_label(&mut packed, name, value);
            last = Some(name);
        }
        Ok(Labels {
            packed: Arc::from(packed),
        })
    }
}

/// Appends one label in packed form. The caller keeps names ascending and values not empty.
pub fn put_label(packed: &mut Vec<u8>, name: &str, value: &str) {
    varint::put_u64(packed, name.len() as u64);
    packed.extend_from_slice(name.as_bytes());
    varint::put_u64(packed, value.len() as u64);
    packed.extend_from_slice(value.as_bytes());
}

/// Iterator over the pairs of a [`Labels`], ascending by name.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        if self.rest.is_empty() {
            return None;
        }
        let name = take_str(&mut self.rest).expect("labels were checked when they were made");
        let value = take_str(&mut self.rest).expect("labels were checked when they were made");
        Some((name, value))
    }
}

fn take_slice<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::take_u64(rest)?).ok()?;
    if len > rest.len() {
        return None;
    }
    let (head, tail) = rest.split_at(len);
    *rest = tail;
    Some(head)
}

/// A name or value of checked labels.
fn take<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    take_slice(rest).expect("labels were checked when they were made")
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_slice(rest)?).ok()
}

fn check_packed(bytes: &[u8]) -> Result<(), LabelsError> {
    let mut rest = bytes;
    let mut last: Option<&[u8]> = None;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let name = take_slice(&mut rest).ok_or(LabelsError::Truncated(at))?;
        let value = take_slice(&mut rest).ok_or(LabelsError::Truncated(at))?;
        let shown = || String::from_utf8_lossy(name).into_owned();
        if std::str::from_utf8(name).is_err() || std::str::from_utf8(value).is_err() {
            return Err(LabelsError::NotUtf8(shown()));
        }
        if name.is_empty() || value.is_empty() {
            return Err(LabelsError::Empty(shown()));
        }
        match last.map(|l| l.cmp(name)) {
            Some(Ordering::Equal) => return Err(LabelsError::Duplicate(shown())),
            Some(Ordering::Greater) => return Err(LabelsError::Unsorted(shown())),
            _ => last = Some(name),
        }
    }
    Ok(())
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.packed.hash(state);
    }
}

/// The order of Prometheus: pair by pair, name before value, a prefix first.
impl Ord for Labels {
    /// Sorting the series of a query is mostly this: equal labels in front are skipped as bytes, and nothing is checked for being
    /// UTF-8 again, whose order is that of its bytes.
    fn cmp(&self, other: &Labels) -> Ordering {
        let (a, b) = (&*self.packed, &*other.packed);
        let differ = common_prefix(a, b);
        if differ == a.len().min(b.len()) {
            // One begins with the other, and a label set ends between two labels.
            return a.len().cmp(&b.len());
        }
        let mut start = 0;
        loop {
            let end = end_of(a, end_of(a, start));
            if end > differ {
                break;
            }
            start = end;
        }
        let (mut a, mut b) = (&a[start..], &b[start..]);
        let names = take(&mut a).cmp(take(&mut b));
        names.then_with(|| take(&mut a).cmp(take(&mut b)))
    }
}

/// How many bytes both begin with. Cost: 16 bytes at a time.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (blocks, others) = (a.as_chunks::<16>().0, b.as_chunks::<16>().0);
    let same = blocks
        .iter()
        .zip(others)
        .take_while(|(x, y)| x == y)
        .count()
        * 16;
    let rest = a[same..].iter().zip(&b[same..]);
    same + rest.take_while(|(x, y)| x == y).count()
}

/// Where the name or value ends that begins at `at`. Nearly all are shorter than 128 bytes: their length is one byte.
fn end_of(packed: &[u8], at: usize) -> usize {
    match packed[at] {
        len @ 0..0x80 => at + 1 + usize::from(len),
        _ => {
            let mut rest = &packed[at..];
            take(&mut rest);
            packed.len() - rest.len()
        }
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Labels) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Default for Labels {
    fn default() -> Labels {
        Labels::empty()
    }
}

/// As Prometheus writes it: `{__name__="up", job="a"}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            match NameScheme::Legacy.takes_label(name) {
                true => f.write_str(name)?,
                false => put_quoted(f, name)?,
            }
            f.write_str("=")?;
            put_quoted(f, value)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
