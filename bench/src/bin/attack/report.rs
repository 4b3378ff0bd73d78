//! The table.

use std::collections::BTreeMap;
use std::time::Duration;

use testing::fake_api::FakeApi;

use crate::attack::Attack;
use crate::hostile::Tally;
use crate::target::{BACK_WITHIN, Counts, LIMIT, MIB, Peak, Target};
use crate::well_behaved::Polite;

/// What it may use of that with the default connection limit.
const MOST_MEMORY: u64 = 48 * MIB;
const P99: Duration = Duration::from_millis(100);
/// Where more knock than the kernel queues, a SYN must be sent again, which is after one second.
const P99_WITH_A_SECOND_SYN: Duration = Duration::from_millis(1500);

pub(crate) struct Row<'a> {
    pub(crate) attack: &'a Attack,
    pub(crate) tally: Tally,
    pub(crate) polite: Polite,
    pub(crate) recovery: Option<Duration>,
    pub(crate) before: Counts,
    /// The last look, and how long after the attack it was.
    pub(crate) after: (Counts, Duration),
}

pub(crate) fn print_head(api: &FakeApi) {
    let target = Target::start(api, 1024, None, Some(100));
    let memory = if target.memory.is_some() {
        "in a memory cgroup of 64 MiB: what that counted at most"
    } else {
        "no memory cgroup can be made here: VmHWM, with nothing to hold it to 64 MiB"
    };
    println!("memory: {memory}");
    if target.pids.is_none() {
        println!("pids: no cgroup can be made here, so that this attack is none");
    }
    println!(
        "MiB: all of it; TCP: the part that TCP's data is; RSS: the process alone; each at most"
    );
    println!("ended: connections of the attacker's that got no answer; all times in ms\n");
    println!(
        "{:<30}{:<32}{:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>7} {:>7} {:>7} {:>8} {:>10} {:>10} {:>6}",
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
        "back s"
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
        let Self { polite, before, after: (after, back), .. } = self;
        println!(
            "{:<30}{:<32}{:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>7} {:>7} {:>7} {:>8} {:>10} {:>10} {:>6.1}",
            self.attack.name,
            self.tally.show(),
            mebibytes(|peak| peak.all),
            mebibytes(|peak| peak.sockets),
            mebibytes(|peak| peak.resident),
            polite.served.len(),
            polite.failures.len(),
            polite.reconnects,
            milliseconds(polite.percentile(50)),
            milliseconds(polite.percentile(99)),
            milliseconds(polite.longest_gap),
            milliseconds(self.recovery.unwrap_or(Duration::MAX)),
            format!("{} > {}", before.threads, after.threads),
            format!("{} > {}", before.descriptors, after.descriptors),
            back.as_secs_f64(),
        );
        let mut kinds = BTreeMap::<_, usize>::new();
        polite.failures.iter().for_each(|what| *kinds.entry(what).or_default() += 1);
        kinds.iter().for_each(|(what, count)| println!("    {count} x {what}"));
    }

    /// What it broke of the promises of issue 4.
    pub(crate) fn broken(&self, target: &Target) -> Vec<String> {
        let mut broken = Vec::new();
        let mut must = |holds: bool, what: String| {
            if !holds {
                broken.push(what);
            }
        };
        must(!target.gateway.has_ended(), "the gateway ended".to_owned());
        let peak = target.peak();
        let most = if self.attack.most.is_some() { LIMIT } else { MOST_MEMORY };
        must(peak.is_some_and(|peak| peak.all <= most), format!("more than {} MiB", most / MIB));
        let (after, took) = self.after;
        let back = after.within(self.before) && took <= BACK_WITHIN;
        must(back, "threads or descriptors are not back".to_owned());
        must(self.polite.failures.is_empty(), "polite requests failed".to_owned());
        let most = if self.attack.crowd { P99_WITH_A_SECOND_SYN } else { P99 };
        must(self.polite.percentile(99) < most, format!("p99 is not under {most:?}"));
        must(self.recovery.is_some(), "no recovery".to_owned());
        broken
    }
}
