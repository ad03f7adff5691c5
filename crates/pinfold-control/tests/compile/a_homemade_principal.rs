//! E0451
use pinfold_auth::Principal;

pub fn call() -> Principal {
    Principal { inner: unreachable!() }
}
