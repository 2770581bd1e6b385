//! How other nodes are reached: by TCP, with TLS where that is configured, and with the secret that nodes share.
//!
//! The secret travels with every call as `authorization: Bearer ..`, so it belongs into TLS. A file of it may have several: the first is shown, all are
//! taken, so that it can be replaced while nodes know either. They are compared by hash and in constant time.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use prometheus::{IntCounterVec, Opts, Registry};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::net::TcpStream;
use tonic::codegen::{InterceptedService, Service};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::tls::{ClientTls, Stream};

/// A connection that is silent for that long is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Shorter ones can be guessed.
const SECRET_BYTES_MIN: usize = 16;

const AUTHORIZATION: &str = "authorization";

/// The secrets that nodes share.
pub struct NodeSecret(RwLock<Known>);

struct Known {
    shown: MetadataValue<Ascii>,
    hashes: Vec<[u8; 32]>,
}

impl NodeSecret {
    /// Of a file: one in each line.
    ///
    /// Errors: none, one that is too short, characters that a header cannot have.
    pub fn new(text: &str) -> Result<NodeSecret, String> {
        Ok(NodeSecret(RwLock::new(Known::read(text)?)))
    }

    /// From now on these hold. Errors: as at the start; then nothing changes.
    pub fn replace(&self, text: &str) -> Result<(), String> {
        let new = Known::read(text)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn shown(&self) -> MetadataValue<Ascii> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.shown.clone()
    }

    fn takes(&self, shown: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(shown).into();
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let equal = |all: Choice, known: &[u8; 32]| all | known.ct_eq(&hash);
        known.hashes.iter().fold(Choice::from(0), equal).into()
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeSecret")
    }
}

impl Known {
    fn read(text: &str) -> Result<Known, String> {
        let secrets = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut shown = None;
        let mut hashes = Vec::new();
        for (at, secret) in secrets.enumerate() {
            // They are not shown.
            if secret.len() < SECRET_BYTES_MIN {
                return Err(format!(
                    "secret {} has fewer than {SECRET_BYTES_MIN} characters",
                    at + 1
                ));
            }
            if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!(
                    "secret {} has characters other than printable ASCII without spaces",
                    at + 1
                ));
            }
            let bearer = format!("Bearer {secret}");
            hashes.push(Sha256::digest(&bearer).into());
            shown = shown.or(Some(bearer));
        }
        let shown = shown.ok_or("there is no secret in it")?;
        let mut shown = MetadataValue::try_from(shown).expect("printable");
        // Not for logs, nor for the table of compression.
        shown.set_sensitive(true);
        Ok(Known { shown, hashes })
    }
}

/// Whom the gRPC server has turned away.
#[derive(Debug, Clone)]
pub(crate) struct Denied(pub(crate) IntCounterVec);

impl Denied {
    /// Panics when the name is taken.
    pub(crate) fn register(registry: &Registry) -> Denied {
        let denied = IntCounterVec::new(
            Opts::new(
                "myelin_grpc_denied_total",
                "Connections to the gRPC port without the TLS that it wants (tls), and calls without the secret that nodes share (secret).",
            ),
            &["reason"],
        );
        let denied = denied.expect("a valid metric");
        registry
            .register(Box::new(denied.clone()))
            .expect("each metric is registered once");
        for reason in ["tls", "secret"] {
            denied.with_label_values(&[reason]);
        }
        Denied(denied)
    }
}

/// Before the services for other nodes: whether the caller is one.
#[derive(Clone)]
pub(crate) struct Check {
    pub(crate) secret: Option<Arc<NodeSecret>>,
    pub(crate) denied: Denied,
}

impl Interceptor for Check {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(secret) = &self.secret else {
            return Ok(request);
        };
        let shown = request.metadata().get(AUTHORIZATION);
        if shown.is_some_and(|shown| secret.takes(shown.as_bytes())) {
            return Ok(request);
        }
        self.denied.0.with_label_values(&["secret"]).inc();
        Err(Status::unauthenticated(match shown {
            None => "the secret that nodes share is missing (server.grpc_secret_file)",
            Some(_) => "the secret that nodes share is another one here (server.grpc_secret_file)",
        }))
    }
}

/// On the caller's side: shows the secret.
#[derive(Debug, Clone, Default)]
pub(crate) struct Show(Option<Arc<NodeSecret>>);

