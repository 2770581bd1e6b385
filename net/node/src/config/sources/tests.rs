//! Flags and files: every key both ways, precedence, and what is told about names and values that are wrong.

use super::*;
use crate::config::{ClientTlsConfig, yaml};

fn flags(args: &[&str]) -> Result<Config, String> {
    match read(args.iter().map(|a| (*a).to_owned())) {
        Ok(Request::Run(config)) => Ok(*config),
        Ok(other) => panic!("{other:?}"),
        Err(e) => Err(e.to_string()),
    }
}

fn file(text: &str) -> Result<Config, String> {
    from_yaml(text)
        .and_then(|given| resolve(&given))
        .map_err(|e| e.to_string())
}

#[test]
fn one_dash_two_dashes_equals_and_space_mean_the_same() {
    for args in [
        &["-server.http-listen-port=8080"][..],
        &["--server.http-listen-port=8080"],
        &["-server.http-listen-port", "8080"],
        &[
            "-server.http-listen-port=1",
            "-server.http-listen-port=8080",
        ],
    ] {
        assert_eq!(
            flags(args).unwrap().server.http_listen_port,
            8080,
            "{args:?}"
        );
    }
}

#[test]
fn a_switch_stands_alone_and_does_not_eat_the_next_flag() {
    let config = flags(&["-auth.enabled", "-cores", "2"]).unwrap();
    assert!(config.auth_enabled && config.cores == 2);
    assert!(!flags(&["-auth.enabled=false"]).unwrap().auth_enabled);
    assert!(flags(&["-auth.enabled", "false"]).is_err());
}

#[test]
fn help_and_version_are_asked_for_with_one_dash() {
    let ask = |arg: &str| read([arg.to_owned()].into_iter()).unwrap();
    assert!(matches!(ask("-help"), Request::Help) && matches!(ask("-h"), Request::Help));
    assert!(matches!(ask("-version"), Request::Version));
    assert!(matches!(ask("-help-all"), Request::Help));
    assert!(matches!(ask("-version=false"), Request::Run(_)));
    assert!(matches!(ask("-modules"), Request::Modules));
}

#[test]
fn what_flags_and_file_come_to_is_shown_instead_of_a_start() {
    let args = ["-print.config", "-cores", "3"].map(str::to_owned);
    match read(args.into_iter()).unwrap() {
        Request::Print(config) => assert_eq!(config.cores, 3),
        other => panic!("{other:?}"),
    }
    // A wrong one is told as ever.
    assert!(flags(&["-print.config", "-cores=x"]).is_err());
}

#[test]
fn other_names_of_cortex_set_the_same_key() {
    for alias in ALIASES {
        let key = keys().iter().find(|key| key.yaml == alias.key).unwrap();
        let mut wanted = Config::defaults(false);
        (key.set)(&mut wanted, key.example).unwrap();
        let nested = alias.yaml.replace('.', ": {") + ": " + key.example;
        let text = format!(
            "{{{nested}{}}}",
            "}".repeat(alias.yaml.matches('.').count())
        );
        assert_eq!(file(&text).unwrap(), wanted, "{text}");
        if !alias.flag.is_empty() {
            let flag = format!("-{}={}", alias.flag, key.example);
            assert_eq!(flags(&[&flag]).unwrap(), wanted, "{flag}");
        }
    }
}

#[test]
fn what_files_of_cortex_say_of_placement_is_taken_where_it_is_so() {
    let config = file("distributor: {shard_by_all_labels: true}").unwrap();
    assert_eq!(config, Config::defaults(false));
    let error = flags(&["-distributor.shard-by-all-labels=false"]).unwrap_err();
    assert!(error.contains("placed by all of their labels"), "{error}");
}

#[test]
fn the_file_may_name_environment_variables_where_that_is_asked_for() {
    let path = std::env::temp_dir().join(format!("myelin-expand-{}.yaml", std::process::id()));
    std::fs::write(&path, "cores: ${NO_SUCH_VARIABLE_HERE:3}\n").unwrap();
    let name = format!("-config.file={}", path.display());
    let plain = flags(&[&name]);
    let expanded = flags(&[&name, "-config.expand-env=true"]);
    std::fs::write(&path, "cores: ${NO_SUCH_VARIABLE_HERE}\n").unwrap();
    let missing = flags(&[&name, "-config.expand-env"]);
    std::fs::remove_file(&path).unwrap();
    assert!(plain.is_err(), "it is text where nobody asked");
    assert_eq!(expanded.unwrap().cores, 3);
    let missing = missing.unwrap_err();
    assert!(
        missing.contains("line 1: the environment variable NO_SUCH"),
        "{missing}"
    );
}

