//! TLS of the listeners, and towards other nodes: rustls over aws-lc-rs, versions 1.2 and 1.3, certificates that change while the node runs.
//!
//! [`Tls`] is what a listener has, [`ClientTls`] what a node has that calls others: the configuration that the next connection gets. Connections keep theirs. Files
//! are read by whoever runs the gateway, this sees their bytes. A client's certificate is verified by rustls against the authorities given; what is taken from it is the
//! common name of its subject ([`common_name`]).

mod client;

use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

pub use client::{ClientTls, ClientTlsFiles};

/// A handshake takes two round trips; where no patience is configured this is it.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They may; one that is shown must be right.
    IfGiven,
    /// They must.
    Required,
}

/// The files of a listener, PEM.
#[derive(Clone, Default)]
pub struct TlsFiles {
    /// Name and content of the certificate, chain behind it.
    pub certificate: (String, Vec<u8>),
    /// Of its key.
    pub key: (String, Vec<u8>),
    /// Of the authorities of clients.
    pub client_ca: Option<(String, Vec<u8>)>,
    /// Whether clients are asked.
    pub client_auth: ClientAuth,
}

/// See the module.
#[derive(Debug)]
pub struct Tls {
    config: RwLock<Arc<ServerConfig>>,
    protocol: &'static [u8],
}

impl Tls {
    /// For a listener of HTTP/1.1.
    ///
    /// Errors: a sentence that names the file that is wrong.
    pub fn http(files: &TlsFiles) -> Result<Tls, String> {
        Tls::new(files, b"http/1.1")
    }

    /// For one of gRPC.
    ///
    /// Errors: as for HTTP.
    pub fn grpc(files: &TlsFiles) -> Result<Tls, String> {
        Tls::new(files, b"h2")
    }

    fn new(files: &TlsFiles, protocol: &'static [u8]) -> Result<Tls, String> {
        Ok(Tls {
            config: RwLock::new(config(files, protocol)?),
            protocol,
        })
    }

