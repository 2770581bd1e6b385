//! A querier's side: it finds the frontends and asks each for queries.
//!
//! Names are looked up again and again, so frontends may come and go. To each there are several streams with one query at a time; a query is a request
//! to this node's own query API ([`crate::Calls`]).

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use rpc::frontend::frontend_client::FrontendClient;
use rpc::frontend::{HttpRequest, HttpResponse, QuerierToFrontend};
use tokio::sync::{mpsc, watch};

use super::targets::Named;
use super::{headers_of, headers_to};
use crate::dial::{self, Dial, with_causes};
use crate::server::Calls;

/// How a querier pulls.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// `host:port`, or a name with SRV records.
    pub frontend: String,
    /// Queries at once, from each frontend or, if `is_shared`, from all of them; at least one from each.
    pub parallelism: usize,
    /// See `parallelism`.
    pub is_shared: bool,
    /// Between two looks at the name.
    pub lookup_period: Duration,
    /// Tells this querier to the frontends.
    pub name: String,
    /// How connections are made.
    pub dial: Dial,
}

/// What all streams of a worker share.
struct Pulling {
    /// What certificates of frontends are held against.
    host: String,
    /// The name of this querier, and a mark, since queriers of different machines may have the same name (`0.0.0.0:80`).
    me: String,
    worker: WorkerOptions,
}

/// Between two attempts to reach a frontend.
const AGAIN: Duration = Duration::from_millis(500);

/// For a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pulls until it is dropped.
#[derive(Debug)]
pub struct Worker {
    /// Told when no more queries are to be taken.
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<()>,
}

impl Worker {
    /// Errors: an address that is none; no thread.
    pub fn start(options: WorkerOptions, calls: Calls) -> Result<Worker, String> {
        let named = Named::parse(&options.frontend)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let (stop, stopped) = watch::channel(false);
        let run = move || runtime.block_on(follow(named, options, calls, stopped));
        let thread = std::thread::Builder::new()
            .name("querier-worker".to_owned())
            .spawn(run)
            .map_err(|error| error.to_string())?;
        Ok(Worker { stop, thread })
    }

    /// Takes no more queries, and waits until those at work are answered, at most `grace`.
    pub fn stop(self, grace: Duration) {
        // Without a receiver it has ended already.
        let _ = self.stop.send(true);
        let mut rest = grace;
        let look = Duration::from_millis(10);
        while !self.thread.is_finished() && !rest.is_zero() {
            std::thread::park_timeout(look);
            rest = rest.saturating_sub(look);
        }
    }
}

