//! The gRPC server: the standard health service, so that probes and meshes can ask, and what other nodes ask of this one: series
//! ([`crate::peers`]), queries that wait ([`crate::pull`]).
//!
//! Other nodes show a certificate (`server.grpc_tls_config`), the secret that nodes share ([`crate::dial`]), or both, as configured; the health service asks for
//! no secret.
//!
//! `SERVING` for the empty service name once the log is replayed, `NOT_SERVING` before, while stopping, and after the log failed.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rpc::frontend::frontend_server::FrontendServer;
use rpc::ingester::ingester_server::IngesterServer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::codegen::InterceptedService;
use tonic_health::ServingStatus;

use crate::dial::Check;
use crate::peers::serve::{IngesterService, Local};
use crate::pull::serve::FrontendService;
use crate::state::{Gateway, Phase};
use crate::tls::Stream;

/// How often the state of the node is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Connections that are not served yet.
const HANDSHAKES_MAX: usize = 256;

/// Bounds of the gRPC server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcOptions {
    /// Largest message that is taken, bytes.
    pub recv_bytes_max: usize,
    /// Largest message that is sent, bytes.
    pub send_bytes_max: usize,
    /// Calls at once on one connection; others wait at their client. 0: unlimited.
    pub streams_max: u32,
    /// A connection that is silent for that long is asked whether it lives: one that does not holds queries and what was read for them. Zero: never.
    pub keepalive_time: Duration,
    /// For the answer to that.
    pub keepalive_timeout: Duration,
    /// Clients are asked to connect anew after it, so that they find other nodes; calls under way go on. Zero: never.
    pub connection_age_max: Duration,
}

impl Default for GrpcOptions {
    fn default() -> GrpcOptions {
        GrpcOptions {
            recv_bytes_max: rpc::MESSAGE_BYTES_MAX,
            send_bytes_max: rpc::MESSAGE_BYTES_MAX,
            streams_max: 1000,
            keepalive_time: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(10),
            connection_age_max: Duration::ZERO,
        }
    }
}

impl GrpcOptions {
    fn server(&self) -> tonic::transport::Server {
        let some = |time: Duration| (!time.is_zero()).then_some(time);
        let mut server = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .http2_adaptive_window(Some(true))
            .max_concurrent_streams((self.streams_max > 0).then_some(self.streams_max))
            .http2_keepalive_interval(some(self.keepalive_time))
            .http2_keepalive_timeout(some(self.keepalive_timeout));
        // Not its grace: with one tonic 0.14 says nothing to the client, and cuts the connection.
        if let Some(age) = some(self.connection_age_max) {
            server = server.max_connection_age(age);
        }
        server
    }
}

