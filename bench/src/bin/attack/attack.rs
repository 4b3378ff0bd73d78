//! What an attack is.

use std::time::Duration;

/// How many hostile connections do what, and what the gateway may take meanwhile.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) tactic: Tactic,
    /// More knock than the kernel queues, or there are places for.
    pub(crate) crowd: bool,
    /// The key set has 100 RSA keys.
    pub(crate) large: bool,
    /// When the attack ends the connections are left as they are, and not closed: the gateway's
    /// deadlines must end them.
    pub(crate) held: bool,
    pub(crate) descriptors: u32,
    /// `MAX_CONNECTIONS`, where it is not the default.
    pub(crate) most: Option<u32>,
    /// Threads at most, in a cgroup.
    pub(crate) pids: Option<u32>,
}

/// What one connection does, and all that follow it.
#[derive(Default)]
pub(crate) struct Tactic {
    /// Sent at once; each connection takes the next one.
    pub(crate) openings: Vec<Vec<u8>>,
    /// Sent after it, again and again.
    pub(crate) more: Vec<u8>,
    /// How long to wait before each `more`, or before each byte that is read.
    pub(crate) pace: Duration,
    pub(crate) reading: Reading,
    pub(crate) ending: Ending,
    /// How long after its end another takes its place.
    pub(crate) again: Duration,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    #[default]
    All,
    AByteAtATime,
    Never,
}

/// When a connection ends.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the attack, unless the gateway ends it before; then another takes its place.
    #[default]
    Stays,
    /// As soon as the opening is sent.
    Close,
    /// The same, by RST.
    Reset,
}

pub(crate) fn attack(name: &'static str, connections: usize, tactic: Tactic) -> Attack {
    let (crowd, large, held) = (false, false, false);
    let (descriptors, most, pids) = (16_384, None, None);
    Attack { name, connections, tactic, crowd, large, held, descriptors, most, pids }
}
