//! `make attack`: hostile clients against the real binary, while polite ones measure.
//!
//! Each attack gets a fresh gateway with 64 MiB of memory (a cgroup, where one can be made below
//! the one that this program is in; else the resident memory is read), the default connection limit
//! and descriptors for it, where its name says nothing else. Two polite clients ask for the key set ten times a second each: one on a connection of its own
//! every time, one on a connection that it keeps. Then the table says what the attacker got, what
//! the polite clients got, and how long the gateway took to be as it was before.
//!
//! All is bounded in time and goes to 127.0.0.1; the hostile connections come from other
//! addresses of 127.0.0.0/8, so that they use up their own ports and not the polite clients'.

#![allow(
    unsafe_code,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::significant_drop_tightening,
    clippy::unwrap_used,
    reason = "a program to look at, started by hand: it may talk, call poll(2), and fail loudly"
)]

mod attack;
mod catalog;
mod cgroup;
mod hostile;
mod report;
mod system;
mod target;
mod well_behaved;

use std::env;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use testing::fake_api::{Answer, FakeApi, JWKS, large_key_set};

use crate::attack::Attack;
use crate::catalog::attacks;
use crate::hostile::{THREADS, Tally};
use crate::report::{Row, print_head};
use crate::system::{raise_descriptors, wait_for_conntrack};
use crate::target::Target;
use crate::well_behaved::{Polite, polite, recovery};

/// Set by a signal: all ends soon, and in good order, so that nothing is left behind.
static OVER: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

fn is_over() -> bool {
    OVER.load(Ordering::Relaxed)
}

fn main() -> ExitCode {
    raise_descriptors();
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&OVER)).expect("take signals");
    }
    // Long enough for a hundred polite requests: in fewer the one that stands behind the first
    // thousand attackers would be one in a hundred.
    let seconds = env::var("SECONDS_EACH").ok().and_then(|text| text.parse().ok()).unwrap_or(6.0);
    let only = env::var("ONLY").ok().filter(|name| !name.is_empty());
    let api = FakeApi::start();
    let small = api.jwks();
    print_head(&api);
    let (mut passed, mut failed) = (0, 0);
    for attack in attacks() {
        if is_over() || only.as_ref().is_some_and(|only| !attack.name.contains(only.as_str())) {
            continue;
        }
        wait_for_conntrack();
        let keys = if attack.large { large_key_set(100) } else { small.clone() };
        api.set(JWKS, Answer::jwks(keys));
        let broken = attack.run(&api, Duration::from_secs_f64(seconds));
        broken.iter().for_each(|promise| println!("    FAILED: {promise}"));
        if broken.is_empty() {
            passed += 1;
        } else {
            failed += 1;
        }
    }
    println!("\n{} attacks, {passed} passed, {failed} failed", passed + failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Attack {
    /// Runs it against a gateway of its own, prints its row, and returns what it broke.
    fn run(&self, api: &FakeApi, duration: Duration) -> Vec<String> {
        let target = Target::start(api, self.descriptors, self.most, self.pids);
        let expected = target.document();
        let before = target.settled();
        let end = Instant::now() + duration;
        let address = target.gateway.public;
        let (alone, kept, (tally, mut sockets)) = thread::scope(|scope| {
            let alone = scope.spawn(|| polite(address, end, false, &expected));
            let kept = scope.spawn(|| polite(address, end, true, &expected));
            let hostile: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || self.drive(address, end, thread)))
                .collect();
            let (mut tally, mut sockets) = (Tally::default(), Vec::new());
            for thread in hostile {
                let (more, open) = thread.join().unwrap();
                tally.add(&more);
                sockets.extend(open);
            }
            (alone.join().unwrap(), kept.join().unwrap(), (tally, sockets))
        });
        if !self.held {
            sockets.clear();
        }
        let recovery = recovery(address, &expected);
        let after = target.watch(before);
        drop(sockets);
        let polite = Polite::both(alone, kept, end);
        let row = Row { attack: self, tally, polite, recovery, before, after };
        row.print(target.peak());
        let broken = row.broken(&target);
        if !broken.is_empty() {
            target.print_log();
        }
        broken
    }
}
