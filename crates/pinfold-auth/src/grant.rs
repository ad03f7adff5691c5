//! The proof that one call was allowed.

use std::{fmt, marker::PhantomData};

use pinfold_types::PrincipalId;

use crate::{Caller, ObjectRef, Operation, Principal};

/// This caller may do operation `O` on this object, once.
///
/// Only [`crate::Authorizer::authorize`] makes one. It cannot be cloned, defaulted, parsed or
/// converted into a grant of another operation; a service function consumes it, and acts on the
/// object that it names.
#[must_use = "a grant is for a call"]
pub struct Grant<O: Operation> {
    caller: Caller,
    object: ObjectRef,
    rule: &'static str,
    owner: Option<PrincipalId>,
    operation: PhantomData<fn() -> O>,
}

impl<O: Operation> Grant<O> {
    pub(crate) const fn new(
        caller: Caller,
        object: ObjectRef,
        rule: &'static str,
        owner: Option<PrincipalId>,
    ) -> Self {
        Self { caller, object, rule, owner, operation: PhantomData }
    }

    /// Who may, and in which call.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Who may.
    pub const fn principal(&self) -> &Principal {
        self.caller.principal()
    }

    /// On what.
    pub const fn object(&self) -> &ObjectRef {
        &self.object
    }

    /// Whose the object is, where it is somebody's.
    pub const fn owner(&self) -> Option<PrincipalId> {
        self.owner
    }

    /// The rule that allowed it.
    pub const fn rule(&self) -> &'static str {
        self.rule
    }
}

impl<O: Operation> fmt::Debug for Grant<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant({} on {} by {})", O::INFO.name, self.object, self.principal().id())
    }
}
