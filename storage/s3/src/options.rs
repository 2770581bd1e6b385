//! What an operator says of a bucket.

use std::time::Duration;

/// A bucket and how it is reached.
#[derive(Clone)]
pub struct Options {
    /// Its name.
    pub bucket: String,
    /// Where it is, as a URL or `host:port`; empty: Amazon's, by region.
    pub endpoint: String,
    /// Empty: what the SDK finds, else `us-east-1`, which other stores do not mind.
    pub region: String,
    /// Empty: the SDK's chain of credentials.
    pub access_key_id: String,
    /// Goes with `access_key_id`.
    pub secret_access_key: String,
    /// Plain HTTP, where the endpoint does not say.
    pub insecure: bool,
    /// The bucket in the path and not in the name of the host.
    pub path_style: bool,
    /// By the store, at rest.
    pub encryption: Encryption,
    /// For one try of one request, its body included.
    pub timeout: Duration,
    /// Tries of one request.
    pub tries_max: u32,
    /// Bytes of a part of a large object; what is smaller is put whole.
    pub part_bytes: usize,
}

/// What the store does with an object before it writes it down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encryption {
    /// What the bucket is set to.
    #[default]
    Bucket,
    /// With keys of the store.
    Store,
    /// With a key of the key service.
    Kms {
        /// Empty: the account's own.
        key_id: String,
        /// Bound to the key by the service: a JSON object of texts, or empty.
        context: String,
    },
}

/// S3's least size of a part that is not the last.
const PART_BYTES_MIN: usize = 5 << 20;

/// Bytes of parts in memory; one upload is under way at a time.
const PART_BYTES_MAX: usize = 1 << 30;

impl Options {
    /// A bucket of Amazon's.
    pub fn new(bucket: &str) -> Options {
        Options {
            bucket: bucket.to_owned(),
            endpoint: String::new(),
            region: String::new(),
            access_key_id: String::new(),
            secret_access_key: String::new(),
            insecure: false,
            path_style: false,
            encryption: Encryption::Bucket,
            timeout: Duration::from_secs(30),
            tries_max: 5,
            part_bytes: 16 << 20,
        }
    }

    /// Checks what belongs together. The error is a sentence.
    pub fn validate(&self) -> Result<(), String> {
        if self.bucket.is_empty() {
            return Err("the bucket has no name".to_owned());
        }
        if self.access_key_id.is_empty() != self.secret_access_key.is_empty() {
            return Err("access_key_id and secret_access_key go together".to_owned());
        }
        if !(PART_BYTES_MIN..=PART_BYTES_MAX).contains(&self.part_bytes) {
            return Err(format!(
                "parts have {PART_BYTES_MIN} to {PART_BYTES_MAX} bytes, not {}",
                self.part_bytes
            ));
        }
        if self.timeout.is_zero() || self.tries_max == 0 {
            return Err("a request needs some time and at least one try".to_owned());
        }
        Ok(())
    }

    /// The endpoint as a URL; `None`: Amazon's.
    pub(crate) fn url(&self) -> Option<String> {
        let scheme = if self.insecure { "http" } else { "https" };
        match self.endpoint.as_str() {
            "" => None,
            url if url.contains("://") => Some(url.to_owned()),
            host => Some(format!("{scheme}://{host}")),
        }
    }
}

/// Without the secret.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("path_style", &self.path_style)
            .field("encryption", &self.encryption)
            .finish_non_exhaustive()
    }
}
