//! Reads: matchers to series to chunk bytes, in slices between commits.
//!
//! A read resolves its matchers (`index::resolve`), which ends in its *snapshot*: the candidates as of one moment. It then
//! visits them, a slice at a time, while commits go on. So that it still sees each push whole or not at all, a commit that is
//! about to change a candidate which the read has yet to visit notes the newest sample that the read may see
//! ([`Reads::before_change`], `seen.rs`): samples come behind it, but for late ones, before which the read visits the series at once ([`Reads::before_late`]). Series created after the snapshot are no candidates.
//!
//! Old data may leave during a read; it is then simply gone. Numbers of series that died are not given out again while a read
//! that began before is still active ([`Reads::oldest`]).
//!
//! Several reads take turns, so that a small one does not wait for a large one. A read whose asker has gone ends at its next
//! slice. Label queries have no snapshot: a label that appears or leaves meanwhile may or may not be in the answer.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;

use model::{Ack, Exemplar, Lsn, TenantId};
use reactor::Tick;

use crate::index::project::Projector;
use crate::index::resolve::{Candidates, Resolution, estimate};
use crate::index::{Index, NameId, PairId};
use crate::limits::{GATHERS_MAX, READ_SLICE_SERIES, SCAN_SLICE_VALUES};
use crate::memtable::Memtable;
use crate::message::{
    Cardinality, CardinalityQuery, Estimate, EstimateQuery, LabelQuery, NameCardinality, ReadError,
    Select, SelectedSeries,
};
use crate::release::Deliver;
use crate::seen::{Newest, SeenTable};

/// The reads of one core.
#[derive(Default)]
pub(crate) struct Reads {
    active: VecDeque<Read>,
    waiting: VecDeque<(Ask, Tick)>,
    /// Number of the read that begins next.
    next: u64,
    /// Reads answered.
    pub(crate) answered: u64,
}

/// What was asked for.
pub(crate) enum Ask {
    Select(Select),
    Labels(LabelQuery),
    Cardinality(CardinalityQuery),
    Estimate(EstimateQuery),
}

/// A finished read, to be released by the log.
pub(crate) struct Answer {
    pub(crate) ack: Ack,
    /// The position that it shows.
    pub(crate) tail: Lsn,
    /// When the question came.
    pub(crate) begun: Tick,
    pub(crate) deliver: Deliver,
}

/// From which time on the samples of a series must not be seen; empty unless the core is poisoned.
pub(crate) type Hidden = HashMap<u32, i64>;

struct Read {
    number: u64,
    slot: u32,
    stage: Stage,
    ask: Ask,
    begun: Tick,
    /// Result of a selection.
    series: Vec<SelectedSeries>,
    projector: Projector,
    sums: Sums,
    /// Result of a label query: each text once.
    texts: Vec<String>,
    /// Which pairs are among the texts.
    pairs: Bits,
    /// Which names are.
    names: HashSet<NameId>,
    counted: Option<Cardinality>,
    estimated: Estimate,
    sweeps: u64,
    /// Series that it has visited before their turn.
    early: HashSet<u32>,
    /// There was no memory for what has to be noted while it goes on, or it has found too much.
    failed: Option<ReadError>,
}

/// How much a selection has found; exemplars count as bytes of chunks.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    chunks: u64,
    chunk_bytes: u64,
    /// Labels and chunks.
    data_bytes: u64,
}

/// A set of small numbers that never has to move its members about, however many there are.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// True when the number was not there.
    fn insert(&mut self, number: u32, end: usize) -> bool {
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(end.div_ceil(64).max(word + 1), 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }
}

/// Bytes of a series in a result beside its labels and chunks, and of a chunk beside its bytes: vectors, identity, times, pointers.
const SERIES_BYTES: u64 = 128;
const CHUNK_BYTES: u64 = 48;

enum Stage {
    Resolve(Option<Resolution>),
    Visit {
        candidates: Candidates,
        next: usize,
        /// Of series that a commit has changed since the snapshot: by number, or by place among the candidates.
        seen: SeenTable,
        /// Whether it is by number.
        dense: bool,
    },
    /// The values of a label, each looked at until one series in the range is found.
    Values {
        values: Vec<PairId>,
        next: usize,
        /// Series of the next value below this number have been looked at.
        from: u32,
    },
    /// All names, their values, the series of each; then the chunks of all series.
    Count {
        names: Vec<NameId>,
        /// Place in `names`, and in the values of that name.
        at: (usize, usize),
        /// Chunks of series below this number have been counted; `None` when all have, or need not be.
        series: Option<u32>,
    },
    /// Answered as soon as it begins.
    Estimate,
}

