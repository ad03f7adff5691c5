//! For tests: temporary homes, servers that run the real binary, and a search for what they
//! leave behind. Everything is cleaned up on drop, also when a test panics.
//!
//! ```no_run
//! let server = testkit::Server::start();
//! let output = server.pinfold(&["run", "--", "echo", "hello"]);
//! assert_eq!(output.code, 0);
//! server.stop();
//! ```
#![forbid(unsafe_code)]

mod home;
mod http;
mod leftovers;
mod programs;
mod server;
mod user;
mod wait;

pub use home::Home;
pub use http::Reply;
pub use leftovers::Leftovers;
pub use programs::{bin, has_program, is_root};
pub use server::{Output, Server, ServerOptions};
pub use user::User;
pub use wait::until;
