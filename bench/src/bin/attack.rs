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

use std::collections::BTreeMap;
use std::env;
use std::ffi::c_short;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use libc::{POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDHUP, pollfd};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, Socket, Type};

use testing::client::{CLOSE, Connection, Response};
use testing::fake_api::{Answer, FakeApi, JWKS, large_key_set};
use testing::gateway::Gateway;

const MIB: u64 = 1 << 20;
/// The gateway's memory.
const LIMIT: u64 = 64 * MIB;
/// What it may use of that with the default connection limit.
const MOST_MEMORY: u64 = 48 * MIB;
/// By when threads and descriptors must be what they were.
const BACK_WITHIN: Duration = Duration::from_secs(70);
/// How long that is looked at.
const WATCHED: Duration = Duration::from_secs(75);
/// A polite request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);
const P99: Duration = Duration::from_millis(100);
/// Where more knock than the kernel queues, a SYN must be sent again, which is after one second.
const P99_WITH_A_SECOND_SYN: Duration = Duration::from_millis(1500);
/// A polite request of this time says that the attack is over for the polite.
const RECOVERED: Duration = Duration::from_millis(50);
/// How long a slow or idle client waits before it comes again, when it was shut out. Who comes
/// again at once is another attack: "connect and close".
const AGAIN: Duration = Duration::from_secs(1);
/// Threads that attack, and the addresses each comes from.
const THREADS: usize = 2;
const ADDRESSES: usize = 100;

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

// The attacks.

/// How many hostile connections do what, and what the gateway may take meanwhile.
struct Attack {
    name: &'static str,
    connections: usize,
    tactic: Tactic,
    /// More knock than the kernel queues, or there are places for.
    crowd: bool,
    /// The key set has 100 RSA keys.
    large: bool,
    /// When the attack ends the connections are left as they are, and not closed: the gateway's
    /// deadlines must end them.
    held: bool,
    descriptors: u32,
    /// `MAX_CONNECTIONS`, where it is not the default.
    most: Option<u32>,
    /// Threads at most, in a cgroup.
    pids: Option<u32>,
}

/// What one connection does, and all that follow it.
#[derive(Default)]
struct Tactic {
    /// Sent at once; each connection takes the next one.
    openings: Vec<Vec<u8>>,
    /// Sent after it, again and again.
    more: Vec<u8>,
    /// How long to wait before each `more`, or before each byte that is read.
    pace: Duration,
    reading: Reading,
    ending: Ending,
    /// How long after its end another takes its place.
    again: Duration,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    All,
    AByteAtATime,
    Never,
}

/// When a connection ends.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Ending {
    /// With the attack, unless the gateway ends it before; then another takes its place.
    #[default]
    Stays,
    /// As soon as the opening is sent.
    Close,
    /// The same, by RST.
    Reset,
}

fn attacks() -> Vec<Attack> {
    let mut all = vec![attack("no attack", 0, Tactic::default())];
    all.extend(slow());
    all.extend(long_heads());
    all.extend(floods());
    all.extend(crowds());
    all.extend(bodies());
    all.extend(odd_requests());
    all
}

fn attack(name: &'static str, connections: usize, tactic: Tactic) -> Attack {
    let (crowd, large, held) = (false, false, false);
    let (descriptors, most, pids) = (16_384, None, None);
    Attack { name, connections, tactic, crowd, large, held, descriptors, most, pids }
}

