//! Starts the parts, waits for a signal or for a dead part, and stops them.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::iter;
use std::ops::Add;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cache::{Cache, Lifetimes};
use crate::config::{Config, MaxConnections, Mistakes};
use crate::documents::Publication;
use crate::front::{self, Counts};
use crate::http::reply::Asked;
use crate::logging;
use crate::refresher::Refresher;
use crate::server::{ListenError, Listener};
use crate::site::Site;
use crate::upstream::{self, CaError, Upstream};

/// Threads that answer here: an answer never waits, for upstream or for a client, so one would do;
/// with two, one that is held up by the kernel does not keep the kubelet from its answer.
const ADMIN_WORKERS: usize = 2;
/// Connections at most: kubelet, a scraper and an operator need few.
const ADMIN_CONNECTIONS: usize = 24;

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
pub(crate) enum Fatal {
    Arguments(lexopt::Error),
    Configuration(Mistakes),
    Ca(CaError),
    Listen(ListenError),
    Thread(io::Error),
    Dead(&'static str),
}

impl Fatal {
    pub(crate) const fn exit_code(&self) -> u8 {
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

/// The names of the signals that ask to stop, as they come.
pub(crate) fn listen_for_signals() -> io::Result<Receiver<&'static str>> {
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
pub(crate) struct Parts {
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
    pub(crate) fn start(config: Config) -> Result<Self, Fatal> {
        let Config { workers, shutdown_delay, shutdown_timeout, .. } = config;
        let upstream = Upstream::new(upstream::Settings {
            base: config.upstream_host,
            timeout: config.upstream_timeout,
            token_path: config.token_path,
            ca_path: config.ca_path,
        })
        .map_err(Fatal::Ca)?;
        let most = connection_limit(&config.max_connections);
        let mut public =
            Listener::open(config.listen_addr, config.listen_port, "LISTEN_PORT", "front", most)
                .map_err(Fatal::Listen)?;
        let admin = config.admin_port.map(|port| {
            Listener::open(
                config.admin_addr,
                port,
                "ADMIN_PORT",
                "admin-front",
                ADMIN_CONNECTIONS.min(most),
            )
        });
        let mut admin = admin.transpose().map_err(Fatal::Listen)?;

        let cache = Arc::new(Cache::new(
            Lifetimes { cache_ttl: config.cache_ttl, max_stale: config.max_stale },
            workers,
        ));
        let publication = Publication {
            jwks_uri: config.jwks_uri,
            discovery_defaults: config.discovery_defaults,
            layout: config.layout,
        };
        let refresher = Refresher::new(Arc::clone(&cache), upstream, publication);
        let refresher = thread::Builder::new()
            .name("refresher".to_owned())
            .spawn(|| refresher.run())
            .map_err(Fatal::Thread)?;

        let site = Arc::new(Site::new(cache, config.client_cache_ttl));
        let answers = Arc::clone(&site);
        public
            .serve("worker", workers, move |asked, wait| answers.answer(asked, wait), &site)
            .map_err(Fatal::Thread)?;
        if let Some(admin) = &mut admin {
            let answers = Arc::clone(&site);
            let answer = move |asked: &Asked<'_>, _: &mut dyn FnMut()| answers.admin(asked);
            admin.serve("admin", ADMIN_WORKERS, answer, &site).map_err(Fatal::Thread)?;
        }
        let admin_address =
            admin.as_ref().map_or_else(|| "off".to_owned(), |admin| admin.address().to_string());
        info!(public:% = public.address(), admin:% = admin_address; "listening");
        let told = Cell::new(0);
        Ok(Self { site, public, admin, refresher, shutdown_delay, shutdown_timeout, told })
    }

    /// Returns the signal that asks to stop, or an error when a part is dead.
    pub(crate) fn watch(&self, signals: &Receiver<&'static str>) -> Result<&'static str, Fatal> {
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
    pub(crate) fn stop(&self, signal: &str, signals: &Receiver<&'static str>) {
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
