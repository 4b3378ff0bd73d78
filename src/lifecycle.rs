//! The life of the program: starts its parts, watches them, and stops them.
//!
//! Nothing here repairs a part: when one ends unexpectedly the program ends, and Kubernetes
//! restarts it.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::iter;
use std::ops::Add;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use log::{info, warn};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::admin::Admin;
use crate::cache::{Cache, Lifetimes};
use crate::config::{Config, MaxConnections};
use crate::documents::{self, Publication};
use crate::front::{self, Counts, TooFewDescriptors};
use crate::http::Request;
use crate::http::routes::Paths;
use crate::logging;
use crate::logging::line::milliseconds;
use crate::metrics::Metrics;
use crate::refresher::{Expectations, Intervals, Refresher};
use crate::server::{ListenError, Listener};
use crate::site::{ClientLifetimes, Site};
use crate::upstream::{self, CaError, Upstream};

/// Workers of the admin listener. The second answers the kubelet's probes while the first makes a page, or is
/// waiting for CPU time.
const ADMIN_WORKERS: usize = 2;
/// The connection limit of the admin listener: kubelet, a scraper and an operator need few.
const ADMIN_CONNECTIONS: usize = 24;
/// How often the parts are checked: when one has ended, the program ends within a second.
const CHECK_EVERY: Duration = Duration::from_millis(400);
/// How often it is logged how many lines were suppressed.
const LOG_SUPPRESSED_EVERY: Duration = Duration::from_secs(10);
/// How often the counts of the fronts are logged, if any connection was refused or closed since.
const LOG_COUNTS_EVERY: Duration = Duration::from_secs(60);
/// A second without a new connection means that every endpoint list has been updated: a cluster
/// may be slower to do so than `SHUTDOWN_DELAY_SECONDS`.
const NO_CONNECTION_FOR: Duration = Duration::from_secs(1);
/// How often a stop checks whether any request is in progress.
const CHECK_STOP_EVERY: Duration = Duration::from_millis(50);

/// Why the parts could not be started, or one of them ended.
#[derive(Debug)]
pub(crate) enum Error {
    /// The CA file cannot be used at start.
    Ca(CaError),
    Descriptors(TooFewDescriptors),
    Listen(ListenError),
    Metrics(prometheus::Error),
    /// A thread or the signal handler cannot be started.
    Thread(io::Error),
    /// The name of the part.
    Dead(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca(error) => write!(out, "{error}"),
            Self::Descriptors(error) => write!(out, "{error}"),
            Self::Listen(error) => write!(out, "{error}"),
            Self::Metrics(error) => write!(out, "cannot count: {error}"),
            Self::Thread(error) => write!(out, "cannot start a thread or signal handler: {error}"),
            Self::Dead(part) => write!(out, "{part} has ended unexpectedly"),
        }
    }
}

