//! One request: signed, in time, repeated while that may help, and its answer by what it means to us.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use object_store::ClientOptions;
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};
use objstore::Error;
use serde::Deserialize;

use crate::options::Options;

/// The first pause between two tries; each is up to twice the one before.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// For the connection of a request.
const CONNECT: Duration = Duration::from_secs(5);

/// What sends requests.
pub(crate) struct Requests {
    http: HttpClient,
    /// `None`: nobody signs.
    credentials: Option<GcpCredentialProvider>,
    pub(crate) options: Options,
}

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// More is not taken from the answer.
    pub(crate) answer_max: usize,
}

/// What came back: any status below 400 (redirects too: one of them says that an upload goes on).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What the store says of an error.
#[derive(Deserialize)]
struct Said {
    error: SaidError,
}

#[derive(Deserialize)]
struct SaidError {
    #[serde(default)]
    message: String,
}

impl Ask {
    pub(crate) fn new(method: Method, url: String) -> Ask {
        Ask {
            method,
            url,
            headers: Vec::new(),
            body: Bytes::new(),
            answer_max: 16 << 20,
        }
    }
}

impl Requests {
    /// Errors: credentials that cannot be read.
    pub(crate) fn new(options: Options) -> Result<Requests, Error> {
        let refused = |error: object_store::Error| Error::Refused {
            key: options.bucket.clone(),
            // It may name the file, never what is in it.
            reason: format!("credentials: {error}"),
        };
        let account = options.service_account.trim();
        let credentials = match (account, options.endpoint.is_empty()) {
            ("", false) => None,
            (account, _) => {
                let builder = GoogleCloudStorageBuilder::new().with_bucket_name(&options.bucket);
                let builder = match account {
                    // The crate reads it for a builder that takes all from the environment only.
                    "" => match std::env::var("GOOGLE_APPLICATION_CREDENTIALS") {
                        Ok(path) if !path.is_empty() => builder.with_application_credentials(path),
                        _ => builder,
                    },
                    json if json.starts_with('{') => builder.with_service_account_key(json),
                    path => builder.with_service_account_path(path),
                };
                let store = builder.build().map_err(refused)?;
                Some(store.credentials().clone())
            }
        };
        let client = ClientOptions::new()
            .with_allow_http(true)
            .with_connect_timeout(options.timeout.min(CONNECT))
            // Each try has an end of its own.
            .with_timeout_disabled();
        let http = ReqwestConnector::default()
            .connect(&client)
            .map_err(refused)?;
        Ok(Requests {
            http,
            credentials,
            options,
        })
    }

    /// Sends it, and again while that may help.
    pub(crate) async fn ask(&self, key: &str, ask: &Ask) -> Result<Answer, Error> {
        let mut tries = 1;
        loop {
            match self.ask_once(key, ask).await {
                Err(error) if error.is_passing() && tries < self.options.tries_max => {
                    pause(tries).await;
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    pub(crate) async fn ask_once(&self, key: &str, ask: &Ask) -> Result<Answer, Error> {
        let done = tokio::time::timeout(self.options.timeout, self.send(key, ask)).await;
        done.unwrap_or_else(|_| Err(unavailable(key, "no answer in time")))
    }

    async fn send(&self, key: &str, ask: &Ask) -> Result<Answer, Error> {
        let mut request = http::Request::builder()
            .method(ask.method.clone())
            .uri(&ask.url)
            .header("content-length", ask.body.len());
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some(credentials) = &self.credentials {
            let token = credentials.get_credential().await;
            let token = token.map_err(|error| unavailable(key, error))?;
            request = request.header("authorization", format!("Bearer {}", token.bearer));
        }
        let request = request.body(ask.body.clone().into());
        let request = request.map_err(|error| Error::Refused {
            key: key.to_owned(),
            reason: error.to_string(),
        })?;
        let sent = self.http.execute(request).await;
        let (parts, body) = sent
            .map_err(|error| unavailable(key, told(&error)))?
            .into_parts();
        let mut bytes = Vec::new();
        let mut stream = body.bytes_stream();
        while let Some(some) = stream.next().await {
            bytes.extend_from_slice(&some.map_err(|error| unavailable(key, told(&error)))?);
            if bytes.len() > ask.answer_max {
                break; // A store that ignores ranges would send everything.
            }
        }
        match parts.status.as_u16() {
            200..=399 => Ok(Answer {
                status: parts.status,
                headers: parts.headers,
                body: bytes.into(),
            }),
            status => Err(meaning(key, status, &bytes)),
        }
    }
}

pub(crate) async fn pause(tries: u32) {
    let most = PAUSE.saturating_mul(1 << tries.min(10)).min(PAUSE_MAX);
    // Several that failed together do not come back together.
    let chance = RandomState::new().hash_one(tries) % 1000;
    tokio::time::sleep(most.mul_f64(0.5 + chance as f64 / 2000.0)).await;
}

/// With its causes.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}

fn meaning(key: &str, status: u16, body: &[u8]) -> Error {
    let key = key.to_owned();
    let said = serde_json::from_slice::<Said>(body).map(|said| said.error.message);
    let said = said.unwrap_or_else(|_| {
        let start = &body[..body.len().min(200)];
        String::from_utf8_lossy(start).into_owned()
    });
    let reason = format!("{status}: {said}");
    match status {
        // One that is not there is not an object that is not there.
        404 if said.starts_with("The specified bucket") => Error::Refused { key, reason },
        404 => Error::NotFound { key },
        412 => Error::Condition { key },
        416 => Error::Corrupt {
            key,
            what: "the length",
            expected: "the end of the range or more".to_owned(),
            found: "less".to_owned(),
        },
        // 401: a token may have ended on the way.
        401 | 408 | 429 | 500.. => Error::Unavailable { key, reason },
        _ => Error::Refused { key, reason },
    }
}

pub(crate) fn unavailable(key: &str, reason: impl ToString) -> Error {
    Error::Unavailable {
        key: key.to_owned(),
        reason: reason.to_string(),
    }
}
