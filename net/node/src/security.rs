//! Files of credentials, certificates and the secret of nodes: read at the start, and again while the node runs.
//!
//! A file that cannot be read or is wrong keeps a node from starting, and later changes nothing: what held goes on holding, and the log and
//! `myelin_security_last_reload_successful` tell. Certificate and key are looked at together: while only one of them is new they do not fit, so half of a
//! change comes into force with its other half.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use gateway::auth::{Authenticator, Credentials};
use gateway::tls::{ClientTls, ClientTlsFiles, Tls, TlsFiles};
use gateway::{Dial, NodeSecret};
use prometheus::{IntGaugeVec, Opts, Registry};
use sha2::{Digest, Sha256};

use crate::config::{self, ClientTlsConfig, Config, TlsConfig};

/// No such file is larger.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What the gateway is given.
#[derive(Default)]
pub(crate) struct Secured {
    pub(crate) auth: Option<Arc<Authenticator>>,
    pub(crate) http: Option<Arc<Tls>>,
    pub(crate) grpc: Option<Arc<Tls>>,
    /// What other nodes must show.
    pub(crate) secret: Option<Arc<NodeSecret>>,
    /// How ingesters are called.
    pub(crate) ingesters: Dial,
    /// How frontends are called.
    pub(crate) frontends: Dial,
}

/// See the module.
pub(crate) struct Security {
    watched: Vec<Watched>,
    successful: IntGaugeVec,
}

/// Understands the contents of files, in the order of their paths, and puts them into force.
type Take = Box<dyn Fn(Vec<Vec<u8>>) -> Result<(), String>>;

/// Files that are understood together.
struct Watched {
    /// What they are, for metric and log.
    what: &'static str,
    paths: Vec<PathBuf>,
    hash: [u8; 32],
    take: Take,
    /// What was wrong when they were last looked at; told once.
    wrong: Option<String>,
}

impl Security {
    /// Reads what is configured.
    ///
    /// Errors: a file that cannot be read, or is wrong; its name is in it.
    pub(crate) fn start(
        config: &Config,
        registry: &Registry,
    ) -> anyhow::Result<(Security, Secured)> {
        let successful = IntGaugeVec::new(
            Opts::new(
                "myelin_security_last_reload_successful",
                "Whether the files were right when they were last looked at.",
            ),
            &["files"],
        )?;
        registry.register(Box::new(successful.clone()))?;
        let mut security = Security {
            watched: Vec::new(),
            successful,
        };
        let server = &config.server;
        let mut secured = Secured {
            http: security.tls(
                "http_tls",
                "server.http_tls_config",
                &server.http_tls,
                Tls::http,
            )?,
            grpc: security.tls(
                "grpc_tls",
                "server.grpc_tls_config",
                &server.grpc_tls,
                Tls::grpc,
            )?,
            ..Secured::default()
        };
        secured.secret = security.node_secret(&server.grpc_secret_file)?;
        let ingesters = security.client_tls(
            "ingester_client_tls",
            "ingester_client.grpc_client_config",
            &config.ingester_client.tls,
        )?;
        secured.ingesters = Dial {
            tls: ingesters,
            secret: secured.secret.clone(),
        };
        let frontends = security.client_tls(
            "frontend_client_tls",
            "frontend_worker.grpc_client_config",
            &config.frontend_worker.tls,
        )?;
        secured.frontends = Dial {
            tls: frontends,
            secret: secured.secret.clone(),
        };
        let file = &config.auth.credentials_file;
        if !file.is_empty() {
            let path = PathBuf::from(file);
            let (hash, contents) = read(std::slice::from_ref(&path))?;
            let first = credentials(&contents[0])
                .map_err(|error| anyhow!("{file} (-auth.credentials-file): {error}"))?;
            let auth = Authenticator::new(first, config.auth.open_metrics, registry)?;
            let auth = Arc::new(auth);
            secured.auth = Some(auth.clone());
            let take = move |contents: Vec<Vec<u8>>| {
                auth.replace(credentials(&contents[0])?);
                Ok(())
            };
            security.watch("credentials", vec![path], hash, Box::new(take));
        }
        Ok((security, secured))
    }

    fn tls(
        &mut self,
        what: &'static str,
        section: &str,
        config: &TlsConfig,
        make: fn(&TlsFiles) -> Result<Tls, String>,
    ) -> anyhow::Result<Option<Arc<Tls>>> {
        let mut paths: Vec<PathBuf> = [&config.cert_file, &config.key_file]
            .map(PathBuf::from)
            .to_vec();
        if config.cert_file.is_empty() {
            return Ok(None);
        }
        if !config.client_ca_file.is_empty() {
            paths.push(PathBuf::from(&config.client_ca_file));
        }
        let auth = config.client_auth_type.0;
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let files = move |contents: Vec<Vec<u8>>| {
            let mut files = names.iter().cloned().zip(contents);
            TlsFiles {
                certificate: files.next().expect("certificate"),
                key: files.next().expect("key"),
                client_ca: files.next(),
                client_auth: auth,
            }
        };
        let (hash, contents) = read(&paths).with_context(|| section.to_owned())?;
        let tls = make(&files(contents)).map_err(|error| anyhow!("{section}: {error}"))?;
        let tls = Arc::new(tls);
        let replaced = tls.clone();
        let take = move |contents: Vec<Vec<u8>>| replaced.replace(&files(contents));
        self.watch(what, paths, hash, Box::new(take));
        Ok(Some(tls))
    }