impl Reads {
    /// Takes a read in.
    pub(crate) fn push(&mut self, ask: Ask, now: Tick) {
        self.waiting.push_back((ask, now));
    }

    /// Whether there is something to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_empty() && self.waiting.is_empty()
    }

    /// Whether a read of this tenant has yet to visit series.
    #[inline]
    pub(crate) fn watch(&self, slot: u32) -> bool {
        self.active.iter().any(|read| {
            read.slot == slot && read.wants_chunks() && matches!(read.stage, Stage::Visit { .. })
        })
    }

    /// A series of a watched tenant is about to change: reads that have yet to visit it do so now.
    #[cold]
    pub(crate) fn before_change(&mut self, memtable: &Memtable, series: u32) {
        for read in &mut self.active {
            if read.slot != memtable.rows[series].tenant || !read.wants_chunks() {
                continue;
            }
            let Stage::Visit {
                candidates,
                next,
                seen,
                dense,
            } = &mut read.stage
            else {
                continue;
            };
            let rest = &candidates.series[*next..];
            let within = rest.first().is_some_and(|&first| first <= series)
                && rest.last().is_some_and(|&last| last >= series);
            let key = match (within, *dense) {
                (false, _) => None,
                // It is cheaper to note the few that are no candidates than to look whether they are.
                (true, true) => Some(series),
                (true, false) => {
                    let place = rest.binary_search(&series).ok();
                    place.map(|place| (*next + place) as u32)
                }
            };
            if let Some(key) = key {
                let bytes = seen.note(key, || memtable.newest(series));
                if bytes > 0
                    && let Err(error) = read.ask.hold(bytes)
                {
                    read.failed = Some(error);
                }
            }
        }
    }

    /// A late sample is about to come to a series of a watched tenant: reads that have yet to visit it do so now, for a note of the newest sample
    /// would not tell it from those that were there.
    #[cold]
    pub(crate) fn before_late(&mut self, memtable: &Memtable, series: u32) {
        for read in &mut self.active {
            if read.slot == memtable.rows[series].tenant
                && read.failed.is_none()
                && let Err(error) = read.visit_early(memtable, series)
            {
                read.failed = Some(error);
            }
        }
    }

    /// The number of the oldest read that is active; all later numbers where there is none.
    pub(crate) fn oldest(&self) -> u64 {
        self.active
            .iter()
            .map(|read| read.number)
            .min()
            .unwrap_or(self.next)
    }

    /// Number of the read that begins next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes the number of a read, for what holds candidates as one does.
    pub(crate) fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Does a slice of the read whose turn it is; returns its answer if that was the last.
    pub(crate) fn slice(&mut self, memtable: &mut Memtable, hidden: &Hidden) -> Option<Answer> {
        while self.active.len() < GATHERS_MAX
            && let Some((ask, begun)) = self.waiting.pop_front()
        {
            self.next += 1;
            let number = self.next - 1;
            match Read::begin(number, ask, begun, memtable, hidden) {
                Ok(read) => self.active.push_back(read),
                Err(ask) => {
                    // A tenant of which this core holds nothing.
                    self.answered += 1;
                    let empty = Read::new(number, u32::MAX, ask, begun);
                    let deliver = empty.deliver();
                    return Some(Answer {
                        ack: Ack::Durable,
                        tail: Lsn(0),
                        begun,
                        deliver,
                    });
                }
            }
        }
        let mut read = self.active.pop_front()?;
        let begun = read.begun;
        match read.slice(memtable, hidden) {
            Ok(false) => {
                self.active.push_back(read);
                None
            }
            Ok(true) => {
                self.answered += 1;
                let tenant = memtable.tenants[read.slot as usize].as_ref();
                let (ack, tail) = tenant.map_or((Ack::Durable, Lsn(0)), |t| (t.ack, t.tail));
                Some(Answer {
                    ack,
                    tail,
                    begun,
                    deliver: read.deliver(),
                })
            }
            Err(error) => {
                self.answered += 1;
                Some(Answer {
                    ack: Ack::Durable,
                    tail: Lsn(0),
                    begun,
                    deliver: read.ask.fail(error),
                })
            }
        }
    }

    /// Ends every read with an error; the deliveries need not wait for the log.
    pub(crate) fn abort(&mut self, error: &ReadError) -> Vec<Deliver> {
        let active = self.active.drain(..).map(|read| read.ask);
        let asks: Vec<Ask> = active
            .chain(self.waiting.drain(..).map(|(ask, _)| ask))
            .collect();
        asks.into_iter()
            .map(|ask| ask.fail(error.clone()))
            .collect()
    }
}

