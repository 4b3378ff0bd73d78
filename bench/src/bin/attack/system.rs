//! Calls to the system that the standard library does not have.

use std::fs;
use std::thread;
use std::time::Duration;

use libc::pollfd;

use crate::is_interrupted;

/// Raises the soft limit of descriptors to the hard one: each hostile connection needs one.
pub(crate) fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one struct rlimit, to where one is.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one struct rlimit, which is there.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    if limit.rlim_max < 12_000 {
        println!(
            "only {} descriptors for the attacker: attacks with more connections are smaller",
            limit.rlim_max
        );
    }
}

/// Where a firewall tracks connections, it keeps each in its table for two minutes, and drops every
/// SYN when the table is full, which would look like a failure of the gateway.
pub(crate) fn wait_for_conntrack() {
    let read = |name| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
        text.ok()?.trim().parse::<u64>().ok()
    };
    let Some(most) = read("max") else { return };
    while read("count").is_some_and(|count| count > most / 2) && !is_interrupted() {
        thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn poll(polled: &mut [pollfd], timeout: Duration) {
    let count = libc::nfds_t::try_from(polled.len()).unwrap();
    let timeout = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap();
    // SAFETY: the pointer and the count are of one slice.
    unsafe { libc::poll(polled.as_mut_ptr(), count, timeout) };
}
