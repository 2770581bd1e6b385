//! One pass over a body: the hot path.
//!
//! For blocks of [`BLOCK`] series: walk them and hash their label bytes; look the hashes up together; then append each series' samples to
//! the columns of its core. A series that an alias knows costs its hash, a predicted lookup and three pushes a sample; nothing is
//! allocated or parsed for it. A block's bytes stay in the first-level cache between the three steps.
//!
//! What comes out ([`Assembly`]) is complete before anything is sent, so a body that turns out to be broken at its end has
//! stored nothing. Beside the columns it keeps, for every known sample and fresh series, the offset of its record in the body: that is what a
//! dead key or an error needs to find the labels again.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Metadata, SeriesKey, TenantId, TenantLimits, identity};
use shard::{
    CounterStart, FreshSamples, FreshSeries, KnownSamples, OtherSamples, OtherValue, RejectReason,
    Zero,
};
use smallvec::SmallVec;
use wire::Malformed;
use wire::remote_write::v1::{self, RawMetadata, Record};
use wire::remote_write::{Error, Protocol, v2};

use super::metadata::check_metadata;
use super::names::{Names, Other, Rest, Series, SymbolTable, Told};
use super::others::{self, placed};
use super::outcome;
use super::passive::Passive;
use super::refused::Cause;
use super::spread::Spread;
use super::started::Started;
use super::validate::{self, Invalid, Pairs, Reason, TimeBounds, Unusable};
use crate::alias::{AliasHash, AliasTable, Cursor, Refuser, Secret, Target};
use crate::ha::sources::{self, Pair, Sources};
use crate::ha::{Fate, Tracker};
use crate::relabel::{self, Relabel};

/// Series that are walked, looked up and appended together: 32 series are about 10 KiB of body.
const BLOCK: usize = 32;

/// Series between asking for the slot of one in the index of aliases and looking at it, where the order is not that of last time: their walk
/// and hash take about half a microsecond, longer than a cache miss.
const SLOTS_AHEAD: usize = 8;

/// What holds for all series of a body.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) limits: &'a Arc<TenantLimits>,
    pub(crate) protocol: Protocol,
    pub(crate) secret: &'a Secret,
    pub(crate) times: TimeBounds,
    pub(crate) spread: &'a Spread,
    /// Bytes that the labels of a version 2 body and the metadata of either may take, written out.
    pub(crate) text_bytes_max: usize,
    /// Whose refused series they are, see [`super::refused`].
    pub(crate) refuser: Refuser,
    /// The tenant's rules.
    pub(crate) relabel: &'a Relabel,
    /// Who is elected, where replicas are told apart.
    pub(crate) ha: Option<Ha<'a>>,
    /// Whether it is asked which records are refused.
    pub(crate) notes_refused: bool,
}

/// What decides which replicas are taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ha<'a> {
    pub(crate) tracker: &'a Tracker,
    pub(crate) sources: &'a Sources,
    pub(crate) now_ms: i64,
    /// What the store of elections has answered for this body.
    pub(crate) decided: &'a [(Pair, Fate)],
}

/// Replicas of one body of which only the store of elections knows; each is a question to it.
const UNDECIDED_MAX: usize = 1000;

/// What a metadata record takes beside its text: a vector entry of four strings and a kind, and their allocations.
const METADATA_BYTES: usize = 160;

/// Memory of a record of metadata that a version 2 request has told.
const TOLD_BYTES: usize = 80;

/// Memory that is used for one body after another.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    samples: Vec<(i64, f64)>,
    packed: Vec<u8>,
    hashed: Vec<u8>,
    gathered: Vec<u8>,
    fold: Vec<u8>,
    symbols: SymbolTable,
    /// Metadata that this request has told already.
    told: Told,
    /// Known samples per core of the last body: what to make room for in the next.
    room: Vec<usize>,
    /// Starts of counters that the cores know.
    pub(crate) started: Started,
}

/// A core's share of a body.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) known: KnownSamples,
    pub(crate) fresh: FreshSamples,
    pub(crate) others: OtherSamples,
    pub(crate) origins: Origins,
}

/// Where in the body the parts of a share come from; kept when the columns have been sent.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    /// Of each known sample, the offset of its series' record.
    pub(crate) known: Vec<u32>,
    /// Of each fresh series, offset, alias hash and the number of its replica.
    pub(crate) fresh: Vec<(u32, AliasHash, u16)>,
    /// Of each histogram, exemplar and start of a known series.
    pub(crate) others: Vec<u32>,
    /// The starts of known series, to be remembered when the core has answered for them.
    pub(crate) starts: Vec<(SeriesKey, i64)>,
}

impl Share {
    pub(crate) fn is_empty(&self) -> bool {
        self.known.keys.is_empty() && self.fresh.series.is_empty() && self.others.is_empty()
    }

    /// Bytes that the message keeps in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.known.keys.len() * 24
            + self.fresh.times.len() * 16
            + self.fresh.labels.len()
            + self.fresh.series.len() * size_of::<FreshSeries>()
            + self.others.bytes()
    }
}

