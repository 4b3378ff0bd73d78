//! What the front counts and reports, and the log lines about single connections.

use std::collections::BTreeMap;
use std::ops::Add;
use std::time::Instant;

use log::{info, warn};

use super::head::Refusal;
use crate::logging::{self, LineKind};

/// Connections since the start of the front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) accepted: u64,
    /// Requests that were refused, by status; their connections end.
    pub(crate) refused: BTreeMap<u16, u64>,
    pub(crate) evicted: u64,
    /// Closed because the client did not read its answers.
    pub(crate) unread: u64,
    /// Closed because no worker answered in time.
    pub(crate) unanswered: u64,
    /// Closed because the kernel had no memory to watch them.
    pub(crate) rejected: u64,
}

/// The state of a front.
pub(crate) struct Report {
    /// No request is in progress, and no connection is so new that one may be on its way.
    pub(crate) is_quiet: bool,
    pub(crate) last_accepted: Option<Instant>,
    /// How many connections are open, and the most that may be.
    pub(crate) open: usize,
    pub(crate) limit: usize,
    pub(crate) counts: Counts,
}

/// A reason for which the front closes a connection, and which it counts and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Refused(Refusal),
    Evicted,
    Unread,
    Unanswered,
    Rejected,
}

impl Counts {
    /// Counts it, and logs it if one more line of its kind may be written.
    pub(super) fn note(&mut self, event: Event, peer: &str) {
        let (count, line) = match event {
            Event::Refused(Refusal { status, .. }) => {
                (self.refused.entry(status).or_default(), LineKind::Refused)
            }
            Event::Evicted => (&mut self.evicted, LineKind::Evicted),
            Event::Unread => (&mut self.unread, LineKind::Closed),
            Event::Unanswered => (&mut self.unanswered, LineKind::Closed),
            Event::Rejected => (&mut self.rejected, LineKind::Closed),
        };
        *count += 1;
        if !logging::admits(line) {
            return;
        }
        let peer = logging::client(peer);
        match event {
            Event::Refused(Refusal { status, because }) => {
                info!(status, reason = because, peer; "refused");
            }
            Event::Evicted => {
                info!(reason = "longest idle, and the connection limit is reached", peer; "evicted");
            }
            Event::Unread => {
                info!(reason = "the client does not read the answer", peer; "closed");
            }
            Event::Unanswered => warn!(reason = "no worker answered in time", peer; "closed"),
            Event::Rejected => {
                warn!(reason = "the kernel has no memory to watch it", peer; "closed");
            }
        }
    }

    /// How many connections the front closed for one of the reasons that it counts. Those closed
    /// because they were idle, or by the client, are not among them.
    pub(crate) fn total_closed(&self) -> u64 {
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
