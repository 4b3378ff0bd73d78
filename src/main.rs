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

mod lifecycle;
mod config;
mod server;
mod front;
mod site;
mod refresher;
mod cache;
mod upstream;
mod http;
mod documents;
mod json;
mod url;
mod reason;
mod logging;

use std::io::{self, Write as _};
use std::process::ExitCode;

use lexopt::Arg;
use log::error;

use crate::config::{Config, SETTINGS};
use crate::lifecycle::{Fatal, Parts, listen_for_signals};

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
