//! What the gateway promises under load, measured on the real binary.
//!
//! `outage` lets the API server fail for two minutes under a steady stream of requests; `rate` asks
//! for the key set 1,000 times a second; `upstream` is only the API server, for
//! bench/compare. The exit code is 1 when a promise was broken.
//!
//! The stream is an open loop: each request is due at its time, whatever became of those before
//! it, and its latency counts from then. So a pause of the gateway shows in every request that
//! was due in it, and not only in the few that were under way (no coordinated omission).

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::significant_drop_tightening,
    clippy::unwrap_used,
    reason = "a program to look at, started by hand: it may talk, and fail loudly"
)]

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use testing::client::{CLOSE, Connection};
use testing::fake_api::{Answer, DISCOVERY, FakeApi, ISSUER, JWKS, large_key_set};
use testing::gateway::Gateway;

const USAGE: &str = "\
usage: measure outage | rate | upstream

  outage     200 requests a second; upstream up (20 s), refusing (40 s), hanging (40 s), answering
             500 (40 s), up (20 s)
  rate       1,000 requests a second for the key set, for 60 s
  upstream   only the API server, until SIGTERM, with KEYS (1) keys; prints the settings that
             point to it

environment:
  SCALE      a factor for these durations, 1 by default
  GATEWAY    the program to measure, by default the one that was built beside this one
  CACHE_TTL_SECONDS (60 by default), UPSTREAM_TIMEOUT_SECONDS (5), REVALIDATE_SECONDS, WORKERS,
  MAX_CONNECTIONS
";

/// Settings of the gateway that are passed on to it.
const PASSED_ON: [&str; 3] = ["REVALIDATE_SECONDS", "WORKERS", "MAX_CONNECTIONS"];
/// Threads that send, each with a connection that it keeps.
const CLIENTS: usize = 16;
/// How long an answer may take, and how late a request may be sent, before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long after the end of an outage a request may still get the old key set: there is one round
/// in `REVALIDATE_SECONDS`, and a tenth of a second is for a loaded machine.
const REVALIDATED: Duration = Duration::from_millis(1100);
/// How many fetches of the key set upstream may see: one a second, and some for the rounds.
const FETCHES_A_MINUTE: f64 = 62.0;

