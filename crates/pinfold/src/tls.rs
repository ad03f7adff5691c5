//! Certificates of the server: the home's own authority, or files of the operator; both renewed
//! while the server runs, without a connection lost.

mod authority;
mod files;
mod names;
mod serve;
mod validity;

pub(crate) use self::{
    authority::{Authority, fingerprint},
    serve::{Certificates, InForce},
};