impl Ask {
    fn tenant(&self) -> &TenantId {
        match self {
            Ask::Select(select) => &select.tenant,
            Ask::Labels(query) => &query.tenant,
            Ask::Cardinality(query) => &query.tenant,
            Ask::Estimate(query) => &query.tenant,
        }
    }

    fn range(&self) -> (i64, i64) {
        match self {
            Ask::Select(select) => (select.min_time, select.max_time),
            Ask::Labels(query) => (query.min_time, query.max_time),
            Ask::Cardinality(_) | Ask::Estimate(_) => (i64::MIN, i64::MAX),
        }
    }

    fn is_canceled(&self) -> bool {
        let flag = match self {
            Ask::Select(select) => &select.canceled,
            Ask::Labels(query) => &query.canceled,
            Ask::Cardinality(query) => &query.canceled,
            Ask::Estimate(_) => return false,
        };
        flag.load(Ordering::Relaxed)
    }

    fn fail(self, error: ReadError) -> Deliver {
        match self {
            Ask::Select(select) => Box::new(move |_| (select.reply)(Err(error))),
            Ask::Labels(query) => Box::new(move |_| (query.reply)(Err(error))),
            Ask::Cardinality(query) => Box::new(move |_| (query.reply)(Err(error))),
            Ask::Estimate(query) => Box::new(move |_| (query.reply)(Err(error))),
        }
    }

    /// Takes memory for what the last slice found.
    fn hold(&self, bytes: u64) -> Result<(), ReadError> {
        let held = match self {
            Ask::Select(select) => (select.hold)(bytes),
            Ask::Labels(query) => (query.hold)(bytes),
            Ask::Cardinality(query) => (query.hold)(bytes),
            Ask::Estimate(_) => true,
        };
        held.then_some(()).ok_or(ReadError::NoMemory)
    }
}

impl Read {
    fn new(number: u64, slot: u32, ask: Ask, begun: Tick) -> Read {
        Read {
            number,
            slot,
            stage: Stage::Resolve(None),
            ask,
            begun,
            series: Vec::new(),
            projector: Projector::default(),
            sums: Sums::default(),
            texts: Vec::new(),
            pairs: Bits::default(),
            names: HashSet::new(),
            counted: None,
            estimated: Estimate::default(),
            sweeps: 0,
            early: HashSet::new(),
            failed: None,
        }
    }

