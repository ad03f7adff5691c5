//! The server itself.

use pinfold_auth::ops;
use pinfold_control::{Node, Service};

use crate::{
    call::Call,
    reply::{self, Reply, bytes, json},
};

pub(super) async fn read<N: Node>(service: Service<N>, call: Call<ops::ServerRead>) -> Reply {
    json(&service.server(call.grant()).await?)
}

pub(super) async fn operations<N: Node>(
    service: Service<N>,
    call: Call<ops::OperationList>,
) -> Reply {
    json(&service.operations(call.grant()).await?)
}

pub(super) async fn openapi<N: Node>(service: Service<N>, call: Call<ops::OpenapiRead>) -> Reply {
    let (grant, parts) = call.into_parts();
    service.openapi(grant).await?;
    let (text, tag) = crate::openapi::served();
    Ok(reply::cached(&parts.headers, "application/json", text.clone(), tag))
}

pub(super) async fn doctor<N: Node>(service: Service<N>, call: Call<ops::DoctorRun>) -> Reply {
    json(&service.doctor(call.grant()).await?)
}

pub(super) async fn backup<N: Node>(service: Service<N>, call: Call<ops::BackupCreate>) -> Reply {
    let (grant, request) = call.json().await?;
    Ok(bytes("application/octet-stream", service.create_backup(grant, request).await?))
}

pub(super) async fn recovery<N: Node>(service: Service<N>, call: Call<ops::RecoveryList>) -> Reply {
    json(&service.recovery(call.grant()).await?)
}
