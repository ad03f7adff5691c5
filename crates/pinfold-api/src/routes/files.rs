//! Files, archives and ports inside workspaces.

use axum::response::IntoResponse;
use http::{HeaderValue, StatusCode, header};
use pinfold_auth::ops;
use pinfold_control::{Node, Service};
use pinfold_types::{Error, ErrorCode, files::ReadFile, name::excerpt};

use crate::{
    call::{Call, read_query},
    range::{self, Wanted},
    reply::{Failure, Reply, bytes, json, nothing},
    streams::{tunnel, watch as watching},
    upgrade::Upgrade,
};

/// Content of files.
const BYTES: &str = "application/octet-stream";

pub(super) async fn stat<N: Node>(service: Service<N>, call: Call<ops::FileStat>) -> Reply {
    let (grant, request) = call.query()?;
    json(&service.stat_file(grant, &request).await?)
}

pub(super) async fn list<N: Node>(service: Service<N>, call: Call<ops::FileList>) -> Reply {
    let (grant, request) = call.query()?;
    json(&service.list_files(grant, &request).await?)
}

pub(super) async fn read<N: Node>(service: Service<N>, call: Call<ops::FileRead>) -> Reply {
    let request: ReadFile = read_query(call.parts())?;
    // A part named by the query is a whole of its own.
    let part = request.offset.is_some() || request.length.is_some();
    let asked = range::asked(&call.parts().headers).filter(|_| !part).map(str::to_owned);
    let mut reply = match asked {
        Some(asked) => return read_range(service, call, &request.path, &asked).await,
        None => bytes(BYTES, service.read_file(call.grant(), &request).await?),
    };
    reply.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(reply)
}

async fn read_range<N: Node>(
    service: Service<N>,
    call: Call<ops::FileRead>,
    path: &str,
    asked: &str,
) -> Reply {
    let mut found = Wanted::Nothing;
    let choose = |size| {
        found = range::wanted(asked, size);
        match found {
            Wanted::Whole => Some((0, size)),
            Wanted::Part { first, length } => Some((first, length)),
            Wanted::Nothing => None,
        }
    };
    let (size, stream) = service.read_file_part(call.grant(), path, choose).await?;
    let span = match found {
        Wanted::Part { first, length } => format!("bytes {first}-{}/{size}", first + length - 1),
        Wanted::Whole | Wanted::Nothing => format!("bytes */{size}"),
    };
    let span = HeaderValue::from_str(&span).map_err(Error::internal)?;
    let Some(stream) = stream else {
        let message = format!("the file has {size} bytes: {:?} is beyond them", excerpt(asked));
        let mut reply =
            Failure(Error::new(ErrorCode::RangeNotSatisfiable, message)).into_response();
        reply.headers_mut().insert(header::CONTENT_RANGE, span);
        return Ok(reply);
    };
    let mut reply = bytes(BYTES, stream);
    reply.headers_mut().insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Wanted::Part { length, .. } = found {
        *reply.status_mut() = StatusCode::PARTIAL_CONTENT;
        reply.headers_mut().insert(header::CONTENT_RANGE, span);
        // A file that got shorter meanwhile breaks the connection off.
        reply.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(reply)
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
