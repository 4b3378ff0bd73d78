//! The process's own memory, descriptors, threads and CPU time, from /proc (proc(5)), by the names that all
//! Prometheus clients give them.
//!
//! `prometheus` has a collector for this as well; it counts CPU time in whole seconds.

use std::time::{Duration, SystemTime};

use procfs::process::{LimitValue, Process};

/// What a process uses. `None`: the kernel did not say.
#[derive(Default)]
pub(crate) struct Usage {
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) open_descriptors: Option<u64>,
    /// The soft limit; the greatest number where there is none.
    pub(crate) max_descriptors: Option<u64>,
    pub(crate) started: Option<SystemTime>,
}

impl Usage {
    /// That of this process now. A few files of /proc are read, and one entry for each descriptor.
    pub(crate) fn now() -> Self {
        let Ok(process) = Process::myself() else { return Self::default() };
        let ticks = procfs::ticks_per_second();
        let seconds = |of: u64| Duration::from_millis(of.saturating_mul(1000) / ticks.max(1));
        let stat = process.stat().ok();
        let stat = stat.as_ref();
        let limit = |limit| match limit {
            LimitValue::Unlimited => u64::MAX,
            LimitValue::Value(limit) => limit,
        };
        Self {
            cpu_time: stat.map(|stat| seconds(stat.utime.saturating_add(stat.stime))),
            resident_bytes: stat.map(|stat| stat.rss.saturating_mul(procfs::page_size())),
            virtual_bytes: stat.map(|stat| stat.vsize),
            threads: stat.and_then(|stat| u64::try_from(stat.num_threads).ok()),
            open_descriptors: process.fd_count().ok().and_then(|count| u64::try_from(count).ok()),
            max_descriptors: process.limits().ok().map(|it| limit(it.max_open_files.soft_limit)),
            started: stat.and_then(|stat| {
                let booted = Duration::from_secs(procfs::boot_time_secs().ok()?);
                SystemTime::UNIX_EPOCH.checked_add(booted + seconds(stat.starttime))
            }),
        }
    }
}
