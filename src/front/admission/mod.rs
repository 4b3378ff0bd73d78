//! Pure: which connections may stay, until when, and which one is closed for a new one.
//!
//! A state machine that is told what happens and asked what to do. It knows connections by their
//! slot only: no socket, lock, thread or clock; `now` is an argument of each call and must not go
//! backwards. The front obeys it; `fuzz/lives.rs` says what it promises, and drives it at random.
//!
//! Invariant: the connections of one [`Phase`] and kind stand in one queue in the order in which
//! they came into it. Their time limit is the same, so the first of a queue is the first that
//! expires and the longest idle, and no call but [`Admission::most_unread`] and
//! [`Admission::is_quiet`] looks at more than the first of each queue.

use std::time::{Duration, Instant};

/// Between two requests: nginx's `keepalive_timeout` is 75 s.
const IDLE: Duration = Duration::from_secs(60);
/// A head, from its first byte: a few round trips on the slowest path.
const HEAD: Duration = Duration::from_secs(10);
/// From a whole head to its answer. The longest wait is for two exchanges with upstream, each
/// `UPSTREAM_TIMEOUT_SECONDS` (60) at most.
const ANSWER: Duration = Duration::from_secs(150);
/// Between two reads of an answer by a client that is slower than its send buffer: nginx's
/// `send_timeout` is 60 s, for answers of any length.
const UNREAD: Duration = Duration::from_secs(15);
/// After the last answer, until the client has read it and closes.
const CLOSING: Duration = Duration::from_secs(16);
/// After a refusal, so that bytes which are still coming do not reset the connection before the
/// client has read why: RFC 9112 §9.6.
const REFUSED: Duration = Duration::from_millis(300);

/// A new connection is not evicted sooner than this after it came or was answered: its request, or
/// the answer, may be on its way. The longer this is, the fewer connections a second get in when
/// the limit is reached.
const NEW_GRACE: Duration = Duration::from_millis(50);
/// The same for a keep-alive connection.
const KEEP_ALIVE_GRACE: Duration = Duration::from_millis(120);
/// How long after its last request a keep-alive connection is preferred to new ones.
const KEEP_ALIVE_PREFERRED: Duration = Duration::from_secs(5);
/// How long a new connection waits for one whose grace is over. Then the longest idle one is
/// evicted all the same.
const PATIENCE: Duration = Duration::from_millis(60);
/// Once [`PATIENCE`] has run out, later connections skip it for this long: with hundreds waiting,
/// 60 ms each would add up to minutes.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// Even then none that has not asked yet is evicted sooner than this after it came: in a burst of
/// new connections each would be evicted by the next ones before its request is read.
const LEAST_GRACE: Duration = Duration::from_millis(15);
/// When to ask again while every connection is being answered.
const RECHECK: Duration = Duration::from_millis(10);
/// How long a connection that has sent nothing yet holds up the end of the program.
const ARRIVING: Duration = Duration::from_millis(500);

/// Bytes of request heads that all connections together may hold, partial or waiting for their
/// turn. Above that a head of more than [`SMALL_HEAD`] is refused; well-behaved clients send a
/// small one, and at once.
const HELD_BYTES: usize = 3 << 20;
/// Bytes of a head that are taken however many are held.
const SMALL_HEAD: usize = 4 << 10;
/// Bytes of answers that all clients together may leave unread. It is mostly the kernel's memory,
/// and counts against the container's limit.
const UNREAD_BYTES: usize = 8 << 20;
/// What is counted is an upper bound until it is measured. When more than this turns out to be
/// unread connections are closed: below the bound, so that there is not a scan for every answer.
const UNREAD_MEASURED: usize = UNREAD_BYTES / 8 * 7;
/// Low-water mark: the longest idle are closed until this is left.
const UNREAD_LEFT: usize = UNREAD_BYTES / 4 * 3;
/// One connection cannot leave more unread: its send buffer, doubled by the kernel, and one answer.
const UNREAD_OF_ONE: usize = 256 << 10;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No byte of a request has come since the last answer, or since it was accepted.
    Idle,
    /// A part of a head has come.
    ReadingHead,
    /// A worker has the request: never evicted.
    Answering,
    /// The answer is made, and the send buffer had no room for all of it.
    Writing,
    /// The last answer is written, until the client has read it and closes.
    Closing,
    /// Refused, until the client closes; what it still sends is dropped.
    Refused,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Idle,
        Self::ReadingHead,
        Self::Answering,
        Self::Writing,
        Self::Closing,
        Self::Refused,
    ];

    const fn time_limit(self) -> Duration {
        match self {
            Self::Idle => IDLE,
            Self::ReadingHead => HEAD,
            Self::Answering => ANSWER,
            Self::Writing => UNREAD,
            Self::Closing => CLOSING,
            Self::Refused => REFUSED,
        }
    }
}