impl Share {
    /// Takes fresh series out again of which nothing is left: the core would make them all the same.
    fn leave_out_empty(&mut self) {
        let Share {
            fresh,
            others,
            origins,
            ..
        } = self;
        let mut stay = vec![false; fresh.series.len()];
        let with_others = others.fresh.iter().map(|other| other.series as usize);
        with_others.for_each(|series| stay[series] = true);
        let mut places = Vec::with_capacity(stay.len());
        let (mut series, mut labels) = (Vec::new(), Vec::new());
        let (mut label, mut sample) = (0, 0);
        for (one, stays) in fresh.series.drain(..).zip(&mut stay) {
            *stays |= one.samples_end > std::mem::replace(&mut sample, one.samples_end);
            let begin = std::mem::replace(&mut label, one.labels_end as usize);
            places.push(series.len() as u32);
            if *stays {
                labels.extend_from_slice(&fresh.labels[begin..label]);
                series.push(FreshSeries {
                    labels_end: u32::try_from(labels.len()).expect("there were more of them"),
                    ..one
                });
            }
        }
        (fresh.series, fresh.labels) = (series, labels);
        let mut stay = stay.into_iter();
        origins.fresh.retain(|_| stay.next() == Some(true));
        for other in &mut others.fresh {
            other.series = places[other.series as usize];
        }
    }
}

/// A body, split by core, and what was found in it.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// One per core.
    pub(crate) shares: Vec<Share>,
    /// Bytes of the body.
    pub(crate) body_len: usize,
    /// Samples of either kind in the shares.
    pub(crate) samples: u64,
    /// Native histograms among them.
    pub(crate) histograms: u64,
    /// Samples of either kind in the body.
    pub(crate) samples_in: u64,
    /// Exemplars in the shares.
    pub(crate) exemplars: u64,
    /// Exemplars in the body.
    pub(crate) exemplars_in: u64,
    /// Exemplars refused, by reason.
    pub(crate) exemplars_refused: Vec<(&'static str, u64)>,
    /// Metadata that may be kept.
    pub(crate) metadata: Vec<(String, Metadata)>,
    pub(crate) metadata_in: u64,
    /// Metadata refused, by reason. There are few reasons, and there may be millions of records.
    pub(crate) metadata_refused: Vec<(&'static str, u64)>,
    /// Bytes written out so far, see [`Rules::text_bytes_max`].
    text_bytes: usize,
    /// Samples refused, by [`Reason`].
    pub(crate) refused: [u64; Reason::COUNT],
    /// Samples of series that a limit refused not long ago, so that the cores were not asked: of the tenant, of the metric.
    pub(crate) over_limit: [u64; 2],
    /// Samples of replicas that are not passed over, the refused among them.
    pub(crate) replica_samples: u64,
    /// What was passed over because its replica is not.
    pub(crate) passive: Passive,
    /// Replicas of which only the store of elections knows whether they are elected: when it has been asked, the body has to be split again.
    pub(crate) undecided: Vec<Pair>,
    /// Series refused because they were refused before.
    pub(crate) refused_again: u64,
    /// The first error among the series: offset of its record, and its words.
    pub(crate) error: Option<(u32, String)>,
    /// The first error in the metadata.
    pub(crate) metadata_error: Option<String>,
    /// Offsets of the records of which samples were refused, where that is asked for.
    pub(crate) refused_at: Option<Vec<u32>>,
    /// Newest accepted sample time; `i64::MIN` without one.
    pub(crate) newest: i64,
    /// Labels, and bytes of them, of every series that was looked at with its labels and taken: none of one that an alias knows.
    pub(crate) shapes: Vec<(u32, u32)>,
}

/// What the labels of a series came to.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart at once; a box would be an allocation for each fresh series"
)]
enum Prepared<'n> {
    /// These.
    Taken(Pairs<'n>),
    /// A replica that is not elected.
    Passive(Pair, Arc<str>),
    /// The tenant wants it dropped.
    Unwanted(Reason),
}

impl Assembly {
    fn new(rules: &Rules<'_>, room: &mut Vec<usize>) -> Assembly {
        room.resize(usize::from(rules.spread.count()), 0);
        let share = |&room: &usize| Share {
            known: KnownSamples {
                keys: Vec::with_capacity(room),
                times: Vec::with_capacity(room),
                values: Vec::with_capacity(room),
            },
            origins: Origins {
                known: Vec::with_capacity(room),
                ..Origins::default()
            },
            ..Share::default()
        };
        Assembly {
            shares: room.iter().map(share).collect(),
            body_len: 0,
            samples: 0,
            histograms: 0,
            samples_in: 0,
            exemplars: 0,
            exemplars_in: 0,
            exemplars_refused: Vec::new(),
            metadata: Vec::new(),
            metadata_in: 0,
            metadata_refused: Vec::new(),
            text_bytes: 0,
            refused: [0; Reason::COUNT],
            over_limit: [0; 2],
            replica_samples: 0,
            passive: Passive::default(),
            undecided: Vec::new(),
            refused_again: 0,
            error: None,
            metadata_error: None,
            refused_at: rules.notes_refused.then(Vec::new),
            newest: i64::MIN,
            shapes: Vec::new(),
        }
    }

    /// Takes all native histograms out of the shares again.
    pub(crate) fn leave_out_histograms(&mut self) {
        let stays = |value: &OtherValue| !matches!(value, OtherValue::Histogram(_));
        for share in &mut self.shares {
            let Share {
                others, origins, ..
            } = share;
            let mut stay = others.known.iter().map(|other| stays(&other.value));
            origins.others.retain(|_| stay.next() == Some(true));
            others.known.retain(|other| stays(&other.value));
            others.fresh.retain(|other| stays(&other.value));
            share.leave_out_empty();
        }
        self.samples -= self.histograms;
        self.refused[Reason::HistogramRate as usize] += self.histograms;
        self.histograms = 0;
    }

