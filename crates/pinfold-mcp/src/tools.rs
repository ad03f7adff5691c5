//! The tools, a file a noun.

pub(crate) mod exec;
pub(crate) mod exec_background;
pub(crate) mod file;
pub(crate) mod file_change;
pub(crate) mod file_search;
pub(crate) mod fork;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod view;
pub(crate) mod workspace;

use pinfold_types::{Error, ErrorCode, Result};
use serde::Deserialize;

/// Arguments of tools that take a workspace and nothing else.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workspace {
    /// Name or id of the workspace.
    pub(crate) workspace: String,
}

/// A page of a list.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paged {
    /// `next` of the page before. Leave out for the first page.
    pub(crate) cursor: Option<String>,
    /// Most entries, 1 to 1000. Default 100.
    pub(crate) limit: Option<usize>,
}

impl From<Paged> for pinfold_types::api::PageQuery {
    fn from(Paged { cursor, limit }: Paged) -> Self {
        Self { cursor, limit: Some(limit.unwrap_or(crate::limits::DEFAULT_PAGE)) }
    }
}

/// A number of bytes to return, within the published bounds.
pub(crate) fn output_limit(asked: Option<u64>) -> Result<usize> {
    use crate::limits::{DEFAULT_OUTPUT_BYTES, MAX_OUTPUT_BYTES};
    let bytes = asked.unwrap_or(DEFAULT_OUTPUT_BYTES);
    if !(1..=MAX_OUTPUT_BYTES).contains(&bytes) {
        return Err(invalid(format!("max_output_bytes must be 1 to {MAX_OUTPUT_BYTES}")));
    }
    usize::try_from(bytes).map_err(Error::internal)
}

pub(crate) fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArgument, why)
}

/// Singular or plural, for people.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
