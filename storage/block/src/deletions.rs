//! What has been deleted and may still be in blocks: durable, one file for each tenant (`docs/formats/deletions.md`).
//!
//! A deletion has a place in the order of logging, and applies to all blocks before it: readers and merges leave out what it means. It *lives* until no block
//! that it applies to is left, on this node or in the bucket: a merge that has left its samples out makes a block to which it is *applied*, and says so
//! here ([`Deletions::note_applied`]). Whoever knows all blocks ends it ([`Deletions::retire`]). What is forgotten of that by a crash costs another merge, never a sample.
//!
//! Invariants: whoever is told that a deletion is made finds it durable, and the file is replaced as a whole; nobody gives out a place in the order of logging before the
//! deletions have been read, since a block behind a deletion must have a greater one.
//!
//! Bounds: [`DELETIONS_MAX`] that live and [`DELETIONS_KEPT_MAX`] that are over for each tenant, [`SELECTORS_MAX`] selectors and [`SELECTOR_BYTES_MAX`] bytes of
//! them each.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use model::{MatchOp, Matcher, TenantId, varint};
use reactor::{Op, Reactor};
use xxhash_rust::xxh3::xxh3_64;

use crate::catalog::StoredBlock;
use crate::error::{Error, Malformed};
use crate::ints::{take, take_byte, take_count, take_signed, take_slice};
use crate::limits::{
    DELETIONS_BYTES_MAX, DELETIONS_KEPT_MAX, DELETIONS_MAX, SELECTOR_BYTES_MAX, SELECTORS_MAX,
};
use crate::tombstone::Tombstone;

const MAGIC: [u8; 8] = *b"MYELNDEL";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 24;

/// The end of the name of a file.
const EXTENSION: &str = "deletions";

/// Marks of a deletion.
const WHOLE_TENANT: u8 = 1;
const IS_OVER: u8 = 2;

/// A deletion.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// Its name outside.
    pub id: u128,
    /// Place in the order of logging: it applies to blocks before it.
    pub order: u64,
    /// The tenant was deleted, not some of its series.
    pub whole_tenant: bool,
    /// A series that passes all matchers of one of them is meant.
    pub selectors: Vec<Vec<Matcher>>,
    /// From, inclusive.
    pub min_time: i64,
    /// Until, inclusive.
    pub max_time: i64,
    /// Wall clock when it was made.
    pub created_ms: i64,
    /// Wall clock when nothing that it applies to was left.
    pub over_ms: Option<i64>,
}

impl Deletion {
    /// Whether it means all that another one means, which is older.
    fn includes(&self, other: &Deletion) -> bool {
        let text = |m: &Matcher| (m.op().symbol(), m.name().to_owned(), m.value().to_owned());
        let texts = |list: &Vec<Matcher>| list.iter().map(text).collect::<BTreeSet<_>>();
        let mine: BTreeSet<_> = self.selectors.iter().map(texts).collect();
        let all = self.selectors.iter().any(Vec::is_empty);
        self.min_time <= other.min_time
            && other.max_time <= self.max_time
            && (all
                || other
                    .selectors
                    .iter()
                    .all(|list| mine.contains(&texts(list))))
    }

    fn tombstones(&self) -> impl Iterator<Item = Tombstone> {
        self.selectors.iter().map(|matchers| Tombstone {
            matchers: matchers.clone(),
            min_time: self.min_time,
            max_time: self.max_time,
            order: self.order,
        })
    }
}

/// What has been deleted of one tenant.
#[derive(Debug, Clone, Default)]
pub struct OfTenant {
    /// By order.
    deletions: Vec<Arc<Deletion>>,
    /// Of those that live.
    tombstones: Arc<[Tombstone]>,
    /// By block: deletions up to this place are applied to it.
    applied: HashMap<u128, u64>,
}

impl OfTenant {
    fn refresh(&mut self) {
        let live = self.live().flat_map(|deletion| deletion.tombstones());
        self.tombstones = live.collect();
        if self.tombstones.is_empty() {
            self.applied.clear();
        }
    }

    /// Those that live.
    pub fn live(&self) -> impl Iterator<Item = &Arc<Deletion>> {
        let all = self.deletions.iter();
        all.filter(|deletion| deletion.over_ms.is_none())
    }