    /// Begins a read; gives the question back where the tenant is not known here.
    #[expect(
        clippy::result_large_err,
        reason = "the question moves on at once, and boxing it would cost every read"
    )]
    fn begin(
        number: u64,
        ask: Ask,
        begun: Tick,
        memtable: &Memtable,
        hidden: &Hidden,
    ) -> Result<Read, Ask> {
        let Some(slot) = memtable.find_tenant(ask.tenant()) else {
            return Err(ask);
        };
        let mut read = Read::new(number, slot, ask, begun);
        read.restart(memtable, hidden);
        Ok(read)
    }

    fn restart(&mut self, memtable: &Memtable, hidden: &Hidden) {
        let tenant = memtable.tenant(self.slot);
        let index = &tenant.index;
        self.sweeps = index.sweeps();
        (self.pairs, self.names, self.texts) = (Bits::default(), HashSet::new(), Vec::new());
        self.stage = match &self.ask {
            Ask::Cardinality(query) => {
                let names = match query.names.is_empty() {
                    true => index.names().map(|(id, _)| id).collect(),
                    false => query
                        .names
                        .iter()
                        .filter_map(|name| index.find_name(name))
                        .collect(),
                };
                self.counted = Some(Cardinality {
                    series: tenant.series,
                    chunks: 0,
                    min_time: tenant.oldest,
                    max_time: tenant.newest,
                    names: Vec::new(),
                });
                Stage::Count {
                    names,
                    at: (0, 0),
                    series: query.names.is_empty().then_some(0),
                }
            }
            Ask::Estimate(_) => Stage::Estimate,
            Ask::Labels(query) if query.matchers.is_empty() && query.name.is_some() => {
                let name = query.name.as_deref().and_then(|name| index.find_name(name));
                let values = name.map_or(Vec::new(), |name| {
                    index.values(name).iter().copied().collect()
                });
                Stage::Values {
                    values,
                    next: 0,
                    from: 0,
                }
            }
            Ask::Labels(query)
                if query.matchers.is_empty()
                    && hidden.is_empty()
                    && !index.has_dead()
                    && query.min_time <= tenant.oldest
                    && query.max_time >= tenant.newest =>
            {
                self.texts = index.names().map(|(_, name)| name.to_owned()).collect();
                Stage::Values {
                    values: Vec::new(),
                    next: 0,
                    from: 0,
                }
            }
            Ask::Labels(LabelQuery { matchers, .. }) | Ask::Select(Select { matchers, .. }) => {
                let resolution = Resolution::new(index, &memtable.secret, matchers.clone());
                Stage::Resolve(Some(resolution))
            }
        };
    }

    fn wants_starts(&self) -> bool {
        matches!(&self.ask, Ask::Select(select) if select.with_starts)
    }

    fn wants_exemplars(&self) -> bool {
        matches!(&self.ask, Ask::Select(select) if select.with_exemplars)
    }

    fn wants_chunks(&self) -> bool {
        matches!(&self.ask, Ask::Select(select) if select.with_chunks)
    }

    /// Visits a candidate before its turn.
    fn visit_early(&mut self, memtable: &Memtable, series: u32) -> Result<(), ReadError> {
        let (true, Ask::Select(select)) = (self.wants_chunks(), &self.ask) else {
            return Ok(());
        };
        let Stage::Visit {
            candidates,
            next,
            seen,
            dense,
        } = &mut self.stage
        else {
            return Ok(());
        };
        let Ok(place) = candidates.series[*next..].binary_search(&series) else {
            return Ok(());
        };
        if !self.early.insert(series) {
            return Ok(());
        }
        let at = (*next + place) as u32;
        let newest = seen.of(if *dense { series } else { at });
        let projector = &mut self.projector;
        let visited = visit(memtable, candidates, projector, select, series, newest);
        let Some(visited) = visited else {
            return Ok(());
        };
        let bytes = self.sums.add(&visited);
        self.series.push(visited);
        check_limits(select, self.series.len(), self.sums)?;
        self.ask.hold(bytes)
    }

    /// True when the read is complete.
    fn slice(&mut self, memtable: &mut Memtable, hidden: &Hidden) -> Result<bool, ReadError> {
        if self.ask.is_canceled() {
            return Err(ReadError::Canceled);
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        if memtable.find_tenant(self.ask.tenant()) != Some(self.slot) {
            return Ok(true); // Its last series has left.
        }
        let tenant = memtable.tenant(self.slot);
        if self.wants_exemplars() && tenant.exemplars.is_empty()
            || self.wants_starts() && tenant.starts.is_empty()
        {
            return Ok(true);
        }
        let (min, max) = self.ask.range();
        let seen_until = |series: &u32| hidden.get(series).copied().unwrap_or(i64::MAX);
        match &mut self.stage {
            Stage::Resolve(resolution) => {
                let secret = &memtable.secret;
                let tenant = memtable.tenants[self.slot as usize]
                    .as_mut()
                    .expect("found above");
                let mut ready = resolution.take().expect("taken only when done");
                if !ready.step(&tenant.index, SCAN_SLICE_VALUES) {
                    *resolution = Some(ready);
                    return Ok(false);
                }
                let candidates = ready.finish(&mut tenant.index, secret);
                if let Ask::Select(select) = &self.ask {
                    self.projector = Projector::new(&tenant.index, &select.projection);
                }
                self.stage = Stage::Visit {
                    dense: is_dense(&candidates.series),
                    candidates,
                    next: 0,
                    seen: SeenTable::default(),
                };
                Ok(false)
            }
            Stage::Visit {
                candidates,
                next,
                seen,
                dense,
            } => {
                let end = candidates.series.len().min(*next + READ_SLICE_SERIES);
                let mut fresh_bytes = 0;
                let sweeps = memtable.tenant(self.slot).index.sweeps();
                if let Ask::Labels(_) = &self.ask
                    && sweeps != self.sweeps
                {
                    self.restart(memtable, hidden); // The pairs collected so far may mean others now.
                    return Ok(false);
                }
                for at in *next..end {
                    let series = candidates.series[at];
                    match &self.ask {
                        Ask::Select(_)
                            if !self.early.is_empty() && self.early.contains(&series) => {}
                        Ask::Select(select) => {
                            let newest = match hidden.get(&series) {
                                Some(&until) if memtable.starts_before(series, until) => {
                                    Some(Newest {
                                        time: until - 1,
                                        value: None,
                                    })
                                }
                                Some(_) => continue,
                                None => seen.of(if *dense { series } else { at as u32 }),
                            };
                            let projector = &mut self.projector;
                            let visited =
                                visit(memtable, candidates, projector, select, series, newest);
                            let Some(visited) = visited else { continue };
                            fresh_bytes += self.sums.add(&visited);
                            self.series.push(visited);
                            check_limits(select, self.series.len(), self.sums)?;
                        }
                        Ask::Cardinality(_) | Ask::Estimate(_) => {
                            unreachable!("they visit no series")
                        }
                        Ask::Labels(query) => {
                            if !memtable.is_live(series)
                                || memtable.first_time(series) >= seen_until(&series)
                                || !memtable.overlaps(series, min, max)
                            {
                                continue;
                            }
                            let pairs = &memtable.colds[series].pairs;
                            let index = &memtable.tenant(self.slot).index;
                            if !candidates.passes(index, pairs) {
                                continue;
                            }
                            match query.name.as_deref() {
                                None => {
                                    for name in pairs.iter().map(|&pair| index.name_of(pair)) {
                                        if self.names.insert(name) {
                                            self.texts.push(index.name(name).to_owned());
                                        }
                                    }
                                }
                                Some(name) => {
                                    let name = index.find_name(name);
                                    let pair = name.and_then(|name| index.value_of(pairs, name).0);
                                    if let Some(pair) = pair
                                        && self.pairs.insert(pair, index.pairs_end())
                                    {
                                        fresh_bytes += put_text(&mut self.texts, index.value(pair));
                                    }
                                }
                            }
                        }
                    }
                }
                *next = end;
                let done = end == candidates.series.len();
                self.ask.hold(fresh_bytes)?;
                Ok(done)
            }
            Stage::Values { values, next, from } => {
                if self.sweeps != memtable.tenant(self.slot).index.sweeps() {
                    self.restart(memtable, hidden);
                    return Ok(false);
                }
                let mut budget = READ_SLICE_SERIES * 4;
                let mut fresh_bytes = 0;
                while *next < values.len() && budget > 0 {
                    let pair = values[*next];
                    // Ascending, so that the next slice finds its place again.
                    memtable.tenant_mut(self.slot).index.sorted_series_of(pair);
                    let postings = memtable.tenant(self.slot).index.series_of(pair);
                    let list = postings.piece_from(*from);
                    let some = &list[..list.len().min(budget)];
                    let found = some.iter().position(|series| {
                        memtable.is_live(*series)
                            && memtable.first_time(*series) < seen_until(series)
                            && memtable.overlaps(*series, min, max)
                    });
                    budget -= found.map_or(some.len(), |at| at + 1).max(1);
                    if let (None, Some(last)) = (found, some.last()) {
                        *from = last + 1;
                        continue;
                    }
                    if found.is_some() {
                        let value = memtable.tenant(self.slot).index.value(pair);
                        fresh_bytes += put_text(&mut self.texts, value);
                    }
                    (*next, *from) = (*next + 1, 0);
                }
                let done = *next == values.len();
                self.ask.hold(fresh_bytes)?;
                Ok(done)
            }
            Stage::Count { names, at, series } => {
                if self.sweeps != memtable.tenant(self.slot).index.sweeps() {
                    self.restart(memtable, hidden);
                    return Ok(false);
                }
                let counted = self.counted.as_mut().expect("made with the stage");
                let mut budget = SCAN_SLICE_VALUES;
                let fresh_bytes = {
                    let index = &memtable.tenant(self.slot).index;
                    count_values(index, names, at, counted, &mut budget)
                };
                if at.0 == names.len()
                    && budget > 0
                    && let Some(from) = *series
                {
                    // Series that come meanwhile may be missed; none is counted twice.
                    let all = memtable.tenant_mut(self.slot).index.sorted_all();
                    let piece = all.piece_from(from);
                    let some = piece[..piece.len().min(budget.div_ceil(4))].to_vec();
                    for &number in some.iter().filter(|&&number| memtable.is_live(number)) {
                        let late = memtable.late(number).map_or(0, |late| late.sealed().len());
                        counted.chunks += (memtable.colds[number].sealed.len() + late) as u64 + 1;
                    }
                    *series = some.last().map(|last| last + 1);
                }
                let done = at.0 == names.len() && series.is_none();
                self.ask.hold(fresh_bytes)?;
                Ok(done)
            }
            Stage::Estimate => {
                if let Ask::Estimate(query) = &self.ask {
                    let tenant = memtable.tenant(self.slot);
                    let matchers = &query.matchers;
                    let (candidates, scanned) = estimate(&tenant.index, &memtable.secret, matchers);
                    self.estimated = Estimate {
                        candidates: candidates as u64,
                        scanned_values: scanned as u64,
                        series: tenant.series,
                    };
                }
                Ok(true)
            }
        }
    }

    /// The answer, handed over when the log has caught up.
    fn deliver(self) -> Deliver {
        let Read {
            ask,
            series,
            texts,
            counted,
            estimated,
            ..
        } = self;
        match ask {
            Ask::Select(select) => {
                Box::new(move |released| (select.reply)(released.map(|()| series)))
            }
            Ask::Labels(query) => Box::new(move |released| (query.reply)(released.map(|()| texts))),
            Ask::Cardinality(query) => {
                let counted = counted.unwrap_or(Cardinality {
                    series: 0,
                    chunks: 0,
                    min_time: i64::MAX,
                    max_time: i64::MIN,
                    names: Vec::new(),
                });
                Box::new(move |released| (query.reply)(released.map(|()| counted)))
            }
            Ask::Estimate(query) => {
                Box::new(move |released| (query.reply)(released.map(|()| estimated)))
            }
        }
    }
}

