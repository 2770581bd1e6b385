//! What a query will do, and, when it is run for that, what it really cost.
//!
//! The plan as a tree with the text of every node; for every selector what the head index expects (the rarest label that a matcher asks
//! for bounds its series), and with `analyze` what was fetched, decoded and computed, and how long it took.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use promql::{Explained, NodeCost, SelectorCost, ShardLabels};
use tokio::time::Instant;

use crate::engine::{Caller, Engine, Query, Size, Turn};
use crate::error::Error;
use crate::fanout;
use crate::judge::Asking;

/// A query explained.
#[derive(Debug)]
pub struct Explanation {
    /// The tree, with texts and costs.
    pub root: Node,
    /// Steps it is evaluated at.
    pub steps: usize,
    /// What is fetched for it.
    pub selectors: Vec<SelectorReport>,
    /// Whether its series are divided.
    pub sharding: Sharding,
    /// Parsing and planning.
    pub planning: Duration,
    /// What running it took; only when analyzed.
    pub run: Option<Run>,
}

/// Whether the series of a query are divided into shards, by which labels, and why not.
#[derive(Debug)]
pub struct Sharding {
    /// At most so many; 1 where it is evaluated in one.
    pub shards: u64,
    /// What they are divided by, where they can be.
    pub labels: Option<ShardLabels>,
    /// Why it is evaluated in one.
    pub reason: Option<String>,
    /// The text that this is about, where it is about a part of the query.
    pub text: Option<String>,
}

/// A node of the plan.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub explained: Explained,
    /// Its text in the query; cut where long.
    pub text: String,
    /// What it cost; `None` where not analyzed, or part of the node above it.
    pub cost: Option<NodeCost>,
    /// What it is made from.
    pub children: Vec<Node>,
}

/// A selector of the plan.
#[derive(Debug, Clone)]
pub struct SelectorReport {
    /// As it could be written.
    pub matchers: String,
    /// First time that is fetched, milliseconds, inclusive.
    pub min_time: i64,
    /// Last time.
    pub max_time: i64,
    /// At most this many series match, by the index; over all cores.
    pub estimated_series: u64,
    /// Label values that must be tested against regular expressions.
    pub scanned_values: u64,
    /// All series of the tenant.
    pub tenant_series: u64,
    /// Fetched together with an earlier selector that asks for the same.
    pub shared_with: Option<usize>,
    /// What was fetched, when analyzed.
    pub fetched: Option<Size>,
    /// What decoding cost, when analyzed.
    pub decoded: Option<SelectorCost>,
}

/// The whole of an analyzed query.
#[derive(Debug, Clone, Copy, Default)]
pub struct Run {
    /// Waiting for its turn.
    pub waited: Duration,
    /// From the cores.
    pub fetching: Duration,
    /// Decoding and computing.
    pub evaluating: Duration,
    /// Samples.
    pub stats: promql::Stats,
    /// Bytes held at most, estimated.
    pub memory_bytes: u64,
    /// Series of the result.
    pub result_series: u64,
    /// Shards that were evaluated.
    pub shards: u64,
}

/// Longer texts of nodes are cut.
const TEXT_SHOWN: usize = 200;

impl Engine {
    /// Plans a query and tells what it would do; with `analyze` does it, and tells what that cost.
    pub async fn explain(
        &self,
        caller: &Caller,
        mut query: Query,
        analyze: bool,
    ) -> Result<Explanation, Error> {
        let text = query.text.clone();
        self.is_moved_out(caller, &mut query.times);
        // What may not be asked may not be explained either: with `analyze` it would be evaluated.
        let asking = Asking {
            operation: "explain",
            ..Asking::query(&text, &query)
        };
        self.bounded(asking, caller, async |turn: &Turn| {
            let begun = Instant::now();
            let plan = self.plan(caller, &query, turn).await?;
            let planning = begun.elapsed();
            let mut explanation = Explanation {
                root: node(plan.explain(), &query.text),
                steps: plan.steps().count,
                selectors: self.reports(caller, &plan, turn).await?,
                sharding: self.sharding(caller, &plan, &query.text),
                planning,
                run: None,
            };
            if analyze {
                self.analyze(caller, plan, turn, &mut explanation).await?;
            }
            Ok(explanation)
        })
        .await
    }

    fn sharding(&self, caller: &Caller, plan: &promql::Plan, text: &str) -> Sharding {
        let whole = |labels, reason: &str| Sharding {
            shards: 1,
            labels,
            reason: Some(reason.to_owned()),
            text: None,
        };
        let shards = caller.limits.query_vertical_shard_size;
        match plan.shard_labels() {
            Err(why) => {
                let of = text.get(why.span.start as usize..why.span.end as usize);
                Sharding {
                    text: of.map(cut),
                    ..whole(None, &why.reason)
                }
            }
            Ok(labels) if shards < 2 => {
                whole(Some(labels), "limits.query_vertical_shard_size is below 2")
            }
            Ok(labels) if self.width() < 2 => {
                whole(Some(labels), "there is one worker for queries")
            }
            Ok(labels) => Sharding {
                shards,
                labels: Some(labels),
                reason: None,
                text: None,
            },
        }
    }

