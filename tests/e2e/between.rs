//! What nodes of a cluster ask of each other: certificates, a secret. Whoever lacks them is told what is wrong, and gets and gives nothing.

use std::path::Path;
use std::time::Duration;

use tests::{Cluster, Server, ServerOptions, component, wait_until};

use super::places::{ASKED, SCRAPE, accepted, request};
use super::security::{authority, certificate, openssl};

const PATIENCE: Duration = Duration::from_secs(60);

fn part(target: &str, config: &str, args: &[String]) -> Server {
    let server = Server::spawn(ServerOptions {
        config: config.to_owned(),
        args: [&[format!("-target={target}")], args].concat(),
        ..ServerOptions::default()
    });
    server.expect("the binary was there before")
}

/// Waits until its log has one of these.
fn says(server: &mut Server, words: &[&str]) {
    wait_until("a node to say why it is not let in", PATIENCE, || {
        let child = server.child();
        if let Some(status) = child.ended() {
            panic!("it ended ({status}):\n{}", child.log());
        }
        let log = child.log();
        words.iter().any(|word| log.contains(word))
    });
}

fn is_ready(server: &Server) -> bool {
    let answer = server.admin().try_get("/ready", &[]);
    answer.is_ok_and(|answer| answer.status == 200)
}

/// It serves nothing: neither is it ready nor does it take a push.
fn is_out(server: &Server, start: i64) {
    assert!(!is_ready(server));
    let pushed = super::series::push(server, None, &request(start, 0..3));
    assert_eq!(pushed.status, 503, "{}", pushed.text());
}

/// Whether the frontend has an answer to what was pushed.
fn is_answered(cluster: &Cluster, start: i64) -> bool {
    let time = ((start + ASKED * SCRAPE) / 1000).to_string();
    let query = [("query", "count(requests_total)"), ("time", time.as_str())];
    let answer = cluster.frontend.api(None).get("/api/v1/query", &query);
    answer.status == 200 && answer.json()["data"]["result"][0]["value"][1] == "8"
}

fn denied(server: &Server, reason: &str) -> f64 {
    let line = format!("myelin_grpc_denied_total{{reason=\"{reason}\"}} ");
    let text = server.admin().get("/metrics", &[]).text();
    let value = text
        .lines()
        .find_map(|one| one.strip_prefix(&line)?.parse().ok());
    value.unwrap_or_else(|| panic!("no {line} in\n{text}"))
}

/// Both ends of a node: what it shows to who calls it, and to whom it calls.
fn tls(folder: &Path, certificate: &str, authorities: &str) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    let (cert, key) = (
        file(&format!("{certificate}.crt")),
        file(&format!("{certificate}.key")),
    );
    let ca = file(authorities);
    let client = format!(
        "  grpc_client_config:\n    tls_enabled: true\n    tls_ca_path: {ca}\n    tls_cert_path: {cert}\n    tls_key_path: {key}\n"
    );
    format!(
        "auth:\n  reload_period: 200ms\nserver:\n  grpc_tls_config:\n    cert_file: {cert}\n    key_file: {key}\n    client_ca_file: {ca}\n    \
         client_auth_type: RequireAndVerifyClientCert\ningester_client:\n{client}frontend_worker:\n{client}"
    )
}

