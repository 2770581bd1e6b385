//! Credentials and TLS from outside: a real Prometheus writes over TLS with a password, curl shows a certificate, files change while the node runs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tests::{Child, binary, component, free_port, wait_until};

/// Runs a program to its end. Panics with its output where it fails.
fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {log}");
    output
}

pub(crate) fn openssl(folder: &Path, words: &str) {
    run(Command::new("openssl")
        .args(words.split(' '))
        .current_dir(folder));
}

/// A certificate of `ca`, by that name, for a server on 127.0.0.1 and for a client alike.
pub(crate) fn certificate(folder: &Path, ca: &str, name: &str) {
    openssl(
        folder,
        &format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /O=test/CN={name}"
        ),
    );
    std::fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    openssl(
        folder,
        &format!(
            "x509 -req -in {name}.csr -CA {ca}.crt -CAkey {ca}.key -days 2 -extfile san -out {name}.crt"
        ),
    );
}

pub(crate) fn authority(folder: &Path, name: &str) {
    openssl(
        folder,
        &format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout {name}.key -out {name}.crt -subj /CN={name}"
        ),
    );
}

/// What the tool makes of a password.
fn hashed(program: &Path, password: &str) -> String {
    let mut tool = Command::new(program)
        .args(["tool", "hash-password"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let mut stdin = tool.stdin.take().expect("piped");
    writeln!(stdin, "{password}").unwrap();
    drop(stdin);
    let said = tool.wait_with_output().expect("it ends").stdout;
    String::from_utf8(said).unwrap().trim().to_owned()
}

struct Node {
    program: PathBuf,
    folder: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
    grpc_port: u16,
    token: String,
}

impl Node {
    /// One with TLS on both ports and three users; `None` (a skip) where something is not there.
    fn start() -> Option<Node> {
        let program = binary("myelin")?;
        component("openssl")?;
        component("curl")?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        authority(path, "ca");
        certificate(path, "ca", "server");
        certificate(path, "ca", "ops.example");
        let said = run(Command::new(&program).args(["tool", "new-token"])).stdout;
        let said = String::from_utf8(said).unwrap();
        let token = said.lines().next().unwrap().trim_start_matches("# token: ");
        let mut node = Node {
            token: token.to_owned(),
            program,
            child: None,
            port: free_port(),
            grpc_port: free_port(),
            folder,
        };
        let entry = said.lines().nth(1).unwrap();
        std::fs::write(node.file("token-entry"), entry).unwrap();
        node.write_credentials("geheim-1");
        node.child = Some(node.spawn(&[]));
        wait_until("the node to be ready", Duration::from_secs(60), || {
            node.curl(&["/ready"]).0 == 200
        });
        Some(node)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_credentials(&self, password: &str) {
        let token = std::fs::read_to_string(self.file("token-entry")).unwrap();
        let text = format!(
            "users:\n\
             - name: prometheus-a\n  {}\n  tenants: [a]\n  scopes: [write]\n\
             - name: grafana\n  {token}\n  tenants: [a, b]\n  scopes: [read]\n\
             - name: ops\n  certificate_names: ops.example\n  tenants: ['*']\n  scopes: [read, admin]\n",
            hashed(&self.program, password)
        );
        std::fs::write(self.file("new"), text).unwrap();
        std::fs::rename(self.file("new"), self.file("credentials.yaml")).unwrap();
    }

    fn spawn(&self, more: &[&str]) -> Child {
        let at = |name: &str| self.file(name).display().to_string();
        let mut command = Command::new(&self.program);
        command.args([
            "-auth.enabled=true".to_owned(),
            "-auth.reload-period=200ms".to_owned(),
            "-tenant-federation.enabled=true".to_owned(),
            "-self-scrape.interval=0".to_owned(),
            format!("-auth.credentials-file={}", at("credentials.yaml")),
            format!("-data.dir={}", at("data")),
            format!("-server.http-listen-port={}", self.port),
            format!("-server.grpc-listen-port={}", self.grpc_port),
            format!("-server.http-tls-cert-path={}", at("server.crt")),
            format!("-server.http-tls-key-path={}", at("server.key")),
            format!("-server.http-tls-ca-path={}", at("ca.crt")),
            "-server.http-tls-client-auth=VerifyClientCertIfGiven".to_owned(),
            format!("-server.grpc-tls-cert-path={}", at("server.crt")),
            format!("-server.grpc-tls-key-path={}", at("server.key")),
        ]);
        command.args(more);
        Child::start(&mut command, &self.file("myelin.log"))
    }

    /// Status (0: no answer) and headers with body of a path, asked with these words of curl before it.
    fn curl(&self, words: &[&str]) -> (u16, String) {
        self.curl_of("ca.crt", words)
    }

    fn curl_of(&self, authority: &str, words: &[&str]) -> (u16, String) {
        let (path, words) = words.split_last().expect("a path");
        let output = Command::new("curl")
            .args(["-s", "-i", "--max-time", "20", "--cacert", authority])
            .args(words)
            .arg(format!("https://127.0.0.1:{}{path}", self.port))
            .current_dir(self.folder.path())
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        (status.unwrap_or(0), text)
    }

    fn log(&self) -> String {
        self.child.as_ref().expect("started").log()
    }

    fn metrics(&self) -> String {
        self.curl(&[
            "--cert",
            "ops.example.crt",
            "--key",
            "ops.example.key",
            "/metrics",
        ])
        .1
    }
}

const QUERY: &str = "/prometheus/api/v1/query?query=up";

#[test]
fn a_prometheus_writes_with_a_password_over_tls_and_everybody_is_held_to_his_own() {
    let Some(prometheus) = component("prometheus") else {
        return;
    };
    let Some(node) = Node::start() else {
        return;
    };
    let port = free_port();
    std::fs::write(node.file("password"), "geheim-1").unwrap();
    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         scrape_configs:\n- {{job_name: own, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}\n\
         remote_write:\n- url: https://127.0.0.1:{}/api/v1/push\n  \
         basic_auth: {{username: prometheus-a, password_file: {}}}\n  \
         tls_config: {{ca_file: {}}}\n  queue_config: {{batch_send_deadline: 500ms}}\n",
        node.port,
        node.file("password").display(),
        node.file("ca.crt").display(),
    );
    std::fs::write(node.file("prometheus.yml"), config).unwrap();
    let _prometheus = Child::start(
        Command::new(prometheus)
            .arg(format!(
                "--config.file={}",
                node.file("prometheus.yml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                node.file("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        &node.file("prometheus.log"),
    );
    let bearer = format!("Authorization: Bearer {}", node.token);
    let read = ["-H", &bearer, "-H", "X-Scope-OrgID: a", QUERY];
    wait_until("samples of Prometheus", Duration::from_secs(60), || {
        node.curl(&read).1.contains("\"job\":\"own\"")
    });
    for (what, words, wanted) in [
        ("no credentials", vec![QUERY], 401),
        (
            "the header of a proxy",
            vec!["-H", "X-Scope-OrgID: a", QUERY],
            401,
        ),
        (
            "a wrong password",
            vec!["-u", "prometheus-a:geheim-2", "-d", "x", "/api/v1/push"],
            401,
        ),
        (
            "a wrong token",
            vec!["-H", "Authorization: Bearer x", QUERY],
            401,
        ),
        (
            "another tenant",
            vec!["-H", &bearer, "-H", "X-Scope-OrgID: c", QUERY],
            403,
        ),
        (
            "another tenant among two",
            vec!["-H", &bearer, "-H", "X-Scope-OrgID: a|c", QUERY],
            403,
        ),
        (
            "two of his own",
            vec!["-H", &bearer, "-H", "X-Scope-OrgID: a|b", QUERY],
            200,
        ),
        (
            "a writer who reads",
            vec!["-u", "prometheus-a:geheim-1", QUERY],
            403,
        ),
        (
            "a reader who writes",
            vec!["-H", &bearer, "-d", "x", "/api/v1/push"],
            403,
        ),
        ("a reader of the node", vec!["-H", &bearer, "/config"], 403),
        ("metrics", vec!["/metrics"], 401),
    ] {
        let (status, text) = node.curl(&words);
        assert_eq!(status, wanted, "{what}: {text}");
        assert_eq!(
            text.to_lowercase().contains("www-authenticate: basic"),
            wanted == 401,
            "{text}"
        );
    }
    let grpc = format!("127.0.0.1:{}", node.grpc_port);
    let shaken = Command::new("openssl")
        .args([
            "s_client", "-connect", &grpc, "-CAfile", "ca.crt", "-alpn", "h2",
        ])
        .current_dir(node.folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    let shaken = String::from_utf8_lossy(&shaken.stdout).into_owned();
    assert!(shaken.contains("ALPN protocol: h2"), "{shaken}");
    assert!(shaken.contains("Verify return code: 0"), "{shaken}");
    let certificate = ["--cert", "ops.example.crt", "--key", "ops.example.key"];
    let (status, config) = node.curl(&[&certificate[..], &["/config"]].concat());
    assert_eq!(status, 200, "{config}");
    assert!(
        !config.contains("argon2") && !config.contains("BEGIN"),
        "{config}"
    );
    // A certificate of nobody's authority does not come through the handshake.
    authority(node.folder.path(), "other");
    self::certificate(node.folder.path(), "other", "stranger");
    let stranger = ["--cert", "stranger.crt", "--key", "stranger.key", "/ready"];
    assert_eq!(node.curl(&stranger).0, 0);
    let metrics = node.metrics();
    for reason in ["missing", "wrong", "scope", "tenant"] {
        let counted = format!("myelin_auth_denied_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&counted), "{metrics}");
    }
    let log = node.log();
    for secret in ["geheim", "argon2", node.token.as_str()] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn files_of_credentials_and_certificates_change_while_the_node_runs() {
    let Some(mut node) = Node::start() else {
        return;
    };
    let push = |node: &Node, password: &str| {
        let user = format!("prometheus-a:{password}");
        node.curl(&["-u", &user, "-d", "x", "/api/v1/push"]).0
    };
    // A form is no write request: whoever may write is told so.
    assert_eq!(
        (push(&node, "geheim-1"), push(&node, "geheim-2")),
        (415, 401)
    );
    node.write_credentials("geheim-2");
    let limit = Duration::from_secs(30);
    wait_until("the new password", limit, || push(&node, "geheim-2") == 415);
    assert_eq!(
        push(&node, "geheim-1"),
        401,
        "it was remembered, and is forgotten"
    );
    std::fs::write(
        node.file("credentials.yaml"),
        "users: [{name: x, password: geheim-3}]",
    )
    .unwrap();
    let failed = "myelin_security_last_reload_successful{files=\"credentials\"} 0";
    wait_until("the wrong file to be told", limit, || {
        node.metrics().contains(failed)
    });
    assert_eq!(push(&node, "geheim-2"), 415, "what held goes on holding");
    assert!(
        node.log().contains("users[0]: password: only hashes"),
        "{}",
        node.log()
    );
    assert!(!node.log().contains("geheim"), "{}", node.log());
    // Another authority, another certificate: first only the half of it.
    authority(node.folder.path(), "second");
    certificate(node.folder.path(), "second", "renewed");
    std::fs::copy(node.file("renewed.crt"), node.file("server.crt")).unwrap();
    let failed = "myelin_security_last_reload_successful{files=\"http_tls\"} 0";
    wait_until("half of a change to be told", limit, || {
        node.metrics().contains(failed)
    });
    std::fs::copy(node.file("renewed.key"), node.file("server.key")).unwrap();
    let renewed = |node: &Node| node.curl_of("second.crt", &["/ready"]).0 == 200;
    wait_until("the new certificate", limit, || renewed(&node));
    assert_eq!(
        node.curl(&["/ready"]).0,
        0,
        "the old authority knows it not"
    );
    // And a start names what is wrong.
    node.child.take().expect("started").kill();
    std::fs::remove_file(node.file("server.key")).unwrap();
    let mut child = node.spawn(&[]);
    assert!(!child.wait(limit).success());
    let log = child.log();
    assert!(
        log.contains("cannot read") && log.contains("server.key"),
        "{log}"
    );
}
