//! What an operator says of a bucket.

use std::time::Duration;

/// A bucket and how it is reached.
#[derive(Clone)]
pub struct Options {
    /// Its name.
    pub bucket: String,
    /// A service account as JSON, or the path of such a file; empty: the usual chain, and where there is an endpoint nobody.
    pub service_account: String,
    /// Where it is, as a URL; empty: Google's.
    pub endpoint: String,
    /// For one try of one request, its body included.
    pub timeout: Duration,
    /// Tries of one request.
    pub tries_max: u32,
    /// Bytes of a piece of a large object; what is smaller is put whole.
    pub piece_bytes: usize,
}

/// The store wants pieces of multiples of this.
const PIECE_BYTES_UNIT: usize = 256 << 10;

/// Bytes of pieces in memory; one upload is under way at a time.
const PIECE_BYTES_MAX: usize = 1 << 30;

impl Options {
    /// A bucket of Google's.
    pub fn new(bucket: &str) -> Options {
        Options {
            bucket: bucket.to_owned(),
            service_account: String::new(),
            endpoint: String::new(),
            timeout: Duration::from_secs(30),
            tries_max: 5,
            piece_bytes: 16 << 20,
        }
    }

    /// Checks what belongs together. The error is a sentence.
    pub fn validate(&self) -> Result<(), String> {
        if self.bucket.is_empty() {
            return Err("the bucket has no name".to_owned());
        }
        if !self.endpoint.is_empty() && !self.endpoint.contains("://") {
            return Err(format!("{:?} is no URL", self.endpoint));
        }
        let is_sound = (PIECE_BYTES_UNIT..=PIECE_BYTES_MAX).contains(&self.piece_bytes)
            && self.piece_bytes.is_multiple_of(PIECE_BYTES_UNIT);
        if !is_sound {
            return Err(format!(
                "pieces have multiples of {PIECE_BYTES_UNIT} bytes up to {PIECE_BYTES_MAX}, not {}",
                self.piece_bytes
            ));
        }
        if self.timeout.is_zero() || self.tries_max == 0 {
            return Err("a request needs some time and at least one try".to_owned());
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> &str {
        match self.endpoint.trim_end_matches('/') {
            "" => "https://storage.googleapis.com",
            url => url,
        }
    }
}

/// Without the secret.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("bucket", &self.bucket)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
