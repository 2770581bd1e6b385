//! The keys of the section `limits` that are about queries.

use super::{Key, kind_of};
use crate::config::Config;
use crate::config::setting::Setting;

pub(super) fn keys() -> Vec<Key> {
    vec![
        key!(
            "limits.max_query_length",
            "store.max-query-length",
            limits.max_query_length,
            "31d",
            "Longest time range of a query: longer range queries are answered 400, selectors that reach further with their ranges and offsets 422. 0: unlimited."
        ),
        key!(
            "limits.max_query_lookback",
            "querier.max-query-lookback",
            limits.max_query_lookback,
            "7d",
            "How far back a query may begin; earlier starts are moved. 0: unlimited."
        ),
        key!(
            "limits.max_cache_freshness",
            "frontend.max-cache-freshness",
            limits.max_cache_freshness,
            "10m",
            "Results of range queries for times younger than this are not kept."
        ),
        key!(
            "limits.results_cache_ttl",
            "frontend.results-cache-ttl",
            limits.results_cache_ttl,
            "1h",
            "How long results of range queries are kept, counted from the first of them. 0: as long as there is room."
        ),
        key!(
            "limits.max_query_response_size",
            "frontend.max-query-response-size",
            limits.max_query_response_size,
            "1000000",
            "Bytes of the answer to a query, before it is compressed; larger ones are answered 422. 0: unlimited."
        ),
        key!(
            "limits.query_rejection.enabled",
            "frontend.query-rejection.enabled",
            limits.query_rejection.enabled,
            "true",
            "Whether `query_rejection.query_attributes` are looked at."
        ),
        key!(
            "limits.query_rejection.query_attributes",
            "frontend.query-rejection.query-attributes",
            limits.query_rejection.query_attributes,
            "[{api_type: query_range, time_range_limit: {min: 32d}}]",
            "Queries that have all attributes of one of these are answered 422: `api_type` (`query`, `query_range`, `series`, `labels`, `label_values`), `regex` (in the query or a selector),              `time_window: {start, end}` (how long ago the data begins at most and ends at least), `time_range_limit: {min, max}`, `query_step_limit: {min, max}`, `user_agent_regex`, `dashboard_uid`, `panel_id`."
        ),
        key!(
            "limits.query_priority.enabled",
            "frontend.query-priority.enabled",
            limits.query_priority.enabled,
            "true",
            "Whether `query_priority.priorities` are looked at: while queries wait, those of higher priority go before others of their tenant, not before those of other tenants."
        ),
        key!(
            "limits.query_priority.default_priority",
            "frontend.query-priority.default-priority",
            limits.query_priority.default_priority,
            "-1",
            "The priority of queries that none of `query_priority.priorities` is about."
        ),
        key!(
            "limits.query_priority.priorities",
            "frontend.query-priority.priorities",
            limits.query_priority.priorities,
            "[{priority: 5, query_attributes: [{user_agent_regex: ^Grafana}]}]",
            "Priorities, and the attributes of the queries that have them, as in `query_rejection.query_attributes`; the first that fits counts."
        ),
        key!(
            "limits.max_regex_pattern_length",
            "validation.max-regex-pattern-length",
            limits.max_regex_pattern_length,
            "500",
            "Bytes of a regular expression in a selector; longer ones are answered 422. 0: unlimited."
        ),
        key!(
            "limits.max_label_cardinality_for_unoptimized_regex",
            "validation.max-label-cardinality-for-unoptimized-regex",
            limits.max_label_cardinality_for_unoptimized_regex,
            "50000",
            "Values of a label that a regular expression may run over, in the time that is asked for; more is answered 422. Words, alternations of words, and a word with `.*` or `.+` before or behind it run over none. 0: unlimited, and not counted."
        ),
        key!(
            "limits.max_total_label_value_length_for_unoptimized_regex",
            "validation.max-total-label-value-length-for-unoptimized-regex",
            limits.max_total_label_value_length_for_unoptimized_regex,
            "4000000",
            "The same for the bytes of these values together."
        ),
        key!(
            "limits.max_fetched_series_per_query",
            "querier.max-fetched-series-per-query",
            limits.max_fetched_series_per_query,
            "100000",
            "Series one query may read; more is answered 422. 0: unlimited."
        ),
        key!(
            "limits.max_fetched_chunk_bytes_per_query",
            "querier.max-fetched-chunk-bytes-per-query",
            limits.max_fetched_chunk_bytes_per_query,
            "1000000",
            "Bytes of chunks one query may read; more is answered 422. 0: unlimited."
        ),
        key!(
            "limits.max_fetched_chunks_per_query",
            "querier.max-fetched-chunks-per-query",
            limits.max_fetched_chunks_per_query,
            "1234567",
            "Chunks one query may read; more is answered 422. 0: unlimited."
        ),
        key!(
            "limits.max_fetched_data_bytes_per_query",
            "querier.max-fetched-data-bytes-per-query",
            limits.max_fetched_data_bytes_per_query,
            "10000000",
            "Bytes of labels and chunks one query may read; more is answered 422. 0: unlimited."
        ),
        key!(
            "limits.max_estimated_memory_consumption_per_query",
            "querier.max-estimated-memory-consumption-per-query",
            limits.max_estimated_memory_consumption_per_query,
            "500000000",
            "Bytes one query may hold, estimated, its answer included; more is answered 422. 0: only `querier.max_memory` bounds it."
        ),
        key!(
            "limits.max_concurrent_queries",
            "querier.max-concurrent-per-tenant",
            limits.max_concurrent_queries,
            "3",
            "Queries of one tenant evaluated at once, within `querier.max_concurrent`; further ones wait. 0: only that bound."
        ),
        key!(
            "limits.max_outstanding_requests_per_tenant",
            "querier.max-outstanding-requests-per-tenant",
            limits.max_outstanding_requests_per_tenant,
            "9",
            "Queries of one tenant that may wait for their turn; further ones are answered 429. 0: only `querier.max_waiting` bounds them."
        ),
        key!(
            "limits.promql_experimental_functions_enabled",
            "querier.promql-experimental-functions-enabled",
            limits.promql_experimental_functions_enabled,
            "false",
            "Whether queries may use what is experimental in Prometheus: some functions and aggregations, duration expressions, `anchored`, \
             `smoothed`, `fill`. Where not, they are answered 400."
        ),
        key!(
            "limits.query_vertical_shard_size",
            "frontend.query-vertical-shard-size",
            limits.query_vertical_shard_size,
            "4",
            "Shards into which the series of a range query are divided, by labels that all of it keeps, and which are evaluated side by side by workers that are free, with the same result; at most 256. Queries that cannot be divided, or are not worth it, are evaluated in one; `explain` tells. Below 2: all are."
        ),
        key!(
            "limits.max_samples_per_query",
            "ingester.max-samples-per-query",
            limits.max_samples_per_query,
            "1000",
            "Samples one query of this tenant may hold in memory, within `querier.max_samples`. 0: only that bound."
        ),
    ]
}
