//! The queries: the built-in set over the series of `write`, and lists in files.
//!
//! The set is what dashboards do, from a plain selector to a quantile over 48,000 buckets; the sizes are those at the 100,000
//! series and 60 scrapes of the workload `steady`, and each expression is asked at one moment and over a range.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::series::{CLUSTER, labels};
use crate::target::{Target, seconds};

/// How a query is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// At one moment.
    Instant,
    /// At every step of a range.
    Range,
    /// The values of a label.
    Values,
    /// The label sets of the series that a selector selects.
    Series,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Instant => "instant",
            Kind::Range => "range",
            Kind::Values => "values",
            Kind::Series => "series",
        }
    }
}

/// One query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// An expression; of `Values` the label's name; of `Series` the selector.
    pub(crate) text: String,
}

/// When queries look, and with what else they are asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) end_ms: i64,
    pub(crate) range_ms: i64,
    pub(crate) step_ms: i64,
    /// `nocache=1`, which Myelin and VictoriaMetrics know.
    pub(crate) nocache: bool,
}

impl Query {
    fn new(name: &str, kind: Kind, text: impl Into<String>) -> Query {
        Query {
            name: name.to_owned(),
            kind,
            text: text.into(),
        }
    }

    /// The whole request.
    pub(crate) fn request(&self, target: &Target, times: &Times) -> Vec<u8> {
        let end = seconds(times.end_ms);
        let start = seconds(times.end_ms.saturating_sub(times.range_ms));
        let step = seconds(times.step_ms);
        let text = self.text.as_str();
        let mut parameters = match self.kind {
            Kind::Instant => vec![("query", text), ("time", &end)],
            Kind::Range => vec![
                ("query", text),
                ("start", &start),
                ("end", &end),
                ("step", &step),
            ],
            Kind::Values => vec![("start", start.as_str()), ("end", &end)],
            Kind::Series => vec![("match[]", text), ("start", &start), ("end", &end)],
        };
        if times.nocache {
            parameters.push(("nocache", "1"));
        }
        match self.kind {
            Kind::Instant => target.form_request("/api/v1/query", &parameters),
            Kind::Range => target.form_request("/api/v1/query_range", &parameters),
            Kind::Values => {
                target.get_request(&format!("/api/v1/label/{text}/values"), &parameters)
            }
            Kind::Series => target.get_request("/api/v1/series", &parameters),
        }
    }
}

/// The built-in set. Every series it names is one of the first target's, so that it exists however few there are.
pub(crate) fn built_in() -> Vec<Query> {
    let of = |label: &str| {
        let labels = labels(0, 0);
        let value = labels.into_iter().find(|(name, _)| *name == label);
        value.map(|(_, value)| value).unwrap_or_default()
    };
    let (namespace, job, instance) = (of("namespace"), of("job"), of("instance"));
    let expressions = [
        (
            "selector",
            format!("kafka_consumer_group_lag{{namespace=\"{namespace}\"}}"),
        ),
        (
            "rate",
            format!("rate(grpc_server_handled_total{{instance=\"{instance}\"}}[5m])"),
        ),
        (
            "sum-rate",
            "sum by (job) (rate(grpc_server_handled_total[5m]))".to_owned(),
        ),
        (
            "histogram-quantile",
            "histogram_quantile(0.99, sum by (le, job) (rate(http_request_duration_seconds_bucket[5m])))"
                .to_owned(),
        ),
        (
            "regex",
            format!("{{__name__=~\"container_memory_.+|process_.+_bytes\", pod=~\"{namespace}-.+-[0-9a-f]+\"}}"),
        ),
        (
            "topk",
            "topk(10, rate(grpc_server_handled_total[5m]))".to_owned(),
        ),
        (
            "avg-over-time",
            "avg_over_time(container_memory_working_set_bytes[10m])".to_owned(),
        ),
        (
            "count",
            format!("count by (namespace) ({{cluster=\"{CLUSTER}\"}})"),
        ),
    ];
    let mut queries = Vec::new();
    for (name, text) in expressions {
        queries.push(Query::new(name, Kind::Instant, text.clone()));
        queries.push(Query::new(name, Kind::Range, text));
    }
    queries.push(Query::new("label-values", Kind::Values, "pod"));
    queries.push(Query::new(
        "series",
        Kind::Series,
        format!("{{job=\"{job}\"}}"),
    ));
    queries
}