#[test]
fn every_key_can_be_set_by_flag_and_by_file_and_changes_its_own_field_only() {
    let defaults = Config::defaults(false);
    for key in keys() {
        let mut config = defaults.clone();
        (key.set)(&mut config, key.example).unwrap_or_else(|e| panic!("{}: {e}", key.yaml));
        assert_ne!(
            (key.get)(&config),
            (key.get)(&defaults),
            "{}: example is the default",
            key.yaml
        );
        for other in keys().iter().filter(|other| other.yaml != key.yaml) {
            assert_eq!(
                (other.get)(&config),
                (other.get)(&defaults),
                "{} moved {}",
                key.yaml,
                other.yaml
            );
        }
        // What is shown is read again as the same; secrets are not shown.
        let mut again = defaults.clone();
        (key.set)(&mut again, &(key.get)(&config)).unwrap();
        assert_eq!(again == config, key.kind != "secret", "{}", key.yaml);
        // One is refused, one moves the defaults, some need others beside them: tested below.
        let alone = [
            "target",
            "auth_enabled",
            "blocks_storage.backend",
            "blocks_storage.s3.access_key_id",
            "blocks_storage.s3.secret_access_key",
            "blocks_storage.s3.sse.kms_key_id",
            "blocks_storage.s3.sse.kms_encryption_context",
            "distributor.ha_tracker.kvstore.store",
            "distributor.shard_by_all_labels",
            "ingester_client.addresses",
            "limits.accept_ha_samples",
        ];
        let is_tls = key.yaml.contains("_tls_config.") || key.yaml.contains("_config.tls_");
        if alone.contains(&key.yaml) || is_tls {
            continue;
        }
        assert_eq!(
            flags(&[&format!("-{}={}", key.flag, key.example)]).unwrap(),
            config,
            "{}",
            key.flag
        );
        let nested =
            key.yaml.replace('.', ": {") + ": " + &serde_json::to_string(key.example).unwrap();
        let text = format!("{{{nested}{}}}", "}".repeat(key.yaml.matches('.').count()));
        assert_eq!(file(&text).unwrap(), config, "{text}");
    }
}

#[test]
fn tls_needs_a_certificate_with_its_key_and_authorities_where_clients_are_asked() {
    let of = |given: &[&str]| flags(given).map_err(|error| error.to_string());
    let (cert, key) = (
        "-server.http-tls-cert-path=c",
        "-server.http-tls-key-path=k",
    );
    let (ca, ask) = (
        "-server.http-tls-ca-path=a",
        "-server.http-tls-client-auth=RequireAndVerifyClientCert",
    );
    for (prefix, of) in [
        (
            "ingester.client",
            (|c: Config| c.ingester_client.tls) as fn(Config) -> _,
        ),
        ("querier.frontend-client", |c| c.frontend_worker.tls),
    ] {
        let given = [
            "enabled",
            "cert-path=c",
            "key-path=k",
            "ca-path=a",
            "server-name=n",
        ];
        let given = given.map(|one| format!("-{prefix}.tls-{one}"));
        let read = flags(&given.each_ref().map(String::as_str)).unwrap();
        let wanted = ClientTlsConfig {
            enabled: true,
            cert_file: "c".to_owned(),
            key_file: "k".to_owned(),
            ca_file: "a".to_owned(),
            server_name: "n".to_owned(),
            insecure_skip_verify: false,
        };
        assert_eq!(of(read), wanted);
        let given = ["enabled", "insecure-skip-verify"];
        let given = given.map(|one| format!("-{prefix}.tls-{one}"));
        let read = flags(&given.each_ref().map(String::as_str)).unwrap();
        assert!(of(read).insecure_skip_verify);
    }
    for (given, named) in [
        ([cert].as_slice(), "server.http_tls_config.key_file"),
        (&[key], "server.http_tls_config.cert_file"),
        (
            &["-server.grpc-tls-cert-path=c"],
            "server.grpc_tls_config.key_file",
        ),
        (&[cert, key, ca], "client_auth_type: goes with"),
        (&[cert, key, ask], "client_ca_file"),
        (&[ca, ask], "needs server.http_tls_config.cert_file"),
        (
            &["-server.http-tls-client-auth=RequestClientCert"],
            "nobody verifies",
        ),
        (
            &["-server.http-tls-client-auth=Maybe"],
            "none of NoClientCert",
        ),
        (&["-auth.reload-period=0s"], "auth.reload_period"),
        (
            &["-ingester.client.tls-enabled"],
            "ingester_client.grpc_client_config.tls_ca_path",
        ),
        (
            &["-ingester.client.tls-ca-path=a"],
            "ingester_client.grpc_client_config.tls_enabled",
        ),
        (
            &[
                "-querier.frontend-client.tls-enabled",
                "-querier.frontend-client.tls-insecure-skip-verify",
                "-querier.frontend-client.tls-key-path=k",
            ],
            "frontend_worker.grpc_client_config.tls_cert_path: goes with",
        ),
    ] {
        let error = of(given).unwrap_err();
        assert!(error.contains(named), "{given:?}: {error}");
    }
    let config = of(&[cert, key, ca, ask]).unwrap();
    let text = "server: {http_tls_config: {cert_file: c, key_file: k, client_ca_file: a, \
                client_auth_type: RequireAndVerifyClientCert}}";
    assert_eq!(file(text).unwrap(), config);
}

