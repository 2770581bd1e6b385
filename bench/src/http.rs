//! A blocking HTTP/1.1 client over one keep-alive connection: as much of the protocol as servers of metrics speak.
//!
//! Requests come as ready bytes (`target`), so that sending one is a single write. Responses may be framed by length, by chunks
//! or by the end of the connection. After any error the connection is dropped: nobody knows what the server made of the
//! request, and the caller has to treat it so.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest response body that is read: beyond it the server is at fault.
const BODY_LEN_MAX: u64 = 1 << 30;
/// Longest line of a response head.
const LINE_LEN_MAX: u64 = 64 * 1024;

/// A status and a body.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The beginning of the body, for messages.
    pub(crate) fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        text.trim().chars().take(200).collect()
    }
}

/// A server and, if there is one, the connection to it.
pub(crate) struct Connection {
    address: SocketAddr,
    timeout: Duration,
    stream: Option<BufReader<TcpStream>>,
}

impl Connection {
    /// Does not connect yet. `timeout` bounds connecting, each read and each write.
    pub(crate) fn new(address: SocketAddr, timeout: Duration) -> Connection {
        Connection {
            address,
            timeout,
            stream: None,
        }
    }

    /// Connects, if it is not connected.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(self.timeout))?;
            stream.set_write_timeout(Some(self.timeout))?;
            self.stream = Some(BufReader::with_capacity(64 * 1024, stream));
        }
        Ok(())
    }

    /// Sends the bytes of a request and reads the response. After an error the next call connects anew.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> io::Result<Response> {
        self.connect()?;
        let Some(mut stream) = self.stream.take() else {
            unreachable!("connected above");
        };
        // A server may answer and close before it has read the body (too large, wrong tenant): the answer counts.
        let sent = stream.get_mut().write_all(request);
        let read = read_response(&mut stream);
        match (sent, read) {
            (Ok(()), Ok((response, keep))) => {
                if keep {
                    self.stream = Some(stream);
                }
                Ok(response)
            }
            (Err(_), Ok((response, _))) => Ok(response),
            (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
        }
    }
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(LINE_LEN_MAX).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection",
        ));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| invalid("response head is not UTF-8"))
}

/// The response, and whether the connection can be used again.
fn read_response(stream: &mut impl BufRead) -> io::Result<(Response, bool)> {
    loop {
        let status_line = read_line(stream)?;
        let status = status_line
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .and_then(|digits| digits.parse::<u16>().ok())
            .ok_or_else(|| invalid(format!("not a status line: {status_line:?}")))?;
        let mut keep = status_line.starts_with("HTTP/1.1");
        let mut length = None;
        let mut chunked = false;
        loop {
            let line = read_line(stream)?;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(invalid(format!("not a header: {line:?}")));
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(
                    value
                        .parse::<u64>()
                        .map_err(|_| invalid("wrong content-length"))?,
                );
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                keep = !value.eq_ignore_ascii_case("close");
            }
        }
        if (100..200).contains(&status) {
            continue;
        }
        let mut body = Vec::new();
        if status == 204 || status == 304 {
            // No body by definition.
        } else if chunked {
            read_chunks(stream, &mut body)?;
        } else if let Some(length) = length {
            read_exactly(stream, length, &mut body)?;
        } else {
            keep = false;
            stream.take(BODY_LEN_MAX).read_to_end(&mut body)?;
        }
        return Ok((Response { status, body }, keep));
    }
}

fn read_exactly(stream: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if length > BODY_LEN_MAX || body.len() as u64 + length > BODY_LEN_MAX {
        return Err(invalid("response body is too long"));
    }
    if stream.take(length).read_to_end(body)? as u64 != length {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "response body is cut short",
        ));
    }
    Ok(())
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(stream)?;
        let digits = line.split(';').next().unwrap_or("").trim();
        let length = u64::from_str_radix(digits, 16)
            .map_err(|_| invalid(format!("not the length of a chunk: {line:?}")))?;
        if length == 0 {
            while !read_line(stream)?.is_empty() {}
            return Ok(());
        }
        read_exactly(stream, length, body)?;
        if !read_line(stream)?.is_empty() {
            return Err(invalid("a chunk is longer than it says"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> io::Result<(Response, bool)> {
        read_response(&mut text.as_bytes())
    }

    #[test]
    fn all_three_framings_give_the_body() {
        for (text, keep) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello...", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nhello", false),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 5\r\n\r\nhello",
                false,
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                true,
            ),
        ] {
            let (response, kept) = parse(text).unwrap();
            assert_eq!(
                (response.status, &response.body[..], kept),
                (200, &b"hello"[..], keep)
            );
        }
        assert_eq!(
            parse("HTTP/1.1 204 No Content\r\n\r\n").unwrap().0.status,
            204
        );
    }

    #[test]
    fn what_is_not_a_whole_response_is_an_error() {
        for text in [
            "",
            "HTTP/1.1 200",
            "SMTP ready\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
