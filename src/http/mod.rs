//! Pure: HTTP. From a request to a route, and from a document or a text to the bytes of an answer.

pub(crate) mod answer;
pub(crate) mod representation;
pub(crate) mod routes;

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
