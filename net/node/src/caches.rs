//! The caches of a node, as they are configured.

use std::sync::Arc;

use anyhow::Context;
use cache::{Cache, Memcached, Memory, Metrics};
use longterm::Pages;
use prometheus::Registry;
use query::SharedResults;

use crate::config::{BucketCache, Config};

/// Bytes of pages that are asked for at once of a server.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// See the module.
pub(crate) struct Caches {
    /// Results of range queries.
    pub(crate) results: Option<SharedResults>,
    /// Of what is read from the bucket.
    pub(crate) bucket: longterm::Caches,
}

impl Caches {
    /// Servers are asked when they are found: none needs to be there yet.
    pub(crate) fn start(config: &Config, registry: &Registry) -> anyhow::Result<Caches> {
        let metrics = Metrics::register(registry)?;
        let results = &config.query_range.results_cache;
        let options = results
            .options()
            .filter(|_| config.query_range.cache_results);
        let results = match options {
            Some(options) => {
                let opened = Memcached::open(options, metrics.of("frontend.memcached"));
                let cache: Arc<dyn Cache> = Arc::new(opened.context("results cache")?);
                let ttl = results.expiration;
                Some(SharedResults { cache, ttl })
            }
            None => None,
        };
        let blocks = &config.blocks;
        let names = ["index-cache.inmemory", "index-cache"];
        let index = pages(&blocks.index_cache, &metrics, names).context("index cache")?;
        let names = ["chunks-cache.inmemory", "chunks-cache"];
        let chunks = pages(&blocks.chunks_cache, &metrics, names).context("chunks cache")?;
        let bucket = longterm::Caches { index, chunks };
        Ok(Caches { results, bucket })
    }
}

fn pages(
    config: &BucketCache,
    metrics: &Metrics,
    [inmemory, memcached]: [&'static str; 2],
) -> anyhow::Result<Option<Pages>> {
    let tiers = config.tiers().map_err(anyhow::Error::msg)?;
    let near = tiers.inmemory.then(|| {
        let bytes_max = config.inmemory_max_size_bytes.0;
        Arc::new(Memory::new(bytes_max, metrics.of(inmemory))) as Arc<dyn Cache>
    });
    let options = config.memcached.options().filter(|_| tiers.memcached);
    // A batch has to arrive within the timeout.
    let batch = usize::try_from(BATCH_BYTES_MAX / config.subrange_size.max(1)).unwrap_or(1);
    let options = options.map(|options| cache::Options {
        batch: options.batch.min(batch.max(1)),
        ..options
    });
    let far = match options {
        Some(options) => Some(Memcached::open(options, metrics.of(memcached))?),
        None => None,
    };
    let far = far.map(|far| Arc::new(far) as Arc<dyn Cache>);
    let cache = match (near, far) {
        (Some(near), Some(far)) => Some(Arc::new(cache::Tiers::new(near, far, config.ttl)) as _),
        (near, far) => near.or(far),
    };
    let pages = |cache| {
        let requests_max = config.max_get_range_requests;
        Pages::new(cache, config.subrange_size, requests_max, config.ttl)
    };
    Ok(cache.map(pages))
}
