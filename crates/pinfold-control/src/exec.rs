//! A command's streams, as surfaces see them.

use std::future::Future;

use bytes::Bytes;
use pinfold_types::{
    Error, ExecId, Result, WorkspaceId,
    exec::{ExecResult, TtySize},
};

/// The beginning of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecStart {
    /// Handle for attach and signal.
    pub exec_id: ExecId,
    /// Workspace.
    pub workspace: WorkspaceId,
    /// Boot.
    pub boot: u64,
    /// Process id inside.
    pub pid: i32,
    /// Offset of the first output byte that follows, over both outputs together.
    pub offset: u64,
    /// Output before it that is no longer held.
    pub lost_bytes: u64,
}

/// What a stream says.
#[derive(Clone, Debug)]
pub enum ExecEvent {
    /// Standard output, or the terminal's.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The command ended. Last.
    Exited(ExecResult),
    /// The stream cannot go on. Last.
    Failed(Error),
}

/// A command's output and its end. Dropping it detaches; the command goes on.
pub trait ExecSession: Send + 'static {
    /// The way in.
    type Input: ExecInput;

    /// How the stream began.
    fn start(&self) -> ExecStart;
    /// The next event; `None` after the last. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Option<ExecEvent>> + Send;
    /// The way in, which may be used from another task.
    fn input(&self) -> Self::Input;
}

/// What goes into a command.
pub trait ExecInput: Clone + Send + Sync + 'static {
    /// Writes to standard input; waits while the command does not read.
    fn write(&self, bytes: Bytes) -> impl Future<Output = Result<()>> + Send;
    /// Ends standard input.
    fn eof(&self) -> impl Future<Output = Result<()>> + Send;
    /// The terminal has a new size.
    fn resize(&self, size: TtySize) -> impl Future<Output = Result<()>> + Send;
    /// Sends a signal to the process group.
    fn signal(&self, signal: i32) -> impl Future<Output = Result<()>> + Send;
}
