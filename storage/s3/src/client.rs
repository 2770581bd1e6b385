//! The bucket itself: requests and their answers.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, Credentials};
use aws_sdk_s3::primitives::ByteStream;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use objstore::{
    Body, Bucket, Condition, Error, Etag, LIST_MAX, Listed, Listing, Object, PIECES_MAX, Piece,
    Stat, WHOLE_BYTES_MAX, check_key,
};
use tokio::runtime::Runtime;

use crate::failure::{told, unavailable};
use crate::options::Options;
use crate::upload::Upload;

/// See the crate. Bodies of answers that break off are read again this often; the SDK repeats only what fails before them.
const READS_MAX: u32 = 3;

/// Threads of the runtime: they move bytes and, where there is TLS, decrypt them.
const THREADS: usize = 2;

/// A bucket of S3.
pub struct S3 {
    name: String,
    pub(crate) inner: Arc<Inner>,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

/// What requests need.
pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) options: Options,
}

impl S3 {
    /// Prepares a bucket; nothing is sent yet.
    ///
    /// Errors: what [`Options::validate`] says; no threads.
    pub fn open(options: Options) -> Result<S3, Error> {
        options.validate().map_err(|reason| Error::Refused {
            key: options.bucket.clone(),
            reason,
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("myelin-s3")
            .enable_all()
            .build()
            .map_err(|e| unavailable(&options.bucket, e))?;
        let name = format!("s3 {}/{}", options.endpoint, options.bucket);
        let client = wait(&runtime, connect(options.clone()));
        let inner = Arc::new(Inner { client, options });
        Ok(S3 {
            name,
            inner,
            runtime: Some(runtime),
        })
    }

    /// Does something on the runtime and waits for it, on whatever thread the caller has.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let runtime = self.runtime.as_ref().expect("there until it is dropped");
        wait(runtime, work)
    }
}

fn wait<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, receiver) = channel();
    runtime.spawn(async move {
        // The receiver waits below.
        let _ = sender.send(work.await);
    });
    receiver.recv().expect("it answers or has panicked")
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may be dropped where waiting is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3({})", self.name)
    }
}

async fn connect(options: Options) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(options.timeout.min(Duration::from_secs(5)))
        .operation_attempt_timeout(options.timeout)
        .build();
    // "Standard" pauses at random up to 1, 2, 4 .. seconds.
    let retries = RetryConfig::standard().with_max_attempts(options.tries_max);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        .retry_config(retries);
    if !options.region.is_empty() {
        loader = loader.region(Region::new(options.region.clone()));
    }
    if !options.access_key_id.is_empty() {
        let (id, secret) = (&options.access_key_id, &options.secret_access_key);
        let configured = Credentials::new(id, secret, None, None, "configuration");
        loader = loader.credentials_provider(configured);
    }
    let found = loader.load().await;
    let mut builder = Builder::from(&found).force_path_style(options.path_style);
    if found.region().is_none() {
        builder = builder.region(Region::new("us-east-1"));
    }
    if let Some(url) = options.url() {
        builder = builder.endpoint_url(url);
    }
    Client::from_conf(builder.build())
}

