//! Where the server is: URLs, the tenant, and the bytes of requests.

use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::http::Connection;
use crate::workload::{Protocol, Request};

/// A parsed `http://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// `host:port`, as in the `Host` header.
    pub(crate) authority: String,
    /// Begins with `/`, or is empty.
    pub(crate) path: String,
}

impl Url {
    /// Only plain HTTP, no user, query or fragment: these are servers under test.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Url> {
        let Some(rest) = text.strip_prefix("http://") else {
            bail!("{text:?} is not an http:// URL");
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if host.is_empty() || rest.contains(['?', '#', '@', ' ']) {
            bail!("{text:?} must be http://host[:port][/path]");
        }
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        Ok(Url {
            authority,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The first address that the host resolves to.
    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        self.authority
            .to_socket_addrs()
            .with_context(|| format!("resolving {}", self.authority))?
            .next()
            .with_context(|| format!("{} has no address", self.authority))
    }
}

/// Where to push and where to query, for whom.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) push: Url,
    /// Its path goes before `/api/v1/query`.
    pub(crate) query: Url,
    pub(crate) tenant: Option<String>,
}

/// Options by which a server is named, the same for all commands.
#[derive(clap::Args, Clone)]
pub(crate) struct TargetOptions {
    /// Where remote write requests go. Prometheus and VictoriaMetrics take them at /api/v1/write.
    #[arg(long, default_value = "http://127.0.0.1:9009/api/v1/push")]
    pub(crate) url: String,
    /// What stands before /api/v1/query. Default: /prometheus of the same server if it is pushed to at
    /// a path that ends in /push, as Cortex has it, else its root.
    #[arg(long)]
    pub(crate) query_url: Option<String>,
    /// Sent as X-Scope-OrgID.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
}

impl TargetOptions {
    pub(crate) fn resolve(&self) -> anyhow::Result<Target> {
        let push = Url::parse(&self.url)?;
        let query = match &self.query_url {
            Some(url) => Url::parse(url)?,
            None => {
                let cortex = push.path.ends_with("/push");
                let path = if cortex { "/prometheus" } else { "" };
                Url {
                    authority: push.authority.clone(),
                    path: path.to_owned(),
                }
            }
        };
        if let Some(tenant) = &self.tenant
            && tenant.chars().any(char::is_control)
        {
            bail!("tenant {tenant:?} cannot be sent in a header");
        }
        Ok(Target {
            push,
            query,
            tenant: self.tenant.clone(),
        })
    }
}

impl Target {
    /// A whole remote write request, head and body, ready to be written to a socket.
    pub(crate) fn push_request(&self, snappy: &[u8]) -> Vec<u8> {
        let mut request = Vec::with_capacity(512 + snappy.len());
        self.put_push(&mut request, Protocol::V1, None, snappy);
        request
    }

    /// The same of a load, in place of what is in `bytes`.
    pub(crate) fn put_push_request(
        &self,
        bytes: &mut Vec<u8>,
        protocol: Protocol,
        request: &Request,
    ) {
        bytes.clear();
        self.put_push(bytes, protocol, request.tenant, &request.body);
    }

    fn put_push(
        &self,
        bytes: &mut Vec<u8>,
        protocol: Protocol,
        tenant: Option<u32>,
        snappy: &[u8],
    ) {
        let tenant = self.tenant_name(tenant);
        let mut head = self.head("POST", &self.push, &self.push.path, tenant.as_deref());
        let (media, version) = match protocol {
            Protocol::V1 => ("application/x-protobuf", "0.1.0"),
            Protocol::V2 => (
                "application/x-protobuf;proto=io.prometheus.write.v2.Request",
                "2.0.0",
            ),
        };
        let _ = write!(
            head,
            "Content-Type: {media}\r\nContent-Encoding: snappy\r\n\
             X-Prometheus-Remote-Write-Version: {version}\r\nContent-Length: {}\r\n\r\n",
            snappy.len()
        );
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(snappy);
    }

    /// The tenant of a number, where a load has many.
    pub(crate) fn tenant_name(&self, number: Option<u32>) -> Option<String> {
        match number {
            None => self.tenant.clone(),
            Some(number) => {
                let base = self.tenant.as_deref().unwrap_or("tenant");
                Some(format!("{base}-{number}"))
            }
        }
    }

    /// The same server for another tenant.
    pub(crate) fn with_tenant(&self, tenant: Option<String>) -> Target {
        Target {
            tenant,
            ..self.clone()
        }
    }

