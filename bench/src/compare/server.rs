//! The servers that are compared: how to start them, where they listen, what their acknowledgement means.
//!
//! A server is started anew for every run, on ports that were free and an empty data directory, pinned to its CPUs by `taskset`, and
//! stopped by SIGTERM. What it writes goes to a file beside its data, whose end is shown when it does not start. A target without a
//! command is somebody else's server: it is measured where it stands, without a fresh directory.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::http::Connection;
use crate::process::Process;
use crate::target::{Target, TargetOptions};

/// A server may take so long until it answers its first query.
const START_MAX: Duration = Duration::from_secs(60);
/// And so long until it has ended after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(60);

/// What is known of a server before it runs. `{port}`, `{port2}` and `{data}` are replaced in command and URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: String,
    /// Empty: it runs already.
    pub(crate) command: Vec<String>,
    /// Further arguments where a load has many tenants.
    pub(crate) tenants_arguments: Vec<String>,
    pub(crate) push: String,
    pub(crate) query: String,
    /// When it acknowledges.
    pub(crate) ack: String,
    /// Whether X-Scope-OrgID keeps tenants apart.
    pub(crate) tenants: bool,
    /// Whether it takes remote write 2.0.
    pub(crate) v2: bool,
    /// Whether nocache=1 leaves out its cache of results.
    pub(crate) nocache: bool,
    /// Of a server that runs already.
    pub(crate) pid: Option<u32>,
}

/// The names of [`Spec::built_in`].
pub(crate) const BUILT_IN: [&str; 3] = ["myelin", "victoria-metrics", "prometheus"];

impl Spec {
    /// A server by its name: `myelin` is `program`, the others are looked for in `PATH`.
    pub(crate) fn built_in(name: &str, myelin: &str) -> anyhow::Result<Spec> {
        let words = |text: &[&str]| text.iter().map(|word| (*word).to_owned()).collect();
        let local = |path: &str| format!("http://127.0.0.1:{{port}}{path}");
        let spec = Spec {
            name: name.to_owned(),
            command: Vec::new(),
            tenants_arguments: Vec::new(),
            push: local("/api/v1/write"),
            query: local(""),
            ack: String::new(),
            tenants: false,
            v2: false,
            nocache: false,
            pid: None,
        };
        Ok(match name {
            "myelin" => Spec {
                command: words(&[
                    myelin,
                    "-server.http-listen-port={port}",
                    "-server.grpc-listen-port={port2}",
                    "-data.dir={data}",
                    "-self-scrape.interval=0",
                ]),
                tenants_arguments: words(&[
                    "-auth.enabled=true",
                    "-distributor.ingestion-rate-limit=0",
                    "-ingester.max-series-per-user=0",
                    "-ingester.max-series-per-metric=0",
                ]),
                push: local("/api/v1/push"),
                query: local("/prometheus"),
                ack: "durable: when synced to disk".to_owned(),
                tenants: true,
                v2: true,
                nocache: true,
                ..spec
            },
            "victoria-metrics" => Spec {
                command: words(&[
                    "victoria-metrics",
                    "-httpListenAddr=127.0.0.1:{port}",
                    "-storageDataPath={data}",
                    "-search.latencyOffset=0s",
                    "-search.disableCache",
                    "-search.maxQueryDuration=120s",
                    "-search.maxUniqueTimeseries=100000000",
                ]),
                ack: "from memory, on disk seconds later".to_owned(),
                nocache: true,
                ..spec
            },
            "prometheus" => Spec {
                command: words(&[
                    "prometheus",
                    "--config.file=/dev/null",
                    "--web.enable-remote-write-receiver",
                    "--web.listen-address=127.0.0.1:{port}",
                    "--storage.tsdb.path={data}",
                ]),
                ack: "written to its log, not synced".to_owned(),
                ..spec
            },
            other => bail!(
                "no target is called {other:?}; built in are {}, others are described by --target",
                BUILT_IN.join(", ")
            ),
        })
    }

