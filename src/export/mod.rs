//! `kube-issuer-gateway export`: both documents as the files of a static site, or for Google Cloud.
//!
//! They are fetched, checked and built as the gateway does it. A round brings both of them, or changes no
//! file: a site whose documents do not fit together is worse than one that is a little old. There is no
//! listener and no cache, and the gateway's own token is not checked against what is written.

mod files;
mod gcp;
mod paths;

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use log::{Level, debug, error, info, log, warn};
use serde_json::Value;

use crate::config::Config;
use crate::documents::{self, Jwks, Kind, Publication, Published, Refused};
use crate::key_sets::{KeySets, in_order_of};
use crate::logging::line::{cut, milliseconds};
use crate::notices::Notices;
use crate::refresher::pauses::{WHILE_SETS_DIFFER, retry_pause};
use crate::upstream::{self, CaError, Failure, Fetched, Upstream};
use files::Content;
use paths::Paths;

/// What `export` is asked for on the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) folder: PathBuf,
    pub(crate) form: Form,
    /// Go on until a signal comes.
    pub(crate) watch: bool,
}

/// Which files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Both documents, where relying parties look for them.
    Site,
    /// The key set for a workload identity provider of Google Cloud.
    Gcp,
}

/// What a run has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Unchanged,
    Changed,
}

/// Why nothing was written, or not everything.
#[derive(Debug)]
pub(crate) enum Error {
    Ca(CaError),
    Fetch(Kind, Failure),
    Issuer { expected: String, upstream: String },
    Paths(paths::Refused),
    Gcp(gcp::Refused),
    Files(files::Error),
    SignalHandler,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca(error) => write!(out, "{error}"),
            Self::Fetch(kind, failure) => {
                let document = match kind {
                    Kind::Discovery => "the discovery document",
                    Kind::Jwks => "the key set",
                };
                write!(out, "cannot fetch {document}: {failure}; {}", failure.hint())
            }
            Self::Issuer { expected, upstream } => write!(
                out,
                "the issuer is {:?} and ISSUER is {:?}: nothing is written",
                cut(upstream),
                cut(expected)
            ),
            Self::Paths(refused) => write!(out, "{refused}"),
            Self::Gcp(refused) => write!(out, "{refused}"),
            Self::Files(error) => write!(out, "{error}"),
            Self::SignalHandler => out.write_str("the signal handler has ended unexpectedly"),
        }
    }
}

/// One round.
pub(crate) fn once(options: Options, config: Config) -> Result<Done, Error> {
    let mut exporter = Exporter::new(options, config)?;
    let changed = exporter.round()?;
    say(&changed);
    Ok(if changed.is_empty() { Done::Unchanged } else { Done::Changed })
}

/// Rounds until a signal comes. What fails is tried again, except for a CA file or a folder that cannot be
/// used at start.
pub(crate) fn watch(
    options: Options,
    config: Config,
    signals: &Receiver<&'static str>,
) -> Result<(), Error> {
    let cache_ttl = config.cache_ttl;
    let mut exporter = Exporter::new(options, config)?;
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let pause = match exporter.round() {
            Ok(changed) => {
                if !changed.is_empty() {
                    say(&changed);
                }
                exporter.recovered(failures);
                failures = 0;
                exporter.pause(cache_ttl)
            }
            Err(error) => {
                // All of the jitter: there is one of these, and not a replica beside it.
                let retry_in = retry_pause(failures, cache_ttl, 1.0);
                exporter.failed(&error, retry_in);
                failures = failures.saturating_add(1);
                retry_in
            }
        };
        debug!(next_in_ms = milliseconds(pause); "round ended");
        match signals.recv_timeout(pause.saturating_sub(started.elapsed())) {
            Ok(signal) => {
                info!(signal; "stopped");
                return Ok(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::SignalHandler),
        }
    }
}

