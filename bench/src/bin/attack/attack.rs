//! An attack: what its connections do, and under which limits the gateway runs.

use std::time::Duration;

/// How many hostile connections do what, and under which limits the gateway runs.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    pub(crate) behaviour: Behaviour,
    /// More connections than `MAX_CONNECTIONS` or the backlog of the listener has room for.
    pub(crate) exceeds_limits: bool,
    /// The key set has 100 RSA keys.
    pub(crate) large_key_set: bool,
    /// The connections stay open after the attack: the gateway's deadlines must end them.
    pub(crate) left_open: bool,
    pub(crate) descriptors: u32,
    /// `MAX_CONNECTIONS`, where it is not the default.
    pub(crate) max_connections: Option<u32>,
    /// The most threads, by a cgroup.
    pub(crate) max_pids: Option<u32>,
}

/// What a connection does, and each that is opened in its place.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// What a connection sends first: each one the next of these.
    pub(crate) first: Vec<Vec<u8>>,
    /// What it sends after that, repeatedly.
    pub(crate) repeated: Vec<u8>,
    /// The pause before each `repeated`, or before each byte that is read.
    pub(crate) interval: Duration,
    pub(crate) reading: Reading,
    pub(crate) ending: Ending,
    /// How long after its end another one is opened in its place.
    pub(crate) reconnect_after: Duration,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    #[default]
    All,
    OneByteAtATime,
    Never,
}

/// When a connection ends.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the attack, unless the gateway closes it before.
    #[default]
    StayOpen,
    /// As soon as `first` is sent.
    Close,
    /// The same, by RST.
    Reset,
}

/// One under the default limits, with a small key set.
pub(crate) fn attack(name: &'static str, connections: usize, behaviour: Behaviour) -> Attack {
    Attack {
        name,
        connections,
        behaviour,
        exceeds_limits: false,
        large_key_set: false,
        left_open: false,
        descriptors: 16_384,
        max_connections: None,
        max_pids: None,
    }
}