fn main() -> ExitCode {
    let broken = match env::args().nth(1).as_deref() {
        Some("outage") => outage(),
        Some("rate") => rate(),
        Some("upstream") => return upstream(),
        Some(_) | None => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    broken.iter().for_each(|promise| println!("BROKEN: {promise}"));
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The gateway while its upstream fails in three ways and comes back; returns the promises it broke.
fn outage() -> Vec<String> {
    let api = FakeApi::start();
    let gateway = start(&api);
    let old_kid = api.kid();

    let phases = [
        ("upstream up", scaled(20)),
        ("refusing", scaled(40)),
        ("hanging", scaled(40)),
        ("answering 500", scaled(40)),
        ("up", scaled(20)),
    ];
    let [up, refusing, hanging, failing, _] = phases.map(|(_, duration)| duration);
    let whole = phases.iter().map(|(_, duration)| *duration).sum();
    let load = Load::start(gateway.public, 200, whole, &[DISCOVERY, JWKS], |n| n % 4 < 2);
    let begin = load.begin;
    sleep_until(begin + up);
    api.go_down();
    sleep_until(begin + up + refusing);
    let silence = Silence::begin(api.address);
    sleep_until(begin + up + refusing + hanging);
    api.set_both(&Answer::Status(500));
    let _unanswered_for_ever = silence.end();
    api.come_back();
    sleep_until(begin + up + refusing + hanging + failing);
    // As after a restart with a new signing key, by which a fresh copy shows.
    api.rotate_key();
    api.set_good();
    let back = Instant::now();
    let kid = api.kid();
    let samples = load.finish(|due, path, body| match path {
        DISCOVERY => is_discovery(body),
        _ => has_key(body, &kid) || due < back + REVALIDATED && has_key(body, &old_kid),
    });

    let failed = print_table(&samples, begin, &phases);
    let fresh = samples
        .iter()
        .filter(|sample| sample.body.as_ref().is_ok_and(|body| has_key(body, &kid)))
        .map(|sample| (sample.due + sample.took).saturating_duration_since(back))
        .min();
    let logged = gateway.logged_at("upstream recovered");
    let logged = logged.map(|at| at.saturating_duration_since(back));
    let show = |time: Option<Duration>| time.map_or_else(|| "never".to_owned(), show_seconds);
    println!(
        "\nfresh after the return: {} by the new key, {} by the log",
        show(fresh),
        show(logged)
    );
    let failed = (failed > 0).then(|| format!("{failed} requests failed"));
    failed.into_iter().collect()
}

/// The gateway under many requests for the key set; returns the promises it broke.
fn rate() -> Vec<String> {
    let duration = scaled(60);
    let api = FakeApi::start();
    let gateway = start(&api);
    let kid = api.kid();
    let before = [DISCOVERY, JWKS].map(|path| api.count(path));
    let load = Load::start(gateway.public, 1000, duration, &[JWKS], |_| true);
    let begin = load.begin;
    let samples = load.finish(|_, _, body| has_key(body, &kid));
    let after = [DISCOVERY, JWKS].map(|path| api.count(path));

    let failed = print_table(&samples, begin, &[("key set", duration)]);
    let [discovery, jwks] = [after[0] - before[0], after[1] - before[1]];
    println!(
        "\nupstream saw {jwks} fetches of the key set, {discovery} of the discovery document, in {}",
        show_seconds(duration)
    );
    let most = FETCHES_A_MINUTE * duration.as_secs_f64() / 60.0;
    let more = u32::try_from(jwks).is_ok_and(|jwks| f64::from(jwks) > most);
    let failed = (failed > 0).then(|| format!("{failed} requests failed"));
    let more = more.then(|| format!("upstream saw more than {most:.0} fetches of the key set"));
    failed.into_iter().chain(more).collect()
}

/// The API server alone: prints the settings that point to it, in a shell's words, and waits.
fn upstream() -> ExitCode {
    let mut signals = Signals::new([SIGINT, SIGTERM]).expect("take signals");
    let api = FakeApi::start();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let token = api.sign(&json!({ "iss": ISSUER, "aud": [ISSUER], "exp": now + 24 * 60 * 60 }));
    api.accept_tokens(&[&token]);
    api.volume.write(&token, &api.ca_pem());
    if let Some(count) = env::var("KEYS").ok().and_then(|count| count.parse().ok()) {
        api.set(JWKS, Answer::jwks(large_key_set(count)));
    }
    println!("UPSTREAM_HOST={}", api.url());
    println!("SA_TOKEN_PATH={}", api.volume.token().display());
    println!("SA_CA_CERT_PATH={}", api.volume.ca().display());
    signals.forever().next();
    ExitCode::SUCCESS
}

/// The address of an API server that hangs: it accepts connections and sends nothing, not even
/// after it is up again, as when the network in between has lost what was sent.
struct Silence {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<TcpStream>>,
}

impl Silence {
    fn begin(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("the same port");
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let taken = listener.incoming().map_while(Result::ok);
            taken.take_while(|_| !ends.load(Ordering::Relaxed)).collect()
        });
        Self { address, over, thread }
    }

    /// Frees the address; the connections that were accepted stay open until they are dropped.
    fn end(self) -> Vec<TcpStream> {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread.
        drop(TcpStream::connect(self.address).expect("connect to ourselves"));
        self.thread.join().unwrap()
    }
}

/// Starts the gateway in front of `api` and returns when it holds both documents.
fn start(api: &FakeApi) -> Gateway {
    let mut builder = Gateway::builder(api)
        .quiet()
        .set("ADMIN_PORT", "off")
        .set("CACHE_TTL_SECONDS", seconds("CACHE_TTL_SECONDS", 60.0))
        .set("UPSTREAM_TIMEOUT_SECONDS", seconds("UPSTREAM_TIMEOUT_SECONDS", 5.0))
        // Access lines as in operation, and a line for each round, of older builds too.
        .set(
            "RUST_LOG",
            "info,kube_issuer_gateway::refresher=debug,kube_issuer_gateway::cache=debug",
        );
    for name in PASSED_ON {
        if let Some(value) = env::var_os(name) {
            builder = builder.set(name, value);
        }
    }
    let gateway = builder.start();
    gateway.wait_for_log(" refreshed ");
    gateway
}

