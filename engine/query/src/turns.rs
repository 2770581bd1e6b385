//! Whose turn it is: a bounded number of queries at work, fair among tenants.
//!
//! Who finds no place waits in the line of its tenant. A place that becomes free goes to the next tenant in turn that has somebody
//! waiting and is below its own bound, so a tenant with a hundred queries delays another's by one, not by a hundred. Both
//! lines and waiting places in all are bounded; a query whose caller has gone leaves its line at once. Within the line of a tenant those of
//! higher priority (`query_priority`) go first, and among equals who came first; no priority goes before another tenant.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::TenantId;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};
use tokio::sync::oneshot;

use crate::error::Error;

/// Hands out places; shared by all gateway threads. The lock is held for a few steps twice a query.
#[derive(Debug)]
pub(crate) struct Turns {
    at_work_max: usize,
    waiting_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    at_work: usize,
    waiting: usize,
    next_ticket: u64,
    /// Tenants with somebody at work or waiting.
    tenants: HashMap<TenantId, Line>,
    /// Tenants with somebody waiting, each once; the next in turn first.
    order: VecDeque<TenantId>,
}

#[derive(Debug, Default)]
struct Line {
    at_work: usize,
    /// Bound of the tenant as of its last request.
    at_work_max: usize,
    /// By priority, then by ticket.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    priority: i64,
    ticket: u64,
    sender: oneshot::Sender<Place>,
}

/// The bounds of one tenant; 0 is unlimited. And the priority of this request of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnBounds {
    pub(crate) at_work_max: usize,
    pub(crate) waiting_max: usize,
    pub(crate) priority: i64,
}

/// A place among those at work; given to the next in turn when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Arc<Turns>,
    tenant: TenantId,
}

/// A place in a line, left when dropped.
struct Ticket<'a> {
    turns: &'a Turns,
    tenant: &'a TenantId,
    number: u64,
}

impl Turns {
    pub(crate) fn new(at_work_max: usize, waiting_max: usize) -> Arc<Turns> {
        Arc::new(Turns {
            at_work_max,
            waiting_max,
            state: Mutex::default(),
        })
    }

