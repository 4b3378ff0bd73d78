//! Pure: which connections may stay, until when, and which one is closed for a new one.
//!
//! A state machine: the front's loop reports what happens and carries out what the machine decides.
//! It knows a connection only by its slot, and has no socket, lock, thread or clock: `now` is an
//! argument of each call and must not decrease. `fuzz/lives.rs` states its promises and tests them
//! with random input.
//!
//! Invariant: each open connection is in exactly one queue, that of its [`Phase`] and
//! [`RequestCount`]. A queue is in the order in which its connections entered the phase. All of
//! them have the same time limit, so the first expires first and has been idle longest. Only
//! [`Admission::excess_unread`], [`Admission::unread_slots`] and [`Admission::is_quiet`] look at
//! more than the first of a queue.

mod limits;
mod phase;
mod queues;

use std::time::{Duration, Instant};

use limits::{
    ARRIVING, HELD_BYTES, IMPATIENCE, KEEP_ALIVE_GRACE, KEEP_ALIVE_PREFERRED, LEAST_GRACE,
    NEW_GRACE, PATIENCE, RECHECK, SMALL_HEAD, UNREAD_BYTES, UNREAD_LEFT, UNREAD_MEASURED,
    UNREAD_OF_ONE,
};
pub(crate) use phase::Phase;
use phase::RequestCount;
use queues::Queues;

/// Whether the connection that waits at the listener can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// After the connection in this slot was closed.
    Evict(usize),
    /// Not yet: ask again at this time, which is later than now, or once a connection was removed.
    WaitUntil(Instant),
}

/// Too many bytes of heads are held, and this connection's is not small.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyHeld;

struct Entry {
    phase: Phase,
    /// When it entered its phase, from which its idle time counts. Further bytes of a partial head
    /// do not change it.
    since: Instant,
    requests: u32,
    /// Bytes of heads.
    held: usize,
    /// Bytes of answers; an upper bound.
    unread: usize,
}

impl Entry {
    const fn count(&self) -> RequestCount {
        match self.requests {
            0 => RequestCount::None,
            1 => RequestCount::One,
            _ => RequestCount::Several,
        }
    }
}

/// The state of all connections of one front.
pub(crate) struct Admission {
    /// The connection limit.
    max_connections: usize,
    /// By slot.
    entries: Vec<Option<Entry>>,
    vacant: Vec<usize>,
    open: usize,
    queues: Queues,
    /// Since when a connection waits at the listener.
    waiting_since: Option<Instant>,
    impatient_until: Option<Instant>,
    /// The sums over all entries.
    held: usize,
    unread: usize,
}

impl Admission {
    /// For at most `max_connections` at one time.
    pub(crate) fn new(max_connections: usize) -> Self {
        Self {
            max_connections,
            entries: Vec::new(),
            vacant: Vec::new(),
            open: 0,
            queues: Queues::default(),
            waiting_since: None,
            impatient_until: None,
            held: 0,
            unread: 0,
        }
    }

    // Connections that come and go.

    /// Whether the connection that waits at the listener can be accepted.
    ///
    /// Evicted first is the longest idle of the new connections past their grace and the keep-alive
    /// ones idle for [`KEEP_ALIVE_PREFERRED`]; then a keep-alive one past its grace. When
    /// [`PATIENCE`] has run out, one within its grace is evicted: a keep-alive one if more than
    /// half of the places are theirs, else a new one.
    pub(crate) fn room(&mut self, now: Instant) -> Room {
        if self.open < self.max_connections {
            return Room::Free;
        }
        if let Some(slot) = self.past_grace(now) {
            return Room::Evict(slot);
        }
        let patient_until = *self.waiting_since.get_or_insert(now) + PATIENCE;
        if now < patient_until && self.impatient_until.is_none_or(|until| until <= now) {
            return Room::WaitUntil(self.next_past_grace().fold(patient_until, Instant::min));
        }
        if let Some(slot) = self.within_grace(now) {
            self.impatient_until = Some(now + IMPATIENCE);
            return Room::Evict(slot);
        }
        let silent = self.longest_idle(RequestCount::None);
        Room::WaitUntil(silent.map_or(now + RECHECK, |(since, _)| since + LEAST_GRACE))
    }

    /// The connection to evict first, of those past their grace.
    fn past_grace(&self, now: Instant) -> Option<usize> {
        let (new, keep_alive) = (self.longest_idle_new(), self.longest_idle(RequestCount::Several));
        let not_preferred =
            [idle_for(new, NEW_GRACE, now), idle_for(keep_alive, KEEP_ALIVE_PREFERRED, now)];
        let first = not_preferred.into_iter().flatten().min();
        first.or_else(|| idle_for(keep_alive, KEEP_ALIVE_GRACE, now)).map(|(_, slot)| slot)
    }

