//! The operations: one function each, every one takes a grant.