    /// A place, at once or after a wait. Errors: too many wait already, of this tenant or in all.
    pub(crate) async fn place(
        self: &Arc<Turns>,
        tenant: &TenantId,
        own: OwnBounds,
    ) -> Result<Place, Error> {
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut state = self.state();
            let state = &mut *state;
            let line = state.tenants.entry(tenant.clone()).or_default();
            line.at_work_max = match own.at_work_max {
                0 => usize::MAX,
                most => most,
            };
            if state.at_work < self.at_work_max && line.at_work < line.at_work_max {
                (state.at_work, line.at_work) = (state.at_work + 1, line.at_work + 1);
                return Ok(self.place_of(tenant));
            }
            let waiting = line.waiting.len();
            let refused = if own.waiting_max > 0 && waiting >= own.waiting_max {
                Some(Error::TooManyOutstanding {
                    waiting,
                    limit: own.waiting_max,
                })
            } else if state.waiting >= self.waiting_max {
                Some(Error::Busy {
                    waiting: state.waiting,
                })
            } else {
                None
            };
            if let Some(error) = refused {
                state.forget(tenant);
                return Err(error);
            }
            state.next_ticket += 1;
            state.waiting += 1;
            if waiting == 0 {
                state.order.push_back(tenant.clone());
            }
            let (priority, ticket) = (own.priority, state.next_ticket);
            let before = line.waiting.partition_point(|w| w.priority >= priority);
            let waiting = Waiting {
                priority,
                ticket,
                sender,
            };
            line.waiting.insert(before, waiting);
            ticket
        };
        let _ticket = Ticket {
            turns: self,
            tenant,
            number,
        };
        Ok(receiver.await.expect("a sender in a line is used"))
    }

    fn place_of(self: &Arc<Turns>, tenant: &TenantId) -> Place {
        Place {
            turns: self.clone(),
            tenant: tenant.clone(),
        }
    }

    /// Gives free places to those who wait.
    fn hand_out(self: &Arc<Turns>) {
        loop {
            let (tenant, sender) = {
                let mut state = self.state();
                match state.at_work < self.at_work_max {
                    true => match state.next() {
                        Some(next) => next,
                        None => return,
                    },
                    false => return,
                }
            };
            // Whoever has gone in this moment drops the place, which comes here again.
            drop(sender.send(self.place_of(&tenant)));
        }
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// Tenants with somebody at work or waiting, and how many of each wait.
    fn lines(&self) -> Vec<(TenantId, usize)> {
        let state = self.state();
        let lines = state.tenants.iter();
        lines
            .map(|(id, line)| (id.clone(), line.waiting.len()))
            .collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the next who may work out of its line.
    fn next(&mut self) -> Option<(TenantId, oneshot::Sender<Place>)> {
        let may = |tenant: &TenantId| {
            let line = &self.tenants[tenant];
            line.at_work < line.at_work_max
        };
        let at = self.order.iter().position(may)?;
        let tenant = self.order.remove(at).expect("found above");
        let line = self.tenants.get_mut(&tenant).expect("it waits");
        let Waiting { sender, .. } = line.waiting.pop_front().expect("it waits");
        line.at_work += 1;
        if !line.waiting.is_empty() {
            self.order.push_back(tenant.clone());
        }
        (self.at_work, self.waiting) = (self.at_work + 1, self.waiting - 1);
        Some((tenant, sender))
    }

    /// Forgets a tenant of which nobody is there.
    fn forget(&mut self, tenant: &TenantId) {
        let idle = |line: &Line| line.at_work == 0 && line.waiting.is_empty();
        if self.tenants.get(tenant).is_some_and(idle) {
            self.tenants.remove(tenant);
        }
    }
}

/// How many wait, by tenant, as a metric; read when somebody looks, so that a tenant that has gone leaves nothing behind.
///
/// Under the names of the frontend's queue and of the scheduler's: here they are one.
pub(crate) struct Lines {
    turns: Arc<Turns>,
    descriptions: Vec<Desc>,
}

impl Lines {
    pub(crate) fn new(turns: Arc<Turns>) -> Lines {
        let gauges = Lines::gauges();
        let descriptions = gauges.iter().flat_map(Collector::desc).cloned().collect();
        Lines {
            turns,
            descriptions,
        }
    }

    fn gauges() -> [IntGaugeVec; 2] {
        [
            "cortex_query_frontend_queue_length",
            "cortex_query_scheduler_queue_length",
        ]
        .map(|name| {
            let opts = Opts::new(name, "Requests that wait for their turn.");
            IntGaugeVec::new(opts, &["user"]).expect("a valid metric")
        })
    }
}

impl Collector for Lines {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let gauges = Lines::gauges();
        let lines = self.turns.lines();
        for gauge in &gauges {
            // While nobody is there the metric is still one, and 0.
            if lines.is_empty() {
                gauge.with_label_values(&[""]).set(0);
            }
            for (tenant, waiting) in &lines {
                let waiting = i64::try_from(*waiting).unwrap_or(i64::MAX);
                gauge.with_label_values(&[tenant.as_str()]).set(waiting);
            }
        }
        gauges.iter().flat_map(Collector::collect).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        {
            let mut state = self.turns.state();
            state.at_work -= 1;
            if let Some(line) = state.tenants.get_mut(&self.tenant) {
                line.at_work -= 1;
            }
            state.forget(&self.tenant);
        }
        self.turns.hand_out();
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        let state = &mut *state;
        let Some(line) = state.tenants.get_mut(self.tenant) else {
            return;
        };
        let Some(at) = line.waiting.iter().position(|w| w.ticket == self.number) else {
            return; // It had its turn.
        };
        line.waiting.remove(at);
        state.waiting -= 1;
        if line.waiting.is_empty() {
            state.order.retain(|tenant| tenant != self.tenant);
            state.forget(self.tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    const FREE: OwnBounds = OwnBounds {
        at_work_max: 0,
        waiting_max: 0,
        priority: 0,
    };

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_tenant_with_many_queries_delays_another_by_one() {
        let (turns, a, b) = (Turns::new(1, 10), tenant("a"), tenant("b"));
        let first = poll(pin!(turns.place(&a, FREE))).unwrap().unwrap();
        let mut a1 = pin!(turns.place(&a, FREE));
        let mut a2 = pin!(turns.place(&a, FREE));
        let mut b1 = pin!(turns.place(&b, FREE));
        assert!(poll(a1.as_mut()).is_none() && poll(a2.as_mut()).is_none());
        assert!(poll(b1.as_mut()).is_none());
        drop(first);
        let second = poll(a1.as_mut()).expect("first in line").unwrap();
        assert!(poll(a2.as_mut()).is_none() && poll(b1.as_mut()).is_none());
        drop(second);
        let third = poll(b1.as_mut()).expect("the other tenant's turn").unwrap();
        assert!(poll(a2.as_mut()).is_none());
        drop(third);
        drop(poll(a2.as_mut()).expect("nobody else").unwrap());
        let state = turns.state();
        assert!(state.tenants.is_empty() && state.order.is_empty());
        assert_eq!((state.at_work, state.waiting), (0, 0));
    }

    #[test]
    fn a_tenant_at_its_own_bound_waits_while_others_pass() {
        let (turns, a, b) = (Turns::new(5, 10), tenant("a"), tenant("b"));
        let own = OwnBounds {
            at_work_max: 1,
            waiting_max: 1,
            priority: 0,
        };
        let first = poll(pin!(turns.place(&a, own))).unwrap().unwrap();
        let mut second = pin!(turns.place(&a, own));
        assert!(poll(second.as_mut()).is_none());
        let refused = poll(pin!(turns.place(&a, own))).unwrap().unwrap_err();
        assert!(matches!(
            refused,
            Error::TooManyOutstanding { limit: 1, .. }
        ));
        assert!(poll(pin!(turns.place(&b, own))).is_some());
        drop(first);
        assert!(poll(second.as_mut()).is_some());
    }

    /// A hundred queries of one tenant are there before five of another: of every two places that become free one is the other's, until it has
    /// all it asked for. Told by order alone.
    #[test]
    fn a_flood_of_one_tenant_takes_no_more_than_its_share() {
        let (turns, a, b) = (Turns::new(2, 200), tenant("a"), tenant("b"));
        let mut at_work: VecDeque<Place> = (0..2)
            .map(|_| poll(pin!(turns.place(&a, FREE))).unwrap().unwrap())
            .collect();
        let of = |tenant: &'static str, count: usize| {
            (0..count).map(move |_| tenant).collect::<Vec<_>>()
        };
        let mut waiting: Vec<_> = (of("a", 100).into_iter().chain(of("b", 5)))
            .map(|name| {
                let (turns, id) = (
                    turns.clone(),
                    if name == "a" { a.clone() } else { b.clone() },
                );
                let mut place = Box::pin(async move { turns.place(&id, FREE).await.unwrap() });
                assert!(poll(place.as_mut()).is_none());
                (name, place)
            })
            .collect();
        let mut order = Vec::new();
        while let Some(done) = at_work.pop_front() {
            drop(done);
            let mut next = waiting.iter_mut().enumerate();
            let next = next.find_map(|(at, (_, place))| Some((at, poll(place.as_mut())?)));
            let Some((at, place)) = next else { continue };
            order.push(waiting.remove(at).0);
            at_work.push_back(place);
        }
        assert_eq!(order.len(), 105);
        let last_of_b = order.iter().rposition(|name| *name == "b").unwrap();
        assert!(last_of_b < 10, "{:?}", &order[..20]);
    }

    #[test]
    fn a_higher_priority_goes_before_those_of_its_tenant_and_not_before_others() {
        let (turns, a, b) = (Turns::new(1, 10), tenant("a"), tenant("b"));
        let with = |priority| OwnBounds { priority, ..FREE };
        let first = poll(pin!(turns.place(&a, FREE))).unwrap().unwrap();
        let mut low = pin!(turns.place(&a, with(0)));
        let mut other = pin!(turns.place(&b, with(-5)));
        let mut high = pin!(turns.place(&a, with(7)));
        let mut same = pin!(turns.place(&a, with(7)));
        assert!(poll(low.as_mut()).is_none() && poll(other.as_mut()).is_none());
        assert!(poll(high.as_mut()).is_none() && poll(same.as_mut()).is_none());
        let lines = Lines::new(turns.clone()).collect();
        let told: f64 = lines[0]
            .get_metric()
            .iter()
            .map(|m| m.get_gauge().get_value())
            .sum();
        assert_eq!(told, 4.0);
        drop(first);
        let second = poll(high.as_mut()).expect("of a, the highest").unwrap();
        assert!(poll(low.as_mut()).is_none() && poll(other.as_mut()).is_none());
        drop(second);
        drop(
            poll(other.as_mut())
                .expect("the other tenant's turn")
                .unwrap(),
        );
        drop(poll(same.as_mut()).expect("then the next of a").unwrap());
        assert!(poll(low.as_mut()).is_some());
    }

    #[test]
    fn who_leaves_the_line_is_not_waited_for() {
        let (turns, a) = (Turns::new(1, 2), tenant("a"));
        let first = poll(pin!(turns.place(&a, FREE))).unwrap().unwrap();
        let mut stays = Box::pin(turns.place(&a, FREE));
        {
            let mut leaves = Box::pin(turns.place(&a, FREE));
            assert!(poll(leaves.as_mut()).is_none());
            assert!(poll(stays.as_mut()).is_none());
            let full = poll(pin!(turns.place(&a, FREE))).unwrap().unwrap_err();
            assert!(matches!(full, Error::Busy { waiting: 2 }), "{full}");
        }
        assert_eq!(turns.waiting(), 1);
        drop(first);
        // Granted, and gone before it looked.
        drop(stays);
        assert!(poll(pin!(turns.place(&a, FREE))).is_some());
    }
}
