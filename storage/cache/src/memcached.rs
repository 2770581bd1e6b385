//! A cache in memcached servers, which other processes share.
//!
//! Which server has a key is told by rendezvous hashing over the addresses, so that a server that comes or goes moves its own keys only, and
//! processes with the same list agree. The addresses are looked up again and again. Everything is done on a thread of its own, which
//! has the connections; callers wait for it at most as long as the timeout says.
//!
//! What bounds it: exchanges at once (further ones are misses), connections kept, values that wait to be written (further ones are
//! dropped), the size of a value, and of whatever a server says. A server that fails several times in a row is left alone for a while, then
//! tried once.

mod address;
mod connection;
mod server;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

pub use address::Address;
use connection::Failure;
use server::Server;

use crate::metrics::{Named, Operation};
use crate::{Cache, Key, Later, Value, sealed};

/// How long a caller waits beyond the timeout for the thread to say so.
const GRACE: Duration = Duration::from_millis(100);

/// Bytes that wait to be written, at most.
const WAITING_BYTES_MAX: u64 = 64 << 20;

/// Bytes of values of one writing exchange, unless one alone has more: they must go within the timeout.
const EXCHANGE_BYTES_MAX: usize = 4 << 20;

/// Memcached takes a longer time for a date.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// How servers are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where they are.
    pub addresses: Vec<Address>,
    /// Of an exchange, connecting included.
    pub timeout: Duration,
    /// Connections to one server that are kept.
    pub idle_max: usize,
    /// How often addresses are looked up again.
    pub update_interval: Duration,
    /// Bytes of a value with its key; larger ones are not sent. 0: as many as there are.
    pub item_bytes_max: u64,
    /// Keys of one exchange.
    pub batch: usize,
    /// Reading exchanges at once, to all servers.
    pub parallelism: usize,
    /// Writing exchanges at once.
    pub writers: usize,
    /// Values that wait to be written.
    pub waiting_max: usize,
    /// Failures in a row after which a server is left alone; 0: never.
    pub failures_max: u32,
    /// For how long.
    pub pause: Duration,
    /// Whether values are packed with snappy.
    pub pack: bool,
}

impl Options {
    /// The defaults of Cortex.
    pub fn new(addresses: Vec<Address>) -> Options {
        Options {
            addresses,
            timeout: Duration::from_millis(100),
            idle_max: 16,
            update_interval: Duration::from_secs(60),
            item_bytes_max: 1 << 20,
            batch: 1024,
            parallelism: 100,
            writers: 10,
            waiting_max: 10_000,
            failures_max: 10,
            pause: Duration::from_secs(10),
            pack: false,
        }
    }

