//! Who is calling, and the one place where this room asks for grants.

use std::sync::Arc;

use pinfold_auth::{Authorizer, Grant, ObjectRef, Operation, Principal};
use pinfold_types::Result;

/// A recognised caller and who decides about it.
#[derive(Clone, Debug)]
pub struct Access {
    principal: Principal,
    authorizer: Arc<Authorizer>,
}

impl Access {
    /// The access of this principal.
    pub const fn new(principal: Principal, authorizer: Arc<Authorizer>) -> Self {
        Self { principal, authorizer }
    }

    /// Asks for a grant.
    pub(crate) fn grant<O: Operation>(&self, object: ObjectRef) -> Result<Grant<O>> {
        self.authorizer.authorize::<O>(&self.principal, object)
    }
}
