//! kube-issuer-gateway: serves a Kubernetes cluster's OIDC discovery document and JWKS to relying
//! parties outside the cluster, without anonymous access to its API server.
//!
//! The modules in reading order. Each names only those below it; `tests/it/tidy.rs` has the table.
//!
//! - `arguments` parses the command line;
//! - `export` writes both documents as files, and uses what `refresher` uses, without threads;
//! - `lifecycle` starts the parts, watches them and stops them;
//! - `doctor` is a program of its own beside the server: it asks as a relying party does;
//! - `config` parses the environment, once;
//! - `server` has the listeners and the workers that answer requests;
//! - `admin` decides what the admin listener answers, with the pages `exposition` (`/metrics`) and `status`,
//!   and `process`, what the process uses;
//! - `front` owns the client sockets and enforces all limits on them. `tiny_http` is behind it, and
//!   sees only complete request heads that the front has checked;
//! - `site` decides what the public listener answers;
//! - `refresher` fetches both documents, in one thread: periodically, and when a request asks;
//! - `key_sets` has the keys of several rounds;
//! - `cache` holds the copies, and knows how fresh they are;
//! - `observed` is what the refresher found besides them, and `metrics` counts requests and fetches;
//! - `upstream` sends the requests to the API server; `notices` knows when a line is logged again;
//! - `http` has routes and answers;
//! - `documents` checks what upstream sends and builds what is published, with `json` and `url`;
//! - `reason` is the closed list of words for clients; any module may use `locks` and `logging`.
//!
//! Policy is pure: `arguments`, `export::paths`, `export::gcp`, `http`, `documents`, `key_sets`, `cache::state`, `front::admission` and `front::head`; so are
//! the pages of the admin listener.
//! Threads, sockets and locks are a thin shell around it.
//!
//! Exit codes: 0 after SIGTERM or SIGINT, 2 for a configuration that cannot be used, 1 for anything
//! else. `export` ends with 3 when it wrote a file, and with 0 when nothing had changed.

mod arguments;
mod export;
mod lifecycle;
mod doctor;
mod config;
mod server;
mod admin;
mod exposition;
mod status;
mod process;
mod front;
mod site;
mod refresher;
mod key_sets;
mod cache;
mod observed;
mod metrics;
mod upstream;
mod jwt;
mod notices;
mod http;
mod documents;
mod json;
mod url;
mod reason;
mod locks;
mod logging;

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::arguments::Command;
use crate::config::{Config, Lookalike, Mistakes};
use crate::export::Done;
use crate::lifecycle::{Error, Parts, listen_for_signals};
use log::{LevelFilter, info, warn};

/// Why the program ends without having been asked to.
enum Fatal {
    Arguments(lexopt::Error),
    /// An option of doctor that cannot be used, as a sentence.
    Option(String),
    Configuration(Mistakes),
    Running(Error),
    Export(export::Error),
    /// Standard output cannot be written.
    Output(io::Error),
}

/// The exit code of an `export` that wrote a file.
const CHANGED: u8 = 3;

impl Fatal {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_)
            | Self::Option(_)
            | Self::Configuration(_)
            | Self::Running(Error::Ca(_)) => 2,
            Self::Export(export::Error::Ca(_)) => 2,
            Self::Export(_) | Self::Output(_) => 1,
            Self::Running(
                Error::Descriptors(_)
                | Error::Listen(_)
                | Error::Metrics(_)
                | Error::Thread(_)
                | Error::Dead(_),
            ) => 1,
        }
    }

    fn log(&self) {
        match self {
            Self::Option(error) => logging::fatal(format_args!("{error}")),
            Self::Arguments(error) => logging::fatal(format_args!("{error}; see --help")),
            Self::Configuration(mistakes) => {
                for mistake in &mistakes.sentences {
                    logging::fatal(format_args!("{mistake}"));
                }
                log_lookalikes(&mistakes.lookalikes);
            }
            Self::Export(error) => logging::fatal(format_args!("{error}")),
            Self::Output(error) => logging::fatal(format_args!("cannot write to stdout: {error}")),
            Self::Running(error) => logging::fatal(format_args!("{error}")),
        }
    }
}

fn main() -> ExitCode {
    run().unwrap_or_else(|fatal| {
        fatal.log();
        ExitCode::from(fatal.exit_code())
    })
}

/// Does what the command line asks for.
fn run() -> Result<ExitCode, Fatal> {
    let config = Config::from_environment();
    logging::start(match &config {
        Ok(config) => &config.log,
        Err(mistakes) => &mistakes.log,
    });
    // Before the configuration is used: --help works with a bad environment too.
    let command = arguments::parse(lexopt::Parser::from_env()).map_err(Fatal::Arguments)?;
    match command {
        Command::Print(text) => {
            print(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(options) => {
            // What it finds is said on stdout.
            log::set_max_level(LevelFilter::Warn);
            let outcome = doctor::run(&options, config).map_err(Fatal::Option)?;
            print(&outcome.text)?;
            Ok(if outcome.is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Serve => {
            serve(config.map_err(Fatal::Configuration)?).map_err(Fatal::Running)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Export(options) => run_export(options, config.map_err(Fatal::Configuration)?),
    }
}

/// A reader that has closed the pipe has read enough, which is not an error.
fn print(text: &str) -> Result<(), Fatal> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Fatal::Output(error)),
        _ => Ok(()),
    }
}

fn run_export(options: export::Options, config: Config) -> Result<ExitCode, Fatal> {
    log_lookalikes(&config.lookalikes);
    if options.watch {
        let signals = listen_for_signals().map_err(Fatal::Running)?;
        export::watch(options, config, &signals).map_err(Fatal::Export)?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(match export::once(options, config).map_err(Fatal::Export)? {
        Done::Unchanged => ExitCode::SUCCESS,
        Done::Changed => ExitCode::from(CHANGED),
    })
}

/// Serves until a signal asks to stop.
fn serve(config: Config) -> Result<(), Error> {
    let settings = config.changed.iter().map(|(name, value)| format!("{name}={value}"));
    let settings = settings.collect::<Vec<_>>().join(" ");
    info!(version = env!("CARGO_PKG_VERSION"), settings; "starting");
    log_lookalikes(&config.lookalikes);
    // Signals first, so that none of them kills the process while it starts.
    let signals = listen_for_signals()?;
    let parts = Parts::start(config)?;
    let signal = parts.watch(&signals)?;
    parts.stop(signal, &signals);
    Ok(())
}

fn log_lookalikes(lookalikes: &[Lookalike]) {
    for Lookalike { name, setting } in lookalikes {
        let hint = format!("set {setting} if that was meant");
        warn!(name, hint; "a variable looks like a setting, and is ignored");
    }
}
