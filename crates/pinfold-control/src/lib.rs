//! The operations: one function each, and every one takes a [`pinfold_auth::Grant`].
//!
//! A surface parses, authenticates, asks the authorizer for a grant, calls the function of
//! [`Service`] that takes it, and renders what comes back. What every call has in common happens
//! here and nowhere else: values are checked, what changes something is recorded before and after,
//! work in flight is counted, and what happened is told to whoever listens.
//!
//! The service knows no backend. It calls a [`Node`]; the one of this machine is
//! `pinfold_node::LocalNode`.
//!
//! What is not here: routes and formats (`pinfold-api`), who may do what (`pinfold-auth`), how a
//! workspace is made (`pinfold-node`).
#![forbid(unsafe_code)]

mod access;
mod check;
mod events;
mod exec;
mod flight;
mod local;
mod node;
mod page;
mod service;

pub use access::{
    Access, RateState,
    oauth::{
        Client,
        pending::Wish,
        redirect::{place, source},
        scopes::{in_words, looking, offered},
    },
};
pub use events::Visitor;
pub use exec::{ExecEvent, ExecInput, ExecSession, ExecStart};
pub use flight::{InFlight, Tracked};
pub use node::{ByteStream, Node, Progress};
pub use service::{
    EventStream, ServerFacts, Service,
    mcp::{Attendance, McpSession},
    oauth::{Asked, OauthError, Registration, Shown, Tokens, Unfit},
    oidc::Provider,
};
