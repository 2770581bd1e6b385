//! The index of a tenant: which blocks of the bucket count for it. JSON, one object, changed as a whole.
//!
//! A block that takes the place of others is entered in the same change that takes these out; so readers see the one or the others. What was taken
//! out is listed as a deletion until its object is gone.

use std::sync::Arc;

use block::{Block, FileKind, Info, Meta, Part, Placement, StoredBlock};
use model::TenantId;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Of the format.
const VERSION: u32 = 1;

/// Blocks of one index: of a hundred years in days.
const ENTRIES_MAX: usize = 100_000;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantIndex {
    version: u32,
    /// Whose; so that one that was copied to the wrong place is found out.
    tenant: String,
    /// When it was last changed, milliseconds since 1970.
    pub updated_ms: i64,
    /// Ascending by order of logging, then by id.
    pub blocks: Vec<Entry>,
    /// Objects that no longer count for this tenant and are to go.
    pub deletions: Vec<Deletion>,
}

/// A block that counts: what its footer says of the tenant, so that nobody has to read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Of the block.
    #[serde(with = "hex")]
    pub id: u128,
    /// Of its object.
    pub key: String,
    /// Of the object.
    pub bytes: u64,
    /// Whether it holds other tenants too.
    pub shared: bool,
    /// How far it is merged.
    pub level: u8,
    /// Place in the order of logging.
    pub order: u64,
    /// When the block was made.
    pub created_ms: i64,
    /// When it was entered.
    pub uploaded_ms: i64,
    /// Earliest sample.
    pub min_time: i64,
    /// Latest sample.
    pub max_time: i64,
    /// Series of the tenant.
    pub series: u32,
    /// Samples of the tenant.
    pub samples: u64,
    /// Where its part is.
    pub start: u64,
    /// Bytes of samples.
    pub chunk_bytes: u64,
    /// Bytes of symbols, series and postings.
    pub index_bytes: u64,
    /// Bytes of the directory.
    pub directory_bytes: u64,
    /// What it was merged from.
    #[serde(with = "hex_list")]
    pub sources: Vec<u128>,
}

/// An object that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deletion {
    /// Of the block.
    #[serde(with = "hex")]
    pub id: u128,
    /// Of the object.
    pub key: String,
    /// Since when it no longer counts.
    pub since_ms: i64,
}

impl TenantIndex {
    /// One without blocks.
    pub fn new(tenant: &TenantId) -> TenantIndex {
        TenantIndex {
            version: VERSION,
            tenant: tenant.as_str().to_owned(),
            updated_ms: 0,
            blocks: Vec::new(),
            deletions: Vec::new(),
        }
    }

    /// Reads one; every field is checked. Errors: [`Error::Index`].
    pub(crate) fn decode(tenant: &TenantId, key: &str, bytes: &[u8]) -> Result<TenantIndex, Error> {
        let wrong = |reason: String| Error::Index {
            key: key.to_owned(),
            reason,
        };
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        if head.version != VERSION {
            let found = head.version;
            return Err(wrong(format!(
                "version {found} of the index is not known, only {VERSION} is"
            )));
        }
        let index: TenantIndex = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        if index.tenant != tenant.as_str() {
            return Err(wrong(format!("it is the index of {:?}", index.tenant)));
        }
        if index.blocks.len() > ENTRIES_MAX {
            return Err(wrong(format!("{} blocks are too many", index.blocks.len())));
        }
        for entry in &index.blocks {
            let meta = entry.meta(tenant).map_err(wrong)?;
            let part = &meta.parts[0];
            if part.is_empty() || part.placement().end().is_none_or(|end| end > entry.bytes) {
                return Err(wrong(format!("the block {:032x} cannot be so", entry.id)));
            }
            objstore::check_key(&entry.key)?;
        }
        for deletion in &index.deletions {
            objstore::check_key(&deletion.key)?;
        }
        Ok(index)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has no keys but texts")
    }

