//! Who calls, what there is to call, and the proof that a caller may: pure decisions, no I/O.
//!
//! Every operation of Pinfold is one line of the table in [`ops`]. Surfaces, scopes, limits and
//! the documentation come from it. The functions that do the work take a [`Grant`] of their
//! operation, and only [`Authorizer::authorize`] makes one.
//!
//! ```
//! use pinfold_auth::{Authenticator, Authorizer, Caller, Facts, ObjectRef, PeerCredentials, Surface};
//! use pinfold_auth::{TokenKey, ops};
//!
//! let authenticator = Authenticator::new(1000, TokenKey::new([0; 32]));
//! let owner = authenticator.peer(PeerCredentials { uid: 1000 })?;
//! let caller = Caller::new(owner, Surface::Unix);
//! let wish = ObjectRef::workspace("fix-42");
//! let authorizer = Authorizer::new(1000);
//! let grant = authorizer.authorize::<ops::WorkspaceStop>(&caller, wish, Facts::default())?;
//! assert_eq!(grant.object().reference(), "fix-42");
//! assert!(authenticator.peer(PeerCredentials { uid: 1001 }).is_err());
//! # Ok::<(), pinfold_types::Error>(())
//! ```
//!
//! What may not be written: a grant without the authorizer.
//!
//! ```compile_fail
//! let grant: pinfold_auth::Grant<pinfold_auth::ops::WorkspaceStop> = Default::default();
//! ```
#![forbid(unsafe_code)]

mod authenticator;
mod authorizer;
mod caller;
mod grant;
mod object;
pub mod operation;
pub mod ops;
mod principal;
mod scope;
mod token;

pub use authenticator::{Authenticator, Surface, TokenRecord, unauthenticated};
pub use authorizer::{Authorizer, Facts, SELF_OPERATIONS, unseen};
pub use caller::Caller;
pub use grant::Grant;
pub use object::{ObjectKind, ObjectRef};
pub use operation::{Operation, OperationInfo};
pub use ops::OPERATIONS;
pub use principal::{Authority, PeerCredentials, Principal, PrincipalKind};
pub use scope::{SCOPES, ScopeSet, TERMINAL};
pub use token::{
    CredentialClass, ForeignToken, MAX_FOREIGN_TEXT, MAX_TOKEN_TEXT, NotAToken, Token, TokenHash,
    TokenKey,
};
