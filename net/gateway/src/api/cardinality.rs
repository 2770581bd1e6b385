//! Which labels cost most: `status/tsdb` as in Prometheus, and the cardinality API as in Mimir (whose answers have no envelope).

use http::Response;
use query::{Count, Head, LabelCounts, Lookup};
use wire::json::{put_labels, put_string};

use super::Api;
use super::object::{Object, put_list};
use crate::reply::{self, ApiError, Body};

/// Entries of a list of `status/tsdb` where nothing is asked for, and at most. Source: Prometheus.
const TSDB_LIMIT: (usize, usize) = (10, 10_000);

/// The same of the cardinality API. Source: Mimir.
const CARDINALITY_LIMIT: (usize, usize) = (20, 500);

impl Api<'_> {
    /// The head's numbers, and what is most numerous in it.
    pub(super) async fn status_tsdb(&self) -> Result<Response<Body>, ApiError> {
        let (usual, most) = TSDB_LIMIT;
        let limit = match self.form.first("limit").filter(|text| !text.is_empty()) {
            None => usual,
            Some(text) => match text.parse::<i64>() {
                Ok(limit) if limit >= 1 && limit as u64 <= most as u64 => limit as usize,
                Ok(limit) if limit >= 1 => {
                    let reason = format!("limit must not exceed {most}, got {limit}");
                    return Err(ApiError::bad_data(reason));
                }
                _ => return Err(ApiError::bad_data("limit must be a positive number")),
            },
        };
        let head = self.services.engine.head(&self.caller, limit).await?;
        Ok(self.success(false, |out| put_head(out, &head)))
    }

    pub(super) async fn cardinality_names(&self) -> Result<Response<Body>, ApiError> {
        let (selector, limit) = (self.selector()?, self.count_limit()?);
        let engine = &self.services.engine;
        let found = engine.cardinality_of_names(&self.caller, selector, limit);
        let found = found.await?;
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object
            .number("label_values_count_total", found.values_count)
            .number("label_names_count", found.names_count)
            .list("cardinality", &found.labels, |out, label| {
                let mut object = Object::open(out);
                object
                    .text("label_name", &label.name)
                    .number("label_values_count", label.values_count);
                object.close();
            });
        object.close();
        Ok(self.bare(out))
    }

    pub(super) async fn cardinality_values(&self) -> Result<Response<Body>, ApiError> {
        let mut names = self.form.all("label_names[]");
        if names.is_empty() {
            return Err(ApiError::bad_data("'label_names[]' param is required"));
        }
        if names.iter().any(String::is_empty) {
            return Err(ApiError::bad_data("invalid 'label_names' param ''"));
        }
        names.sort_unstable();
        names.dedup();
        let (selector, limit) = (self.selector()?, self.count_limit()?);
        let engine = &self.services.engine;
        let found = engine.cardinality_of_values(&self.caller, names, selector, limit);
        let found = found.await?;
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object
            .number("series_count_total", found.series_count)
            .list("labels", &found.labels, put_label);
        object.close();
        Ok(self.bare(out))
    }

    /// Label sets of what a selector selects. Whatever is in memory counts as active.
    pub(super) async fn active_series(&self) -> Result<Response<Body>, ApiError> {
        let Some(selector) = self.selector()? else {
            return Err(ApiError::bad_data("missing 'selector' parameter"));
        };
        let lookup = Lookup {
            selectors: vec![selector],
            start: i64::MIN,
            end: i64::MAX,
            limit: 0,
        };
        let found = self.services.engine.series(&self.caller, lookup).await?;
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.list("data", &found.sets, put_labels);
        object.close();
        Ok(self.bare(out))
    }

    fn selector(&self) -> Result<Option<String>, ApiError> {
        let mut all = self.form.all("selector");
        match all.len() {
            0 | 1 => Ok(all.pop().filter(|text| !text.is_empty())),
            _ => Err(ApiError::bad_data(
                "multiple 'selector' params are not allowed",
            )),
        }
    }

    /// The parameters `limit` and `count_method`; both methods count the same here.
    fn count_limit(&self) -> Result<usize, ApiError> {
        if let Some(method) = self.form.first("count_method")
            && !matches!(method, "inmemory" | "active")
        {
            return Err(ApiError::bad_data(format!(
                "invalid 'count_method' param '{method}'. valid options are: [inmemory,active]"
            )));
        }
        let (usual, most) = CARDINALITY_LIMIT;
        let Some(text) = self.form.first("limit").filter(|text| !text.is_empty()) else {
            return Ok(usual);
        };
        match text.parse::<i64>() {
            Ok(limit) if limit < 0 => {
                Err(ApiError::bad_data("'limit' param cannot be less than '0'"))
            }
            Ok(limit) if limit as u64 > most as u64 => Err(ApiError::bad_data(format!(
                "'limit' param cannot be greater than '{most}'"
            ))),
            Ok(limit) => Ok(limit as usize),
            Err(_) => Err(ApiError::bad_data(format!(
                "invalid 'limit' param '{text}': not a number"
            ))),
        }
    }

    /// JSON without an envelope.
    fn bare(&self, out: Vec<u8>) -> Response<Body> {
        reply::json(self.gzip, std::iter::once(out.into()))
    }
}

fn put_label(out: &mut Vec<u8>, label: &LabelCounts) {
    let mut object = Object::open(out);
    object
        .text("label_name", &label.name)
        .number("label_values_count", label.values_count)
        .number("series_count", label.series_count)
        .list("cardinality", &label.values, |out, (value, count)| {
            let mut object = Object::open(out);
            object
                .text("label_value", value)
                .number("series_count", *count);
            object.close();
        });
    object.close();
}

fn put_head(out: &mut Vec<u8>, head: &Head) {
    let mut object = Object::open(out);
    object.field("headStats", |out| {
        let mut stats = Object::open(out);
        stats
            .number("numSeries", head.series)
            .number("numLabelPairs", head.label_pairs)
            .number("chunkCount", head.chunks)
            .signed("minTime", head.min_time.unwrap_or(i64::MAX))
            .signed("maxTime", head.max_time.unwrap_or(i64::MIN));
        stats.close();
    });
    for (name, counts) in [
        ("seriesCountByMetricName", &head.series_by_metric),
        ("labelValueCountByLabelName", &head.values_by_label),
        ("memoryInBytesByLabelName", &head.bytes_by_label),
        ("seriesCountByLabelValuePair", &head.series_by_pair),
    ] {
        object.field(name, |out| put_counts(out, counts));
    }
    object.close();
}

fn put_counts(out: &mut Vec<u8>, counts: &[Count]) {
    put_list(out, counts, |out, (name, value)| {
        let mut object = Object::open(out);
        object
            .field("name", |out| put_string(out, name))
            .number("value", *value);
        object.close();
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::success_bytes;

    #[test]
    fn the_head_is_told_as_prometheus_tells_it() {
        let head = Head {
            series: 2,
            label_pairs: 3,
            chunks: 2,
            min_time: Some(1),
            max_time: None,
            series_by_metric: vec![("up".to_owned(), 2)],
            ..Head::default()
        };
        let out = success_bytes(Vec::new(), |out| put_head(out, &head));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"status":"success","data":{"headStats":{"numSeries":2,"numLabelPairs":3,"chunkCount":2,"minTime":1,"maxTime":-9223372036854775808},"seriesCountByMetricName":[{"name":"up","value":2}],"labelValueCountByLabelName":[],"memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[]}}"#
        );
    }
}