impl Sums {
    /// Adds a series and returns the bytes that it holds.
    fn add(&mut self, series: &SelectedSeries) -> u64 {
        let chunks = series.chunks.len() as u64;
        let bytes = series.chunks.iter().map(|c| c.bytes.len() as u64);
        let bytes = bytes.sum::<u64>();
        let labels = series.labels.packed().len() as u64;
        let exemplar = |e: &Exemplar| (size_of::<Exemplar>() + e.labels.packed().len()) as u64;
        let starts = size_of_val(&series.starts[..]) as u64;
        let exemplars = series.exemplars.iter().map(exemplar).sum::<u64>() + starts;
        self.chunks += chunks;
        self.chunk_bytes += bytes + exemplars;
        self.data_bytes += bytes + exemplars + labels;
        bytes + exemplars + labels + SERIES_BYTES + chunks * CHUNK_BYTES
    }
}

/// Adds a text and returns the bytes that it holds.
fn put_text(texts: &mut Vec<String>, text: &str) -> u64 {
    texts.push(text.to_owned());
    (text.len() + size_of::<String>()) as u64
}

/// Counts the series of some values, at most `budget`; returns the bytes of what was added.
fn count_values(
    index: &Index,
    names: &[NameId],
    at: &mut (usize, usize),
    counted: &mut Cardinality,
    budget: &mut usize,
) -> u64 {
    let mut bytes = 0;
    while let Some(&name) = names.get(at.0)
        && *budget > 0
    {
        if at.1 == 0 {
            counted.names.push(NameCardinality {
                name: index.name(name).to_owned(),
                ..NameCardinality::default()
            });
        }
        let into = counted
            .names
            .last_mut()
            .expect("pushed with its first value");
        let values = index.values(name);
        let run = values.run(at.1 as u32);
        let some = &run[..run.len().min(*budget)];
        for &pair in some {
            // What has died stays in the lists until they are swept.
            let series = index.live_of(pair) as u32;
            if series == 0 {
                continue;
            }
            into.text.push_str(index.value(pair));
            into.values.push((into.text.len(), series));
            bytes += index.value(pair).len() as u64 + size_of::<(usize, u32)>() as u64;
        }
        *budget -= some.len();
        at.1 += some.len();
        if at.1 >= values.count() as usize {
            *at = (at.0 + 1, 0);
        }
    }
    bytes
}

