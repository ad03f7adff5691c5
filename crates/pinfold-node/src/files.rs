//! Files, ports and the rest of what the guest does for a caller, with the workspace kept in use
//! meanwhile. Nothing here touches the workspace's files from the host.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use pinfold_proto::{ArchiveOptions, Archived, FileList, WriteOptions};
use pinfold_types::{
    Result,
    api::{FileInfo, PortInfo, WatchEvent},
    exec::check_path,
    workspace::WorkspaceStats,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};

use crate::{
    LocalNode,
    activity::InUse,
    guest::{ByteStream, Guest, TcpTunnel},
    live::Live,
    node::blocking,
    workspace::Workspace,
};

impl LocalNode {
    /// Facts of a path, of the link itself where it is one.
    pub async fn stat_file(&self, reference: &str, path: &str) -> Result<FileInfo> {
        let inside = self.at_path(reference, path)?;
        inside.ask(|guest| async move { guest.stat(path).await }).await
    }

    /// One page of a directory, in byte order of names.
    pub async fn list_files(
        &self,
        reference: &str,
        path: &str,
        after: Option<&str>,
        limit: Option<u32>,
    ) -> Result<FileList> {
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let inside = self.at_path(reference, path)?;
        inside.ask(|guest| async move { guest.list(path, after, limit).await }).await
    }

