//! The authorization server's endpoints: documents, the way to a person's consent, tokens.
//!
//! A client sends its user's browser from elsewhere, and then a browser keeps a `SameSite=Strict`
//! cookie to itself. So `/oauth/authorize` needs none: it checks the request and shows a page of
//! this server that goes on to `/oauth/consent` by itself. That step comes from our own page, and
//! brings the cookie. Nothing is granted on the way; the consent page waits for a click.

mod authorize;
mod documents;
mod tokens;

use axum::{
    Router,
    routing::{get, post},
};
use pinfold_control::{Node, Service};

/// What says where tokens for `/mcp` are to be had.
pub(crate) fn resource<N: Node>(router: Router<Service<N>>) -> Router<Service<N>> {
    router
        .route("/.well-known/oauth-protected-resource", get(documents::resource))
        .route("/.well-known/oauth-protected-resource/mcp", get(documents::resource))
}

/// The built-in authorization server.
pub(crate) fn routes<N: Node>(router: Router<Service<N>>) -> Router<Service<N>> {
    router
        .route("/.well-known/oauth-authorization-server", get(documents::server))
        .route("/oauth/authorize", get(authorize::authorize))
        .route("/oauth/consent", get(authorize::ask).post(authorize::answer))
        .route("/oauth/register", post(tokens::register))
        .route("/oauth/token", post(tokens::issue))
        .route("/oauth/revoke", post(tokens::revoke))
}