    fn client_tls(
        &mut self,
        what: &'static str,
        section: &str,
        config: &ClientTlsConfig,
    ) -> anyhow::Result<Option<Arc<ClientTls>>> {
        if !config.enabled {
            return Ok(None);
        }
        let has_authorities = !config.ca_file.is_empty();
        let paths: Vec<PathBuf> = [&config.ca_file, &config.cert_file, &config.key_file]
            .into_iter()
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect();
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        let files = move |contents: Vec<Vec<u8>>| {
            let mut files = names.iter().cloned().zip(contents);
            ClientTlsFiles {
                authorities: has_authorities.then(|| files.next().expect("authorities")),
                identity: files
                    .next()
                    .map(|certificate| [certificate, files.next().expect("key")]),
            }
        };
        let (hash, contents) = read(&paths).with_context(|| section.to_owned())?;
        let name = Some(config.server_name.as_str()).filter(|name| !name.is_empty());
        let tls = ClientTls::new(&files(contents), name);
        let tls = Arc::new(tls.map_err(|error| anyhow!("{section}: {error}"))?);
        let replaced = tls.clone();
        let take = move |contents: Vec<Vec<u8>>| replaced.replace(&files(contents));
        self.watch(what, paths, hash, Box::new(take));
        Ok(Some(tls))
    }

    fn node_secret(&mut self, file: &str) -> anyhow::Result<Option<Arc<NodeSecret>>> {
        if file.is_empty() {
            return Ok(None);
        }
        let path = PathBuf::from(file);
        let wrong = |error| anyhow!("{file} (-server.grpc-secret-file): {error}");
        let (hash, contents) = read(std::slice::from_ref(&path))?;
        let secret = text(&contents[0]).and_then(NodeSecret::new);
        let secret = Arc::new(secret.map_err(wrong)?);
        let replaced = secret.clone();
        let take = move |contents: Vec<Vec<u8>>| replaced.replace(text(&contents[0])?);
        self.watch("grpc_secret", vec![path], hash, Box::new(take));
        Ok(Some(secret))
    }

    fn watch(&mut self, what: &'static str, paths: Vec<PathBuf>, hash: [u8; 32], take: Take) {
        self.successful.with_label_values(&[what]).set(1);
        self.watched.push(Watched {
            what,
            paths,
            hash,
            take,
            wrong: None,
        });
    }

    /// Looks at all files, and puts into force what is new and right.
    pub(crate) fn look(&mut self) {
        for watched in &mut self.watched {
            let looked = watched.look();
            let successful = self.successful.with_label_values(&[watched.what]);
            successful.set(i64::from(looked.is_ok()));
            let what = watched.what;
            match looked {
                Ok(true) => {
                    tracing::info!(what, "new files are in force");
                    watched.wrong = None;
                }
                Ok(false) => watched.wrong = None,
                Err(error) => {
                    if watched.wrong.as_ref() != Some(&error) {
                        tracing::error!(
                            what,
                            error,
                            "the files cannot be used; what held before goes on holding"
                        );
                    }
                    watched.wrong = Some(error);
                }
            }
        }
    }
}

impl Watched {
    fn look(&mut self) -> Result<bool, String> {
        let (hash, contents) = read(&self.paths).map_err(|error| format!("{error:#}"))?;
        if hash == self.hash {
            return Ok(false);
        }
        (self.take)(contents)?;
        self.hash = hash;
        Ok(true)
    }
}

fn text(content: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(content).map_err(|_| "not text in UTF-8".to_owned())
}

fn credentials(content: &[u8]) -> Result<Credentials, String> {
    Credentials::new(config::read_credentials(text(content)?)?).map_err(|error| error.to_string())
}

/// The contents of files, and a hash over all of them.
fn read(paths: &[PathBuf]) -> anyhow::Result<([u8; 32], Vec<Vec<u8>>)> {
    let mut hash = Sha256::new();
    let mut contents = Vec::new();
    for path in paths {
        let cannot = || format!("cannot read {}", path.display());
        let mut content = Vec::new();
        let file = std::fs::File::open(path).with_context(cannot)?;
        file.take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut content)
            .with_context(cannot)?;
        if content.len() as u64 > FILE_BYTES_MAX {
            return Err(anyhow!(
                "{} is larger than {FILE_BYTES_MAX} bytes",
                path.display()
            ));
        }
        hash.update(content.len().to_le_bytes());
        hash.update(&content);
        contents.push(content);
    }
    Ok((hash.finalize().into(), contents))
}