/// Reads a list: one query a line, as [`parse`] has it.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Query>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let queries = parse(&text).with_context(|| format!("in {}", path.display()))?;
    ensure!(!queries.is_empty(), "no query in {}", path.display());
    Ok(queries)
}

/// A line is an expression, asked at one moment and over the range; with `instant: `, `range: ` before it only one of them;
/// `values: NAME` asks for the values of a label, `series: SELECTOR` for series. Empty lines and `#` lines are left out.
/// A query is called by its line.
fn parse(text: &str) -> anyhow::Result<Vec<Query>> {
    let mut queries = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let prefixes = [
            ("instant: ", Kind::Instant),
            ("range: ", Kind::Range),
            ("values: ", Kind::Values),
            ("series: ", Kind::Series),
        ];
        let marked = prefixes
            .into_iter()
            .find_map(|(prefix, kind)| Some((kind, line.strip_prefix(prefix)?.trim())));
        let Some((kind, text)) = marked else {
            queries.push(Query::new(line, Kind::Instant, line));
            queries.push(Query::new(line, Kind::Range, line));
            continue;
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        ensure!(
            kind != Kind::Values || (!text.is_empty() && text.bytes().all(plain)),
            "line {number}: {text:?} is not the name of a label"
        );
        queries.push(Query::new(text, kind, text));
    }
    Ok(queries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::TargetOptions;

    #[test]
    fn the_set_has_every_expression_twice_and_names_series_that_exist() {
        let queries = built_in();
        assert_eq!(queries.len(), 18);
        for query in &queries {
            assert!(!query.text.contains("\"\""), "{}", query.text);
        }
        let instant = queries.iter().filter(|q| q.kind == Kind::Instant).count();
        assert_eq!(instant, 8);
    }

    #[test]
    fn a_list_has_expressions_prefixes_and_comments() {
        let queries = parse("# of mine\n\nup\nrange:  sum(up)\nvalues: job\nseries: {a=\"b\"}\n");
        let queries = queries.unwrap();
        let expected = [
            ("up", Kind::Instant),
            ("up", Kind::Range),
            ("sum(up)", Kind::Range),
            ("job", Kind::Values),
            ("{a=\"b\"}", Kind::Series),
        ];
        let found: Vec<_> = queries.iter().map(|q| (q.text.as_str(), q.kind)).collect();
        assert_eq!(found, expected);
        let error = parse("up\nvalues: a/b").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("a/b"), "{error}");
    }

    #[test]
    fn requests_have_their_times_and_switch_the_cache_off_where_asked() {
        let target = TargetOptions {
            url: "http://a:1/api/v1/write".into(),
            query_url: None,
            tenant: None,
        };
        let target = target.resolve().unwrap();
        let mut times = Times {
            end_ms: 1_000_500,
            range_ms: 900_000,
            step_ms: 15_000,
            nocache: false,
        };
        let text = |query: &Query, times: &Times| {
            String::from_utf8(query.request(&target, times)).unwrap()
        };
        let range = Query::new("x", Kind::Range, "up");
        assert!(text(&range, &times).ends_with("query=up&start=100.500&end=1000.500&step=15.000"));
        times.nocache = true;
        let values = Query::new("x", Kind::Values, "job");
        let expected = "GET /api/v1/label/job/values?start=100.500&end=1000.500&nocache=1 HTTP";
        assert!(text(&values, &times).starts_with(expected));
    }
}
