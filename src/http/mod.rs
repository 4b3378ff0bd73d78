//! Pure: HTTP. From a request to a route, and from a document or a text to the bytes of an answer.

pub(crate) mod answer;
pub(crate) mod representation;
pub(crate) mod routes;

/// A request, as the front has checked and rewritten it: GET and HEAD have no body.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// The path of the target, without its query.
    pub(crate) path: &'a str,
    /// The values of all `If-None-Match` fields, in their order.
    pub(crate) if_none_match: Vec<&'a str>,
    /// The value of the answer's `Connection` field; `None`: the answer has none.
    pub(crate) connection: Option<&'static str>,
}
