//! The gateway that is attacked, and what it uses.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use testing::fake_api::{FakeApi, JWKS};
use testing::gateway::Gateway;

use crate::cgroup::Cgroup;
use crate::is_interrupted;

pub(crate) const MIB: u64 = 1 << 20;
/// The gateway's memory.
pub(crate) const LIMIT: u64 = 64 * MIB;
/// By when threads and descriptors must be as before the attack.
pub(crate) const RELEASED_WITHIN: Duration = Duration::from_secs(70);
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(75);

/// A gateway that is attacked. Its cgroups are removed after it has ended.
pub(crate) struct Target {
    pub(crate) gateway: Gateway,
    pub(crate) memory: Option<Cgroup>,
    pub(crate) pids: Option<Cgroup>,
}

/// The most bytes in use, of each kind.
#[derive(Clone, Copy)]
pub(crate) struct Peak {
    /// What the cgroup counts: resident, page cache, and the kernel's for sockets and descriptors.
    pub(crate) all: u64,
    /// The kernel's for the data of TCP connections, which cgroup v1 counts separately.
    pub(crate) sockets: u64,
    /// Of the process alone.
    pub(crate) resident: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
}

impl Counts {
    pub(crate) const fn within(self, most: Self) -> bool {
        self.threads <= most.threads && self.descriptors <= most.descriptors
    }
}

impl Target {
    /// Starts it in front of `api`, in cgroups of its own where they can be made.
    pub(crate) fn start(
        api: &FakeApi,
        descriptors: u32,
        max_connections: Option<u32>,
        max_pids: Option<u32>,
    ) -> Self {
        // v1 counts what the kernel keeps for sockets separately, and only where it has a limit.
        let memory = Cgroup::make(
            "memory",
            LIMIT,
            &["memory.max"],
            &["memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"],
        );
        let pids = max_pids
            .and_then(|most| Cgroup::make("pids", u64::from(most), &["pids.max"], &["pids.max"]));
        // A process enters its cgroups before it becomes the gateway, so that all is counted.
        let script = "for cgroup in $ENTER; do echo $$ >\"$cgroup/cgroup.procs\" || exit; done; \
                      ulimit -n \"$1\" && exec \"$0\"";
        let enter: Vec<_> =
            memory.iter().chain(&pids).map(|cgroup| cgroup.0.to_str().unwrap()).collect();
        let gateway = Gateway::builder(api)
            .quiet()
            .set("ENTER", enter.join(" "))
            .set(
                "MAX_CONNECTIONS",
                max_connections.map_or_else(String::new, |most| most.to_string()),
            )
            .under(&["sh", "-c", script])
            .arg(&descriptors.to_string())
            .start();
        Self { gateway, memory, pids }
    }

    /// The key set, as well-behaved clients should get it.
    pub(crate) fn document(&self) -> Vec<u8> {
        let response = self.gateway.get(JWKS);
        assert_eq!(response.status, 200, "{}", response.text());
        response.body
    }

    /// The counts once they have not changed for half a second.
    pub(crate) fn settled(&self) -> Counts {
        let mut before = self.counts();
        loop {
            thread::sleep(Duration::from_millis(500));
            let now = self.counts();
            if now == before {
                return now;
            }
            before = now;
        }
    }

    /// Waits until the counts are as `before`, at most [`WATCHED`]; returns the last ones.
    pub(crate) fn watch(&self, before: Counts) -> (Counts, Duration) {
        let begin = Instant::now();
        loop {
            let now = self.counts();
            let took = begin.elapsed();
            if now.within(before) || took > WATCHED || is_interrupted() {
                return (now, took);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let count = |name: &str| fs::read_dir(self.proc(name)).map_or(0, Iterator::count);
        Counts { threads: count("task"), descriptors: count("fd") }
    }

    /// The most memory that it has used so far.
    pub(crate) fn peak(&self) -> Option<Peak> {
        let status = fs::read_to_string(self.proc("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let resident = line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10;
        let Some(cgroup) = &self.memory else {
            return Some(Peak { all: resident, sockets: 0, resident });
        };
        let read = |name| fs::read_to_string(cgroup.0.join(name)).ok()?.trim().parse::<u64>().ok();
        let sockets = read("memory.kmem.tcp.max_usage_in_bytes").unwrap_or(0);
        let memory = read("memory.peak").or_else(|| read("memory.max_usage_in_bytes"))?;
        Some(Peak { all: memory + sockets, sockets, resident })
    }

    pub(crate) fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.gateway.pid())
    }

    /// The last lines that it logged.
    pub(crate) fn print_log(&self) {
        let log = self.gateway.log();
        let lines: Vec<_> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(12)).for_each(|line| println!("    | {line}"));
    }
}
