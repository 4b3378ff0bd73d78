//! kube-issuer-gateway: serves a Kubernetes cluster's OIDC discovery document and JWKS to relying
//! parties outside the cluster, without anonymous access to its API server.
//!
//! The modules in reading order. Each names only those below it; `tests/it/tidy.rs` has the table.
//!
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
//! Policy is pure: `http`, `documents`, `key_sets`, `cache::state`, `front::admission` and `front::head`; so are
//! the pages of the admin listener.
//! Threads, sockets and locks are a thin shell around it.
//!
//! Exit codes: 0 after SIGTERM or SIGINT, 2 for a configuration that cannot be used, 1 for anything
//! else.

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

use crate::config::{Config, Lookalike, Mistakes, SETTINGS};
use crate::lifecycle::{Error, Parts, listen_for_signals};
use lexopt::Arg;
use log::{info, warn};

/// Why the program ends without having been asked to.
enum Fatal {
    /// A sentence.
    Arguments(String),
    /// Doctor has found a failure, and printed it.
    Findings,
    Configuration(Mistakes),
    Running(Error),
}

impl Fatal {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) | Self::Configuration(_) | Self::Running(Error::Ca(_)) => 2,
            Self::Running(
                Error::Descriptors(_)
                | Error::Listen(_)
                | Error::Metrics(_)
                | Error::Thread(_)
                | Error::Dead(_),
            )
            | Self::Findings => 1,
        }
    }

    fn log(&self) {
        match self {
            Self::Arguments(error) => logging::fatal(format_args!("{error}; see --help")),
            Self::Configuration(mistakes) => {
                for mistake in &mistakes.sentences {
                    logging::fatal(format_args!("{mistake}"));
                }
                log_lookalikes(&mistakes.lookalikes);
            }
            Self::Findings => {}
            Self::Running(error) => logging::fatal(format_args!("{error}")),
        }
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            fatal.log();
            ExitCode::from(fatal.exit_code())
        }
    }
}

/// Runs until a signal asks to stop.
fn run() -> Result<(), Fatal> {
    let config = Config::from_environment();
    logging::start(match &config {
        Ok(config) => &config.log,
        Err(mistakes) => &mistakes.log,
    });
    // Before the configuration is used: --help works with a bad environment too.
    match command().map_err(Fatal::Arguments)? {
        Command::Print(text) => print(&text),
        Command::Doctor(options) => {
            let outcome = doctor::run(&options, config).map_err(Fatal::Arguments)?;
            print(&outcome.text);
            if !outcome.is_good {
                return Err(Fatal::Findings);
            }
        }
        Command::Serve => {
            run_parts(config.map_err(Fatal::Configuration)?).map_err(Fatal::Running)?;
        }
    }
    Ok(())
}

/// A failed write means that the reader has closed the pipe, which is not an error.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn run_parts(config: Config) -> Result<(), Error> {
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

/// What the command line asks for.
enum Command {
    Serve,
    Print(String),
    Doctor(doctor::arguments::Options),
}

/// An error is a sentence.
fn command() -> Result<Command, String> {
    let mut arguments = lexopt::Parser::from_env();
    let mut text = None;
    while let Some(argument) = arguments.next().map_err(|error| error.to_string())? {
        let more = match argument {
            Arg::Long("help") | Arg::Short('h') => help(),
            Arg::Long("version") | Arg::Short('V') => {
                concat!("kube-issuer-gateway ", env!("CARGO_PKG_VERSION"), "\n").to_owned()
            }
            Arg::Value(word) if word == "doctor" => {
                let options = doctor::arguments::parse(&mut arguments)?;
                return Ok(if options.help {
                    Command::Print(doctor::arguments::HELP.to_owned())
                } else {
                    Command::Doctor(options)
                });
            }
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                return Err(argument.unexpected().to_string());
            }
        };
        text.get_or_insert_with(String::new).push_str(&more);
    }
    Ok(text.map_or(Command::Serve, Command::Print))
}

fn help() -> String {
    let mut text = "Serves a Kubernetes cluster's OIDC discovery document and JWKS.\n\n\
                    usage: kube-issuer-gateway [--help | --version]\n       \
                    kube-issuer-gateway doctor [ISSUER] [OPTION...]   (doctor --help)\n\n\
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
