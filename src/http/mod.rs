//! Pure: requests and answers of HTTP.

pub(crate) mod reply;
pub(crate) mod representation;
pub(crate) mod routes;