/// The running gRPC server.
#[derive(Debug)]
pub struct GrpcServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl GrpcServer {
    /// Binds and serves. Errors: the address cannot be bound, the thread not started.
    pub fn start(gateway: Arc<Gateway>, address: SocketAddr) -> io::Result<GrpcServer> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        // Of this process: keys of series that others have been given are void in the next one.
        let incarnation = RandomState::new().hash_one(address);
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("grpc".to_owned())
            .spawn(move || {
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, async move {
                    let bounds = gateway.options.grpc.clone();
                    let (reads, run) = Local::new();
                    let ingester = IngesterService::new(gateway.clone(), incarnation, reads);
                    let ingester = IngesterServer::new(ingester)
                        .max_decoding_message_size(bounds.recv_bytes_max)
                        .max_encoding_message_size(bounds.send_bytes_max);
                    let check = Check {
                        secret: gateway.options.node_secret.clone(),
                        denied: gateway.denied.clone(),
                    };
                    let ingester = InterceptedService::new(ingester, check.clone());
                    let frontend = FrontendServer::new(FrontendService::new(gateway.clone()))
                        .max_decoding_message_size(bounds.recv_bytes_max)
                        .max_encoding_message_size(bounds.send_bytes_max);
                    let frontend = InterceptedService::new(frontend, check);
                    let (reporter, service) = tonic_health::server::health_reporter();
                    let listener =
                        TcpListener::from_std(listener).expect("a listener of this runtime");
                    let report = async {
                        loop {
                            reporter.set_service_status("", status(&gateway)).await;
                            tokio::time::sleep(LOOK).await;
                        }
                    };
                    let until = async move {
                        // An error is the end of the other side, which is a stop too.
                        let _ = stopped.changed().await;
                    };
                    let (sender, receiver) = mpsc::channel(HANDSHAKES_MAX);
                    let accept = accept(listener, gateway.clone(), sender);
                    let incoming = futures_util::stream::unfold(receiver, async |mut receiver| {
                        let stream = receiver.recv().await?;
                        Some((Ok::<_, io::Error>(stream), receiver))
                    });
                    let serve = bounds
                        .server()
                        .add_service(service)
                        .add_service(ingester)
                        .add_service(frontend)
                        .serve_with_incoming_shutdown(Box::pin(incoming), until);
                    tokio::select! {
                        ended = serve => if let Err(error) = ended {
                            tracing::error!(%error, "the gRPC server ended");
                        },
                        () = report => unreachable!("reports for ever"),
                        () = accept => unreachable!("accepts for ever"),
                        () = run => unreachable!("the service holds the other end"),
                    }
                });
            })?;
        Ok(GrpcServer {
            address,
            stop,
            thread,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops; open streams are given half a second.
    pub fn stop(self) {
        // Without a receiver the thread has ended already.
        let _ = self.stop.send(true);
        for _ in 0..50 {
            if self.thread.is_finished() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

/// Takes connections, shakes hands where there is TLS, each for itself, and hands them on.
async fn accept(listener: TcpListener, gateway: Arc<Gateway>, ready: mpsc::Sender<Stream>) {
    let options = &gateway.options;
    let mut shaking = tokio::task::JoinSet::new();
    let mut begun = std::collections::VecDeque::<tokio::task::AbortHandle>::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = shaking.join_next() => continue,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a gRPC connection");
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let (tls, ready) = (options.grpc_tls.clone(), ready.clone());
        let patience = options.read_timeout;
        // Whoever says nothing must not keep others out: the oldest gives way, long done as a rule.
        if begun.len() >= HANDSHAKES_MAX
            && let Some(oldest) = begun.pop_front()
        {
            oldest.abort();
        }
        let at = gateway.clone();
        let shake = async move {
            let stream = match &tls {
                None => Stream::Plain(stream),
                Some(tls) => match tls.accept(stream, patience).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        at.denied.0.with_label_values(&["tls"]).inc();
                        if let Some(left_out) = at.told.room(Instant::now()) {
                            tracing::warn!(%from, %error, left_out, "a gRPC connection without the TLS that is wanted");
                        }
                        return;
                    }
                },
            };
            // Without a receiver the server is stopping.
            let _ = ready.send(stream).await;
        };
        begun.push_back(shaking.spawn(shake));
    }
}

fn status(gateway: &Gateway) -> ServingStatus {
    let healthy = || {
        gateway
            .services()
            .is_ok_and(|services| (services.health)().is_ok())
    };
    match gateway.phase() {
        Phase::Serving if healthy() => ServingStatus::Serving,
        _ => ServingStatus::NotServing,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use prometheus::Registry;
    use rpc::ingester::HelloRequest;
    use rpc::ingester::ingester_client::IngesterClient;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Answer;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;
    use crate::dial::{Calls, Dial, NodeSecret};
    use crate::state::tests::options;
    use crate::tls::{ClientTls, ClientTlsFiles, Tls};

    fn start(options: crate::Options) -> GrpcServer {
        let gateway = Arc::new(Gateway::new(options, &Registry::new()));
        GrpcServer::start(gateway, "127.0.0.1:0".parse().unwrap()).unwrap()
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(work)
    }

    async fn dialed(server: &GrpcServer, dial: Dial) -> Result<Calls, String> {
        let address = server.address().to_string();
        dial.at_once(&address, "localhost", Duration::from_secs(10))
            .await
    }

    async fn health(calls: Calls) -> Answer {
        let mut client = HealthClient::new(calls);
        let answer = client.check(HealthCheckRequest::default()).await;
        answer.unwrap().into_inner().status()
    }

    fn tls() -> Option<Arc<ClientTls>> {
        let anybody = ClientTls::new(&ClientTlsFiles::default(), None);
        Some(Arc::new(anybody.unwrap()))
    }

    #[test]
    fn the_health_service_answers_and_does_not_claim_to_serve_during_a_replay() {
        let server = start(options());
        let answer =
            block_on(async { health(dialed(&server, Dial::default()).await.unwrap()).await });
        assert_eq!(answer, Answer::NotServing);
        server.stop();
    }

    #[test]
    fn a_handshake_that_says_nothing_gives_way_to_others() {
        let server = start(crate::Options {
            grpc_tls: Some(Arc::new(Tls::grpc(&crate::tls::tests::files()).unwrap())),
            read_timeout: Duration::from_secs(600),
            ..options()
        });
        let silent = || std::net::TcpStream::connect(server.address()).unwrap();
        let mut all: Vec<_> = (0..HANDSHAKES_MAX).map(|_| silent()).collect();
        let answer = block_on(async {
            let dial = Dial {
                tls: tls(),
                secret: None,
            };
            health(dialed(&server, dial).await.unwrap()).await
        });
        assert_eq!(answer, Answer::NotServing);
        // The oldest has been hung up on, the youngest waits.
        let mut ended = |at: usize, patience| {
            let stream = &mut all[at];
            stream.set_read_timeout(Some(patience)).unwrap();
            matches!(stream.read(&mut [0]), Ok(0))
        };
        assert!(ended(0, Duration::from_secs(60)));
        assert!(!ended(HANDSHAKES_MAX - 1, Duration::from_millis(50)));
        server.stop();
    }

    #[test]
    fn nodes_are_served_who_show_the_secret_and_probes_without() {
        let secret = |text: &str| Some(Arc::new(NodeSecret::new(text).unwrap()));
        let server = start(crate::Options {
            node_secret: secret("a-secret-of-all-nodes"),
            ..options()
        });
        let hello = |shown: Option<Arc<NodeSecret>>| {
            let server = &server;
            block_on(async move {
                let dial = Dial {
                    tls: None,
                    secret: shown,
                };
                let calls = dialed(server, dial).await.unwrap();
                let mut ingester = IngesterClient::new(calls.clone());
                let hello = ingester.hello(HelloRequest::default()).await.unwrap_err();
                assert_eq!(health(calls).await, Answer::NotServing);
                (hello.code(), hello.message().to_owned())
            })
        };
        for (shown, why) in [
            (None, "is missing"),
            (secret("a-secret-of-others"), "another"),
        ] {
            let (code, said) = hello(shown);
            assert_eq!(code, tonic::Code::Unauthenticated);
            assert!(said.contains(why), "{said}");
        }
        // A whole node is not asked by others at all, and says so to those who may ask.
        assert_eq!(
            hello(secret("a-secret-of-all-nodes")).0,
            tonic::Code::Unimplemented
        );
        server.stop();
    }

    /// What HTTP/2 says on a connection on which nothing is asked: settings and types of frames, until the server hangs up, there was `wanted`, or
    /// `patience` is over.
    fn told(
        server: &GrpcServer,
        wanted: Option<u8>,
        patience: Duration,
    ) -> (Vec<(u16, u32)>, Vec<u8>, bool) {
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        let wait = Duration::from_millis(50);
        stream.set_read_timeout(Some(wait)).unwrap();
        let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
        stream.write_all(hello).unwrap();
        let (mut bytes, mut some, mut ended) = (Vec::new(), [0; 4096], false);
        let begun = Instant::now();
        loop {
            let (settings, kinds) = frames(&bytes);
            let seen = wanted.is_some_and(|wanted| kinds.contains(&wanted));
            if begun.elapsed() > patience || ended || seen {
                return (settings, kinds, ended);
            }
            match stream.read(&mut some) {
                Ok(0) => ended = true,
                Ok(n) => bytes.extend_from_slice(&some[..n]),
                Err(error) => ended = error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    fn frames(bytes: &[u8]) -> (Vec<(u16, u32)>, Vec<u8>) {
        let (mut settings, mut kinds) = (Vec::new(), Vec::new());
        let mut rest = bytes;
        while let [a, b, c, kind, flags, _, _, _, _, behind @ ..] = rest {
            let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            let Some((payload, next)) = behind.split_at_checked(len) else {
                break;
            };
            kinds.push(*kind);
            if (*kind, flags & 1) == (4, 0) {
                settings.extend(payload.chunks_exact(6).map(|one| {
                    let value = u32::from_be_bytes(one[2..].try_into().unwrap());
                    (u16::from_be_bytes([one[0], one[1]]), value)
                }));
            }
            rest = next;
        }
        (settings, kinds)
    }

    /// Settings of HTTP/2, and types of its frames.
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const PING: u8 = 6;
    const GO_AWAY: u8 = 7;

    #[test]
    fn streams_keepalive_and_age_of_connections_are_as_configured() {
        let server = start(crate::Options {
            grpc: GrpcOptions {
                streams_max: 7,
                keepalive_time: Duration::from_millis(100),
                keepalive_timeout: Duration::from_millis(100),
                ..GrpcOptions::default()
            },
            ..options()
        });
        let (settings, kinds, ended) = told(&server, None, Duration::from_secs(60));
        assert!(
            settings.contains(&(MAX_CONCURRENT_STREAMS, 7)),
            "{settings:?}"
        );
        assert!(kinds.contains(&PING) && ended, "{kinds:?}: we never answer");
        server.stop();

        let server = start(crate::Options {
            grpc: GrpcOptions {
                connection_age_max: Duration::from_millis(100),
                ..GrpcOptions::default()
            },
            ..options()
        });
        let (_, kinds, _) = told(&server, Some(GO_AWAY), Duration::from_secs(60));
        assert!(kinds.contains(&GO_AWAY), "{kinds:?}");
        server.stop();

        let server = start(options());
        let (settings, kinds, ended) = told(&server, None, Duration::from_millis(400));
        assert!(
            settings.contains(&(MAX_CONCURRENT_STREAMS, 1000)),
            "{settings:?}"
        );
        assert!(!kinds.contains(&PING) && !kinds.contains(&GO_AWAY) && !ended);
        server.stop();
    }

    #[test]
    fn messages_are_bounded_as_configured() {
        let bounded = |recv_bytes_max, send_bytes_max| {
            let server = start(crate::Options {
                grpc: GrpcOptions {
                    recv_bytes_max,
                    send_bytes_max,
                    ..GrpcOptions::default()
                },
                ..options()
            });
            let answer = block_on(async {
                let calls = dialed(&server, Dial::default()).await.unwrap();
                let request = rpc::ingester::DeletionsRequest {
                    tenant: "x".repeat(2000),
                };
                let answer = IngesterClient::new(calls).deletions(request).await;
                answer.unwrap_err()
            });
            server.stop();
            answer
        };
        let small = bounded(1000, 1000);
        assert_eq!(small.code(), tonic::Code::OutOfRange, "{small:?}");
        assert!(small.message().contains("1000 bytes"), "{small:?}");
        // It was read, and there is no ingester.
        let large = bounded(4000, 1000);
        assert_ne!(large.code(), tonic::Code::OutOfRange, "{large:?}");
    }

    #[test]
    fn clear_text_and_tls_do_not_meet() {
        let server = start(options());
        let dial = Dial {
            tls: tls(),
            secret: None,
        };
        let error = block_on(dialed(&server, dial)).unwrap_err();
        assert!(error.contains("does not speak TLS"), "{error}");
        server.stop();
    }
}
