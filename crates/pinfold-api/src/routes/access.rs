//! Tokens and sessions.

use pinfold_auth::ops;
use pinfold_control::{Node, Service};

use crate::{
    authenticate::origin,
    call::Call,
    login::login_page,
    reply::{Reply, bytes, created, json, nothing},
    site::Called,
};

pub(super) async fn who_am_i<N: Node>(service: Service<N>, call: Call<ops::WhoAmI>) -> Reply {
    json(&service.who_am_i(call.grant()).await?)
}

pub(super) async fn create_ticket<N: Node>(
    service: Service<N>,
    call: Call<ops::TicketCreate>,
) -> Reply {
    let origin = origin(&call.parts().headers)?.map(str::to_owned);
    created(&service.create_ticket(call.grant(), origin.as_deref()).await?)
}

pub(super) async fn create_token<N: Node>(
    service: Service<N>,
    call: Call<ops::TokenCreate>,
) -> Reply {
    let (grant, request) = call.json().await?;
    created(&service.create_token(grant, request).await?)
}

pub(super) async fn audit<N: Node>(service: Service<N>, call: Call<ops::AuditList>) -> Reply {
    let (grant, query) = call.query()?;
    json(&service.audit_records(grant, &query).await?)
}

pub(super) async fn verify_audit<N: Node>(
    service: Service<N>,
    call: Call<ops::AuditVerify>,
) -> Reply {
    json(&service.verify_audit(call.grant()).await?)
}

pub(super) async fn export_audit<N: Node>(
    service: Service<N>,
    call: Call<ops::AuditExport>,
) -> Reply {
    let (grant, query) = call.query()?;
    Ok(bytes("application/x-ndjson", service.export_audit(grant, &query).await?))
}

pub(super) async fn workspace_token<N: Node>(
    service: Service<N>,
    call: Call<ops::WorkspaceToken>,
) -> Reply {
    created(&service.workspace_token(call.grant()).await?)
}

pub(super) async fn create_login<N: Node>(
    service: Service<N>,
    call: Call<ops::LoginCreate>,
) -> Reply {
    let called = call.parts().extensions.get::<Called>();
    let page = called.map(|called| login_page(&called.origin));
    created(&service.create_login(call.grant(), page.as_deref()).await?)
}

pub(super) async fn end_logins<N: Node>(service: Service<N>, call: Call<ops::LoginEnd>) -> Reply {
    json(&service.end_logins(call.grant()).await?)
}

pub(super) async fn tokens<N: Node>(service: Service<N>, call: Call<ops::TokenList>) -> Reply {
    let (grant, query) = call.query()?;
    json(&service.list_tokens(grant, &query).await?)
}

pub(super) async fn token<N: Node>(service: Service<N>, call: Call<ops::TokenRead>) -> Reply {
    json(&service.token(call.grant()).await?)
}

pub(super) async fn revoke<N: Node>(service: Service<N>, call: Call<ops::TokenRevoke>) -> Reply {
    json(&service.revoke_token(call.grant()).await?)
}

pub(super) async fn create_session<N: Node>(
    service: Service<N>,
    call: Call<ops::SessionCreate>,
) -> Reply {
    let (grant, request) = call.json().await?;
    created(&service.create_session(grant, request).await?)
}

pub(super) async fn sessions<N: Node>(service: Service<N>, call: Call<ops::SessionList>) -> Reply {
    let (grant, query) = call.query()?;
    json(&service.list_sessions(grant, &query).await?)
}

pub(super) async fn end_session<N: Node>(
    service: Service<N>,
    call: Call<ops::SessionEnd>,
) -> Reply {
    service.end_session(call.grant()).await?;
    Ok(nothing())
}

pub(super) async fn adopt<N: Node>(service: Service<N>, call: Call<ops::SessionAdopt>) -> Reply {
    let (grant, request) = call.json().await?;
    json(&service.adopt(grant, request).await?)
}

pub(super) async fn takeover<N: Node>(
    service: Service<N>,
    call: Call<ops::SessionTakeover>,
) -> Reply {
    json(&service.takeover(call.grant()).await?)
}
