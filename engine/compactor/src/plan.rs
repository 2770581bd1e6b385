//! Which blocks become one: pure, over a snapshot of the catalog.
//!
//! A *stage* is a range of time; its files are those of its own level and of those below. Files that end in the same window of the range belong together: files
//! of one tenant, with what it has in shared files; and shared ones, with the rest of their tenants. What is made of them is a file for each tenant with bytes enough, and
//! shared files for the others.
//!
//! **Order.** Of two samples of a series and time that of the greater order counts. A merged file has the greatest order of its sources, of whatever tenant; so
//! where a block that is not merged, on the disk or in the bucket, lies between two that are, in order and in time, these must not become one ([`runs`]), and a tenant over one of
//! whose blocks the others of a file would lift it has a file of its own ([`is_lifted`]).
//!
//! **What a merged file hides.** It names its sources, and hides in them the parts of all tenants that it has. So a tenant may be in a file only if
//! that file has all that the sources still show of it ([`Output`]). What a source was made of and has left the disk is in the bucket's indexes until they know of
//! that source. Whose parts of it the source has is not known, so a file of one tenant names it, and one of several is not made of that source until then ([`waiting`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block::{Catalog, FileKind, Info, Part, StoredBlock};
use model::TenantId;

use crate::options::{Options, Place, Policy};

/// Files that are merged at once, since the indexes of all are in memory: those of two cuts of many cores. The rest comes next.
pub(crate) const FILES_MAX: usize = 64;

/// A file that is small against the one that it would be merged into waits until there are that many, ..
const LATE_FILES: usize = 8;
/// .. until they are that part of it, ..
const LATE_PART: u64 = 8;
/// .. or until it is as old as a day: so late samples do not cost their day to be written again for each of them.
const LATE_MS: i64 = 24 * 3_600_000;

/// A window whose end no sample has come to yet is over when its files are as old as that.
const QUIET_MS: i64 = 3_600_000;

/// Parts of files that cannot be read: they stay where they are.
pub(crate) type Damaged = HashSet<(u128, TenantId)>;

/// What is known beside the list.
pub(crate) struct Known<'a> {
    pub(crate) damaged: &'a Damaged,
    /// Which blocks are settled.
    pub(crate) catalog: &'a Catalog,
    /// What the bucket has.
    pub(crate) policy: &'a dyn Policy,
    /// Set when nobody waits for a plan any more.
    pub(crate) stop: &'a AtomicBool,
}

/// Those of some blocks that were made of others that have left the disk, and that an index of the bucket may still name.
fn waiting<'b>(
    blocks: impl Iterator<Item = &'b Arc<StoredBlock>>,
    list: &[Arc<StoredBlock>],
    known: &Known<'_>,
) -> HashSet<u128> {
    let here: HashSet<u128> = list.iter().map(|block| block.meta().info.id).collect();
    let of_each: BTreeMap<u128, _> = blocks.map(|b| (b.meta().info.id, &b.meta().info)).collect();
    let waits = |info: &&Info| {
        !info.sources.iter().all(|id| here.contains(id)) && !known.catalog.is_settled(info.id)
    };
    let some = of_each.into_values().filter(waits);
    some.map(|info| info.id).collect()
}

/// A tenant's parts that become one.
#[derive(Debug, Clone)]
pub(crate) struct Merging {
    pub(crate) tenant: TenantId,
    /// By order.
    pub(crate) sources: Vec<Arc<StoredBlock>>,
}

impl Merging {
    fn bytes(&self) -> u64 {
        let parts = self.sources.iter().filter_map(|s| s.part(&self.tenant));
        parts.map(Part::bytes).sum()
    }
}

/// A file to be written.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) kind: FileKind,
    pub(crate) level: u8,
    /// By name.
    pub(crate) tenants: Vec<Merging>,
}

impl Output {
    /// Bytes of what is merged: more than it will be.
    pub(crate) fn bytes(&self) -> u64 {
        self.tenants.iter().map(Merging::bytes).sum()
    }

    pub(crate) fn order(&self) -> u64 {
        let all = self.tenants.iter().flat_map(|merging| &merging.sources);
        all.map(|s| s.meta().info.order).max().unwrap_or(0)
    }

