//! The HTTP server: one acceptor, several threads with a single-threaded runtime each.
//!
//! The acceptor takes a connection only while fewer than the maximum are open (the rest wait in the listen queue of the system) and
//! hands it to the next thread in turn; from then on everything about it happens on that thread, without locks. A panic while a
//! request is served becomes a counted 500 and costs that connection only.
//!
//! To stop: the listener closes, idle connections close, those at work finish their request; what has not finished by the deadline
//! is cut.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::auth::CertificateName;
use crate::connection::{Patience, Phase, Received, SharedPhase, Socket, Unread};
use crate::handle;
use crate::reply::{self, Body};
use crate::state::{Gateway, Thread};
use crate::tls::Stream;

/// Largest head of a request; a query by GET has to fit. Larger ones are answered 431.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// Stack of a gateway thread.
const STACK_BYTES: usize = 4 << 20;

/// What a thread gets to do.
enum Given {
    /// A connection, with its place among the open ones.
    Connection(std::net::TcpStream, OwnedSemaphorePermit),
    /// A request that came another way.
    Call(Box<Call>),
}

struct Call {
    request: Request<Bytes>,
    bytes_max: usize,
    answer: oneshot::Sender<Result<Response<Bytes>, CallError>>,
}

/// Why a request that came another way has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The threads have ended.
    #[error("shutting down")]
    Stopping,
    /// The answer is larger than may be handed on.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// It broke off while it was made.
    #[error("the answer broke off: {0}")]
    Broken(String),
}

impl CallError {
    /// The status that says so.
    pub(crate) fn status(&self) -> u32 {
        match self {
            CallError::Stopping => 503,
            CallError::TooLarge(_) => 422,
            CallError::Broken(_) => 500,
        }
    }
}

/// A way to the server's threads beside its sockets; cheap to clone.
#[derive(Debug, Clone)]
pub struct Calls {
    ways: Arc<[mpsc::UnboundedSender<Given>]>,
    turn: Arc<AtomicUsize>,
}

impl Calls {
    /// Answers a request as if it had come over a socket, with at most so many bytes. Work ends when nobody waits for it.
    pub(crate) async fn call(
        &self,
        request: Request<Bytes>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, CallError> {
        let (answer, answered) = oneshot::channel();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let call = Box::new(Call {
            request,
            bytes_max,
            answer,
        });
        let sent = self.ways[turn % self.ways.len()].send(Given::Call(call));
        sent.map_err(|_| CallError::Stopping)?;
        answered.await.map_err(|_| CallError::Stopping)?
    }
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<Option<Instant>>,
    threads: Vec<JoinHandle<()>>,
    calls: Calls,
}

impl Server {
    /// Binds and serves. Errors: the address cannot be bound, a thread not started.
    pub fn start(gateway: Arc<Gateway>, address: SocketAddr) -> io::Result<Server> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(None);
        let mut threads = Vec::new();
        let mut ways = Vec::new();
        for n in 0..gateway.options.threads.max(1) {
            let (sender, receiver) = mpsc::unbounded_channel();
            ways.push(sender);
            let (gateway, stopped) = (gateway.clone(), stopped.clone());
            threads.push(spawn(
                format!("gateway-{n}"),
                gateway.options.thread_begins,
                serve(gateway, receiver, stopped),
            )?);
        }
        let calls = Calls {
            ways: ways.clone().into(),
            turn: Arc::default(),
        };
        let places = Arc::new(Semaphore::new(gateway.options.connections_max.max(1)));
        threads.push(spawn(
            "acceptor".to_owned(),
            gateway.options.thread_begins,
            accept(listener, ways, places, stopped),
        )?);
        Ok(Server {
            address,
            stop,
            threads,
            calls,
        })
    }

    /// A way to its threads beside the sockets.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Where it listens; the port is real also where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops; requests in flight have until `grace` is over.
    pub fn stop(self, grace: Duration) {
        // Without a receiver all threads have ended already.
        let _ = self.stop.send(Some(Instant::now() + grace));
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a gateway thread ended in a panic");
            }
        }
    }
}

/// A thread with a runtime that runs one future; `make` is called on it, so the future need not be `Send`.
fn spawn<F: Future<Output = ()>>(
    name: String,
    begins: fn(),
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(move || {
            begins();
            let local = LocalSet::new();
            local.block_on(&runtime, make());
        })
}

fn accept(
    listener: std::net::TcpListener,
    ways: Vec<mpsc::UnboundedSender<Given>>,
    places: Arc<Semaphore>,
    mut stopped: watch::Receiver<Option<Instant>>,
) -> impl FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send {
    move || {
        Box::pin(async move {
            let listener = TcpListener::from_std(listener).expect("a listener of this runtime");
            for way in ways.iter().cycle() {
                let next = async {
                    let place = places.clone().acquire_owned().await.expect("never closed");
                    (take(&listener).await, place)
                };
                let (stream, place) = tokio::select! {
                    accepted = next => accepted,
                    _ = stopped.changed() => return,
                };
                // A thread that has ended is stopping, and so are we.
                let _ = way.send(Given::Connection(stream, place));
            }
        })
    }
}