    /// When the next new and the next keep-alive connection will be past their grace.
    fn next_past_grace(&self) -> impl Iterator<Item = Instant> {
        let new = self.longest_idle_new().map(|(since, _)| since + NEW_GRACE);
        let keep_alive =
            self.longest_idle(RequestCount::Several).map(|(since, _)| since + KEEP_ALIVE_GRACE);
        [new, keep_alive].into_iter().flatten()
    }

    /// The connection to evict when all are within their grace. Keep-alive connections are spared
    /// unless they have more than half of the places, so that neither kind can crowd out the other.
    fn within_grace(&self, now: Instant) -> Option<usize> {
        let silent = idle_for(self.longest_idle(RequestCount::None), LEAST_GRACE, now);
        let new = [silent, self.longest_idle(RequestCount::One)].into_iter().flatten().min();
        let keep_alive = self.longest_idle(RequestCount::Several);
        let first = if self.evictable(RequestCount::Several) > self.max_connections / 2 {
            keep_alive.or(new)
        } else {
            new.or(keep_alive)
        };
        first.map(|(_, slot)| slot)
    }

    /// No connection waits at the listener any more.
    pub(crate) const fn none_waiting(&mut self) {
        self.waiting_since = None;
    }

    /// A connection was accepted, after [`room`](Self::room) allowed it; returns its slot.
    pub(crate) fn insert(&mut self, now: Instant) -> usize {
        let slot = self.vacant.pop().unwrap_or(self.entries.len());
        if slot == self.entries.len() {
            self.entries.push(None);
        }
        if let Some(place) = self.entries.get_mut(slot) {
            let (phase, since) = (Phase::Idle, now);
            *place = Some(Entry { phase, since, requests: 0, held: 0, unread: 0 });
        }
        self.open += 1;
        self.waiting_since = None;
        self.queues.push(RequestCount::None, Phase::Idle, slot);
        slot
    }

    /// The connection was closed.
    pub(crate) fn remove(&mut self, slot: usize) {
        if let Some(entry) = self.entries.get_mut(slot).and_then(Option::take) {
            self.queues.remove(entry.count(), entry.phase, slot);
            self.held -= entry.held;
            self.unread -= entry.unread;
            self.open -= 1;
            self.vacant.push(slot);
        }
    }

    /// How many connections are open.
    #[allow(dead_code, reason = "not for the fuzz target, which shares this file")]
    pub(crate) const fn open(&self) -> usize {
        self.open
    }

    /// The connection limit.
    #[allow(dead_code, reason = "not for the fuzz target, which shares this file")]
    pub(crate) const fn limit(&self) -> usize {
        self.max_connections
    }

    // What they are doing.

    /// `None` for a vacant slot.
    pub(crate) fn phase(&self, slot: usize) -> Option<Phase> {
        self.entry(slot).map(|entry| entry.phase)
    }

    /// The connection enters `phase` now, or restarts it. [`Phase::Answering`] counts a request.
    pub(crate) fn set_phase(&mut self, slot: usize, phase: Phase, now: Instant) {
        let Some(entry) = self.entries.get_mut(slot).and_then(Option::as_mut) else { return };
        self.queues.remove(entry.count(), entry.phase, slot);
        entry.phase = phase;
        entry.since = now;
        if phase == Phase::Answering {
            entry.requests = entry.requests.saturating_add(1);
        }
        self.queues.push(entry.count(), phase, slot);
    }

    /// The connection now holds this many bytes of heads.
    pub(crate) fn set_held(&mut self, slot: usize, bytes: usize) -> Result<(), TooManyHeld> {
        let Some(entry) = self.entry_mut(slot) else { return Ok(()) };
        let before = std::mem::replace(&mut entry.held, bytes);
        self.held = self.held - before + bytes;
        if self.held > HELD_BYTES && bytes > SMALL_HEAD { Err(TooManyHeld) } else { Ok(()) }
    }

    // Answers that are not read.

    /// An answer of this many bytes was written to the connection, in full or in part.
    pub(crate) fn add_unread(&mut self, slot: usize, bytes: usize) {
        let unread = self.entry(slot).map_or(0, |entry| entry.unread);
        self.set_unread(slot, unread.saturating_add(bytes).min(UNREAD_OF_ONE));
    }

    /// The measured number of unread bytes of the connection's answers.
    pub(crate) fn set_unread(&mut self, slot: usize, bytes: usize) {
        let Some(entry) = self.entry_mut(slot) else { return };
        let before = std::mem::replace(&mut entry.unread, bytes);
        self.unread = self.unread - before + bytes;
    }

