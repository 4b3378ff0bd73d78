//! Names to addresses, within a bound.

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

/// Look-ups that may hang at one time: the C library gives none up before its own time is over.
const MAX_LOOKUPS: usize = 4;

/// Resolves names within a bound, each in a thread of its own, of which few can hang at one time.
///
/// ureq's own resolver does the same without the bound, and panics when no thread can be started.
#[derive(Debug, Default)]
pub(super) struct BoundedResolver {
    under_way: Arc<AtomicUsize>,
}

/// Why a name was not resolved.
#[derive(Debug)]
pub(crate) enum LookupError {
    /// So many look-ups hang already.
    TooMany,
    Thread(io::Error),
    Lookup(io::Error),
    NoAddress,
}

impl fmt::Display for LookupError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(out, "{MAX_LOOKUPS} look-ups hang already"),
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
        // As many as ureq's array takes.
        found.into_iter().take(16).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(LookupError::NoAddress.into()) } else { Ok(addresses) }
    }
}

impl BoundedResolver {
    fn look_up(
        &self,
        address: String,
        timeout: &NextTimeout,
    ) -> Result<Vec<SocketAddr>, ureq::Error> {
        let permit = Permit(Arc::clone(&self.under_way));
        if permit.0.fetch_add(1, Ordering::Relaxed) >= MAX_LOOKUPS {
            return Err(LookupError::TooMany.into());
        }
        let (sender, found) = mpsc::sync_channel(1);
        let look_up = move || {
            let _permit = permit;
            // Nobody listens any more when the time is over.
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

/// One look-up that counts as under way until this is dropped.
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
