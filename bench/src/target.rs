//! Where the server is: URLs, the tenant, and the bytes of requests.

use std::fmt::Write as _;
use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail};

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
        let mut head = self.head("POST", &self.push, &self.push.path);
        let _ = write!(
            head,
            "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
             X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: {}\r\n\r\n",
            snappy.len()
        );
        let mut request = Vec::with_capacity(head.len() + snappy.len());
        request.extend_from_slice(head.as_bytes());
        request.extend_from_slice(snappy);
        request
    }

    /// An instant query at `time_ms`, as a form.
    pub(crate) fn query_request(&self, query: &str, time_ms: i64) -> Vec<u8> {
        let path = format!("{}/api/v1/query", self.query.path);
        let seconds = format!(
            "{}.{:03}",
            time_ms.div_euclid(1000),
            time_ms.rem_euclid(1000)
        );
        let form = format!("query={}&time={seconds}&timeout=120s", escape(query));
        let mut head = self.head("POST", &self.query, &path);
        let _ = write!(
            head,
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        head.into_bytes()
    }

    fn head(&self, method: &str, url: &Url, path: &str) -> String {
        let path = if path.is_empty() { "/" } else { path };
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: myelin-bench\r\n",
            url.authority
        );
        if let Some(tenant) = &self.tenant {
            let _ = write!(head, "X-Scope-OrgID: {tenant}\r\n");
        }
        head
    }
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
        let query = String::from_utf8(target.query_request("up{a=\"b\"}[5m]", -1)).unwrap();
        assert!(query.ends_with("query=up%7Ba%3D%22b%22%7D%5B5m%5D&time=-1.999&timeout=120s"));
    }
}
