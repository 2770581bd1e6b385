//! Both phases against a server that keeps samples in a map, and misbehaves on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

use wire::remote_write::v1::{self, Part, Record, Walk};

use super::{CommonOptions, LoadOptions, PatienceOptions, check, write};
use crate::target::TargetOptions;

/// Samples by connection, series and time.
type Samples = BTreeMap<(String, String, i64), f64>;

#[derive(Default)]
struct Server {
    samples: Mutex<Samples>,
    pushes: AtomicU32,
    /// Every fifth push is stored but answered by closing the connection, every seventh refused with 503.
    unreliable: AtomicBool,
    /// Every third push is acknowledged and forgotten.
    forgetful: AtomicBool,
}

impl Server {
    /// Serves on a port of its own until the process ends.
    fn start() -> (Arc<Server>, String) {
        let server = Arc::new(Server::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/api/v1/push", listener.local_addr().unwrap());
        let shared = Arc::clone(&server);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let server = Arc::clone(&shared);
                thread::spawn(move || server.connection(stream.unwrap()));
            }
        });
        (server, url)
    }

    fn connection(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some((path, body)) = read_request(&mut reader) {
            let answer = if path.ends_with("/push") {
                self.push(&body)
            } else {
                Some(self.query(&body))
            };
            let Some((status, text)) = answer else {
                return;
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n",
                text.len()
            );
            if reader
                .get_mut()
                .write_all((head + &text).as_bytes())
                .is_err()
            {
                return;
            }
        }
    }

    fn push(&self, body: &[u8]) -> Option<(u16, String)> {
        let number = self.pushes.fetch_add(1, SeqCst);
        if self.forgetful.load(SeqCst) && number % 3 == 2 {
            return Some((204, String::new()));
        }
        if self.unreliable.load(SeqCst) && number % 7 == 6 {
            return Some((503, "busy".to_owned()));
        }
        let mut unpacked = wire::snappy::Buffer::default();
        wire::snappy::unpack(body, 1 << 24, &mut unpacked).unwrap();
        let mut walk = Walk::new(unpacked.as_slice());
        while let Some(Record::Series(series)) = walk.next_record().unwrap() {
            let labels: BTreeMap<_, _> = v1::labels(series.label_bytes())
                .map(Result::unwrap)
                .collect();
            let text = |name: &str| String::from_utf8(labels[name.as_bytes()].to_vec()).unwrap();
            let mut parts = series.parts();
            while let Some(Part::Sample { time, value }) = parts.next_part().unwrap() {
                let key = (text("connection"), text("series"), time);
                self.samples.lock().unwrap().insert(key, value);
            }
        }
        let dropped = self.unreliable.load(SeqCst) && number % 5 == 4;
        (!dropped).then(|| (204, String::new()))
    }

    /// Understands the two queries that `check` asks.
    fn query(&self, form: &[u8]) -> (u16, String) {
        let form = String::from_utf8(form.to_vec()).unwrap();
        let field = |from: &str, to: &str| {
            let start = form.find(from)? + from.len();
            Some(form[start..][..form[start..].find(to)?].to_owned())
        };
        let (Some(connection), Some(range)) =
            (field("connection%3D%22", "%22"), field("%5B", "ms%5D"))
        else {
            return (200, "{}".to_owned());
        };
        let end: f64 = field("&time=", "&").unwrap().parse().unwrap();
        let end = (end * 1000.0).round() as i64;
        let start = end - range.parse::<i64>().unwrap();
        let mut series: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((of, number, time), value) in &*self.samples.lock().unwrap() {
            if *of == connection && *time > start && *time <= end {
                let point = format!("[{},\"{value}\"]", *time as f64 / 1000.0);
                series.entry(number.clone()).or_default().push(point);
            }
        }
        let rows: Vec<String> = series
            .iter()
            .map(|(number, points)| {
                format!(
                    "{{\"metric\":{{\"series\":\"{number}\"}},\"values\":[{}]}}",
                    points.join(",")
                )
            })
            .collect();
        let result = rows.join(",");
        (
            200,
            format!("{{\"data\":{{\"resultType\":\"matrix\",\"result\":[{result}]}}}}"),
        )
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

/// A state file of its own for each test, removed with it.
struct Run {
    common: CommonOptions,
}

impl Run {
    fn new(name: &str, url: &str) -> Run {
        let file = format!("myelin-bench-verify-{name}-{}", std::process::id());
        let state: PathBuf = std::env::temp_dir().join(file);
        let _ = std::fs::remove_file(&state);
        let target = TargetOptions {
            url: url.to_owned(),
            query_url: None,
            tenant: None,
        };
        Run {
            common: CommonOptions {
                target,
                state,
                timeout: 5,
                quiet: true,
            },
        }
    }

    fn write(&self, retry: bool) -> anyhow::Result<()> {
        let load = LoadOptions {
            seconds: 1,
            connections: 2,
            series: 5,
            pause_ms: 5,
            retry,
        };
        write::run(&self.common, &load)
    }

    fn check(&self) -> anyhow::Result<()> {
        check::run(&self.common, &PatienceOptions { wait: 5 })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.common.state);
    }
}

#[test]
fn a_server_that_keeps_everything_passes_in_several_phases() {
    let (_server, url) = Server::start();
    let run = Run::new("sound", &url);
    run.write(false).unwrap();
    run.check().unwrap();
    run.write(false).unwrap();
    run.check().unwrap();
}

#[test]
fn answers_that_never_came_and_refusals_are_not_held_against_the_server() {
    let (server, url) = Server::start();
    server.unreliable.store(true, SeqCst);
    let run = Run::new("unreliable", &url);
    run.write(true).unwrap();
    run.check().unwrap();
    assert!(server.pushes.load(SeqCst) > 20);
    // Without --retry a connection that is closed ends the phase, and that is no failure either.
    run.write(false).unwrap();
    run.check().unwrap();
}

#[test]
fn a_server_that_forgets_what_it_acknowledged_fails() {
    let (server, url) = Server::start();
    server.forgetful.store(true, SeqCst);
    let run = Run::new("forgetful", &url);
    run.write(false).unwrap();
    assert!(
        run.check()
            .unwrap_err()
            .to_string()
            .contains("not as they should be")
    );
}

#[test]
fn a_sample_that_nobody_sent_fails() {
    let (server, url) = Server::start();
    let run = Run::new("unsent", &url);
    run.write(false).unwrap();
    let mut samples = server.samples.lock().unwrap();
    let (connection, series, time) = samples.keys().next().unwrap().clone();
    samples.insert((connection, series, time - 1), 1.0);
    drop(samples);
    assert!(run.check().is_err());
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let run = Run::new("nobody", "http://127.0.0.1:1/api/v1/push");
    assert!(
        run.write(false)
            .unwrap_err()
            .to_string()
            .contains("nothing was acknowledged")
    );
}
