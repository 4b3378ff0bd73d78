//! What the front counts since its start, and the lines that it logs of single connections.

use std::collections::BTreeMap;
use std::ops::Add;

use log::{info, warn};

use super::head::Refusal;
use crate::logging::{self, Line};

/// Connections since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    /// Requests, by status: the connection ends with the answer.
    pub(crate) refused: BTreeMap<u16, u64>,
    pub(crate) evicted: u64,
    /// Closed for answers that the client did not read.
    pub(crate) unread: u64,
    /// Closed because no answer was made.
    pub(crate) unanswered: u64,
    /// Closed because the kernel had no memory to watch them.
    pub(crate) rejected: u64,
}

/// Why the front closed a connection, where that is an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Refused(Refusal),
    Evicted,
    Unread,
    Unanswered,
    Rejected,
}

impl Counts {
    /// Counts it and, as far as there may be so many lines, logs it.
    pub(super) fn note(&mut self, event: Event, peer: &str) {
        let (count, line) = match event {
            Event::Refused(Refusal { status, .. }) => {
                (self.refused.entry(status).or_default(), Line::Refused)
            }
            Event::Evicted => (&mut self.evicted, Line::Evicted),
            Event::Unread => (&mut self.unread, Line::Closed),
            Event::Unanswered => (&mut self.unanswered, Line::Closed),
            Event::Rejected => (&mut self.rejected, Line::Closed),
        };
        *count += 1;
        if !logging::admits(line) {
            return;
        }
        match event {
            Event::Refused(Refusal { status, because }) => {
                info!(status, why = because, peer:%; "refused");
            }
            Event::Evicted => {
                info!(why = "longest idle, and the connection limit is reached", peer:%; "evicted");
            }
            Event::Unread => info!(why = "the client does not read the answer", peer:%; "closed"),
            Event::Unanswered => warn!(why = "no answer was made in time", peer:%; "closed"),
            Event::Rejected => {
                warn!(why = "the kernel has no memory to watch it", peer:%; "closed");
            }
        }
    }

    /// How many were refused, evicted, closed or rejected.
    pub(crate) fn shut_out(&self) -> u64 {
        let Self { refused, evicted, unread, unanswered, rejected, .. } = self;
        [evicted, unread, unanswered, rejected].into_iter().chain(refused.values()).sum()
    }

    pub(crate) fn log(&self) {
        let Self { accepted, evicted, unread, unanswered, rejected, .. } = self;
        let refused = self.refused.iter().map(|(status, count)| format!("{status}:{count}"));
        let refused = refused.collect::<Vec<_>>().join(",");
        info!(accepted, refused, evicted, unread, unanswered, rejected; "connections since the start");
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        Self {
            accepted: self.accepted + other.accepted,
            refused: self.refused,
            evicted: self.evicted + other.evicted,
            unread: self.unread + other.unread,
            unanswered: self.unanswered + other.unanswered,
            rejected: self.rejected + other.rejected,
        }
    }
}
