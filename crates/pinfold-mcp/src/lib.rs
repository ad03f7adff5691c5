//! MCP: the operations, shaped for models.
//!
//! A tool is one unit type in [`tools`] with its arguments, its typed result and the operations
//! that it uses. Everything a client may be told about it (schemas, annotations, the table in the
//! documentation) comes from there. A tool does what REST does and no more: it asks for a grant for
//! each operation and calls the one service function that takes it.
//!
//! What this room refuses: messages and outputs over their limits, more calls at once than
//! [`limits::MAX_CALLS`], a grant for an operation that the tool did not declare.
//!
//! What is not here: sockets, connections and WebSocket frames (`pinfold-api`), who may do what
//! (`pinfold-auth`), standard input and output (`pinfold mcp` in the program).
#![forbid(unsafe_code)]
#![expect(clippy::doc_markdown, reason = "models read the comments of inputs: no marks in them")]

mod answer;
mod call;
mod catalogue;
mod cut;
#[cfg(test)]
mod documented;
mod handler;
pub mod http;
pub mod limits;
mod lines;
mod message;
mod progress;
mod resources;
mod schema;
mod served;
mod tool;
mod tools;
mod uri;

pub use catalogue::{NOT_TOOLS, ToolSummary, summaries};
pub use lines::{Lines, serve_lines};
pub use resources::OPERATIONS as RESOURCE_OPERATIONS;
pub use served::Served;
