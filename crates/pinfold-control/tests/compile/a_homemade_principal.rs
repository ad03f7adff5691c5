//! E0624
use pinfold_auth::Principal;

pub fn call() -> Principal {
    Principal::owner(0)
}
