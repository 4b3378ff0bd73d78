//! Random lives of the admission machine, on a simulated clock: what a listener and its clients may
//! do, in any order, and what must hold after each step.
//!
//! Driven by random bytes in the unit tests of `src/front/admission/mod.rs`, and by the fuzz target
//! `admission`. The driver does as the front does and no more: it asks for room before it accepts,
//! obeys what it is told, and keeps a simple model of its own of who does what.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::admission::{Admission, Phase, Room, TooManyHeld};

const MS: Duration = Duration::from_millis(1);
/// What docs/limits.md promises; the machine's own constants are not looked at.
const NEW_GRACE: Duration = Duration::from_millis(50);
const KEEP_ALIVE_GRACE: Duration = Duration::from_millis(120);
const PREFERRED: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_millis(60);
const IMPATIENCE: Duration = Duration::from_secs(1);
const LEAST_GRACE: Duration = Duration::from_millis(15);
const HELD: usize = 3 << 20;
const SMALL: usize = 4 << 10;
const UNREAD: usize = 8 << 20;
/// What may be left of it when it has been measured.
const MEASURED: usize = 7 << 20;
/// An answer is made within this time, and nobody else keeps a place that cannot be taken.
const SLOWEST_ANSWER: Duration = Duration::from_millis(400);

/// What the model knows of a connection.
struct Client {
    phase: Phase,
    since: Instant,
    requests: u32,
    held: usize,
    unread: usize,
}

struct World<I> {
    bytes: I,
    now: Instant,
    most: usize,
    /// No client reads its answers or sends more of its head, and none leaves by itself: only so do
    /// bytes add up.
    hostile: bool,
    admission: Admission,
    clients: BTreeMap<usize, Client>,
    /// Since when a connection waits at the listener.
    waiting: Option<Instant>,
    /// When the machine said that it should be asked again.
    ask_at: Option<Instant>,
    /// When a connection was last evicted within its grace.
    forced: Option<Instant>,
}

/// Lives as long as there are bytes; returns how many steps it took.
pub(crate) fn live(bytes: impl Iterator<Item = u8>) -> usize {
    let mut bytes = bytes;
    let kind = bytes.next().unwrap_or_default();
    let hostile = kind % 2 == 1;
    let most = if hostile { 300 } else { 1 + usize::from(kind / 2 % 32) };
    let mut world = World {
        bytes,
        now: Instant::now(),
        most,
        hostile,
        admission: Admission::new(most),
        clients: BTreeMap::new(),
        waiting: None,
        ask_at: None,
        forced: None,
    };
    let mut steps = 0;
    while let Some(what) = world.bytes.next() {
        world.step(what);
        steps += 1;
    }
    world.end();
    steps
}

impl<I: Iterator<Item = u8>> World<I> {
    fn below(&mut self, limit: usize) -> usize {
        let high = self.bytes.next().unwrap_or_default();
        let low = self.bytes.next().unwrap_or_default();
        usize::from(u16::from_be_bytes([high, low])) % limit.max(1)
    }

    fn step(&mut self, what: u8) {
        match what % 16 {
            0 => self.pass(5000),
            1..=3 => self.pass(12),
            4..=7 => {
                self.waiting.get_or_insert(self.now);
            }
            _ => self.act(),
        }
        self.accept();
        self.answers_come();
        self.check();
    }

    /// Some time passes, but never past the moment at which the machine wants to be asked.
    fn pass(&mut self, most: usize) {
        let end = self.now + MS * u32::try_from(self.below(most)).unwrap_or_default();
        while self.now < end {
            let answer = self.clients.values().filter(|client| client.phase == Phase::Answering);
            let answer = answer.map(|client| client.since + SLOWEST_ANSWER).min();
            let times = [self.admission.deadline(), self.ask_at, answer, Some(end)];
            let next = times.into_iter().flatten().min().unwrap_or(end);
            self.now = next.max(self.now);
            self.answers_come();
            self.accept();
            self.expire();
            if next == end {
                break;
            }
        }
    }

