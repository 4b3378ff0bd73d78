//! Pure: what a connection is doing, and how many requests it has sent.

use std::time::Duration;

use super::limits::{ANSWER, CLOSING, HEAD, IDLE, REFUSED, UNREAD};

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No byte of a request has arrived since the last answer, or since it was accepted.
    Idle,
    /// A part of a head has arrived.
    ReadingHead,
    /// A request is on its way through `tiny_http` and a worker. Never evicted.
    Answering,
    /// A part of the answer is still unsent, because the send buffer is full.
    Writing,
    /// The last answer is written. Ends when the client has received it and closes.
    Closing,
    /// A head was refused. Ends when the client closes; what it still sends is dropped.
    Refused,
}

impl Phase {
    pub(super) const ALL: [Self; 6] = [
        Self::Idle,
        Self::ReadingHead,
        Self::Answering,
        Self::Writing,
        Self::Closing,
        Self::Refused,
    ];

    /// How long a connection may be in this phase.
    pub(super) const fn time_limit(self) -> Duration {
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

/// How many requests a connection has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestCount {
    None,
    One,
    /// It is a keep-alive connection.
    Several,
}

impl RequestCount {
    pub(super) const ALL: [Self; 3] = [Self::None, Self::One, Self::Several];
}
