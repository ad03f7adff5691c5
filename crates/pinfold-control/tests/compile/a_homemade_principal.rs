//! E0451
use pinfold_auth::{Principal, PrincipalKind};
use pinfold_types::PrincipalId;

pub fn call() -> Principal {
    Principal { id: PrincipalId::generate(), kind: PrincipalKind::Owner { uid: 0 } }
}