    /// Enters a block, and takes out what it was merged from; says whether anything changed. `entry` is `None` where nothing is left of the tenant.
    pub(crate) fn take_in(&mut self, merged: &Info, entry: Option<&Entry>, now_ms: i64) -> bool {
        let mut changed = self.remove(now_ms, |other| merged.sources.contains(&other.id));
        if let Some(entry) = entry
            && !self.has(entry.id)
            && !self.supersedes(entry.id)
        {
            self.blocks.push(entry.clone());
            self.blocks.sort_by_key(|entry| (entry.order, entry.id));
            self.deletions.retain(|deletion| deletion.id != entry.id);
            changed = true;
        }
        changed
    }

    /// Takes out what `goes`; says whether there was any.
    pub(crate) fn remove(&mut self, now_ms: i64, goes: impl Fn(&Entry) -> bool) -> bool {
        let (gone, kept) = self.blocks.drain(..).partition(|entry| goes(entry));
        let gone: Vec<Entry> = gone;
        self.blocks = kept;
        let changed = !gone.is_empty();
        self.deletions
            .extend(gone.into_iter().map(|entry| Deletion {
                id: entry.id,
                key: entry.key,
                since_ms: now_ms,
            }));
        changed
    }

    /// Whether it names the block as one that counts.
    pub(crate) fn has(&self, id: u128) -> bool {
        self.blocks.iter().any(|entry| entry.id == id)
    }

    /// Whether a block that counts was merged from this one.
    pub(crate) fn supersedes(&self, id: u128) -> bool {
        self.blocks.iter().any(|entry| entry.sources.contains(&id))
    }
}

impl Entry {
    /// What a footer says of a part.
    pub(crate) fn of(meta: &Meta, part: &Part, key: &str, bytes: u64, now_ms: i64) -> Entry {
        let (info, at) = (&meta.info, part.placement());
        Entry {
            id: info.id,
            key: key.to_owned(),
            bytes,
            shared: info.kind == FileKind::Cut,
            level: info.level,
            order: info.order,
            created_ms: info.created_ms,
            uploaded_ms: now_ms,
            min_time: part.min_time,
            max_time: part.max_time,
            series: part.series,
            samples: part.samples,
            start: at.start,
            chunk_bytes: at.chunk_bytes,
            index_bytes: at.index_bytes,
            directory_bytes: at.directory_bytes,
            sources: info.sources.clone(),
        }
    }

    /// The footer again, with this part alone.
    pub(crate) fn meta(&self, tenant: &TenantId) -> Result<Meta, String> {
        let at = Placement {
            start: self.start,
            chunk_bytes: self.chunk_bytes,
            index_bytes: self.index_bytes,
            directory_bytes: self.directory_bytes,
        };
        let times = (self.min_time, self.max_time);
        let part = Part::placed(tenant.clone(), times, self.series, self.samples, at);
        let part = part.ok_or_else(|| format!("the block {:032x} cannot be so", self.id))?;
        Ok(Meta {
            info: Info {
                id: self.id,
                kind: if self.shared {
                    FileKind::Cut
                } else {
                    FileKind::Block
                },
                level: self.level,
                order: self.order,
                created_ms: self.created_ms,
                origin: String::new(),
                core: 0,
                sources: self.sources.clone(),
            },
            parts: vec![part],
        })
    }

    /// The block as a reader wants it, its bytes being in `file`.
    pub(crate) fn stored(&self, tenant: &TenantId, file: block::SharedFile) -> Arc<StoredBlock> {
        let meta = self.meta(tenant).expect("checked when it was read");
        Arc::new(StoredBlock::elsewhere(Block::known(meta, self.bytes), file))
    }
}

/// Ids as texts: JSON's numbers are too small for them.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{id:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        parse(&text).map_err(serde::de::Error::custom)
    }

    pub(super) fn parse(text: &str) -> Result<u128, String> {
        let id = u128::from_str_radix(text, 16);
        match id {
            Ok(id) if text.len() == 32 => Ok(id),
            _ => Err(format!("{text:?} is no id of a block")),
        }
    }
}

/// The same for a list.
mod hex_list {
    use serde::ser::SerializeSeq;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(ids: &[u128], to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(ids.len()))?;
        for id in ids {
            list.serialize_element(&format!("{id:032x}"))?;
        }
        list.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u128>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let ids = texts.iter().map(|text| super::hex::parse(text));
        ids.collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}
