//! The loop of a thread: a world, the timers, the doorbell and the buffers, for one or several reactors.
//!
//! Every reactor has a [`Seat`] here. Tokens of operations and timers carry the seat in their upper bits, so that what the world
//! gives back finds its way; it waits in the inbox of its seat until the owner looks. So cores that share a thread share one
//! `io_uring_enter` a turn, one sleep and one doorbell, and know nothing of each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::bell::{Bell, RUNG};
use crate::buffer::Pool;
use crate::limits::OPERATIONS_MAX;
use crate::op::{Event, File, Op, OpResult};
use crate::reactor::{Stats, TOKENS_MAX, World};
use crate::reader::{Reader, Source};
use crate::sim::Port;
use crate::threads::Threads;
use crate::time::{self, Tick, Timers};
use crate::uring::Uring;

/// A place of a reactor at its hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat(u16);

/// See the module.
pub(crate) struct Hub {
    disk: Disk,
    bell: Arc<Bell>,
    timers: Timers,
    pub(crate) pool: Pool,
    inboxes: Inboxes,
    /// What the simulation delivers, before it is sorted.
    delivered: Vec<Event>,
    submissions: u64,
    completions: u64,
    sleeps: u64,
    /// Where a test wants to find, afterwards, how much went through the ring.
    pub(crate) ledger: Option<Arc<AtomicU64>>,
}

pub(crate) enum Disk {
    Uring(Box<Uring>),
    Threads(Box<Threads>),
    Sim(Box<Port>),
}

impl Disk {
    pub(crate) fn world(&self) -> World {
        match self {
            Disk::Uring(_) => World::Uring,
            Disk::Threads(_) => World::Threads,
            Disk::Sim(_) => World::Sim,
        }
    }
}

/// What has happened and was not looked at, per seat; `None` of a seat that was left.
#[derive(Default)]
struct Inboxes {
    seats: Vec<Option<Vec<Event>>>,
    /// Events ever put in.
    arrived: u64,
}

impl Seat {
    fn tag(self, token: u64) -> u64 {
        u64::from(self.0) << TOKENS_MAX.count_ones() | token
    }

    fn of(tagged: u64) -> (Seat, u64) {
        let seat = (tagged >> TOKENS_MAX.count_ones()) as u16;
        (Seat(seat), tagged & TOKENS_MAX)
    }
}

impl Inboxes {
    fn completion(&mut self, tagged: u64, result: OpResult) {
        let (seat, token) = Seat::of(tagged);
        self.put(seat, Event::Completion { token, result });
    }

    fn put(&mut self, seat: Seat, event: Event) {
        self.arrived += 1;
        // What a seat had in flight when it was left is nobody's any more.
        if let Some(inbox) = &mut self.seats[usize::from(seat.0)] {
            inbox.push(event);
        }
    }

    fn of(&mut self, seat: Seat) -> &mut Vec<Event> {
        let inbox = self.seats[usize::from(seat.0)].as_mut();
        inbox.expect("a seat is left once, by its reactor's end")
    }
}

impl Hub {
    pub(crate) fn new(disk: Disk, bell: Arc<Bell>) -> Hub {
        Hub {
            disk,
            bell,
            timers: Timers::default(),
            pool: Pool::default(),
            inboxes: Inboxes::default(),
            delivered: Vec::new(),
            submissions: 0,
            completions: 0,
            sleeps: 0,
            ledger: None,
        }
    }

    /// A new place. Numbers are not given twice, as something of the former owner may still be in flight.
    pub(crate) fn take_seat(&mut self) -> Seat {
        let seats = &mut self.inboxes.seats;
        let seat = u16::try_from(seats.len()).expect("fewer than 65,536 cores ever share a thread");
        seats.push(Some(Vec::new()));
        Seat(seat)
    }

