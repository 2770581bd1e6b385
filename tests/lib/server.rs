//! A Myelin under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Api, Child, binary, free_port, wait_until};

/// How a server is started.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// YAML for `-config.file`.
    pub config: String,
    /// Further flags.
    pub args: Vec<String>,
    /// A program that runs it, with its own arguments.
    pub wrapper: Vec<String>,
    /// Where the data goes instead of a temporary directory of its own.
    pub data: Option<PathBuf>,
}

/// A running server on free ports; killed when dropped.
pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
    options: ServerOptions,
    data: PathBuf,
    http_port: u16,
    grpc_port: u16,
}

impl Server {
    /// Starts one and waits until it is ready; `None` (a skip) where the binary is not built.
    pub fn start(options: ServerOptions) -> Option<Server> {
        let mut server = Server::spawn(options)?;
        server.wait_ready();
        Some(server)
    }

    /// As [`Server::start`], of one that may have to wait for others until it is ready.
    pub fn spawn(options: ServerOptions) -> Option<Server> {
        let program = binary("myelin")?;
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(folder.path().join("myelin.yaml"), &options.config)
            .expect("it can be written");
        let data = options
            .data
            .clone()
            .unwrap_or_else(|| folder.path().join("data"));
        let (http_port, grpc_port) = (free_port(), free_port());
        let child = spawn(
            &program,
            folder.path(),
            &options,
            &data,
            http_port,
            grpc_port,
        );
        Some(Server {
            child,
            folder,
            options,
            data,
            http_port,
            grpc_port,
        })
    }

    /// Tenants off, nothing special.
    pub fn plain() -> Option<Server> {
        Server::start(ServerOptions::default())
    }

    /// Waits until it is ready.
    pub fn wait_ready(&mut self) {
        let api = Api::new(&self.url(), None);
        let child = &mut self.child;
        wait_until(
            "the server to become ready",
            Duration::from_secs(60),
            || {
                if let Some(status) = child.ended() {
                    panic!("the server ended at start ({status}):\n{}", child.log());
                }
                api.try_get("/ready", &[]).is_ok_and(|r| r.status == 200)
            },
        );
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// Where to push.
    pub fn push_url(&self) -> String {
        format!("{}/api/v1/push", self.url())
    }

    /// `127.0.0.1:PORT` of HTTP.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.http_port)
    }

    /// `127.0.0.1:PORT` of gRPC.
    pub fn grpc_address(&self) -> String {
        format!("127.0.0.1:{}", self.grpc_port)
    }

    /// The query API as one tenant (or none).
    pub fn api(&self, tenant: Option<&str>) -> Api {
        Api::new(&format!("{}/prometheus", self.url()), tenant)
    }

    /// The root of the server, for admin pages.
    pub fn admin(&self) -> Api {
        Api::new(&self.url(), None)
    }

    /// Its process.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its folder for logs and configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// `kill -9` without waiting for the end.
    pub fn signal_kill(&self) {
        self.child.signal(libc::SIGKILL);
    }

    /// SIGTERM; panics unless it ends with status 0 within 20 s.
    pub fn stop(&mut self) {
        self.child.signal(libc::SIGTERM);
        let status = self.child.wait(Duration::from_secs(20));
        assert!(
            status.success(),
            "ended with {status}:\n{}",
            self.child.log()
        );
    }

    /// Starts it again on the same data and ports, after [`Server::kill`] or [`Server::stop`], and waits until it is ready.
    pub fn restart(&mut self) {
        self.respawn();
        self.wait_ready();
    }

    /// As [`Server::restart`] with other flags.
    pub fn restart_with(&mut self, args: &[&str]) {
        self.options.args = args.iter().map(|a| (*a).to_owned()).collect();
        self.restart();
    }

    /// Starts it again without waiting.
    pub fn respawn(&mut self) {
        let program = binary("myelin").expect("it was there before");
        self.child.kill();
        let folder = self.folder.path();
        self.child = spawn(
            &program,
            folder,
            &self.options,
            &self.data,
            self.http_port,
            self.grpc_port,
        );
    }
}

fn spawn(
    program: &Path,
    folder: &Path,
    options: &ServerOptions,
    data: &Path,
    http: u16,
    grpc: u16,
) -> Child {
    let mut command = match options.wrapper.split_first() {
        None => Command::new(program),
        Some((wrapper, args)) => {
            let mut command = Command::new(wrapper);
            command.args(args).arg(program);
            command
        }
    };
    command
        .arg(format!(
            "-config.file={}",
            folder.join("myelin.yaml").display()
        ))
        .arg(format!("-data.dir={}", data.display()))
        .arg(format!("-server.http-listen-port={http}"))
        .arg(format!("-server.grpc-listen-port={grpc}"));
    if !options
        .args
        .iter()
        .any(|a| a.contains("self-scrape.interval"))
    {
        command.arg("-self-scrape.interval=0");
    }
    command.args(&options.args);
    Child::start(&mut command, &folder.join("myelin.log"))
}