    /// The ids that the file names: its sources, and what they have been made of. Of that, whatever has not gone yet has to be named, so that a start
    /// finds it hidden; what has left the disk is named by a file of one tenant as far as there is room, since a bucket may still have it.
    pub(crate) fn sources(&self, list: &[Arc<StoredBlock>]) -> BTreeSet<u128> {
        let listed: HashMap<u128, &Arc<StoredBlock>> =
            list.iter().map(|b| (b.meta().info.id, b)).collect();
        let (mut ids, mut left) = (BTreeSet::new(), BTreeSet::new());
        for merging in &self.tenants {
            for source in &merging.sources {
                let info = &source.meta().info;
                ids.insert(info.id);
                for id in &info.sources {
                    match listed.get(id) {
                        None => drop(left.insert(*id)),
                        // What still shows something of a tenant was not merged into this source, which had none of it.
                        Some(block) => {
                            if self.tenants.iter().all(|m| block.part(&m.tenant).is_none()) {
                                ids.insert(*id);
                            }
                        }
                    }
                }
            }
        }
        // Of another tenant it may be all that there is: its part of it was never merged into what names it.
        if self.tenants.len() == 1 {
            let room = block::SOURCES_MAX.saturating_sub(ids.len());
            ids.extend(left.into_iter().take(room));
        }
        ids
    }

    /// Whether it is a file of several tenants, and one of its sources is [`waiting`].
    pub(crate) fn waits(&self, list: &[Arc<StoredBlock>], known: &Known<'_>) -> bool {
        let sources = self.tenants.iter().flat_map(|merging| &merging.sources);
        self.tenants.len() > 1 && !waiting(sources, list, known).is_empty()
    }
}

/// Whether a file that names all of these hides of a tenant what it does not have.
fn hides_too_much(merging: &Merging, named: &[&Arc<StoredBlock>]) -> bool {
    named.iter().any(|block| {
        block.part(&merging.tenant).is_some()
            && !merging.sources.iter().any(|s| Arc::ptr_eq(s, block))
    })
}

/// What is due at a stage, in the order of time.
pub(crate) fn plan(
    list: &[Arc<StoredBlock>],
    options: &Options,
    stage: usize,
    now_ms: i64,
    known: &Known<'_>,
) -> Vec<Output> {
    let range = options.range_ms(stage);
    let level = stage as u8 + 1;
    let newest = newest(list);
    let candidates = || {
        let is_mine = |b: &&Arc<StoredBlock>| !b.is_pending() && b.meta().info.level <= level;
        list.iter().filter(is_mine)
    };
    let window = |part: &Part| part.max_time.div_euclid(range);
    // Tenants with files of their own, by window; what else they have there, in shared files, comes along.
    let mut own: BTreeMap<(&TenantId, i64), Vec<&Arc<StoredBlock>>> = BTreeMap::new();
    for block in candidates().filter(|block| block.meta().info.kind == FileKind::Block) {
        for part in block.parts() {
            let group = own.entry((&part.tenant, window(part))).or_default();
            group.push(block);
        }
    }
    let mut shared: BTreeMap<i64, Vec<&Arc<StoredBlock>>> = BTreeMap::new();
    for block in candidates().filter(|block| block.meta().info.kind == FileKind::Cut) {
        let id = block.meta().info.id;
        let mut last = None;
        for part in block.parts() {
            let sound = !known.damaged.contains(&(id, part.tenant.clone()));
            match own.get_mut(&(&part.tenant, window(part))) {
                Some(group) => group.push(block),
                None if sound => last = last.max(Some(part.max_time)),
                None => {}
            }
        }
        if let Some(last) = last {
            shared
                .entry(last.div_euclid(range))
                .or_default()
                .push(block);
        }
    }
    let is_own = |part: &Part| own.contains_key(&(&part.tenant, window(part)));
    let is_over = |owner: Option<&TenantId>, window: i64| {
        let end = window.saturating_add(1).saturating_mul(range);
        newest.get(&owner).is_some_and(|&newest| newest >= end)
    };
    let interval = options.interval_ms();
    let mut outputs = Vec::new();
    for (&(tenant, window), group) in &own {
        let is_over = is_over(Some(tenant), window);
        let mut group = group.clone();
        if let Some(group) = due(&mut group, stage, now_ms, is_over, interval) {
            let wanted = |part: &Part| part.tenant == *tenant;
            outputs.extend(split(list, group, level, options, known, &wanted));
        }
    }
    for (window, mut group) in shared {
        let is_over = is_over(None, window);
        if let Some(group) = due(&mut group, stage, now_ms, is_over, interval) {
            let wanted = |part: &Part| !is_own(part);
            outputs.extend(split(list, group, level, options, known, &wanted));
        }
    }
    outputs
}

/// The newest sample of each tenant that has files of its own, and (`None`) of shared files.
fn newest(list: &[Arc<StoredBlock>]) -> HashMap<Option<&TenantId>, i64> {
    let mut newest: HashMap<Option<&TenantId>, i64> = HashMap::new();
    for block in list {
        for part in block.parts() {
            let owner = match block.meta().info.kind {
                FileKind::Cut => None,
                FileKind::Block => Some(&part.tenant),
            };
            // A tenant that has grown is in both kinds of file.
            for key in [owner, Some(&part.tenant)] {
                let known = newest.entry(key).or_insert(i64::MIN);
                *known = part.max_time.max(*known);
            }
        }
    }
    newest
}

