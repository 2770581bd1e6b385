//! The parts of a Myelin as processes of their own.

use crate::{Server, ServerOptions};

/// Ingesters, a distributor before them, a frontend, and queriers that pull from it.
pub struct Cluster {
    /// Who holds the series.
    pub ingesters: Vec<Server>,
    /// Where to push.
    pub distributor: Server,
    /// Where to query.
    pub frontend: Server,
    /// Who evaluates.
    pub queriers: Vec<Server>,
}

impl Cluster {
    /// Starts so many of each, all with one configuration, and waits until they are ready; `None` (a skip) where the binary is not built.
    pub fn start(config: &str, ingesters: usize, queriers: usize) -> Option<Cluster> {
        Cluster::start_with(config, ingesters, queriers, &[])
    }

    /// As [`Cluster::start`], with further flags for all.
    pub fn start_with(
        config: &str,
        ingesters: usize,
        queriers: usize,
        flags: &[String],
    ) -> Option<Cluster> {
        let part = |target: &str, more: &[String]| {
            let target = format!("-target={target}");
            let args = [&[target], flags, more].concat();
            ServerOptions {
                config: config.to_owned(),
                args,
                ..ServerOptions::default()
            }
        };
        let ingester = |_| Server::start(part("ingester", &["-cores=2".to_owned()]));
        let ingesters = (0..ingesters).map(ingester).collect::<Option<Vec<_>>>()?;
        let address =
            |server: &Server| format!("-ingester.client.addresses={}", server.grpc_address());
        let addresses: Vec<String> = ingesters.iter().map(address).collect();
        let frontend = Server::spawn(part("query-frontend", &[]))?;
        let distributor = Server::start(part("distributor", &addresses))?;
        let pulls = format!("-querier.frontend-address={}", frontend.grpc_address());
        let pulls = [&addresses[..], &[pulls]].concat();
        let querier = |_| Server::start(part("querier", &pulls));
        let queriers = (0..queriers).map(querier).collect::<Option<Vec<_>>>()?;
        let mut cluster = Cluster {
            ingesters,
            distributor,
            frontend,
            queriers,
        };
        cluster.frontend.wait_ready();
        Some(cluster)
    }
}
