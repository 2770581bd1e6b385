//! The settings of caches: their defaults, and what they must keep to.

use std::time::Duration;

use cache::Address;

use super::setting::ByteSize;

/// A cache in memcached.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MemcachedClient {
    /// None: there is no such cache.
    pub(crate) addresses: Vec<String>,
    pub(crate) timeout: Duration,
    pub(crate) max_idle_connections: usize,
    pub(crate) update_interval: Duration,
    pub(crate) max_item_size: ByteSize,
    pub(crate) max_get_multi_batch_size: usize,
    pub(crate) max_get_multi_concurrency: usize,
    pub(crate) max_async_concurrency: usize,
    pub(crate) max_async_buffer_size: usize,
    pub(crate) breaker_consecutive_failures: u32,
    pub(crate) breaker_timeout: Duration,
}

/// The results cache behind that of the process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResultsCache {
    pub(crate) client: MemcachedClient,
    /// A name of a host, with [`ResultsCache::service`] instead of addresses.
    pub(crate) host: String,
    pub(crate) service: String,
    pub(crate) expiration: Duration,
    pub(crate) compression: Compression,
}

/// How values are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// They are not.
    None,
    /// By snappy.
    Snappy,
}

/// A cache of what is read from the bucket.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BucketCache {
    /// `inmemory`, `memcached`, both, or none.
    pub(crate) backend: Vec<String>,
    pub(crate) inmemory_max_size_bytes: ByteSize,
    pub(crate) memcached: MemcachedClient,
    pub(crate) subrange_size: u64,
    pub(crate) max_get_range_requests: usize,
    pub(crate) ttl: Duration,
}

/// Where pieces of blocks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiers {
    /// In this process.
    pub(crate) inmemory: bool,
    /// In memcached, behind it.
    pub(crate) memcached: bool,
}

impl Default for MemcachedClient {
    fn default() -> MemcachedClient {
        let cache::Options {
            timeout,
            idle_max,
            update_interval,
            item_bytes_max,
            batch,
            parallelism,
            writers,
            waiting_max,
            failures_max,
            pause,
            ..
        } = cache::Options::new(Vec::new());
        MemcachedClient {
            addresses: Vec::new(),
            timeout,
            max_idle_connections: idle_max,
            update_interval,
            max_item_size: ByteSize(item_bytes_max),
            max_get_multi_batch_size: batch,
            max_get_multi_concurrency: parallelism,
            max_async_concurrency: writers,
            max_async_buffer_size: waiting_max,
            breaker_consecutive_failures: failures_max,
            breaker_timeout: pause,
        }
    }
}

impl Default for ResultsCache {
    fn default() -> ResultsCache {
        ResultsCache {
            client: MemcachedClient::default(),
            host: String::new(),
            service: "memcached".to_owned(),
            expiration: Duration::from_secs(7 * 86_400),
            compression: Compression::Snappy,
        }
    }
}

impl BucketCache {
    pub(super) fn of(subrange_size: u64, inmemory: u64, ttl: Duration) -> BucketCache {
        BucketCache {
            backend: Vec::new(),
            inmemory_max_size_bytes: ByteSize(inmemory),
            memcached: MemcachedClient::default(),
            subrange_size,
            max_get_range_requests: 3,
            ttl,
        }
    }

    /// Errors: a word that is no backend.
    pub(crate) fn tiers(&self) -> Result<Tiers, String> {
        let mut tiers = Tiers {
            inmemory: false,
            memcached: false,
        };
        for word in &self.backend {
            match word.as_str() {
                "inmemory" if !tiers.memcached => tiers.inmemory = true,
                "inmemory" => return Err("inmemory stands before memcached".to_owned()),
                "memcached" => tiers.memcached = true,
                other => return Err(format!("{other:?} is none of inmemory, memcached")),
            }
        }
        Ok(tiers)
    }

    pub(super) fn validate(&self, key: &str) -> Result<(), String> {
        let tiers = self.tiers().map_err(|e| format!("{key}.backend: {e}"))?;
        self.memcached.validate(&format!("{key}.memcached"))?;
        if tiers.memcached && self.memcached.addresses.is_empty() {
            return Err(format!(
                "{key}.memcached.addresses: must name the servers, since {key}.backend is memcached"
            ));
        }
        if tiers.inmemory && self.inmemory_max_size_bytes.0 == 0 {
            return Err(format!("{key}.inmemory.max_size_bytes: must be above zero"));
        }
        if !(1024..=1 << 20).contains(&self.subrange_size) {
            return Err(format!("{key}.subrange_size: must be from 1024 to 1048576"));
        }
        Ok(())
    }
}

