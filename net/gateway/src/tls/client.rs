//! TLS towards other nodes: whom this node believes, and what it shows of itself.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Stream, authorities, certificates, private_key};

/// The files of a node that calls others, PEM.
#[derive(Clone, Default)]
pub struct ClientTlsFiles {
    /// Name and content of the authorities of servers; `None`: servers are not verified.
    pub authorities: Option<(String, Vec<u8>)>,
    /// What is shown to servers that ask: certificate with its chain, and key.
    pub identity: Option<[(String, Vec<u8>); 2]>,
}

/// See the module.
#[derive(Debug)]
pub struct ClientTls {
    config: RwLock<Arc<ClientConfig>>,
    /// The name that certificates must have; otherwise that which is called.
    server_name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// `server_name` stands for the name that is called, in certificates.
    ///
    /// Errors: a sentence that names the file that is wrong; a name that is none.
    pub fn new(files: &ClientTlsFiles, server_name: Option<&str>) -> Result<ClientTls, String> {
        Ok(ClientTls {
            config: RwLock::new(config(files)?),
            server_name: server_name.map(name).transpose()?,
        })
    }

    /// From now on connections are made with these. Errors: as at the start; then nothing changes.
    pub fn replace(&self, files: &ClientTlsFiles) -> Result<(), String> {
        let new = config(files)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// Shakes hands with who is called `host`. Errors: what is wrong with the other side, in a sentence.
    pub(crate) async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<Stream> {
        let config = self.config.read();
        let config = config.unwrap_or_else(PoisonError::into_inner).clone();
        let called = match &self.server_name {
            Some(name) => name.clone(),
            None => name(host).map_err(io::Error::other)?,
        };
        let shaken = TlsConnector::from(config).connect(called, stream).await;
        let shaken = shaken.map_err(|error| {
            let reason = match error.get_ref().and_then(|error| error.downcast_ref()) {
                // What rustls makes of an answer that is none.
                Some(Error::InvalidMessage(_)) => "the other side does not speak TLS".to_owned(),
                _ => error.to_string(),
            };
            io::Error::new(error.kind(), format!("no TLS with {host}: {reason}"))
        })?;
        Ok(Stream::Tls(Box::new(shaken.into())))
    }
}

fn name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned())
        .map_err(|_| format!("{text:?} is no name that a certificate could have"))
}

fn config(files: &ClientTlsFiles) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &files.authorities {
        Some(file) => {
            let roots = Arc::new(authorities(file)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(|error| format!("{}: {error}", file.0))?;
            builder.with_webpki_verifier(verifier)
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
    };
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some([certificate, key]) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| format!("{} and {}: {error}", certificate.0, key.0))?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Believes every certificate; that whoever shows it has its key is still proven.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