/// Clients that take long.
fn slow() -> Vec<Attack> {
    let drip = |opening: Vec<u8>, more: &str, pace| Tactic {
        openings: vec![opening],
        more: more.into(),
        pace: Duration::from_millis(pace),
        again: AGAIN,
        ..Tactic::default()
    };
    let begun = |length| format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(length));
    let reading = |reading, pace| Tactic {
        openings: vec![get("")],
        more: get(""),
        pace: Duration::from_millis(pace),
        reading,
        again: AGAIN,
        ..Tactic::default()
    };
    let body = format!("POST {JWKS} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    vec![
        Attack { held: true, ..attack("slow headers", 1000, drip(begun(0).into(), "x", 500)) },
        Attack {
            held: true,
            ..attack("slow headers, 14 KiB each", 1000, drip(begun(14 << 10).into(), "x", 500))
        },
        Attack {
            large: true,
            held: true,
            ..attack("never reading", 400, reading(Reading::Never, 100))
        },
        // More than there are places, who hold all that a connection can be made to hold: it is
        // about memory.
        Attack {
            crowd: true,
            large: true,
            held: true,
            ..attack(
                "never reading, junk behind",
                5000,
                Tactic {
                    openings: vec![[get(""), last_get()].concat()],
                    more: vec![b'x'; 65536],
                    ..reading(Reading::Never, 100)
                },
            )
        },
        Attack {
            crowd: true,
            held: true,
            ..attack("slow headers, 4 KiB, 5,000", 5000, drip(begun(4000).into(), "x", 500))
        },
        Attack {
            crowd: true,
            large: true,
            held: true,
            most: Some(5000),
            ..attack("4,000 never read (of 5,000)", 4000, reading(Reading::Never, 100))
        },
        Attack {
            crowd: true,
            held: true,
            most: Some(12_000),
            ..attack("10,000 drip (of 12,000)", 10_000, drip(begun(0).into(), "x", 500))
        },
        Attack {
            large: true,
            ..attack("reading a byte at a time", 100, reading(Reading::AByteAtATime, 10))
        },
        attack(
            "slow body",
            300,
            Tactic { again: Duration::from_millis(100), ..drip(body.into(), "x", 10) },
        ),
    ]
}

/// Clients whose heads are long, and more of them than there is room for.
fn long_heads() -> Vec<Attack> {
    let unprintable = "\u{e9}".repeat(128);
    let escaped = format!("Accept: {unprintable}\r\nUser-Agent: {unprintable}\r\n");
    let tags = format!("If-None-Match: \"{}\"\r\n", "x".repeat(1900));
    vec![
        // What is left behind a long head is short; all 3,000 at once may not have long ones.
        Attack {
            crowd: true,
            ..attack(
                "long heads, a byte behind each",
                3000,
                Tactic {
                    openings: vec![
                        [get(&format!("X: {}\r\n", "x".repeat(16_000))), b"G".to_vec()].concat(),
                    ],
                    again: AGAIN,
                    ..Tactic::default()
                },
            )
        },
        // Long heads, all at once, again and again: it is about memory.
        Attack {
            crowd: true,
            ..attack(
                "long heads in a pipeline",
                3000,
                Tactic {
                    openings: vec![get(&escaped).repeat(3)],
                    more: get(&tags),
                    pace: Duration::from_millis(800),
                    again: AGAIN,
                    ..Tactic::default()
                },
            )
        },
    ]
}

/// Clients that send or knock without end.
fn floods() -> Vec<Attack> {
    let endless = |opening: Vec<u8>, more: Vec<u8>| Tactic {
        openings: vec![opening],
        more,
        ..Tactic::default()
    };
    let once =
        |opening: Vec<u8>, ending| Tactic { openings: vec![opening], ending, ..Tactic::default() };
    let begun = format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\nX: ");
    let pipeline = get("").repeat(100);
    let unread = Tactic { reading: Reading::Never, ..endless(get(""), pipeline.clone()) };
    vec![
        attack("endless header line", 4, endless(begun.clone().into(), vec![b'x'; 65536])),
        // All that the kernel takes for those who wait to be accepted is the gateway's memory. They
        // come again as fast as both cores go.
        Attack {
            crowd: true,
            ..attack(
                "the same, 1,000 of them",
                1000,
                endless(begun.clone().into(), vec![b'x'; 65536]),
            )
        },
        attack("endless header lines", 4, endless(begun.into(), b"x\r\nX: ".repeat(10_000))),
        attack("pipelining, reading", 4, endless(get(""), pipeline)),
        Attack { large: true, ..attack("pipelining, not reading", 16, unread) },
        attack("reset without a request", 16, once(Vec::new(), Ending::Reset)),
        attack("reset after a request", 16, once(get(""), Ending::Reset)),
        Attack { crowd: true, ..attack("connect and close", 32, once(Vec::new(), Ending::Close)) },
    ]
}