/// The next connection. Errors of `accept` are of that connection, or of a system without descriptors: wait a little.
async fn take(listener: &TcpListener) -> std::net::TcpStream {
    loop {
        match listener
            .accept()
            .await
            .and_then(|(stream, _)| stream.into_std())
        {
            Ok(stream) => return stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn serve(
    gateway: Arc<Gateway>,
    mut given: mpsc::UnboundedReceiver<Given>,
    mut stopped: watch::Receiver<Option<Instant>>,
) -> impl FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send {
    move || {
        Box::pin(async move {
            let thread = Rc::new(Thread::new(gateway));
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    Some(given) = given.recv() => {
                        let (thread, stopped) = (thread.clone(), stopped.clone());
                        match given {
                            Given::Connection(stream, place) => {
                                connections.spawn_local(connection(thread, stream, place, stopped))
                            }
                            Given::Call(call) => connections.spawn_local(called(thread, *call)),
                        };
                    }
                    // So that those that have ended are not kept.
                    Some(_) = connections.join_next() => {}
                    _ = stopped.changed() => break,
                }
            }
            let deadline = stopped.borrow().unwrap_or_else(Instant::now);
            let rest = async { while connections.join_next().await.is_some() {} };
            if tokio::time::timeout_at(deadline, rest).await.is_err() {
                tracing::warn!("requests in flight were cut by the shutdown");
            }
        })
    }
}

async fn connection(
    thread: Rc<Thread>,
    stream: std::net::TcpStream,
    place: OwnedSemaphorePermit,
    mut stopped: watch::Receiver<Option<Instant>>,
) {
    let gateway = thread.gateway.clone();
    let _open = Up::new(&gateway.metrics.connections);
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    // Answers are written whole or in large pieces; waiting to fill packets only adds latency.
    let _ = stream.set_nodelay(true);
    let options = &gateway.options;
    let stream = match &options.http_tls {
        None => Stream::Plain(stream),
        Some(tls) => tokio::select! {
            shaken = tls.accept(stream, options.read_timeout) => match shaken {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%error, "no TLS");
                    return;
                }
            },
            // It has no request yet.
            _ = stopped.changed() => return,
        },
    };
    let certificate = stream
        .client_name()
        .map(|name| CertificateName(name.into()));
    let patience = Patience {
        idle: options.idle_timeout,
        read: options.read_timeout,
        write: options.write_timeout,
    };
    // Whoever connects has a request to send: only after it may the connection rest.
    let phase: SharedPhase = Rc::new(std::cell::Cell::new(Phase::Headers));
    let socket = Socket::new(stream, patience, phase.clone());
    let used = std::cell::Cell::new(false);
    let unread = Unread::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        if let Some(name) = &certificate {
            request.extensions_mut().insert(name.clone());
        }
        phase.set(Phase::Busy);
        used.set(true);
        let (thread, phase, unread) = (thread.clone(), phase.clone(), unread.clone());
        async move {
            let request = request.map(|body| Received::new(body, unread.clone()));
            let (response, of) = guarded(&thread, request, &unread).await;
            Ok::<_, Infallible>(response.map(|body| Sent {
                body,
                phase,
                bytes: 0,
                of,
                gateway: thread.gateway.clone(),
            }))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // hyper would wait for the first request of a connection that has had none.
        _ = stopped.changed() => if !used.get() {
            return;
        } else {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
    drop(place);
}

/// Serves a request that came another way.
async fn called(thread: Rc<Thread>, call: Call) {
    let Call {
        request,
        bytes_max,
        mut answer,
    } = call;
    let mut request = request.map(Received::whole);
    // By the frontend that it comes from.
    request.extensions_mut().insert(handle::Admitted);
    let work = async {
        let (response, _) = guarded(&thread, request, &Unread::default()).await;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, bytes_max).collect().await;
        let body = body.map_err(|error| match error.downcast::<LengthLimitError>() {
            Ok(_) => CallError::TooLarge(bytes_max),
            Err(error) => CallError::Broken(error.to_string()),
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let done = tokio::select! {
        done = work => done,
        () = answer.closed() => return,
    };
    // Nobody may wait any more.
    let _ = answer.send(done);
}

/// Serves one request; a panic is a counted 500. When the client goes away, hyper drops this and with it the work.
///
/// Whoever was answered before all of his body was read is told that the connection ends with the answer, as it then does: otherwise a client would
/// send its next request into a closed connection.
async fn guarded(
    thread: &Rc<Thread>,
    request: Request<Received>,
    unread: &Unread,
) -> (Response<Body>, Option<handle::Sized>) {
    let metrics = &thread.gateway.metrics;
    let _inflight = Up::new(&metrics.inflight);
    let answered = AssertUnwindSafe(handle::request(thread, request)).catch_unwind();
    let (mut response, of) = match answered.await {
        Ok((response, of)) => (response, Some(of)),
        Err(_) => {
            metrics.panics.inc();
            tracing::error!("panicked on a request");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            (reply::text(status, "internal error"), None)
        }
    };
    if of.is_none() || unread.get() {
        let close = http::HeaderValue::from_static("close");
        response
            .headers_mut()
            .insert(http::header::CONNECTION, close);
    }
    (response, of)
}

/// The body of an answer; when it has been sent (or given up) the connection is idle again.
struct Sent {
    body: Body,
    phase: SharedPhase,
    /// Handed to the connection so far.
    bytes: u64,
    of: Option<handle::Sized>,
    gateway: Arc<Gateway>,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.phase.set(Phase::Idle);
        if let Some(handle::Sized { method, route }) = self.of {
            let metrics = &self.gateway.metrics;
            metrics.response_bytes(method, route, self.bytes);
        }
    }
}

/// A gauge that is one higher while this lives.
struct Up<'a>(&'a prometheus::IntGauge);

impl<'a> Up<'a> {
    fn new(gauge: &'a prometheus::IntGauge) -> Up<'a> {
        gauge.inc();
        Up(gauge)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
