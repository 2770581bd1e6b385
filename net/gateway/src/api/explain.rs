//! `explain`: the plan of a query with what the index expects, and with `analyze=true` what it really cost.

use http::Response;
use query::{Explanation, Node, Query, SelectorReport, ShardLabels, Sharding};
use wire::json::{put_string, put_time};

use super::Api;
use super::object::Object;
use crate::reply::{ApiError, Body};

impl Api<'_> {
    /// A range query where `start`, `end` or `step` is given, else an instant one.
    pub(super) async fn explain(&self) -> Result<Response<Body>, ApiError> {
        let form = &self.form;
        let given = |name| form.first(name).is_some_and(|text| !text.is_empty());
        let times = match ["start", "end", "step"].into_iter().any(given) {
            true => form.range()?,
            false => form.instant(self.caller.now_ms)?,
        };
        let analyze = match form.first("analyze").unwrap_or_default() {
            "" | "false" | "0" => false,
            "true" | "1" => true,
            other => {
                return Err(ApiError::bad_data(format!(
                    "invalid parameter \"analyze\": {other:?} is neither true nor false"
                )));
            }
        };
        let query = Query {
            text: form.first("query").unwrap_or_default().to_owned(),
            times,
            timeout: form.timeout()?,
            lookback: form.lookback()?,
            per_step: false,
            uncached: false,
            waited: std::time::Duration::ZERO,
        };
        let engine = &self.services.engine;
        let explained = engine.explain(&self.caller, query, analyze).await?;
        Ok(self.success(false, |out| put_explanation(out, &explained)))
    }
}

fn put_explanation(out: &mut Vec<u8>, explained: &Explanation) {
    let mut object = Object::open(out);
    object
        .number("steps", explained.steps as u64)
        .seconds("planningTime", explained.planning)
        .field("plan", |out| put_node(out, &explained.root))
        .list(
            "selectors",
            explained.selectors.iter().enumerate(),
            |out, (at, one)| {
                put_selector(out, at, one);
            },
        );
    object.field("sharding", |out| put_sharding(out, &explained.sharding));
    if let Some(run) = &explained.run {
        object.field("run", |out| {
            let mut object = Object::open(out);
            object
                .seconds("queueTime", run.waited)
                .seconds("fetchTime", run.fetching)
                .seconds("evaluationTime", run.evaluating)
                .number("totalQueryableSamples", run.stats.total_samples)
                .number("peakSamples", run.stats.peak_samples)
                .number("memoryBytes", run.memory_bytes)
                .number("resultSeries", run.result_series)
                .number("shards", run.shards);
            object.close();
        });
    }
    object.close();
}

fn put_sharding(out: &mut Vec<u8>, sharding: &Sharding) {
    let mut object = Object::open(out);
    object.number("shards", sharding.shards);
    let labels = sharding.labels.as_ref().map(|labels| match labels {
        ShardLabels::By(names) => ("by", names),
        ShardLabels::Without(names) => ("without", names),
    });
    if let Some((kind, names)) = labels {
        object.list(kind, names, |out, name| put_string(out, name));
    }
    for (name, text) in [("reason", &sharding.reason), ("text", &sharding.text)] {
        if let Some(text) = text {
            object.text(name, text);
        }
    }
    object.close();
}

fn put_node(out: &mut Vec<u8>, node: &Node) {
    let explained = &node.explained;
    let mut object = Object::open(out);
    object.text("kind", explained.kind);
    if !explained.detail.is_empty() {
        object.text("detail", &explained.detail);
    }
    object.text("text", &node.text);
    if explained.once {
        object.flag("once", true);
    }
    if let Some(selector) = explained.selector {
        object.number("selector", selector as u64);
    }
    if let Some(cost) = &node.cost {
        object.field("cost", |out| {
            let mut object = Object::open(out);
            object
                .seconds("time", cost.time)
                .number("evaluations", cost.evaluations)
                .number("series", cost.series)
                .number("points", cost.points);
            object.close();
        });
    }
    if !node.children.is_empty() {
        object.list("children", &node.children, put_node);
    }
    object.close();
}

fn put_selector(out: &mut Vec<u8>, at: usize, one: &SelectorReport) {
    let mut object = Object::open(out);
    object
        .number("selector", at as u64)
        .text("matchers", &one.matchers)
        .field("from", |out| put_time(out, one.min_time))
        .field("to", |out| put_time(out, one.max_time))
        .field("estimated", |out| {
            let mut object = Object::open(out);
            object
                .number("series", one.estimated_series)
                .number("scannedValues", one.scanned_values)
                .number("tenantSeries", one.tenant_series);
            object.close();
        });
    if let Some(shared) = one.shared_with {
        object.number("sharedWith", shared as u64);
    }
    if let Some(size) = &one.fetched {
        object.field("fetched", |out| {
            let mut object = Object::open(out);
            object
                .number("series", size.series)
                .number("chunks", size.chunks)
                .number("chunkBytes", size.chunk_bytes)
                .number("dataBytes", size.data_bytes);
            object.close();
        });
    }
    if let Some(cost) = &one.decoded {
        object.field("decoded", |out| {
            let mut object = Object::open(out);
            object
                .number("series", cost.series)
                .number("samples", cost.samples)
                .seconds("time", cost.time);
            object.close();
        });
    }
    object.close();
}
