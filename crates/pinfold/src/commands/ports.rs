//! `ports ls`, `ports forward`.

use std::net::SocketAddr;

use bytes::BytesMut;
use pinfold_api::ws::{Message, Receiver, Sender};
use pinfold_types::{Error, ErrorCode, Result, api::PortInfo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc},
};

use super::{Context, workspace_path};
use crate::{
    args::files::{Forward, Mapping, Ports},
    client::Client,
    output::table::{Cell, Table},
};

/// Most connections of one forward at once.
const MAX_CONNECTIONS: usize = 512;

pub(super) async fn ports(context: &Context, args: Ports) -> Result<()> {
    match args {
        Ports::Forward(args) => forward(context, args).await,
        Ports::Ls(args) => {
            let path = workspace_path(&args.workspace, "/ports");
            let found: Vec<PortInfo> = context.client.get(&path).await?;
            context.output.show(&found, |found| {
                let mut table = Table::new(context.output.color(), &["PORT", "ADDRESS"]);
                for port in found {
                    table.row([Cell::from(port.port.to_string()), port.address.as_str().into()]);
                }
                table.render()
            })
        }
    }
}

async fn forward(context: &Context, args: Forward) -> Result<()> {
    // Says at once that the workspace is not there, rather than at the first connection.
    let _known: Vec<PortInfo> =
        context.client.get(&workspace_path(&args.workspace, "/ports")).await?;
    let limit = std::sync::Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for mapping in &args.ports {
        let listener = listen(args.address, mapping).await?;
        let here = listener.local_addr().map_err(Error::internal)?;
        if context.output.json() {
            let line = serde_json::json!({"local": here.to_string(), "port": mapping.remote});
            context.output.line(line)?;
        } else {
            context.output.line(format!("{here} -> {}:{}", args.workspace, mapping.remote))?;
        }
        let path = workspace_path(&args.workspace, &format!("/ports/{}", mapping.remote));
        let (client, limit) = (context.client.clone(), std::sync::Arc::clone(&limit));
        tokio::spawn(async move {
            loop {
                let Ok(permit) = std::sync::Arc::clone(&limit).acquire_owned().await else {
                    return;
                };
                let Ok((stream, _peer)) = listener.accept().await else { continue };
                let (client, path) = (client.clone(), path.clone());
                tokio::spawn(async move {
                    if let Err(error) = tunnel(&client, &path, stream).await {
                        crate::output::Output::new(false, false).error(&error);
                    }
                    drop(permit);
                });
            }
        });
    }
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::internal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::internal)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn listen(address: std::net::IpAddr, mapping: &Mapping) -> Result<TcpListener> {
    let refused = |port: u16, error: std::io::Error| {
        Error::new(ErrorCode::Conflict, format!("{address}:{port} cannot be listened on: {error}"))
            .hint("choose another port: LOCAL:PORT, or 0:PORT for any")
    };
    if let Some(port) = mapping.local {
        let bound = TcpListener::bind(SocketAddr::new(address, port)).await;
        return bound.map_err(|error| refused(port, error));
    }
    let same = mapping.remote.get();
    // NET-08: no privileged port, chosen automatically or not.
    if same >= 1024
        && let Ok(listener) = TcpListener::bind(SocketAddr::new(address, same)).await
    {
        return Ok(listener);
    }
    TcpListener::bind(SocketAddr::new(address, 0)).await.map_err(|error| refused(0, error))
}

/// One connection: bytes both ways, the end of each way passed on by itself. An empty binary
/// message is the end of a way.
async fn tunnel(client: &Client, path: &str, stream: TcpStream) -> Result<()> {
    let (mut sender, mut receiver) = client.websocket(path).await?;
    let _latency = stream.set_nodelay(true);
    let (mut read, mut write) = stream.into_split();
    let (pongs, mut asked) = mpsc::channel(4);
    let up = async {
        upload(&mut read, &mut sender, &mut asked).await;
    };
    let down = async {
        download(&mut receiver, &mut write, &pongs).await;
        drop(pongs);
    };
    tokio::join!(up, down);
    Ok(())
}

async fn upload(
    read: &mut tokio::net::tcp::OwnedReadHalf,
    sender: &mut Sender,
    asked: &mut mpsc::Receiver<bytes::Bytes>,
) {
    let mut open = true;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(64 << 10);
        let sent = tokio::select! {
            pong = asked.recv() => {
                let Some(payload) = pong else {
                    // The other way has ended altogether.
                    let _gone = sender.close(1000, "").await;
                    return;
                };
                sender.pong(payload).await
            }
            count = read.read_buf(&mut buffer), if open => {
                open = matches!(count, Ok(1..));
                sender.binary(None, buffer.split().freeze()).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

async fn download(
    receiver: &mut Receiver,
    write: &mut tokio::net::tcp::OwnedWriteHalf,
    pongs: &mpsc::Sender<bytes::Bytes>,
) {
    loop {
        match receiver.next().await {
            Ok(Message::Binary(data)) if data.is_empty() => {
                let _gone = write.shutdown().await;
            }
            Ok(Message::Binary(data)) => {
                if write.write_all(&data).await.is_err() {
                    return;
                }
            }
            Ok(Message::Ping(payload)) => {
                let _full = pongs.try_send(payload);
            }
            Ok(Message::Pong | Message::Text(_)) => {}
            Ok(Message::Close(..)) | Err(_) => return,
        }
    }
}
