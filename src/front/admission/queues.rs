//! Pure: the connections of each phase and count, in the order in which they entered it.
//!
//! Linked lists through one vector, which allocates only when it grows. With the standard library's
//! ordered sets, the static binary used about a tenth more CPU time, because threads wait for the
//! lock of musl's malloc (`bench/compare`).
//!
//! Invariant: a slot is in at most one queue.

use super::phase::{Phase, RequestCount};

/// A list of slots: its ends, and how many there are.
#[derive(Clone, Copy, Default)]
struct Queue {
    first: Option<usize>,
    last: Option<usize>,
    length: usize,
}

/// The neighbours of a slot in its queue.
#[derive(Clone, Copy, Default)]
struct Link {
    before: Option<usize>,
    after: Option<usize>,
}

#[derive(Default)]
pub(super) struct Queues {
    /// By slot.
    links: Vec<Link>,
    queues: ByCount,
}

/// One queue for each phase, in the order of [`Phase::ALL`].
type ByPhase = [Queue; Phase::ALL.len()];

#[derive(Default)]
struct ByCount {
    none: ByPhase,
    one: ByPhase,
    several: ByPhase,
}

impl Queues {
    /// Adds `slot`, which is in no queue, as the last.
    pub(super) fn push(&mut self, count: RequestCount, phase: Phase, slot: usize) {
        let Self { links, queues } = self;
        if slot >= links.len() {
            links.resize(slot + 1, Link::default());
        }
        let queue = queues.get_mut(count, phase);
        let before = queue.last.replace(slot);
        queue.length += 1;
        match before.and_then(|before| links.get_mut(before)) {
            None => queue.first = Some(slot),
            Some(before) => before.after = Some(slot),
        }
        if let Some(link) = links.get_mut(slot) {
            *link = Link { before, after: None };
        }
    }

    /// Removes `slot`, which must be in the queue of `count` and `phase`.
    pub(super) fn remove(&mut self, count: RequestCount, phase: Phase, slot: usize) {
        let Self { links, queues } = self;
        let Some(Link { before, after }) = links.get(slot).copied() else { return };
        let queue = queues.get_mut(count, phase);
        queue.length -= 1;
        match before.and_then(|before| links.get_mut(before)) {
            None => queue.first = after,
            Some(before) => before.after = after,
        }
        match after.and_then(|after| links.get_mut(after)) {
            None => queue.last = before,
            Some(after) => after.before = before,
        }
    }

    /// The first slot of each phase that has one.
    pub(super) fn firsts(&self, count: RequestCount) -> impl Iterator<Item = (Phase, usize)> {
        let queues = Phase::ALL.into_iter().zip(self.queues.get(count));
        queues.filter_map(|(phase, queue)| Some((phase, queue.first?)))
    }

    /// How many slots each phase has.
    pub(super) fn lengths(&self, count: RequestCount) -> impl Iterator<Item = (Phase, usize)> {
        Phase::ALL
            .into_iter()
            .zip(self.queues.get(count))
            .map(|(phase, queue)| (phase, queue.length))
    }
}

impl ByCount {
    const fn get(&self, count: RequestCount) -> &ByPhase {
        match count {
            RequestCount::None => &self.none,
            RequestCount::One => &self.one,
            RequestCount::Several => &self.several,
        }
    }

    const fn get_mut(&mut self, count: RequestCount, phase: Phase) -> &mut Queue {
        let [idle, reading_head, answering, writing, closing, refused] = match count {
            RequestCount::None => &mut self.none,
            RequestCount::One => &mut self.one,
            RequestCount::Several => &mut self.several,
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
}