    /// Whether all clients together may have left too much unread. Then each of
    /// [`unread_slots`](Self::unread_slots) has to be measured, and those of
    /// [`excess_unread`](Self::excess_unread) closed.
    pub(crate) const fn is_unread_over(&self) -> bool {
        self.unread > UNREAD_BYTES
    }

    /// The connections that may have left something unread.
    pub(crate) fn unread_slots(&self) -> Vec<usize> {
        self.present().filter(|(_, entry)| entry.unread > 0).map(|(slot, _)| slot).collect()
    }

    /// The connections to close because all clients together leave too much unread, longest idle
    /// first. One that is being answered is not exempt: it has not read its previous answer.
    pub(crate) fn excess_unread(&self) -> Vec<usize> {
        if self.unread <= UNREAD_MEASURED {
            return Vec::new();
        }
        let mut all: Vec<_> = self.present().filter(|(_, entry)| entry.unread > 0).collect();
        all.sort_by_key(|(_, entry)| entry.since);
        let mut left = self.unread;
        let is_excess = |(_, entry): &(usize, &Entry)| {
            let is_excess = left > UNREAD_LEFT;
            left -= entry.unread;
            is_excess
        };
        all.into_iter().take_while(is_excess).map(|(slot, _)| slot).collect()
    }

    /// Bytes of heads that are held, and of answers that may be unread.
    #[allow(dead_code, reason = "for fuzz/lives.rs, which the tests and a fuzz target share")]
    pub(crate) const fn bytes(&self) -> (usize, usize) {
        (self.held, self.unread)
    }

    // Time.

    /// A connection whose time limit has passed, and its phase. Close it, or let it enter another
    /// phase, before the next call.
    pub(crate) fn expired(&self, now: Instant) -> Option<(usize, Phase)> {
        let over = self.deadlines().find(|(over, ..)| *over <= now);
        over.map(|(_, slot, phase)| (slot, phase))
    }

    /// When [`expired`](Self::expired) returns a connection next; `None` without connections.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines().map(|(over, ..)| over).min()
    }

    /// Whether no request is in progress, and no connection so new that one may be on its way.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        self.present().all(|(_, entry)| match entry.phase {
            Phase::Idle => entry.requests > 0 || entry.since + ARRIVING <= now,
            Phase::ReadingHead | Phase::Answering | Phase::Writing => false,
            Phase::Closing | Phase::Refused => true,
        })
    }

    /// The first connection of each queue, and when its time limit passes.
    fn deadlines(&self) -> impl Iterator<Item = (Instant, usize, Phase)> {
        let firsts = RequestCount::ALL.into_iter().flat_map(|count| self.queues.firsts(count));
        firsts.filter_map(|(phase, slot)| {
            let over = self.entry(slot)?.since + phase.time_limit();
            Some((over, slot, phase))
        })
    }

    // What can be evicted: connections in any phase but one.

    /// The connection of `count` that has been idle longest, and since when.
    fn longest_idle(&self, count: RequestCount) -> Option<(Instant, usize)> {
        let firsts = self.queues.firsts(count).filter(|(phase, _)| *phase != Phase::Answering);
        firsts.filter_map(|(_, slot)| Some((self.entry(slot)?.since, slot))).min()
    }

    /// The same for new connections: those that have sent one request or none.
    fn longest_idle_new(&self) -> Option<(Instant, usize)> {
        [RequestCount::None, RequestCount::One]
            .into_iter()
            .filter_map(|count| self.longest_idle(count))
            .min()
    }

    /// How many connections of `count` could be evicted.
    fn evictable(&self, count: RequestCount) -> usize {
        let lengths = self.queues.lengths(count);
        lengths.filter(|(phase, _)| *phase != Phase::Answering).map(|(_, length)| length).sum()
    }

    fn entry(&self, slot: usize) -> Option<&Entry> {
        self.entries.get(slot)?.as_ref()
    }

    fn entry_mut(&mut self, slot: usize) -> Option<&mut Entry> {
        self.entries.get_mut(slot)?.as_mut()
    }

    fn present(&self) -> impl Iterator<Item = (usize, &Entry)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }
}

/// `idle`, if that connection has been idle for at least `grace`.
fn idle_for(
    idle: Option<(Instant, usize)>,
    grace: Duration,
    now: Instant,
) -> Option<(Instant, usize)> {
    idle.filter(|(since, _)| *since + grace <= now)
}

#[cfg(test)]
use super::admission;
#[cfg(test)]
#[path = "../../../fuzz/lives.rs"]
mod lives;

#[cfg(test)]
mod tests;