#[test]
fn directories_of_cores_lie_apart_from_each_other_and_from_all_else() {
    let config = flags(&["-data.core-dirs=a,b", "--data.core-dirs", "c"]).unwrap();
    assert_eq!(config.core_dirs, ["a", "b", "c"]);
    let listed = "data: {core_dirs: [a, b, c], core_dirs_leaving: [d], core_dirs_lost: [e, f]}";
    let listed = file(listed).unwrap();
    assert_eq!(listed.core_dirs, config.core_dirs);
    assert_eq!(listed.core_dirs_leaving, ["d"]);
    assert_eq!(listed.core_dirs_lost, ["e", "f"]);
    let lost = flags(&["-data.core-dir-lost=e", "-data.core-dir-lost=f"]).unwrap();
    assert_eq!(lost.core_dirs_lost, ["e", "f"]);
    // By what they are, not by how they are called.
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    std::fs::create_dir(at("disk")).unwrap();
    std::os::unix::fs::symlink(at("disk"), at("link")).unwrap();
    let twice = format!("-data.core-dirs={},{}", at("disk"), at("link"));
    for (given, named) in [
        (vec![twice.as_str()], "link"),
        (vec!["-data.core-dirs=a,b/../a"], "a of data.core_dirs"),
        (vec!["-data.core-dirs=a/b,a"], "data.core_dirs: a is"),
        (vec!["-data.core-dirs=data/cores"], "data.dir"),
        (vec!["-data.core-dirs=."], "data.dir"),
        (
            vec!["-data.core-dirs=a", "-data.core-dirs-leaving=./a"],
            "data.core_dirs_leaving: ./a",
        ),
        (
            vec!["-data.core-dirs=a", "-data.core-dir-lost=b/../a"],
            "data.core_dirs_lost: b/../a",
        ),
        (
            vec!["-data.core-dirs-leaving=a", "-data.core-dir-lost=a"],
            "a of data.core_dirs_leaving",
        ),
        (vec!["-data.core-dir-lost=a,a"], "a of data.core_dirs_lost"),
        (vec!["-data.core-dir-lost=./data"], "data.dir"),
        (
            vec![
                "-data.core-dirs=bucket/a",
                "-blocks-storage.backend=filesystem",
                "-blocks-storage.filesystem.dir=bucket",
            ],
            "blocks_storage.filesystem.dir",
        ),
    ] {
        let error = flags(&given).unwrap_err().to_string();
        assert!(error.contains(named), "{named}: {error}");
    }
}

