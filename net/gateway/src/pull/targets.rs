//! Where the frontends are: one address, or a name that stands for several.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

/// What `-querier.frontend-address` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// `host:port`: all addresses of the host.
    Host(String, u16),
    /// A name with SRV records.
    Service(String),
}

impl Named {
    /// Errors: a port that is none, an empty name.
    pub(super) fn parse(text: &str) -> Result<Named, String> {
        let wrong = || format!("{text:?} is neither host:port nor a name with SRV records");
        match text.rsplit_once(':') {
            _ if text.is_empty() => Err(wrong()),
            None => Ok(Named::Service(text.to_owned())),
            Some((host, port)) => {
                let port = port.parse().ok().filter(|port| *port > 0);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                match (host, port) {
                    ("", _) | (_, None) => Err(wrong()),
                    (host, Some(port)) => Ok(Named::Host(host.to_owned(), port)),
                }
            }
        }
    }

    /// The host, or the name with the records.
    pub(super) fn name(&self) -> &str {
        match self {
            Named::Host(name, _) | Named::Service(name) => name,
        }
    }

    /// All addresses now. Errors: the name cannot be looked up.
    pub(super) async fn resolve(&self) -> Result<BTreeSet<SocketAddr>, String> {
        match self {
            Named::Host(host, port) => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                let found = found.map_err(|error| format!("{host}: {error}"))?;
                Ok(found.collect())
            }
            Named::Service(name) => service(name).await,
        }
    }
}

/// The targets of the SRV records. The resolver is made anew each time, so that a changed `/etc/resolv.conf` counts, and nothing is cached longer than the
/// interval between two looks.
async fn service(name: &str) -> Result<BTreeSet<SocketAddr>, String> {
    let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
    let resolver = resolver.map_err(|error| format!("the system's resolver: {error}"))?;
    let records = resolver.srv_lookup(name).await;
    let records = records.map_err(|error| format!("{name}: {error}"))?;
    let mut found = BTreeSet::new();
    let mut failed = None;
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
    fn an_address_has_a_port_and_a_service_has_none() {
        let host = |host: &str, port| Ok(Named::Host(host.to_owned(), port));
        assert_eq!(Named::parse("a.b:9095"), host("a.b", 9095));
        assert_eq!(Named::parse("[::1]:9095"), host("::1", 9095));
        let service = Named::Service("frontend.local".to_owned());
        assert_eq!(Named::parse("frontend.local"), Ok(service));
        for wrong in ["", ":1", "a:", "a:b", "a:0", "a:70000"] {
            assert!(Named::parse(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_host_is_all_of_its_addresses() {
        let named = Named::parse("127.0.0.1:9095").unwrap();
        let expected = BTreeSet::from(["127.0.0.1:9095".parse().unwrap()]);
        assert_eq!(named.resolve().await, Ok(expected));
    }
}
