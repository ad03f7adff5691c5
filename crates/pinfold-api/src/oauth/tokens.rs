//! What clients themselves call: registration, tokens, revocation.

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use jiff::Timestamp;
use pinfold_control::{Node, OauthError, Registration, Service, Shown};
use pinfold_types::error::whole_seconds;
use serde_json::{Value, json};

use crate::{
    json,
    login::{form, visitor},
    reply,
};

/// Largest registration.
const MAX_REGISTRATION: usize = 16 << 10;

fn answer(status: u16, document: &Value) -> Response {
    let mut response = Response::new(Body::from(document.to_string()));
    *response.status_mut() = reply::status(status);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // RFC 6749 §5.1; `Cache-Control: no-store` is on every answer.
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

fn failed(error: &OauthError) -> Response {
    let document = json!({ "error": error.error, "error_description": error.description });
    let mut response = answer(error.status, &document);
    reply::retry_after(response.headers_mut(), error.retry_after_ms.map(whole_seconds));
    response
}

fn given(answer: Result<Response, OauthError>) -> Response {
    answer.unwrap_or_else(|error| failed(&error)).into_response()
}

pub(super) async fn register<N: Node>(
    State(service): State<Service<N>>,
    request: Request,
) -> Response {
    given(
        async move {
            let visitor = visitor(&request);
            let body = form::bytes(request, MAX_REGISTRATION).await?;
            let registration: Registration = json::parse(&body)
                .map_err(|error| OauthError::from(error).called("invalid_client_metadata"))?;
            let client = service.register_client(&registration, &visitor).await?;
            let document = json!({
                "client_id": client.id,
                "client_id_issued_at": Timestamp::now().as_second(),
                "client_name": client.name,
                "redirect_uris": client.redirects,
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "none",
            });
            Ok(answer(201, &document))
        }
        .await,
    )
}

pub(super) async fn issue<N: Node>(
    State(service): State<Service<N>>,
    request: Request,
) -> Response {
    given(
        async move {
            let visitor = visitor(&request);
            let mut fields = form::body(request).await?;
            let mut text = |name: &str| fields.take(name).map(Option::unwrap_or_default);
            let mut shown = Shown {
                grant_type: text("grant_type")?,
                client_id: text("client_id")?,
                code: text("code")?,
                code_verifier: text("code_verifier")?,
                refresh_token: text("refresh_token")?,
                ..Shown::default()
            };
            shown.redirect_uri = fields.take("redirect_uri")?;
            shown.scope = fields.take("scope")?;
            shown.resource = fields.take("resource")?;
            let tokens = service.issue_tokens(&shown, &visitor).await?;
            let document = json!({
                "access_token": tokens.access_token,
                "token_type": "Bearer",
                "expires_in": tokens.expires_in_s,
                "refresh_token": tokens.refresh_token,
                "scope": tokens.scope,
            });
            Ok(answer(200, &document))
        }
        .await,
    )
}

pub(super) async fn revoke<N: Node>(
    State(service): State<Service<N>>,
    request: Request,
) -> Response {
    given(
        async move {
            let visitor = visitor(&request);
            let mut fields = form::body(request).await?;
            let token = fields.take("token")?.unwrap_or_default();
            let client = fields.take("client_id")?.unwrap_or_default();
            service.give_back(&token, &client, &visitor).await?;
            Ok(answer(200, &json!({})))
        }
        .await,
    )
}