/// The line on stdout.
fn say(changed: &[String]) {
    let line = match changed {
        [] => "unchanged\n".to_owned(),
        files => format!("changed: {}\n", files.join(" ")),
    };
    // A failed write means that the reader has closed the pipe, which is not an error.
    let _ = io::stdout().write_all(line.as_bytes());
}

/// What is logged once a minute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topic {
    FetchFailed(Kind),
    NotWritten,
    JwksUriElsewhere,
    LeftOut,
}

struct Exporter {
    options: Options,
    upstream: Upstream,
    publication: Publication,
    /// `ISSUER`.
    expected_issuer: Option<String>,
    key_sets: KeySets,
    /// The keys of the last round, in the order in which they were written.
    keys: Vec<Value>,
    /// Of the last round.
    issuer: Option<String>,
    notices: Notices<Topic>,
}

impl Exporter {
    fn new(options: Options, config: Config) -> Result<Self, Error> {
        files::check(&options.folder).map_err(Error::Files)?;
        let upstream = Upstream::new(upstream::Settings {
            base: config.upstream_host,
            address: config.upstream_address,
            timeout: config.upstream_timeout,
            token_path: config.token_path,
            ca_path: config.ca_path,
        });
        Ok(Self {
            options,
            upstream: upstream.map_err(Error::Ca)?,
            publication: Publication {
                jwks_uri: config.jwks_uri,
                discovery_defaults: config.discovery_defaults,
                layout: config.layout,
            },
            expected_issuer: config.issuer,
            key_sets: KeySets::new(config.key_grace),
            keys: Vec::new(),
            issuer: None,
            notices: Notices::new(),
        })
    }

    /// Fetches both documents and writes what has changed; returns the paths of those files.
    fn round(&mut self) -> Result<Vec<String>, Error> {
        self.upstream.begin_round();
        let Publication { jwks_uri, discovery_defaults, .. } = &self.publication;
        let fetched = fetch(&mut self.upstream, Kind::Discovery)?;
        let published = documents::check_discovery(&fetched.bytes)
            .and_then(|discovery| documents::publish(discovery, jwks_uri, discovery_defaults))
            .map_err(|refused| refused_document(Kind::Discovery, refused))?;
        self.check_issuer(&published)?;
        let requested = Instant::now();
        let fetched = fetch(&mut self.upstream, Kind::Jwks)?;
        let jwks = documents::check_jwks(&fetched.bytes)
            .map_err(|refused| refused_document(Kind::Jwks, refused))?;
        self.key_sets = self.key_sets.with(&jwks.keys, Some(&published.issuer), requested);
        let files = match self.options.form {
            Form::Site => self.site(&published, &jwks)?,
            Form::Gcp => self.gcp()?,
        };
        files::write(&self.options.folder, &files).map_err(Error::Files)
    }

    /// An error when it is not `ISSUER`.
    fn check_issuer(&mut self, published: &Published) -> Result<(), Error> {
        let upstream = &published.issuer;
        if let Some(expected) = self.expected_issuer.as_ref().filter(|it| *it != upstream) {
            let (expected, upstream) = (expected.clone(), upstream.clone());
            return Err(Error::Issuer { expected, upstream });
        }
        if let Some(from) = self.issuer.replace(upstream.clone())
            && from != *upstream
        {
            let hint = "relying parties know an issuer byte for byte: tell them, or set ISSUER";
            warn!(from = cut(&from), to = cut(upstream), hint; "issuer changed");
        }
        Ok(())
    }

    /// The key set first: a discovery document must not point to one that is not there yet.
    fn site(&mut self, published: &Published, jwks: &Jwks) -> Result<Vec<Content>, Error> {
        let Paths { discovery, jwks: jwks_path } =
            paths::of_site(published).map_err(Error::Paths)?;
        let layout = self.publication.layout;
        let document = documents::serialise(&published.value, layout)
            .map_err(|refused| refused_document(Kind::Discovery, refused))?;
        let key_set = self.key_set(jwks)?;
        if published.jwks_path.is_none() {
            self.warn_of_jwks_uri(published);
        }
        Ok(vec![
            Content { path: jwks_path, bytes: key_set },
            Content { path: discovery, bytes: document },
        ])
    }