    /// A server by its description: `name=..;push=URL;query=URL;ack=TEXT;tenants;v2;nocache;pid=N;command=..`, of which
    /// name and push are needed. The command is split at blanks.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Spec> {
        let mut spec = Spec {
            name: String::new(),
            command: Vec::new(),
            tenants_arguments: Vec::new(),
            push: String::new(),
            query: String::new(),
            ack: "not said".to_owned(),
            tenants: false,
            v2: false,
            nocache: false,
            pid: None,
        };
        for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            match key.trim() {
                "name" => spec.name = value.to_owned(),
                "push" => spec.push = value.to_owned(),
                "query" => spec.query = value.to_owned(),
                "ack" => spec.ack = value.to_owned(),
                "command" => {
                    spec.command = value.split_whitespace().map(str::to_owned).collect();
                }
                "pid" => {
                    let pid = value.parse();
                    spec.pid = Some(pid.with_context(|| format!("{value:?} is not a pid"))?);
                }
                "tenants" => spec.tenants = true,
                "v2" => spec.v2 = true,
                "nocache" => spec.nocache = true,
                other => bail!("a target has no {other:?}, in {text:?}"),
            }
        }
        ensure!(!spec.name.is_empty(), "a target needs name=, in {text:?}");
        ensure!(!spec.push.is_empty(), "a target needs push=, in {text:?}");
        ensure!(
            spec.command.is_empty() || spec.pid.is_none(),
            "a target has either a command or a pid, in {text:?}"
        );
        Ok(spec)
    }

    /// Where its program is; `None` if it is not installed. A server that runs already needs none.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        let program = self.command.first().map_or("", String::as_str);
        if program.is_empty() || program.contains('/') {
            return Some(PathBuf::from(program)).filter(|path| program.is_empty() || path.exists());
        }
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
    }

    /// What the program says of its version, one line.
    pub(crate) fn version(&self) -> String {
        let Some(program) = self.program().filter(|_| !self.command.is_empty()) else {
            return "runs already".to_owned();
        };
        let said = Command::new(program).arg("--version").output();
        let said = said.map(|said| [said.stdout, said.stderr].concat());
        let text = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        line.unwrap_or("does not say its version")
            .chars()
            .take(120)
            .collect()
    }
}

/// A server that answers queries.
pub(crate) struct Server {
    pub(crate) target: Target,
    pub(crate) process: Option<Process>,
    child: Option<Child>,
    /// As it was started.
    words: Vec<String>,
    cpus: Option<String>,
    /// Holds its data and what it says; removed at the end.
    folder: PathBuf,
}

