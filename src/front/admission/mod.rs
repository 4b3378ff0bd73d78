//! Pure: which connections may stay, until when, and which one is closed for a new one.
//!
//! A state machine that is told what happens and says what to do. It knows connections by their slot
//! only: no socket, lock, thread or clock. `now` is an argument of each call and must not decrease.
//! The front's loop carries out what it says; `fuzz/lives.rs` states its promises, and drives it at
//! random.
//!
//! Invariant: each open connection is in exactly one queue, that of its [`Phase`] and [`Kind`], in the
//! order in which they entered the phase. All of a queue have the same time limit, so the first one
//! expires first and has been idle longest. Only [`Admission::excess_unread`],
//! [`Admission::unread_slots`] and [`Admission::is_quiet`] look at more than the first of each queue.

mod limits;
mod phase;
mod queues;

use std::time::{Duration, Instant};

use limits::{
    ARRIVING, HELD_BYTES, IMPATIENCE, KEEP_ALIVE_GRACE, KEEP_ALIVE_PREFERRED, LEAST_GRACE,
    NEW_GRACE, PATIENCE, RECHECK, SMALL_HEAD, UNREAD_BYTES, UNREAD_LEFT, UNREAD_MEASURED,
    UNREAD_OF_ONE,
};
use phase::Kind;
pub(crate) use phase::Phase;
use queues::Queues;

/// Whether the connection that waits at the listener can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// After the connection in this slot was closed.
    Evict(usize),
    /// Not before this time, which is later than now, or before a connection has been removed.
    WaitUntil(Instant),
}

/// Too many bytes of heads are held, and this connection's is not small.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyHeld;

struct Entry {
    phase: Phase,
    /// Since when it has been in its phase, and so how long it has been idle. Single bytes of a head
    /// do not count as activity.
    since: Instant,
    requests: u32,
    /// Bytes of heads.
    held: usize,
    /// Bytes of answers; an upper bound.
    unread: usize,
}

impl Entry {
    const fn kind(&self) -> Kind {
        match self.requests {
            0 => Kind::None,
            1 => Kind::One,
            _ => Kind::More,
        }
    }
}

pub(crate) struct Admission {
    /// The connection limit.
    most: usize,
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
    /// For at most `most` connections at one time.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
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

