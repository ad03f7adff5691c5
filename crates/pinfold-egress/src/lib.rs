//! The only outgoing client: parse, resolve, classify, dial what was checked.
