//! The keys of caches.

use super::super::Config;
use super::super::setting::Setting;
use super::{Key, kind_of};

/// Of the results cache.
pub(super) fn results() -> Vec<Key> {
    vec![
        key!(
            "query_range.results_cache.cache.fifocache.max_size_bytes",
            "frontend.fifocache.max-size-bytes",
            query_range.results_cache_max_size_bytes,
            "1GiB",
            "Bytes of results that are kept; those used least go first."
        ),
        key!(
            "query_range.results_cache.cache.memcached_client.addresses",
            "frontend.memcached.addresses",
            query_range.results_cache.client.addresses,
            "dns+memcached.local:11211",
            "Memcached servers, separated by commas: `host:port` or `dns+host:port` (all addresses of the host), `dnssrv+name` (the targets of its SRV records). With them, results of range queries are kept there too, for all processes that evaluate. None: only in memory."
        ),
        key!(
            "query_range.results_cache.cache.memcached_client.host",
            "frontend.memcached.hostname",
            query_range.results_cache.host,
            "memcached.local",
            "Instead of addresses: a host whose SRV records `_<service>._tcp.<host>` tell the servers."
        ),
        key!(
            "query_range.results_cache.cache.memcached_client.service",
            "frontend.memcached.service",
            query_range.results_cache.service,
            "cache",
            "See `host`."
        ),
        key!(
            "query_range.results_cache.cache.memcached_client.timeout",
            "frontend.memcached.timeout",
            query_range.results_cache.client.timeout,
            "250ms",
            "For an exchange with a server, connecting included; then it counts as having nothing."
        ),
        key!(
            "query_range.results_cache.cache.memcached_client.max_idle_conns",
            "frontend.memcached.max-idle-conns",
            query_range.results_cache.client.max_idle_connections,
            "20",
            "Connections to each server that are kept while nobody uses them."
        ),
        key!(
            "query_range.results_cache.cache.memcached_client.update_interval",
            "frontend.memcached.update-interval",
            query_range.results_cache.client.update_interval,
            "30s",
            "How often addresses are looked up."
        ),
        key!(
            "query_range.results_cache.cache.memcached_client.max_item_size",
            "frontend.memcached.max-item-size",
            query_range.results_cache.client.max_item_size,
            "2MiB",
            "Bytes of a value; larger ones are not sent. 0: unlimited. Servers have a limit of their own (`memcached -I`)."
        ),
        key!(
            "query_range.results_cache.cache.memcached_client.circuit_breaker_consecutive_failures",
            "frontend.memcached.circuit-breaker-consecutive-failures",
            query_range
                .results_cache
                .client
                .breaker_consecutive_failures,
            "5",
            "Failures in a row after which a server is left alone for a while. 0: never."
        ),
        key!(
            "query_range.results_cache.cache.memcached_client.circuit_breaker_timeout",
            "frontend.memcached.circuit-breaker-timeout",
            query_range.results_cache.client.breaker_timeout,
            "20s",
            "How long it is left alone; then it is tried once."
        ),
        key!(
            "query_range.results_cache.cache.memcached.expiration",
            "frontend.memcached.expiration",
            query_range.results_cache.expiration,
            "24h",
            "How long servers keep a result at most. 0: as long as they have room."
        ),
        key!(
            "query_range.results_cache.cache.memcached.batch_size",
            "frontend.memcached.batchsize",
            query_range.results_cache.client.max_get_multi_batch_size,
            "100",
            "Keys of one exchange."
        ),
        key!(
            "query_range.results_cache.cache.memcached.parallelism",
            "frontend.memcached.parallelism",
            query_range.results_cache.client.max_get_multi_concurrency,
            "10",
            "Exchanges at once that read; further ones count as having found nothing."
        ),
        key!(
            "query_range.results_cache.cache.background.writeback_goroutines",
            "frontend.background.write-back-concurrency",
            query_range.results_cache.client.max_async_concurrency,
            "3",
            "Exchanges at once that write."
        ),
        key!(
            "query_range.results_cache.cache.background.writeback_buffer",
            "frontend.background.write-back-buffer",
            query_range.results_cache.client.max_async_buffer_size,
            "1000",
            "Values that may wait to be written; further ones are dropped."
        ),
        key!(
            "query_range.results_cache.compression",
            "frontend.compression",
            query_range.results_cache.compression,
            "",
            "How results are packed for memcached: `snappy`, or empty for not at all."
        ),
    ]
}

