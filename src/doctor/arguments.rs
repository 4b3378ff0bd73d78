//! Pure: the options of `doctor`.

use std::net::IpAddr;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt as _};

use super::relying_parties::{self, RELYING_PARTIES};
use crate::documents::is_issuer;
use crate::url::without_brackets;

/// What `doctor --help` prints.
pub(crate) const HELP: &str = "\
Goes the way of an anonymous relying party, and says what each will refuse.

usage: kube-issuer-gateway doctor [ISSUER] [OPTION...]

Without ISSUER, in the gateway's pod: checks token, CA and API server by the settings of the
environment, then the cluster's issuer as it is seen from here. With --url alone: what is there.

  --for NAME,...             only what these relying parties want (all by default)
  --ca FILE                  CAs in PEM that relying parties trust, in the place of public ones
  --resolve HOST:PORT:ADDR[,ADDR...]
                             the addresses of a name, as curl has it; may be given several times
  --url URL                  where to ask in the place of the issuer's host, such as that of the
                             Service; http is allowed for it
  --token FILE               a token of the cluster: would it be accepted? It is never printed
  --json                     one JSON object

A FILE of - is standard input. Exit code: 0 without failures, 1 with, 2 for usage.
";

/// What doctor is asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) help: bool,
    /// `None`: inside a pod.
    pub(crate) issuer: Option<String>,
    /// Empty: all.
    pub(crate) relying_parties: Vec<&'static str>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) resolves: Vec<Resolve>,
    /// Without a slash at its end.
    pub(crate) url: Option<String>,
    pub(crate) token: Option<PathBuf>,
    pub(crate) json: bool,
}

/// The addresses of a host's port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolve {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// At least one.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Resolve {
    /// Names of hosts have no case.
    pub(crate) fn is_of(&self, host: &str, port: u16) -> bool {
        self.host.eq_ignore_ascii_case(host) && self.port == port
    }
}

impl Options {
    /// Neither an issuer nor a URL is given.
    pub(crate) const fn is_in_pod(&self) -> bool {
        self.issuer.is_none() && self.url.is_none()
    }
}

/// The options behind `doctor`; an error is a sentence.
pub(crate) fn parse(arguments: &mut Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options::default();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("help") | Arg::Short('h') => options.help = true,
            Arg::Long("json") => options.json = true,
            Arg::Long("for") => {
                let names = names(&value(arguments, "--for")?)?;
                if names.is_empty() {
                    return Err(
                        "--for is empty: it must name a relying party, or be left out".into()
                    );
                }
                options.relying_parties.extend(names);
            }
            Arg::Long("ca") => options.ca = Some(value(arguments, "--ca")?.into()),
            Arg::Long("token") => options.token = Some(value(arguments, "--token")?.into()),
            Arg::Long("url") => options.url = Some(url(&value(arguments, "--url")?)?),
            Arg::Long("resolve") => {
                options.resolves.push(resolve(&value(arguments, "--resolve")?)?);
            }
            Arg::Value(issuer) if options.issuer.is_none() => {
                options.issuer = Some(issuer_of(&issuer.string()?)?);
            }
            Arg::Short(_) | Arg::Long(_) | Arg::Value(_) => {
                return Err(argument.unexpected());
            }
        }
    }
    if options.ca.as_deref() == options.token.as_deref() && options.ca == Some("-".into()) {
        return Err("--ca and --token cannot both be standard input".into());
    }
    Ok(options)
}

fn value(arguments: &mut Parser, option: &str) -> Result<String, String> {
    let value = arguments.value().and_then(|value| value.string());
    value.map_err(|error| format!("{option}: {error}"))
}