/// What of a group is to be merged now.
fn due<'g, 'l>(
    group: &'g mut Vec<&'l Arc<StoredBlock>>,
    stage: usize,
    now_ms: i64,
    is_over: bool,
    interval_ms: i64,
) -> Option<&'g [&'l Arc<StoredBlock>]> {
    group.sort_by_key(|block| block.meta().info.order);
    let made = |block: &&Arc<StoredBlock>| block.meta().info.created_ms;
    let last = group.iter().map(made).max()?;
    let settled = last <= now_ms.saturating_sub(interval_ms);
    let quiet = last <= now_ms.saturating_sub(QUIET_MS);
    group.truncate(FILES_MAX);
    let is_cut = |block: &&Arc<StoredBlock>| {
        block.meta().info.level == 0 && block.meta().info.kind == FileKind::Cut
    };
    if stage > 0 && !is_over && !quiet {
        return None;
    }
    if !settled && group.len() < FILES_MAX {
        return None;
    }
    if !is_worth_it(group, now_ms) {
        if stage > 0 || !group.iter().any(is_cut) {
            return None;
        }
        group.retain(is_cut);
    }
    (group.len() > 1 || group.iter().any(is_cut)).then_some(&group[..])
}

/// Whether a group is not one large merged file and a little that came late.
fn is_worth_it(group: &[&Arc<StoredBlock>], now_ms: i64) -> bool {
    let merged = group.iter().filter(|block| block.meta().info.level > 0);
    let Some(large) = merged.max_by_key(|block| block.bytes()) else {
        return true;
    };
    let late: Vec<_> = group.iter().filter(|b| !Arc::ptr_eq(b, large)).collect();
    late.is_empty()
        || late.len() >= LATE_FILES
        || late.iter().map(|b| b.bytes()).sum::<u64>() >= large.bytes() / LATE_PART
        || (late.iter()).any(|b| b.meta().info.created_ms <= now_ms.saturating_sub(LATE_MS))
}

/// The files that are made of what is wanted of a group.
fn split(
    list: &[Arc<StoredBlock>],
    group: &[&Arc<StoredBlock>],
    level: u8,
    options: &Options,
    known: &Known<'_>,
    wanted: &dyn Fn(&Part) -> bool,
) -> Vec<Output> {
    let mut parts: BTreeMap<&TenantId, Vec<&Arc<StoredBlock>>> = BTreeMap::new();
    for block in group {
        for part in block.parts().filter(|part| wanted(part)) {
            parts.entry(&part.tenant).or_default().push(block);
        }
    }
    let (mut own, mut shared) = (Vec::new(), Vec::new());
    let mut others = HashMap::new();
    for (tenant, blocks) in parts {
        // The bucket may be asked for each of them.
        if known.stop.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let count = blocks.len();
        let mut sound = blocks;
        sound.retain(|b| !known.damaged.contains(&(b.meta().info.id, tenant.clone())));
        let Some(stored) = known.policy.stored(tenant) else {
            continue;
        };
        let of_tenant = places(list, tenant, stored);
        for run in runs(&of_tenant, tenant, &sound) {
            let is_whole = run.len() == count;
            let merging = Merging {
                tenant: tenant.clone(),
                sources: run.into_iter().map(Arc::clone).collect(),
            };
            // A piece of a run that is merged already, for itself.
            if let [one] = &merging.sources[..]
                && one.meta().info.level >= level
            {
                continue;
            }
            match is_whole && merging.bytes() < options.own_file_bytes {
                true => shared.push(merging),
                false => own.push(alone(merging, level)),
            }
        }
        others.insert(tenant.clone(), of_tenant);
    }
    // Their time comes when the bucket knows of what they are made of.
    let waiting = waiting(group.iter().copied(), list, known);
    shared.retain(|merging| {
        let mut sources = merging.sources.iter();
        !sources.any(|block| waiting.contains(&block.meta().info.id))
    });
    // What the group was made of, as far as it is not gone: a merged file names that too.
    let made_of: HashSet<u128> = (group.iter())
        .flat_map(|block| block.meta().info.sources.iter().copied())
        .collect();
    let of_group = list.iter().filter(|b| made_of.contains(&b.meta().info.id));
    let named: Vec<&Arc<StoredBlock>> = group.iter().copied().chain(of_group).collect();
    let bytes_max = options.shared_file_bytes;
    own.extend(share(&named, &others, shared, level, bytes_max));
    own
}

fn alone(merging: Merging, level: u8) -> Output {
    Output {
        kind: FileKind::Block,
        level,
        tenants: vec![merging],
    }
}