/// Starts the thread that receives SIGTERM and SIGINT, and returns their names as they arrive. An
/// error when the handler or the thread cannot be started.
pub(crate) fn listen_for_signals() -> Result<Receiver<&'static str>, Error> {
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(Error::Thread)?;
    let (sender, receiver) = mpsc::channel();
    let forward = move || {
        for signal in signals.forever() {
            let name = if signal == SIGTERM { "SIGTERM" } else { "SIGINT" };
            if sender.send(name).is_err() {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(forward).map_err(Error::Thread)?;
    Ok(receiver)
}

/// The parts that are running.
pub(crate) struct Parts {
    site: Arc<Site>,
    public: Listener,
    admin: Option<Listener>,
    refresher: JoinHandle<()>,
    shutdown_delay: Duration,
    shutdown_timeout: Duration,
    /// [`Counts::total_closed`] when the counts were last logged.
    logged_total: Cell<u64>,
    /// When it was last logged how many lines were suppressed.
    suppressed_logged: Cell<Instant>,
}

/// How the wait for requests in progress ended.
enum Stopped {
    /// No request is in progress.
    Quiet,
    TimedOut,
    BySecondSignal,
}

impl Parts {
    /// Opens the listeners and starts all threads. An error when the CA file cannot be used, or a
    /// listener or thread cannot be had.
    pub(crate) fn start(config: Config) -> Result<Self, Error> {
        let started = SystemTime::now();
        let Config { workers, shutdown_delay, shutdown_timeout, .. } = config;
        let max_connections =
            connection_limit(&config.max_connections).map_err(Error::Descriptors)?;
        let upstream = Upstream::new(upstream::Settings {
            base: config.upstream_host,
            address: config.upstream_address,
            timeout: config.upstream_timeout,
            token_path: config.token_path,
            ca_path: config.ca_path,
        });
        let upstream = upstream.map_err(Error::Ca)?;
        let mut public = Listener::open(
            config.listen_addr,
            config.listen_port,
            "LISTEN_PORT",
            "front",
            max_connections,
        )
        .map_err(Error::Listen)?;
        let admin = config.admin_port.map(|port| {
            let max_connections = ADMIN_CONNECTIONS.min(max_connections);
            Listener::open(config.admin_addr, port, "ADMIN_PORT", "admin-front", max_connections)
        });
        let mut admin = admin.transpose().map_err(Error::Listen)?;

        let Config { cache_ttl, max_stale, revalidate, .. } = config;
        let lifetimes = Lifetimes { cache_ttl, max_stale, revalidate };
        let paths = config.issuer.as_ref().map_or_else(Paths::default, |expected| {
            let (issuer, jwks) = documents::known_paths(expected, &config.jwks_uri);
            Paths { issuer, jwks }
        });
        let cache = Arc::new(Cache::new(lifetimes, workers, paths));
        let metrics = Arc::new(Metrics::new().map_err(Error::Metrics)?);
        let publication = Publication {
            jwks_uri: config.jwks_uri,
            discovery_defaults: config.discovery_defaults,
            layout: config.layout,
        };
        let intervals = Intervals { cache_ttl, revalidate };
        let expectations =
            Expectations { issuer: config.issuer, own_token: config.own_token_check };
        let refresher = Refresher::new(
            Arc::clone(&cache),
            Arc::clone(&metrics),
            upstream,
            publication,
            intervals,
            config.key_grace,
            expectations,
        );
        let thread = thread::Builder::new().name("refresher".to_owned());
        let refresher = thread.spawn(|| refresher.run()).map_err(Error::Thread)?;

        let client_lifetimes =
            ClientLifetimes { private: config.client_cache_ttl, shared: config.shared_cache_ttl };
        let site = Arc::new(Site::new(cache, client_lifetimes));
        let pages = Pages { metrics, settings: config.changed, started };
        serve(&mut public, workers, admin.as_mut(), &site, pages).map_err(Error::Thread)?;
        let admin_address =
            admin.as_ref().map_or_else(|| "off".to_owned(), |admin| admin.address().to_string());
        info!(public:% = public.address(), admin:% = admin_address; "listening");
        Ok(Self {
            site,
            public,
            admin,
            refresher,
            shutdown_delay,
            shutdown_timeout,
            logged_total: Cell::new(0),
            suppressed_logged: Cell::new(Instant::now()),
        })
    }

    /// Returns the signal that asks to stop, or an error when a part has ended.
    pub(crate) fn watch(&self, signals: &Receiver<&'static str>) -> Result<&'static str, Error> {
        let mut counts_logged = Instant::now();
        loop {
            match signals.recv_timeout(CHECK_EVERY) {
                Ok(signal) => return Ok(signal),
                Err(RecvTimeoutError::Timeout) => self.log_suppressed(),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Dead("the signal handler"));
                }
            }
            if counts_logged.elapsed() >= LOG_COUNTS_EVERY {
                counts_logged = Instant::now();
                self.log_counts();
            }
            if let Some(part) = self.dead_part() {
                return Err(Error::Dead(part));
            }
        }
    }

    fn log_suppressed(&self) {
        if self.suppressed_logged.get().elapsed() >= LOG_SUPPRESSED_EVERY {
            self.suppressed_logged.set(Instant::now());
            logging::log_suppressed();
        }
    }

    /// The name of a part that has ended.
    fn dead_part(&self) -> Option<&'static str> {
        if !self.public.is_alive() {
            return Some("the public listener");
        }
        if self.admin.as_ref().is_some_and(|admin| !admin.is_alive()) {
            return Some("the admin listener");
        }
        self.refresher.is_finished().then_some("the refresher")
    }

    /// Keeps serving for `SHUTDOWN_DELAY_SECONDS`, so that load balancers that read `/readyz` can
    /// switch to other pods. Then keeps accepting until no connection has come for a second, or
    /// half of `SHUTDOWN_TIMEOUT_SECONDS` has passed. Then waits until no request is in progress,
    /// until the end of `SHUTDOWN_TIMEOUT_SECONDS`. A second signal ends the stop at once.
    pub(crate) fn stop(&self, signal: &str, signals: &Receiver<&'static str>) {
        self.site.stop();
        info!(signal, delay_ms = milliseconds(self.shutdown_delay); "stopping");
        let stopped = self.drain(Instant::now(), signals);
        logging::log_suppressed();
        self.log_counts();
        match stopped {
            Stopped::Quiet => info!("stopped"),
            Stopped::TimedOut => {
                warn!("stopped with requests in progress, after SHUTDOWN_TIMEOUT_SECONDS");
            }
            Stopped::BySecondSignal => warn!("stopped at once by a second signal"),
        }
    }

    fn drain(&self, started: Instant, signals: &Receiver<&'static str>) -> Stopped {
        let delay_over = started + self.shutdown_delay;
        let stop_accepting_by = delay_over + self.shutdown_timeout / 2;
        let deadline = delay_over + self.shutdown_timeout;
        let wait_for_signal = || {
            self.log_suppressed();
            signals.recv_timeout(CHECK_STOP_EVERY).is_ok()
        };
        while Instant::now() < delay_over
            || Instant::now() < stop_accepting_by && self.has_new_connections()
        {
            if wait_for_signal() {
                return Stopped::BySecondSignal;
            }
        }
        self.public.stop_accepting();
        while !self.is_quiet() {
            if Instant::now() >= deadline {
                return Stopped::TimedOut;
            }
            if wait_for_signal() {
                return Stopped::BySecondSignal;
            }
        }
        Stopped::Quiet
    }

    fn has_new_connections(&self) -> bool {
        let last_accepted = self.public.report().and_then(|report| report.last_accepted);
        last_accepted.is_some_and(|at| at.elapsed() < NO_CONNECTION_FOR)
    }

    /// Whether no request is in progress. A front that does not report counts as having none.
    fn is_quiet(&self) -> bool {
        self.listeners().all(|it| it.report().is_none_or(|report| report.is_quiet))
    }

    /// Logs the sum of the fronts' counts, if any connection was refused or closed since the last
    /// such line.
    fn log_counts(&self) {
        let reports: Option<Vec<_>> = self.listeners().map(Listener::report).collect();
        // All or none: without the counts of one front the sum would decrease.
        let Some(reports) = reports else { return };
        let counts =
            reports.into_iter().map(|report| report.counts).fold(Counts::default(), Add::add);
        if self.logged_total.replace(counts.total_closed()) != counts.total_closed() {
            counts.log();
        }
    }

    fn listeners(&self) -> impl Iterator<Item = &Listener> {
        iter::once(&self.public).chain(&self.admin)
    }
}

