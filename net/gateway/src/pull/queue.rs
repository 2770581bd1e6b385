//! A line for each tenant, emptied in turn.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::TenantId;
use rpc::frontend::{HttpRequest, HttpResponse};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// The querier that had the query is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// As many queries wait as may; how many do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Full {
    OfTenant(usize),
    OfAll(usize),
}

/// How many queries may wait, of one tenant and of all; 0: any number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) of_tenant: usize,
    pub(crate) of_all: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lines: Mutex<Lines>,
    /// One permit for somebody who waits.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Lines {
    of_tenant: HashMap<TenantId, VecDeque<Waiting>>,
    /// Tenants with a line, that whose turn it is first.
    turns: VecDeque<TenantId>,
    /// In all lines.
    count: usize,
    /// Of tickets, so that one that goes takes its own place with it.
    last: u64,
}

/// A query that a querier may have.
#[derive(Debug)]
pub(crate) struct Waiting {
    number: u64,
    pub(crate) tenant: TenantId,
    pub(crate) request: HttpRequest,
    /// Dropped without an answer: [`Lost`].
    pub(crate) reply: oneshot::Sender<HttpResponse>,
    pub(crate) since: Instant,
}

/// A place in line; whoever drops it gives it up.
#[derive(Debug)]
pub(crate) struct Ticket {
    queue: Arc<Queue>,
    tenant: TenantId,
    number: u64,
    answer: oneshot::Receiver<HttpResponse>,
}

impl Queue {
    /// Puts a query into the line of its tenant. Errors: as many wait as may.
    pub(crate) fn put(
        self: &Arc<Queue>,
        tenant: &TenantId,
        bounds: Bounds,
        request: HttpRequest,
    ) -> Result<Ticket, Full> {
        let (reply, answer) = oneshot::channel();
        let number = {
            let lines = &mut *self.lines();
            let is_full = |waiting: usize, max: usize| max > 0 && waiting >= max;
            let waiting = lines.of_tenant.get(tenant).map_or(0, VecDeque::len);
            if is_full(waiting, bounds.of_tenant) {
                return Err(Full::OfTenant(waiting));
            }
            if is_full(lines.count, bounds.of_all) {
                return Err(Full::OfAll(lines.count));
            }
            lines.last += 1;
            lines.count += 1;
            if waiting == 0 {
                lines.turns.push_back(tenant.clone());
            }
            let line = lines.of_tenant.entry(tenant.clone()).or_default();
            line.push_back(Waiting {
                number: lines.last,
                tenant: tenant.clone(),
                request,
                reply,
                since: Instant::now(),
            });
            lines.last
        };
        self.arrived.notify_one();
        Ok(Ticket {
            queue: Arc::clone(self),
            tenant: tenant.clone(),
            number,
            answer,
        })
    }

    /// The next query, of another tenant each time.
    pub(crate) async fn take(&self) -> Waiting {
        loop {
            if let Some(waiting) = self.lines().take() {
                return waiting;
            }
            self.arrived.notified().await;
        }
    }

    /// How many queries of a tenant wait.
    pub(crate) fn waiting(&self, tenant: &TenantId) -> i64 {
        let lines = self.lines();
        let line = lines.of_tenant.get(tenant);
        line.map_or(0, |line| line.len() as i64)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn take(&mut self) -> Option<Waiting> {
        let tenant = self.turns.pop_front()?;
        let line = self.of_tenant.get_mut(&tenant);
        let line = line.expect("a tenant with a turn has a line");
        let waiting = line.pop_front().expect("a line has somebody");
        self.count -= 1;
        match line.is_empty() {
            true => drop(self.of_tenant.remove(&tenant)),
            false => self.turns.push_back(tenant),
        }
        Some(waiting)
    }
}

impl Ticket {
    /// Waits for the answer.
    pub(crate) async fn answer(mut self) -> Result<HttpResponse, Lost> {
        (&mut self.answer).await.map_err(|_| Lost)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let lines = &mut *self.queue.lines();
        let Some(line) = lines.of_tenant.get_mut(&self.tenant) else {
            return;
        };
        let before = line.len();
        line.retain(|waiting| waiting.number != self.number);
        lines.count -= before - line.len();
        if line.is_empty() {
            lines.of_tenant.remove(&self.tenant);
            lines.turns.retain(|tenant| *tenant != self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id).unwrap()
    }

    fn request(url: &str) -> HttpRequest {
        HttpRequest {
            url: url.to_owned(),
            ..HttpRequest::default()
        }
    }

    fn bounds(of_tenant: usize) -> Bounds {
        Bounds {
            of_tenant,
            of_all: 6,
        }
    }

    #[tokio::test]
    async fn a_tenant_with_many_queries_delays_its_own() {
        let queue = Arc::new(Queue::default());
        let mut tickets = Vec::new();
        for n in 0..4 {
            tickets.push(
                queue
                    .put(&tenant("a"), bounds(4), request(&format!("a{n}")))
                    .unwrap(),
            );
        }
        assert_eq!(
            queue
                .put(&tenant("a"), bounds(4), request("a4"))
                .unwrap_err(),
            Full::OfTenant(4)
        );
        for id in ["b", "c"] {
            tickets.push(queue.put(&tenant(id), bounds(4), request(id)).unwrap());
        }
        let other = queue.put(&tenant("d"), bounds(4), request("d"));
        assert_eq!(other.unwrap_err(), Full::OfAll(6));
        let mut order = Vec::new();
        for _ in 0..6 {
            order.push(queue.take().await.request.url);
        }
        assert_eq!(order, ["a0", "b", "c", "a1", "a2", "a3"]);
        // Nobody answered: all of them were with queriers that went away.
        for ticket in tickets {
            assert_eq!(ticket.answer().await, Err(Lost));
        }
    }

    #[tokio::test]
    async fn whoever_goes_leaves_the_line() {
        let queue = Arc::new(Queue::default());
        let gone = queue.put(&tenant("a"), bounds(1), request("gone")).unwrap();
        drop(gone);
        assert_eq!(queue.waiting(&tenant("a")), 0);
        let stays = queue
            .put(&tenant("a"), bounds(1), request("stays"))
            .unwrap();
        let waiting = queue.take().await;
        assert_eq!(waiting.request.url, "stays");
        waiting
            .reply
            .send(HttpResponse {
                code: 200,
                ..HttpResponse::default()
            })
            .unwrap();
        assert_eq!(stays.answer().await.unwrap().code, 200);
    }
}