    /// Whoever waits is accepted when there is room; one who has just been, and others behind.
    fn accept(&mut self) {
        while let Some(since) = self.waiting {
            if self.ask_at.is_some_and(|at| self.now < at) {
                return;
            }
            match self.admission.room(self.now) {
                Room::WaitUntil(at) => {
                    assert!(at > self.now, "a wait that is over");
                    self.ask_at = Some(at);
                    let waited = self.now.saturating_duration_since(since);
                    let can_go = |client: &Client| {
                        let idle = self.now.saturating_duration_since(client.since);
                        let may_speak = client.requests == 0 && idle < LEAST_GRACE;
                        client.phase != Phase::Answering && !may_speak
                    };
                    let none_can = !self.clients.values().any(can_go);
                    assert!(waited < PATIENCE || none_can, "waited for {waited:?}");
                    return;
                }
                Room::Evict(slot) => {
                    self.may_be_evicted(slot, since);
                    self.leave(slot);
                }
                Room::Free => assert!(self.clients.len() < self.most, "over the limit"),
            }
            let slot = self.admission.insert(self.now);
            let (phase, since) = (Phase::Idle, self.now);
            let client = Client { phase, since, requests: 0, held: 0, unread: 0 };
            assert!(self.clients.insert(slot, client).is_none(), "one slot for two");
            self.waiting = None;
            self.admission.none_waiting();
        }
    }

    fn may_be_evicted(&mut self, slot: usize, waiting_since: Instant) {
        assert_eq!(self.clients.len(), self.most, "evicted where there is room");
        let client = self.clients.get(&slot).expect("evicted twice");
        assert_ne!(client.phase, Phase::Answering, "evicted while it is being answered");
        let idle = |client: &Client| self.now.saturating_duration_since(client.since);
        if client.requests > 1 && idle(client) < PREFERRED {
            for other in self.clients.values() {
                let over = other.requests <= 1 && idle(other) >= NEW_GRACE;
                assert!(!over || other.phase == Phase::Answering, "a keep-alive one before a new");
            }
        }
        let grace = if client.requests > 1 { KEEP_ALIVE_GRACE } else { NEW_GRACE };
        let could_speak = client.requests > 0 || idle(client) >= LEAST_GRACE;
        assert!(could_speak, "evicted before it could speak");
        if idle(client) < grace {
            let waited = self.now.saturating_duration_since(waiting_since) >= PATIENCE;
            let goes_on = self.forced.is_some_and(|forced| self.now < forced + IMPATIENCE);
            assert!(waited || goes_on, "evicted within its grace, with patience left");
            self.forced = Some(self.now);
        }
    }

    /// Some client, or the network, does something.
    fn act(&mut self) {
        let (number, what) = (self.below(512), self.below(8));
        let Some(slot) = self.clients.keys().copied().cycle().nth(number) else { return };
        let phase = self.clients.get(&slot).map(|client| client.phase);
        match (phase, what) {
            (_, 0) if !self.hostile => self.leave(slot),
            (Some(Phase::ReadingHead), _) if self.hostile && what > 2 => {}
            (Some(Phase::Idle | Phase::ReadingHead), 1 | 2) => {
                let held = self.below(18 << 10) + 1;
                self.read(slot, held);
            }
            (Some(Phase::Idle | Phase::ReadingHead), _) => {
                // What is left of a pipeline is held beside the request.
                let left = if what == 3 { self.below(2 << 10) } else { 0 };
                assert!(self.hold(slot, left).is_ok(), "a small one is too much");
                self.set(slot, Phase::Answering);
            }
            (Some(Phase::Answering), _) => self.answer(slot, what),
            (Some(Phase::Writing), 1 | 2) => self.set(slot, Phase::Writing),
            (Some(Phase::Writing), _) => self.set(slot, Phase::Idle),
            (Some(Phase::Closing | Phase::Refused), _) if self.hostile => {}
            (Some(Phase::Closing | Phase::Refused), _) => self.leave(slot),
            (None, _) => {}
        }
    }

    fn read(&mut self, slot: usize, held: usize) {
        let others: usize = self.sum(|client| client.held) - self.of(slot).held;
        let outcome = self.hold(slot, held);
        assert_eq!(outcome.is_err(), others + held > HELD && held > SMALL, "{others} and {held}");
        if outcome.is_err() {
            self.refuse(slot);
        } else if self.of(slot).phase == Phase::Idle {
            self.set(slot, Phase::ReadingHead);
        }
    }

    fn answer(&mut self, slot: usize, what: usize) {
        let bytes = self.below(1 << 16) * 2;
        self.admission.add_unread(slot, bytes);
        // The most that a send buffer and one answer are.
        let unread = &mut self.clients.get_mut(&slot).expect("a client").unread;
        *unread = (*unread + bytes).min(256 << 10);
        self.set(
            slot,
            match what {
                1 => Phase::Writing,
                2 => Phase::Closing,
                _ => Phase::Idle,
            },
        );
        if self.sum(|client| client.unread) > UNREAD {
            self.too_much_is_unread();
        }
    }