/// What the pages of the admin listener show besides the documents.
struct Pages {
    metrics: Arc<Metrics>,
    settings: Vec<(&'static str, String)>,
    started: SystemTime,
}

/// Starts the workers of both listeners.
fn serve(
    public: &mut Listener,
    workers: usize,
    admin: Option<&mut Listener>,
    site: &Arc<Site>,
    pages: Pages,
) -> io::Result<()> {
    let Pages { metrics, settings, started } = pages;
    let answers = Arc::clone(site);
    let answer = move |request: &Request<'_>, wait: &mut dyn FnMut()| answers.public(request, wait);
    public.serve("worker", workers, answer, site, &metrics)?;
    let Some(admin) = admin else { return Ok(()) };
    let fronts = vec![("public", public.reporter()), ("admin", admin.reporter())];
    let answers = Admin::new(Arc::clone(site), Arc::clone(&metrics), fronts, settings, started);
    let answer = move |request: &Request<'_>, wait: &mut dyn FnMut()| answers.answer(request, wait);
    admin.serve("admin", ADMIN_WORKERS, answer, site, &metrics)
}

/// `MAX_CONNECTIONS`, or fewer when there are not enough descriptors.
fn connection_limit(requested: &MaxConnections) -> Result<usize, TooFewDescriptors> {
    let limit = requested.limit.min(front::affordable_connections()?);
    if requested.is_given && limit < requested.limit {
        warn!(
            limit, requested = requested.limit,
            hint = "raise the hard limit of descriptors (ulimit -Hn), or lower MAX_CONNECTIONS";
            "connection limit lowered"
        );
    }
    Ok(limit)
}