    fn item_bytes_max(&self) -> usize {
        match self.item_bytes_max {
            0 => 64 << 20,
            bytes => usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }
}

/// See the module.
pub struct Memcached {
    shared: Arc<Shared>,
    runtime: Handle,
    writes: mpsc::Sender<Write>,
    /// Dropped with this: the thread ends.
    _stop: oneshot::Sender<()>,
}

struct Shared {
    options: Options,
    metrics: Named,
    servers: RwLock<Arc<[Arc<Server>]>>,
    reading: Arc<Semaphore>,
    waiting_bytes: AtomicU64,
}

/// A value on its way out.
struct Write {
    key: Key,
    value: Value,
    ttl: Duration,
}

/// What is asked of one server.
struct Ask {
    server: Arc<Server>,
    /// Places of the keys in the question, and how the server knows them.
    keys: Vec<(usize, String)>,
}

/// What is written to one server, in exchanges that can be over in time.
fn exchanges(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let (mut exchanges, mut bytes) = (Vec::<Vec<Write>>::new(), usize::MAX);
    for write in writes {
        bytes = bytes.saturating_add(write.value.len());
        if bytes > EXCHANGE_BYTES_MAX {
            bytes = write.value.len();
            exchanges.push(Vec::new());
        }
        exchanges.last_mut().expect("just begun").push(write);
    }
    exchanges
}

type Told = Vec<(usize, Vec<u8>)>;

impl Memcached {
    /// Starts the thread. Servers are used as soon as their addresses are known; `open` returns before.
    ///
    /// Errors: no thread.
    pub fn open(options: Options, metrics: Named) -> std::io::Result<Memcached> {
        assert!(options.batch > 0 && options.parallelism > 0 && options.writers > 0);
        assert!(options.waiting_max > 0, "nothing could ever be written");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (writes, waiting) = mpsc::channel(options.waiting_max);
        let shared = Arc::new(Shared {
            reading: Arc::new(Semaphore::new(options.parallelism)),
            servers: RwLock::new(Arc::new([])),
            waiting_bytes: AtomicU64::new(0),
            options,
            metrics,
        });
        let (looks, writer) = (Arc::clone(&shared), Arc::clone(&shared));
        let run = move || {
            runtime.spawn(async move { looks.look_up().await });
            runtime.spawn(async move { writer.write(waiting).await });
            // Its error is that nobody holds the other end any more: that is the sign.
            let _ = runtime.block_on(stopped);
        };
        let thread = std::thread::Builder::new().name("memcached".to_owned());
        thread.spawn(run)?;
        Ok(Memcached {
            shared,
            runtime: handle,
            writes,
            _stop: stop,
        })
    }

    /// Addresses in use.
    pub fn servers(&self) -> Vec<SocketAddr> {
        let servers = self.shared.servers();
        servers.iter().map(|server| server.address()).collect()
    }

    /// Sends the questions; `tell` is called once for each that was sent, on the other thread. Returns how many were.
    fn ask(&self, keys: &[Key], tell: impl Fn(Told) + Clone + Send + 'static) -> usize {
        let deadline = Instant::now() + self.shared.options.timeout;
        let mut sent = 0;
        for ask in self.shared.questions(keys) {
            let Ok(permit) = self.shared.reading.clone().try_acquire_owned() else {
                self.shared.metrics.skipped(Operation::Get, "too-many");
                ask.server.spare();
                continue;
            };
            let (shared, tell) = (Arc::clone(&self.shared), tell.clone());
            self.runtime.spawn(async move {
                let _permit = permit;
                let told = shared.read(ask, deadline).await;
                tell(told);
            });
            sent += 1;
        }
        sent
    }
}

impl Cache for Memcached {
    fn get(&self, keys: &[Key]) -> Vec<Option<Value>> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sent = self.ask(keys, move |told| drop(sender.send(told)));
        let mut found = vec![None; keys.len()];
        let deadline = Instant::now() + self.shared.options.timeout + GRACE;
        for _ in 0..sent {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(told) = receiver.recv_timeout(left) else {
                break; // It is late, or at its end.
            };
            self.shared.take(keys, &mut found, told);
        }
        self.shared.metrics.found(&found);
        found
    }

    fn get_later(&self, keys: Vec<Key>) -> Later<'_> {
        // As many messages as questions.
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let sent = self.ask(&keys, move |told| drop(sender.send(told)));
        let deadline = Instant::now() + self.shared.options.timeout + GRACE;
        Box::pin(async move {
            let (count, mut all) = (keys.len(), Vec::new());
            for _ in 0..sent {
                let told = tokio::time::timeout_at(deadline, receiver.recv()).await;
                let Ok(Some(told)) = told else {
                    break;
                };
                all.extend(told);
            }
            // Sums and unpacking are work: not for the thread that waits here, which serves others.
            let shared = Arc::clone(&self.shared);
            let take = move || {
                let mut found = vec![None; count];
                shared.take(&keys, &mut found, all);
                found
            };
            let found = self.runtime.spawn_blocking(take).await;
            let found = found.unwrap_or_else(|_| vec![None; count]);
            self.shared.metrics.found(&found);
            found
        })
    }

    fn set(&self, entries: Vec<(Key, Value)>, ttl: Duration) {
        for (key, value) in entries {
            // Packing may help by much, but what is far too large is not even tried.
            if value.len() / 16 > self.shared.options.item_bytes_max() {
                self.shared.metrics.skipped(Operation::Set, "max-item-size");
                continue;
            }
            let bytes = (key.full().len() + value.len()) as u64;
            let waiting = self
                .shared
                .waiting_bytes
                .fetch_add(bytes, Ordering::Relaxed);
            let write = Write { key, value, ttl };
            let fits = waiting + bytes <= WAITING_BYTES_MAX;
            if fits && self.writes.try_send(write).is_ok() {
                self.shared.metrics.waiting(1);
            } else {
                self.shared
                    .waiting_bytes
                    .fetch_sub(bytes, Ordering::Relaxed);
                self.shared.metrics.dropped();
            }
        }
    }
}