impl Inner {
    /// Bounds what the SDK does not: the body of an answer.
    async fn in_time<T>(
        &self,
        key: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // Each of the SDK's tries may take the timeout, and so may the body.
        let whole = self.options.timeout * (self.options.tries_max + 1);
        match tokio::time::timeout(whole, work).await {
            Ok(result) => result,
            Err(_) => Err(unavailable(key, format!("no answer within {whole:?}"))),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<Stat>, Error> {
        let request = self.client.head_object();
        let sent = request.bucket(&self.options.bucket).key(key).send().await;
        match sent.map_err(|e| told(key, e)) {
            Ok(head) => Ok(Some(Stat {
                len: u64::try_from(head.content_length().unwrap_or(0)).unwrap_or(0),
                etag: head.e_tag().map(|etag| Etag(etag.to_owned())),
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, Error> {
        let request = self.client.get_object();
        let sent = request.bucket(&self.options.bucket).key(key).send().await;
        let got = match sent.map_err(|e| told(key, e)) {
            Ok(got) => got,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = u64::try_from(got.content_length().unwrap_or(0)).unwrap_or(0);
        if len > WHOLE_BYTES_MAX as u64 {
            return Err(Error::Input {
                key: key.to_owned(),
                reason: format!("{len} bytes are too many to be got whole"),
            });
        }
        let etag = Etag(got.e_tag().unwrap_or_default().to_owned());
        let body = got.body.collect().await;
        let bytes = body.map_err(|e| unavailable(key, e))?.to_vec();
        check_len(key, len, bytes.len())?;
        Ok(Some(Object { bytes, etag }))
    }

    async fn read(&self, piece: &Piece) -> Result<Vec<u8>, Error> {
        let Piece { key, range } = piece;
        let mut tries = 1;
        loop {
            match self.in_time(key, self.read_once(key, range)).await {
                Err(error) if error.is_passing() && tries < READS_MAX => tries += 1,
                result => return result,
            }
        }
    }

    async fn read_once(&self, key: &str, range: &Range<u64>) -> Result<Vec<u8>, Error> {
        assert!(range.start < range.end, "a piece is not empty");
        let request = self.client.get_object().bucket(&self.options.bucket);
        let range_text = format!("bytes={}-{}", range.start, range.end - 1);
        let sent = request.key(key).range(range_text).send().await;
        let mut body = sent.map_err(|e| told(key, e))?.body;
        let len = (range.end - range.start) as usize;
        let mut bytes = Vec::with_capacity(len);
        while let Some(some) = body.next().await {
            bytes.extend_from_slice(&some.map_err(|e| unavailable(key, e))?);
            if bytes.len() > len {
                // A store that ignores ranges would send everything.
                break;
            }
        }
        check_len(key, len as u64, bytes.len())?;
        Ok(bytes)
    }

    pub(crate) async fn put(
        &self,
        key: &str,
        bytes: Vec<u8>,
        condition: &Condition,
    ) -> Result<Stat, Error> {
        let len = bytes.len() as u64;
        let mut request = self.client.put_object().bucket(&self.options.bucket);
        request = match condition {
            Condition::Always => request,
            Condition::Absent => request.if_none_match("*"),
            Condition::Is(etag) => request.if_match(&etag.0),
        };
        let (kind, key_id, context) = self.options.encryption.headers();
        let request = request
            .set_server_side_encryption(kind)
            .set_ssekms_key_id(key_id)
            .set_ssekms_encryption_context(context)
            .key(key)
            .body(ByteStream::from(bytes));
        let put = match request.send().await.map_err(|e| told(key, e)) {
            // It is gone, so it is not what it was.
            Err(Error::NotFound { key }) if matches!(condition, Condition::Is(_)) => {
                return Err(Error::Condition { key });
            }
            put => put?,
        };
        let etag = put.e_tag().map(|etag| Etag(etag.to_owned()));
        Ok(Stat { len, etag })
    }

    async fn list(&self, prefix: &str, after: &str) -> Result<Listing, Error> {
        let request = self.client.list_objects_v2().bucket(&self.options.bucket);
        let after = Some(after.to_owned()).filter(|after| !after.is_empty());
        let request = request
            .prefix(prefix)
            .set_start_after(after)
            .max_keys(LIST_MAX as i32);
        let page = request.send().await.map_err(|e| told(prefix, e))?;
        let listed = page.contents().iter().filter_map(|object| {
            let modified_ms = object.last_modified().and_then(|at| at.to_millis().ok());
            Some(Listed {
                key: object.key()?.to_owned(),
                len: u64::try_from(object.size().unwrap_or(0)).unwrap_or(0),
                modified_ms,
            })
        });
        Ok(Listing {
            objects: listed.collect(),
            more: page.is_truncated().unwrap_or(false),
        })
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let request = self.client.delete_object().bucket(&self.options.bucket);
        match request.key(key).send().await.map_err(|e| told(key, e)) {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn sweep(&self, prefix: &str, begun_before_ms: i64) -> Result<u64, Error> {
        let mut swept = 0;
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let request = self.client.list_multipart_uploads();
            let page = request
                .bucket(&self.options.bucket)
                .prefix(prefix)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker)
                .send()
                .await
                .map_err(|e| told(prefix, e))?;
            for upload in page.uploads() {
                let begun = upload.initiated().and_then(|at| at.to_millis().ok());
                let is_old = begun.is_some_and(|begun| begun < begun_before_ms);
                if let (true, Some(key), Some(id)) = (is_old, upload.key(), upload.upload_id()) {
                    self.abort(key, id).await?;
                    swept += 1;
                }
            }
            if !page.is_truncated().unwrap_or(false) || page.next_key_marker().is_none() {
                return Ok(swept);
            }
            key_marker = page.next_key_marker().map(str::to_owned);
            id_marker = page.next_upload_id_marker().map(str::to_owned);
        }
    }

    pub(crate) async fn abort(&self, key: &str, id: &str) -> Result<(), Error> {
        let request = self.client.abort_multipart_upload();
        let request = request.bucket(&self.options.bucket).key(key).upload_id(id);
        match request.send().await.map_err(|e| told(key, e)) {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn check_len(key: &str, expected: u64, found: usize) -> Result<(), Error> {
    match found as u64 == expected {
        true => Ok(()),
        false => Err(Error::Corrupt {
            key: key.to_owned(),
            what: "the length",
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}

impl Bucket for S3 {
    fn name(&self) -> &str {
        &self.name
    }

    fn head(&self, key: &str) -> Result<Option<Stat>, Error> {
        check_key(key)?;
        let (inner, key) = (Arc::clone(&self.inner), key.to_owned());
        self.wait(async move { inner.head(&key).await })
    }

    fn get(&self, key: &str) -> Result<Option<Object>, Error> {
        check_key(key)?;
        let (inner, key) = (Arc::clone(&self.inner), key.to_owned());
        self.wait(async move { inner.in_time(&key, inner.get(&key)).await })
    }

    fn read(&self, pieces: &[Piece]) -> Result<Vec<Vec<u8>>, Error> {
        let inner = Arc::clone(&self.inner);
        for piece in pieces {
            check_key(&piece.key)?;
        }
        let pieces = pieces.to_vec();
        self.wait(async move {
            // Owned futures: the compiler cannot tell lifetimes of borrowed ones apart in a spawned task.
            let reads: Vec<_> = pieces
                .into_iter()
                .map(|piece| {
                    let inner = Arc::clone(&inner);
                    async move { inner.read(&piece).await }
                })
                .collect();
            iter(reads).buffered(PIECES_MAX).try_collect().await
        })
    }

    fn put(&self, key: &str, bytes: &[u8], condition: &Condition) -> Result<Stat, Error> {
        check_key(key)?;
        if bytes.len() > WHOLE_BYTES_MAX {
            return Err(Error::Input {
                key: key.to_owned(),
                reason: format!("{} bytes are too many to be put whole", bytes.len()),
            });
        }
        let (inner, key) = (Arc::clone(&self.inner), key.to_owned());
        let (bytes, condition) = (bytes.to_vec(), condition.clone());
        self.wait(async move { inner.put(&key, bytes, &condition).await })
    }

    fn put_large(&self, key: &str, body: &mut dyn Body) -> Result<Stat, Error> {
        check_key(key)?;
        Upload::run(self, key, body)
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing, Error> {
        let (inner, prefix, after) = (Arc::clone(&self.inner), prefix.to_owned(), after.to_owned());
        self.wait(async move { inner.list(&prefix, &after).await })
    }

    fn delete(&self, key: &str) -> Result<(), Error> {
        check_key(key)?;
        let (inner, key) = (Arc::clone(&self.inner), key.to_owned());
        self.wait(async move { inner.delete(&key).await })
    }

    fn sweep(&self, prefix: &str, begun_before_ms: i64) -> Result<u64, Error> {
        let (inner, prefix) = (Arc::clone(&self.inner), prefix.to_owned());
        self.wait(async move { inner.sweep(&prefix, begun_before_ms).await })
    }
}
