//! What the host and a workspace's guest say to each other over one ordered byte stream.
//!
//! # Frames
//!
//! `u32 BE payload length | u32 BE stream | u8 kind | payload`, see [`frame`]. A length above
//! [`frame::MAX_PAYLOAD`] ends the connection before anything is allocated. JSON longer than one
//! frame travels as [`Kind::Part`] frames followed at once by its last frame, at most
//! [`frame::MAX_JSON`] bytes in all.
//!
//! # Connection
//!
//! The host dials, sends [`Hello`] as a `message` on stream 0 and waits for [`Welcome`]. A guest
//! that does not find its boot's secret in the first [`frame::MAX_HELLO`] bytes closes without a
//! word; with the right secret and a wrong boot or protocol it says why in a `reset` on stream 0.
//! A second authenticated connection replaces the first: the server was started again.
//!
//! # Streams
//!
//! The host opens odd streams, in rising order, with [`Kind::Open`] and a [`Request`]. Even ids
//! are for streams the guest will open toward the host (outbound TCP: [`Outbound`]); a host that
//! knows nothing of them answers `reset`. Then, by request:
//!
//! | from host | from guest | request |
//! |---|---|---|
//! | | `close` (reply) | every request without bytes |
//! | | `message` ([`FileStart`]), `data0`… , `close` | `read`, `archive_get` |
//! | `data0`…, empty `data0` | `close` (reply) | `write`, `archive_put` |
//! | `data0`…, empty `data0`, `message` ([`ExecControl`]) | `message` ([`ExecStarted`]), `data1`/`data2`…, `close` (`ExecResult`) | `exec`, `attach` |
//! | `data0`…, empty `data0` | `message`, `data0`…, empty `data0`, `close` | `tcp`, `api` (the message when a program has connected) |
//! | | `message`, then `data0` frames with a JSON list of `WatchEvent` each | `watch` |
//!
//! An empty `data0` ends that direction; `close` is the last word of the guest and carries the
//! reply; `reset` from either side ends a stream at once, with an error as JSON. Frames for a
//! stream that has ended are dropped silently: they were on their way.
//!
//! # Back-pressure
//!
//! Data frames cost credit, [`flow::cost`] each, from a window of [`flow::WINDOW`] per stream and
//! direction; `window` gives it back as the receiver's consumer takes the bytes. Sending beyond
//! the window ends the connection. Messages and replies cost none: each request brings few.
//!
//! # Evolution
//!
//! A workspace outlives servers, so a newer server meets older guests. [`PROTOCOL`] rises when an
//! old guest could misunderstand, not when something is added: JSON ignores unknown fields, every
//! field added later has a default, and a request that a guest does not know is answered with
//! `unprocessable`. What says how to run a command (`ExecSpec`) is the exception: an option that an
//! old guest does not know is an error, because leaving it out would run something else. A guest answers [`Welcome`] with the lower of both versions, and a server
//! supports every version back to [`OLDEST_PROTOCOL`].
//!
//! ```
//! use bytes::{Bytes, BytesMut};
//! use pinfold_proto::{Decoder, Kind, SendQueue};
//! let mut queue = SendQueue::default();
//! queue.push_data(1, Kind::Data0, Bytes::from_static(b"hello"));
//! let mut wire = BytesMut::from(&queue.to_vec()[..]);
//! let frame = Decoder::default().decode(&mut wire)?.expect("a whole frame");
//! assert_eq!((frame.stream, frame.kind, &frame.payload[..]), (1, Kind::Data0, &b"hello"[..]));
//! # Ok::<(), pinfold_proto::FrameError>(())
//! ```
#![forbid(unsafe_code)]

pub mod flow;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod queue;

/// Where programs inside find the server, in workspaces that may ask it for something.
pub const API_SOCKET: &str = "/run/pinfold/api.sock";

pub use flow::{Credit, Receipt};
pub use frame::{Decoder, Frame, FrameError, Kind};
pub use handshake::{GuestConfig, Hello, OLDEST_PROTOCOL, PROTOCOL, Welcome};
pub use message::{
    ArchiveOptions, Archived, ExecControl, ExecStarted, FileList, FileStart, GuestStats, Outbound,
    Request, WriteOptions,
};
pub use queue::SendQueue;
