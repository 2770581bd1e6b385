//! Long-term storage of a node: the bucket that is configured, uploads to it and reads from it.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use block::Catalog;
use gcs::Gcs;
use longterm::{Indexes, Longterm, Uploader, Uploads};
use model::TenantId;
use objstore::{Bucket, Filesystem, Metered};
use prometheus::Registry;
use reactor::{IoMode, Reactor};
use s3::{Encryption, S3};

use crate::config::{Backend, Config, GcsBucket, Lookup, S3Bucket, Sse};

/// What runs where there is a bucket.
pub(crate) struct Storage {
    pub(crate) longterm: Longterm,
    uploads: Uploads,
}

impl Storage {
    /// Starts uploads; `None` without a backend. Nothing of the bucket is needed yet: it may be out.
    pub(crate) fn start(
        config: &Config,
        io: IoMode,
        catalog: Arc<Catalog>,
        retention_ms: impl Fn(&TenantId) -> i64 + Send + 'static,
        caches: longterm::Caches,
        registry: &Registry,
    ) -> anyhow::Result<Option<Storage>> {
        let blocks = &config.blocks;
        let bucket: Arc<dyn Bucket> = match blocks.backend {
            Backend::None => return Ok(None),
            Backend::Filesystem => {
                let dir = Path::new(&blocks.filesystem_dir);
                let opened = directory(dir, io).context("blocks_storage.filesystem.dir")?;
                Arc::new(Metered::new(opened, registry)?)
            }
            Backend::S3 => {
                let opened = S3::open(s3_options(&blocks.s3)).context("blocks_storage.s3")?;
                Arc::new(Metered::new(opened, registry)?)
            }
            Backend::Gcs => {
                let opened = Gcs::open(gcs_options(&blocks.gcs)).context("blocks_storage.gcs")?;
                Arc::new(Metered::new(opened, registry)?)
            }
        };
        // Deletions have their place behind all that it has seen.
        let unready = "the bucket has not been looked into since the start: ask again";
        catalog.deletions().set_bucket(unready);
        let options = longterm::Options {
            interval: blocks.ship_interval,
            unmerged_after: blocks.ship_unmerged_after,
            local_retention: blocks.local_retention,
            deletion_delay: blocks.deletion_delay,
            cleanup_interval: blocks.cleanup_interval,
            index_age: blocks.sync_interval,
            node: node_name(),
            io,
            ..longterm::Options::new(shard::blocks_directory(&config.data_dir))
        };
        let indexes = Arc::new(Indexes::new(bucket.clone(), options.index_bytes));
        let interval = options.interval;
        let uploader = Uploader::new(
            options,
            catalog,
            bucket.clone(),
            indexes.clone(),
            retention_ms,
            registry,
        )?;
        let headers: Option<(Arc<dyn Bucket>, u64)> = match blocks.header_bytes.0 {
            0 => None,
            bytes => {
                let dir = config.data_dir.join("bucket");
                let opened = directory(&dir, io).context("indexes of blocks of the bucket")?;
                Some((Arc::new(opened), bytes))
            }
        };
        let age_ms = i64::try_from(blocks.sync_interval.as_millis())?;
        let now_ms = crate::node::now_ms;
        let longterm = Longterm::new(bucket.clone(), indexes, headers, age_ms, now_ms, &uploader)?;
        let longterm = longterm.with_caches(caches);
        let uploads =
            Uploads::start(uploader, interval, io).context("the thread of the uploader")?;
        tracing::info!(bucket = bucket.name(), "blocks go to long-term storage");
        Ok(Some(Storage { longterm, uploads }))
    }

    /// Begins nothing more.
    pub(crate) fn stop(self) {
        self.uploads.stop();
    }
}

fn directory(dir: &Path, io: IoMode) -> anyhow::Result<Filesystem> {
    let options = reactor::Options {
        io,
        ..Default::default()
    };
    let opened = Filesystem::open(dir, move || Reactor::open(&options));
    opened.map_err(|error| anyhow!("{}: {error}", dir.display()))
}

fn s3_options(s3: &S3Bucket) -> s3::Options {
    s3::Options {
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        access_key_id: s3.access_key_id.clone(),
        secret_access_key: s3.secret_access_key.0.clone(),
        insecure: s3.insecure,
        path_style: match s3.bucket_lookup_type {
            Lookup::Auto => !s3.endpoint.is_empty(),
            Lookup::Path => true,
            Lookup::VirtualHosted => false,
        },
        encryption: match s3.sse_type {
            Sse::None => Encryption::Bucket,
            Sse::S3 => Encryption::Store,
            Sse::Kms => Encryption::Kms {
                key_id: s3.sse_kms_key_id.clone(),
                context: s3.sse_kms_encryption_context.clone(),
            },
        },
        timeout: s3.request_timeout,
        tries_max: s3.max_retries.max(1),
        ..s3::Options::new(&s3.bucket_name)
    }
}

fn gcs_options(gcs: &GcsBucket) -> gcs::Options {
    gcs::Options {
        service_account: gcs.service_account.0.clone(),
        endpoint: gcs.endpoint.clone(),
        timeout: gcs.request_timeout,
        tries_max: gcs.max_retries.max(1),
        ..gcs::Options::new(&gcs.bucket_name)
    }
}

/// The host's name, as far as a key can have it.
fn node_name() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let name: String = name
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '.')
        .take(64)
        .collect();
    match name.is_empty() {
        true => "node".to_owned(),
        false => name,
    }
}
