//! The table, and what must hold in each row.

use std::collections::BTreeMap;
use std::time::Duration;

use testing::fake_api::FakeApi;

use crate::attack::Attack;
use crate::hostile::Tally;
use crate::target::{Counts, LIMIT, MIB, Peak, RELEASED_WITHIN, Target};
use crate::well_behaved::Measurement;

/// The most of [`LIMIT`] that the gateway may use with the default connection limit.
const MOST_MEMORY: u64 = 48 * MIB;
const P99: Duration = Duration::from_millis(100);
/// Where the backlog is full, a client must send its SYN again, which it does after one second.
const P99_WITH_A_SYN_SENT_AGAIN: Duration = Duration::from_millis(1500);

pub(crate) struct Row<'a> {
    pub(crate) attack: &'a Attack,
    pub(crate) tally: Tally,
    pub(crate) measured: Measurement,
    pub(crate) recovery: Option<Duration>,
    pub(crate) before: Counts,
    /// The last counts, and how long after the attack that was.
    pub(crate) after: (Counts, Duration),
}

pub(crate) fn print_header(api: &FakeApi) {
    let target = Target::start(api, 1024, None, Some(100));
    let memory = if target.memory.is_some() {
        "in a memory cgroup of 64 MiB: the most that it counted"
    } else {
        "no memory cgroup can be made here: VmHWM, and no limit"
    };
    println!("memory: {memory}");
    if target.pids.is_none() {
        println!("pids: no cgroup can be made here: \"100 pids\" runs without that limit");
    }
    println!(
        "MiB: all memory; TCP: the part for data of TCP connections; RSS: the process alone; each at most"
    );
    println!("ended: hostile connections that ended without an answer");
    println!("served to recovery: the well-behaved clients; times in ms");
    println!("freed s: seconds until there were no more threads and descriptors than before\n");
    println!(
        "{:<30}{:<32}{:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>7} {:>7} {:>7} {:>8} {:>10} {:>10} {:>7}",
        "attack",
        "answers",
        "MiB",
        "TCP",
        "RSS",
        "served",
        "failed",
        "reconn",
        "p50",
        "p99",
        "gap",
        "recovery",
        "threads",
        "descr.",
        "freed s"
    );
}

impl Row<'_> {
    pub(crate) fn print(&self, peak: Option<Peak>) {
        let milliseconds = |time: Duration| match time {
            Duration::MAX => "-".to_owned(),
            time => format!("{:.1}", time.as_secs_f64() * 1000.0),
        };
        let mebibytes = |of: fn(&Peak) -> u64| {
            peak.as_ref().map_or_else(
                || "-".to_owned(),
                |peak| format!("{:.1}", of(peak) as f64 / MIB as f64),
            )
        };
        let Self { measured, before, after: (after, took), .. } = self;
        println!(
            "{:<30}{:<32}{:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>7} {:>7} {:>7} {:>8} {:>10} {:>10} {:>7.1}",
            self.attack.name,
            self.tally.show(),
            mebibytes(|peak| peak.all),
            mebibytes(|peak| peak.sockets),
            mebibytes(|peak| peak.resident),
            measured.served.len(),
            measured.failures.len(),
            measured.reconnects,
            milliseconds(measured.percentile(50)),
            milliseconds(measured.percentile(99)),
            milliseconds(measured.longest_gap),
            milliseconds(self.recovery.unwrap_or(Duration::MAX)),
            format!("{} > {}", before.threads, after.threads),
            format!("{} > {}", before.descriptors, after.descriptors),
            took.as_secs_f64(),
        );
        let mut kinds = BTreeMap::<_, usize>::new();
        measured.failures.iter().for_each(|what| *kinds.entry(what).or_default() += 1);
        kinds.iter().for_each(|(what, count)| println!("    {count} x {what}"));
    }

    /// Which checks failed.
    pub(crate) fn failures(&self, target: &Target) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        check(!target.gateway.has_ended(), "the gateway ended".to_owned());
        let peak = target.peak();
        let limit = if self.attack.max_connections.is_some() { LIMIT } else { MOST_MEMORY };
        check(peak.is_some_and(|peak| peak.all <= limit), format!("more than {} MiB", limit / MIB));
        let (after, took) = self.after;
        let released = after.within(self.before) && took <= RELEASED_WITHIN;
        check(released, "threads or descriptors are not released".to_owned());
        check(
            self.measured.failures.is_empty(),
            "requests of well-behaved clients failed".to_owned(),
        );
        let limit = if self.attack.exceeds_limits { P99_WITH_A_SYN_SENT_AGAIN } else { P99 };
        check(self.measured.percentile(99) < limit, format!("p99 is not under {limit:?}"));
        check(self.recovery.is_some(), "no recovery".to_owned());
        failures
    }
}
