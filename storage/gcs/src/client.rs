//! The bucket itself.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::channel;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use http::Method;
use md5::{Digest, Md5};
use objstore::{
    Body, Bucket, Condition, Error, Etag, LIST_MAX, Listed, Listing, Object, PIECES_MAX, Piece,
    Stat, WHOLE_BYTES_MAX, check_key,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::options::Options;
use crate::requests::{Answer, Ask, Requests, pause, unavailable};

/// Threads of the runtime: they move bytes and decrypt them.
const THREADS: usize = 2;

/// A bucket of GCS.
pub struct Gcs {
    name: String,
    inner: Arc<Inner>,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

struct Inner {
    requests: Requests,
}

/// What the store says of an object.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(default)]
    name: String,
    /// Numbers come as texts.
    size: String,
    generation: String,
    md5_hash: Option<String>,
    updated: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    items: Vec<Resource>,
    next_page_token: Option<String>,
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl Resource {
    fn of(key: &str, body: &[u8]) -> Result<Resource, Error> {
        serde_json::from_slice(body)
            .map_err(|error| unavailable(key, format!("its answer: {error}")))
    }

    fn stat(&self, key: &str) -> Result<Stat, Error> {
        let len = self.size.parse();
        Ok(Stat {
            len: len.map_err(|_| unavailable(key, "its answer: a size that is none"))?,
            etag: Some(Etag(self.generation.clone())),
        })
    }

    /// Compares what arrived with what was sent.
    fn compare(&self, key: &str, len: u64, md5: &[u8]) -> Result<Stat, Error> {
        let stat = self.stat(key)?;
        let corrupt = |what, expected: String, found: String| Error::Corrupt {
            key: key.to_owned(),
            what,
            expected,
            found,
        };
        if stat.len != len {
            let (expected, found) = (len.to_string(), stat.len.to_string());
            return Err(corrupt("the length of what arrived", expected, found));
        }
        let expected = BASE64_STANDARD.encode(md5);
        match &self.md5_hash {
            Some(found) if *found != expected => {
                Err(corrupt("the MD5 of what arrived", expected, found.clone()))
            }
            _ => Ok(stat),
        }
    }
}

impl Gcs {
    /// Prepares a bucket; nothing is sent yet.
    ///
    /// Errors: what [`Options::validate`] says; credentials that cannot be read; no threads.
    pub fn open(options: Options) -> Result<Gcs, Error> {
        options.validate().map_err(|reason| Error::Refused {
            key: options.bucket.clone(),
            reason,
        })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("myelin-gcs")
            .enable_all()
            .build()
            .map_err(|e| unavailable(&options.bucket, e))?;
        let name = format!("gcs {}/{}", options.endpoint, options.bucket);
        let requests = {
            let _inside = runtime.enter();
            Requests::new(options)?
        };
        Ok(Gcs {
            name,
            inner: Arc::new(Inner { requests }),
            runtime: Some(runtime),
        })
    }

    /// Does something on the runtime and waits for it, on whatever thread the caller has.
    fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = self.runtime.as_ref().expect("there until it is dropped");
        let (sender, receiver) = channel();
        runtime.spawn(async move {
            // The receiver waits below.
            let _ = sender.send(work.await);
        });
        receiver.recv().expect("it answers or has panicked")
    }
}

impl Drop for Gcs {
    fn drop(&mut self) {
        // It may be dropped where waiting is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for Gcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gcs({})", self.name)
    }
}

impl Inner {
    /// The object itself.
    fn object(&self, key: &str, query: &str) -> String {
        let options = &self.requests.options;
        let (url, bucket) = (options.url(), escaped(&options.bucket));
        format!("{url}/storage/v1/b/{bucket}/o/{}{query}", escaped(key))
    }

    fn upload(&self, kind: &str, key: &str, condition: &Condition) -> String {
        let options = &self.requests.options;
        let (url, bucket) = (options.url(), escaped(&options.bucket));
        let condition = match condition {
            Condition::Always => String::new(),
            Condition::Absent => "&ifGenerationMatch=0".to_owned(),
            Condition::Is(etag) => format!("&ifGenerationMatch={}", escaped(&etag.0)),
        };
        let name = escaped(key);
        format!("{url}/upload/storage/v1/b/{bucket}/o?uploadType={kind}&name={name}{condition}")
    }

    async fn head(&self, key: &str) -> Result<Option<Stat>, Error> {
        let ask = Ask::new(Method::GET, self.object(key, ""));
        match self.requests.ask(key, &ask).await {
            Ok(answer) => Resource::of(key, &answer.body)?.stat(key).map(Some),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, Error> {
        let ask = Ask {
            answer_max: WHOLE_BYTES_MAX,
            ..Ask::new(Method::GET, self.object(key, "?alt=media"))
        };
        let answer = match self.requests.ask(key, &ask).await {
            Ok(answer) => answer,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if answer.body.len() > WHOLE_BYTES_MAX {
            return Err(Error::Input {
                key: key.to_owned(),
                reason: format!("more than {WHOLE_BYTES_MAX} bytes are too many to be got whole"),
            });
        }
        let generation = header(&answer, "x-goog-generation");
        let etag = generation.ok_or_else(|| unavailable(key, "an object without a generation"))?;
        let bytes = answer.body.to_vec();
        Ok(Some(Object {
            bytes,
            etag: Etag(etag),
        }))
    }

    async fn read(&self, piece: &Piece) -> Result<Vec<u8>, Error> {
        let Piece { key, range } = piece;
        assert!(range.start < range.end, "a piece is not empty");
        let len = (range.end - range.start) as usize;
        let range = format!("bytes={}-{}", range.start, range.end - 1);
        let ask = Ask {
            headers: vec![("range", range)],
            answer_max: len,
            ..Ask::new(Method::GET, self.object(key, "?alt=media"))
        };
        let answer = self.requests.ask(key, &ask).await?;
        match answer.body.len() == len {
            true => Ok(answer.body.to_vec()),
            false => Err(Error::Corrupt {
                key: key.clone(),
                what: "the length",
                expected: len.to_string(),
                found: answer.body.len().to_string(),
            }),
        }
    }

    async fn put(&self, key: &str, bytes: Vec<u8>, condition: &Condition) -> Result<Stat, Error> {
        let (len, digest) = (bytes.len() as u64, Md5::digest(&bytes));
        let ask = Ask {
            headers: vec![("content-type", "application/octet-stream".to_owned())],
            body: bytes.into(),
            ..Ask::new(Method::POST, self.upload("media", key, condition))
        };
        let answer = self.requests.ask(key, &ask).await;
        let answer = answer.map_err(|error| match (error, condition) {
            // It is gone, so it is not what it was.
            (Error::NotFound { key }, Condition::Is(_)) => Error::Condition { key },
            (error, _) => error,
        })?;
        Resource::of(key, &answer.body)?.compare(key, len, &digest)
    }

    /// Begins an upload in pieces; where to send them.
    async fn begin(&self, key: &str) -> Result<String, Error> {
        let url = self.upload("resumable", key, &Condition::Always);
        let answer = self.requests.ask(key, &Ask::new(Method::POST, url)).await?;
        header(&answer, "location")
            .ok_or_else(|| unavailable(key, "an upload was begun and not named"))
    }

    /// Sends a piece that begins at `at`; what the store says of the whole when it was the last.
    async fn piece(
        &self,
        (key, session): (&str, &str),
        piece: Bytes,
        (at, total): (u64, u64),
    ) -> Result<Option<Resource>, Error> {
        let end = at + piece.len() as u64;
        let (mut from, mut tries) = (at, 1);
        loop {
            let rest = piece.slice((from - at) as usize..);
            let range = format!("bytes {from}-{}/{total}", end - 1);
            let ask = put_piece(session, range, rest);
            let sent = match self.requests.ask_once(key, &ask).await {
                Err(error) if error.is_passing() && tries < self.requests.options.tries_max => {
                    pause(tries).await;
                    tries += 1;
                    // What of it has arrived the store knows.
                    let ask = put_piece(session, format!("bytes */{total}"), Bytes::new());
                    self.requests.ask(key, &ask).await?
                }
                sent => sent?,
            };
            if sent.status.as_u16() != 308 {
                return Resource::of(key, &sent.body).map(Some);
            }
            let arrived = header(&sent, "range");
            let last = arrived.and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
            from = last.map_or(0, |last| last + 1);
            if from == end {
                return Ok(None);
            }
            if !(at..end).contains(&from) {
                return Err(unavailable(
                    key,
                    format!("it has {from} bytes of an upload, not {at} to {end}"),
                ));
            }
            if tries >= self.requests.options.tries_max {
                return Err(unavailable(key, "it does not take a piece whole"));
            }
            tries += 1;
        }
    }

    async fn give_up(&self, key: &str, session: &str) {
        let ask = Ask::new(Method::DELETE, session.to_owned());
        // It ends by itself, too.
        let _ = self.requests.ask_once(key, &ask).await;
    }

    async fn list(&self, prefix: &str, after: &str) -> Result<Listing, Error> {
        let options = &self.requests.options;
        let (url, bucket) = (options.url(), escaped(&options.bucket));
        let mut token: Option<String> = None;
        loop {
            let mut query = format!("prefix={}&maxResults={LIST_MAX}", escaped(prefix));
            if !after.is_empty() {
                query.push_str(&format!("&startOffset={}", escaped(after)));
            }
            if let Some(token) = &token {
                query.push_str(&format!("&pageToken={}", escaped(token)));
            }
            let url = format!("{url}/storage/v1/b/{bucket}/o?{query}");
            let answer = self.requests.ask(prefix, &Ask::new(Method::GET, url)).await;
            let answer = answer.map_err(|error| match error {
                Error::NotFound { key } => {
                    let reason = "there is no such bucket".to_owned();
                    Error::Refused { key, reason }
                }
                error => error,
            })?;
            let page: Page = serde_json::from_slice(&answer.body)
                .map_err(|error| unavailable(prefix, format!("its answer: {error}")))?;
            // The offset itself belongs to what it begins with.
            let items = page.items.iter().filter(|item| item.name.as_str() > after);
            let listed = |item: &Resource| {
                Ok(Listed {
                    key: item.name.clone(),
                    len: item.stat(&item.name)?.len,
                    modified_ms: item.updated.as_deref().and_then(millis),
                })
            };
            let objects = items.map(listed).collect::<Result<Vec<_>, Error>>()?;
            token = page.next_page_token.filter(|token| !token.is_empty());
            if !objects.is_empty() || token.is_none() {
                return Ok(Listing {
                    objects,
                    more: token.is_some(),
                });
            }
        }
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        let ask = Ask::new(Method::DELETE, self.object(key, ""));
        match self.requests.ask(key, &ask).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn put_piece(session: &str, range: String, body: Bytes) -> Ask {
    Ask {
        headers: vec![("content-range", range)],
        body,
        ..Ask::new(Method::PUT, session.to_owned())
    }
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    let value = answer.headers.get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

/// A time as the store writes it: `2026-11-30T10:23:25.486819Z`.
fn millis(text: &str) -> Option<i64> {
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(time.timestamp_millis())
}

impl Bucket for Gcs {
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
        self.wait(async move { inner.get(&key).await })
    }

    fn read(&self, pieces: &[Piece]) -> Result<Vec<Vec<u8>>, Error> {
        for piece in pieces {
            check_key(&piece.key)?;
        }
        let (inner, pieces) = (Arc::clone(&self.inner), pieces.to_vec());
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
        let unreadable = |reason: String| Error::Body {
            key: key.to_owned(),
            reason,
        };
        let (len, piece_bytes) = (body.len(), self.inner.requests.options.piece_bytes as u64);
        let (inner, owned) = (Arc::clone(&self.inner), key.to_owned());
        if len <= piece_bytes {
            let bytes = body.read(0..len).map_err(unreadable)?;
            return self.wait(async move { inner.put(&owned, bytes, &Condition::Always).await });
        }
        let session = self.wait(async move { inner.begin(&owned).await })?;
        let mut digest = Md5::new();
        let mut send = || {
            let mut at = 0;
            while at < len {
                let end = len.min(at + piece_bytes);
                let bytes = body.read(at..end).map_err(unreadable)?;
                digest.update(&bytes);
                let (inner, owned, session) =
                    (Arc::clone(&self.inner), key.to_owned(), session.clone());
                let place = (at, len);
                let sent = self.wait(async move {
                    inner.piece((&owned, &session), bytes.into(), place).await
                })?;
                at = end;
                if let Some(resource) = sent {
                    let sum = digest.clone().finalize();
                    return match at == len {
                        true => resource.compare(key, len, &sum),
                        false => Err(unavailable(key, "an upload ended before its last piece")),
                    };
                }
            }
            Err(unavailable(
                key,
                "an upload did not end with its last piece",
            ))
        };
        let done = send();
        if done.is_err() {
            let (inner, key) = (Arc::clone(&self.inner), key.to_owned());
            self.wait(async move { inner.give_up(&key, &session).await });
        }
        done
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

    fn sweep(&self, _prefix: &str, _begun_before_ms: i64) -> Result<u64, Error> {
        // See the crate.
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_store() {
        assert_eq!(millis("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(
            millis("2026-11-30T10:23:25.486819Z"),
            Some(1_796_034_205_486)
        );
        assert_eq!(millis("2024-02-29T23:59:59.9Z"), Some(1_709_251_199_900));
        for wrong in [
            "",
            "2026-11-30",
            "2026-13-30T10:23:25Z",
            "2026-11-30T10:23Z",
            "2026-11-31T10:23:25Z",
            "2026-11-30T10:23:25.ééZ",
            "2026-11-9223372036854775807T10:23:25Z",
            "x",
        ] {
            assert_eq!(millis(wrong), None, "{wrong}");
        }
    }
}
