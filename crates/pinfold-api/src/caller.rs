//! Who is at the other end, as every request of a connection carries it.

use std::sync::Arc;

use pinfold_auth::{Authorizer, Grant, ObjectRef, Operation, Principal};
use pinfold_types::Result;

/// The principal of a connection, and who may decide about it.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: Principal,
    authorizer: Arc<Authorizer>,
}

impl Caller {
    /// A caller that was recognised by this authorizer.
    pub const fn new(principal: Principal, authorizer: Arc<Authorizer>) -> Self {
        Self { principal, authorizer }
    }

    /// Who it is.
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Asks for a grant.
    pub(crate) fn authorize<O: Operation>(&self, object: ObjectRef) -> Result<Grant<O>> {
        self.authorizer.authorize::<O>(&self.principal, object)
    }
}
