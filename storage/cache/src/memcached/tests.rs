//! Against a server of these tests that keeps its word, or does not.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use super::*;
use crate::Metrics;

/// What the server does with reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Good,
    /// It takes everything and says nothing.
    Silent,
    /// It gives each key the value of another.
    Mixed,
    /// It cuts values short, and says so.
    Short,
    /// It flips a bit.
    Flipped,
    /// It says that a value has more bytes than there is memory.
    Huge,
    /// It answers keys that nobody asked for.
    Other,
    /// It speaks something else, without an end of line.
    Babble,
    /// It hangs up.
    Closing,
    /// It has no memory.
    Refusing,
}

#[derive(Debug)]
struct Fake {
    address: SocketAddr,
    mood: Arc<Mutex<Mood>>,
    kept: Arc<Mutex<HashMap<String, Vec<u8>>>>,
    commands: Arc<AtomicU64>,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Fake {
            address: listener.local_addr().unwrap(),
            mood: Arc::new(Mutex::new(Mood::Good)),
            kept: Arc::default(),
            commands: Arc::default(),
            connections: Arc::default(),
        };
        let shared = (
            fake.mood.clone(),
            fake.kept.clone(),
            fake.commands.clone(),
            fake.connections.clone(),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mood, kept, commands, connections) = shared.clone();
                connections.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    // Whoever hangs up ends it.
                    let _ = serve(stream.unwrap(), &mood, &kept, &commands);
                });
            }
        });
        fake
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn address(&self) -> Address {
        Address::parse(&self.address.to_string()).unwrap()
    }

    fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }
}

fn serve(
    stream: TcpStream,
    mood: &Mutex<Mood>,
    kept: &Mutex<HashMap<String, Vec<u8>>>,
    commands: &AtomicU64,
) -> std::io::Result<()> {
    let mut write = stream.try_clone()?;
    let mut read = BufReader::new(stream);
    let mut line = String::new();
    while read.read_line(&mut line)? > 0 {
        commands.fetch_add(1, Ordering::Relaxed);
        let mood = *mood.lock().unwrap();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        line.clear();
        let mut value = Vec::new();
        if words[0] == "ms" {
            value = vec![0; words[2].parse::<usize>().unwrap() + 2];
            read.read_exact(&mut value)?;
            value.truncate(value.len() - 2);
        }
        match mood {
            Mood::Silent => continue,
            Mood::Closing => return Ok(()),
            Mood::Babble => {
                write.write_all(&[b'x'; 100_000])?;
                continue;
            }
            _ => {}
        }
        match words[0].as_str() {
            "mn" => write.write_all(b"MN\r\n")?,
            "ms" if mood == Mood::Refusing => write.write_all(b"SERVER_ERROR out of memory\r\n")?,
            "ms" => drop(kept.lock().unwrap().insert(words[1].clone(), value)),
            "mg" => {
                let kept = kept.lock().unwrap();
                let mut key = words[1].clone();
                let found = match mood {
                    Mood::Mixed => kept.iter().find(|(k, _)| **k != key).map(|(_, v)| v),
                    _ => kept.get(&key),
                };
                let Some(mut value) = found.cloned() else {
                    continue;
                };
                match mood {
                    Mood::Short => value.truncate(value.len() / 2),
                    Mood::Flipped => value[20] ^= 1,
                    Mood::Other => key.push('x'),
                    _ => {}
                }
                let len = match mood {
                    Mood::Huge => 1 << 50,
                    _ => value.len(),
                };
                write!(write, "VA {len} k{key}\r\n")?;
                write.write_all(&value)?;
                write.write_all(b"\r\n")?;
            }
            other => panic!("{other}"),
        }
    }
    Ok(())
}

struct Client {
    cache: Memcached,
    metrics: Named,
}

/// Times that a machine with much to do keeps.
fn patient(servers: &[&Fake]) -> Options {
    Options {
        timeout: Duration::from_secs(20),
        ..Options::new(servers.iter().map(|fake| fake.address()).collect())
    }
}

fn open(options: Options, servers: usize) -> Client {
    let metrics = Metrics::unregistered().of("test");
    let cache = Memcached::open(options, metrics.clone()).unwrap();
    wait("the servers to be known", || {
        cache.servers().len() == servers
    });
    Client { cache, metrics }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the other side has threads and clocks of its own"
)]
fn wait(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("no end of waiting for {what}");
}

fn key(n: usize) -> Key {
    Key::of(&[b"tenant", &n.to_le_bytes()])
}

fn value(n: usize) -> Value {
    Value::from(format!("value {n} ").repeat(1 + n % 50).into_bytes())
}

fn keys() -> Vec<Key> {
    (0..100).map(key).collect()
}

impl Client {
    fn fill(&self, servers: &[&Fake]) {
        let entries = (0..100).step_by(2).map(|n| (key(n), value(n)));
        self.cache.set(entries.collect(), Duration::ZERO);
        wait("the values to be written", || {
            servers
                .iter()
                .map(|s| s.kept.lock().unwrap().len())
                .sum::<usize>()
                == 50
        });
    }
}

fn expected() -> Vec<Option<Value>> {
    (0..100).map(|n| (n % 2 == 0).then(|| value(n))).collect()
}