#[test]
fn a_bucket_needs_what_belongs_to_it_and_its_secret_is_shown_nowhere() {
    for (given, named) in [
        (
            vec![
                "-blocks-storage.backend=filesystem",
                "-blocks-storage.filesystem.dir=data/x/..",
            ],
            "within data.dir",
        ),
        (
            vec![
                "-blocks-storage.backend=filesystem",
                "-blocks-storage.filesystem.dir=.",
            ],
            "within data.dir",
        ),
        (vec!["-blocks-storage.backend=s3"], "bucket_name"),
        (vec!["-blocks-storage.backend=filesystem"], "filesystem.dir"),
        (vec!["-blocks-storage.backend=azure"], "none of"),
        (
            vec!["-blocks-storage.s3.access-key-id=a"],
            "secret_access_key",
        ),
        (vec!["-blocks-storage.s3.sse.kms-key-id=a"], "SSE-KMS"),
        (
            vec!["-blocks-storage.swift.password=a"],
            "this part of blocks storage",
        ),
    ] {
        let error = flags(&given).unwrap_err().to_string();
        assert!(error.contains(named), "{given:?}: {error}");
    }
    let config = flags(&[
        "-blocks-storage.backend=s3",
        "-blocks-storage.s3.bucket-name=b",
        "-blocks-storage.s3.access-key-id=a",
        "-blocks-storage.s3.secret-access-key=hunter2",
        "-blocks-storage.s3.sse.type=SSE-KMS",
        "-blocks-storage.s3.sse.kms-key-id=k",
        "-blocks-storage.s3.sse.kms-encryption-context={\"a\":\"b\"}",
    ]);
    let config = config.unwrap();
    assert_eq!(config.blocks.s3.secret_access_key.0, "hunter2");
    assert!(!yaml(&config).contains("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn the_page_config_is_a_file_that_gives_the_same_configuration() {
    let mut config = Config::defaults(true);
    config.limits.drop_labels = vec!["a".into(), "b".into()];
    config.server.http_listen_port = 1;
    assert_eq!(file(&yaml(&config)).unwrap(), config);
}

/// Story: `drop_labels: [x, y]` dropped the labels `x` and `true`: YAML 1.1 has a dozen words for a boolean.
#[test]
fn words_are_booleans_only_where_one_is_expected() {
    let config = file("auth_enabled: on\nlimits: {drop_labels: [y, no]}").unwrap();
    assert!(config.auth_enabled);
    assert_eq!(config.limits.drop_labels, ["y", "no"]);
    assert!(!file("auth_enabled: off").unwrap().auth_enabled);
    assert!(file("auth_enabled: true").unwrap().auth_enabled);
}

#[test]
fn the_difference_to_the_defaults_is_a_file_that_gives_the_same_configuration() {
    let mut config = Config::defaults(true);
    config.distributor.max_inflight_push_requests = 9;
    config.limits.max_exemplars = 7;
    let diff = crate::config::diff(&config);
    assert_eq!(
        diff,
        "auth_enabled: true\ndistributor:\n  instance_limits:\n    max_inflight_push_requests: 9\nlimits:\n  max_exemplars: 7\n"
    );
    assert_eq!(file(&diff).unwrap(), config);
}

#[test]
fn the_retention_has_the_name_of_cortex_too() {
    let config = file("limits: {compactor_blocks_retention_period: 30d}").unwrap();
    assert_eq!(config.limits.retention.as_secs(), 30 * 86_400);
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("myelin.yaml");
    std::fs::write(
        &path,
        "server: {http_listen_port: 1, grpc_listen_port: 2}\n",
    )
    .unwrap();
    let config = flags(&[
        "-server.http-listen-port=3",
        "-config.file",
        path.to_str().unwrap(),
    ])
    .unwrap();
    assert_eq!(
        (
            config.server.http_listen_port,
            config.server.grpc_listen_port
        ),
        (3, 2)
    );
    assert!(
        flags(&["-config.file=/nowhere/x.yaml"])
            .unwrap_err()
            .contains("/nowhere/x.yaml")
    );
}

#[test]
fn tenants_bring_the_limits_of_cortex_unless_the_file_says_otherwise() {
    assert!(file("").unwrap().limits.ingestion_rate.is_infinite());
    let cortex = file("auth_enabled: true\nlimits:\n  max_series_per_user: 0\n").unwrap();
    assert_eq!(cortex.limits.ingestion_rate, 25_000.0);
    assert_eq!(cortex.limits.max_series_per_user, 0);
    assert_eq!(cortex.limits.max_series_per_metric, 50_000);
    let unlimited = file("limits:\n  ingestion_rate: 0\nauth_enabled: true\n").unwrap();
    assert!(unlimited.limits.ingestion_rate.is_infinite());
}

#[test]
fn unknown_names_are_told_with_the_nearest_known_one() {
    assert_eq!(
        file("server:\n  http_listen_prot: 1\n").unwrap_err(),
        "unknown key server.http_listen_prot; did you mean server.http_listen_port?"
    );
    assert_eq!(
        flags(&["-server.http-listen-prot=1"]).unwrap_err(),
        "unknown flag -server.http-listen-prot; did you mean server.http-listen-port?"
    );
    assert!(
        file("zzzzzz: 1\n")
            .unwrap_err()
            .contains("unknown key zzzzzz")
    );
}

#[test]
fn parts_of_cortex_that_are_not_built_say_so() {
    for (text, part) in [
        (
            "ruler:\n  enable_api: true\n",
            "key ruler: the ruler is not built yet",
        ),
        (
            "alertmanager: {}\n",
            "key alertmanager: the Alertmanager is not built yet",
        ),
        (
            "blocks_storage: {azure: {account_name: a}}\n",
            "this part of blocks storage is not built yet",
        ),
        (
            "limits: {ruler_max_rules_per_rule_group: 1}\n",
            "the ruler is not built yet",
        ),
        (
            "distributor: {ha_tracker: {enable_startup_sync: true}}\n",
            "this part of the HA tracker is not built yet",
        ),
        ("target: ruler\n", "\"ruler\" is none of all, distributor"),
        ("target: querier\n", "ingester_client.addresses: must name"),
        (
            "target: query-frontend,querier\n",
            "queriers in other processes",
        ),
    ] {
        let error = file(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(
        flags(&["-ruler.enable-api"])
            .unwrap_err()
            .contains("the ruler is not built yet")
    );
    assert!(
        flags(&["-store.engine=tsdb"])
            .unwrap_err()
            .contains("not built yet")
    );
}

/// Story: with both labels the same every replica was a cluster of its own and always elected, and with an empty one there were no pairs; both
/// without a word.
#[test]
fn labels_of_replicas_that_cannot_tell_them_apart_are_errors() {
    let with = |limits: &str| {
        file(&format!(
            "distributor: {{ha_tracker: {{enable_ha_tracker: true}}}}\nlimits: {{accept_ha_samples: true{limits}}}\n"
        ))
    };
    assert!(with("").is_ok());
    assert!(with(", ha_cluster_label: a, ha_replica_label: b").is_ok());
    for (limits, part) in [
        (
            ", ha_cluster_label: \"\"",
            "ha_cluster_label: must not be empty",
        ),
        (
            ", ha_replica_label: \"\"",
            "ha_replica_label: must not be empty",
        ),
        (
            ", ha_cluster_label: __name__",
            "ha_cluster_label: must not be __name__",
        ),
        (
            ", ha_replica_label: __name__",
            "ha_replica_label: must not be __name__",
        ),
        (
            ", ha_cluster_label: a, ha_replica_label: a",
            "ha_replica_label: must not be the label of the cluster, a",
        ),
    ] {
        let error = with(limits).unwrap_err();
        assert!(error.contains(part), "{limits}: {error}");
    }
}

#[test]
fn bad_values_and_shapes_name_their_key() {
    for (text, part) in [
        (
            "server: {http_listen_port: 70000}\n",
            "server.http_listen_port",
        ),
        ("server: 5\n", "expected a section"),
        ("cores: [1]\n", "cores"),
        ("poison: {linger: often}\n", "poison.linger"),
        ("querier: {max_concurrent: 0}\n", "querier.max_concurrent"),
        ("http_prefix: api\n", "http_prefix"),
        ("self_scrape: {tenant: a/b}\n", "self_scrape.tenant"),
        ("a: b: c\n", "not YAML"),
        // An item with a comma became two labels, neither of which was meant.
        (
            "limits: {drop_labels: [c, \"a,b\"]}\n",
            "limits.drop_labels: \"a,b\" has a comma in it; write a list",
        ),
    ] {
        let error = file(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(flags(&["-cores"]).unwrap_err().contains("needs a value"));
    assert!(
        flags(&["serve"])
            .unwrap_err()
            .contains("unexpected argument")
    );
}
