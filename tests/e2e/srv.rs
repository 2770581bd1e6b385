//! Frontends found through the SRV records of a real dnsmasq, which change while the querier runs.
//!
//! The querier has a mount namespace of its own, with a `/etc/resolv.conf` that names that dnsmasq: root, as for the other tests that mount.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::{Child, Server, ServerOptions, component, wait_until};

const NAME: &str = "_grpc._tcp.frontends.myelin.test";
const PATIENCE: Duration = Duration::from_secs(60);

/// An address of the loopback network that no resolver of a system uses.
const RESOLVER: &str = "127.7.53.53";

fn dnsmasq(program: &Path, folder: &Path, frontend: &Server) -> Child {
    let address = frontend.grpc_address();
    let (_, port) = address.rsplit_once(':').expect("host:port");
    resolver(program, folder, RESOLVER, &[(NAME, port)])
}

/// A dnsmasq on an address of its own, with these services at 127.0.0.1.
pub(super) fn resolver(
    program: &Path,
    folder: &Path,
    address: &str,
    services: &[(&str, &str)],
) -> Child {
    let mut command = Command::new(program);
    command
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
        ])
        .args([
            "--bind-interfaces",
            "--port=53",
            "--user=root",
            "--local-ttl=1",
        ])
        .arg(format!("--listen-address={address}"))
        .arg(format!(
            "--pid-file={}",
            folder.join("dnsmasq.pid").display()
        ))
        .arg("--host-record=host.myelin.test,127.0.0.1");
    for (name, port) in services {
        command.arg(format!("--srv-host={name},host.myelin.test,{port}"));
    }
    Child::start(&mut command, &folder.join("dnsmasq.log"))
}

#[test]
fn frontends_are_followed_by_their_records() {
    let (Some(program), Some(unshare)) = (component("dnsmasq"), component("unshare")) else {
        return;
    };
    if effective_user() != 0 {
        tests::missing("root");
        return;
    }
    let part = |args: &[String], wrapper: Vec<String>| ServerOptions {
        args: args.to_vec(),
        wrapper,
        ..ServerOptions::default()
    };
    let frontend = || Server::spawn(part(&["-target=query-frontend".to_owned()], Vec::new()));
    let ingester = Server::start(part(&["-target=ingester".to_owned()], Vec::new()));
    let (Some(ingester), Some(mut first), Some(mut second)) = (ingester, frontend(), frontend())
    else {
        return;
    };
    let folder = first.folder().to_owned();
    let resolv = folder.join("resolv.conf");
    std::fs::write(
        &resolv,
        format!("nameserver {RESOLVER}\noptions timeout:1 attempts:1\n"),
    )
    .unwrap();
    let mut resolver = dnsmasq(&program, &folder, &first);
    let mount = format!(
        "mount --bind {} /etc/resolv.conf && exec \"$0\" \"$@\"",
        resolv.display()
    );
    let wrapper = [&*unshare.to_string_lossy(), "--mount", "sh", "-c", &mount];
    let args = [
        "-target=querier".to_owned(),
        format!("-ingester.client.addresses={}", ingester.grpc_address()),
        format!("-querier.frontend-address={NAME}"),
        "-querier.dns-lookup-period=200ms".to_owned(),
    ];
    let wrapper = wrapper.map(str::to_owned).to_vec();
    let Some(mut querier) = Server::spawn(part(&args, wrapper)) else {
        return;
    };
    querier.wait_ready();
    first.wait_ready();
    assert_eq!(first.api(None).query("1", 0.0)[1], "1");
    let is_ready = |server: &Server| server.admin().get("/ready", &[]).status == 200;
    assert!(!is_ready(&second), "nobody has told of it");

    resolver.kill();
    let _resolver = dnsmasq(&program, &folder, &second);
    second.wait_ready();
    assert_eq!(second.api(None).query("2", 0.0)[1], "2");
    wait_until("the querier to leave the first one", PATIENCE, || {
        !is_ready(&first)
    });
}

/// The user of this process.
pub(super) fn effective_user() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    effective.unwrap_or(u32::MAX)
}