/// More clients than there is room for.
fn crowds() -> Vec<Attack> {
    let silent =
        |opening: Vec<u8>| Tactic { openings: vec![opening], again: AGAIN, ..Tactic::default() };
    let crowd = |name, connections, opening: Vec<u8>| Attack {
        crowd: true,
        ..attack(name, connections, silent(opening))
    };
    // As `reading` in `slow`, but nobody is ever silent.
    let busy = Tactic {
        openings: vec![get("")],
        more: get(""),
        pace: Duration::from_millis(100),
        again: AGAIN,
        ..Tactic::default()
    };
    vec![
        Attack { crowd: true, ..attack("nobody is silent", 5000, busy) },
        // Each comes again as soon as it was evicted; those without a place are as many as the kernel
        // queues.
        Attack {
            crowd: true,
            ..attack(
                "new ones, all places taken",
                4000,
                Tactic { openings: vec![get("")], ..Tactic::default() },
            )
        },
        Attack {
            crowd: true,
            held: true,
            most: Some(12_000),
            ..attack("10,000 idle (of 12,000)", 10_000, silent(get("")))
        },
        Attack { held: true, ..crowd("idle after a request", 6000, get("")) },
        Attack { held: true, ..crowd("silent from the start", 6000, Vec::new()) },
        Attack { descriptors: 256, ..crowd("descriptors exhausted", 1000, get("")) },
        Attack { pids: Some(100), ..crowd("100 pids", 1000, get("")) },
    ]
}

/// Requests with a body, or that announce one.
fn bodies() -> Vec<Attack> {
    let huge = |length| get(&format!("Content-Length: {length}\r\n"));
    let post = |fields| format!("POST {JWKS} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes();
    let chunk = b"400\r\n".iter().copied().chain([b'x'; 0x400]).chain(*b"\r\n").collect();
    let chunked = Tactic {
        openings: vec![post("Transfer-Encoding: chunked")],
        more: chunk,
        ..Tactic::default()
    };
    vec![
        attack("Content-Length 1e14", 8, asking(vec![huge("100000000000000")])),
        attack("Content-Length 9e18", 8, asking(vec![huge("9000000000000000000")])),
        attack("Content-Length 2^64", 8, asking(vec![huge("18446744073709551616")])),
        attack("chunked without end", 8, chunked),
        attack(
            "Expect",
            8,
            asking(vec![
                post("Content-Length: 4\r\nExpect: 100-continue"),
                get("Expect: 100-continue\r\n"),
                get("Expect: something\r\n"),
            ]),
        ),
    ]
}

/// What is not quite, or not at all, a request for a document.
fn odd_requests() -> Vec<Attack> {
    let last = "Host: a\r\nConnection: close\r\n\r\n";
    let line = |line: &str| format!("{line}\r\n{last}").into_bytes();
    let target = |target: &str| line(&format!("GET {target} HTTP/1.1"));
    let path = |length| target(&format!("/{}", "a".repeat(length)));
    let upgrade = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // A record of a ClientHello, the rest of which is never looked at.
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &noise(500, 1)].concat();
    vec![
        attack("Upgrade", 8, asking(vec![get(upgrade)])),
        attack("garbage", 8, asking((1..=64).map(|seed| noise(400, seed)).collect())),
        attack("request smuggling shapes", 8, asking(smuggling())),
        attack(
            "absolute and asterisk targets",
            8,
            asking(vec![
                target(&format!("http://a{JWKS}")),
                target("http://a"),
                target("*"),
                line("OPTIONS * HTTP/1.1"),
                line("CONNECT a:443 HTTP/1.1"),
            ]),
        ),
        attack("very long paths", 8, asking(vec![path(8 << 10), path(16_000), path(100_000)])),
        attack("HTTP/0.9", 64, asking(vec![b"GET /\r\n".to_vec(), b"GET /\r\n\r\n".to_vec()])),
        attack("HTTP/1.0", 8, asking(vec![line(&format!("GET {JWKS} HTTP/1.0"))])),
        attack("HTTP/2 preface", 8, asking(vec![preface])),
        attack("TLS hello", 8, asking(vec![hello])),
    ]
}

