//! kube-issuer-gateway: serves a Kubernetes cluster's OIDC discovery document and JWKS to those
//! outside who are to trust its service account tokens.
//!
//! The program in the order in which to read it:
//!
//! - `config` parses the environment, once;
//! - `server` and `admin` answer requests: `routes` says what is asked for, `reply` makes the
//!   bytes;
//! - `cache` holds both documents, and its refresher fetches them anew in the background;
//! - `documents` is the gate: what is let out, and in what form;
//! - `upstream` is the API server;
//! - `front` owns the clients' sockets and all limits on them; `tiny_http` stands behind it and sees
//!   whole, checked request heads only;
//! - `logging` writes lines.
//!
//! The core (`routes`, `reply`, `documents`, and the front's `admission` and `head`) is pure;
//! threads, sockets and locks are around it.
//! This file starts the parts, waits for a signal or for a dead part, and stops them. Exit codes:
//! 0 after SIGTERM or SIGINT, 2 for a bad configuration, 1 for anything else.

mod config;
mod server;
mod admin;
mod cache;
mod documents;
mod json;
mod url;
mod reason;
mod upstream;
mod http;
mod front;
mod logging;

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write as _};
use std::iter;
use std::ops::Add;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lexopt::Arg;
use log::{error, info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cache::{Cache, Refresher};
use crate::config::{Config, MaxConnections, Mistakes, SETTINGS};
use crate::front::Counts;
use crate::http::reply::Asked;
use crate::server::{ListenError, Listener, Site};
use crate::upstream::{CaError, Upstream};

/// How often main looks whether all parts live: a dead one ends the program within a second.
const WATCH: Duration = Duration::from_millis(400);
/// How often the log says what the fronts have counted, if they refused or closed any.
const TELL_COUNTS: Duration = Duration::from_secs(60);
/// A second without a new connection means that every endpoint list has been updated: a cluster
/// may be slower to do so than `SHUTDOWN_DELAY_SECONDS`.
const TURNED_AWAY: Duration = Duration::from_secs(1);
/// How often a stop looks whether anything is under way.
const QUIET: Duration = Duration::from_millis(50);

/// Why the program ends without having been asked to.
enum Fatal {
    Arguments(lexopt::Error),
    Configuration(Mistakes),
    Ca(CaError),
    Listen(ListenError),
    Thread(io::Error),
    Dead(&'static str),
}

impl Fatal {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) | Self::Configuration(_) | Self::Ca(_) => 2,
            Self::Listen(_) | Self::Thread(_) | Self::Dead(_) => 1,
        }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(error) => write!(out, "{error}; --help says what there is"),
            Self::Configuration(mistakes) => out.write_str(&mistakes.sentences.join("; ")),
            Self::Ca(error) => write!(out, "{error}"),
            Self::Listen(error) => write!(out, "{error}"),
            Self::Thread(error) => write!(out, "cannot start a thread or signal handler: {error}"),
            Self::Dead(part) => write!(out, "{part} has ended, which must not happen"),
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            if let Fatal::Configuration(mistakes) = &fatal {
                mistakes.sentences.iter().for_each(|mistake| error!("{mistake}"));
            } else {
                error!("{fatal}");
            }
            ExitCode::from(fatal.exit_code())
        }
    }
}

/// Until a signal asks to stop.
fn run() -> Result<(), Fatal> {
    let config = Config::from_environment();
    logging::start(match &config {
        Ok(config) => &config.log,
        Err(mistakes) => &mistakes.log,
    });
    if answered_by_arguments().map_err(Fatal::Arguments)? {
        return Ok(());
    }
    let config = config.map_err(Fatal::Configuration)?;

    // The signals first: from here on none of them ends the process half way.
    let signals = listen_for_signals().map_err(Fatal::Thread)?;
    let parts = Parts::start(config)?;
    let signal = parts.watch(&signals)?;
    parts.stop(signal, &signals);
    Ok(())
}