/// Whether a client has shown that it keeps its connection alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It has not asked yet.
    Silent,
    /// It has asked once.
    New,
    KeepAlive,
}

/// The answer to: may the connection that waits at the listener be accepted?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// When this one is closed.
    Evict(usize),
    /// Not before this time, which is later than now; or when a connection has left.
    WaitUntil(Instant),
}

/// Too many bytes of heads are held, and this connection's is not small.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyHeld;

struct Entry {
    phase: Phase,
    /// When it came into its phase; how long it has been idle, as eviction sees it. Bytes of a
    /// head that come one by one do not count as activity.
    since: Instant,
    requests: u32,
    /// Bytes of heads.
    held: usize,
    /// Bytes of answers; an upper bound.
    unread: usize,
    before: Option<usize>,
    after: Option<usize>,
}

impl Entry {
    const fn kind(&self) -> Kind {
        match self.requests {
            0 => Kind::Silent,
            1 => Kind::New,
            _ => Kind::KeepAlive,
        }
    }
}

/// The connections of one phase and kind, by slot.
#[derive(Clone, Copy, Default)]
struct Queue {
    first: Option<usize>,
    last: Option<usize>,
    length: usize,
}

pub(crate) struct Admission {
    /// The connection limit.
    most: usize,
    entries: Vec<Option<Entry>>,
    vacant: Vec<usize>,
    open: usize,
    /// By phase, as the next two.
    silent: [Queue; Phase::ALL.len()],
    new: [Queue; Phase::ALL.len()],
    keep_alive: [Queue; Phase::ALL.len()],
    /// Since when a connection waits at the listener.
    waiting_since: Option<Instant>,
    impatient_until: Option<Instant>,
    held: usize,
    unread: usize,
}

