//! Requests at a steady rate through the `NodePort`, as relying parties send them, and what became
//! of each.
//!
//! A request is lost when it gets no whole correct answer at its first try: nothing is sent again.
//! Half of them come on connections of their own, half on kept ones. A kept connection that was
//! closed while it was idle is opened anew, as any HTTP client does it; one that ends when a
//! request is on its way has lost that request.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use testing::client::{CLOSE, Connection, Response};
use testing::fake_api::{DISCOVERY, JWKS};

/// Of tests/kind/cluster.yaml.
pub(crate) const ISSUER: &str = "https://issuer.example.test";
/// The fixed `NodePort`, which kind brings to the loopback address.
const NODE_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 30080);

/// The last byte of 127.0.1.x, from which all connections come.
static SOURCE: AtomicU8 = AtomicU8::new(0);

/// From now on connections come from another address.
///
/// While a Service has no endpoints, the kernel of the node notes each refused connection, without
/// a way to a pod, and for two minutes refuses those that come from the same address and port,
/// whatever endpoints there are by then (`nf_conntrack_tcp_timeout_syn_sent`). A scenario must not
/// lose requests by what the one before it did.
pub(crate) fn come_from_another_address() {
    SOURCE.fetch_add(1, Ordering::Relaxed);
}

/// Requests a second in all.
const RATE: u32 = 100;
/// Threads of each of the two kinds; each sends at an even share of the rate.
const THREADS: u32 = 10;
/// For a whole exchange: what takes longer is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// One GET on a connection of its own.
pub(crate) fn get(path: &str) -> io::Result<Response> {
    get_at(NODE_PORT, path)
}

pub(crate) fn get_at(address: SocketAddr, path: &str) -> io::Result<Response> {
    ask(&mut connect(address)?, path, &[CLOSE])
}

pub(crate) fn connect_to_the_node_port() -> io::Result<Connection> {
    connect(NODE_PORT)
}

fn connect(address: SocketAddr) -> io::Result<Connection> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    let source = Ipv4Addr::new(127, 0, 1, SOURCE.load(Ordering::Relaxed).max(1));
    // Where only 127.0.0.1 is this machine's (macOS), all come from there.
    drop(socket.bind(&SocketAddr::from((source, 0)).into()));
    socket.connect_timeout(&address.into(), PATIENCE)?;
    Connection::over(socket.into())
}

/// One GET on this connection.
pub(crate) fn ask(
    connection: &mut Connection,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Response> {
    connection.request("GET", path, headers, Instant::now() + PATIENCE)
}

/// The body of an answer; null when it is not JSON.
pub(crate) fn json(answer: &Response) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// The body of an answer as text.
pub(crate) fn text(answer: &Response) -> String {
    String::from_utf8_lossy(&answer.body).trim_end().to_owned()
}

/// Whether the answer is the document of this path, as this cluster's relying parties need it.
fn check(answer: &Response, path: &str) -> io::Result<()> {
    let (json, content_type) = (json(answer), answer.header("Content-Type"));
    let good = match path {
        DISCOVERY => {
            content_type == Some("application/json")
                && json["issuer"] == ISSUER
                && json["jwks_uri"] == format!("{ISSUER}{JWKS}")
        }
        _ => {
            content_type == Some("application/jwk-set+json")
                && json["keys"].as_array().is_some_and(|keys| {
                    !keys.is_empty() && keys.iter().all(|key| key["kid"].is_string())
                })
        }
    };
    if answer.status == 200 && good {
        return Ok(());
    }
    let line = text(answer).lines().next().unwrap_or_default().to_owned();
    Err(io::Error::other(format!("{} {line}", answer.status)))
}

/// A request that got no whole correct answer.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) when: Instant,
    #[expect(dead_code, reason = "shown by Debug")]
    why: String,
}

/// What became of the requests.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) sent: usize,
    pub(crate) lost: Vec<Lost>,
    durations: Vec<Duration>,
    reopened: usize,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.reopened += other.reopened;
        self.lost.extend(other.lost);
        self.durations.extend(other.durations);
    }

    /// The duration that this share of the answered requests did not pass.
    fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "an index into some thousand durations"
        )]
        let at = (last as f64 * share) as usize;
        sorted.get(at).copied().unwrap_or_default()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, reopened, .. } = self;
        let ms = |share| self.quantile(share).as_secs_f64() * 1000.0;
        write!(
            out,
            "{sent} requests sent, {} lost; p50 {:.1} ms, p99 {:.1} ms, slowest {:.0} ms; \
             {reopened} kept connections opened anew",
            lost.len(),
            ms(0.5),
            ms(0.99),
            ms(1.0)
        )
    }
}

/// A load under way.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let outcome = Arc::new(Mutex::new(Outcome::default()));
        let begin = Instant::now();
        let pause = Duration::from_secs(1) * (2 * THREADS) / RATE;
        let threads = (0..2 * THREADS).map(|number| {
            let (stop, outcome) = (Arc::clone(&stop), Arc::clone(&outcome));
            let mut sender =
                Sender { keep: number % 2 == 0, kept: None, outcome: Outcome::default(), begin };
            let run = move || {
                let mut next = begin + pause * number / (2 * THREADS);
                for turn in usize::from(number < THREADS).. {
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    sender.send(if turn % 2 == 0 { DISCOVERY } else { JWKS });
                    // What an answer that took long kept from being sent is not made up for.
                    next = (next + pause).max(Instant::now());
                }
                outcome.lock().unwrap().add(sender.outcome);
            };
            thread::Builder::new().name(format!("load {number}")).spawn(run).unwrap()
        });
        Self { threads: threads.collect(), stop, outcome }
    }

    pub(crate) fn stop(mut self) -> Outcome {
        self.end();
        std::mem::take(&mut *self.outcome.lock().unwrap())
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

struct Sender {
    keep: bool,
    kept: Option<Connection>,
    outcome: Outcome,
    begin: Instant,
}

impl Sender {
    fn send(&mut self, path: &str) {
        let start = Instant::now();
        self.outcome.sent += 1;
        match self.exchange(path) {
            Ok(()) => self.outcome.durations.push(start.elapsed()),
            Err(error) => {
                let at = self.begin.elapsed().as_secs_f64();
                let how = if self.keep { "a kept" } else { "its own" };
                let why = format!("at {at:.1} s on {how} connection, {path}: {error}");
                self.outcome.lost.push(Lost { when: Instant::now(), why });
            }
        }
    }

    fn exchange(&mut self, path: &str) -> io::Result<()> {
        if !self.keep {
            return check(&get(path)?, path);
        }
        let mut connection = match self.kept.take() {
            Some(kept) if !kept.has_ended() => kept,
            was => {
                self.outcome.reopened += usize::from(was.is_some());
                connect_to_the_node_port()?
            }
        };
        let answer = ask(&mut connection, path, &[])?;
        if answer.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.outcome.reopened += 1;
        } else {
            self.kept = Some(connection);
        }
        check(&answer, path)
    }
}
