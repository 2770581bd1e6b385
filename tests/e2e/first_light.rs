//! What a new user meets: a server within a second, that says what to do next, watches itself, and stops when asked.

use std::time::{Duration, Instant};

use tests::{Server, ServerOptions, unix_now, wait_until};

#[test]
fn a_fresh_server_serves_soon_and_says_what_to_do_next() {
    let begun = Instant::now();
    let Some(mut server) = Server::plain() else {
        return;
    };
    println!("ready after {:?}", begun.elapsed());
    let log = server.child().log();
    for word in [
        server.address().as_str(),
        "remote_write",
        "/api/v1/push",
        server.data().to_str().unwrap(),
    ] {
        assert!(
            log.contains(word),
            "{word:?} is not in what it printed:\n{log}"
        );
    }
    for (path, text) in [
        ("/ready", "ready"),
        ("/-/healthy", ""),
        ("/metrics", "myelin_"),
        ("/config", "http_listen_port"),
    ] {
        let answer = server.admin().get(path, &[]);
        assert!(
            answer.status == 200 && answer.text().contains(text),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
    }
    server.stop();
}

#[test]
fn it_watches_itself() {
    let options = ServerOptions {
        args: vec!["-self-scrape.interval=1s".into()],
        ..ServerOptions::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let api = server.api(None);
    wait_until("its own metrics", Duration::from_secs(20), || {
        let now = unix_now() as f64;
        let found = api.query("count({job=\"myelin\"})", now);
        found[0]["value"][1]
            .as_str()
            .and_then(|v| v.parse::<f64>().ok())
            .is_some_and(|n| n > 20.0)
    });
    let rate = api.query(
        "sum(rate(cortex_distributor_received_samples_total{job=\"myelin\"}[1m]))",
        unix_now() as f64,
    );
    assert!(rate.is_array());
}

#[test]
fn with_tenants_on_its_own_metrics_go_to_the_tenant_it_is_told() {
    let options = ServerOptions {
        config: "auth_enabled: true\n".into(),
        args: vec![
            "-self-scrape.interval=1s".into(),
            "-self-scrape.tenant=ops".into(),
        ],
        ..ServerOptions::default()
    };
    let Some(server) = Server::start(options) else {
        return;
    };
    let api = server.api(Some("ops"));
    wait_until("its own metrics", Duration::from_secs(20), || {
        !api.query("{job=\"myelin\"}", unix_now() as f64)
            .as_array()
            .unwrap()
            .is_empty()
    });
    let other = server
        .api(Some("fake"))
        .query("{job=\"myelin\"}", unix_now() as f64);
    assert_eq!(
        other.as_array().unwrap().len(),
        0,
        "another tenant sees them"
    );
}

#[test]
fn a_second_process_on_the_same_data_is_refused_by_name() {
    let Some(first) = Server::plain() else { return };
    let program = tests::binary("myelin").unwrap();
    let output = std::process::Command::new(program)
        .arg(format!("-data.dir={}", first.data().display()))
        .arg(format!("-server.http-listen-port={}", tests::free_port()))
        .arg(format!("-server.grpc-listen-port={}", tests::free_port()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "it started");
    assert!(text.contains("lock"), "{text}");
    assert!(first.admin().get("/ready", &[]).status == 200);
}

#[test]
fn configuration_mistakes_are_named_with_the_nearest_known_name() {
    let Some(program) = tests::binary("myelin") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let attempt = |yaml: &str, args: &[&str]| {
        let file = folder.path().join("c.yaml");
        std::fs::write(&file, yaml).unwrap();
        let output = std::process::Command::new(&program)
            .arg(format!("-config.file={}", file.display()))
            .arg(format!(
                "-data.dir={}",
                folder.path().join("data").display()
            ))
            .args(args)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{yaml:?} {args:?} was accepted");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = attempt("limits:\n  ingestion_ratee: 5\n", &[]);
    assert!(
        text.contains("ingestion_ratee") && text.contains("ingestion_rate"),
        "{text}"
    );
    let text = attempt("alertmanager:\n  enable_api: true\n", &[]);
    assert!(
        text.contains("alertmanager") && text.contains("not built"),
        "{text}"
    );
    let text = attempt("", &["-server.http-listen-prt=1"]);
    assert!(text.contains("server.http-listen-prt"), "{text}");
    let text = attempt("limits:\n  ingestion_rate: fast\n", &[]);
    assert!(text.contains("ingestion_rate"), "{text}");
    let text = attempt("", &["-core-set=4000"]);
    assert!(text.contains("4000"), "{text}");
}

#[test]
fn data_survives_a_graceful_stop_and_every_world_of_io() {
    let Some(mut server) = Server::plain() else {
        return;
    };
    let now = unix_now();
    let body = crate::series::body(&[(&[("__name__", "kept"), ("a", "b")], now * 1000, 42.5)]);
    assert_eq!(crate::series::push(&server, None, &body).status, 200);
    for args in [
        &["-io=threads"][..],
        &["-cores=1"],
        &["-cores=2"],
        &["-io=uring", "-cores=1"],
        &["-cores=2"],
    ] {
        server.stop();
        server.restart_with(args);
        let found = server.api(None).query("kept", now as f64);
        assert_eq!(
            found[0]["value"][1], "42.5",
            "after a restart with {args:?}: {found}"
        );
    }
}