impl Server {
    /// Starts it, or finds it, and waits until it answers a query. `folder` is made.
    pub(crate) fn start(
        spec: &Spec,
        folder: &Path,
        cpus: Option<&str>,
        many_tenants: bool,
    ) -> anyhow::Result<Server> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let ports = [free_port()?, free_port()?];
        let data = folder.join("data");
        let fill = |text: &String| {
            text.replace("{port}", &ports[0].to_string())
                .replace("{port2}", &ports[1].to_string())
                .replace("{data}", &data.display().to_string())
        };
        let options = TargetOptions {
            url: fill(&spec.push),
            query_url: Some(fill(&spec.query)).filter(|url| !url.is_empty()),
            tenant: None,
        };
        let mut server = Server {
            target: options.resolve()?,
            process: spec.pid.map(Process::new).transpose()?,
            child: None,
            words: Vec::new(),
            cpus: cpus.map(str::to_owned),
            folder: folder.to_owned(),
        };
        if !spec.command.is_empty() {
            fs::create_dir_all(&data).with_context(|| format!("making {}", data.display()))?;
            let mut words: Vec<String> = spec.command.iter().map(fill).collect();
            if many_tenants {
                words.extend(spec.tenants_arguments.iter().map(fill));
            }
            server.child = Some(spawn(&words, cpus, &server.log())?);
            server.words = words;
        }
        // Where there are many tenants, a server may want one to be named.
        let ask = server
            .target
            .with_tenant(many_tenants.then(|| "tenant-0".to_owned()));
        let mut stream = Connection::new(ask.query.address()?, START_MAX);
        let start = Instant::now();
        loop {
            let patience = Duration::from_millis(500);
            match ask.wait_until_ready(&mut stream, patience) {
                Ok(()) => {
                    if let Some(child) = &server.child {
                        server.process = Some(Process::new(child.id())?);
                    }
                    return Ok(server);
                }
                Err(error) if server.ended() || start.elapsed() > START_MAX => {
                    return Err(error.context(server.last_words()));
                }
                Err(_) => {}
            }
        }
    }

    /// Kills it and starts it again on its data; returns how long that took until it answered a query with a sum, as it is given: expression, time in milliseconds, value.
    ///
    /// Its files have been read before it starts. Errors: it ended by itself, or took longer than `limit`.
    pub(crate) fn restart(
        &mut self,
        (expression, time_ms, value): &(String, i64, u64),
        limit: Duration,
    ) -> anyhow::Result<Duration> {
        let child = self.child.as_mut().context("it was started by others")?;
        child.kill().context("killing it")?;
        child.wait().context("waiting for its end")?;
        read_all(&self.folder.join("data"));
        let start = Instant::now();
        let child = spawn(&self.words, self.cpus.as_deref(), &self.log())?;
        self.process = Some(Process::new(child.id())?);
        self.child = Some(child);
        let request = self.target.query_request(expression, *time_ms);
        let mut stream = Connection::new(self.target.query.address()?, limit);
        loop {
            if let Ok(response) = stream.exchange(&request)
                && response.status == 200
            {
                let took = start.elapsed();
                let json: serde_json::Value = serde_json::from_slice(&response.body)?;
                let found = json["data"]["result"][0]["value"][1].as_str();
                let found = found.and_then(|text| text.parse::<f64>().ok());
                if found == Some(*value as f64) {
                    return Ok(took);
                }
                bail!("it answered {found:?}, {value} series were sent");
            }
            if self.ended() || start.elapsed() > limit {
                bail!("it does not answer: {}", self.last_words());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Whether its process is not there any more.
    pub(crate) fn ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => false,
        }
    }

    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Bytes that its data directory has on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.folder.join("data"))
    }

    /// Ends it and removes its data. Errors: it had to be killed.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            if child
                .try_wait()
                .context("waiting for the server")?
                .is_some()
            {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
        bail!("it did not end within {} s of SIGTERM", STOP_MAX.as_secs());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn spawn(words: &[String], cpus: Option<&str>, log: &Path) -> anyhow::Result<Child> {
    let out = File::create(log).with_context(|| format!("making {}", log.display()))?;
    let err = out.try_clone().context("the log's second handle")?;
    let mut all: Vec<&str> = Vec::new();
    if let Some(cpus) = cpus {
        // It replaces itself by the server: the process is the server's.
        all.extend(["taskset", "-c", cpus]);
    }
    all.extend(words.iter().map(String::as_str));
    Command::new(all[0])
        .args(&all[1..])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .with_context(|| format!("starting {}", all.join(" ")))
}

/// Reads all files once; what cannot be read now is the server's to complain about.
fn read_all(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_all(&path);
        } else if let Ok(mut file) = File::open(&path) {
            let _ = std::io::copy(&mut file, &mut std::io::sink());
        }
    }
}

/// A port that nobody listens on. Somebody may take it before the server does; then the server says so.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr().context("its address")?.port())
}

fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        // Removed meanwhile.
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read_and_wrong_ones_refused() {
        let spec = Spec::parse(
            "name=mimir; push=http://127.0.0.1:{port}/api/v1/push; query=http://127.0.0.1:{port}/prometheus; \
             ack=in memory; tenants; command=/opt/mimir -port={port} -dir={data}",
        )
        .unwrap();
        assert_eq!(spec.command, ["/opt/mimir", "-port={port}", "-dir={data}"]);
        assert!(spec.tenants && !spec.v2 && !spec.nocache && spec.ack == "in memory");
        for (wrong, told) in [
            ("push=http://a/b", "name="),
            ("name=a", "push="),
            ("name=a;push=http://a/b;speed=9", "\"speed\""),
            ("name=a;push=http://a/b;pid=x", "\"x\""),
            ("name=a;push=http://a/b;pid=1;command=b", "either"),
        ] {
            let error = format!("{:#}", Spec::parse(wrong).unwrap_err());
            assert!(error.contains(told), "{error}");
        }
        let unknown = Spec::built_in("influx", "x").unwrap_err().to_string();
        assert!(unknown.contains("influx") && unknown.contains("victoria-metrics"));
    }

    #[test]
    fn a_server_that_ends_at_once_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let spec = Spec {
            command: ["sh", "-c", "echo the disk is on fire; exit 3"]
                .map(str::to_owned)
                .to_vec(),
            ..Spec::built_in("prometheus", "x").unwrap()
        };
        let Err(error) = Server::start(&spec, &folder.path().join("run"), None, false) else {
            panic!("nobody answers there");
        };
        assert!(
            format!("{error:#}").contains("the disk is on fire"),
            "{error:#}"
        );
        assert!(!folder.path().join("run").exists(), "its folder is gone");
    }
}