    /// From now on connections get these. Errors: as at the start; then nothing changes.
    pub fn replace(&self, files: &TlsFiles) -> Result<(), String> {
        let new = config(files, self.protocol)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Shakes hands, within the patience for a request's head.
    pub(crate) async fn accept(&self, stream: TcpStream, patience: Duration) -> io::Result<Stream> {
        let config = self.config.read();
        let config = config.unwrap_or_else(PoisonError::into_inner).clone();
        let patience = if patience.is_zero() {
            HANDSHAKE
        } else {
            patience
        };
        let shaken = TlsAcceptor::from(config).accept(stream);
        match tokio::time::timeout(patience, shaken).await {
            Ok(shaken) => Ok(Stream::Tls(Box::new(shaken?.into()))),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn config(files: &TlsFiles, protocol: &[u8]) -> Result<Arc<ServerConfig>, String> {
    let certificates = certificates(&files.certificate)?;
    let key = private_key(&files.key)?;
    let key_name = &files.key.0;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match (&files.client_ca, files.client_auth) {
        (None, ClientAuth::None) => builder.with_no_client_auth(),
        (Some(_), ClientAuth::None) => {
            return Err(
                "authorities of clients are given, but clients are not asked for a certificate"
                    .to_owned(),
            );
        }
        (None, _) => {
            return Err(
                "clients are asked for a certificate, but no authorities are given".to_owned(),
            );
        }
        (Some(file), auth) => {
            let roots = Arc::new(authorities(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = match auth {
                ClientAuth::IfGiven => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| format!("{}: {error}", file.0))?,
            )
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|error| format!("{} and {key_name}: {error}", files.certificate.0))?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

fn private_key((name, content): &(String, Vec<u8>)) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(content)
        .map_err(|error| format!("{name}: no private key in PEM: {error}"))
}

fn authorities(file: &(String, Vec<u8>)) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(file)? {
        let added = roots.add(root);
        added.map_err(|error| format!("{}: {error}", file.0))?;
    }
    Ok(roots)
}

fn certificates(
    (name, content): &(String, Vec<u8>),
) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{name}: no certificate in PEM")),
        Err(error) => Err(format!("{name}: no certificates in PEM: {error}")),
    }
}

/// A connection, with or without TLS.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The name in the certificate that the client has shown.
    pub(crate) fn client_name(&self) -> Option<String> {
        let Stream::Tls(stream) = self else {
            return None;
        };
        let (_, connection) = stream.get_ref();
        common_name(connection.peer_certificates()?.first()?)
    }
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Stream::Tls($stream) => {
                let $stream = Pin::new($stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}

impl tonic::transport::server::Connected for Stream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// The common name of a certificate's subject; the last where there are several.
///
/// Certificate { TBSCertificate { [0] version?, serial, algorithm, issuer, validity, subject, .. }, .. }, a name is a sequence of sets of
/// (type, value). rustls has verified the certificate; a broken one has no name all the same.
fn common_name(der: &[u8]) -> Option<String> {
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let mut whole = der;
    let (_, mut certificate) = take(&mut whole)?;
    let (_, mut fields) = take(&mut certificate)?;
    if fields.first() == Some(&0xa0) {
        take(&mut fields)?;
    }
    for _ in 0..4 {
        take(&mut fields)?;
    }
    let (_, mut subject) = take(&mut fields)?;
    let mut name = None;
    while !subject.is_empty() {
        let (_, mut set) = take(&mut subject)?;
        while !set.is_empty() {
            let (_, mut pair) = take(&mut set)?;
            let (_, kind) = take(&mut pair)?;
            let (_, value) = take(&mut pair)?;
            if kind == COMMON_NAME {
                name = String::from_utf8(value.to_vec()).ok();
            }
        }
    }
    name
}

/// Takes an element of DER off the front: its tag, its content.
fn take<'d>(der: &mut &'d [u8]) -> Option<(u8, &'d [u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let len = bytes
                .iter()
                .fold(0, |len, byte| len << 8 | usize::from(*byte));
            (len, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    *der = rest;
    Some((tag, content))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A certificate by the name `localhost` that is its own authority, and its key.
    pub(crate) fn files() -> TlsFiles {
        let name = "localhost.pem".to_owned();
        let pem = include_bytes!("tls/localhost.pem").to_vec();
        TlsFiles {
            certificate: (name.clone(), pem.clone()),
            key: (name, pem),
            ..TlsFiles::default()
        }
    }

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![tag, 0x82, (content.len() >> 8) as u8, content.len() as u8];
        out.extend_from_slice(content);
        out
    }

    fn certificate(names: &[(u8, &str)]) -> Vec<u8> {
        let pairs = names.iter().flat_map(|(kind, text)| {
            let pair = [element(6, &[0x55, 4, *kind]), element(12, text.as_bytes())].concat();
            element(0x31, &element(0x30, &pair))
        });
        let subject = element(0x30, &pairs.collect::<Vec<u8>>());
        let before = [element(0xa0, &[2, 1, 2]), element(2, &[7])].concat();
        let between = element(0x30, &[]).repeat(3);
        let tbs = [before, between, subject, element(0x30, &[1])].concat();
        element(0x30, &[element(0x30, &tbs), element(0x30, &[])].concat())
    }

    #[test]
    fn the_common_name_is_found_among_the_names_of_a_subject() {
        let der = certificate(&[(10, "org"), (3, "client-1"), (11, "unit")]);
        assert_eq!(common_name(&der).as_deref(), Some("client-1"));
        assert_eq!(common_name(&certificate(&[(10, "org")])), None);
        for len in 0..der.len() {
            let _ = common_name(&der[..len]);
            let mut broken = der.clone();
            broken[len] ^= 0xff;
            let _ = common_name(&broken);
        }
        assert_eq!(common_name(&[]), None);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_with_its_name() {
        let files = TlsFiles {
            certificate: ("c.pem".into(), b"nothing".to_vec()),
            key: ("k.pem".into(), Vec::new()),
            ..TlsFiles::default()
        };
        let error = Tls::http(&files).err().unwrap();
        assert_eq!(error, "c.pem: no certificate in PEM");
    }
}
