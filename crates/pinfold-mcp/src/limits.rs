//! Published limits of MCP.

/// Most bytes of one JSON-RPC message from a client.
pub const MAX_MESSAGE_BYTES: usize = pinfold_types::limits::MAX_BODY_BYTES;
/// Calls of one MCP session that may run at once.
pub const MAX_CALLS: usize = 64;
/// Replies that may wait for a client that does not read; then nothing more is read from it.
pub const MAX_WAITING: usize = 64;
/// Bytes of one output stream, or of a file, that a call returns when it is not told otherwise.
pub const DEFAULT_OUTPUT_BYTES: u64 = 30_000;
/// Most bytes of one output stream, or of a file, that a call returns.
pub const MAX_OUTPUT_BYTES: u64 = 256 << 10;
/// Most bytes of one resource.
pub const MAX_RESOURCE_BYTES: u64 = 1 << 20;
/// Largest file that is edited in place.
pub const MAX_EDIT_BYTES: u64 = 4 << 20;
/// Lines of a file that a call returns when it is not told otherwise.
pub const DEFAULT_LINES: u64 = 2000;
/// Bytes of a file that are passed over on the way to the first line asked for.
pub const MAX_SKIP_BYTES: u64 = 256 << 20;
/// Time limit of a command that is waited for, when the call gives none.
pub const DEFAULT_TIMEOUT_MS: u64 = 120_000;
/// Longest time limit of a command that is waited for: an hour. A longer one is started in the
/// background.
pub const MAX_TIMEOUT_MS: u64 = 3_600_000;
/// Longest that a call waits for more output of a background command.
pub const MAX_WAIT_MS: u64 = 600_000;
/// Most matches of a search.
pub const MAX_MATCHES: u64 = 1000;
/// Entries of a page when the call does not say.
pub const DEFAULT_PAGE: usize = 100;
/// Requests of one session over HTTP that may be without an answer.
pub const MAX_STREAMS: usize = 128;
/// Bytes that a session over HTTP keeps for a client whose connection breaks. An answer larger than
/// this is kept alone.
pub const MAX_HELD_BYTES: usize = 4 << 20;
/// Events of one answer that are kept; of more, the first are forgotten, which are progress.
pub const MAX_EVENTS: usize = 256;
/// How long an answer over HTTP is kept for a client whose connection broke.
pub const KEPT: std::time::Duration = std::time::Duration::from_mins(5);
/// How long the body of a request over HTTP may take.
pub const BODY_WAIT: std::time::Duration = std::time::Duration::from_mins(1);
/// Sessions over HTTP of all principals.
pub const MAX_SESSIONS: usize = 4096;
