//! Pure: the connections of each phase and kind, in the order in which they entered it.
//!
//! Linked lists through one vector, so that no call allocates: ordered sets of the standard library
//! in their place cost the static binary about a tenth of its CPU time, because threads wait for the
//! lock of musl's malloc (`tests/bench/front`).
//!
//! Invariant: a slot is in at most one queue.

use super::phase::{Kind, Phase};

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
    queues: ByKind,
}

/// One queue for each phase, in the order of [`Phase::ALL`].
type ByPhase = [Queue; Phase::ALL.len()];

#[derive(Default)]
struct ByKind {
    none: ByPhase,
    one: ByPhase,
    more: ByPhase,
}

impl Queues {
    /// Adds `slot`, which is in no queue, as the last.
    pub(super) fn push(&mut self, kind: Kind, phase: Phase, slot: usize) {
        let Self { links, queues } = self;
        if slot >= links.len() {
            links.resize(slot + 1, Link::default());
        }
        let queue = queues.get_mut(kind, phase);
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

    /// Takes `slot` out of the queue in which it is.
    pub(super) fn remove(&mut self, kind: Kind, phase: Phase, slot: usize) {
        let Self { links, queues } = self;
        let Some(Link { before, after }) = links.get(slot).copied() else { return };
        let queue = queues.get_mut(kind, phase);
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

    /// The first slot of each phase.
    pub(super) fn firsts(&self, kind: Kind) -> impl Iterator<Item = (Phase, usize)> {
        let queues = Phase::ALL.into_iter().zip(self.queues.get(kind));
        queues.filter_map(|(phase, queue)| Some((phase, queue.first?)))
    }

    /// How many slots each phase has.
    pub(super) fn lengths(&self, kind: Kind) -> impl Iterator<Item = (Phase, usize)> {
        Phase::ALL
            .into_iter()
            .zip(self.queues.get(kind))
            .map(|(phase, queue)| (phase, queue.length))
    }
}

impl ByKind {
    const fn get(&self, kind: Kind) -> &ByPhase {
        match kind {
            Kind::None => &self.none,
            Kind::One => &self.one,
            Kind::More => &self.more,
        }
    }

    const fn get_mut(&mut self, kind: Kind, phase: Phase) -> &mut Queue {
        let [idle, reading_head, answering, writing, closing, refused] = match kind {
            Kind::None => &mut self.none,
            Kind::One => &mut self.one,
            Kind::More => &mut self.more,
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