    /// What the index expects of every selector.
    async fn reports(
        &self,
        caller: &Caller,
        plan: &promql::Plan,
        turn: &Turn,
    ) -> Result<Vec<SelectorReport>, Error> {
        let floor = self.floor(caller);
        let mut reports: Vec<SelectorReport> = Vec::new();
        for selector in plan.selectors() {
            let cores = fanout::estimate(self.holders(), caller, &selector.matchers);
            let cores = cores.all(turn).await?;
            let sum = |part: fn(&shard::Estimate) -> u64| cores.iter().map(part).sum();
            let texts: Vec<String> = selector
                .matchers
                .iter()
                .map(|m| {
                    let value = promql::expr::quoted(m.value());
                    format!("{}{}{value}", m.name(), m.op().symbol())
                })
                .collect();
            reports.push(SelectorReport {
                matchers: cut(&format!("{{{}}}", texts.join(","))),
                min_time: selector.min_time.max(floor),
                max_time: selector.max_time,
                estimated_series: sum(|core| core.candidates),
                scanned_values: sum(|core| core.scanned_values),
                tenant_series: sum(|core| core.series),
                shared_with: None,
                fetched: None,
                decoded: None,
            });
        }
        Ok(reports)
    }

    async fn analyze(
        &self,
        caller: &Caller,
        plan: promql::Plan,
        turn: &Turn,
        explanation: &mut Explanation,
    ) -> Result<(), Error> {
        let begun = Instant::now();
        let catch = self.fetch(caller, &plan, turn).await?;
        let fetching = begun.elapsed();
        for (at, report) in explanation.selectors.iter_mut().enumerate() {
            let list = catch.of_selector[at];
            report.fetched = Some(catch.sizes[list]);
            let first = catch.of_selector.iter().position(|of| *of == list);
            report.shared_with = first.filter(|first| *first < at);
        }
        let measured: Arc<Mutex<Option<Measured>>> = Arc::default();
        let put = measured.clone();
        let spans = spans(&explanation.root);
        let show = move |plan: &promql::Plan,
                         profile: &promql::Profile<'_>,
                         evaluated: &promql::Evaluated| {
            let selectors = 0..plan.selectors().len();
            let measured = Measured {
                nodes: spans.iter().map(|span| profile.node(*span)).collect(),
                selectors: selectors.map(|at| profile.selector(at)).collect(),
                stats: evaluated.stats,
                result_series: series_of(&evaluated.value),
                shards: evaluated.shards as u64,
            };
            *put.lock().unwrap_or_else(PoisonError::into_inner) = Some(measured);
        };
        let begun = Instant::now();
        let answers = (catch.answers, catch.of_selector);
        self.measure(caller, plan, answers, turn, show).await?;
        let evaluating = begun.elapsed();
        let measured = measured
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let measured = measured.unwrap_or_default();
        put_costs(&mut explanation.root, &mut measured.nodes.into_iter());
        for (report, cost) in explanation.selectors.iter_mut().zip(measured.selectors) {
            report.decoded = Some(cost);
        }
        explanation.run = Some(Run {
            waited: turn.waited,
            fetching,
            evaluating,
            stats: measured.stats,
            memory_bytes: turn.account.held(),
            result_series: measured.result_series,
            shards: measured.shards,
        });
        let sharding = &mut explanation.sharding;
        if sharding.reason.is_none() && measured.shards < 2 {
            let few = "there are too few series and steps, or all series are of one shard";
            sharding.reason = Some(few.to_owned());
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Measured {
    /// In the order of [`spans`].
    nodes: Vec<Option<NodeCost>>,
    selectors: Vec<SelectorCost>,
    stats: promql::Stats,
    result_series: u64,
    shards: u64,
}

fn series_of(value: &model::QueryValue) -> u64 {
    match value {
        model::QueryValue::Vector(samples) => samples.len() as u64,
        model::QueryValue::Matrix(series) => series.len() as u64,
        _ => 1,
    }
}

fn node(mut explained: Explained, text: &str) -> Node {
    let children = std::mem::take(&mut explained.children);
    let span = explained.span;
    let of = text.get(span.start as usize..span.end as usize);
    Node {
        text: cut(of.unwrap_or_default()),
        explained,
        cost: None,
        children: children
            .into_iter()
            .map(|child| node(child, text))
            .collect(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Places of all nodes, parents first.
fn spans(root: &Node) -> Vec<promql::expr::Span> {
    let mut all = vec![root.explained.span];
    all.extend(root.children.iter().flat_map(spans));
    all
}

/// The opposite of [`spans`].
fn put_costs(root: &mut Node, costs: &mut impl Iterator<Item = Option<NodeCost>>) {
    root.cost = costs.next().flatten();
    for child in &mut root.children {
        put_costs(child, costs);
    }
}
