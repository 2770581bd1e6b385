//! Replies that wait for the log.
//!
//! Whatever a core answers, the acknowledgement of a write or the result of a read, shows state that the log may not hold yet.
//! So it waits here until the log is durable (or, for tenants with `ack: written`, written) up to the tail at its admission. There
//! is a queue for each of the two; positions ascend in it, so releasing is popping from the front.
//!
//! When the log fails, nothing that waits here will ever become durable: pushes are refused, reads are asked to come again, and
//! the pushes tell which samples in memory must not be shown any more ([`Release::fail`]).

use std::collections::{HashMap, VecDeque};

use model::{Ack, CoreId, Lsn};

use crate::mailbox::Mailboxes;
use crate::message::{Push, PushOutcome, ReadError, Refusal};

/// The time that marks a sample of a push as not stored, in place of its own. No stored sample has it.
pub(crate) const NOT_STORED: i64 = i64::MAX;

/// Hands over a read's result, or the error instead of it.
pub(crate) type Deliver = Box<dyn FnOnce(Result<(), ReadError>) + Send>;

/// What waits.
pub(crate) enum Reply {
    /// A push.
    Push(Box<Pushed>),
    /// A read.
    Read(Deliver),
}

/// A push whose samples are in memory.
pub(crate) struct Pushed {
    /// Its columns are kept until the reply, with [`NOT_STORED`] where nothing was stored behind the last sample of a series.
    pub(crate) push: Push,
    pub(crate) outcome: PushOutcome,
    /// Series and time of the samples that were stored as late.
    pub(crate) late: Vec<(u32, i64)>,
}

/// What never became durable.
#[derive(Default)]
pub(crate) struct Lost {
    /// Per series, the first time from which on its samples in order are to be hidden.
    pub(crate) from: HashMap<u32, i64>,
    /// Late samples, by series and time.
    pub(crate) late: Vec<(u32, i64)>,
}

/// The two queues.
#[derive(Default)]
pub(crate) struct Release {
    durable: VecDeque<(Lsn, Reply)>,
    written: VecDeque<(Lsn, Reply)>,
}

impl Release {
    /// Queues a reply that shows state up to `lsn`, the log's tail now.
    pub(crate) fn wait(&mut self, ack: Ack, lsn: Lsn, reply: Reply) {
        let queue = match ack {
            Ack::Durable => &mut self.durable,
            Ack::Written => &mut self.written,
        };
        debug_assert!(
            queue.back().is_none_or(|(last, _)| *last <= lsn),
            "the tail never recedes"
        );
        queue.push_back((lsn, reply));
    }

    /// Sends every reply that the log has caught up with.
    pub(crate) fn release(&mut self, durable: Lsn, written: Lsn, core: CoreId, boxes: &Mailboxes) {
        for (queue, reached) in [(&mut self.durable, durable), (&mut self.written, written)] {
            while let Some((_, reply)) = queue.pop_front_if(|(lsn, _)| *lsn <= reached) {
                reply.send(Ok(()), core, boxes);
            }
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.durable.is_empty() && self.written.is_empty()
    }

    /// The log has failed: refuses everything that waits. Returns what is in memory and never became durable.
    pub(crate) fn fail(&mut self, refusal: &Refusal, core: CoreId, boxes: &Mailboxes) -> Lost {
        let mut lost = Lost::default();
        for (_, reply) in self.durable.drain(..).chain(self.written.drain(..)) {
            if let Reply::Push(pushed) = &reply {
                hide(&pushed.push, &pushed.outcome, &mut lost.from);
                lost.late.extend_from_slice(&pushed.late);
            }
            reply.send(Err(refusal.clone()), core, boxes);
        }
        lost
    }
}

impl Reply {
    /// Sends it: as it is, or the refusal instead.
    pub(crate) fn send(self, result: Result<(), Refusal>, core: CoreId, boxes: &Mailboxes) {
        match self {
            Reply::Push(pushed) => {
                let Pushed { push, outcome, .. } = *pushed;
                let outcome = match result {
                    Ok(()) => outcome,
                    Err(refusal) => PushOutcome {
                        refused: Some(refusal),
                        ..Default::default()
                    },
                };
                boxes.of(core).return_credits(push.credits);
                (push.reply)(outcome);
            }
            Reply::Read(deliver) => deliver(result.map_err(ReadError::Refused)),
        }
    }
}

/// Lowers the visible end of each series that the push stored something in.
fn hide(push: &Push, outcome: &PushOutcome, hidden: &mut HashMap<u32, i64>) {
    let mut note = |series: u32, time: i64| {
        if time != NOT_STORED {
            let until = hidden.entry(series).or_insert(time);
            *until = time.min(*until);
        }
    };
    for (key, &time) in push.known.keys.iter().zip(&push.known.times) {
        note(key.series.0, time);
    }
    for other in &push.others.known {
        note(other.series.series.0, other.time);
    }
    for other in &push.others.fresh {
        if let Some(key) = outcome.keys[other.series as usize] {
            note(key.series.0, other.time);
        }
    }
    let mut from = 0;
    for (series, key) in push.fresh.series.iter().zip(&outcome.keys) {
        let end = series.samples_end as usize;
        if let Some(key) = key {
            push.fresh.times[from..end]
                .iter()
                .for_each(|&time| note(key.series.0, time));
        }
        from = end;
    }
}
