//! Deletions on the nodes that hold series: made, listed and carried out there; here they are put together.
//!
//! Each node gives a request an id of its own, so in lists it is known by what it means: selectors and times.

use std::sync::Arc;

use query::Deletion;
use rpc::ingester as proto;
use shard::{Delete, DeleteError};
use tonic::{Code, Status};

use super::client::{Node, Peers, in_time, read_error, told};
use super::convert;

impl Node {
    pub(super) async fn delete(&self, delete: Delete) -> Result<u128, DeleteError> {
        let selector = |matchers: &Arc<[model::Matcher]>| proto::Selector {
            matchers: convert::matchers_to(matchers),
        };
        let request = proto::DeleteRequest {
            tenant: delete.tenant.as_str().to_owned(),
            selectors: delete.selectors.iter().map(selector).collect(),
            min_time: delete.min_time,
            max_time: delete.max_time,
            whole_tenant: delete.whole_tenant,
        };
        let mut client = self.client.clone();
        let reply = client.delete(request).await;
        let reply = reply.map_err(|status| {
            let text = format!("ingester {}: {}", self.address, told(&status));
            match status.code() {
                Code::InvalidArgument | Code::ResourceExhausted => DeleteError::Invalid(text),
                _ => DeleteError::Unavailable(text),
            }
        })?;
        let proto::DeleteReply { id_high, id_low } = reply.into_inner();
        Ok(id_of(id_high, id_low))
    }

    async fn deletions(&self, tenant: String) -> Result<proto::DeletionsReply, Status> {
        let request = proto::DeletionsRequest { tenant };
        let mut client = self.client.clone();
        let reply = in_time(client.deletions(request)).await?;
        Ok(reply.into_inner())
    }

    async fn compact(&self) -> Result<(), Status> {
        let mut client = self.client.clone();
        in_time(client.compact(proto::CompactRequest {})).await?;
        Ok(())
    }
}

impl Peers {
    /// The deletions of a tenant on all nodes, as one list, and whether a deleted tenant has left all of them.
    ///
    /// Errors: a node that cannot be asked, by its name.
    pub(crate) async fn deletions(
        &self,
        tenant: &model::TenantId,
    ) -> Result<(Vec<Deletion>, bool), query::Error> {
        let ask = |node: Arc<Node>| {
            let of = tenant.as_str().to_owned();
            async move { node.deletions(of).await }
        };
        let replies = self.each(ask).await?;
        let is_deleted = replies.iter().all(|(_, reply)| reply.tenant_is_deleted);
        Ok((merged(replies), is_deleted))
    }

    /// Has all nodes look for what deletions apply to. Errors: as above.
    pub(crate) async fn compact(&self) -> Result<(), query::Error> {
        let ask = |node: Arc<Node>| async move { node.compact().await };
        self.each(ask).await?;
        Ok(())
    }

    /// Asks all nodes at once.
    async fn each<T: Send + 'static, F>(
        &self,
        ask: impl Fn(Arc<Node>) -> F,
    ) -> Result<Vec<(String, T)>, query::Error>
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let asked: Vec<_> = self
            .nodes()
            .iter()
            .map(|node| {
                let answer = self.runtime().spawn(ask(node.clone()));
                (node.address.clone(), answer)
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (address, answer) in asked {
            let answer = answer.await;
            let answer = answer.unwrap_or_else(|error| Err(Status::internal(error.to_string())));
            let answer = answer.map_err(|status| read_error(&address, &status))?;
            answers.push((address, answer));
        }
        Ok(answers)
    }
}

fn id_of(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// One list of those of several nodes, oldest first. A request is processed when it is wherever it was made.
fn merged(replies: Vec<(String, proto::DeletionsReply)>) -> Vec<Deletion> {
    let addresses: Vec<String> = replies.iter().map(|(address, _)| address.clone()).collect();
    // With the nodes that have it.
    let mut all: Vec<(Deletion, Vec<String>)> = Vec::new();
    for (address, reply) in replies {
        for one in reply.deletions {
            let known = all.iter_mut().find(|(known, _)| {
                (known.start, known.end) == (one.min_time, one.max_time)
                    && known.selectors == one.selectors
            });
            match known {
                Some((known, on)) => {
                    known.created_ms = known.created_ms.min(one.created);
                    known.over_ms = known.over_ms.zip(one.over).map(|(a, b)| a.max(b));
                    known.blocks_pending += one.blocks_pending;
                    on.push(address.clone());
                }
                None => {
                    let deletion = Deletion {
                        id: id_of(one.id_high, one.id_low),
                        selectors: one.selectors,
                        start: one.min_time,
                        end: one.max_time,
                        created_ms: one.created,
                        over_ms: one.over,
                        blocks_pending: one.blocks_pending,
                        missing_on: Vec::new(),
                    };
                    all.push((deletion, vec![address.clone()]));
                }
            }
        }
    }
    let mut list: Vec<Deletion> = all
        .into_iter()
        .map(|(mut deletion, on)| {
            let missing = addresses.iter().filter(|address| !on.contains(address));
            deletion.missing_on = missing.cloned().collect();
            deletion
        })
        .collect();
    list.sort_by_key(|deletion| deletion.created_ms);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_in_the_list_and_processed_when_it_is_everywhere() {
        let one = |id, selector: &str, created, over, blocks_pending| proto::Deletion {
            id_high: 1,
            id_low: id,
            selectors: vec![selector.to_owned()],
            min_time: 0,
            max_time: 9,
            created,
            over,
            blocks_pending,
        };
        let reply = |deletions| proto::DeletionsReply {
            deletions,
            tenant_is_deleted: true,
        };
        let of_a = reply(vec![
            one(1, "x", 30, Some(50), 0),
            one(2, "y", 20, Some(60), 0),
        ]);
        let of_b = reply(vec![one(3, "x", 31, None, 2), one(4, "y", 21, Some(70), 0)]);
        let of_c = reply(vec![one(5, "y", 22, Some(40), 0)]);
        let all = ["a", "b", "c"].map(str::to_owned).into_iter();
        let list = merged(all.zip([of_a, of_b, of_c]).collect());
        let seen: Vec<_> = list
            .iter()
            .map(|d| {
                (
                    d.id as u64,
                    d.created_ms,
                    d.over_ms,
                    d.blocks_pending,
                    d.missing_on.join(","),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (2, 20, Some(70), 0, String::new()),
                (1, 30, None, 2, "c".to_owned())
            ]
        );
    }
}
