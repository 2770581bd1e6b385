//! A socket with patience that ends, and a body likewise.
//!
//! hyper asks for bytes and we count the time: an idle connection may rest for one time, a request's headers must be complete
//! within another, its body within the same again, and a client that takes none of its answer is hung up on. So a thousand clients that
//! send a byte a second hold a thousand sockets for seconds and nothing else. (hyper's own timeout for headers runs while a
//! connection is idle too, and would hang up on a Prometheus between two scrapes.)
//!
//! Three bytes that a URL may not have, and that Go's servers take in a query all the same (`query?query=up{job="x"}`), are escaped on their way to hyper, which would
//! answer 400 before anybody here could say why. A request that was read with the one before it, since its client did not wait for an answer, is left as it is.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::tls::Stream;

/// How long a client may take; zero is unlimited.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) idle: Duration,
    pub(crate) read: Duration,
    pub(crate) write: Duration,
}

/// What the connection waits for, as far as reading is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first byte of another request.
    Idle,
    /// The headers of a request, or of the first one on this connection.
    Headers,
    /// Nothing: a request is at work (its body has a clock of its own).
    Busy,
}

/// The phase, shared between the socket and the service of its connection.
pub(crate) type SharedPhase = Rc<Cell<Phase>>;

/// The socket.
pub(crate) struct Socket {
    stream: Stream,
    patience: Patience,
    phase: SharedPhase,
    reading: Option<(Phase, Pin<Box<Sleep>>)>,
    writing: Option<Pin<Box<Sleep>>>,
    /// Whether the next byte belongs to the first line of a request.
    in_line: bool,
    /// Bytes that came and were more than there was room for when they were escaped.
    held: VecDeque<u8>,
}

impl Socket {
    pub(crate) fn new(stream: Stream, patience: Patience, phase: SharedPhase) -> Socket {
        Socket {
            stream,
            patience,
            phase,
            reading: None,
            writing: None,
            in_line: true,
            held: VecDeque::new(),
        }
    }

    /// Whether the wait for bytes has gone on for too long.
    fn read_expired(&mut self, cx: &mut Context<'_>) -> bool {
        let phase = self.phase.get();
        let patience = match phase {
            Phase::Idle => self.patience.idle,
            Phase::Headers => self.patience.read,
            Phase::Busy => Duration::ZERO,
        };
        if patience.is_zero() {
            self.reading = None;
            return false;
        }
        if self
            .reading
            .as_ref()
            .is_none_or(|(since, _)| *since != phase)
        {
            self.reading = Some((phase, Box::pin(sleep(patience))));
        }
        let (_, timer) = self.reading.as_mut().expect("set above");
        timer.as_mut().poll(cx).is_ready()
    }

    /// Escapes what has just been read behind `from`, up to the end of the line.
    fn escape_line(&mut self, buf: &mut ReadBuf<'_>, from: usize) {
        let new = &buf.filled()[from..];
        let end = new.iter().position(|byte| *byte == b'\n');
        self.in_line = end.is_none();
        let line = &new[..end.unwrap_or(new.len())];
        if line.iter().all(|byte| escaped(*byte).is_none()) {
            return;
        }
        let mut bytes = VecDeque::with_capacity(new.len() + 2 * line.len());
        for byte in line {
            match escaped(*byte) {
                Some(escape) => bytes.extend(escape),
                None => bytes.push_back(*byte),
            }
        }
        bytes.extend(&new[line.len()..]);
        buf.set_filled(from);
        let room = bytes.len().min(buf.remaining());
        self.held = bytes.split_off(room);
        let bytes = bytes.make_contiguous();
        buf.put_slice(bytes);
    }

    /// Whether the wait for room has gone on for too long.
    fn write_expired(&mut self, cx: &mut Context<'_>) -> bool {
        if self.patience.write.is_zero() {
            return false;
        }
        let patience = self.patience.write;
        let timer = self
            .writing
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        timer.as_mut().poll(cx).is_ready()
    }

    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.writing = None;
        } else if self.write_expired(cx) {
            return Poll::Ready(Err(timed_out("client does not take its answer")));
        }
        poll
    }
}

/// A byte as a URL may have it, if it may not as it is.
fn escaped(byte: u8) -> Option<&'static [u8; 3]> {
    match byte {
        b'"' => Some(b"%22"),
        b'<' => Some(b"%3C"),
        b'>' => Some(b"%3E"),
        _ => None,
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            let (bytes, _) = self.held.as_slices();
            let count = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..count]);
            self.held.drain(..count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buf);
        if poll.is_pending() {
            if self.read_expired(cx) {
                return Poll::Ready(Err(timed_out("client does not send its request")));
            }
        } else if self.phase.get() == Phase::Idle && buf.filled().len() > before {
            self.phase.set(Phase::Headers);
            self.in_line = true;
        }
        if self.in_line && buf.filled().len() > before {
            self.escape_line(buf, before);
        }
        poll
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS says goodbye, and the client may not take it.
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.written(cx, poll)
    }
}

