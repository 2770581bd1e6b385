//! Runs scripts: fills the store, evaluates every case, and says what came of it.
//!
//! An instant query is repeated as a range query around the same time, whose middle step must give the same. Range queries are evaluated in
//! shards too, which must change nothing.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use model::QueryValue;
use promql::{Budget, Evaluated, Executor, Params, Shard, Shards};
use regex::Regex;

use crate::compare;
use crate::memory::Memory;
use crate::notation::Result;
use crate::script::{Block, Case, Command};

/// What came of a case.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) line: usize,
    pub(crate) expr: String,
    pub(crate) tags: Vec<&'static str>,
    /// The result is right; or what is wrong.
    pub(crate) result: Result<()>,
    /// Warnings, infos and the error's text are right; or what is wrong.
    pub(crate) notes: Result<()>,
}

/// These look at the query's own start, end or step, which differ when it is repeated as a range query.
static OF_THE_QUERY: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(start|end|range|step)\(\)").expect("the pattern is valid"));

/// Runs a block on an empty store.
pub(crate) fn block(block: &Block) -> Vec<Outcome> {
    let mut memory = Memory::default();
    let mut outcomes = Vec::new();
    for command in &block.commands {
        match command {
            Command::Load(load) => memory.load(load),
            Command::Eval(case) => outcomes.push(run(case, &memory)),
        }
    }
    outcomes
}

fn run(case: &Case, memory: &Memory) -> Outcome {
    let (result, notes) = if case.range {
        let params = Params::range(case.start, case.end, case.step);
        judge(case, query(&case.expr, &params, memory), |value| {
            compare::matrix(case, value)
        })
    } else {
        let time = case.end;
        let got = query(&case.expr, &Params::instant(time), memory);
        judge(case, got, |value| {
            compare::instant(case, value, time)?;
            as_range(case, value, time, memory)
        })
    };
    Outcome {
        line: case.line,
        expr: case.expr.clone(),
        tags: case.tags.clone(),
        result,
        notes,
    }
}

fn judge(
    case: &Case,
    got: Result<Evaluated>,
    compare: impl Fn(&QueryValue) -> Result<()>,
) -> (Result<()>, Result<()>) {
    let expect = &case.expect;
    match got {
        Err(error) if expect.fail => (Ok(()), compare::failure(&error, &expect.fail_texts)),
        Err(error) => (Err(error), Ok(())),
        Ok(evaluated) if expect.fail => {
            let text = format!("expected a failure, got {:?}", evaluated.value);
            (Err(text), Ok(()))
        }
        Ok(evaluated) => {
            let warn = (expect.warn, expect.no_warn, &expect.warn_texts);
            let info = (expect.info, expect.no_info, &expect.info_texts);
            let notes = compare::notes("warning", &evaluated.warnings, warn.0, warn.1, warn.2).and(
                compare::notes("info", &evaluated.infos, info.0, info.1, info.2),
            );
            (compare(&evaluated.value), notes)
        }
    }
}

/// The same query over a minute before and after.
fn as_range(case: &Case, value: &QueryValue, time: i64, memory: &Memory) -> Result<()> {
    let no_vector = matches!(value, QueryValue::String { .. } | QueryValue::Matrix(_));
    if no_vector || OF_THE_QUERY.is_match(&case.expr) {
        return Ok(());
    }
    let params = Params::range(time - 60_000, time + 60_000, 60_000);
    query(&case.expr, &params, memory)
        .and_then(|got| compare::step_of_range(case, &got.value, time))
        .map_err(|e| format!("as a range query: {e}"))
}

/// Runs pieces from the last to the first, so that an order which results must not depend on is not the usual one.
struct Backwards;

impl Executor for Backwards {
    fn width(&self) -> usize {
        3
    }

    fn run(&self, count: usize, piece: &(dyn Fn(usize) + Sync)) {
        (0..count).rev().for_each(piece);
    }

    fn run_shards(&self, count: usize, shard: &Shard<'_>) {
        (0..count).rev().for_each(|n| shard(n, self));
    }
}

/// Queries that were evaluated in shards.
pub(crate) static DIVIDED: AtomicUsize = AtomicUsize::new(0);

fn query(text: &str, params: &Params, memory: &Memory) -> Result<Evaluated> {
    let expr = promql::parse(text).map_err(|e| e.to_string())?;
    let plan = promql::plan(&expr, params)
        .map_err(|e| e.to_string())?
        .with_text(text);
    let source = memory.fetch(&plan);
    let canceled = AtomicBool::new(false);
    let evaluate = |count: usize| {
        let cells_min = 0;
        let budget = Budget {
            shards: Shards { count, cells_min },
            ..Budget::new(50_000_000, &|| false, &canceled)
        };
        promql::evaluate(&plan, &source, &Backwards, &budget).map_err(|e| e.to_string())
    };
    let whole = evaluate(1);
    if params.is_instant() {
        return whole;
    }
    for count in [2, 7] {
        let in_shards = evaluate(count);
        let divided = in_shards.as_ref().is_ok_and(|found| found.shards > 1);
        DIVIDED.fetch_add(usize::from(divided), Ordering::Relaxed);
        if shown(&in_shards) != shown(&whole) {
            let (in_shards, whole) = (shown(&in_shards), shown(&whole));
            return Err(format!("{count} shards: {in_shards}\nin one: {whole}"));
        }
    }
    whole
}

/// All that may not differ. Numbers are printed in as many digits as it takes to tell them apart.
fn shown(found: &Result<Evaluated>) -> String {
    match found {
        Ok(found) => format!(
            "{:?} {:?} {:?} {}",
            found.value, found.warnings, found.infos, found.stats.total_samples
        ),
        Err(error) => error.clone(),
    }
}
