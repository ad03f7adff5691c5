//! What is answered before anybody is known: no grant is possible yet, so these are no operations
//! of the table. Every one of them is here, with the reason why it may be open; a test and the
//! threat model hold the list. None is answered on the unix socket, whose callers are known.

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use pinfold_control::{Node, Service};

use crate::{layers, listen::Peer, login, oauth};

/// Method, path and reason of everything that is open over TCP, besides `/healthz` and `/readyz`.
pub const OPEN: &[(&str, &str, &str)] = &[
    ("GET", "/", "shows a signed-in browser its sessions, and others the way in"),
    ("GET", "/login", "shows a button; looks at nothing, so that a preview uses no link up"),
    ("POST", "/login", "uses a link up: 256 random bits, once, counted by address and principal"),
    ("GET", "/login/page.css", "the style of the pages, the same for all"),
    ("POST", "/logout", "ends what its own cookie opened"),
    ("GET", "/.well-known/oauth-authorization-server", "says where the rest is (RFC 8414)"),
    ("GET", "/.well-known/oauth-protected-resource", "says who gives tokens (RFC 9728)"),
    ("GET", "/.well-known/oauth-protected-resource/mcp", "the same"),
    ("GET", "/oauth/authorize", "checks a request and goes on to the next, same-site"),
    (
        "GET",
        "/oauth/consent",
        "asks the person behind the browser's cookie; shows others the way in",
    ),
    ("POST", "/oauth/consent", "takes that person's answer, by cookie, origin and page number"),
    ("POST", "/oauth/register", "makes a client that can do nothing without a person's consent"),
    ("POST", "/oauth/token", "takes a code with its verifier, or a refresh token"),
    ("POST", "/oauth/revoke", "ends what its own token opened (RFC 7009)"),
];

/// The routes.
pub(crate) fn routes<N: Node>(service: &Service<N>) -> Router {
    let mut router = login::routes(Router::new());
    let elsewhere = service.provider().is_some();
    if elsewhere || service.oauth_config().enabled {
        router = oauth::resource(router);
    }
    if !elsewhere && service.oauth_config().enabled {
        router = oauth::routes(router);
    }
    router
        .method_not_allowed_fallback(layers::no_method)
        .with_state(service.clone())
        .layer(from_fn(over_tcp))
}

/// The unix socket has no browsers, and nobody on it is unknown.
async fn over_tcp(request: Request, next: Next) -> Response {
    match request.extensions().get::<Peer>() {
        Some(Peer::Tcp { .. }) => next.run(request).await,
        _ => layers::no_route(request).await.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threat_model_names_everything_that_is_open() {
        let model = include_str!("../../../docs/security/threat-model.md");
        for (method, path, _) in OPEN {
            assert!(model.contains(&format!("`{method} {path}`")), "{method} {path}");
        }
    }
}