    /// Content of a file from an offset on, as much as asked for or all.
    pub async fn read_file(
        &self,
        reference: &str,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<ByteStream> {
        let inside = self.at_path(reference, path)?;
        let read = |guest: Guest| async move { guest.read(path, offset, length).await };
        Ok(held(inside.ask(read).await?, inside.in_use))
    }

    /// Writes a file: replaced at once when all bytes have come, or in place at an offset.
    pub async fn write_file(
        &self,
        reference: &str,
        path: &str,
        options: WriteOptions,
        content: ByteStream,
    ) -> Result<FileInfo> {
        let inside = self.at_path(reference, path)?;
        inside.channel().await?.write(path, options, content).await
    }

    /// Makes a directory.
    pub async fn make_dir(
        &self,
        reference: &str,
        path: &str,
        mode: Option<u32>,
        parents: bool,
    ) -> Result<()> {
        let inside = self.at_path(reference, path)?;
        inside.channel().await?.mkdir(path, mode, parents).await
    }

    /// Moves, replacing what is there.
    pub async fn rename_file(&self, reference: &str, from: &str, to: &str) -> Result<()> {
        check_path(to)?;
        let inside = self.at_path(reference, from)?;
        inside.channel().await?.rename(from, to).await
    }

    /// Removes a file, or a directory with all below it. Links are removed, not followed.
    pub async fn remove_file(&self, reference: &str, path: &str, recursive: bool) -> Result<()> {
        let inside = self.at_path(reference, path)?;
        inside.channel().await?.remove(path, recursive).await
    }

    /// Changes permission bits.
    pub async fn chmod_file(&self, reference: &str, path: &str, mode: u32) -> Result<()> {
        let inside = self.at_path(reference, path)?;
        inside.ask(|guest| async move { guest.chmod(path, mode).await }).await
    }

    /// Changes the owner.
    pub async fn chown_file(&self, reference: &str, path: &str, uid: u32, gid: u32) -> Result<()> {
        let inside = self.at_path(reference, path)?;
        inside.ask(|guest| async move { guest.chown(path, uid, gid).await }).await
    }

    /// Changes below a path until the receiver is dropped.
    pub async fn watch_files(
        &self,
        reference: &str,
        path: &str,
        recursive: bool,
    ) -> Result<mpsc::Receiver<WatchEvent>> {
        let inside = self.at_path(reference, path)?;
        let watch = |guest: Guest| async move { guest.watch(path, recursive).await };
        let mut events = inside.ask(watch).await?;
        let in_use = inside.in_use;
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            let _in_use = in_use;
            loop {
                let event = tokio::select! {
                    () = sender.closed() => return,
                    event = events.recv() => event,
                };
                let Some(event) = event else { return };
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    /// A path as tar, made inside.
    pub async fn get_archive(&self, reference: &str, path: &str) -> Result<ByteStream> {
        let inside = self.at_path(reference, path)?;
        let get = |guest: Guest| async move { guest.archive_get(path).await };
        Ok(held(inside.ask(get).await?, inside.in_use))
    }

    /// Unpacks a tar below a directory, inside.
    pub async fn put_archive(
        &self,
        reference: &str,
        path: &str,
        options: ArchiveOptions,
        content: ByteStream,
    ) -> Result<Archived> {
        let inside = self.at_path(reference, path)?;
        inside.channel().await?.archive_put(path, content, options).await
    }

    /// A TCP connection to a port on the workspace's loopback.
    pub async fn tcp(&self, reference: &str, port: u16) -> Result<Tunnel> {
        let inside = self.inside(reference)?;
        let tunnel = inside.ask(|guest| async move { guest.tcp(port).await }).await?;
        Ok(Tunnel { tunnel, _in_use: inside.in_use })
    }

    /// TCP ports that something inside listens on.
    pub async fn ports(&self, reference: &str) -> Result<Vec<PortInfo>> {
        self.inside(reference)?.ask(|guest| async move { guest.ports().await }).await
    }

    /// What a workspace uses now. Looking is not using: it does not keep an idle one alive.
    pub async fn stats(&self, reference: &str) -> Result<WorkspaceStats> {
        let workspace = self.inner().registry.find(reference)?;
        let live = workspace.live();
        let (pool, id) = (Arc::clone(&self.inner().pool), workspace.id.to_string());
        let disk_bytes =
            blocking(move || Ok(pool.usage(&id).ok().map(|usage| usage.referenced_bytes))).await?;
        let mut stats = WorkspaceStats { disk_bytes, ..Default::default() };
        let Some(live) = live else { return Ok(stats) };
        if let Some(counters) = live.counters() {
            stats.memory_bytes = counters.memory_bytes;
            stats.cpu_usec = counters.cpu_usec;
            stats.pids = counters.pids;
            stats.oom_kills = counters.oom_kills;
            stats.pids_hits = counters.pids_hits;
        }
        let started = workspace.with_row(|row| row.started_at);
        let uptime = started.map(|at| jiff::Timestamp::now().duration_since(at).as_millis());
        stats.uptime_ms = uptime.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        if workspace.running().is_ok()
            && let Ok(inside) =
                workspace.ask(&live, |guest| async move { guest.stats().await }).await
        {
            stats.execs = inside.execs;
            stats.cpu_usec = stats.cpu_usec.or(Some(inside.cpu_usec));
            stats.pids = stats.pids.or(Some(inside.pids));
        }
        Ok(stats)
    }

    fn at_path(&self, reference: &str, path: &str) -> Result<Inside> {
        check_path(path)?;
        self.inside(reference)
    }

    fn inside(&self, reference: &str) -> Result<Inside> {
        let workspace = self.inner().registry.find(reference)?;
        let live = workspace.running()?;
        Ok(Inside { in_use: workspace.activity.begin(), workspace, live })
    }
}

/// A running workspace that is being asked for something.
struct Inside {
    workspace: Arc<Workspace>,
    live: Arc<Live>,
    in_use: InUse,
}

impl Inside {
    /// For what must not be asked twice.
    async fn channel(&self) -> Result<Guest> {
        self.workspace.channel(&self.live).await
    }

    async fn ask<T, F>(&self, question: impl Fn(Guest) -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        self.workspace.ask(&self.live, question).await
    }
}

/// A stream that keeps its workspace in use until it is dropped.
struct Held {
    stream: ByteStream,
    _in_use: InUse,
}

fn held(stream: ByteStream, in_use: InUse) -> ByteStream {
    Box::pin(Held { stream, _in_use: in_use })
}

impl Stream for Held {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

/// A TCP connection into a workspace, which it keeps in use until it is dropped.
#[derive(Debug)]
pub struct Tunnel {
    tunnel: TcpTunnel,
    _in_use: InUse,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_read(context, buffer)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tunnel).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tunnel).poll_shutdown(context)
    }
}
