//! The host's end of the channel to a workspace's guest.
//!
//! One socket per guest, one task that reads and one that writes, and any number of calls at once.
//! Every future here may be dropped: the call is then taken back. A command that was started goes
//! on; only its stream ends. When the socket closes, every call ends with an error that says so.
//!
//! The guest is not trusted: what it sends is bounded by the credit it was given, and anything
//! against the protocol ends the connection.

use std::{collections::BTreeMap, fmt, path::Path, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use pinfold_proto::{ArchiveOptions, Archived, FileList, GuestStats, Request, WriteOptions};
use pinfold_types::{
    BootSecret, ExecId, Result, WorkspaceId,
    api::{FileInfo, PortInfo, WatchEvent},
    exec::{ExecInfo, ExecSpec},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

mod call;
mod dial;
mod exec;
mod link;
mod streams;
mod tunnel;

pub use exec::{ExecEvent, ExecHandle, ExecStream};
use link::Users;
pub use tunnel::TcpTunnel;

/// Bytes in pieces.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// A channel to one boot of one workspace. Clones share it.
#[derive(Clone)]
pub struct Guest(Arc<Users>);

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

impl Guest {
    /// Dials the guest and shows the boot's secret. An earlier channel, of a server that is gone,
    /// is replaced.
    ///
    /// # Errors
    /// `unavailable` when nothing answers within five seconds, `unauthenticated` when it hangs up
    /// on the secret, `stale_boot` when it is another boot's.
    pub async fn connect(
        socket: &Path,
        workspace: &WorkspaceId,
        boot: u64,
        secret: &BootSecret,
    ) -> Result<Self> {
        dial::dial(socket, workspace, boot, secret).await.map(Self)
    }

    /// Whether the channel has ended.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the channel has ended: the workspace stopped, or another server dialled it.
    pub async fn closed(&self) {
        self.0.closed().await;
    }

    /// Starts a command. One that cannot be started is a stream whose only event is its result.
    ///
    /// # Errors
    /// `invalid_argument` when `spec` breaks the rules, `already_exists` for a known id,
    /// `rate_limited` when the workspace runs as many as it may.
    pub async fn exec(&self, id: ExecId, spec: ExecSpec) -> Result<ExecStream> {
        let request = Request::Exec { id, spec: Box::new(spec) };
        ExecStream::open(&self.0, id, &request).await
    }

    /// Joins a command from an offset of its output, `None` from the oldest that is held. The
    /// newest stream of a command is the one it waits for.
    ///
    /// # Errors
    /// `not_found` when it is unknown or was forgotten.
    pub async fn attach(&self, id: ExecId, from: Option<u64>) -> Result<ExecStream> {
        ExecStream::open(&self.0, id, &Request::Attach { id, from }).await
    }

    /// Commands that run or ended a short while ago, oldest first.
    ///
    /// # Errors
    /// When the channel ends.
    pub async fn execs(&self) -> Result<Vec<ExecInfo>> {
        self.ask(&Request::Execs).await
    }

    /// Signals a command's process group.
    ///
    /// # Errors
    /// `conflict` when it has ended.
    pub async fn signal(&self, id: ExecId, signal: i32) -> Result<()> {
        self.ask(&Request::Signal { id, signal }).await
    }

    /// Replaces the environment that commands start with. It stays in the guest's memory.
    ///
    /// # Errors
    /// `invalid_argument` for names on the block-list.
    pub async fn set_env(&self, env: BTreeMap<String, String>) -> Result<()> {
        self.ask(&Request::SetEnv { env }).await
    }

    /// Facts of a path, of the link itself where it is one.
    ///
    /// # Errors
    /// `not_found`, `forbidden` and so on, naming the path.
    pub async fn stat(&self, path: &str) -> Result<FileInfo> {
        self.ask(&Request::Stat { path: path.to_owned() }).await
    }

    /// One page of a directory, at most 1000 entries; `next` of one page is `after` of the next.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub async fn list(
        &self,
        path: &str,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Result<FileList> {
        let after = after.map(str::to_owned);
        self.ask(&Request::List { path: path.to_owned(), after, limit }).await
    }

    /// Content of a file, at most `length` bytes from `offset` on.
    ///
    /// # Errors
    /// As [`Self::stat`]; `unprocessable` for what is not a regular file.
    pub async fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Result<ByteStream> {
        Ok(self.read_with_info(path, offset, length).await?.1)
    }

    /// [`Self::read`], with the facts of the file that was opened.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_with_info(
        &self,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> Result<(Option<FileInfo>, ByteStream)> {
        let request = Request::Read { path: path.to_owned(), offset, length };
        streams::download(&self.0, &request).await
    }

    /// Writes a file, all at once in effect or in place: see [`WriteOptions`]. When `content`
    /// fails or this future is dropped, a file that was to be replaced stays as it was.
    ///
    /// # Errors
    /// As [`Self::stat`]; `disk_full`; the error of `content`.
    pub async fn write(
        &self,
        path: &str,
        options: WriteOptions,
        content: ByteStream,
    ) -> Result<FileInfo> {
        let request = Request::Write { path: path.to_owned(), options };
        streams::upload(&self.0, &request, content).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `already_exists` unless `parents`.
    pub async fn mkdir(&self, path: &str, mode: Option<u32>, parents: bool) -> Result<()> {
        self.ask(&Request::Mkdir { path: path.to_owned(), mode, parents }).await
    }

    /// Moves, replacing what is there.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.ask(&Request::Rename { from: from.to_owned(), to: to.to_owned() }).await
    }

    /// Removes, with all below it when `recursive`. Links are removed, not followed.
    ///
    /// # Errors
    /// `already_exists` for a directory that is not empty.
    pub async fn remove(&self, path: &str, recursive: bool) -> Result<()> {
        self.ask(&Request::Remove { path: path.to_owned(), recursive }).await
    }

    /// Changes permission bits.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub async fn chmod(&self, path: &str, mode: u32) -> Result<()> {
        self.ask(&Request::Chmod { path: path.to_owned(), mode }).await
    }

    /// Changes the owner, of the link itself where it is one.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub async fn chown(&self, path: &str, uid: u32, gid: u32) -> Result<()> {
        self.ask(&Request::Chown { path: path.to_owned(), uid, gid }).await
    }

    /// Changes below a path, until the receiver is dropped or the channel ends.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub async fn watch(&self, path: &str, recursive: bool) -> Result<mpsc::Receiver<WatchEvent>> {
        streams::watch(&self.0, &Request::Watch { path: path.to_owned(), recursive }).await
    }

    /// A path as tar, made inside.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub async fn archive_get(&self, path: &str) -> Result<ByteStream> {
        Ok(streams::download(&self.0, &Request::ArchiveGet { path: path.to_owned() }).await?.1)
    }

    /// Unpacks a tar below a directory, inside.
    ///
    /// # Errors
    /// `bad_image` for an archive that is malformed or reaches outside the directory; what was
    /// unpacked before stays.
    pub async fn archive_put(
        &self,
        path: &str,
        archive: ByteStream,
        options: ArchiveOptions,
    ) -> Result<Archived> {
        let request = Request::ArchivePut { path: path.to_owned(), options };
        streams::upload(&self.0, &request, archive).await
    }

    /// Connects to a port on the workspace's loopback, IPv4 before IPv6.
    ///
    /// # Errors
    /// `upstream` when nothing listens.
    pub async fn tcp(&self, port: u16) -> Result<TcpTunnel> {
        TcpTunnel::open(&self.0, &Request::Tcp { port }).await
    }

    /// The next connection of a program inside to the API's socket; waits for it.
    ///
    /// # Errors
    /// When the workspace has no such socket, or the channel ends.
    pub async fn api(&self) -> Result<TcpTunnel> {
        TcpTunnel::open(&self.0, &Request::Api).await
    }

    /// TCP ports that something inside listens on.
    ///
    /// # Errors
    /// When the channel ends.
    pub async fn ports(&self) -> Result<Vec<PortInfo>> {
        self.ask(&Request::Ports).await
    }

    /// What the workspace uses, seen from inside.
    ///
    /// # Errors
    /// When the channel ends.
    pub async fn stats(&self) -> Result<GuestStats> {
        self.ask(&Request::Stats).await
    }

    /// Asks every process to end, waits for them up to `grace`, and ends the guest and with it
    /// the workspace. Returns when the guest has said so or is gone.
    ///
    /// # Errors
    /// When the guest refuses; that it is gone already is no error.
    pub async fn shutdown(&self, grace: Duration) -> Result<()> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        match self.ask(&Request::Shutdown { grace_ms }).await {
            Err(_) if self.is_closed() => Ok(()),
            other => other,
        }
    }

    async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T> {
        link::open(&self.0, request).await?.reply().await
    }
}