/// Keeps streams to all frontends that the name stands for.
async fn follow(
    named: Named,
    options: WorkerOptions,
    calls: Calls,
    mut stopped: watch::Receiver<bool>,
) {
    let mark = RandomState::new().build_hasher().finish();
    let options = Arc::new(Pulling {
        host: named.name().to_owned(),
        me: format!("{} {mark:016x}", options.name),
        worker: options,
    });
    // What tells each stream to end after the query it is at.
    let mut streams: BTreeMap<SocketAddr, Vec<watch::Sender<bool>>> = BTreeMap::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut last = None;
    while !*stopped.borrow() {
        match named.resolve().await {
            Ok(found) => {
                last = None;
                for address in streams.keys().filter(|address| !found.contains(address)) {
                    tracing::info!(%address, "the frontend is gone");
                }
                for address in found
                    .iter()
                    .filter(|address| !streams.contains_key(address))
                {
                    tracing::info!(%address, "pulls queries from a frontend");
                }
                // A sender that is dropped says the same as one that tells.
                streams.retain(|address, _| found.contains(address));
                let counts = options.worker.counts(found.len());
                for (address, count) in found.into_iter().zip(counts) {
                    let of_frontend = streams.entry(address).or_default();
                    of_frontend.truncate(count);
                    while of_frontend.len() < count {
                        let (end, ended) = watch::channel(false);
                        tasks.spawn(pull(address, options.clone(), calls.clone(), ended));
                        of_frontend.push(end);
                    }
                }
            }
            // Those that are known stay: better an old answer than none.
            Err(error) if last.as_ref() != Some(&error) => {
                tracing::warn!(error, "frontends cannot be looked up");
                last = Some(error);
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(options.worker.lookup_period) => {}
            _ = stopped.changed() => break,
        }
        // So that those that have ended are not kept.
        while tasks.try_join_next().is_some() {}
    }
    drop(streams);
    while tasks.join_next().await.is_some() {}
}

impl WorkerOptions {
    /// Streams to each of so many frontends.
    fn counts(&self, frontends: usize) -> Vec<usize> {
        let all = self.parallelism;
        let of = |n| match self.is_shared {
            true => (all / frontends + usize::from(n < all % frontends)).max(1),
            false => all.max(1),
        };
        (0..frontends).map(of).collect()
    }
}

/// Why a frontend could not be served last; told once.
#[derive(Default)]
struct Told(Option<String>);

impl Told {
    fn tell(&mut self, address: SocketAddr, error: String) {
        if self.0.as_ref() != Some(&error) {
            tracing::warn!(%address, error, "no queries can be pulled from the frontend");
            self.0 = Some(error);
        }
    }
}

/// Whether a stream is to end.
fn is_over(ended: &watch::Receiver<bool>) -> bool {
    *ended.borrow() || ended.has_changed().is_err()
}

/// One stream to a frontend, made again whenever it ends.
async fn pull(
    address: SocketAddr,
    options: Arc<Pulling>,
    calls: Calls,
    mut ended: watch::Receiver<bool>,
) {
    let to = address.to_string();
    let mut failed = Told::default();
    while !is_over(&ended) {
        let host = options.host.as_str();
        let channel = options.worker.dial.at_once(&to, host, CONNECT_TIMEOUT);
        let channel = match channel.await {
            Ok(channel) => channel,
            Err(error) => {
                failed.tell(address, error);
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => continue,
                    _ = ended.changed() => return,
                }
            }
        };
        let mut client = FrontendClient::new(channel)
            .max_decoding_message_size(rpc::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(rpc::MESSAGE_BYTES_MAX);
        // Several queries of one connection, so that a client who goes away costs no new one.
        while !is_over(&ended) {
            match serve(&mut client, &options.me, &calls, &mut ended).await {
                Ok(0) => failed = Told::default(),
                Ok(_) => {
                    failed = Told::default();
                    continue;
                }
                Err(status) => {
                    let source = std::error::Error::source(&status);
                    failed.tell(address, with_causes(status.message().to_owned(), source));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => break,
                _ = ended.changed() => return,
            }
        }
    }
}

/// Queries of one stream, until the frontend ends it (nobody waits for what is at work) or this node stops. Tells how many there were.
async fn serve(
    client: &mut FrontendClient<dial::Calls>,
    me: &str,
    calls: &Calls,
    ended: &mut watch::Receiver<bool>,
) -> Result<u64, tonic::Status> {
    let (answers, sent) = mpsc::channel::<QuerierToFrontend>(1);
    let outgoing = futures_util::stream::unfold(sent, |mut sent| async move {
        let answer = sent.recv().await?;
        Some((answer, sent))
    });
    let hello = QuerierToFrontend {
        querier: me.to_owned(),
        ..QuerierToFrontend::default()
    };
    let gone = |_| tonic::Status::unavailable("the stream has ended");
    answers.send(hello).await.map_err(gone)?;
    let mut queries = client.process(outgoing).await?.into_inner();
    let mut count = 0;
    loop {
        let query = tokio::select! {
            query = queries.message() => query?,
            _ = ended.changed() => return Ok(count),
        };
        let Some(request) = query.and_then(|query| query.request) else {
            return Ok(count);
        };
        count += 1;
        let response = tokio::select! {
            response = call(calls, request) => response,
            // Nothing is to be said while a query is at work: it is the end of the stream, and of the work.
            _ = queries.message() => return Ok(count),
        };
        let stopping = is_over(ended);
        let answer = QuerierToFrontend {
            response: Some(response),
            stopping,
            ..QuerierToFrontend::default()
        };
        answers.send(answer).await.map_err(gone)?;
        if stopping {
            // The frontend ends the stream when it has the answer.
            let _ = queries.message().await;
            return Ok(count);
        }
    }
}

async fn call(calls: &Calls, request: HttpRequest) -> HttpResponse {
    let failed = |code: u32, reason: String| HttpResponse {
        code,
        headers: Vec::new(),
        body: Bytes::from(reason),
    };
    let mut builder = Request::builder()
        .method(request.method.as_str())
        .uri(request.url.as_str());
    if let Some(headers) = builder.headers_mut() {
        *headers = headers_of(request.headers);
    }
    let request = match builder.body(request.body) {
        Ok(request) => request,
        Err(error) => return failed(400, error.to_string()),
    };
    // So that the message fits, with what is around the body.
    let max = rpc::MESSAGE_BYTES_MAX - (64 << 10);
    match calls.call(request, max).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            HttpResponse {
                code: u32::from(head.status.as_u16()),
                headers: headers_to(&head.headers),
                body,
            }
        }
        Err(error) => failed(error.status(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_share_what_a_querier_can_do() {
        let options = |parallelism, is_shared| WorkerOptions {
            frontend: String::new(),
            parallelism,
            is_shared,
            lookup_period: Duration::ZERO,
            name: String::new(),
            dial: Dial::default(),
        };
        assert_eq!(options(7, true).counts(3), [3, 2, 2]);
        assert_eq!(options(2, true).counts(3), [1, 1, 1]);
        assert_eq!(options(7, false).counts(2), [7, 7]);
        assert_eq!(options(7, true).counts(0), [0; 0]);
    }
}
