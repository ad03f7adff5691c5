//! How many connections there may be, of all peers and of one.

use std::{net::IpAddr, sync::Arc};

use pinfold_types::{Error, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::counts::{Counted, Counts};

/// One peer from elsewhere may take this part of all places.
const SHARE: usize = 4;

/// Places for connections.
#[derive(Clone, Debug)]
pub(super) struct Places {
    most: usize,
    free: Arc<Semaphore>,
    taken: Counts<IpAddr>,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Option<Counted<IpAddr>>,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self { most, free: Arc::new(Semaphore::new(most)), taken: Counts::default() }
    }

    /// A place, when there is one.
    pub(super) fn take(&self) -> Option<Place> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        Some(Place { _permit: permit, _share: None })
    }

    /// A place for this peer, when there is one and it has not had its share. Peers on this
    /// machine have no share of their own: a proxy speaks for many.
    pub(super) fn take_for(&self, peer: IpAddr) -> Option<Place> {
        let place = self.take()?;
        if peer.is_loopback() {
            return Some(place);
        }
        let share = self.taken.add(network(peer), (self.most / SHARE).max(1))?;
        Some(Place { _share: Some(share), ..place })
    }
}

/// An address, or the /64 that one owner of IPv6 addresses has at least (RFC 6177).
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into()),
    }
}

/// There is no place.
pub(super) fn full(places: &Places) -> Error {
    Error::new(
        ErrorCode::RateLimited,
        format!("the server has {} connections already", places.most),
    )
    .hint("close some, or raise server.max_connections")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_from_elsewhere_gets_its_share_and_gives_it_back() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let places = Places::new(8);
        let one = places.take_for(address("10.0.0.1")).expect("its first");
        let _two = places.take_for(address("10.0.0.1")).expect("its second");
        assert!(places.take_for(address("10.0.0.1")).is_none(), "more than a quarter");
        let _other = places.take_for(address("10.0.0.2")).expect("another's first");
        drop(one);
        let _again = places.take_for(address("10.0.0.1")).expect("its own again");
        let _net = places.take_for(address("2001:db8::1")).expect("a network's first");
        let _net2 = places.take_for(address("2001:db8::2")).expect("a network's second");
        assert!(places.take_for(address("2001:db8::3")).is_none(), "one network, many addresses");
        let rest: Vec<_> = std::iter::from_fn(|| places.take_for(address("127.0.0.1"))).collect();
        assert_eq!(rest.len(), 3, "what is left, all of it");
        assert!(places.take().is_none());
        drop(rest);
        assert!(places.take().is_some());
    }
}
