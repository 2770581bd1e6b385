//! One server: its connections, and whether it is worth trying.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Options;
use super::connection::{Connection, Failure};

/// See the module.
pub(super) struct Server {
    address: SocketAddr,
    /// Of the address; the same in all processes.
    seed: u64,
    idle: Mutex<Vec<Connection>>,
    breaker: Mutex<Breaker>,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// Until then it is left alone; then one may try, and moves it on.
    until: Option<Instant>,
    /// Since when somebody tries.
    tried: Option<Instant>,
}

/// Which server has a key: the one whose mix with the key is the greatest.
pub(super) fn of(servers: &[Arc<Server>], hash: u128) -> Option<usize> {
    let key = hash.to_le_bytes();
    let score = |at: &usize| xxh3_64_with_seed(&key, servers[*at].seed);
    (0..servers.len()).max_by_key(score)
}

impl Server {
    pub(super) fn new(address: SocketAddr) -> Server {
        Server {
            address,
            seed: xxh3_64(address.to_string().as_bytes()),
            idle: Mutex::default(),
            breaker: Mutex::default(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be asked now. Who asks tells what came of it by [`Server::note`].
    pub(super) fn may_try(&self) -> bool {
        let mut breaker = self.breaker();
        let Some(until) = breaker.until else {
            return true;
        };
        let now = Instant::now();
        // One at a time; who never tells keeps nobody else off for longer than the first pause.
        let is_tried = breaker.tried.is_some_and(|since| since + TRY > now);
        if now < until || is_tried {
            return false;
        }
        breaker.tried = Some(now);
        true
    }

    /// Nothing was exchanged after all.
    pub(super) fn spare(&self) {
        self.breaker().tried = None;
    }

    /// What came of an exchange.
    pub(super) fn note(&self, is_good: bool, options: &Options) {
        let mut breaker = self.breaker();
        breaker.tried = None;
        if is_good {
            let was_open = breaker.until.is_some();
            *breaker = Breaker::default();
            if was_open {
                tracing::info!(server = %self.address, "memcached answers again");
            }
            return;
        }
        breaker.failures = breaker.failures.saturating_add(1);
        if options.failures_max > 0 && breaker.failures >= options.failures_max {
            if breaker.until.is_none() {
                let seconds = options.pause.as_secs_f64();
                tracing::warn!(server = %self.address, seconds, "memcached fails: it is left alone");
            }
            breaker.until = Some(Instant::now() + options.pause);
        }
    }

    pub(super) async fn gets(
        &self,
        keys: &[&str],
        item_bytes_max: usize,
        deadline: Instant,
        idle_max: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let exchange = async {
            loop {
                let (mut connection, is_fresh) = self.connection().await?;
                match connection.gets(keys, item_bytes_max).await {
                    Ok(found) => return Ok((found, connection)),
                    // It was closed while nobody used it.
                    Err(Failure::Network(_)) if !is_fresh && !connection.has_answered => {
                        self.idle().clear();
                    }
                    Err(failure) => return Err(failure),
                }
            }
        };
        let done = timeout_at(deadline, exchange).await;
        let (found, connection) = done.unwrap_or(Err(Failure::Late))?;
        self.put_back(connection, idle_max);
        Ok(found)
    }

    pub(super) async fn sets(
        &self,
        entries: &[(String, u64, Vec<u8>)],
        deadline: Instant,
        idle_max: usize,
    ) -> Result<(), Failure> {
        let exchange = async {
            loop {
                let (mut connection, is_fresh) = self.connection().await?;
                match connection.sets(entries).await {
                    Ok(()) => return Ok((Ok(()), connection)),
                    Err(failure @ Failure::Server(_)) if connection.has_answered => {
                        return Ok((Err(failure), connection));
                    }
                    Err(Failure::Network(_)) if !is_fresh => self.idle().clear(),
                    Err(failure) => return Err(failure),
                }
            }
        };
        let done = timeout_at(deadline, exchange).await;
        let (result, connection) = done.unwrap_or(Err(Failure::Late))?;
        self.put_back(connection, idle_max);
        result
    }

    /// One that is there, or a fresh one.
    async fn connection(&self) -> Result<(Connection, bool), Failure> {
        let idle = self.idle().pop();
        match idle {
            Some(connection) => Ok((connection, false)),
            None => Ok((Connection::open(self.address).await?, true)),
        }
    }

    fn put_back(&self, connection: Connection, idle_max: usize) {
        let mut idle = self.idle();
        if idle.len() < idle_max {
            idle.push(connection);
        }
    }
}

/// How long one who tries keeps others off.
const TRY: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_leaves_moves_its_own_keys_only() {
        let server = |n: u16| Arc::new(Server::new(SocketAddr::from(([10, 0, 0, 1], n))));
        let four: Vec<_> = (1..5).map(server).collect();
        let mut three = four.clone();
        three.remove(1);
        let mut counts = [0; 4];
        for n in 0..4000_u128 {
            let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let before = of(&four, hash).unwrap();
            counts[before] += 1;
            let after = of(&three, hash).unwrap();
            match before {
                1 => {}
                0 => assert_eq!(after, 0),
                _ => assert_eq!(after, before - 1),
            }
        }
        assert!(counts.iter().all(|count| *count > 800), "{counts:?}");
        assert_eq!(of(&[], 7), None);
    }
}