/// A steady stream of requests, under way.
struct Load {
    begin: Instant,
    clients: Vec<JoinHandle<Vec<Sample>>>,
}

/// When each request is due, and how it is sent.
struct Schedule {
    gateway: SocketAddr,
    begin: Instant,
    interval: Duration,
    requests: u32,
    /// Asked for in turn.
    paths: &'static [&'static str],
    /// The number of the next one: whichever client is free takes it.
    next: AtomicU32,
    /// Whether the one of this number goes over a connection that is kept, or over one of its own.
    kept: fn(u32) -> bool,
}

/// One request and what became of it.
struct Sample {
    path: &'static str,
    due: Instant,
    /// From `due` until it was sent.
    late: Duration,
    /// From `due` until its end.
    took: Duration,
    /// The body of a 200, or why it failed.
    body: Result<Arc<[u8]>, String>,
}

impl Load {
    fn start(
        gateway: SocketAddr,
        rate: u32,
        duration: Duration,
        paths: &'static [&'static str],
        kept: fn(u32) -> bool,
    ) -> Self {
        let interval = Duration::from_secs(1) / rate;
        let requests = duration.as_nanos() / interval.as_nanos();
        let schedule = Arc::new(Schedule {
            gateway,
            // When all clients wait for it.
            begin: Instant::now() + Duration::from_millis(200),
            interval,
            requests: requests.try_into().expect("no more than 2^32 requests"),
            paths,
            next: AtomicU32::new(0),
            kept,
        });
        let client = |_| {
            let schedule = Arc::clone(&schedule);
            thread::spawn(move || schedule.client())
        };
        Self { begin: schedule.begin, clients: (0..CLIENTS).map(client).collect() }
    }

    /// Waits for the last answer. A body that is not `right`, of those due at that time, is a
    /// failure too.
    fn finish(self, right: impl Fn(Instant, &str, &[u8]) -> bool) -> Vec<Sample> {
        let samples = self.clients.into_iter().flat_map(|client| client.join().unwrap());
        let judge = |mut sample: Sample| {
            if sample.body.as_ref().is_ok_and(|body| !right(sample.due, sample.path, body)) {
                sample.body =
                    Err("a wrong body, or an old one after REVALIDATE_SECONDS".to_owned());
            }
            sample
        };
        samples.map(judge).collect()
    }
}

impl Schedule {
    /// Takes one request after the other until there are none.
    fn client(&self) -> Vec<Sample> {
        let (mut samples, mut kept, mut bodies) = (Vec::new(), None, Vec::new());
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests {
                return samples;
            }
            let paths = usize::try_from(number).expect("64 bits");
            let path = self.paths[paths % self.paths.len()];
            let due = self.begin + self.interval * number;
            sleep_until(due);
            let late = due.elapsed();
            let body = if late > PATIENCE {
                Err("not sent, all clients waited for answers".to_owned())
            } else if (self.kept)(number) {
                self.over_kept(&mut kept, path).map_err(|error| show_error(&error))
            } else {
                let connection = connect(self.gateway);
                let body = connection.and_then(|mut it| get(&mut it, path, &[CLOSE]));
                body.map_err(|error| format!("on a new connection: {}", show_error(&error)))
            };
            let took = due.elapsed();
            let body = body.map(|body| one_of_its_kind(&mut bodies, body));
            samples.push(Sample { path, due, late, took, body });
        }
    }

    /// Over the connection that is kept, which is opened when there is none and given up when a
    /// request fails.
    fn over_kept(&self, kept: &mut Option<Connection>, path: &str) -> io::Result<Vec<u8>> {
        let mut connection = kept.take().map_or_else(|| connect(self.gateway), Ok)?;
        let body = get(&mut connection, path, &[])?;
        *kept = Some(connection);
        Ok(body)
    }
}

