//! A server of HTTP for tests: keep-alive connections, each a thread, and an answer made by a closure.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// A request as a test wants to see it.
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query string.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// A header by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find_map(|(n, value)| (n == name).then_some(value.as_str()))
    }
}

/// Serves on a port of its own until the process ends. `None` from the closure closes the connection without an answer.
pub(crate) fn serve(
    answer: impl Fn(&Asked) -> Option<(u16, String)> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || connection(stream.unwrap(), &*answer));
        }
    });
    address
}

fn connection(stream: TcpStream, answer: &impl Fn(&Asked) -> Option<(u16, String)>) {
    let mut reader = BufReader::new(stream);
    while let Some(asked) = read(&mut reader) {
        let Some((status, text)) = answer(&asked) else {
            return;
        };
        let length = text.len();
        let whole = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{text}");
        if reader.get_mut().write_all(whole.as_bytes()).is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut asked = Asked {
        method,
        path,
        headers,
        body: Vec::new(),
    };
    let length = asked
        .header("content-length")
        .map_or(0, |l| l.parse().unwrap());
    asked.body = vec![0; length];
    reader.read_exact(&mut asked.body).ok()?;
    Some(asked)
}