/// Heads in which two readers could see two different requests: RFC 9112 §11.2.
fn smuggling() -> Vec<Vec<u8>> {
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let post =
        |rest: &str| format!("POST {JWKS} HTTP/1.1\r\nHost: a\r\n{rest}{inner}").into_bytes();
    vec![
        post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        post("Content-Length: 0\r\nContent-Length: 35\r\n\r\n"),
        post("X: a\nContent-Length: 35\r\n\r\n"),
        post("X: a\rContent-Length: 35\r\n\r\n"),
        post("X: a\r\n Content-Length: 35\r\n\r\n"),
        post("Content-Length : 35\r\n\r\n"),
        post("X: \0\r\nContent-Length: 35\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\n-1\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\n0;a=\n\r\n"),
        post("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ]
}

/// A request for the key set with these header lines.
fn get(fields: &str) -> Vec<u8> {
    format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

fn last_get() -> Vec<u8> {
    get("Connection: close\r\n")
}

/// Asks, reads the answer to the end of the connection, and asks the next: 2,000 times a second at
/// most with 8 connections. It is about what is asked; more would only fill the kernel's table of
/// connections, which then drops those of the polite as well.
fn asking(openings: Vec<Vec<u8>>) -> Tactic {
    Tactic { openings, again: Duration::from_millis(4), ..Tactic::default() }
}

/// Bytes of no meaning, the same in every run (xorshift).
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}

// One row.

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

    /// Attacks until `end`, and returns the connections that are open then.
    fn drive(&self, target: SocketAddr, end: Instant, thread: usize) -> (Tally, Vec<Socket>) {
        let mut tally = Tally::default();
        let mut places: Vec<Result<Hostile<'_>, Instant>> = Vec::new();
        places.resize_with(self.connections.div_ceil(THREADS), || Err(Instant::now()));
        let mut polled = Vec::with_capacity(places.len());
        let mut count = thread;
        while Instant::now() < end && !places.is_empty() && !is_over() {
            polled.clear();
            let now = Instant::now();
            let mut due = now + Duration::from_millis(50);
            for place in &mut places {
                if place.as_ref().is_err_and(|again| *again <= now) {
                    count += THREADS;
                    *place = Hostile::connect(target, &self.tactic, count).ok_or(now);
                    tally.opened += u64::from(place.is_ok());
                }
                let (fd, events) = place.as_ref().map_or((-1, 0), |hostile| {
                    (hostile.socket.as_raw_fd(), hostile.events(&self.tactic, now))
                });
                let next = *place.as_ref().map_or_else(|again| again, |hostile| &hostile.due);
                if next > now {
                    due = due.min(next);
                }
                polled.push(pollfd { fd, events, revents: 0 });
            }
            poll(&mut polled, due.saturating_duration_since(now));
            let now = Instant::now();
            for (place, polled) in places.iter_mut().zip(&polled) {
                if place.as_mut().is_ok_and(|hostile| {
                    !hostile.advance(&self.tactic, polled.revents, now, &mut tally)
                }) {
                    *place = Err(now + self.tactic.again);
                }
            }
        }
        (tally, places.into_iter().flatten().map(|hostile| hostile.socket).collect())
    }
}

/// What the hostile clients saw.
#[derive(Default)]
struct Tally {
    opened: u64,
    /// Connections that the gateway ended without a word.
    ended: u64,
    statuses: BTreeMap<u16, u64>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.ended += other.ended;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
    }

    fn show(&self) -> String {
        let mut parts: Vec<_> = self
            .statuses
            .iter()
            .map(|(status, count)| format!("{status}:{}", short(*count)))
            .collect();
        if self.ended > 0 {
            parts.push(format!("ended:{}", short(self.ended)));
        }
        if parts.is_empty() {
            format!("none ({} opened)", short(self.opened))
        } else {
            parts.join(" ")
        }
    }
}

fn short(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { format!("{}k", count / 1000) }
}

/// One hostile connection.
struct Hostile<'a> {
    socket: Socket,
    left: &'a [u8],
    /// When the next bytes may be sent, or the next byte read.
    due: Instant,
    /// The end of what was read, in which a status line may have begun.
    tail: Vec<u8>,
    answered: bool,
}

impl<'a> Hostile<'a> {
    /// None when the kernel has no port or descriptor for it now.
    fn connect(target: SocketAddr, tactic: &'a Tactic, count: usize) -> Option<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
        socket.set_nonblocking(true).ok()?;
        if tactic.reading != Reading::All {
            socket.set_recv_buffer_size(1024).ok()?;
        }
        // Below 127.1.0.0/16: 100 addresses of each thread.
        let host = u8::try_from(1 + count / THREADS % ADDRESSES).unwrap();
        let address = Ipv4Addr::new(127, 1, u8::try_from(count % THREADS).unwrap(), host);
        socket.bind(&SocketAddr::from((address, 0)).into()).ok()?;
        let connecting = socket.connect(&target.into());
        if connecting.is_err_and(|error| error.raw_os_error() != Some(libc::EINPROGRESS)) {
            return None;
        }
        let left = match tactic.openings.len() {
            0 => &[],
            openings => &tactic.openings[count / THREADS % openings][..],
        };
        Some(Self { socket, left, due: Instant::now(), tail: Vec::new(), answered: false })
    }

