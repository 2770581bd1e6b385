//! What a start prints: where it listens, where data lies, what to write into `prometheus.yml`, and what to open.

use std::net::SocketAddr;

use crate::VERSION;
use crate::config::Config;

/// The lines, for standard output.
pub(crate) fn text(config: &Config, http: SocketAddr, grpc: SocketAddr) -> String {
    // An address that stands for all of them cannot be connected to everywhere.
    let host = match http.ip().is_unspecified() {
        true => format!("localhost:{}", http.port()),
        false => http.to_string(),
    };
    let scheme = match config.server.http_tls.cert_file.is_empty() {
        true => "http",
        false => "https",
    };
    let base = format!("{scheme}://{host}{}", config.server.http_path_prefix);
    let tenant = match (config.auth.credentials_file.is_empty(), config.auth_enabled) {
        (false, _) => "\n          basic_auth: {username: <you>, password_file: <file>}",
        (true, true) => "\n          headers: {X-Scope-OrgID: <your tenant>}",
        (true, false) => "",
    };
    let watch = if config.self_scrape.interval.is_zero() {
        String::new()
    } else {
        let tenant = match config.auth_enabled {
            true => format!(" in tenant {}", config.self_scrape.tenant),
            false => String::new(),
        };
        format!("  its own metrics   {{job=\"myelin\"}}{tenant}\n")
    };
    format!(
        "myelin {VERSION}\n  \
         HTTP              {base}\n  \
         gRPC              {grpc}\n  \
         data              {data}\n{watch}\n\
         For prometheus.yml:\n\n    \
         remote_write:\n        \
         - url: {base}/api/v1/push{tenant}\n\n\
         Open {base}/ , or add {base}{prefix} to Grafana as a Prometheus data source.\n",
        data = config.data_dir.display(),
        prefix = config.api.prometheus_http_prefix,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(config: &Config) -> String {
        text(
            config,
            "127.0.0.1:9009".parse().unwrap(),
            "127.0.0.1:9095".parse().unwrap(),
        )
    }

    #[test]
    fn a_start_tells_where_to_write_and_what_to_open() {
        let text = shown(&Config::defaults(false));
        assert!(
            text.contains("    remote_write:\n        - url: http://127.0.0.1:9009/api/v1/push\n")
        );
        assert!(text.contains("http://127.0.0.1:9009/prometheus") && text.contains("./data"));
        assert!(!text.contains("X-Scope-OrgID"));
    }

    #[test]
    fn links_lead_somewhere_when_all_addresses_are_listened_on() {
        let any = "0.0.0.0:80".parse().unwrap();
        assert!(
            text(&Config::defaults(false), any, any).contains("http://localhost:80/prometheus")
        );
    }

    #[test]
    fn with_tenants_the_header_is_shown() {
        assert!(shown(&Config::defaults(true)).contains("X-Scope-OrgID"));
    }
}
