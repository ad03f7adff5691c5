//! Principals, the operation table and grants. Pure: no I/O.