impl Interceptor for Show {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(secret) = &self.0 {
            request.metadata_mut().insert(AUTHORIZATION, secret.shown());
        }
        Ok(request)
    }
}

/// Calls on another node.
pub(crate) type Calls = InterceptedService<Channel, Show>;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Dial {
    /// `None`: clear text.
    pub tls: Option<Arc<ClientTls>>,
    /// Shown to whoever is called.
    pub secret: Option<Arc<NodeSecret>>,
}

impl Dial {
    /// A channel to `address`, `host:port`, that connects when it is first used and again whenever it must; certificates are held
    /// against `host`.
    ///
    /// Errors: an address that is none. Call it where its connections are to live.
    pub(crate) fn lazily(
        &self,
        address: &str,
        host: &str,
        patience: Duration,
    ) -> Result<Calls, String> {
        let (endpoint, connector) = self.endpoint(address, host, patience)?;
        Ok(self.with_secret(endpoint.connect_with_connector_lazy(connector)))
    }

    /// As [`Dial::lazily`], of one that is connected now. Errors: it cannot be reached, or is not who it should be.
    pub(crate) async fn at_once(
        &self,
        address: &str,
        host: &str,
        patience: Duration,
    ) -> Result<Calls, String> {
        let (endpoint, connector) = self.endpoint(address, host, patience)?;
        let channel = endpoint.connect_with_connector(connector).await;
        Ok(self.with_secret(channel.map_err(|error| told(&error))?))
    }

    fn with_secret(&self, channel: Channel) -> Calls {
        InterceptedService::new(channel, Show(self.secret.clone()))
    }

    fn endpoint(
        &self,
        address: &str,
        host: &str,
        patience: Duration,
    ) -> Result<(Endpoint, Connector), String> {
        let wrong = |error: &dyn fmt::Display| format!("{address:?} is no address: {error}");
        let uri = |scheme: &str| format!("{scheme}://{address}").parse::<Uri>();
        let endpoint = Endpoint::from(uri("http").map_err(|error| wrong(&error))?)
            .connect_timeout(patience)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let endpoint = match &self.tls {
            None => endpoint,
            // What the other side is told; the connection is made here, with TLS or without.
            Some(_) => endpoint.origin(uri("https").map_err(|error| wrong(&error))?),
        };
        let connector = Connector {
            tls: self.tls.clone(),
            address: address.into(),
            host: host.into(),
        };
        Ok((endpoint, connector))
    }
}

/// Makes connections.
struct Connector {
    tls: Option<Arc<ClientTls>>,
    address: Arc<str>,
    host: Arc<str>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (tls, address, host) = (self.tls.clone(), self.address.clone(), self.host.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(&*address).await?;
            stream.set_nodelay(true)?;
            let stream = match tls {
                None => Stream::Plain(stream),
                Some(tls) => tls.connect(stream, &host).await?,
            };
            Ok(TokioIo::new(stream))
        })
    }
}

/// An error with its causes.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    with_causes(error.to_string(), error.source())
}

/// What is said, and causes of it that it does not name.
pub(crate) fn with_causes(said: String, cause: Option<&dyn std::error::Error>) -> String {
    let mut text = said;
    let mut cause = cause;
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_replaced_one_after_the_other_and_never_shown() {
        let (first, second) = ("the-first-secret-of-all", "the-second-secret-of-all");
        let old = NodeSecret::new(first).unwrap();
        let both = NodeSecret::new(&format!("{second}\n\n  {first}\n")).unwrap();
        let new = NodeSecret::new(second).unwrap();
        let takes = |of: &NodeSecret, shown: &NodeSecret| of.takes(shown.shown().as_bytes());
        assert!(takes(&both, &old) && takes(&both, &new) && takes(&new, &both));
        assert!(!takes(&old, &new) && !takes(&old, &both));
        assert!(!old.takes(first.as_bytes()) && !old.takes(b"") && !old.takes(b"Bearer "));
        old.replace(second).unwrap();
        assert!(takes(&old, &new));
        for (wrong, why) in [
            ("", "no secret"),
            (" \n", "no secret"),
            ("short", "secret 1 has fewer than 16"),
            (
                "a-secret-that-will-do\nwith a space in it",
                "secret 2 has characters",
            ),
        ] {
            let error = old.replace(wrong).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(takes(&old, &new), "what held goes on holding");
        }
        assert!(!format!("{old:?} {:?}", old.shown()).contains("secret-of"));
    }
}