    fn refuse_exemplar(&mut self, at: u32, (reason, text): others::ExemplarRefused) {
        count_reason(&mut self.exemplars_refused, reason);
        self.error.get_or_insert((at, text));
    }

    fn refuse(&mut self, at: u32, invalid: Invalid, count: u64) {
        self.refused[invalid.reason as usize] += count;
        self.error.get_or_insert((at, invalid.text));
        self.note_refused(at);
    }

    /// Something of the record at this offset was refused.
    fn note_refused(&mut self, at: u32) {
        if let Some(records) = &mut self.refused_at {
            records.push(at);
        }
    }
}

fn count_reason(counts: &mut Vec<(&'static str, u64)>, reason: &'static str) {
    match counts.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, count)) => *count += 1,
        None => counts.push((reason, 1)),
    }
}

/// Splits a whole body.
///
/// Errors: bytes that are no write request; then nothing of the body may be used.
pub(crate) fn assemble(
    body: &[u8],
    rules: &Rules<'_>,
    aliases: &mut AliasTable,
    scratch: &mut Scratch,
) -> Result<Assembly, Error> {
    let out = Assembly::new(rules, &mut scratch.room);
    let mut out = with_names(
        body,
        rules,
        aliases,
        scratch,
        out,
        |assembler| match rules.protocol {
            Protocol::V1 => assembler.run_v1(body),
            Protocol::V2 => assembler.run_v2(body),
        },
    )?;
    for (room, share) in scratch.room.iter_mut().zip(&out.shares) {
        *room = share.known.keys.len();
    }
    out.body_len = body.len();
    Ok(out)
}

/// Adds the metadata of records that come beside a body.
///
/// Errors: as for a body.
pub(crate) fn describe(
    records: &[u8],
    rules: &Rules<'_>,
    aliases: &mut AliasTable,
    scratch: &mut Scratch,
    out: Assembly,
) -> Result<Assembly, Error> {
    let mut assembler = Assembler {
        rules,
        names: Names::V1,
        aliases,
        scratch,
        out,
        met: HashMap::new(),
        elected: sources::NONE,
    };
    assembler.run_v1(records)?;
    Ok(assembler.out)
}

/// Splits the records at these offsets again, with their labels: their keys were dead.
pub(crate) fn assemble_again(
    body: &[u8],
    offsets: &[u32],
    rules: &Rules<'_>,
    aliases: &mut AliasTable,
    scratch: &mut Scratch,
) -> Result<Assembly, Error> {
    let out = Assembly::new(rules, &mut vec![]);
    with_names(body, rules, aliases, scratch, out, |assembler| {
        for &at in offsets {
            assembler.take_again(body, at)?;
        }
        Ok(())
    })
}

/// Runs `work` on an assembler that understands the names of this body.
fn with_names(
    body: &[u8],
    rules: &Rules<'_>,
    aliases: &mut AliasTable,
    scratch: &mut Scratch,
    out: Assembly,
    work: impl FnOnce(&mut Assembler<'_, '_>) -> Result<(), Error>,
) -> Result<Assembly, Error> {
    let mut symbols = std::mem::take(&mut scratch.symbols);
    let assembled = (|| {
        let names = match rules.protocol {
            Protocol::V1 => Names::V1,
            Protocol::V2 => {
                symbols.read(body, rules.secret)?;
                scratch.told.begin(symbols.count());
                Names::V2 {
                    body,
                    table: &symbols,
                }
            }
        };
        let mut assembler = Assembler {
            rules,
            names,
            aliases,
            scratch,
            out,
            met: HashMap::new(),
            elected: sources::NONE,
        };
        work(&mut assembler)?;
        Ok(assembler.out)
    })();
    scratch.symbols = symbols;
    assembled
}

struct Assembler<'a, 'r> {
    rules: &'a Rules<'r>,
    names: Names<'a>,
    aliases: &'a mut AliasTable,
    scratch: &'a mut Scratch,
    out: Assembly,
    /// Replicas that the body has had, by number; a hostile body has thousands.
    met: HashMap<u16, Fate>,
    /// The last of them that was elected.
    elected: u16,
}

/// Series that are looked up together.
struct Block<S> {
    series: SmallVec<[(S, u32); BLOCK]>,
    hashes: [AliasHash; BLOCK],
    /// Of all but the last [`SLOTS_AHEAD`] series where the cursor is lost, see [`crate::alias`].
    candidates: [u32; BLOCK],
    cursor: Cursor,
}

impl<S> Block<S> {
    fn new(cursor: Cursor) -> Block<S> {
        Block {
            series: SmallVec::new(),
            hashes: [AliasHash::default(); BLOCK],
            candidates: [0; BLOCK],
            cursor,
        }
    }
}