/// Puts small tenants together, into files that may name all of `named`.
fn share(
    named: &[&Arc<StoredBlock>],
    others: &HashMap<TenantId, Vec<Place>>,
    small: Vec<Merging>,
    level: u8,
    bytes_max: u64,
) -> Vec<Output> {
    let mut outputs: Vec<Output> = Vec::new();
    let mut bytes = u64::MAX;
    for merging in small {
        let more = merging.bytes();
        if bytes.saturating_add(more) > bytes_max {
            bytes = 0;
            outputs.push(Output {
                kind: FileKind::Cut,
                level,
                tenants: Vec::new(),
            });
        }
        bytes += more;
        let last = outputs.last_mut().expect("one has been begun");
        last.tenants.push(merging);
    }
    // What would hide too much, or come to lie above what is newer, gets a file of its own.
    let mut apart = Vec::new();
    for output in &mut outputs {
        let order = output.order();
        let all = std::mem::take(&mut output.tenants);
        let is_apart =
            |m: &Merging| hides_too_much(m, named) || is_lifted(m, order, &others[&m.tenant]);
        let (too_much, fit) = all.into_iter().partition(is_apart);
        output.tenants = fit;
        let too_much: Vec<Merging> = too_much;
        apart.extend(too_much.into_iter().map(|merging| alone(merging, level)));
    }
    outputs.retain(|output| !output.tenants.is_empty());
    outputs.extend(apart);
    outputs
}

/// The blocks that have something of a tenant, wherever they are.
fn places(list: &[Arc<StoredBlock>], tenant: &TenantId, stored: Vec<Place>) -> Vec<Place> {
    let here = |block: &Arc<StoredBlock>| Some((block.meta().info.id, place(block, tenant)?));
    let mut places: Vec<Place> = (list.iter().filter_map(here))
        .map(|(id, (order, times))| (id, order, times))
        .collect();
    if stored.is_empty() {
        return places;
    }
    // What is on the disk, and what something on the disk was made of, is as the disk has it.
    let with_tenant = list.iter().map(|block| block.meta());
    let known: HashSet<u128> = (with_tenant.filter(|meta| meta.part(tenant).is_some()))
        .flat_map(|meta| std::iter::once(meta.info.id).chain(meta.info.sources.iter().copied()))
        .collect();
    places.extend(stored.into_iter().filter(|(id, ..)| !known.contains(id)));
    places
}

/// Place in the order of logging and times of what a block shows of a tenant.
fn place(block: &StoredBlock, tenant: &TenantId) -> Option<(u64, (i64, i64))> {
    let part = block.part(tenant)?;
    Some((block.meta().info.order, (part.min_time, part.max_time)))
}

fn meet((a_min, a_max): (i64, i64), (b_min, b_max): (i64, i64)) -> bool {
    a_min <= b_max && b_min <= a_max
}

/// Whether a tenant's merged part, with the order of a file, would come to lie above a block of the tenant that lies above it now, and meets it in time.
fn is_lifted(merging: &Merging, order: u64, others: &[Place]) -> bool {
    let of = |block: &Arc<StoredBlock>| place(block, &merging.tenant);
    let sources: Vec<_> = merging.sources.iter().filter_map(of).collect();
    let own = sources.iter().map(|(order, _)| *order).max().unwrap_or(0);
    let mut above = (others.iter()).filter(|(_, other, _)| own < *other && *other <= order);
    above.any(|(.., times)| sources.iter().any(|(_, source)| meet(*source, *times)))
}

/// Cuts a tenant's blocks, ascending by order, into runs that may each become one: no other block with samples of the tenant lies between the members of a run
/// in order and meets one of the earlier ones in time. `places`: of all blocks of the tenant.
fn runs<'l>(
    places: &[Place],
    tenant: &TenantId,
    blocks: &[&'l Arc<StoredBlock>],
) -> Vec<Vec<&'l Arc<StoredBlock>>> {
    let is_member = |id: u128| blocks.iter().any(|b| b.meta().info.id == id);
    let others: Vec<&Place> = places.iter().filter(|(id, ..)| !is_member(*id)).collect();
    let mut runs: Vec<Vec<&Arc<StoredBlock>>> = Vec::new();
    for &block in blocks {
        let to = block.meta().info.order;
        let joins = runs.last().is_some_and(|run| {
            let members = run.iter().filter_map(|member| place(member, tenant));
            let members: Vec<_> = members.collect();
            !others.iter().any(|(_, other, times)| {
                *other <= to
                    && (members.iter()).any(|(from, of)| from <= other && meet(*of, *times))
            })
        });
        match runs.last_mut() {
            Some(run) if joins => run.push(block),
            _ => runs.push(vec![block]),
        }
    }
    runs
}