    pub(crate) fn leave_seat(&mut self, seat: Seat) {
        self.inboxes.seats[usize::from(seat.0)] = None;
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    pub(crate) fn now(&self) -> Tick {
        match &self.disk {
            Disk::Sim(port) => port.now(),
            _ => time::monotonic(),
        }
    }

    pub(crate) fn wall_ms(&self) -> i64 {
        match &self.disk {
            Disk::Sim(port) => port.wall_ms(),
            _ => time::wall_ms(),
        }
    }

    pub(crate) fn cpu_time(&self) -> Duration {
        match &self.disk {
            Disk::Sim(port) => port.now().since(Tick::ZERO),
            _ => time::thread_cpu(),
        }
    }

    /// A simulated machine without power.
    pub(crate) fn is_off(&self) -> bool {
        matches!(&self.disk, Disk::Sim(port) if port.is_off())
    }

    pub(crate) fn stats(&self) -> Stats {
        let ring = match &self.disk {
            Disk::Uring(uring) => uring.stats(),
            _ => Stats::default(),
        };
        Stats {
            submissions: self.submissions,
            completions: self.completions,
            sleeps: self.sleeps,
            ..ring
        }
    }

    pub(crate) fn reader(&mut self, file: File) -> Reader {
        Reader(match &mut self.disk {
            Disk::Uring(uring) => Source::Fd(uring.descriptor(file)),
            Disk::Threads(threads) => Source::Fd(threads.descriptor(file)),
            Disk::Sim(port) => Source::Sim(port.reader(file)),
        })
    }

    pub(crate) fn in_flight(&self) -> usize {
        match &self.disk {
            Disk::Uring(uring) => uring.in_flight(),
            Disk::Threads(threads) => threads.in_flight(),
            Disk::Sim(port) => port.in_flight(),
        }
    }

    pub(crate) fn submit(&mut self, seat: Seat, op: Op, token: u64) {
        assert!(
            self.in_flight() < OPERATIONS_MAX,
            "too many operations in flight"
        );
        self.submissions += 1;
        let token = seat.tag(token);
        match &mut self.disk {
            Disk::Uring(uring) => uring.submit(token, op),
            Disk::Threads(threads) => threads.submit(token, op),
            Disk::Sim(port) => port.submit(token, op),
        }
    }

    pub(crate) fn flush(&mut self) {
        if let Disk::Uring(uring) = &mut self.disk {
            uring.flush();
        }
    }

    pub(crate) fn set_timer(&mut self, seat: Seat, at: Tick, token: u64) {
        self.timers.set(at, seat.tag(token));
    }

    pub(crate) fn cancel_timer(&mut self, seat: Seat, token: u64) -> bool {
        self.timers.cancel(seat.tag(token))
    }

    pub(crate) fn has_events(&self, seat: Seat) -> bool {
        let inbox = self.inboxes.seats[usize::from(seat.0)].as_ref();
        inbox.is_some_and(|inbox| !inbox.is_empty())
    }

    /// Appends what is in the inbox.
    pub(crate) fn take(&mut self, seat: Seat, events: &mut Vec<Event>) {
        events.append(self.inboxes.of(seat));
    }

    /// Puts events back that were taken too early, in front.
    pub(crate) fn put_back(&mut self, seat: Seat, events: Vec<Event>) {
        self.inboxes.of(seat).splice(0..0, events);
    }

    /// Turns the world until there is something in the inbox of the seat or `until` has passed.
    pub(crate) fn turn(&mut self, seat: Seat, until: Option<Tick>) {
        let until = match self.has_events(seat) {
            true => Some(Tick::ZERO),
            false => until,
        };
        self.turn_while(seat, until, 1, |hub| !hub.has_events(seat));
    }

    /// Turns the world until something has arrived for any seat; what was there before does not count. See [`crate::Reactor::wait_for_any`].
    pub(crate) fn turn_for_any(&mut self, seat: Seat, until: Option<Tick>, together: usize) {
        let before = self.inboxes.arrived;
        self.turn_while(seat, until, together, |hub| hub.inboxes.arrived == before);
    }

    /// One or more turns of the world until `waits` is over or `until` has passed. Rings of the bell go to the seat.
    fn turn_while(
        &mut self,
        seat: Seat,
        until: Option<Tick>,
        together: usize,
        waits: impl Fn(&Hub) -> bool,
    ) {
        loop {
            if let Disk::Sim(port) = &mut self.disk
                && port.is_off()
            {
                port.pass(until);
                return;
            }
            let now = self.now();
            while let Some(tagged) = self.timers.pop_due(now) {
                let (seat, token) = Seat::of(tagged);
                self.inboxes.put(seat, Event::Timer(token));
            }
            let passed = until.is_some_and(|until| until <= now);
            let deadline = match (until, self.timers.next()) {
                (Some(until), Some(timer)) => Some(until.min(timer)),
                (until, timer) => until.or(timer),
            };
            let timeout = if passed || !waits(self) {
                Some(Duration::ZERO)
            } else {
                deadline.map(|deadline| deadline.since(now))
            };
            if timeout != Some(Duration::ZERO) {
                self.sleeps += 1;
            }
            let idle = self.turn_once(seat, timeout, deadline, together);
            if !waits(self) || passed || idle {
                return;
            }
        }
    }

    /// Lets the world act once; true if it can do nothing more on its own (the simulation only).
    fn turn_once(
        &mut self,
        seat: Seat,
        timeout: Option<Duration>,
        deadline: Option<Tick>,
        together: usize,
    ) -> bool {
        let before = self.inboxes.arrived;
        let mut idle = false;
        let bits = match &mut self.disk {
            Disk::Uring(uring) => {
                let bits = uring.turn(timeout, together);
                while let Some((token, result)) = uring.pop() {
                    self.inboxes.completion(token, result);
                }
                bits
            }
            Disk::Threads(threads) => {
                let bits = threads.turn(timeout);
                while let Some((token, result)) = threads.pop() {
                    self.inboxes.completion(token, result);
                }
                bits
            }
            Disk::Sim(port) => {
                let bits = self.bell.take();
                port.deliver(&mut self.delivered);
                if bits == 0 && self.delivered.is_empty() && timeout != Some(Duration::ZERO) {
                    idle = !port.advance(deadline);
                }
                for event in self.delivered.drain(..) {
                    if let Event::Completion { token, result } = event {
                        self.inboxes.completion(token, result);
                    }
                }
                bits
            }
        };
        self.completions += self.inboxes.arrived - before;
        if bits & RUNG != 0 {
            self.inboxes.put(seat, Event::Doorbell);
        }
        idle
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(ledger) = &self.ledger {
            ledger.fetch_add(self.stats().ring_completions, Ordering::Relaxed);
        }
    }
}
