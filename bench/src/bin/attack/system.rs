//! What std does not have.

use std::fs;
use std::thread;
use std::time::Duration;

use libc::pollfd;

use crate::is_over;

/// As many descriptors as this process may have: each hostile connection is one.
pub(crate) fn raise_descriptors() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one struct rlimit, to where one is.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel reads one struct rlimit, which is there.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    if limit.rlim_max < 12_000 {
        println!("only {} descriptors for the attacker: crowds are smaller", limit.rlim_max);
    }
}

/// Where a firewall tracks connections it remembers each for two minutes, and when its table is
/// full it drops every SYN: that would be no fault of the gateway's.
pub(crate) fn wait_for_conntrack() {
    let read = |name| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
        text.ok()?.trim().parse::<u64>().ok()
    };
    let Some(most) = read("max") else { return };
    while read("count").is_some_and(|count| count > most / 2) && !is_over() {
        thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn poll(polled: &mut [pollfd], timeout: Duration) {
    let count = libc::nfds_t::try_from(polled.len()).unwrap();
    let timeout = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap();
    // SAFETY: the pointer and the count are of one slice.
    unsafe { libc::poll(polled.as_mut_ptr(), count, timeout) };
}
