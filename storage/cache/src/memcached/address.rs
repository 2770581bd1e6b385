//! Where servers are: addresses, names with several addresses, and names of services.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

/// One entry of a list of servers, as Cortex and Thanos have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`, `dns+host:port`: all addresses of the host.
    Host(String, u16),
    /// `dnssrv+name`, `dnssrvnoa+name`: the targets of the SRV records, with their ports.
    Service(String),
}

impl Address {
    /// Errors: a sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Address, String> {
        let wrong = || {
            format!("{text:?} is none of host:port, dns+host:port, dnssrv+name and dnssrvnoa+name")
        };
        let service = ["dnssrv+", "dnssrvnoa+"];
        if let Some(name) = service.iter().find_map(|kind| text.strip_prefix(kind)) {
            return match name.is_empty() || name.contains(':') || name.contains('/') {
                true => Err(wrong()),
                false => Ok(Address::Service(name.to_owned())),
            };
        }
        let text = text.strip_prefix("dns+").unwrap_or(text);
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = port.parse().ok().filter(|port| *port > 0);
        match (host, port) {
            ("", _) | (_, None) => Err(wrong()),
            (host, _) if host.contains(['+', '/', ' ']) => Err(wrong()),
            (host, Some(port)) => Ok(Address::Host(host.to_owned(), port)),
        }
    }

    /// For messages.
    pub(super) fn text(&self) -> String {
        match self {
            Address::Host(host, port) => format!("{host}:{port}"),
            Address::Service(name) => format!("dnssrv+{name}"),
        }
    }

    /// All addresses now. Errors: it cannot be looked up, or there is none.
    pub(super) async fn resolve(&self) -> Result<BTreeSet<SocketAddr>, String> {
        let found = match self {
            Address::Host(host, port) => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                found.map_err(|error| format!("{host}: {error}"))?.collect()
            }
            Address::Service(name) => service(name).await?,
        };
        match found.is_empty() {
            true => Err(format!("{} has no address", self.text())),
            false => Ok(found),
        }
    }
}

/// The targets of the SRV records. The resolver is made anew each time, so that a changed `/etc/resolv.conf` counts, and nothing is kept longer than
/// the interval between two looks.
async fn service(name: &str) -> Result<BTreeSet<SocketAddr>, String> {
    let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
    let resolver = resolver.map_err(|error| format!("the system's resolver: {error}"))?;
    let records = resolver.srv_lookup(name).await;
    let records = records.map_err(|error| format!("{name}: {error}"))?;
    let (mut found, mut failed) = (BTreeSet::new(), None);
    for record in records.answers() {
        let RData::SRV(record) = &record.data else {
            continue;
        };
        match resolver.lookup_ip(record.target.clone()).await {
            Ok(addresses) => {
                found.extend(addresses.iter().map(|ip| SocketAddr::new(ip, record.port)));
            }
            Err(error) => failed = Some(format!("{}: {error}", record.target)),
        }
    }
    match (found.is_empty(), failed) {
        (true, Some(error)) => Err(error),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_cortex() {
        let host = |host: &str, port| Ok(Address::Host(host.to_owned(), port));
        assert_eq!(Address::parse("a.b:11211"), host("a.b", 11211));
        assert_eq!(Address::parse("dns+a.b:11211"), host("a.b", 11211));
        assert_eq!(Address::parse("[::1]:11211"), host("::1", 11211));
        for text in [
            "dnssrv+_memcached._tcp.a.b",
            "dnssrvnoa+_memcached._tcp.a.b",
        ] {
            let service = Address::Service("_memcached._tcp.a.b".to_owned());
            assert_eq!(Address::parse(text), Ok(service));
        }
        for wrong in [
            "",
            "a",
            ":1",
            "a:",
            "a:b",
            "a:0",
            "a:70000",
            "dnssrv+",
            "dnssrv+a:1",
            "dns+a",
            "srv+a:1",
        ] {
            assert!(
                Address::parse(wrong).unwrap_err().contains(wrong),
                "{wrong}"
            );
        }
    }
}
