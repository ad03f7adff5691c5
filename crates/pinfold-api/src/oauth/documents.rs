//! What clients read first: the server's metadata (RFC 8414) and the resource's (RFC 9728). Both
//! speak of the server as it was called, so that a client finds it by the name that it knows.

use axum::{
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use pinfold_control::{Node, Service};
use serde_json::json;

use crate::{
    login::called,
    reply::{self, Failure},
};

pub(super) async fn server<N: Node>(
    State(service): State<Service<N>>,
    request: Request,
) -> Response {
    let called = match called(&request) {
        Ok(called) => called.origin,
        Err(error) => return Failure(error).into_response(),
    };
    let mut document = json!({
        "issuer": called.to_string(),
        "authorization_endpoint": format!("{called}/oauth/authorize"),
        "token_endpoint": format!("{called}/oauth/token"),
        "revocation_endpoint": format!("{called}/oauth/revoke"),
        "scopes_supported": service.scopes_to_ask_for(),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": true,
    });
    if service.oauth_config().registration {
        document["registration_endpoint"] = format!("{called}/oauth/register").into();
    }
    reply::json(&document).into_response()
}

pub(super) async fn resource<N: Node>(
    State(service): State<Service<N>>,
    request: Request,
) -> Response {
    let called = match called(&request) {
        Ok(called) => called.origin,
        Err(error) => return Failure(error).into_response(),
    };
    let provider = service.provider();
    let resource = provider.and_then(|of| of.resource).map(str::to_owned);
    let issuer = provider.map_or_else(|| called.to_string(), |of| of.issuer.to_owned());
    let document = json!({
        "resource": resource.unwrap_or_else(|| format!("{called}/mcp")),
        "authorization_servers": [issuer],
        "scopes_supported": service.scopes_to_ask_for(),
        "bearer_methods_supported": ["header"],
        "resource_name": "Pinfold",
    });
    reply::json(&document).into_response()
}
