//! Files, archives and ports inside workspaces.

use pinfold_auth::ops;
use pinfold_control::{Node, Service};

use crate::{
    call::{Call, read_query},
    reply::{Reply, bytes, json, nothing},
    streams::{tunnel, watch as watching},
    upgrade::Upgrade,
};

pub(super) async fn stat<N: Node>(service: Service<N>, call: Call<ops::FileStat>) -> Reply {
    let (grant, request) = call.query()?;
    json(&service.stat_file(grant, &request).await?)
}

pub(super) async fn list<N: Node>(service: Service<N>, call: Call<ops::FileList>) -> Reply {
    let (grant, request) = call.query()?;
    json(&service.list_files(grant, &request).await?)
}

pub(super) async fn read<N: Node>(service: Service<N>, call: Call<ops::FileRead>) -> Reply {
    let (grant, request) = call.query()?;
    Ok(bytes("application/octet-stream", service.read_file(grant, &request).await?))
}

pub(super) async fn write<N: Node>(service: Service<N>, call: Call<ops::FileWrite>) -> Reply {
    let (grant, request, content) = call.stream()?;
    json(&service.write_file(grant, &request, Box::pin(content)).await?)
}

pub(super) async fn mkdir<N: Node>(service: Service<N>, call: Call<ops::FileMkdir>) -> Reply {
    let (grant, request) = call.json().await?;
    service.make_directory(grant, &request).await?;
    Ok(nothing())
}

pub(super) async fn rename<N: Node>(service: Service<N>, call: Call<ops::FileRename>) -> Reply {
    let (grant, request) = call.json().await?;
    service.rename_file(grant, &request).await?;
    Ok(nothing())
}

pub(super) async fn remove<N: Node>(service: Service<N>, call: Call<ops::FileRemove>) -> Reply {
    let (grant, request) = call.json().await?;
    service.remove_file(grant, &request).await?;
    Ok(nothing())
}

pub(super) async fn chmod<N: Node>(service: Service<N>, call: Call<ops::FileChmod>) -> Reply {
    let (grant, request) = call.json().await?;
    service.change_mode(grant, &request).await?;
    Ok(nothing())
}

pub(super) async fn watch<N: Node>(service: Service<N>, call: Call<ops::FileWatch>) -> Reply {
    let request = read_query(call.parts())?;
    let (grant, parts) = call.into_parts();
    let upgrade = Upgrade::new(parts)?;
    let events = service.watch_files(grant, &request).await?;
    Ok(upgrade.run(move |socket| watching::carry(socket, events)))
}

pub(super) async fn archive<N: Node>(service: Service<N>, call: Call<ops::ArchiveRead>) -> Reply {
    let (grant, request) = call.query()?;
    Ok(bytes("application/x-tar", service.read_archive(grant, &request).await?))
}

pub(super) async fn unpack<N: Node>(service: Service<N>, call: Call<ops::ArchiveWrite>) -> Reply {
    let (grant, request, content) = call.stream()?;
    json(&service.write_archive(grant, &request, Box::pin(content)).await?)
}

pub(super) async fn ports<N: Node>(service: Service<N>, call: Call<ops::PortList>) -> Reply {
    json(&service.ports(call.grant()).await?)
}

pub(super) async fn connect<N: Node>(service: Service<N>, call: Call<ops::PortConnect>) -> Reply {
    let port = call.port()?;
    let (grant, parts) = call.into_parts();
    let upgrade = Upgrade::new(parts)?;
    let tcp = service.connect_port(grant, port).await?;
    Ok(upgrade.run(move |socket| tunnel::carry(socket, tcp)))
}