    /// All of them, by order.
    pub fn all(&self) -> &[Arc<Deletion>] {
        &self.deletions
    }

    /// Whether a deletion applies to a block that has samples of these times, and has not been applied to it.
    pub fn applies(
        &self,
        deletion: &Deletion,
        (id, order): (u128, u64),
        (min_time, max_time): (i64, i64),
    ) -> bool {
        order < deletion.order
            && deletion.min_time <= max_time
            && min_time <= deletion.max_time
            && (self.applied.get(&id)).is_none_or(|&applied| applied < deletion.order)
    }

    /// The same of a block of the catalog.
    pub fn applies_to(&self, deletion: &Deletion, tenant: &TenantId, block: &StoredBlock) -> bool {
        let info = &block.meta().info;
        block.part(tenant).is_some_and(|part| {
            let times = (part.min_time, part.max_time);
            self.applies(deletion, (info.id, info.order), times)
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Deletions {
    dir: RwLock<PathBuf>,
    tenants: RwLock<HashMap<TenantId, Arc<OfTenant>>>,
    /// Whether any lives: else nobody looks further.
    any: AtomicBool,
    /// One changes at a time.
    changing: Mutex<()>,
    /// Why no place in the order of logging can be given to one now.
    unready: RwLock<Option<String>>,
    /// Place of the last one that not all have done, 0: none. It does not end.
    unfinished: AtomicU64,
    /// Whether there is a bucket, whose uploader ends deletions.
    has_bucket: AtomicBool,
}

impl Default for Deletions {
    fn default() -> Deletions {
        Deletions {
            dir: RwLock::default(),
            tenants: RwLock::default(),
            any: AtomicBool::new(false),
            changing: Mutex::default(),
            unready: RwLock::default(),
            unfinished: AtomicU64::new(0),
            has_bucket: AtomicBool::new(false),
        }
    }
}

impl Deletions {
    /// Reads what is in a directory; gives the greatest order.
    ///
    /// Errors: the disk; a file that is damaged, since what it says would come back.
    pub fn open(&self, reactor: &mut Reactor, dir: &Path) -> Result<u64, Error> {
        *self.dir.write().unwrap_or_else(PoisonError::into_inner) = dir.to_owned();
        let list = Op::List {
            path: dir.to_owned(),
        };
        let entries = match reactor.run(list) {
            Ok(done) => done.entries(),
            Err(failure) if failure.is_not_found() => return Ok(0),
            Err(failure) => return Err(failure.into()),
        };
        let mut tenants = HashMap::new();
        for entry in entries {
            let path = dir.join(&entry.name);
            if path.extension().is_none_or(|end| end != EXTENSION) {
                continue;
            }
            let bytes = reactor.read_whole(&path, DELETIONS_BYTES_MAX)?;
            let name = path.display().to_string();
            let (tenant, mut of) = decode(&bytes, &name)?;
            if file_of(dir, &tenant) != path {
                let malformed = Malformed::new("tenant", "that of the file's name", &tenant);
                return Err(malformed.at(&name, HEADER_BYTES as u64));
            }
            of.refresh();
            tenants.insert(tenant, Arc::new(of));
        }
        let all = tenants.values().flat_map(|of| &of.deletions);
        let order = all.map(|deletion| deletion.order).max().unwrap_or(0);
        self.publish(|known| *known = tenants);
        Ok(order)
    }

    /// There is a bucket: deletions end when it holds nothing that they apply to. None can be made before [`Deletions::set_ready`], since the bucket may have
    /// seen greater orders of logging than the disk has.
    pub fn set_bucket(&self, unready: &str) {
        self.has_bucket.store(true, Ordering::Relaxed);
        *self.unready.write().unwrap_or_else(PoisonError::into_inner) = Some(unready.to_owned());
    }

    /// The deletion of that place is made, and memory may still hold what it means: it lives until another one is told here, or 0 when memory has deleted.
    pub fn set_unfinished(&self, order: u64) {
        self.unfinished.store(order, Ordering::Relaxed);
    }

    /// See [`Deletions::set_bucket`].
    pub fn set_ready(&self) {
        *self.unready.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Why no deletion can be made now.
    pub fn unready(&self) -> Option<String> {
        let unready = self.unready.read().unwrap_or_else(PoisonError::into_inner);
        unready.clone()
    }

    /// Whether deletions end elsewhere than on this node's disk.
    pub fn has_bucket(&self) -> bool {
        self.has_bucket.load(Ordering::Relaxed)
    }

    /// What has been deleted of a tenant; `None`: nothing. Cost: a load where nothing is, of nobody.
    pub fn of(&self, tenant: &TenantId) -> Option<Arc<OfTenant>> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.get(tenant).cloned()
    }

    /// The deletions of a tenant that live, as merges and readers want them.
    pub fn tombstones(&self, tenant: &TenantId) -> Arc<[Tombstone]> {
        if !self.any.load(Ordering::Acquire) {
            return Arc::default();
        }
        let of = self.of(tenant);
        of.map_or_else(Arc::default, |of| of.tombstones.clone())
    }

    /// Tenants of whom deletions live.
    pub fn tenants(&self) -> Vec<TenantId> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let live = tenants.iter().filter(|(_, of)| !of.tombstones.is_empty());
        live.map(|(tenant, _)| tenant.clone()).collect()
    }

    /// The place of the last deletion of a tenant that lives; 0: none does.
    pub fn last_order(&self, tenant: &TenantId) -> u64 {
        let tombstones = self.tombstones(tenant);
        tombstones.iter().map(|one| one.order).max().unwrap_or(0)
    }

    /// How many live, of all tenants.
    pub fn live_count(&self) -> u64 {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        tenants.values().map(|of| of.live().count() as u64).sum()
    }

    /// Whether one more may be made: `selectors` are few and short enough, and not too many live.
    pub fn check(&self, tenant: &TenantId, deletion: &Deletion) -> Result<(), Refused> {
        let count = deletion.selectors.len();
        if count == 0 || count > SELECTORS_MAX {
            return Err(Refused::Selectors(count));
        }
        let matchers = deletion.selectors.iter().flatten();
        let bytes: usize = matchers.map(|m| m.name().len() + m.value().len() + 8).sum();
        if bytes > SELECTOR_BYTES_MAX {
            return Err(Refused::Bytes(bytes));
        }
        let live = self.of(tenant).map_or(0, |of| {
            let live = of.live().filter(|other| !deletion.includes(other));
            live.count()
        });
        match live < DELETIONS_MAX {
            true => Ok(()),
            false => Err(Refused::TooMany),
        }
    }

    /// Makes one, which is durable when this returns and seen by readers. It takes the place of those that it includes.
    ///
    /// After an error it is in force as well, since it may be at the next start: what readers have been shown must not go then. Nobody is told that it is done.
    pub fn add(
        &self,
        reactor: &mut Reactor,
        tenant: &TenantId,
        deletion: Deletion,
    ) -> Result<(), Error> {
        self.change(reactor, tenant, true, |of| {
            of.deletions
                .retain(|other| other.over_ms.is_some() || !deletion.includes(other));
            of.deletions.push(Arc::new(deletion));
            true
        })
    }

    /// A block has been made of which deletions up to that order have been left out.
    pub fn note_applied(
        &self,
        reactor: &mut Reactor,
        tenant: &TenantId,
        block: u128,
        order: u64,
    ) -> Result<(), Error> {
        if order == 0 {
            return Ok(());
        }
        self.change(reactor, tenant, false, |of| {
            let known = of.applied.entry(block).or_default();
            let changed = *known < order;
            *known = order.max(*known);
            changed
        })
    }

    /// Ends the deletions of a tenant of which `is_pending` does not say that there is a block that they apply to; gives how many. Blocks for which `exists` is
    /// false are forgotten.
    pub fn retire(
        &self,
        reactor: &mut Reactor,
        tenant: &TenantId,
        is_pending: &dyn Fn(&OfTenant, &Deletion) -> bool,
        exists: &dyn Fn(u128) -> bool,
    ) -> Result<usize, Error> {
        let now_ms = reactor.wall_ms();
        let unfinished = self.unfinished.load(Ordering::Relaxed);
        let mut ended = 0;
        self.change(reactor, tenant, false, |of| {
            let view = of.clone();
            for deletion in &mut of.deletions {
                let is_done = deletion.order != unfinished && !is_pending(&view, deletion);
                if deletion.over_ms.is_none() && is_done {
                    *deletion = Arc::new(Deletion {
                        over_ms: Some(now_ms),
                        ..deletion.as_ref().clone()
                    });
                    ended += 1;
                }
            }
            let over = of.deletions.iter().filter(|d| d.over_ms.is_some()).count();
            let mut spare = over.saturating_sub(DELETIONS_KEPT_MAX);
            of.deletions.retain(|deletion| {
                let goes = spare > 0 && deletion.over_ms.is_some();
                spare -= usize::from(goes);
                !goes
            });
            let before = of.applied.len();
            of.applied.retain(|id, _| exists(*id));
            ended > 0 || of.applied.len() < before
        })?;
        Ok(ended)
    }

    /// Changes those of a tenant, on the disk and then in memory, if `how` says that it did; `always` in memory.
    fn change(
        &self,
        reactor: &mut Reactor,
        tenant: &TenantId,
        always: bool,
        how: impl FnOnce(&mut OfTenant) -> bool,
    ) -> Result<(), Error> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.of(tenant);
        let mut of = known.map_or_else(OfTenant::default, |of| of.as_ref().clone());
        if !how(&mut of) {
            return Ok(());
        }
        of.refresh();
        let dir = self.dir.read().unwrap_or_else(PoisonError::into_inner);
        let dir = dir.clone();
        let made = reactor.create_dirs(&dir);
        let content = encode(tenant, &of);
        let path = file_of(&dir, tenant);
        let written = made.and_then(|()| reactor.replace_whole(&path, &content));
        if always || written.is_ok() {
            self.publish(|tenants| drop(tenants.insert(tenant.clone(), Arc::new(of))));
        }
        Ok(written?)
    }

    fn publish(&self, how: impl FnOnce(&mut HashMap<TenantId, Arc<OfTenant>>)) {
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        how(&mut tenants);
        let any = tenants.values().any(|of| !of.tombstones.is_empty());
        self.any.store(any, Ordering::Release);
    }
}

/// Why a deletion cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// None, or too many.
    #[error("{0} selectors: a deletion has 1 to {SELECTORS_MAX}")]
    Selectors(usize),
    /// They are too long.
    #[error("selectors of {0} bytes: those of a deletion have {SELECTOR_BYTES_MAX} at most")]
    Bytes(usize),
    /// As many live as may.
    #[error("{DELETIONS_MAX} deletions live")]
    TooMany,
}

fn file_of(dir: &Path, tenant: &TenantId) -> PathBuf {
    dir.join(format!("{tenant}.{EXTENSION}"))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn encode(tenant: &TenantId, of: &OfTenant) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    put_text(&mut out, tenant.as_str());
    varint::put_u64(&mut out, of.deletions.len() as u64);
    for deletion in &of.deletions {
        out.extend_from_slice(&deletion.id.to_le_bytes());
        varint::put_u64(&mut out, deletion.order);
        let whole = if deletion.whole_tenant {
            WHOLE_TENANT
        } else {
            0
        };
        let over = if deletion.over_ms.is_some() {
            IS_OVER
        } else {
            0
        };
        out.push(whole | over);
        let times = [deletion.min_time, deletion.max_time, deletion.created_ms];
        let times = times.into_iter().chain(deletion.over_ms);
        times.for_each(|time| varint::put_i64(&mut out, time));
        varint::put_u64(&mut out, deletion.selectors.len() as u64);
        for matchers in &deletion.selectors {
            varint::put_u64(&mut out, matchers.len() as u64);
            for matcher in matchers {
                out.push(match matcher.op() {
                    MatchOp::Equal => 0,
                    MatchOp::NotEqual => 1,
                    MatchOp::Regex => 2,
                    MatchOp::NotRegex => 3,
                });
                put_text(&mut out, matcher.name());
                put_text(&mut out, matcher.value());
            }
        }
    }
    let mut applied: Vec<(&u128, &u64)> = of.applied.iter().collect();
    applied.sort_unstable();
    varint::put_u64(&mut out, applied.len() as u64);
    for (id, order) in applied {
        out.extend_from_slice(&id.to_le_bytes());
        varint::put_u64(&mut out, *order);
    }
    out[8..16].copy_from_slice(&MAGIC);
    out[16..18].copy_from_slice(&VERSION.to_le_bytes());
    let sum = xxh3_64(&out[8..]);
    out[..8].copy_from_slice(&sum.to_le_bytes());
    out
}

fn decode(bytes: &[u8], file: &str) -> Result<(TenantId, OfTenant), Error> {
    let corrupt = |malformed: Malformed| malformed.at(file, 0);
    let Some((head, mut rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(corrupt(Malformed::cut_short("header")));
    };
    let (sum, found) = (
        u64::from_le_bytes(*head.first_chunk().expect("in the header")),
        xxh3_64(&bytes[8..]),
    );
    if sum != found || head[8..16] != MAGIC {
        let (sum, found) = (format!("{sum:016x}"), format!("{found:016x}"));
        return Err(corrupt(Malformed::new("checksum", sum, found)));
    }
    let version = u16::from_le_bytes([head[16], head[17]]);
    if version != VERSION || head[18..] != [0; 6] {
        let file = file.to_owned();
        return Err(Error::Version { file, version });
    }
    let decoded = decode_body(&mut rest).map_err(corrupt)?;
    match rest.is_empty() {
        true => Ok(decoded),
        false => Err(corrupt(Malformed::new("bytes left over", 0, rest.len()))),
    }
}

fn take_text<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a str, Malformed> {
    let len = take_count(rest, DELETIONS_BYTES_MAX, what)?;
    let bytes = take_slice(rest, len, what)?;
    std::str::from_utf8(bytes).map_err(|error| Malformed::new(what, "UTF-8", error))
}

fn take_id(rest: &mut &[u8]) -> Result<u128, Malformed> {
    let bytes = take_slice(rest, 16, "id")?;
    let bytes = bytes.first_chunk().expect("so many were taken");
    Ok(u128::from_le_bytes(*bytes))
}

fn decode_body(rest: &mut &[u8]) -> Result<(TenantId, OfTenant), Malformed> {
    let tenant = TenantId::new(take_text(rest, "tenant")?)
        .map_err(|error| Malformed::new("tenant", "a valid name", error))?;
    let mut of = OfTenant::default();
    let count = take_count(rest, DELETIONS_MAX + DELETIONS_KEPT_MAX, "deletions")?;
    for _ in 0..count {
        let id = take_id(rest)?;
        let order = take(rest, "order")?;
        let marks = take_byte(rest, "marks")?;
        if marks & !(WHOLE_TENANT | IS_OVER) != 0 {
            return Err(Malformed::new("marks", "those that are known", marks));
        }
        let mut time = |what| take_signed(rest, what);
        let (min_time, max_time) = (time("first time")?, time("last time")?);
        let created_ms = time("time of making")?;
        let over_ms = match marks & IS_OVER != 0 {
            true => Some(time("time of the end")?),
            false => None,
        };
        let mut selectors = Vec::new();
        for _ in 0..take_count(rest, SELECTORS_MAX, "selectors")? {
            let mut matchers = Vec::new();
            for _ in 0..take_count(rest, SELECTOR_BYTES_MAX, "matchers")? {
                let op = match take_byte(rest, "operator")? {
                    0 => MatchOp::Equal,
                    1 => MatchOp::NotEqual,
                    2 => MatchOp::Regex,
                    3 => MatchOp::NotRegex,
                    other => return Err(Malformed::new("operator", "0 to 3", other)),
                };
                let name = take_text(rest, "name of a label")?;
                let value = take_text(rest, "value of a label")?;
                let matcher = Matcher::new(op, name, value);
                matchers.push(matcher.map_err(|error| Malformed::new("matcher", "valid", error))?);
            }
            selectors.push(matchers);
        }
        of.deletions.push(Arc::new(Deletion {
            id,
            order,
            whole_tenant: marks & WHOLE_TENANT != 0,
            selectors,
            min_time,
            max_time,
            created_ms,
            over_ms,
        }));
    }
    for _ in 0..take_count(rest, DELETIONS_BYTES_MAX, "blocks")? {
        let id = take_id(rest)?;
        of.applied.insert(id, take(rest, "order of a block")?);
    }
    Ok((tenant, of))
}

#[cfg(test)]
mod tests;
