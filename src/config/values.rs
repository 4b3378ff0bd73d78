//! Pure: parsers from the text of a setting to its value; `None` when the text is not valid.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use serde_json::{Map, Value};

use crate::documents::{self, JwksUri, Layout};
use crate::json;
use crate::logging;
use crate::url::{HttpsUrl, without_brackets};

/// The levels of `RUST_LOG`.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The range of a duration, in seconds.
pub(super) struct Range {
    pub(super) min: f64,
    pub(super) max: f64,
}

/// A decimal number of seconds within `range`: only digits, and a point before a fraction.
pub(super) fn seconds(text: &str, range: &Range) -> Option<Duration> {
    within(range, decimal(text)?)
}
/// A number of minutes, within `range` when it is converted to seconds.
pub(super) fn minutes(text: &str, range: &Range) -> Option<Duration> {
    within(range, decimal(text)? * 60.0)
}

fn decimal(text: &str) -> Option<f64> {
    // `f64` also parses `inf`, `nan` and `1e3`.
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| is_decimal)
}

fn within(range: &Range, seconds: f64) -> Option<Duration> {
    (range.min..=range.max).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// A whole number from `min` to `max`.
pub(super) fn whole<T: FromStr + PartialOrd>(text: &str, min: T, max: T) -> Option<T> {
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

/// An IP address, which may be in brackets.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    without_brackets(text).parse().ok()
}

pub(super) fn layout(text: &str) -> Option<Layout> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(Layout::Pretty),
        "false" | "0" => Some(Layout::Compact),
        _ => None,
    }
}

pub(super) fn issuer(text: &str) -> Option<String> {
    documents::is_issuer(text).then(|| text.to_owned())
}

pub(super) fn jwks_uri(text: &str) -> Option<JwksUri> {
    match text {
        "auto" => Some(JwksUri::Auto),
        "upstream" => Some(JwksUri::Upstream),
        url => HttpsUrl::parse(url).map(|_| JwksUri::Fixed(url.to_owned())),
    }
}

/// A JSON object without `issuer` and `jwks_uri`, which only the gateway may set.
pub(super) fn discovery_defaults(text: &str) -> Option<Map<String, Value>> {
    match json::parse(text.as_bytes()) {
        Ok(Value::Object(members))
            if !members.contains_key("issuer") && !members.contains_key("jwks_uri") =>
        {
            Some(members)
        }
        _ => None,
    }
}

/// A base URL, without a slash at its end. It must be https, because the token is sent there. Plain
/// http is accepted only for loopback, for `kubectl proxy`.
pub(super) fn upstream_base(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok().filter(|_| !text.contains(['?', '#']))?;
    match uri.scheme_str()? {
        "https" => HttpsUrl::parse(text)?,
        "http" if is_loopback(uri.host()?) => HttpsUrl::parse(&text.replacen("http", "https", 1))?,
        _ => return None,
    };
    Some(text.trim_end_matches('/').to_owned())
}

fn is_loopback(host: &str) -> bool {
    let address = without_brackets(host).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

pub(super) fn log_format(text: &str) -> Option<logging::Format> {
    match text {
        "json" => Some(logging::Format::Json),
        "text" => Some(logging::Format::Text),
        _ => None,
    }
}

/// `on` or `off`.
pub(super) fn switch(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

/// Directives of `env_logger`, unchanged if they are valid. It would read a word that is no level as
/// the name of a crate, and log nothing: here a bare word must be one that can be logged.
pub(super) fn log_filter(text: &str) -> Option<String> {
    let directives = text.split('/').next().unwrap_or_default().split(',').map(str::trim);
    let is_known = |word: &str| {
        let is_level = |text: &str| LEVELS.iter().any(|level| text.eq_ignore_ascii_case(level));
        let name = word.split("::").next().unwrap_or_default();
        match word.split_once('=') {
            // Our own name as it is written elsewhere, which no target has.
            Some((name, _)) => !is_level(name) && name.replace('-', "_") == name,
            None => word.is_empty() || is_level(word) || logging::is_shown(name),
        }
    };
    let is_valid = env_filter::Builder::new().try_parse(text).is_ok();
    (is_valid && directives.into_iter().all(is_known)).then(|| text.to_owned())
}