    fn gcp(&mut self) -> Result<Vec<Content>, Error> {
        self.settle_order();
        let gcp::KeySet { value, left_out } = gcp::key_set(&self.keys).map_err(Error::Gcp)?;
        let left_out = cut(&left_out.join(" "));
        if !left_out.is_empty() && self.notices.is_due(Topic::LeftOut, &left_out, Instant::now()) {
            let hint = "Google Cloud takes RSA and EC keys: it will refuse tokens of these";
            warn!(kids = left_out, hint; "keys are left out");
        }
        let (bytes, _) = documents::serialise_keys(&value, self.publication.layout)
            .map_err(|refused| refused_document(Kind::Jwks, refused))?;
        Ok(vec![Content { path: gcp::FILE.to_owned(), bytes }])
    }

    /// The bytes of the key set, as the gateway would serve it.
    fn key_set(&mut self, jwks: &Jwks) -> Result<Vec<u8>, Error> {
        let Self { key_sets, keys: before, publication, .. } = self;
        let serialised = key_sets.serialise(jwks, publication.layout, |keys| {
            *before = in_order_of(before, keys);
            before.clone()
        });
        serialised.map(|(bytes, _)| bytes).map_err(|refused| refused_document(Kind::Jwks, refused))
    }

    /// Takes the keys to write, in the order of the last round if they are the same: API servers that differ
    /// take turns, and a file must not change with them.
    fn settle_order(&mut self) {
        self.keys = in_order_of(&self.keys, self.key_sets.keys().cloned().collect());
    }

    /// The pause after a round that brought both documents.
    fn pause(&self, cache_ttl: Duration) -> Duration {
        if self.key_sets.have_differed(Instant::now()) {
            cache_ttl.min(WHILE_SETS_DIFFER)
        } else {
            cache_ttl
        }
    }

    // What is logged.

    fn warn_of_jwks_uri(&mut self, published: &Published) {
        let (issuer, jwks_uri) = (cut(&published.issuer), cut(&published.jwks_uri));
        if self.notices.is_due(Topic::JwksUriElsewhere, &jwks_uri, Instant::now()) {
            let hint = "relying parties look for the key set there, and not in these files";
            warn!(jwks_uri, issuer, hint; "jwks_uri is not at the issuer's scheme, host and port");
        }
    }

    fn failed(&mut self, error: &Error, retry_in: Duration) {
        let (now, retry_in_ms) = (Instant::now(), milliseconds(retry_in));
        if let Error::Fetch(kind, failure) = error {
            let (reason, hint) = (failure.reason().word(), failure.hint());
            let level = match self.notices.is_due(Topic::FetchFailed(*kind), hint, now) {
                true if failure.exposes_a_key() => Level::Error,
                true => Level::Warn,
                false => Level::Debug,
            };
            log!(
                level, document = kind.name(), reason, error:% = failure, hint, retry_in_ms;
                "fetch failed"
            );
        } else if self.notices.is_due(Topic::NotWritten, &error.to_string(), now) {
            error!(error:%, retry_in_ms; "nothing was written");
        }
    }

    fn recovered(&mut self, failed_rounds: u32) {
        if self.notices.end(&Topic::NotWritten) {
            info!(failed_rounds; "files can be written again");
        }
        let kinds = [Kind::Discovery, Kind::Jwks].map(Topic::FetchFailed);
        if kinds.iter().filter(|topic| self.notices.end(topic)).count() > 0 {
            info!(failed_rounds; "upstream recovered");
        }
    }
}

fn fetch(upstream: &mut Upstream, kind: Kind) -> Result<Fetched, Error> {
    upstream.fetch(kind).map_err(|failure| Error::Fetch(kind, failure))
}

fn refused_document(kind: Kind, refused: Refused) -> Error {
    Error::Fetch(kind, Failure::Document(refused))
}