#[test]
fn parts_show_each_other_certificates_and_whoever_has_none_is_out() {
    if component("openssl").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["ca", "other", "second"] {
        authority(path, name);
    }
    certificate(path, "ca", "node");
    certificate(path, "ca", "expired");
    certificate(path, "other", "stranger");
    // Over with the second in which it was made.
    openssl(
        path,
        "x509 -req -in expired.csr -CA ca.crt -CAkey ca.key -days 0 -extfile san -out expired.crt",
    );
    let Some(mut cluster) = Cluster::start(&tls(path, "node", "ca.crt"), 1, 1) else {
        return;
    };
    let start = super::roles::first_scrape();
    accepted(&cluster.distributor, &request(start, 0..ASKED));
    assert!(is_answered(&cluster, start));
    assert_eq!(denied(&cluster.ingesters[0], "tls"), 0.0);

    let to = format!(
        "-ingester.client.addresses={}",
        cluster.ingesters[0].grpc_address()
    );
    let to = [to];
    for (config, words) in [
        (
            "".to_owned(),
            ["waiting for ingester", "waiting for ingester"],
        ),
        (
            tls(path, "node", "other.crt"),
            ["UnknownIssuer", "UnknownIssuer"],
        ),
        (
            tls(path, "stranger", "ca.crt"),
            ["UnknownCA", "DecryptError"],
        ),
        (
            tls(path, "expired", "ca.crt"),
            ["CertificateExpired", "CertificateExpired"],
        ),
        (
            format!(
                "ingester_client:\n  grpc_client_config:\n    tls_enabled: true\n    tls_ca_path: {}\n",
                path.join("ca.crt").display()
            ),
            ["CertificateRequired", "CertificateRequired"],
        ),
    ] {
        let mut distributor = part("distributor", &config, &to);
        says(&mut distributor, &words);
        is_out(&distributor, start);
    }
    assert!(denied(&cluster.ingesters[0], "tls") >= 4.0);
    let log = cluster.ingesters[0].child().log();
    assert!(
        log.contains("a gRPC connection without the TLS that is wanted"),
        "{log}"
    );

    // Of a server the certificate may be over, too, or have another name.
    let expired = tls(path, "expired", "ca.crt");
    let mut ingester = part("ingester", &expired, &[]);
    ingester.wait_ready();
    let to_expired = [format!(
        "-ingester.client.addresses={}",
        ingester.grpc_address()
    )];
    let mut distributor = part("distributor", &tls(path, "node", "ca.crt"), &to_expired);
    says(&mut distributor, &["certificate expired"]);
    is_out(&distributor, start);
    drop(ingester);
    let named = "-ingester.client.tls-server-name=elsewhere.test".to_owned();
    let args = [&to[..], &[named]].concat();
    let mut distributor = part("distributor", &tls(path, "node", "ca.crt"), &args);
    says(&mut distributor, &["elsewhere.test"]);
    is_out(&distributor, start);

    // A querier that a frontend does not know says so, and pulls nothing.
    let pulls = format!(
        "-querier.frontend-address={}",
        cluster.frontend.grpc_address()
    );
    let wrong = path.join("other.crt").display().to_string();
    let args = [
        &to[..],
        &[
            pulls,
            format!("-querier.frontend-client.tls-ca-path={wrong}"),
        ],
    ]
    .concat();
    let mut querier = part("querier", &tls(path, "node", "ca.crt"), &args);
    says(
        &mut querier,
        &["no queries can be pulled from the frontend"],
    );
    assert!(querier.child().log().contains("UnknownIssuer"));

    // All change to another authority while they run: a node that comes now finds all of it new.
    let renewed = tempfile::tempdir().unwrap();
    for name in ["second.crt", "second.key"] {
        std::fs::copy(path.join(name), renewed.path().join(name)).unwrap();
    }
    certificate(renewed.path(), "second", "node");
    let mut late = part(
        "distributor",
        &tls(renewed.path(), "node", "second.crt"),
        &to,
    );
    says(&mut late, &["UnknownIssuer"]);
    is_out(&late, start);
    for (from, to) in [
        ("second.crt", "ca.crt"),
        ("node.crt", "node.crt"),
        ("node.key", "node.key"),
    ] {
        std::fs::copy(renewed.path().join(from), path.join(to)).unwrap();
    }
    late.wait_ready();
    accepted(&late, &request(start, ASKED..ASKED + 3));
    // Who was connected before stays so, and whoever comes anew is let in by either.
    accepted(&cluster.distributor, &request(start, ASKED + 3..ASKED + 6));
    cluster.queriers[0].restart();
    wait_until("the querier to pull again", PATIENCE, || {
        let query = [("query", "count(requests_total)")];
        cluster
            .frontend
            .api(None)
            .get("/api/v1/query", &query)
            .status
            == 200
    });
}

#[test]
fn parts_share_a_secret_that_changes_while_they_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!(
            "auth:\n  reload_period: 200ms\nserver:\n  grpc_secret_file: {}\n",
            path.display()
        )
    };
    let (old, new) = ("geheim-of-all-the-nodes", "geheim-that-comes-after");
    let config = file("secret", old);
    let Some(mut cluster) = Cluster::start(&config, 1, 1) else {
        return;
    };
    let start = super::roles::first_scrape();
    accepted(&cluster.distributor, &request(start, 0..ASKED));
    assert!(is_answered(&cluster, start));
    let to = [format!(
        "-ingester.client.addresses={}",
        cluster.ingesters[0].grpc_address()
    )];
    let mut without = part("distributor", "", &to);
    says(&mut without, &["the secret that nodes share is missing"]);
    is_out(&without, start);
    let mut other = part("distributor", &file("other", new), &to);
    says(&mut other, &["the secret that nodes share is another"]);
    is_out(&other, start);
    let pulls = format!(
        "-querier.frontend-address={}",
        cluster.frontend.grpc_address()
    );
    let mut querier = part("querier", "", &[&to[..], &[pulls]].concat());
    says(&mut querier, &["the secret that nodes share is missing"]);
    assert!(denied(&cluster.ingesters[0], "secret") >= 2.0);

    // First all know both, then the new one is shown.
    file("secret", &format!("{old}\n{new}\n"));
    other.wait_ready();
    accepted(&other, &request(start, ASKED..ASKED + 3));
    file("secret", &format!("{new}\n"));
    let failed = "myelin_security_last_reload_successful{files=\"grpc_secret\"} 0";
    accepted(&cluster.distributor, &request(start, ASKED + 3..ASKED + 6));
    file("secret", "short");
    wait_until("the wrong file to be told", PATIENCE, || {
        let metrics = cluster.ingesters[0].admin().get("/metrics", &[]).text();
        metrics.contains(failed)
    });
    accepted(&other, &request(start, ASKED + 6..ASKED + 9));
    let ingester = &mut cluster.ingesters[0];
    for log in [ingester.child().log(), other.child().log()] {
        assert!(!log.contains("geheim"), "{log}");
    }
}
