//! The gRPC server: the standard health service, so that probes and meshes can ask, and what other nodes ask of this one: series
//! ([`crate::peers`]), queries that wait ([`crate::pull`]).
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
use tonic_health::ServingStatus;

use crate::peers::serve::{IngesterService, Local};
use crate::pull::serve::FrontendService;
use crate::state::{Gateway, Phase};
use crate::tls::Stream;

/// How often the state of the node is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A connection that is silent for that long is asked whether it lives: one that does not holds queries and what was read for them.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Connections that are not served yet.
const HANDSHAKES_MAX: usize = 256;

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
                    let (reads, run) = Local::new();
                    let ingester = IngesterService::new(gateway.clone(), incarnation, reads);
                    let ingester = IngesterServer::new(ingester)
                        .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
                        .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
                    let frontend = FrontendServer::new(FrontendService::new(gateway.clone()))
                        .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
                        .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
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
                    let serve = tonic::transport::Server::builder()
                        .tcp_nodelay(true)
                        .http2_adaptive_window(Some(true))
                        .http2_keepalive_interval(Some(KEEP_ALIVE))
                        .http2_keepalive_timeout(Some(KEEP_ALIVE))
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
        let stream = match accepted {
            Ok((stream, _)) => stream,
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
        let shake = async move {
            let stream = match &tls {
                None => Stream::Plain(stream),
                Some(tls) => match tls.accept(stream, patience).await {
                    Ok(stream) => stream,
                    Err(error) => return tracing::debug!(%error, "no TLS"),
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
    use prometheus::Registry;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus as Answer;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;
    use crate::state::tests::options;

    #[test]
    fn the_health_service_answers_and_does_not_claim_to_serve_during_a_replay() {
        let gateway = Arc::new(Gateway::new(options(), &Registry::new()));
        let server = GrpcServer::start(gateway, "127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}", server.address());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let answer = runtime.block_on(async {
            let channel = tonic::transport::Endpoint::from_shared(url)
                .unwrap()
                .connect()
                .await;
            let mut client = HealthClient::new(channel.unwrap());
            client
                .check(HealthCheckRequest::default())
                .await
                .unwrap()
                .into_inner()
        });
        assert_eq!(answer.status(), Answer::NotServing);
        server.stop();
    }
}
