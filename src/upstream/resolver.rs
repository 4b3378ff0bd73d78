//! DNS look-ups of upstream's name, within a time limit.
//!
//! ureq's own resolver also starts a thread for each look-up, but does not limit their number, and
//! panics when a thread cannot be started.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The most concurrent DNS look-ups: getaddrinfo(3) cannot be cancelled, so hung ones would pile
/// up.
const MAX_LOOKUPS: usize = 4;
/// The most addresses of a name that are tried: ureq's array has room for 16.
const MAX_ADDRESSES: usize = 16;

/// Resolves each name in a thread of its own, of which at most [`MAX_LOOKUPS`] run at one time.
#[derive(Debug, Default)]
pub(super) struct BoundedResolver {
    running: Arc<AtomicUsize>,
}

/// Why a name was not resolved.
#[derive(Debug)]
pub(crate) enum LookupError {
    /// [`MAX_LOOKUPS`] are running.
    TooMany,
    Thread(io::Error),
    Lookup(io::Error),
    NoAddress,
}

impl fmt::Display for LookupError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(out, "{MAX_LOOKUPS} earlier look-ups are still running"),
            Self::Thread(error) => write!(out, "cannot start a thread for the look-up: {error}"),
            Self::Lookup(error) => write!(out, "{error}"),
            Self::NoAddress => out.write_str("the name has no address"),
        }
    }
}

impl std::error::Error for LookupError {}

impl From<LookupError> for ureq::Error {
    fn from(error: LookupError) -> Self {
        Self::Other(Box::new(error))
    }
}

impl Resolver for BoundedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let address = uri
            .scheme()
            .zip(uri.authority())
            .and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority))
            .ok_or_else(|| ureq::Error::BadUri(uri.to_string()))?;
        let found = match address.parse::<SocketAddr>() {
            Ok(literal) => vec![literal],
            Err(_) => self.look_up(address, &timeout)?,
        };
        let mut addresses = self.empty();
        found.into_iter().take(MAX_ADDRESSES).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(LookupError::NoAddress.into()) } else { Ok(addresses) }
    }
}

impl BoundedResolver {
    fn look_up(
        &self,
        address: String,
        timeout: &NextTimeout,
    ) -> Result<Vec<SocketAddr>, ureq::Error> {
        let permit = Permit(Arc::clone(&self.running));
        if permit.0.fetch_add(1, Ordering::Relaxed) >= MAX_LOOKUPS {
            return Err(LookupError::TooMany.into());
        }
        let (sender, found) = mpsc::sync_channel(1);
        let look_up = move || {
            let _permit = permit;
            // After the time limit there is no receiver.
            let _ = sender.send(address.to_socket_addrs().map(Iterator::collect));
        };
        thread::Builder::new()
            .name("resolver".to_owned())
            .spawn(look_up)
            .map_err(LookupError::Thread)?;
        match found.recv_timeout(*timeout.after) {
            Ok(found) => Ok(found.map_err(LookupError::Lookup)?),
            Err(_) => Err(ureq::Error::Timeout(timeout.reason)),
        }
    }
}

/// One look-up that counts as running until this is dropped.
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