/// The equal one among `bodies`, so that thousands of answers take the memory of a few.
fn one_of_its_kind(bodies: &mut Vec<Arc<[u8]>>, body: Vec<u8>) -> Arc<[u8]> {
    let known = bodies.iter().find(|known| ***known == *body).cloned();
    known.unwrap_or_else(|| {
        bodies.push(body.into());
        bodies.last().cloned().unwrap_or_default()
    })
}

fn connect(gateway: SocketAddr) -> io::Result<Connection> {
    Connection::open(gateway, Instant::now() + PATIENCE)
}

/// The body of a 200; any other answer is an error.
fn get(connection: &mut Connection, path: &str, headers: &[(&str, &str)]) -> io::Result<Vec<u8>> {
    let response = connection.request("GET", path, headers, Instant::now() + PATIENCE)?;
    match response.status {
        200 => Ok(response.body),
        status => Err(io::Error::other(format!("status {status}"))),
    }
}

fn is_discovery(body: &[u8]) -> bool {
    let says = |name: &str, value: &str| {
        let document = serde_json::from_slice::<Value>(body).ok();
        document.is_some_and(|document| document.get(name).is_some_and(|it| it == value))
    };
    says("issuer", ISSUER) && says("jwks_uri", &format!("{ISSUER}{JWKS}"))
}

/// Whether `body` is a key set that begins with this key, which old ones may follow.
fn has_key(body: &[u8], kid: &str) -> bool {
    let keys = serde_json::from_slice::<Value>(body).ok();
    let kids = keys.as_ref().and_then(|set| set.get("keys")?.as_array());
    kids.and_then(|keys| keys.first()?.get("kid")).is_some_and(|it| it == kid)
}

/// One line for each phase, which lasts as long as it says; returns how many requests failed.
fn print_table(samples: &[Sample], begin: Instant, phases: &[(&str, Duration)]) -> usize {
    println!("latency from the time at which a request was due; late: until it was sent\n");
    println!(
        "{:<14}{:>8}{:>8}{:>8}{:>12}{:>12}{:>12}{:>12}",
        "phase", "seconds", "sent", "failed", "p50", "p99", "max", "late p99"
    );
    let mut from = begin;
    for (name, duration) in phases {
        let to = from + *duration;
        let phase: Vec<_> =
            samples.iter().filter(|sample| (from..to).contains(&sample.due)).collect();
        let took: Vec<_> = phase.iter().map(|sample| sample.took).collect();
        let late: Vec<_> = phase.iter().map(|sample| sample.late).collect();
        println!(
            "{name:<14}{:>8.1}{:>8}{:>8}{:>12}{:>12}{:>12}{:>12}",
            duration.as_secs_f64(),
            phase.len(),
            phase.iter().filter(|sample| sample.body.is_err()).count(),
            percentile(&took, 50),
            percentile(&took, 99),
            percentile(&took, 100),
            percentile(&late, 99),
        );
        from = to;
    }
    let mut faults = BTreeMap::<_, usize>::new();
    for fault in samples.iter().filter_map(|sample| sample.body.as_ref().err()) {
        *faults.entry(fault).or_default() += 1;
    }
    for (fault, count) in &faults {
        println!("failed {count} times: {fault}");
    }
    faults.values().sum()
}

/// The least of `times` that `percent` of them do not exceed.
fn percentile(times: &[Duration], percent: usize) -> String {
    let mut times = times.to_owned();
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times
        .get(rank)
        .map_or_else(|| "-".to_owned(), |time| format!("{:.3} ms", time.as_secs_f64() * 1000.0))
}

fn show_error(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return format!("no answer within {}", show_seconds(PATIENCE));
    }
    error.to_string()
}

fn show_seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// So many seconds times `SCALE`.
fn scaled(seconds: u64) -> Duration {
    Duration::from_secs(seconds).mul_f64(number("SCALE").unwrap_or(1.0))
}

/// A setting of the gateway in seconds.
fn seconds(name: &str, default: f64) -> String {
    number(name).unwrap_or(default).to_string()
}

fn number(name: &str) -> Option<f64> {
    let value = env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}