/// Of the caches of what is in the bucket.
pub(super) fn bucket() -> Vec<Key> {
    vec![
        key!(
            "blocks_storage.bucket_store.index_cache.backend",
            "blocks-storage.bucket-store.index-cache.backend",
            blocks.index_cache.backend,
            "inmemory",
            "Where indexes of blocks of the bucket, as far as they are not on the disk are kept: `inmemory`, `memcached`, or both, the nearer first. Empty: nowhere."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.inmemory.max_size_bytes",
            "blocks-storage.bucket-store.index-cache.inmemory.max-size-bytes",
            blocks.index_cache.inmemory_max_size_bytes,
            "2GiB",
            "Bytes in memory; what is used least goes first."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.addresses",
            "blocks-storage.bucket-store.index-cache.memcached.addresses",
            blocks.index_cache.memcached.addresses,
            "dnssrv+_memcached._tcp.cache.local",
            "Memcached servers, separated by commas: `host:port` or `dns+host:port` (all addresses of the host), `dnssrv+name` (the targets of its SRV records)."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.timeout",
            "blocks-storage.bucket-store.index-cache.memcached.timeout",
            blocks.index_cache.memcached.timeout,
            "250ms",
            "For an exchange with a server, connecting included; then it counts as having nothing."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.max_idle_connections",
            "blocks-storage.bucket-store.index-cache.memcached.max-idle-connections",
            blocks.index_cache.memcached.max_idle_connections,
            "20",
            "Connections to each server that are kept while nobody uses them."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.update_interval",
            "blocks-storage.bucket-store.index-cache.memcached.update-interval",
            blocks.index_cache.memcached.update_interval,
            "30s",
            "How often addresses are looked up."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.max_item_size",
            "blocks-storage.bucket-store.index-cache.memcached.max-item-size",
            blocks.index_cache.memcached.max_item_size,
            "2MiB",
            "Bytes of a value; larger ones are not sent. 0: unlimited."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.max_get_multi_batch_size",
            "blocks-storage.bucket-store.index-cache.memcached.max-get-multi-batch-size",
            blocks.index_cache.memcached.max_get_multi_batch_size,
            "100",
            "Keys of one exchange."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.max_get_multi_concurrency",
            "blocks-storage.bucket-store.index-cache.memcached.max-get-multi-concurrency",
            blocks.index_cache.memcached.max_get_multi_concurrency,
            "10",
            "Exchanges at once that read; further ones count as having found nothing."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.max_async_concurrency",
            "blocks-storage.bucket-store.index-cache.memcached.max-async-concurrency",
            blocks.index_cache.memcached.max_async_concurrency,
            "3",
            "Exchanges at once that write."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.max_async_buffer_size",
            "blocks-storage.bucket-store.index-cache.memcached.max-async-buffer-size",
            blocks.index_cache.memcached.max_async_buffer_size,
            "1000",
            "Values that may wait to be written; further ones are dropped."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.circuit_breaker_consecutive_failures",
            "blocks-storage.bucket-store.index-cache.memcached.circuit-breaker-consecutive-failures",
            blocks.index_cache.memcached.breaker_consecutive_failures,
            "5",
            "Failures in a row after which a server is left alone for a while. 0: never."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.memcached.circuit_breaker_timeout",
            "blocks-storage.bucket-store.index-cache.memcached.circuit-breaker-timeout",
            blocks.index_cache.memcached.breaker_timeout,
            "20s",
            "How long it is left alone; then it is tried once."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.subrange_size",
            "blocks-storage.bucket-store.index-cache.subrange-size",
            blocks.index_cache.subrange_size,
            "32000",
            "Bytes of the pieces in which indexes of blocks of the bucket, as far as they are not on the disk are kept."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.max_get_range_requests",
            "blocks-storage.bucket-store.index-cache.max-get-range-requests",
            blocks.index_cache.max_get_range_requests,
            "9",
            "Requests to the bucket for the pieces that are missing of what lies together, at most: what lies between is read too. 0: unlimited."
        ),
        key!(
            "blocks_storage.bucket_store.index_cache.ttl",
            "blocks-storage.bucket-store.index-cache.ttl",
            blocks.index_cache.ttl,
            "48h",
            "How long memcached keeps a piece at most. 0: as long as there is room."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.backend",
            "blocks-storage.bucket-store.chunks-cache.backend",
            blocks.chunks_cache.backend,
            "inmemory",
            "Where chunks of blocks of the bucket are kept: `inmemory`, `memcached`, or both, the nearer first. Empty: nowhere."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.inmemory.max_size_bytes",
            "blocks-storage.bucket-store.chunks-cache.inmemory.max-size-bytes",
            blocks.chunks_cache.inmemory_max_size_bytes,
            "2GiB",
            "Bytes in memory; what is used least goes first."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.addresses",
            "blocks-storage.bucket-store.chunks-cache.memcached.addresses",
            blocks.chunks_cache.memcached.addresses,
            "dnssrv+_memcached._tcp.cache.local",
            "Memcached servers, separated by commas: `host:port` or `dns+host:port` (all addresses of the host), `dnssrv+name` (the targets of its SRV records)."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.timeout",
            "blocks-storage.bucket-store.chunks-cache.memcached.timeout",
            blocks.chunks_cache.memcached.timeout,
            "250ms",
            "For an exchange with a server, connecting included; then it counts as having nothing."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.max_idle_connections",
            "blocks-storage.bucket-store.chunks-cache.memcached.max-idle-connections",
            blocks.chunks_cache.memcached.max_idle_connections,
            "20",
            "Connections to each server that are kept while nobody uses them."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.update_interval",
            "blocks-storage.bucket-store.chunks-cache.memcached.update-interval",
            blocks.chunks_cache.memcached.update_interval,
            "30s",
            "How often addresses are looked up."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.max_item_size",
            "blocks-storage.bucket-store.chunks-cache.memcached.max-item-size",
            blocks.chunks_cache.memcached.max_item_size,
            "2MiB",
            "Bytes of a value; larger ones are not sent. 0: unlimited."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.max_get_multi_batch_size",
            "blocks-storage.bucket-store.chunks-cache.memcached.max-get-multi-batch-size",
            blocks.chunks_cache.memcached.max_get_multi_batch_size,
            "100",
            "Keys of one exchange."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.max_get_multi_concurrency",
            "blocks-storage.bucket-store.chunks-cache.memcached.max-get-multi-concurrency",
            blocks.chunks_cache.memcached.max_get_multi_concurrency,
            "10",
            "Exchanges at once that read; further ones count as having found nothing."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.max_async_concurrency",
            "blocks-storage.bucket-store.chunks-cache.memcached.max-async-concurrency",
            blocks.chunks_cache.memcached.max_async_concurrency,
            "3",
            "Exchanges at once that write."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.max_async_buffer_size",
            "blocks-storage.bucket-store.chunks-cache.memcached.max-async-buffer-size",
            blocks.chunks_cache.memcached.max_async_buffer_size,
            "1000",
            "Values that may wait to be written; further ones are dropped."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.circuit_breaker_consecutive_failures",
            "blocks-storage.bucket-store.chunks-cache.memcached.circuit-breaker-consecutive-failures",
            blocks.chunks_cache.memcached.breaker_consecutive_failures,
            "5",
            "Failures in a row after which a server is left alone for a while. 0: never."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.memcached.circuit_breaker_timeout",
            "blocks-storage.bucket-store.chunks-cache.memcached.circuit-breaker-timeout",
            blocks.chunks_cache.memcached.breaker_timeout,
            "20s",
            "How long it is left alone; then it is tried once."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.subrange_size",
            "blocks-storage.bucket-store.chunks-cache.subrange-size",
            blocks.chunks_cache.subrange_size,
            "32000",
            "Bytes of the pieces in which chunks of blocks of the bucket are kept."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.max_get_range_requests",
            "blocks-storage.bucket-store.chunks-cache.max-get-range-requests",
            blocks.chunks_cache.max_get_range_requests,
            "9",
            "Requests to the bucket for the pieces that are missing of what lies together, at most: what lies between is read too. 0: unlimited."
        ),
        key!(
            "blocks_storage.bucket_store.chunks_cache.subrange_ttl",
            "blocks-storage.bucket-store.chunks-cache.subrange-ttl",
            blocks.chunks_cache.ttl,
            "48h",
            "How long memcached keeps a piece at most. 0: as long as there is room."
        ),
    ]
}