/// The body of a request as it comes in, and whether all of it has.
pub(crate) struct Received {
    body: Source,
}

enum Source {
    Incoming { body: Incoming, unread: Unread },
    Whole(Full<Bytes>),
}

/// Whether something of the body of the request at work is still to come; shared by the requests of a connection, which come one after another.
pub(crate) type Unread = Rc<Cell<bool>>;

impl Received {
    pub(crate) fn new(body: Incoming, unread: Unread) -> Received {
        unread.set(!body.is_end_stream());
        let body = Source::Incoming { body, unread };
        Received { body }
    }

    /// A body that is there already.
    pub(crate) fn whole(body: Bytes) -> Received {
        Received {
            body: Source::Whole(Full::new(body)),
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let (body, unread) = match &mut self.body {
            Source::Incoming { body, unread } => (body, unread),
            Source::Whole(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                return Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) => Ok(frame),
                    Err(never) => match never {},
                }));
            }
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        if frame.is_none() || body.is_end_stream() {
            unread.set(false);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Incoming { body, .. } => body.is_end_stream(),
            Source::Whole(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Incoming { body, .. } => body.size_hint(),
            Source::Whole(body) => body.size_hint(),
        }
    }
}

/// The body of a request, which must be complete by a deadline.
pub(crate) struct TimedBody {
    body: Received,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// A body that did not come whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Within its time.
    #[error("the body was not sent in time")]
    Late,
    /// Because the connection or its framing broke.
    #[error("the body is cut short: {0}")]
    Broken(#[from] hyper::Error),
}

impl TimedBody {
    /// `patience` counts from now.
    pub(crate) fn new(body: Received, patience: Duration) -> TimedBody {
        let timer = || Box::pin(sleep_until(Instant::now() + patience));
        TimedBody {
            body,
            deadline: (!patience.is_zero()).then(timer),
        }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)));
        }
        match &mut self.deadline {
            Some(timer) => {
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Some(Err(BodyError::Late)))
            }
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::tls::{ClientTls, ClientTlsFiles, Tls};

    /// TLS says goodbye with bytes of its own. A client that takes nothing any more must not hold the connection with that.
    #[tokio::test]
    async fn the_end_of_a_connection_does_not_wait_for_a_client_that_takes_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The client speaks that; what is spoken behind the handshake is nothing here.
        let tls = Tls::grpc(&crate::tls::tests::files()).unwrap();
        let anybody = ClientTls::new(&ClientTlsFiles::default(), None).unwrap();
        let client = async {
            let stream = TcpStream::connect(address).await.unwrap();
            anybody.connect(stream, "localhost").await
        };
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            tls.accept(stream, Duration::from_secs(10)).await
        };
        let (_client, stream) = tokio::join!(client, server);
        let stream = stream.unwrap();
        let Stream::Tls(inner) = &stream else {
            unreachable!("TLS");
        };
        // Until the kernel takes no more; the client would not know what it is.
        let full = async {
            let (socket, _) = inner.get_ref();
            while tokio::time::timeout(Duration::from_millis(200), socket.writable())
                .await
                .is_ok()
            {
                let _ = socket.try_write(&[0; 65536]);
            }
        };
        full.await;
        let patience = Patience {
            idle: Duration::ZERO,
            read: Duration::ZERO,
            write: Duration::from_millis(100),
        };
        let mut socket = Socket::new(stream, patience, Rc::new(Cell::new(Phase::Busy)));
        let end = tokio::time::timeout(Duration::from_secs(20), socket.shutdown()).await;
        let error = end.expect("it ends").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    /// `curl -g 'http://node/prometheus/api/v1/query?query=up{job="x"}'`, also when the line comes in pieces and there is room for few bytes.
    #[tokio::test]
    async fn bytes_that_a_url_may_not_have_are_escaped_in_the_first_line_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let patience = Patience {
            idle: Duration::ZERO,
            read: Duration::ZERO,
            write: Duration::ZERO,
        };
        let phase = Rc::new(Cell::new(Phase::Headers));
        let mut socket = Socket::new(Stream::Plain(stream), patience, phase.clone());
        let sent = "GET /q?a=\"<>{}\" HTTP/1.1\r\nX: \"<>\"\r\n\r\n\"";
        let seen = "GET /q?a=%22%3C%3E{}%22 HTTP/1.1\r\nX: \"<>\"\r\n\r\n\"";
        for (room, piece) in [(1000, 1000), (7, 1000), (1000, 3), (1, 1), (5, 11)] {
            let mut got = Vec::new();
            let mut pieces = sent.as_bytes().chunks(piece);
            while got.len() < seen.len() {
                if let Some(bytes) = pieces.next() {
                    client.write_all(bytes).await.unwrap();
                }
                let mut some = vec![0; room];
                let count = socket.read(&mut some).await.unwrap();
                got.extend_from_slice(&some[..count]);
            }
            assert_eq!(String::from_utf8(got).unwrap(), seen, "{room}, {piece}");
            // The next request of the connection.
            phase.set(Phase::Idle);
        }
    }
}