    /// What it waits for.
    fn events(&self, tactic: &Tactic, now: Instant) -> c_short {
        // The first POLLOUT also says that it is connected.
        let sends = !self.left.is_empty() || tactic.ending != Ending::Stays;
        let out = if sends && now >= self.due { POLLOUT } else { 0 };
        let read = match tactic.reading {
            Reading::All => POLLIN,
            Reading::AByteAtATime if now >= self.due => POLLIN,
            Reading::AByteAtATime | Reading::Never => 0,
        };
        out | read | POLLRDHUP
    }

    /// Does what can be done now; false when the connection has ended.
    fn advance(
        &mut self,
        tactic: &'a Tactic,
        ready: c_short,
        now: Instant,
        tally: &mut Tally,
    ) -> bool {
        let gone = ready & (POLLERR | POLLHUP | POLLRDHUP) != 0;
        let goes_on = match tactic.reading {
            Reading::All if ready & POLLIN != 0 || gone => self.read(65536, tally),
            Reading::AByteAtATime if ready & POLLIN != 0 && !gone => {
                self.due = now + tactic.pace;
                self.read(1, tally)
            }
            Reading::AByteAtATime | Reading::Never => !gone,
            Reading::All => true,
        };
        if !goes_on {
            tally.ended += u64::from(!self.answered);
            return false;
        }
        if ready & POLLOUT != 0 {
            // An error shows at the next look at the socket.
            let sent = (&self.socket).write(self.left).unwrap_or(0);
            self.left = &self.left[sent..];
        }
        if self.left.is_empty() {
            if ready & POLLOUT != 0 && tactic.ending != Ending::Stays {
                if tactic.ending == Ending::Reset {
                    let _ = self.socket.set_linger(Some(Duration::ZERO));
                }
                return false;
            }
            if !tactic.more.is_empty() {
                self.left = &tactic.more;
                self.due = self.due.max(now + tactic.pace);
            }
        }
        true
    }

    /// Reads what there is, at most `most` bytes at a time; false at the end of the connection.
    fn read(&mut self, most: usize, tally: &mut Tally) -> bool {
        let mut buffer = [0; 65536];
        match (&self.socket).read(&mut buffer[..most]) {
            Ok(0) => false,
            Ok(count) => {
                self.count_answers(&buffer[..count], tally);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }

    fn count_answers(&mut self, bytes: &[u8], tally: &mut Tally) {
        const START: &[u8] = b"HTTP/1.1 ";
        const LENGTH: usize = START.len() + 3;
        self.tail.extend_from_slice(bytes);
        for line in self.tail.windows(LENGTH).filter(|line| line.starts_with(START)) {
            let status =
                std::str::from_utf8(&line[START.len()..]).ok().and_then(|s| s.parse().ok());
            *tally.statuses.entry(status.unwrap_or(0)).or_default() += 1;
            self.answered = true;
        }
        self.tail.drain(..self.tail.len().saturating_sub(LENGTH - 1));
    }
}

// The polite clients.

/// What one polite client saw, or both together.
#[derive(Default)]
struct Polite {
    took: Vec<Duration>,
    /// When an answer came.
    served: Vec<Instant>,
    longest_gap: Duration,
    failures: Vec<String>,
    reconnects: usize,
}

impl Polite {
    fn both(alone: Self, kept: Self, end: Instant) -> Self {
        let gap = |client: &Self| {
            let gaps = client.served.windows(2).map(|two| two[1] - two[0]);
            let last = client.served.last().map(|last| end.saturating_duration_since(*last));
            gaps.chain(last).max().unwrap_or(Duration::MAX)
        };
        let longest_gap = gap(&alone).max(gap(&kept));
        let mut took = [alone.took, kept.took].concat();
        took.sort_unstable();
        let tell = |name, failures: Vec<String>| {
            failures.into_iter().map(move |why| format!("{name}: {why}")).collect::<Vec<_>>()
        };
        let failures =
            [tell("one request a connection", alone.failures), tell("kept alive", kept.failures)];
        Self {
            took,
            served: [alone.served, kept.served].concat(),
            longest_gap,
            failures: failures.concat(),
            reconnects: kept.reconnects,
        }
    }

    /// The least time that `percent` of the requests did not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.took.len() * percent).div_ceil(100).saturating_sub(1);
        self.took.get(rank).copied().unwrap_or(Duration::MAX)
    }
}

/// Ten requests a second until `end`.
fn polite(target: SocketAddr, end: Instant, keeps: bool, expected: &[u8]) -> Polite {
    let mut seen = Polite::default();
    let mut kept: Option<Connection> = None;
    let mut due = Instant::now();
    while due < end && !is_over() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let begin = Instant::now();
        let deadline = begin + PATIENCE;
        let mut outcome = None;
        if let Some(connection) = kept.take() {
            match ask(connection, deadline, true, expected) {
                // Closed between two requests, or by the time this one came: RFC 9112 §9.3.1.
                Err(Failure { unanswered: true, .. }) => seen.reconnects += 1,
                other => outcome = Some(other),
            }
        }
        let outcome = outcome.unwrap_or_else(|| {
            let connection = Connection::open(target, deadline).map_err(|error| Failure {
                what: format!("no connection: {error}"),
                unanswered: false,
            })?;
            ask(connection, deadline, keeps, expected)
        });
        seen.took.push(begin.elapsed());
        match outcome {
            Ok(connection) => {
                seen.served.push(Instant::now());
                kept = keeps.then_some(connection);
            }
            Err(failure) => seen.failures.push(failure.what),
        }
        // After a long wait it does not catch up: it is one polite client.
        due = (due + Duration::from_millis(100)).max(Instant::now());
    }
    seen
}

