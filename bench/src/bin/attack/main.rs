//! `make attack`: hostile clients against the real binary, while well-behaved clients measure.
//!
//! Each attack gets a gateway of its own with 64 MiB of memory, the default connection limit and
//! enough descriptors for it, unless its name says otherwise. The memory is limited by a cgroup,
//! where one can be made below the one of this program; elsewhere the resident memory is read. Two
//! well-behaved clients request the key set ten times a second each: one on a new connection every
//! time, one on a keep-alive connection. The table says what answers the attacker and these clients
//! got, and when the gateway was as before the attack.
//!
//! `SECONDS_EACH` (6) is how long an attack lasts; `ONLY=TEXT` runs those whose names contain it.
//! All traffic is to 127.0.0.1; the hostile connections have other source addresses of 127.0.0.0/8,
//! so that they use up their own ports and not those of the well-behaved clients.

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
use crate::report::{Row, print_header};
use crate::system::{raise_descriptors, wait_for_conntrack};
use crate::target::Target;
use crate::well_behaved::{Measurement, measure, recovery};

/// Set by a signal: the program ends soon, and removes its processes and cgroups.
static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn main() -> ExitCode {
    raise_descriptors();
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED)).expect("take signals");
    }
    // Long enough for more than a hundred requests of the well-behaved clients: in fewer, the one that
    // has to wait for the first thousand hostile connections would decide the p99.
    let seconds = env::var("SECONDS_EACH").ok().and_then(|text| text.parse().ok()).unwrap_or(6.0);
    let only = env::var("ONLY").ok().filter(|name| !name.is_empty());
    let api = FakeApi::start();
    let small = api.jwks();
    print_header(&api);
    let (mut passed, mut failed) = (0, 0);
    for attack in attacks() {
        if is_interrupted()
            || only.as_ref().is_some_and(|only| !attack.name.contains(only.as_str()))
        {
            continue;
        }
        wait_for_conntrack();
        let keys = if attack.large_key_set { large_key_set(100) } else { small.clone() };
        api.set(JWKS, Answer::jwks(keys));
        let failures = attack.run(&api, Duration::from_secs_f64(seconds));
        failures.iter().for_each(|failure| println!("    FAILED: {failure}"));
        if failures.is_empty() {
            passed += 1;
        } else {
            failed += 1;
        }
    }
    println!("\n{} attacks, {passed} passed, {failed} failed", passed + failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Attack {
    /// Runs it against a gateway of its own, prints its row, and returns which checks failed.
    fn run(&self, api: &FakeApi, duration: Duration) -> Vec<String> {
        let target = Target::start(api, self.descriptors, self.max_connections, self.max_pids);
        let expected = target.document();
        let before = target.settled();
        let end = Instant::now() + duration;
        let address = target.gateway.public;
        let (new_each_time, keep_alive, (tally, mut sockets)) = thread::scope(|scope| {
            let new_each_time = scope.spawn(|| measure(address, end, false, &expected));
            let keep_alive = scope.spawn(|| measure(address, end, true, &expected));
            let hostile: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || self.generate_load(address, end, thread)))
                .collect();
            let (mut tally, mut sockets) = (Tally::default(), Vec::new());
            for thread in hostile {
                let (more, open) = thread.join().unwrap();
                tally.add(&more);
                sockets.extend(open);
            }
            (new_each_time.join().unwrap(), keep_alive.join().unwrap(), (tally, sockets))
        });
        if !self.left_open {
            sockets.clear();
        }
        let recovery = recovery(address, &expected);
        let after = target.watch(before);
        drop(sockets);
        let measured = Measurement::both(new_each_time, keep_alive, end);
        let row = Row { attack: self, tally, measured, recovery, before, after };
        row.print(target.peak());
        let failures = row.failures(&target);
        if !failures.is_empty() {
            target.print_log();
        }
        failures
    }
}