impl Admission {
    /// For `most` connections at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            entries: Vec::new(),
            vacant: Vec::new(),
            open: 0,
            silent: Default::default(),
            new: Default::default(),
            keep_alive: Default::default(),
            waiting_since: None,
            impatient_until: None,
            held: 0,
            unread: 0,
        }
    }

    /// Asked while a connection waits at the listener. Eviction order: connections past their
    /// grace, longest idle first; then keep-alive ones past theirs; when [`PATIENCE`] has run out,
    /// the longest idle one, of keep-alive ones or of the others, whichever are more.
    pub(crate) fn room(&mut self, now: Instant) -> Room {
        if self.open < self.most {
            return Room::Free;
        }
        let [silent, asked, keep_alive] =
            [Kind::Silent, Kind::New, Kind::KeepAlive].map(|kind| self.longest_idle(kind));
        let new = [silent, asked].into_iter().flatten().min();
        let idle_for =
            |idle: Option<(Instant, usize)>, grace| idle.filter(|(since, _)| *since + grace <= now);
        let not_preferred = [idle_for(new, NEW_GRACE), idle_for(keep_alive, KEEP_ALIVE_PREFERRED)];
        let first = not_preferred.into_iter().flatten().min();
        if let Some((_, slot)) = first.or_else(|| idle_for(keep_alive, KEEP_ALIVE_GRACE)) {
            return Room::Evict(slot);
        }
        let patient_until = *self.waiting_since.get_or_insert(now) + PATIENCE;
        if patient_until <= now || self.impatient_until.is_some_and(|until| now < until) {
            // Neither kind may keep more than half of the places from the other.
            let new = [idle_for(silent, LEAST_GRACE), asked].into_iter().flatten().min();
            let longest_idle = if self.evictable(Kind::KeepAlive) > self.most / 2 {
                keep_alive.or(new)
            } else {
                new.or(keep_alive)
            };
            if let Some((_, slot)) = longest_idle {
                self.impatient_until = Some(now + IMPATIENCE);
                return Room::Evict(slot);
            }
            let next = silent.map_or(now + RECHECK, |(since, _)| since + LEAST_GRACE);
            return Room::WaitUntil(next);
        }
        let over = [
            new.map(|(since, _)| since + NEW_GRACE),
            keep_alive.map(|(since, _)| since + KEEP_ALIVE_GRACE),
        ];
        Room::WaitUntil(over.into_iter().flatten().fold(patient_until, Instant::min))
    }

    /// None waits at the listener any more.
    pub(crate) const fn none_waits(&mut self) {
        self.waiting_since = None;
    }

    /// A connection was accepted, for which there was room; its slot.
    pub(crate) fn enter(&mut self, now: Instant) -> usize {
        let slot = self.vacant.pop().unwrap_or(self.entries.len());
        if slot == self.entries.len() {
            self.entries.push(None);
        }
        if let Some(place) = self.entries.get_mut(slot) {
            let (before, after) = (None, None);
            let (phase, since) = (Phase::Idle, now);
            *place = Some(Entry { phase, since, requests: 0, held: 0, unread: 0, before, after });
        }
        self.open += 1;
        self.waiting_since = None;
        self.link(slot);
        slot
    }

    /// It was closed.
    pub(crate) fn leave(&mut self, slot: usize) {
        self.unlink(slot);
        if let Some(entry) = self.entries.get_mut(slot).and_then(Option::take) {
            self.held -= entry.held;
            self.unread -= entry.unread;
            self.open -= 1;
            self.vacant.push(slot);
        }
    }

    pub(crate) fn phase(&self, slot: usize) -> Option<Phase> {
        self.entry(slot).map(|entry| entry.phase)
    }

    /// It comes into `phase` now, or begins it again.
    pub(crate) fn set(&mut self, slot: usize, phase: Phase, now: Instant) {
        self.unlink(slot);
        if let Some(entry) = self.entry_mut(slot) {
            entry.phase = phase;
            entry.since = now;
            if phase == Phase::Answering {
                entry.requests = entry.requests.saturating_add(1);
            }
        }
        self.link(slot);
    }

    /// It holds so many bytes of heads now.
    pub(crate) fn hold(&mut self, slot: usize, bytes: usize) -> Result<(), TooManyHeld> {
        let Some(entry) = self.entry_mut(slot) else { return Ok(()) };
        let before = std::mem::replace(&mut entry.held, bytes);
        self.held = self.held - before + bytes;
        if self.held > HELD_BYTES && bytes > SMALL_HEAD { Err(TooManyHeld) } else { Ok(()) }
    }

    /// It was given an answer of so many bytes.
    pub(crate) fn owe(&mut self, slot: usize, bytes: usize) {
        let unread = self.entry(slot).map_or(0, |entry| entry.unread);
        self.measured(slot, unread.saturating_add(bytes).min(UNREAD_OF_ONE));
    }

    /// So many bytes of its answers are unread.
    pub(crate) fn measured(&mut self, slot: usize, bytes: usize) {
        let Some(entry) = self.entry_mut(slot) else { return };
        let before = std::mem::replace(&mut entry.unread, bytes);
        self.unread = self.unread - before + bytes;
    }

    /// Whether all clients together may have left too much unread: then each is to be
    /// [`measured`](Self::measured), and the [`most_unread`](Self::most_unread) closed.
    pub(crate) const fn is_unread_over(&self) -> bool {
        self.unread > UNREAD_BYTES
    }

    /// Who may have left something unread.
    pub(crate) fn owing(&self) -> Vec<usize> {
        self.present().filter(|(_, entry)| entry.unread > 0).map(|(slot, _)| slot).collect()
    }

    /// Who is to be closed for what all clients together leave unread: the longest idle first. One
    /// that is being answered is among the last, but not safe: it has not read the answer before.
    pub(crate) fn most_unread(&self) -> Vec<usize> {
        if self.unread <= UNREAD_MEASURED {
            return Vec::new();
        }
        let mut all: Vec<_> = self.present().filter(|(_, entry)| entry.unread > 0).collect();
        all.sort_by_key(|(_, entry)| entry.since);
        let mut left = self.unread;
        let goes = |(_, entry): &(usize, &Entry)| {
            let goes = left > UNREAD_LEFT;
            left -= entry.unread;
            goes
        };
        all.into_iter().take_while(goes).map(|(slot, _)| slot).collect()
    }

    /// Bytes of heads that are held, and of answers that may be unread.
    #[allow(dead_code, reason = "for fuzz/lives.rs, which the tests and a fuzz target share")]
    pub(crate) const fn bytes(&self) -> (usize, usize) {
        (self.held, self.unread)
    }

    /// A connection whose time in its phase is over, which must be closed or come into another
    /// phase before this is asked again.
    pub(crate) fn expired(&self, now: Instant) -> Option<(usize, Phase)> {
        let over = self.limits().find(|(over, ..)| *over <= now);
        over.map(|(_, slot, phase)| (slot, phase))
    }

    /// When [`expired`](Self::expired) has the next one; none without connections.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.limits().map(|(over, ..)| over).min()
    }

    /// Whether nothing is under way: no request, and no connection that has only just come.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        self.present().all(|(_, entry)| match entry.phase {
            Phase::Idle => entry.requests > 0 || entry.since + ARRIVING <= now,
            Phase::ReadingHead | Phase::Answering | Phase::Writing => false,
            Phase::Closing | Phase::Refused => true,
        })
    }

    /// The end of the time of the first of each queue.
    fn limits(&self) -> impl Iterator<Item = (Instant, usize, Phase)> {
        let kinds = [&self.silent, &self.new, &self.keep_alive];
        kinds.into_iter().flatten().filter_map(|queue| {
            let slot = queue.first?;
            let entry = self.entry(slot)?;
            Some((entry.since + entry.phase.time_limit(), slot, entry.phase))
        })
    }

    /// The longest idle connection of a kind, and since when. One that is being answered is not
    /// idle.
    fn longest_idle(&self, kind: Kind) -> Option<(Instant, usize)> {
        let firsts = Phase::ALL.into_iter().zip(self.queues(kind));
        firsts
            .filter(|(phase, _)| *phase != Phase::Answering)
            .filter_map(|(_, queue)| Some((self.entry(queue.first?)?.since, queue.first?)))
            .min()
    }

    /// How many connections of a kind are not being answered.
    fn evictable(&self, kind: Kind) -> usize {
        let queues = Phase::ALL.into_iter().zip(self.queues(kind));
        queues.filter(|(phase, _)| *phase != Phase::Answering).map(|(_, queue)| queue.length).sum()
    }

    const fn queues(&self, kind: Kind) -> &[Queue; Phase::ALL.len()] {
        match kind {
            Kind::Silent => &self.silent,
            Kind::New => &self.new,
            Kind::KeepAlive => &self.keep_alive,
        }
    }

    fn queue_mut(&mut self, phase: Phase, kind: Kind) -> &mut Queue {
        let [idle, reading_head, answering, writing, closing, refused] = match kind {
            Kind::Silent => &mut self.silent,
            Kind::New => &mut self.new,
            Kind::KeepAlive => &mut self.keep_alive,
        };
        match phase {
            Phase::Idle => idle,
            Phase::ReadingHead => reading_head,
            Phase::Answering => answering,
            Phase::Writing => writing,
            Phase::Closing => closing,
            Phase::Refused => refused,
        }
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

    /// Puts it at the end of its queue.
    fn link(&mut self, slot: usize) {
        let Some(entry) = self.entry(slot) else { return };
        let queue = self.queue_mut(entry.phase, entry.kind());
        let before = queue.last.replace(slot);
        queue.length += 1;
        match before {
            None => queue.first = Some(slot),
            Some(before) => {
                if let Some(before) = self.entry_mut(before) {
                    before.after = Some(slot);
                }
            }
        }
        if let Some(entry) = self.entry_mut(slot) {
            (entry.before, entry.after) = (before, None);
        }
    }

    /// Takes it out of its queue.
    fn unlink(&mut self, slot: usize) {
        let Some(entry) = self.entry(slot) else { return };
        let (before, after) = (entry.before, entry.after);
        let queue = self.queue_mut(entry.phase, entry.kind());
        queue.length -= 1;
        if before.is_none() {
            queue.first = after;
        }
        if after.is_none() {
            queue.last = before;
        }
        if let Some(before) = before.and_then(|before| self.entry_mut(before)) {
            before.after = after;
        }
        if let Some(after) = after.and_then(|after| self.entry_mut(after)) {
            after.before = before;
        }
    }
}

#[cfg(test)]
use super::admission;
#[cfg(test)]
#[path = "../../../fuzz/lives.rs"]
mod lives;

#[cfg(test)]
mod tests;