fn issuer_of(text: &str) -> Result<String, String> {
    if is_issuer(text) {
        return Ok(text.to_owned());
    }
    Err(format!("the issuer is {text:?}: it must be an https URL without query and fragment"))
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_good = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#', '@']))
        && crate::url::parts(text).is_some();
    if is_good {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(format!("--url is {text:?}: it must be an http or https URL without query"))
}

fn resolve(text: &str) -> Result<Resolve, String> {
    let parsed = || {
        let (host, rest) = text.split_once(':')?;
        let (port, addresses) = rest.split_once(':')?;
        let address = |text: &str| without_brackets(text).parse().ok();
        let addresses = addresses.split(',').map(address).collect::<Option<Vec<_>>>()?;
        (!host.is_empty()).then_some(())?;
        Some(Resolve { host: host.to_owned(), port: port.parse().ok()?, addresses })
    };
    parsed().ok_or_else(|| {
        format!(
            "--resolve is {text:?}: it must be HOST:PORT:ADDRESS[,ADDRESS...], with IP addresses"
        )
    })
}

fn names(text: &str) -> Result<Vec<&'static str>, String> {
    let known = |name: &str| {
        relying_parties::named(name).map(|party| party.name).ok_or_else(|| {
            let names: Vec<_> = RELYING_PARTIES.iter().map(|party| party.name).collect();
            format!("--for has {name:?}: it must be one of {}", names.join(", "))
        })
    };
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, String> {
        parse(&mut Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_come_in_any_order() {
        let arguments = [
            "--json",
            "https://a.example/b",
            "--for",
            "aws, pyjwt",
            "--ca=-",
            "--token",
            "t",
            "--resolve",
            "a.example:443:[::1],192.0.2.1",
            "--url",
            "http://gateway:8080/",
        ];
        let found = options(&arguments).unwrap();
        assert_eq!(found.issuer.as_deref(), Some("https://a.example/b"));
        assert_eq!(found.relying_parties, ["aws", "pyjwt"]);
        assert_eq!(found.url.as_deref(), Some("http://gateway:8080"));
        let addresses = vec!["::1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        let resolve = Resolve { host: "a.example".to_owned(), port: 443, addresses };
        assert_eq!(found.resolves, [resolve]);
        assert!(found.json && !found.help);
        assert_eq!(options(&[]), Ok(Options::default()));
    }

    #[test]
    fn a_mistake_is_a_sentence_that_says_what_would_be_right() {
        for (arguments, expected) in [
            (&["http://a.example"][..], "it must be an https URL without query and fragment"),
            (&["https://a.example?b"], "it must be an https URL"),
            (&["https://a.example", "https://b.example"], "unexpected argument"),
            (&["--nothing"], "invalid option '--nothing'"),
            (&["--for", ""], "--for is empty"),
            (&["--for", " ,"], "--for is empty"),
            (&["--url", "https://a:99999"], "it must be an http or https URL"),
            (&["--url", "https://[::1]x1"], "it must be an http or https URL"),
            (&["--for", "nobody"], "--for has \"nobody\": it must be one of aws, "),
            (&["--resolve", "a:b"], "it must be HOST:PORT:ADDRESS"),
            (&["--resolve", "a:443:192.0.2.1,"], "it must be HOST:PORT:ADDRESS"),
            (&["--resolve", "a:443:b"], "it must be HOST:PORT:ADDRESS"),
            (&["--resolve", ":443:192.0.2.1"], "it must be HOST:PORT:ADDRESS"),
            (&["--url", "https://a/?b"], "it must be an http or https URL without query"),
            (&["--url", "https://user@a"], "it must be an http or https URL without query"),
            (&["--url", "ftp://a"], "it must be an http or https URL"),
            (&["--url"], "--url: missing argument"),
            (&["--ca", "-", "--token", "-"], "cannot both be standard input"),
        ] {
            let error = options(arguments).unwrap_err();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn addresses_are_those_of_a_name_in_any_case_and_of_one_port() {
        let found = options(&["--resolve", "A.example:8443:192.0.2.1"]).unwrap();
        for (host, port, expected) in
            [("a.Example", 8443, true), ("a.example", 443, false), ("b.example", 8443, false)]
        {
            assert_eq!(found.resolves[0].is_of(host, port), expected, "{host} {port}");
        }
    }

    #[test]
    fn only_without_an_issuer_and_a_url_the_cluster_is_looked_at_from_a_pod() {
        for (arguments, expected) in [
            (&["--json", "--token", "-"][..], true),
            (&["https://a.example"], false),
            (&["--url", "http://gateway:8080"], false),
        ] {
            assert_eq!(options(arguments).unwrap().is_in_pod(), expected, "{arguments:?}");
        }
    }
}