impl<'a> Assembler<'a, '_> {
    fn run_v1(&mut self, body: &[u8]) -> Result<(), Error> {
        let mut walk = v1::Walk::new(body);
        let mut block = Block::new(self.aliases.cursor());
        loop {
            let at = walk.offset() as u32;
            match walk.next_record()? {
                Some(Record::Series(series)) => self.add(&mut block, series, at)?,
                Some(Record::Metadata(metadata)) => {
                    self.take_metadata(&metadata).map_err(|what| Error {
                        at: at as usize,
                        what,
                    })?;
                }
                None => return self.flush(&mut block),
            }
        }
    }

    fn run_v2(&mut self, body: &[u8]) -> Result<(), Error> {
        let mut walk = v2::Walk::new(body);
        let mut block = Block::new(self.aliases.cursor());
        loop {
            let at = walk.offset() as u32;
            match walk.next_series()? {
                Some(series) => self.add(&mut block, series, at)?,
                None => return self.flush(&mut block),
            }
        }
    }

    /// Hashes a series; a full block is looked up and appended.
    #[inline]
    fn add<S: Series>(&mut self, block: &mut Block<S>, series: S, at: u32) -> Result<(), Error> {
        let hash = self.hash(series.name_bytes()).map_err(|what| Error {
            at: at as usize,
            what,
        })?;
        let number = block.series.len();
        block.hashes[number] = hash;
        if block.cursor.is_lost() {
            self.aliases.prefetch(hash);
            if let Some(there) = number.checked_sub(SLOTS_AHEAD) {
                block.candidates[there] = self.aliases.candidate(block.hashes[there]);
            }
        }
        block.series.push((series, at));
        if block.series.len() == BLOCK {
            self.flush(block)
        } else {
            Ok(())
        }
    }

    fn flush<S: Series>(&mut self, block: &mut Block<S>) -> Result<(), Error> {
        let mut targets = [None; BLOCK];
        let count = block.series.len();
        let (hashes, targets) = (&block.hashes[..count], &mut targets[..count]);
        if block.cursor.is_lost() {
            let candidates = &mut block.candidates[..count];
            let asked = count.saturating_sub(SLOTS_AHEAD);
            for (candidate, hash) in candidates.iter_mut().zip(hashes).skip(asked) {
                *candidate = self.aliases.candidate(*hash);
            }
            let cursor = &mut block.cursor;
            self.aliases
                .resolve_asked(cursor, hashes, candidates, targets);
        } else {
            self.aliases.resolve(&mut block.cursor, hashes, targets);
        }
        for (((series, at), hash), target) in block.series.drain(..).zip(hashes).zip(targets) {
            self.take(&series, at, *hash, *target, None)
                .map_err(|what| Error {
                    at: at as usize,
                    what,
                })?;
        }
        Ok(())
    }

    /// One series, by what its alias says.
    #[inline(always)]
    fn take<S: Series>(
        &mut self,
        series: &S,
        at: u32,
        hash: AliasHash,
        target: Option<Target>,
        gathered: Option<&[u8]>,
    ) -> Result<(), Malformed> {
        let Some(target) = target else {
            return self.take_fresh(series, at, hash, gathered);
        };
        match target.is_series() && target.source == sources::NONE {
            true => self.take_known(series, at, target, gathered),
            false => self.take_special(series, at, hash, target, gathered),
        }
    }

    /// A series of an HA replica, or one that was refused when its labels were last looked at.
    #[inline(never)]
    fn take_special<S: Series>(
        &mut self,
        series: &S,
        at: u32,
        hash: AliasHash,
        target: Target,
        gathered: Option<&[u8]>,
    ) -> Result<(), Malformed> {
        let mut cause = target.refused().and_then(|refused| {
            let holds = self.aliases.holds(refused, self.rules.refuser);
            Cause::from_number(refused.reason).filter(|_| holds)
        });
        let no_cluster = Cause::Labels(Reason::TooManyHaClusters);
        let before = (self.out.samples_in, self.out.replica_samples);
        // Before all else, also where the series will be refused: replicas live by what they send, whatever becomes of it.
        if target.source != sources::NONE && !self.is_elected(target.source) {
            let Some(ha) = self.rules.ha else {
                return self.take_fresh(series, at, hash, gathered);
            };
            let pair = ha.sources.pair(target.source);
            match self.fate(target.source, [&pair[0], &pair[1]]) {
                Fate::Passive(elected) => {
                    return self.take_passive(series, at, &pair, &elected, gathered);
                }
                Fate::TooMany(_) if cause == Some(no_cluster) => {}
                Fate::TooMany(_) => return self.take_fresh(series, at, hash, gathered),
                Fate::Taken => cause = cause.filter(|cause| *cause != no_cluster),
            }
        } else {
            cause = cause.filter(|cause| *cause != no_cluster);
        }
        match cause {
            Some(cause) => self.take_refused(series, at, cause, gathered)?,
            None if target.is_series() => self.take_known(series, at, target, gathered)?,
            None => return self.take_fresh(series, at, hash, gathered),
        }
        if target.source != sources::NONE {
            // Also where it turned out to be scattered, and came by here once more.
            let (samples_in, replica_samples) = before;
            self.out.replica_samples = replica_samples + self.out.samples_in - samples_in;
        }
        Ok(())
    }

    /// Whether a replica that the body has had before is elected.
    #[inline]
    fn is_elected(&mut self, source: u16) -> bool {
        if source != self.elected {
            if self.met.get(&source) != Some(&Fate::Taken) {
                return false;
            }
            self.elected = source;
        }
        true
    }

    /// What becomes of a replica, decided once for the whole body. One that only the store of elections knows of is noted and counts as elected.
    fn fate(&mut self, source: u16, pair: [&str; 2]) -> Fate {
        if let Some(fate) = self.met.get(&source) {
            return fate.clone();
        }
        let Some(ha) = self.rules.ha else {
            return Fate::Taken;
        };
        let is_it = |known: &Pair| *known[0] == *pair[0] && *known[1] == *pair[1];
        let decided = ha.decided.iter().find(|(known, _)| is_it(known));
        let look = || {
            let (tenant, limits) = (self.rules.tenant, self.rules.limits);
            ha.tracker.look(tenant, limits, pair, ha.now_ms)
        };
        let fate = match decided.map(|(_, fate)| fate.clone()).or_else(look) {
            Some(fate) => fate,
            None if self.out.undecided.iter().any(is_it) => Fate::Taken,
            None if self.out.undecided.len() >= UNDECIDED_MAX => {
                Fate::TooMany(UNDECIDED_MAX as u64)
            }
            None => {
                self.out.undecided.push(pair.map(Arc::from));
                Fate::Taken
            }
        };
        if source != sources::UNNUMBERED {
            self.met.insert(source, fate.clone());
        }
        fate
    }

    /// Counts a series of a replica that is not elected.
    fn take_passive<S: Series>(
        &mut self,
        series: &S,
        at: u32,
        pair: &Pair,
        elected: &Arc<str>,
        gathered: Option<&[u8]>,
    ) -> Result<(), Malformed> {
        let mut rest = Rest::default();
        let mut floats = 0;
        series.read(&mut rest, |_, _| floats += 1)?;
        if rest.scattered && gathered.is_none() {
            return self.take_scattered(series, at);
        }
        self.out.samples_in += floats + rest.histograms;
        self.out.exemplars_in += rest.exemplars;
        self.out.passive.add(pair, elected, floats, &rest);
        Ok(())
    }

    /// What a series goes through that no alias knows, in the order of Cortex: whose replica it is, relabelling, labels that go, checks.
    ///
    /// `owned` holds the labels where rules have made others of them; `source` becomes the number of its replica, also of one that is refused.
    fn prepare<'n>(
        &mut self,
        names: &'n [u8],
        owned: &'n mut relabel::Labels,
        source: &mut u16,
    ) -> Result<Prepared<'n>, Unusable>
    where
        'a: 'n,
    {
        let limits = self.rules.limits;
        let mut pairs = validate::read(self.names.labels(names))?;
        // What had labels and has none left is the tenant's wish; what had none is refused.
        let had_labels = !pairs.is_empty();
        let mut replica = None;
        if let Some(ha) = self.rules.ha
            && let Some(pair) = validate::ha_pair(&pairs, limits)
        {
            *source = ha.sources.number(pair);
            match self.fate(*source, pair) {
                Fate::Taken => replica = Some(limits.ha_replica_label.as_str()),
                Fate::Passive(elected) => {
                    return Ok(Prepared::Passive(pair.map(Arc::from), elected));
                }
                Fate::TooMany(limit) => {
                    let text = format!("too many HA clusters (limit: {limit})");
                    let invalid = Invalid::new(Reason::TooManyHaClusters, text);
                    return Err(Unusable::Invalid(invalid));
                }
            }
        }
        if !self.rules.relabel.is_empty() {
            owned.extend(
                pairs
                    .iter()
                    .map(|(n, v)| ((*n).to_owned(), (*v).to_owned())),
            );
            if !self.rules.relabel.run(owned) || owned.is_empty() && had_labels {
                return Ok(Prepared::Unwanted(Reason::Relabelled));
            }
            let owned: &'n relabel::Labels = owned;
            pairs = owned
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
        }
        validate::remove(&mut pairs, limits, replica);
        if pairs.is_empty() && had_labels {
            return Ok(Prepared::Unwanted(Reason::LabelsRemoved));
        }
        validate::finish(&mut pairs, limits).map_err(Unusable::Invalid)?;
        Ok(Prepared::Taken(pairs))
    }

    #[inline]
    fn hash(&mut self, name_bytes: &[u8]) -> Result<AliasHash, Malformed> {
        self.names
            .hash(name_bytes, self.rules.secret, &mut self.scratch.fold)
    }

    fn take_again(&mut self, body: &[u8], at: u32) -> Result<(), Error> {
        let begin = at as usize;
        let what = match self.rules.protocol {
            Protocol::V1 => match v1::Walk::at(body, begin).next_record()? {
                Some(Record::Series(series)) => self.take_labels_again(&series, at),
                _ => panic!("a series was at byte {at} a moment ago"),
            },
            Protocol::V2 => match v2::Walk::at(body, begin).next_series()? {
                Some(series) => self.take_labels_again(&series, at),
                None => panic!("a series was at byte {at} a moment ago"),
            },
        };
        what.map_err(|what| Error { at: begin, what })
    }

    fn take_labels_again<S: Series>(&mut self, series: &S, at: u32) -> Result<(), Malformed> {
        let mut names = series.name_bytes().to_vec();
        let mut rest = Rest::default();
        series.read(&mut rest, |_, _| {})?;
        if rest.scattered {
            series.gather(&mut names)?;
        }
        let hash = self.hash(&names)?;
        self.aliases.forget(hash);
        self.take_fresh(series, at, hash, Some(&names))
    }

    /// Appends the samples of a series that an alias knows. `gathered` are its name bytes where they had to be gathered first.
    #[inline]
    fn take_known<S: Series>(
        &mut self,
        series: &S,
        at: u32,
        target: Target,
        gathered: Option<&[u8]>,
    ) -> Result<(), Malformed> {
        let Share { known, origins, .. } = &mut self.out.shares[usize::from(target.core.0)];
        let before = known.times.len();
        let mut newest = self.out.newest;
        let mut refused = None;
        let mut refused_count = 0;
        let mut rest = Rest::default();
        series.read(&mut rest, |time, value| {
            if !self.rules.times.hold(time) {
                refused.get_or_insert(time);
                refused_count += 1;
                return;
            }
            newest = newest.max(time);
            known.keys.push(target.key);
            known.times.push(time);
            known.values.push(value);
            origins.known.push(at);
        })?;
        let count = known.times.len() - before;
        let scattered = rest.scattered && gathered.is_none();
        if scattered {
            known.keys.truncate(before);
            known.times.truncate(before);
            known.values.truncate(before);
            origins.known.truncate(before);
            return self.take_scattered(series, at);
        }
        self.out.samples_in += count as u64 + refused_count;
        self.out.samples += count as u64;
        self.out.newest = newest;
        if let Some(time) = refused {
            let names = gathered.unwrap_or(series.name_bytes());
            self.refuse_time(names, at, time, refused_count);
        }
        if rest.is_nothing() {
            return Ok(());
        }
        let names = gathered.unwrap_or(series.name_bytes());
        let known_start = rest.start == 0
            || !rest.starts_differ && self.scratch.started.is_known(target, rest.start);
        if rest.has_others() || !known_start {
            self.take_known_others(series, names, at, target, before)?;
        }
        self.take_rest(&rest, names)
    }

    /// Appends what else a known series has; its floats stand in the columns from `begin` on.
    #[cold]
    fn take_known_others<S: Series>(
        &mut self,
        series: &S,
        names: &[u8],
        at: u32,
        target: Target,
        begin: usize,
    ) -> Result<(), Malformed> {
        let mut taken = self.read_others(series, names, at)?;
        taken.retain(|(_, other)| match other {
            OtherValue::Start(counter) => !self.scratch.started.is_known(target, counter.start),
            _ => true,
        });
        let Share {
            known,
            others,
            origins,
            ..
        } = &mut self.out.shares[usize::from(target.core.0)];
        let starts = taken.iter().filter_map(|(_, other)| match other {
            OtherValue::Start(counter) => Some((target.key, counter.start)),
            _ => None,
        });
        origins.starts.extend(starts);
        let placed = placed(taken, target.key, begin, &known.times[begin..]);
        others.known.extend(placed);
        origins.others.resize(others.known.len(), at);
        Ok(())
    }

    /// Decodes and checks the histograms and exemplars of a series, and what is said of the starts of its counters. What is refused is counted.
    fn read_others<S: Series>(
        &mut self,
        series: &S,
        names: &[u8],
        at: u32,
    ) -> Result<Vec<(i64, OtherValue)>, Malformed> {
        let labels = self.names.labels(names);
        let mut taken = Vec::new();
        let mut told = 0;
        series.others(|other| {
            match other {
                Other::Histogram(message, start) => {
                    self.out.samples_in += 1;
                    if !self.rules.limits.enable_native_histograms {
                        self.out.refused[Reason::HistogramsOff as usize] += 1;
                        self.out.note_refused(at);
                        return Ok(());
                    }
                    match others::histogram(message, labels.clone(), self.rules.limits) {
                        Ok((time, _)) if !self.rules.times.hold(time) => {
                            self.refuse_time(names, at, time, 1);
                        }
                        Ok((time, histogram)) => {
                            self.out.samples += 1;
                            self.out.histograms += 1;
                            self.out.newest = self.out.newest.max(time);
                            if start != 0 && std::mem::replace(&mut told, start) != start {
                                let zero = self.zero(start, || others::zero(&histogram));
                                let counter = CounterStart { start, zero };
                                taken.push((time, OtherValue::Start(counter)));
                            }
                            taken.push((time, OtherValue::Histogram(Box::new(histogram))));
                        }
                        Err(Unusable::Invalid(invalid)) => self.out.refuse(at, invalid, 1),
                        Err(Unusable::Malformed(what)) => return Err(what),
                    }
                }
                Other::Start(time, start) if self.rules.times.hold(time) => {
                    let zero = self.zero(start, || Zero::Float);
                    taken.push((time, OtherValue::Start(CounterStart { start, zero })));
                }
                Other::Start(..) => {}
                Other::Exemplar(message) => {
                    self.out.exemplars_in += 1;
                    let time_max = self.rules.times.max;
                    match others::exemplar(message, self.names, labels.clone(), time_max)? {
                        Ok(exemplar) => {
                            if let Names::V2 { .. } = self.names {
                                self.take_text(exemplar.labels.packed().len())?;
                            }
                            self.out.exemplars += 1;
                            let time = exemplar.time.0;
                            taken.push((time, OtherValue::Exemplar(Box::new(exemplar))));
                        }
                        Err(refused) => self.out.refuse_exemplar(at, refused),
                    }
                }
            }
            Ok(())
        })?;
        Ok(taken)
    }

    /// What to store at the start of a counter: nothing unless the tenant wants it, and its samples may be that old.
    fn zero(&self, start: i64, zero: impl FnOnce() -> Zero) -> Zero {
        match self.rules.limits.enable_start_timestamp && self.rules.times.hold(start) {
            true => zero(),
            false => Zero::None,
        }
    }

    /// Appends a series with its labels. `gathered` are its name bytes where they had to be gathered first.
    #[inline(never)]
    fn take_fresh<S: Series>(
        &mut self,
        series: &S,
        at: u32,
        hash: AliasHash,
        gathered: Option<&[u8]>,
    ) -> Result<(), Malformed> {
        let mut rest = Rest::default();
        let samples = &mut self.scratch.samples;
        samples.clear();
        series.read(&mut rest, |time, value| samples.push((time, value)))?;
        if rest.scattered && gathered.is_none() {
            return self.take_scattered(series, at);
        }
        let names = gathered.unwrap_or(series.name_bytes());
        let count = self.scratch.samples.len() as u64;
        self.out.samples_in += count;
        if count > 0 || rest.has_others() {
            self.take_text_of(names)?;
            let mut owned = relabel::Labels::new();
            let (mut source, before) = (sources::NONE, self.out.samples_in - count);
            match self.prepare(names, &mut owned, &mut source) {
                Ok(Prepared::Passive(pair, elected)) => {
                    if source != sources::UNNUMBERED {
                        self.aliases.learn_passive(hash, source);
                    }
                    self.out.samples_in += rest.histograms;
                    self.out.exemplars_in += rest.exemplars;
                    self.out.passive.add(&pair, &elected, count, &rest);
                    return Ok(());
                }
                Ok(Prepared::Unwanted(reason)) => {
                    self.learn_refused(hash, reason, source);
                    self.out.samples_in += rest.histograms;
                    self.out.refused[reason as usize] += count + rest.histograms;
                }
                Ok(Prepared::Taken(pairs)) => {
                    let others = match rest.has_others() || rest.start != 0 {
                        true => self.read_others(series, names, at)?,
                        false => Vec::new(),
                    };
                    self.append_fresh(&pairs, (at, hash, source), names, others);
                }
                Err(Unusable::Invalid(invalid)) => {
                    self.learn_refused(hash, invalid.reason, source);
                    self.out.samples_in += rest.histograms;
                    self.out.refuse(at, invalid, count + rest.histograms);
                }
                Err(Unusable::Malformed(what)) => return Err(what),
            }
            if source != sources::NONE {
                self.out.replica_samples += self.out.samples_in - before;
            }
        }
        if rest.is_nothing() {
            return Ok(());
        }
        self.take_rest(&rest, names)
    }

    /// Remembers that labels are refused, and of whose replica they are: it counts as heard, and is passed over when it is no longer elected.
    fn learn_refused(&mut self, hash: AliasHash, reason: Reason, source: u16) {
        if source != sources::UNNUMBERED {
            let (cause, refuser) = (Cause::Labels(reason).number(), self.rules.refuser);
            self.aliases.learn_refused(hash, cause, refuser, source);
        }
    }

    /// Counts the samples of a series that was refused not long ago. Its labels are only read for the first error of a body.
    #[inline(never)]
    fn take_refused<S: Series>(
        &mut self,
        series: &S,
        at: u32,
        cause: Cause,
        gathered: Option<&[u8]>,
    ) -> Result<(), Malformed> {
        let mut rest = Rest::default();
        let mut count = 0;
        series.read(&mut rest, |_, _| count += 1)?;
        if rest.scattered && gathered.is_none() {
            return self.take_scattered(series, at);
        }
        let names = gathered.unwrap_or(series.name_bytes());
        count += rest.histograms;
        self.out.samples_in += count;
        if count > 0 {
            self.out.refused_again += 1;
            match cause {
                Cause::Labels(reason) => self.out.refused[reason as usize] += count,
                Cause::PerUser => self.out.over_limit[0] += count,
                Cause::PerMetric => self.out.over_limit[1] += count,
            }
            let wanted = matches!(cause, Cause::Labels(reason) if reason.is_wanted());
            if !wanted {
                self.out.note_refused(at);
                if self.out.error.is_none() {
                    self.tell_again(cause, names, at)?;
                }
            }
        }
        if rest.is_nothing() {
            return Ok(());
        }
        self.take_rest(&rest, names)
    }

    /// The words for a refusal that is only remembered, as they were the first time.
    #[cold]
    fn tell_again(&mut self, cause: Cause, names: &[u8], at: u32) -> Result<(), Malformed> {
        let limits = self.rules.limits;
        let (mut owned, mut source) = (relabel::Labels::new(), sources::NONE);
        let text = match self.prepare(names, &mut owned, &mut source) {
            Ok(Prepared::Taken(pairs)) => {
                let series = super::texts::label_set(pairs.iter().copied());
                let tenant = self.rules.tenant;
                match cause {
                    Cause::PerUser => {
                        let reason = RejectReason::PerUserSeriesLimit;
                        outcome::over_limit(tenant, reason, limits, &series)
                    }
                    Cause::PerMetric => {
                        let reason = RejectReason::PerMetricSeriesLimit;
                        outcome::over_limit(tenant, reason, limits, &series)
                    }
                    // Limits that change forget what they refused, so this only bridges the moment of their change.
                    Cause::Labels(_) => {
                        format!(
                            "user={tenant}: the labels of series {series} were refused a moment ago"
                        )
                    }
                }
            }
            // Nothing of it is refused any more, and it will be seen to when its alias has gone.
            Ok(_) => return Ok(()),
            Err(Unusable::Invalid(invalid)) => invalid.text,
            Err(Unusable::Malformed(what)) => return Err(what),
        };
        self.out.error = Some((at, text));
        Ok(())
    }

    /// Appends labels that have been checked, the samples in `scratch`, and what else the series has.
    fn append_fresh(
        &mut self,
        pairs: &Pairs<'_>,
        origin: (u32, AliasHash, u16),
        names: &[u8],
        others: Vec<(i64, OtherValue)>,
    ) {
        let samples = &mut self.scratch.samples;
        let (sent, times) = (samples.len(), self.rules.times);
        if let Some(&(time, _)) = samples.iter().find(|(time, _)| !times.hold(*time)) {
            samples.retain(|(time, _)| times.hold(*time));
            let refused = (sent - samples.len()) as u64;
            self.refuse_time(names, origin.0, time, refused);
        }
        let Scratch {
            samples,
            packed,
            hashed,
            ..
        } = &mut *self.scratch;
        if samples.is_empty() && others.is_empty() {
            return;
        }
        packed.clear();
        pairs
            .iter()
            .for_each(|(name, value)| model::put_label(packed, name, value));
        let text = pairs.iter().map(|(name, value)| name.len() + value.len());
        let shape = (pairs.len() as u32, text.sum::<usize>() as u32);
        self.out.shapes.push(shape);
        let id = identity::series_id(self.rules.tenant, packed, hashed);
        let placement =
            identity::placement_of_pairs(self.rules.tenant, pairs.iter().copied(), hashed);
        let core = self.rules.spread.place(placement);
        let Share {
            fresh,
            others: of_share,
            origins,
            ..
        } = &mut self.out.shares[usize::from(core.0)];
        fresh.labels.extend_from_slice(packed);
        let begin = fresh.times.len();
        for &(time, value) in samples.iter() {
            fresh.times.push(time);
            fresh.values.push(value);
            self.out.newest = self.out.newest.max(time);
        }
        self.out.samples += samples.len() as u64;
        if !others.is_empty() {
            let index = u32::try_from(fresh.series.len()).expect("series are part of the body");
            let placed = placed(others, index, begin, &fresh.times[begin..]);
            of_share.fresh.extend(placed);
        }
        fresh.series.push(FreshSeries {
            id,
            labels_end: u32::try_from(fresh.labels.len()).expect("labels are part of the body"),
            samples_end: u32::try_from(fresh.times.len()).expect("samples are part of the body"),
        });
        origins.fresh.push(origin);
    }

    /// Counts the labels of a version 2 series: a few bytes of references stand for symbols of any length. In version 1 they
    /// are part of the body, which is bounded.
    fn take_text_of(&mut self, names: &[u8]) -> Result<(), Malformed> {
        let Names::V2 { .. } = self.names else {
            return Ok(());
        };
        let labels = self.names.labels(names).flatten();
        self.take_text(labels.map(|(name, value)| name.len() + value.len()).sum())
    }

    fn take_text(&mut self, bytes: usize) -> Result<(), Malformed> {
        let max = self.rules.text_bytes_max;
        self.out.text_bytes = self.out.text_bytes.saturating_add(bytes);
        if self.out.text_bytes > max {
            return Err(Malformed::TooMuchText { max });
        }
        Ok(())
    }

    /// A series whose name bytes are not one run: gather them, then go on as with any other.
    #[cold]
    fn take_scattered<S: Series>(&mut self, series: &S, at: u32) -> Result<(), Malformed> {
        let mut gathered = std::mem::take(&mut self.scratch.gathered);
        let taken = series.gather(&mut gathered).and_then(|()| {
            let hash = self.hash(&gathered)?;
            let mut target = [None];
            self.aliases
                .resolve(&mut Cursor::default(), &[hash], &mut target);
            self.take(series, at, hash, target[0], Some(&gathered))
        });
        self.scratch.gathered = gathered;
        taken
    }

    #[cold]
    fn refuse_time(&mut self, names: &[u8], at: u32, time: i64, count: u64) {
        let mut labels = self.names.labels(names).flatten();
        let name = labels.find(|(name, _)| *name == model::METRIC_NAME.as_bytes());
        let name = String::from_utf8_lossy(name.map(|(_, value)| value).unwrap_or_default());
        let invalid = self.rules.times.refuse(time, &name);
        self.out.refuse(at, invalid, count);
    }

    fn take_rest(&mut self, rest: &Rest, names: &[u8]) -> Result<(), Malformed> {
        if let (Some(raw), Names::V2 { body, table }) = (&rest.metadata, self.names)
            && let Some(metadata) = table.metadata(body, names, raw, &mut self.scratch.told)?
        {
            // It is remembered as told, also where it is refused.
            self.take_text(TOLD_BYTES)?;
            self.take_metadata(&metadata)?;
        }
        Ok(())
    }

    fn take_metadata(&mut self, raw: &RawMetadata<'_>) -> Result<(), Malformed> {
        self.out.metadata_in += 1;
        if raw.metric.is_empty() && !self.rules.limits.enforce_metadata_metric_name {
            return Ok(());
        }
        match check_metadata(raw, self.rules.limits.max_metadata_length) {
            Ok(metadata) => {
                let text = raw.metric.len() + raw.help.len() + raw.unit.len();
                self.take_text(text + METADATA_BYTES)?;
                self.out.metadata.push(metadata);
            }
            Err((reason, text)) => {
                count_reason(&mut self.out.metadata_refused, reason);
                self.out.metadata_error.get_or_insert(text);
            }
        }
        Ok(())
    }
}
