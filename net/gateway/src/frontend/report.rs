//! Lines of the log about queries: slow ones (`frontend.log_queries_longer_than`) and, where asked for, what each one cost
//! (`frontend.query_stats_enabled`). Fields as Cortex has them.

use std::time::Duration;

use model::TenantId;

use crate::frontend::flights::Landed;
use crate::params::Form;

/// Longer parameters are cut: a line of a log is no place for a megabyte.
const SHOWN_BYTES: usize = 2000;

/// A request, as its lines name it.
pub(crate) struct Request<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) user_agent: &'a str,
    pub(crate) form: &'a Form,
}

impl Request<'_> {
    /// The parameters that tell one query from another.
    fn shown(&self) -> [String; 6] {
        let first = |name| cut(self.form.first(name).unwrap_or_default());
        [
            first("query"),
            first("time"),
            first("start"),
            first("end"),
            first("step"),
            cut(&self.form.all("match[]").join(" ")),
        ]
    }

    pub(crate) fn slow(&self, elapsed: Duration, status: u16) {
        let [query, time, start, end, step, selectors] = self.shown();
        tracing::info!(
            tenant = %self.tenant,
            method = self.method,
            path = self.path,
            time_taken = ?elapsed,
            status,
            user_agent = cut(self.user_agent),
            param_query = query,
            param_time = time,
            param_start = start,
            param_end = end,
            param_step = step,
            param_match = selectors,
            "slow query detected"
        );
    }

    pub(crate) fn stats(&self, elapsed: Duration, landed: &Landed) {
        let [query, time, start, end, step, _] = self.shown();
        let [waited, parsing, fetching, evaluating] = landed.durations.map(|d| d.as_secs_f64());
        let fetched = landed.account.fetched();
        tracing::info!(
            tenant = %self.tenant,
            method = self.method,
            path = self.path,
            response_time = ?elapsed,
            query_wall_time_seconds = parsing + fetching + evaluating,
            queue_time_seconds = waited,
            fetched_series_count = fetched.series,
            fetched_chunks_count = fetched.chunks,
            fetched_chunks_bytes = fetched.chunk_bytes,
            fetched_data_bytes = fetched.data_bytes,
            samples_count = landed.samples,
            param_query = query,
            param_time = time,
            param_start = start,
            param_end = end,
            param_step = step,
            "query stats"
        );
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(SHOWN_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