    /// Asks until the server answers a query with 200. Errors: it did not within `patience`.
    pub(crate) fn wait_until_ready(
        &self,
        stream: &mut Connection,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let request = self.query_request("vector(1)", 1000);
        loop {
            let trouble = match stream.exchange(&request) {
                Ok(response) if response.status == 200 => return Ok(()),
                Ok(response) => format!("{} {}", response.status, response.excerpt()),
                Err(error) => error.to_string(),
            };
            if start.elapsed() >= patience {
                bail!("the server does not answer queries: {trouble}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// An instant query at `time_ms`, as a form.
    pub(crate) fn query_request(&self, query: &str, time_ms: i64) -> Vec<u8> {
        let time = seconds(time_ms);
        self.form_request(
            "/api/v1/query",
            &[("query", query), ("time", &time), ("timeout", "120s")],
        )
    }

    /// A POST of parameters to a path of the query API.
    pub(crate) fn form_request(&self, path: &str, parameters: &[(&str, &str)]) -> Vec<u8> {
        let path = format!("{}{path}", self.query.path);
        let form = form(parameters);
        let mut head = self.head("POST", &self.query, &path, self.tenant.as_deref());
        let _ = write!(
            head,
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        head.into_bytes()
    }

    /// A GET of a path of the query API.
    pub(crate) fn get_request(&self, path: &str, parameters: &[(&str, &str)]) -> Vec<u8> {
        let path = format!("{}{path}?{}", self.query.path, form(parameters));
        let mut head = self.head("GET", &self.query, &path, self.tenant.as_deref());
        head.push_str("\r\n");
        head.into_bytes()
    }

    fn head(&self, method: &str, url: &Url, path: &str, tenant: Option<&str>) -> String {
        let path = if path.is_empty() { "/" } else { path };
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: myelin-bench\r\n",
            url.authority
        );
        if let Some(tenant) = tenant {
            let _ = write!(head, "X-Scope-OrgID: {tenant}\r\n");
        }
        head
    }
}

/// Milliseconds as the API takes times.
pub(crate) fn seconds(time_ms: i64) -> String {
    let sign = if time_ms < 0 { "-" } else { "" };
    let ms = time_ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

fn form(parameters: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{}={}", escape(name), escape(value));
    parameters.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// Percent-encodes for a form.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> TargetOptions {
        TargetOptions {
            url: url.to_owned(),
            query_url: None,
            tenant: Some("team-a".to_owned()),
        }
    }

    #[test]
    fn urls_are_split_and_wrong_ones_refused() {
        let url = Url::parse("http://[::1]:9009/api/v1/push").unwrap();
        assert_eq!(
            (url.authority.as_str(), url.path.as_str()),
            ("[::1]:9009", "/api/v1/push")
        );
        assert_eq!(Url::parse("http://db").unwrap().authority, "db:80");
        for wrong in [
            "https://db",
            "db:9009",
            "http://",
            "http://u@db/",
            "http://db/?a=b",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_query_prefix_follows_the_kind_of_server() {
        assert_eq!(
            options("http://a:1/api/v1/push")
                .resolve()
                .unwrap()
                .query
                .path,
            "/prometheus"
        );
        assert_eq!(
            options("http://a:1/api/v1/write")
                .resolve()
                .unwrap()
                .query
                .path,
            ""
        );
    }

    #[test]
    fn requests_carry_the_tenant_and_their_length() {
        let target = options("http://a:1/api/v1/push").resolve().unwrap();
        let push = String::from_utf8(target.push_request(b"abc")).unwrap();
        assert!(push.starts_with("POST /api/v1/push HTTP/1.1\r\nHost: a:1\r\n"));
        assert!(push.contains("X-Scope-OrgID: team-a\r\n"));
        assert!(push.ends_with("Content-Length: 3\r\n\r\nabc"));
        let of_many = Request {
            body: b"abc".to_vec(),
            samples: 1,
            tenant: Some(7),
        };
        let mut bytes = b"old".to_vec();
        target.put_push_request(&mut bytes, Protocol::V2, &of_many);
        let push = String::from_utf8(bytes).unwrap();
        assert!(push.starts_with("POST /api/v1/push") && push.ends_with("\r\n\r\nabc"));
        assert!(push.contains("X-Scope-OrgID: team-a-7\r\n"));
        assert!(push.contains("proto=io.prometheus.write.v2.Request\r\n"));
        let query = String::from_utf8(target.query_request("up{a=\"b\"}[5m]", -1)).unwrap();
        assert!(query.ends_with("query=up%7Ba%3D%22b%22%7D%5B5m%5D&time=-0.001&timeout=120s"));
        let series = target.get_request("/api/v1/series", &[("match[]", "up"), ("end", "1")]);
        let series = String::from_utf8(series).unwrap();
        assert!(
            series.starts_with("GET /prometheus/api/v1/series?match%5B%5D=up&end=1 HTTP/1.1\r\n")
        );
        assert!(series.ends_with("X-Scope-OrgID: team-a\r\n\r\n"));
    }
}