#[test]
fn what_was_set_is_found_by_this_and_by_another_client_whatever_the_batches() {
    let (one, two) = (Fake::start(), Fake::start());
    let servers = [&one, &two];
    let client = open(patient(&servers), 2);
    client.fill(&servers);
    for fake in servers {
        let share = fake.kept.lock().unwrap().len();
        assert!((10..=40).contains(&share), "{share} of 50 on one of two");
    }
    let other = open(
        Options {
            batch: 7,
            ..patient(&[&two, &one])
        },
        2,
    );
    for client in [&client, &other] {
        assert_eq!(client.cache.get(&keys()), expected());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let later = runtime.block_on(client.cache.get_later(keys()));
    assert_eq!(later, expected());
    // Connections are used again: as many as there were exchanges at once.
    for _ in 0..50 {
        client.cache.get(&keys());
    }
    let connections = one.connections.load(Ordering::Relaxed);
    assert!(connections <= 12, "{connections}");
}

#[test]
fn a_server_that_lies_is_never_believed() {
    let fake = Fake::start();
    let options = Options {
        failures_max: 0,
        timeout: Duration::from_secs(2),
        ..patient(&[&fake])
    };
    let client = open(options, 1);
    client.fill(&[&fake]);
    for mood in [
        Mood::Mixed,
        Mood::Short,
        Mood::Flipped,
        Mood::Huge,
        Mood::Other,
        Mood::Babble,
        Mood::Closing,
    ] {
        fake.set(mood);
        let found = client.cache.get(&keys());
        assert_eq!(found, vec![None; 100], "{mood:?}");
        // The connection is given up where its state is not known.
        fake.set(Mood::Good);
        assert_eq!(client.cache.get(&keys()), expected(), "after {mood:?}");
    }
    let [unsound, ..] = client.metrics.counts();
    assert_eq!(unsound, 100 + 50 + 50, "mixed, short, flipped");
}

#[test]
fn a_server_that_says_nothing_is_left_alone_and_tried_again() {
    let fake = Fake::start();
    let options = Options {
        timeout: Duration::from_millis(300),
        failures_max: 3,
        pause: Duration::from_millis(1500),
        ..patient(&[&fake])
    };
    let client = open(options, 1);
    client.fill(&[&fake]);
    fake.set(Mood::Silent);
    for _ in 0..3 {
        assert_eq!(client.cache.get(&keys()), vec![None; 100]);
    }
    let before = fake.commands();
    for _ in 0..100 {
        assert_eq!(client.cache.get(&keys()), vec![None; 100]);
    }
    assert_eq!(fake.commands(), before, "it was asked all the same");
    assert_eq!(client.metrics.skips(Operation::Get, "circuit-breaker"), 100);
    fake.set(Mood::Good);
    wait("it to be tried again", || {
        client.cache.get(&keys()) == expected()
    });
}

#[test]
fn what_cannot_be_written_is_dropped_and_counted() {
    let fake = Fake::start();
    let options = Options {
        waiting_max: 10,
        writers: 1,
        batch: 1,
        item_bytes_max: 5000,
        timeout: Duration::from_secs(2),
        ..patient(&[&fake])
    };
    let client = open(options, 1);
    fake.set(Mood::Silent);
    for n in 0..50 {
        client.cache.set(vec![(key(n), value(n))], Duration::ZERO);
    }
    let [_, dropped, _] = client.metrics.counts();
    assert!((30..50).contains(&dropped), "{dropped}");
    fake.set(Mood::Refusing);
    let large = Value::from(vec![7; 6000]);
    wait("the queue to be empty", || {
        client.cache.shared.waiting_bytes.load(Ordering::Relaxed) == 0
    });
    client
        .cache
        .set(vec![(key(1), value(1)), (key(2), large)], Duration::ZERO);
    wait("the large one to be skipped", || {
        client.metrics.skips(Operation::Set, "max-item-size") == 1
    });
    fake.set(Mood::Good);
    client
        .cache
        .set(vec![(key(3), value(3))], Duration::from_millis(1));
    wait("the next to be written", || {
        client.cache.get(&[key(3)])[0].is_some()
    });
    assert_eq!(client.cache.get(&[key(2)]), [None]);
}

#[test]
fn without_servers_everything_is_a_miss() {
    let unknown = Address::parse("nowhere.invalid:11211").unwrap();
    let client = open(Options::new(vec![unknown]), 0);
    client.cache.set(vec![(key(1), value(1))], Duration::ZERO);
    assert_eq!(client.cache.get(&keys()), vec![None; 100]);
    assert_eq!(client.metrics.skips(Operation::Get, "no-server"), 100);
}

#[test]
fn what_is_too_large_says_nothing_of_a_server() {
    let fake = Fake::start();
    let options = Options {
        timeout: Duration::from_millis(300),
        failures_max: 3,
        pause: Duration::from_secs(600),
        item_bytes_max: 5000,
        ..patient(&[&fake])
    };
    let client = open(options, 1);
    fake.set(Mood::Silent);
    for round in 0..2 {
        assert_eq!(client.cache.get(&keys()), vec![None; 100]);
        let large = Value::from(vec![7; 6000]);
        client.cache.set(vec![(key(1), large)], Duration::ZERO);
        wait("it to be skipped", || {
            client.metrics.skips(Operation::Set, "max-item-size") > round
        });
    }
    client.cache.get(&keys());
    client.cache.get(&keys());
    assert_eq!(client.metrics.skips(Operation::Get, "circuit-breaker"), 1);
}
