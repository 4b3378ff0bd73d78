//! Pure: the command line as one [`Command`].
//!
//! Settings are environment variables. The command line says only what to do with them.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt as _};

use crate::config::SETTINGS;
use crate::doctor;
use crate::export::{self, Form};

/// What the program is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Serve,
    /// Write this text to stdout.
    Print(String),
    Export(export::Options),
    Doctor(doctor::arguments::Options),
}

const EXPORT_HELP: &str = "\
Writes the discovery document and the key set (JWKS) as the files of a static site.

usage: kube-issuer-gateway export DIR [--for gcp] [--watch]

Both documents are fetched and checked as the gateway does it, with the same settings; see --help of
the program. DIR must exist. Below it are written, each file whole or not at all:

  {path of the issuer}/.well-known/openid-configuration
  the path of the published jwks_uri, or {path of the issuer}/openid/v1/jwks if that is elsewhere

A file whose bytes are the same is not touched, and none is deleted. With ISSUER, documents of another
issuer are not written. When anything fails, all files stay as they are.

  --for gcp
      write DIR/jwks.json instead, for --jwk-json-path of Google Cloud's workload identity providers:
      RSA and EC keys, with only the members that Google takes
  --watch
      go on, once in CACHE_TTL_SECONDS and sooner after a failure, until SIGTERM or SIGINT; keys that
      upstream no longer lists stay for KEY_GRACE_SECONDS

A line on standard output says `changed: FILES` or `unchanged`; with --watch, one says each change.

exit code: 0 nothing has changed, or --watch was stopped
           1 an error
           2 a bad setting, a bad argument, or a CA file that cannot be used at start
           3 a file was written
";

/// What the arguments ask for; an error for one that is unknown, or that lacks a value.
pub(crate) fn parse(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let mut text = String::new();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => text.push_str(&help()),
            Arg::Long("version") | Arg::Short('V') => {
                text.push_str(concat!("kube-issuer-gateway ", env!("CARGO_PKG_VERSION"), "\n"));
            }
            Arg::Value(name) if name == "export" && text.is_empty() => {
                return export(arguments);
            }
            Arg::Value(name) if name == "doctor" && text.is_empty() => {
                let options = doctor::arguments::parse(&mut arguments)?;
                return Ok(if options.help {
                    Command::Print(doctor::arguments::HELP.to_owned())
                } else {
                    Command::Doctor(options)
                });
            }
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    Ok(if text.is_empty() { Command::Serve } else { Command::Print(text) })
}

fn export(mut arguments: Parser) -> Result<Command, lexopt::Error> {
    let (mut folder, mut form, mut watch) = (None, Form::Site, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => {
                return Ok(Command::Print(EXPORT_HELP.to_owned()));
            }
            Arg::Long("for") => match arguments.value()?.string()?.as_str() {
                "gcp" => form = Form::Gcp,
                other => return Err(format!("--for is {other:?}: it must be gcp").into()),
            },
            Arg::Long("watch") => watch = true,
            Arg::Value(value) if folder.is_none() && !value.is_empty() => {
                folder = Some(PathBuf::from(value));
            }
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => return Err(argument.unexpected()),
        }
    }
    let folder = folder.ok_or("export lacks the folder to write to (DIR)")?;
    Ok(Command::Export(export::Options { folder, form, watch }))
}

fn help() -> String {
    let mut text = "Serves a Kubernetes cluster's OIDC discovery document and JWKS.\n\n\
                    usage: kube-issuer-gateway [--help | --version]\n       \
                    kube-issuer-gateway export DIR [--for gcp] [--watch]\n       \
                    kube-issuer-gateway doctor [ISSUER] [OPTION...]\n\n\
                    Without an argument it serves. `export` writes both documents as files, and `doctor` \
                    says what relying parties will refuse: see their --help.\n\n\
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, String> {
        parse(Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn arguments_that_cannot_be_used_are_named() {
        for (arguments, expected) in [
            (&["--port"][..], "invalid option '--port'"),
            (&["-p"], "invalid option '-p'"),
            (&["serve"], "unexpected argument \"serve\""),
            (&["--version", "export"], "unexpected argument \"export\""),
            (&["--version", "doctor"], "unexpected argument \"doctor\""),
            (&["doctor", "--port"], "invalid option '--port'"),
            (&["export"], "export lacks the folder to write to (DIR)"),
            (&["export", ""], "unexpected argument \"\""),
            (&["export", "a", "b"], "unexpected argument \"b\""),
            (&["export", "a", "--once"], "invalid option '--once'"),
            (&["export", "a", "--watch=1"], "unexpected argument for option '--watch': \"1\""),
            (&["export", "a", "--for"], "missing argument for option '--for'"),
            (&["export", "a", "--for", "aws"], "--for is \"aws\": it must be gcp"),
        ] {
            assert_eq!(parsed(arguments).unwrap_err(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn a_command_is_parsed_with_its_options_in_any_order() {
        let export = |folder: &str, form, watch| {
            Command::Export(export::Options { folder: folder.into(), form, watch })
        };
        for (arguments, expected) in [
            (&[][..], Command::Serve),
            (&["export", "a"], export("a", Form::Site, false)),
            (&["export", "--for", "gcp", "a"], export("a", Form::Gcp, false)),
            (&["export", "--watch", "--for=gcp", "/a b"], export("/a b", Form::Gcp, true)),
            (&["export", "--", "--watch"], export("--watch", Form::Site, false)),
            (&["export", "a", "--help"], Command::Print(EXPORT_HELP.to_owned())),
            (&["export", "-h"], Command::Print(EXPORT_HELP.to_owned())),
        ] {
            assert_eq!(parsed(arguments), Ok(expected), "{arguments:?}");
        }
    }

    #[test]
    fn doctor_has_options_and_a_help_of_its_own() {
        let options = doctor::arguments::Options { json: true, ..Default::default() };
        assert_eq!(parsed(&["doctor", "--json"]), Ok(Command::Doctor(options)));
        let help = Command::Print(doctor::arguments::HELP.to_owned());
        assert_eq!(parsed(&["doctor", "--help"]), Ok(help));
    }

    #[test]
    fn help_has_each_setting_with_its_default_where_there_is_one() {
        let Ok(Command::Print(text)) = parsed(&["--help"]) else { panic!("no text") };
        for setting in &SETTINGS {
            assert!(text.contains(&format!("\n  {}", setting.name)), "{}", setting.name);
        }
        for line in [
            "  SA_TOKEN_PATH (or TOKEN_PATH)\n      the gateway's own token\n",
            "      a whole number from 2 to 64; default 16\n",
            "      an https URL without query and fragment\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