    /// Some clients turn out to have read; then the machine says who goes.
    fn too_much_is_unread(&mut self) {
        assert!(self.admission.is_unread_over());
        let share = if self.hostile { 3 } else { self.below(4) };
        for slot in self.admission.unread_slots() {
            let unread = &mut self.clients.get_mut(&slot).expect("a client").unread;
            assert!(*unread > 0, "measured for nothing");
            *unread = *unread * share / 3;
            self.admission.set_unread(slot, *unread);
        }
        let was_over = self.sum(|client| client.unread) > MEASURED;
        let mut latest = None;
        for slot in self.admission.excess_unread() {
            assert!(was_over, "closed for nothing");
            let Client { since, unread, .. } = *self.of(slot);
            assert!(unread > 0, "closed for what others left");
            assert!(latest <= Some(since), "not the longest idle first");
            latest = Some(since);
            self.leave(slot);
        }
        assert!(self.sum(|client| client.unread) <= MEASURED, "too much is left");
    }

    /// A worker never takes longer than this.
    fn answers_come(&mut self) {
        let due = |client: &Client| {
            client.phase == Phase::Answering && client.since + SLOWEST_ANSWER <= self.now
        };
        let due: Vec<_> =
            self.clients.iter().filter(|(_, it)| due(it)).map(|(slot, _)| *slot).collect();
        for slot in due {
            // It may have been closed for what was left unread meanwhile.
            if self.clients.contains_key(&slot) {
                self.answer(slot, 3);
            }
        }
    }

    fn expire(&mut self) {
        while let Some((slot, phase)) = self.admission.expired(self.now) {
            let client = self.of(slot);
            let time = self.now.saturating_duration_since(client.since);
            assert_eq!(phase, client.phase);
            let (least, refused) = match phase {
                Phase::Idle => (MS * 60_000, false),
                Phase::ReadingHead => (MS * 10_000, true),
                Phase::Answering => (MS * 150_000, false),
                Phase::Writing => (MS * 15_000, false),
                Phase::Closing => (MS * 16_000, false),
                Phase::Refused => (MS * 300, false),
            };
            assert!(time >= least, "{phase:?} ended after {time:?}");
            if refused { self.refuse(slot) } else { self.leave(slot) }
        }
    }

    fn refuse(&mut self, slot: usize) {
        assert!(self.hold(slot, 0).is_ok());
        self.set(slot, Phase::Refused);
    }

    fn hold(&mut self, slot: usize, held: usize) -> Result<(), TooManyHeld> {
        self.clients.get_mut(&slot).expect("a client").held = held;
        self.admission.set_held(slot, held)
    }

    fn set(&mut self, slot: usize, phase: Phase) {
        self.admission.set_phase(slot, phase, self.now);
        let client = self.clients.get_mut(&slot).expect("a client");
        client.requests += u32::from(phase == Phase::Answering);
        (client.phase, client.since) = (phase, self.now);
    }

    fn leave(&mut self, slot: usize) {
        self.admission.remove(slot);
        assert!(self.clients.remove(&slot).is_some(), "left twice");
        self.ask_at = None;
    }

    fn of(&self, slot: usize) -> &Client {
        self.clients.get(&slot).expect("a client")
    }

    fn sum(&self, part: impl Fn(&Client) -> usize) -> usize {
        self.clients.values().map(part).sum()
    }

    /// What holds at any time.
    fn check(&self) {
        assert!(self.clients.len() <= self.most);
        for (slot, client) in &self.clients {
            assert_eq!(self.admission.phase(*slot), Some(client.phase));
        }
        let (held, unread) = (self.sum(|client| client.held), self.sum(|client| client.unread));
        assert_eq!(self.admission.bytes(), (held, unread), "bytes held, and unread");
        assert_eq!(self.admission.deadline().is_none(), self.clients.is_empty());
        let busy = |client: &Client| {
            matches!(client.phase, Phase::ReadingHead | Phase::Answering | Phase::Writing)
        };
        if self.clients.values().any(busy) {
            assert!(!self.admission.is_quiet(self.now), "quiet with a request under way");
        }
    }

    /// Time goes on, and nobody does anything any more: all leave by themselves, and leave nothing.
    fn end(mut self) {
        self.waiting = None;
        self.ask_at = None;
        for _ in 0..3 {
            self.now += MS * 151_000;
            self.answers_come();
            self.expire();
        }
        assert!(self.clients.is_empty(), "{} are still there", self.clients.len());
        self.check();
        assert!(self.admission.is_quiet(self.now));
        assert!(matches!(self.admission.room(self.now), Room::Free));
    }
}