impl fmt::Debug for Memcached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memcached({:?})", self.servers())
    }
}

impl Shared {
    fn servers(&self) -> Arc<[Arc<Server>]> {
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&servers)
    }

    fn take(&self, keys: &[Key], found: &mut [Option<Value>], told: Told) {
        for (at, bytes) in told {
            self.metrics.size(Operation::Get, bytes.len());
            match sealed::open(&keys[at], &bytes) {
                Some(value) => found[at] = Some(value),
                None => self.metrics.unsound(),
            }
        }
    }

    /// The keys by server, in batches; without those whose server is left alone.
    fn questions(&self, keys: &[Key]) -> Vec<Ask> {
        let servers = self.servers();
        let mut open: Vec<Option<Ask>> = Vec::new();
        open.resize_with(servers.len(), || None);
        let mut asks = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            let Some(which) = server::of(&servers, key.hash128()) else {
                self.metrics.skipped(Operation::Get, "no-server");
                continue;
            };
            let ask = open[which].get_or_insert_with(|| Ask {
                server: Arc::clone(&servers[which]),
                keys: Vec::new(),
            });
            ask.keys.push((at, key.wire()));
            if ask.keys.len() == self.options.batch {
                asks.extend(open[which].take());
            }
        }
        asks.extend(open.into_iter().flatten());
        asks.retain(|ask| {
            let may = ask.server.may_try();
            if !may {
                self.metrics.skipped(Operation::Get, "circuit-breaker");
            }
            may
        });
        asks
    }

    async fn read(&self, ask: Ask, deadline: Instant) -> Told {
        let begin = Instant::now();
        let keys: Vec<&str> = ask.keys.iter().map(|(_, key)| key.as_str()).collect();
        let item_max = self.options.item_bytes_max();
        let read = ask
            .server
            .gets(&keys, item_max, deadline, self.options.idle_max);
        let read = read.await;
        ask.server.note(does_answer(&read), &self.options);
        let result = match &read {
            Ok(read) => Ok(read.iter().any(Option::is_some)),
            Err(failure) => Err(failure.reason()),
        };
        self.metrics
            .exchanged(Operation::Get, result, begin.elapsed());
        let read = match read {
            Ok(read) => read,
            Err(failure) => {
                tracing::debug!(server = %ask.server.address(), %failure, "memcached");
                return Vec::new();
            }
        };
        let places = ask.keys.into_iter().map(|(at, _)| at);
        let found = places.zip(read);
        found.filter_map(|(at, bytes)| Some((at, bytes?))).collect()
    }

    /// Writes what waits, several exchanges at once.
    async fn write(self: Arc<Shared>, mut waiting: mpsc::Receiver<Write>) {
        let writers = Arc::new(Semaphore::new(self.options.writers));
        let mut writes = Vec::new();
        while waiting.recv_many(&mut writes, self.options.batch).await > 0 {
            let servers = self.servers();
            let mut parts: Vec<Vec<Write>> = Vec::new();
            parts.resize_with(servers.len(), Vec::new);
            for write in writes.drain(..) {
                match server::of(&servers, write.key.hash128()) {
                    Some(which) => parts[which].push(write),
                    None => {
                        self.metrics.skipped(Operation::Set, "no-server");
                        self.done(&[write]);
                    }
                }
            }
            for (server, part) in servers.iter().zip(parts) {
                for part in exchanges(part) {
                    let Ok(permit) = Arc::clone(&writers).acquire_owned().await else {
                        return; // Never closed.
                    };
                    let (shared, server) = (Arc::clone(&self), Arc::clone(server));
                    tokio::spawn(async move {
                        let _permit = permit;
                        shared.write_to(&server, &part).await;
                        shared.done(&part);
                    });
                }
            }
        }
    }

    fn done(&self, writes: &[Write]) {
        for write in writes {
            let bytes = (write.key.full().len() + write.value.len()) as u64;
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.metrics.waiting(-1);
        }
    }

    async fn write_to(&self, server: &Server, writes: &[Write]) {
        if !server.may_try() {
            for _ in writes {
                self.metrics.skipped(Operation::Set, "circuit-breaker");
            }
            return;
        }
        let mut entries = Vec::with_capacity(writes.len());
        for write in writes {
            let bytes = sealed::seal(&write.key, &write.value, self.options.pack);
            if bytes.len() > self.options.item_bytes_max() {
                self.metrics.skipped(Operation::Set, "max-item-size");
                continue;
            }
            self.metrics.size(Operation::Set, bytes.len());
            // Zero is for ever, and less than a second is not.
            let whole = write.ttl.as_nanos().div_ceil(1_000_000_000);
            let seconds = whole.min(u128::from(TTL_MAX.as_secs())) as u64;
            entries.push((write.key.wire(), seconds, bytes));
        }
        if entries.is_empty() {
            server.spare();
            return;
        }
        let begin = Instant::now();
        let deadline = begin + self.options.timeout;
        let wrote = server.sets(&entries, deadline, self.options.idle_max).await;
        server.note(does_answer(&wrote), &self.options);
        let result = match &wrote {
            Ok(()) => Ok(true),
            Err(failure) => Err(failure.reason()),
        };
        self.metrics
            .exchanged(Operation::Set, result, begin.elapsed());
        if let Err(failure) = wrote {
            tracing::debug!(server = %server.address(), %failure, "memcached");
        }
    }

    /// Looks the addresses up, again and again. Those of a name that cannot be looked up stay.
    async fn look_up(self: Arc<Shared>) {
        let mut known: Vec<BTreeSet<SocketAddr>> =
            vec![BTreeSet::new(); self.options.addresses.len()];
        loop {
            for (address, known) in self.options.addresses.iter().zip(&mut known) {
                match address.resolve().await {
                    Ok(found) => {
                        self.metrics.looked_up(&address.text(), Some(found.len()));
                        *known = found;
                    }
                    Err(reason) => {
                        self.metrics.looked_up(&address.text(), None);
                        tracing::warn!(address = address.text(), reason, "memcached");
                    }
                }
            }
            let all: BTreeSet<SocketAddr> = known.iter().flatten().copied().collect();
            let before = self.servers();
            let kept = |address: &SocketAddr| {
                let known = before.iter().find(|server| server.address() == *address);
                known.cloned()
            };
            let now: Vec<Arc<Server>> = all
                .iter()
                .map(|address| kept(address).unwrap_or_else(|| Arc::new(Server::new(*address))))
                .collect();
            self.metrics.servers(now.len());
            *self.servers.write().unwrap_or_else(PoisonError::into_inner) = now.into();
            tokio::time::sleep(self.options.update_interval).await;
        }
    }
}

/// Whether a server is worth asking again: one that refuses a value is.
fn does_answer<T>(result: &Result<T, Failure>) -> bool {
    matches!(result, Ok(_) | Err(Failure::Server(_)))
}

#[cfg(test)]
mod tests;
