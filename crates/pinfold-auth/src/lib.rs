//! Who calls, what there is to call, and the proof that a caller may: pure decisions, no I/O.
//!
//! Every operation of Pinfold is one line of the table in [`ops`]. Surfaces, scopes, limits and
//! the documentation come from it. The functions that do the work take a [`Grant`] of their
//! operation, and only [`Authorizer::authorize`] makes one.
//!
//! ```
//! use pinfold_auth::{Authorizer, ObjectRef, PeerCredentials, ops};
//!
//! let authorizer = Authorizer::new(1000);
//! let owner = authorizer.peer(PeerCredentials { uid: 1000 })?;
//! let grant = authorizer.authorize::<ops::WorkspaceStop>(&owner, ObjectRef::workspace("fix-42"))?;
//! assert_eq!(grant.object().reference(), "fix-42");
//! assert!(authorizer.peer(PeerCredentials { uid: 1001 }).is_err());
//! # Ok::<(), pinfold_types::Error>(())
//! ```
//!
//! What may not be written: a grant without the authorizer.
//!
//! ```compile_fail
//! let grant: pinfold_auth::Grant<pinfold_auth::ops::WorkspaceStop> = Default::default();
//! ```
#![forbid(unsafe_code)]

mod authorizer;
mod grant;
mod object;
pub mod operation;
pub mod ops;
mod principal;

pub use authorizer::Authorizer;
pub use grant::Grant;
pub use object::{ObjectKind, ObjectRef};
pub use operation::{Operation, OperationInfo};
pub use ops::OPERATIONS;
pub use principal::{PeerCredentials, Principal, PrincipalKind};