    /// Called while a connection waits at the listener.
    ///
    /// Eviction order: connections past their grace, longest idle first; then keep-alive ones past
    /// theirs; when [`PATIENCE`] has run out, the one idle longest, of keep-alive connections or of
    /// the others, whichever are more.
    pub(crate) fn room(&mut self, now: Instant) -> Room {
        if self.open < self.most {
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
        let silent = self.longest_idle(Kind::None);
        Room::WaitUntil(silent.map_or(now + RECHECK, |(since, _)| since + LEAST_GRACE))
    }

    /// The connection to evict first, of those past their grace.
    fn past_grace(&self, now: Instant) -> Option<usize> {
        let (new, keep_alive) = (self.longest_idle_new(), self.longest_idle(Kind::More));
        let not_preferred =
            [idle_for(new, NEW_GRACE, now), idle_for(keep_alive, KEEP_ALIVE_PREFERRED, now)];
        let first = not_preferred.into_iter().flatten().min();
        first.or_else(|| idle_for(keep_alive, KEEP_ALIVE_GRACE, now)).map(|(_, slot)| slot)
    }

    /// When a connection will be past its grace.
    fn next_past_grace(&self) -> impl Iterator<Item = Instant> {
        let new = self.longest_idle_new().map(|(since, _)| since + NEW_GRACE);
        let keep_alive = self.longest_idle(Kind::More).map(|(since, _)| since + KEEP_ALIVE_GRACE);
        [new, keep_alive].into_iter().flatten()
    }

    /// The connection to evict when all are within their grace. Neither keep-alive connections nor
    /// the others can keep more than half of the places from each other.
    fn within_grace(&self, now: Instant) -> Option<usize> {
        let silent = idle_for(self.longest_idle(Kind::None), LEAST_GRACE, now);
        let new = [silent, self.longest_idle(Kind::One)].into_iter().flatten().min();
        let keep_alive = self.longest_idle(Kind::More);
        let first = if self.evictable(Kind::More) > self.most / 2 {
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
        self.queues.push(Kind::None, Phase::Idle, slot);
        slot
    }

    /// The connection was closed.
    pub(crate) fn remove(&mut self, slot: usize) {
        if let Some(entry) = self.entries.get_mut(slot).and_then(Option::take) {
            self.queues.remove(entry.kind(), entry.phase, slot);
            self.held -= entry.held;
            self.unread -= entry.unread;
            self.open -= 1;
            self.vacant.push(slot);
        }
    }

    // What they are doing.

    /// `None` for a vacant slot.
    pub(crate) fn phase(&self, slot: usize) -> Option<Phase> {
        self.entry(slot).map(|entry| entry.phase)
    }

    /// The connection enters `phase` now, or starts it again.
    pub(crate) fn set_phase(&mut self, slot: usize, phase: Phase, now: Instant) {
        let Some(entry) = self.entries.get_mut(slot).and_then(Option::as_mut) else { return };
        self.queues.remove(entry.kind(), entry.phase, slot);
        entry.phase = phase;
        entry.since = now;
        if phase == Phase::Answering {
            entry.requests = entry.requests.saturating_add(1);
        }
        self.queues.push(entry.kind(), phase, slot);
    }

    /// The connection now holds this many bytes of heads.
    pub(crate) fn set_held(&mut self, slot: usize, bytes: usize) -> Result<(), TooManyHeld> {
        let Some(entry) = self.entry_mut(slot) else { return Ok(()) };
        let before = std::mem::replace(&mut entry.held, bytes);
        self.held = self.held - before + bytes;
        if self.held > HELD_BYTES && bytes > SMALL_HEAD { Err(TooManyHeld) } else { Ok(()) }
    }

    // Answers that are not read.

    /// An answer of this many bytes was written to the connection, or is to be.
    pub(crate) fn add_unread(&mut self, slot: usize, bytes: usize) {
        let unread = self.entry(slot).map_or(0, |entry| entry.unread);
        self.set_unread(slot, unread.saturating_add(bytes).min(UNREAD_OF_ONE));
    }

    /// Of the answers to the connection this many bytes are unread.
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

    /// The connections to close because all clients together leave too much unread: those idle longest
    /// first. One that is being answered is among the last, but not exempt: it has not read the
    /// answer before.
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

    /// A connection whose time in its phase is over. It must be closed, or enter another phase, before
    /// this is called again.
    pub(crate) fn expired(&self, now: Instant) -> Option<(usize, Phase)> {
        let over = self.deadlines().find(|(over, ..)| *over <= now);
        over.map(|(_, slot, phase)| (slot, phase))
    }

    /// When [`expired`](Self::expired) will have the next one; `None` without connections.
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

    /// When the time of the first of each queue is over.
    fn deadlines(&self) -> impl Iterator<Item = (Instant, usize, Phase)> {
        let firsts = Kind::ALL.into_iter().flat_map(|kind| self.queues.firsts(kind));
        firsts.filter_map(|(phase, slot)| {
            let over = self.entry(slot)?.since + phase.time_limit();
            Some((over, slot, phase))
        })
    }

    // What can be evicted: connections in any phase but one.

    /// The connection of `kind` that has been idle longest, and since when.
    fn longest_idle(&self, kind: Kind) -> Option<(Instant, usize)> {
        let firsts = self.queues.firsts(kind).filter(|(phase, _)| *phase != Phase::Answering);
        firsts.filter_map(|(_, slot)| Some((self.entry(slot)?.since, slot))).min()
    }

    /// The same for all that are not keep-alive connections.
    fn longest_idle_new(&self) -> Option<(Instant, usize)> {
        [Kind::None, Kind::One].into_iter().filter_map(|kind| self.longest_idle(kind)).min()
    }

    /// How many connections of `kind` could be evicted.
    fn evictable(&self, kind: Kind) -> usize {
        let lengths = self.queues.lengths(kind);
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

/// `idle`, if it has been so for at least `grace`.
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