/// Whether the command line asked for a text instead of the program; an unknown one is an error.
fn answered_by_arguments() -> Result<bool, lexopt::Error> {
    let mut arguments = lexopt::Parser::from_env();
    let mut answered = false;
    while let Some(argument) = arguments.next()? {
        let text = match argument {
            Arg::Long("help") | Arg::Short('h') => help(),
            Arg::Long("version") | Arg::Short('V') => {
                concat!("kube-issuer-gateway ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
            }
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        };
        // Whoever closed our output early wants no more of it.
        let _ = io::stdout().write_all(text.as_bytes());
        answered = true;
    }
    Ok(answered)
}

fn help() -> String {
    let mut text = "Serves a Kubernetes cluster's OIDC discovery document and JWKS.\n\n\
                    usage: kube-issuer-gateway [--help | --version]\n\n\
                    Settings are environment variables, all optional; empty means unset.\n\n"
        .to_owned();
    for setting in &SETTINGS {
        text.push_str(&format!("  {}", setting.name));
        if let Some(old_name) = setting.old_name {
            text.push_str(&format!(" (or {old_name})"));
        }
        text.push_str(&format!("\n      {}\n      {}", setting.meaning, setting.must_be));
        if !setting.default.is_empty() {
            text.push_str(&format!("; default {}", setting.default));
        }
        text.push('\n');
    }
    text
}

/// The names of the signals that ask to stop, as they come.
fn listen_for_signals() -> io::Result<Receiver<&'static str>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
            if sender.send(name).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

/// What runs.
struct Parts {
    site: Arc<Site>,
    public: Listener,
    admin: Option<Listener>,
    refresher: JoinHandle<()>,
    shutdown_delay: Duration,
    shutdown_timeout: Duration,
    /// How many connections were refused or closed when the log last said so.
    told: Cell<u64>,
}

impl Parts {
    fn start(config: Config) -> Result<Self, Fatal> {
        let Config { lifetimes, workers, shutdown_delay, shutdown_timeout, .. } = config;
        let upstream = Upstream::new(config.upstream).map_err(Fatal::Ca)?;
        let most = connection_limit(&config.max_connections);
        let mut public =
            Listener::open(config.public, "LISTEN_PORT", "front", most).map_err(Fatal::Listen)?;
        let admin = config.admin.map(|listen| {
            Listener::open(listen, "ADMIN_PORT", "admin-front", admin::MAX_CONNECTIONS.min(most))
        });
        let mut admin = admin.transpose().map_err(Fatal::Listen)?;

        let cache = Arc::new(Cache::new(lifetimes, workers));
        let refresher = Refresher::new(Arc::clone(&cache), upstream, config.publication);
        let refresher = thread::Builder::new()
            .name("refresher".to_owned())
            .spawn(|| refresher.run())
            .map_err(Fatal::Thread)?;

        let site = Arc::new(Site::new(cache, lifetimes.client_cache_ttl));
        let answers = Arc::clone(&site);
        public
            .serve("worker", workers, move |asked, wait| answers.answer(asked, wait), &site)
            .map_err(Fatal::Thread)?;
        if let Some(admin) = &mut admin {
            let answers = Arc::clone(&site);
            let answer =
                move |asked: &Asked<'_>, _: &mut dyn FnMut()| admin::answer(&answers, asked);
            admin.serve("admin", admin::WORKERS, answer, &site).map_err(Fatal::Thread)?;
        }
        let admin_address =
            admin.as_ref().map_or_else(|| "off".to_owned(), |admin| admin.address().to_string());
        info!(public:% = public.address(), admin:% = admin_address; "listening");
        let told = Cell::new(0);
        Ok(Self { site, public, admin, refresher, shutdown_delay, shutdown_timeout, told })
    }

    /// Returns the signal that asks to stop, or an error when a part is dead.
    fn watch(&self, signals: &Receiver<&'static str>) -> Result<&'static str, Fatal> {
        let mut counts_told = Instant::now();
        loop {
            match signals.recv_timeout(WATCH) {
                Ok(signal) => return Ok(signal),
                Err(RecvTimeoutError::Timeout) => logging::tell_left_out(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Fatal::Dead("the signal handler"));
                }
            }
            if counts_told.elapsed() >= TELL_COUNTS {
                counts_told = Instant::now();
                self.tell_counts();
            }
            if !self.public.is_alive() {
                return Err(Fatal::Dead("the public listener"));
            }
            if self.admin.as_ref().is_some_and(|admin| !admin.is_alive()) {
                return Err(Fatal::Dead("the admin listener"));
            }
            if self.refresher.is_finished() {
                return Err(Fatal::Dead("the refresher"));
            }
        }
    }

    /// Logs what the fronts have counted, if they refused or closed any connection since the last
    /// time.
    fn tell_counts(&self) {
        let reports: Option<Vec<_>> = self.listeners().map(Listener::report).collect();
        // A front that has ended, or is held up, would make the sum go back.
        let Some(reports) = reports else { return };
        let counts =
            reports.into_iter().map(|report| report.counts).fold(Counts::default(), Add::add);
        if self.told.replace(counts.shut_out()) != counts.shut_out() {
            counts.log();
        }
    }

    fn listeners(&self) -> impl Iterator<Item = &Listener> {
        iter::once(&self.public).chain(&self.admin)
    }

    /// Goes on serving for `SHUTDOWN_DELAY`, while load balancers that read /readyz turn to other
    /// pods; then, when they have, accepts no connection any more and waits until nothing is under
    /// way. A second signal ends both.
    fn stop(&self, signal: &str, signals: &Receiver<&'static str>) {
        self.site.stop();
        info!(signal, delay:? = self.shutdown_delay; "stopping");
        let begin = Instant::now();
        let stop_accepting_by = begin + self.shutdown_delay + self.shutdown_timeout / 2;
        let deadline = begin + self.shutdown_delay + self.shutdown_timeout;
        let (quiet, mut told) = (Cell::new(false), begin);
        let mut is_signalled_while = |goes_on: &dyn Fn() -> bool| {
            while goes_on() {
                if told.elapsed() >= WATCH {
                    told = Instant::now();
                    logging::tell_left_out();
                }
                if signals.recv_timeout(QUIET).is_ok() {
                    return true;
                }
            }
            false
        };
        let is_new = |at: Instant| at.elapsed() < TURNED_AWAY;
        let serves_on = || {
            begin.elapsed() < self.shutdown_delay
                || (Instant::now() < stop_accepting_by
                    && self
                        .public
                        .report()
                        .and_then(|report| report.last_accepted)
                        .is_some_and(is_new))
        };
        let finishes = || {
            // A front that has ended has nothing under way.
            quiet.set(self.listeners().all(|it| it.report().is_none_or(|report| report.is_quiet)));
            !quiet.get() && Instant::now() < deadline
        };
        let is_signalled = is_signalled_while(&serves_on) || {
            self.public.stop_accepting();
            is_signalled_while(&finishes)
        };
        logging::tell_left_out();
        self.tell_counts();
        if is_signalled {
            warn!("stopped at once by a second signal");
        } else if quiet.get() {
            info!("stopped");
        } else {
            warn!("stopped while requests were under way, after SHUTDOWN_TIMEOUT_SECONDS");
        }
    }
}

/// As many connections as are wanted, or as there are descriptors for.
fn connection_limit(wanted: &MaxConnections) -> usize {
    let allowed = wanted.most.min(front::affordable_connections());
    if wanted.is_given && allowed < wanted.most {
        warn!(
            allowed, wanted = wanted.most,
            hint = "raise the hard limit of descriptors (ulimit -Hn), or lower MAX_CONNECTIONS";
            "fewer connections than wanted"
        );
    }
    allowed
}