impl ResultsCache {
    pub(super) fn validate(&self) -> Result<(), String> {
        let key = "query_range.results_cache.cache.memcached_client";
        self.client.validate(key)?;
        if !self.host.is_empty() {
            if !self.client.addresses.is_empty() {
                return Err(format!("{key}.host: goes without {key}.addresses"));
            }
            let name = self.service_name();
            Address::parse(&name).map_err(|e| format!("{key}.host: {e}"))?;
        }
        Ok(())
    }

    fn service_name(&self) -> String {
        format!("dnssrv+_{}._tcp.{}", self.service, self.host)
    }

    /// `None`: there is no such cache.
    pub(crate) fn options(&self) -> Option<cache::Options> {
        let client = match self.host.is_empty() {
            true => self.client.clone(),
            false => MemcachedClient {
                addresses: vec![self.service_name()],
                ..self.client.clone()
            },
        };
        let pack = self.compression == Compression::Snappy;
        let options = client.options().filter(|o| !o.addresses.is_empty())?;
        Some(cache::Options { pack, ..options })
    }
}

impl MemcachedClient {
    fn validate(&self, key: &str) -> Result<(), String> {
        for address in &self.addresses {
            Address::parse(address).map_err(|e| format!("{key}.addresses: {e}"))?;
        }
        if self.timeout.is_zero() || self.update_interval.is_zero() {
            return Err(format!(
                "{key}: timeout and update interval must be above zero"
            ));
        }
        let counts = [
            ("keys of a batch", self.max_get_multi_batch_size),
            ("gets at once", self.max_get_multi_concurrency),
            ("sets at once", self.max_async_concurrency),
            ("sets that wait", self.max_async_buffer_size),
        ];
        match counts.iter().find(|(_, n)| !(1..=1 << 20).contains(n)) {
            Some((name, _)) => Err(format!("{key}: {name}: must be from 1 to 1048576")),
            None => Ok(()),
        }
    }

    /// `None`: an address is none, which has been told before.
    pub(crate) fn options(&self) -> Option<cache::Options> {
        let addresses = self.addresses.iter().map(|a| Address::parse(a).ok());
        Some(cache::Options {
            timeout: self.timeout,
            idle_max: self.max_idle_connections,
            update_interval: self.update_interval,
            item_bytes_max: self.max_item_size.0,
            batch: self.max_get_multi_batch_size,
            parallelism: self.max_get_multi_concurrency,
            writers: self.max_async_concurrency,
            waiting_max: self.max_async_buffer_size,
            failures_max: self.breaker_consecutive_failures,
            pause: self.breaker_timeout,
            ..cache::Options::new(addresses.collect::<Option<_>>()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn a_cache_needs_servers_and_words_that_mean_something() {
        type Set = fn(&mut Config);
        let client = "query_range.results_cache.cache.memcached_client";
        let chunks = "blocks_storage.bucket_store.chunks_cache";
        let wrong: [(String, Set); 6] = [
            (format!("{client}.addresses: \"nowhere\""), |c| {
                c.query_range.results_cache.client.addresses = vec!["nowhere".to_owned()];
            }),
            (format!("{client}.host"), |c| {
                let cache = &mut c.query_range.results_cache;
                cache.client.addresses = vec!["a:1".to_owned()];
                cache.host = "b".to_owned();
            }),
            (format!("{chunks}.memcached.addresses: must name"), |c| {
                c.blocks.chunks_cache.backend = vec!["memcached".to_owned()];
            }),
            (format!("{chunks}.backend: \"redis\""), |c| {
                c.blocks.chunks_cache.backend = vec!["redis".to_owned()];
            }),
            (format!("{chunks}.subrange_size"), |c| {
                c.blocks.chunks_cache.subrange_size = 1;
            }),
            (format!("{client}: keys of a batch"), |c| {
                c.query_range.results_cache.client.max_get_multi_batch_size = 0;
            }),
        ];
        for (named, set) in wrong {
            let mut config = Config::defaults(false);
            set(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.starts_with(&named), "{named}: {error}");
        }
        let mut config = Config::defaults(false);
        config.query_range.results_cache.host = "cache.local".to_owned();
        assert_eq!(config.validate(), Ok(()));
        let options = config.query_range.results_cache.options().unwrap();
        let name = cache::Address::Service("_memcached._tcp.cache.local".to_owned());
        assert_eq!(options.addresses, [name]);
        let none = Config::defaults(false).query_range.results_cache.options();
        assert_eq!(none, None);
    }
}