/// Whether at least every second series from the first candidate to the last is one.
fn is_dense(candidates: &[u32]) -> bool {
    match candidates {
        [first, .., last] => candidates.len() * 2 > (last - first) as usize,
        _ => true,
    }
}

/// The part of a candidate that a selection asks for; `None` where it is not part of the result.
fn visit(
    memtable: &Memtable,
    candidates: &mut Candidates,
    projector: &mut Projector,
    select: &Select,
    series: u32,
    newest: Option<Newest>,
) -> Option<SelectedSeries> {
    let (min, mut max) = (select.min_time, select.max_time);
    if !memtable.is_live(series) {
        return None;
    }
    let exemplars = match select.with_exemplars {
        true => {
            let exemplars = memtable
                .tenant(memtable.rows[series].tenant)
                .exemplars
                .of(series);
            let within = |e: &&Exemplar| (min..=max).contains(&e.time.0);
            exemplars.filter(within).cloned().collect()
        }
        false => Vec::new(),
    };
    let starts = match select.with_starts {
        true => {
            let tenant = memtable.tenant(memtable.rows[series].tenant);
            tenant.starts.of(series).to_vec()
        }
        false => Vec::new(),
    };
    if select.with_starts && starts.is_empty() {
        return None;
    }
    if let Some(newest) = newest {
        max = max.min(newest.time);
        if max < min {
            return None;
        }
    }
    // An exemplar may be in the range where no sample is.
    let is_part = match select.with_exemplars {
        true => !exemplars.is_empty(),
        false if select.with_moved => memtable.holds(series, min, max),
        false => memtable.overlaps(series, min, max),
    };
    if !is_part {
        return None;
    }
    let cold = &memtable.colds[series];
    let index = &memtable.tenant(memtable.rows[series].tenant).index;
    if !candidates.passes(index, &cold.pairs) {
        return None;
    }
    let mut chunks = match (select.with_chunks, select.newest) {
        (false, _) => Vec::new(),
        (true, true) => memtable.newest_slices(series, min, max, newest),
        (true, false) => memtable.slices(series, min, max),
    };
    if let Some(windows) = select.windows {
        // With which chunks others are joined depends on late ones ([`ChunkBytes::is_late`](crate::ChunkBytes::is_late)), wherever these lie.
        chunks.retain(|c| c.bytes.is_late() || windows.overlap(c.min_time.max(min), c.max_time));
    }
    if select.with_chunks && chunks.is_empty() {
        return None;
    }
    Some(SelectedSeries {
        id: cold.id,
        labels: projector.labels(index, &select.projection, &cold.pairs),
        chunks,
        exemplars,
        starts,
    })
}

fn check_limits(select: &Select, series: usize, sums: Sums) -> Result<(), ReadError> {
    let beyond = |limit: u64, found: u64| limit != 0 && found > limit;
    let series = series as u64;
    if beyond(select.series_max, series) {
        return Err(ReadError::TooManySeries {
            limit: select.series_max,
            found: series,
        });
    }
    if beyond(select.chunks_max, sums.chunks) {
        return Err(ReadError::TooManyChunks {
            limit: select.chunks_max,
            found: sums.chunks,
        });
    }
    if beyond(select.bytes_max, sums.chunk_bytes) {
        return Err(ReadError::TooManyBytes {
            limit: select.bytes_max,
            found: sums.chunk_bytes,
        });
    }
    if beyond(select.data_bytes_max, sums.data_bytes) {
        return Err(ReadError::TooMuchData {
            limit: select.data_bytes_max,
            found: sums.data_bytes,
        });
    }
    Ok(())
}
