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
//! - `door` is who is let in: it stands before `tiny_http`, by the C symbols of `os`, and lets it see
//!   whole heads only, checked by `head`;
//! - `logging` writes lines.
//!
//! The core (`routes`, `reply`, `documents`, `head`) is pure; threads, sockets and locks are around it.
//! This file starts the parts, waits for a signal or for a dead part, and stops them. Exit codes:
//! 0 after SIGTERM or SIGINT, 2 for a bad configuration, 1 for anything else.

mod config;
mod server;
mod admin;
mod routes;
mod reply;
mod cache;
mod documents;
mod upstream;
mod door;
mod head;
mod logging;
mod os;

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write as _};
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
use crate::config::{Config, Mistakes, SETTINGS};
use crate::door::NotInEffect;
use crate::server::{ListenError, Listener, Site};
use crate::upstream::{CaError, Upstream};

/// How often main looks whether all parts live: a dead one ends the program within a second.
const WATCH: Duration = Duration::from_millis(400);
/// How often the log says what the door has counted, if it kept anybody out.
const TELL_COUNTS: Duration = Duration::from_secs(60);
/// How long nobody must have come for all to have turned to others: a cluster may be slower to
/// tell them than `SHUTDOWN_DELAY_SECONDS`, and who comes later is refused.
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
    Door(NotInEffect),
    Dead(&'static str),
}

impl Fatal {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) | Self::Configuration(_) | Self::Ca(_) => 2,
            Self::Listen(_) | Self::Thread(_) | Self::Door(_) | Self::Dead(_) => 1,
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
            Self::Door(error) => write!(out, "{error}"),
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
}

impl Parts {
    fn start(config: Config) -> Result<Self, Fatal> {
        let Config { lifetimes, workers, shutdown_delay, shutdown_timeout, .. } = config;
        let upstream = Upstream::new(config.upstream).map_err(Fatal::Ca)?;
        let public = Listener::open(config.public, "LISTEN_PORT", config.max_connections)
            .map_err(Fatal::Listen)?;
        let admin = config
            .admin
            .map(|listen| Listener::open(listen, "ADMIN_PORT", admin::MAX_CONNECTIONS))
            .transpose();
        let admin = admin.map_err(Fatal::Listen)?;

        let cache = Arc::new(Cache::new(lifetimes, workers));
        let refresher = Refresher::new(Arc::clone(&cache), upstream, config.publication);
        let refresher = thread::Builder::new()
            .name("refresher".to_owned())
            .spawn(|| refresher.run())
            .map_err(Fatal::Thread)?;

        let site = Arc::new(Site::new(cache, lifetimes.client_cache_ttl));
        let answers = Arc::clone(&site);
        public
            .serve("worker", workers, move |asked| answers.answer(asked), &site)
            .map_err(Fatal::Thread)?;
        if let Some(admin) = &admin {
            let answers = Arc::clone(&site);
            admin
                .serve("admin", admin::WORKERS, move |asked| admin::answer(&answers, asked), &site)
                .map_err(Fatal::Thread)?;
        }
        let listeners = [Some(&public), admin.as_ref()].into_iter().flatten();
        door::prove(listeners.map(Listener::address)).map_err(Fatal::Door)?;
        let admin_address =
            admin.as_ref().map_or_else(|| "off".to_owned(), |admin| admin.address().to_string());
        info!(public:% = public.address(), admin:% = admin_address; "listening");
        Ok(Self { site, public, admin, refresher, shutdown_delay, shutdown_timeout })
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
                door::tell_counts();
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

    /// Goes on serving for `SHUTDOWN_DELAY`, while whoever reads /readyz turns to others; then, when
    /// they have, lets nobody in any more and waits until nothing is under way. A second signal ends both.
    fn stop(&self, signal: &str, signals: &Receiver<&'static str>) {
        self.site.stop();
        info!(signal, delay:? = self.shutdown_delay; "stopping");
        let begin = Instant::now();
        let close_up_by = begin + self.shutdown_delay + self.shutdown_timeout / 2;
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
        let serves_on = || {
            begin.elapsed() < self.shutdown_delay
                || (Instant::now() < close_up_by && self.public.has_newcomer(TURNED_AWAY))
        };
        let finishes = || {
            quiet.set(door::is_quiet());
            !quiet.get() && Instant::now() < deadline
        };
        let is_signalled = is_signalled_while(&serves_on) || {
            self.public.close_up();
            is_signalled_while(&finishes)
        };
        logging::tell_left_out();
        door::tell_counts();
        if is_signalled {
            warn!("stopped at once by a second signal");
        } else if quiet.get() {
            info!("stopped");
        } else {
            warn!("stopped while requests were under way, after SHUTDOWN_TIMEOUT_SECONDS");
        }
    }
}
