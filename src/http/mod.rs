//! Pure: HTTP. From a request to a route, and from a document or a text to the bytes of an answer.

pub(crate) mod answer;
pub(crate) mod representation;
pub(crate) mod routes;

use std::time::Duration;

/// The seconds of a directive of `Cache-Control`, such as `max-age`; `values` are those of all its fields. RFC 9111
/// §5.2.
pub(crate) fn cache_directive<'a>(
    values: impl Iterator<Item = &'a str>,
    directive: &str,
) -> Option<Duration> {
    let mut arguments = values.flat_map(|value| value.split(',')).filter_map(|one| {
        let (name, argument) = one.split_once('=')?;
        name.trim().eq_ignore_ascii_case(directive).then_some(argument)
    });
    let seconds = arguments.next()?.trim().trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// A request that the front has checked and rewritten. It has no body, whatever its method.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// The path of the target, without its query.
    pub(crate) path: &'a str,
    /// The values of all `If-None-Match` fields, in their order.
    pub(crate) if_none_match: Vec<&'a str>,
    /// The answer's `Connection` field; `None`: the answer has none.
    pub(crate) connection: Option<Connection>,
}

/// An option of the `Connection` field: RFC 9112 §9.3 and §9.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Close,
    /// For HTTP/1.0, which closes by default.
    KeepAlive,
}

impl Connection {
    pub(crate) const fn value(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::KeepAlive => "keep-alive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_has_its_seconds_from_the_first_field_that_has_it() {
        for (values, expected) in [
            (&["max-age=60"][..], Some(60)),
            (&["public, s-maxage=30, Max-Age=3600", "max-age=1"], Some(3600)),
            (&["no-store", "max-age = \"5\""], Some(5)),
            (&["s-maxage=30"], None),
            (&["max-age"], None),
            (&["max-age=-1, max-age=60"], None),
            (&[], None),
        ] {
            let found = cache_directive(values.iter().copied(), "max-age");
            assert_eq!(found, expected.map(Duration::from_secs), "{values:?}");
        }
    }
}
