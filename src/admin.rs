//! The second listener: the same probes as the public one has, where a network policy can keep
//! the public out. No document is served here.

use log::Level;

use crate::http::reply::Asked;
use crate::http::routes::{self, Resource, Route};
use crate::server::{Answer, Site};

/// Threads that answer here: an answer never waits, for upstream or for a client, so one would do;
/// with two, one that is held up by the kernel does not keep the kubelet from its answer.
pub(crate) const WORKERS: usize = 2;
/// Connections at most: kubelet, a scraper and an operator need few.
pub(crate) const MAX_CONNECTIONS: usize = 24;

/// The answer of the admin listener.
pub(crate) fn answer(site: &Site, asked: &Asked<'_>) -> Answer {
    let route = routes::admin(asked.method, asked.path);
    match route {
        Route::Get(Resource::Probe(probe)) => {
            Answer::without_copy(site.probe(probe, asked), Level::Debug)
        }
        Route::Get(_) | Route::Preflight | Route::MethodNotAllowed { .. } | Route::NotFound => {
            site.refuse(route, asked)
        }
    }
}
