//! One connection: the part of the meta protocol that is needed, with bounds on whatever comes back.
//!
//! An exchange is many quiet commands and `mn` behind them, which is always answered: what is not there, and what is stored, says nothing. A connection on
//! which anything went wrong is not used again, since what comes next on it may be the answer to something else.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Bytes of a line; the protocol's own are far shorter.
const LINE_BYTES_MAX: u64 = 2048;

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum Failure {
    Network(std::io::Error),
    Late,
    /// It does not speak the protocol.
    Malformed(String),
    /// It says that something is wrong with it.
    Server(String),
}

impl Failure {
    /// As metrics have it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Failure::Network(_) => "network-error",
            Failure::Late => "timeout",
            Failure::Malformed(_) => "malformed",
            Failure::Server(_) => "server-error",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Network(error) => error.fmt(f),
            Failure::Late => f.write_str("no answer in time"),
            Failure::Malformed(what) => write!(f, "not an answer of memcached: {what:?}"),
            Failure::Server(what) => f.write_str(what),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Network(error)
    }
}

/// See the module.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    /// Whether it has answered anything of the exchange at hand.
    pub(super) has_answered: bool,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection {
            stream: BufReader::new(stream),
            has_answered: false,
        })
    }

    /// The values of keys, in their order.
    pub(super) async fn gets(
        &mut self,
        keys: &[&str],
        item_bytes_max: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.has_answered = false;
        let mut request = String::with_capacity(keys.len() * 52 + 4);
        for key in keys {
            request.push_str("mg ");
            request.push_str(key);
            request.push_str(" v k q\r\n");
        }
        request.push_str("mn\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let places: HashMap<&str, usize> = keys.iter().copied().zip(0..).collect();
        let mut found = vec![None; keys.len()];
        loop {
            let line = self.line().await?;
            let mut words = line.split(' ');
            match words.next() {
                Some("MN") => return Ok(found),
                Some("VA") => {}
                _ => return Err(said(line)),
            }
            let len: Option<usize> = words.next().and_then(|len| len.parse().ok());
            let key = words.find_map(|word| word.strip_prefix('k'));
            let place = key.and_then(|key| places.get(key).copied());
            let (Some(len), Some(place)) = (len, place) else {
                return Err(Failure::Malformed(line));
            };
            if len > item_bytes_max {
                return Err(Failure::Malformed(format!("a value of {len} bytes")));
            }
            let mut value = vec![0; len + 2];
            self.stream.read_exact(&mut value).await?;
            if !value.ends_with(b"\r\n") {
                return Err(Failure::Malformed("the end of a value".to_owned()));
            }
            value.truncate(len);
            found[place] = Some(value);
        }
    }

    /// Stores values: key, seconds (0: for ever), bytes. Errors: the first that was refused; the others are stored.
    pub(super) async fn sets(&mut self, entries: &[(String, u64, Vec<u8>)]) -> Result<(), Failure> {
        self.has_answered = false;
        let mut refused = None;
        let mut request = Vec::new();
        for (key, seconds, bytes) in entries {
            // Memcached takes `T0` for what never expires.
            let head = format!("ms {key} {} T{seconds} q\r\n", bytes.len());
            request.extend_from_slice(head.as_bytes());
            request.extend_from_slice(bytes);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"mn\r\n");
        // It answers while it is still being written to: both ways at once, or both would wait for each other.
        let (reader, mut writer) = self.stream.get_mut().split();
        let mut reader = BufReader::new(reader);
        let write = async {
            writer.write_all(&request).await?;
            Ok(())
        };
        let read = async {
            loop {
                let line = line(&mut reader).await?;
                match line.split(' ').next() {
                    Some("MN") => return Ok(()),
                    Some("HD" | "NS") => {}
                    // It has taken the value off the line, and goes on.
                    Some("SERVER_ERROR") => refused = Some(Failure::Server(line)),
                    _ => return Err(said(line)),
                }
            }
        };
        let ((), ()) = tokio::try_join!(write, read)?;
        self.has_answered = true;
        refused.map_or(Ok(()), Err)
    }

    async fn line(&mut self) -> Result<String, Failure> {
        let line = line(&mut self.stream).await?;
        self.has_answered = true;
        Ok(line)
    }
}

fn said(line: String) -> Failure {
    match line.starts_with("SERVER_ERROR") {
        true => Failure::Server(line),
        false => Failure::Malformed(line),
    }
}

/// A line without its end.
async fn line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Result<String, Failure> {
    let mut line = Vec::new();
    stream
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .await?;
    if line.is_empty() {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    let whole = line.strip_suffix(b"\r\n");
    let text = whole.and_then(|line| std::str::from_utf8(line).ok());
    match text {
        Some(text) => Ok(text.to_owned()),
        None => {
            let shown = String::from_utf8_lossy(&line[..line.len().min(64)]);
            Err(Failure::Malformed(shown.into_owned()))
        }
    }
}