struct Failure {
    what: String,
    /// The connection ended, and not a byte had come.
    unanswered: bool,
}

/// One request; the whole answer must be 200 and `expected`.
fn ask(
    mut connection: Connection,
    deadline: Instant,
    keep: bool,
    expected: &[u8],
) -> Result<Connection, Failure> {
    let headers = if keep { &[][..] } else { &[CLOSE] };
    let failed = |what: String| Err(Failure { what, unanswered: false });
    match connection.request("GET", JWKS, headers, deadline) {
        Ok(Response { status: 200, body, .. }) if body == expected => Ok(connection),
        Ok(Response { status: 200, .. }) => failed("a wrong document".to_owned()),
        Ok(response) => failed(format!("status {}", response.status)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            failed("no answer in time".to_owned())
        }
        Err(error) => {
            Err(Failure { what: error.to_string(), unanswered: connection.received() == 0 })
        }
    }
}

/// The time from now until a polite request was quick.
fn recovery(target: SocketAddr, expected: &[u8]) -> Option<Duration> {
    let attacked = Instant::now();
    while attacked.elapsed() < BACK_WITHIN && !is_over() {
        let begin = Instant::now();
        let deadline = begin + PATIENCE;
        let connection = Connection::open(target, deadline);
        let served = connection.is_ok_and(|it| ask(it, deadline, false, expected).is_ok());
        if served && begin.elapsed() < RECOVERED {
            return Some(attacked.elapsed());
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

// The table.

struct Row<'a> {
    attack: &'a Attack,
    tally: Tally,
    polite: Polite,
    recovery: Option<Duration>,
    before: Counts,
    /// The last look, and how long after the attack it was.
    after: (Counts, Duration),
}

fn print_head(api: &FakeApi) {
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
    fn print(&self, peak: Option<Peak>) {
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
    fn broken(&self, target: &Target) -> Vec<String> {
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

// The gateway.

/// A gateway that is attacked. Its cgroups are removed after it has ended.
struct Target {
    gateway: Gateway,
    memory: Option<Cgroup>,
    pids: Option<Cgroup>,
}

/// Bytes, each at its worst moment.
#[derive(Clone, Copy)]
struct Peak {
    /// What the cgroup counts: resident, page cache, and the kernel's for sockets and descriptors.
    all: u64,
    /// The kernel's for the data of TCP connections, which version 1 counts for itself.
    sockets: u64,
    /// Of the process alone.
    resident: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Counts {
    threads: usize,
    descriptors: usize,
}

impl Counts {
    const fn within(self, most: Self) -> bool {
        self.threads <= most.threads && self.descriptors <= most.descriptors
    }
}

impl Target {
    /// Starts it in front of `api`, in cgroups of its own where they can be made.
    fn start(api: &FakeApi, descriptors: u32, most: Option<u32>, pids: Option<u32>) -> Self {
        // The kernel counts what it keeps for sockets for itself, where a limit is set (v1).
        let memory = Cgroup::make(
            "memory",
            LIMIT,
            &["memory.max"],
            &["memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"],
        );
        let pids = pids
            .and_then(|most| Cgroup::make("pids", u64::from(most), &["pids.max"], &["pids.max"]));
        // A process enters its cgroups before it becomes the gateway, so that all is counted.
        let script = "for cgroup in $ENTER; do echo $$ >\"$cgroup/cgroup.procs\" || exit; done; \
                      ulimit -n \"$1\" && exec \"$0\"";
        let enter: Vec<_> =
            memory.iter().chain(&pids).map(|cgroup| cgroup.0.to_str().unwrap()).collect();
        let gateway = Gateway::builder(api)
            .quiet()
            .set("ENTER", enter.join(" "))
            .set("MAX_CONNECTIONS", most.map_or_else(String::new, |most| most.to_string()))
            .under(&["sh", "-c", script])
            .arg(&descriptors.to_string())
            .start();
        Self { gateway, memory, pids }
    }

    /// What the well-behaved clients should get.
    fn document(&self) -> Vec<u8> {
        let response = self.gateway.get(JWKS);
        assert_eq!(response.status, 200, "{}", response.text());
        response.body
    }

    /// The counts once they have not changed for half a second.
    fn settled(&self) -> Counts {
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

    /// Looks until the counts are what they were `before`, and a little longer than they may take.
    fn watch(&self, before: Counts) -> (Counts, Duration) {
        let begin = Instant::now();
        loop {
            let now = self.counts();
            let took = begin.elapsed();
            if now.within(before) || took > WATCHED || is_over() {
                return (now, took);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn counts(&self) -> Counts {
        let count = |name: &str| fs::read_dir(self.proc(name)).map_or(0, Iterator::count);
        Counts { threads: count("task"), descriptors: count("fd") }
    }

    /// The most memory that it has used so far.
    fn peak(&self) -> Option<Peak> {
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

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.gateway.pid())
    }

    /// The last lines that it logged.
    fn print_log(&self) {
        let log = self.gateway.log();
        let lines: Vec<_> = log.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(12)).for_each(|line| println!("    | {line}"));
    }
}

/// A control group of one controller, below the one that this program is in; removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// None where it cannot be made. `v2` and `v1` are the files that take the limit.
    fn make(controller: &str, limit: u64, v2: &[&str], v1: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let root = Path::new("/sys/fs/cgroup");
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            controllers.split(',').any(|name| name == controller).then_some(path)
        });
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("kube-issuer-gateway-{}-{number}", std::process::id());
        let (parent, files) = match own {
            Some(path) => (root.join(controller).join(path.trim_start_matches('/')), v1),
            None => (unified(root)?, v2),
        };
        fs::create_dir(parent.join(&name)).ok()?;
        let cgroup = Self(parent.join(name));
        let set = |file: &&str| fs::write(cgroup.0.join(file), limit.to_string());
        files.iter().all(|file| set(file).is_ok()).then_some(cgroup)
    }
}

/// The cgroup of v2 that this program is in.
fn unified(root: &Path) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    root.join("cgroup.controllers").exists().then(|| root.join(path))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel may need a moment after the end of the last process in it.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        eprintln!("attack: cannot remove {}", self.0.display());
    }
}

// What std does not have.

/// As many descriptors as this process may have: each hostile connection is one.
fn raise_descriptors() {
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
fn wait_for_conntrack() {
    let read = |name| {
        let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"));
        text.ok()?.trim().parse::<u64>().ok()
    };
    let Some(most) = read("max") else { return };
    while read("count").is_some_and(|count| count > most / 2) && !is_over() {
        thread::sleep(Duration::from_millis(100));
    }
}

fn poll(polled: &mut [pollfd], timeout: Duration) {
    let count = libc::nfds_t::try_from(polled.len()).unwrap();
    let timeout = i32::try_from(timeout.as_micros().div_ceil(1000)).unwrap();
    // SAFETY: the pointer and the count are of one slice.
    unsafe { libc::poll(polled.as_mut_ptr(), count, timeout) };
}
