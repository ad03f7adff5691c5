//! The `OpenAPI` 3.1 document of this API, and the table of operations for people. Both are made
//! from the operation table and a [shape](shapes) for each line of it.

mod document;
mod markdown;
mod schemas;
mod shape;
mod shapes;
mod statuses;

use std::sync::LazyLock;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sha1::{Digest, Sha1};

/// The document as it is served, and its entity tag.
static SERVED: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let text = serde_json::to_vec(&document()).unwrap_or_default();
    let tag = data_encoding::HEXLOWER.encode(&Sha1::digest(&text));
    (text.into(), format!("\"{tag}\""))
});

/// Names of the operations that take a query.
static QUERIES: LazyLock<std::collections::BTreeSet<&'static str>> = LazyLock::new(|| {
    let shapes = shapes::shapes().into_iter();
    shapes.filter(|shape| shape.query.is_some()).map(|shape| shape.operation).collect()
});

/// Query of an upload.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Uploaded {
    /// The request as JSON, where the body is an upload.
    pub(crate) request: String,
}

/// The document of this version of the program.
pub fn document() -> Value {
    document::document(env!("CARGO_PKG_VERSION"))
}

/// The table of operations, as a page of the documentation.
pub fn operations_page() -> String {
    markdown::page()
}

/// The document's bytes and its `ETag`.
pub(crate) fn served() -> (&'static Bytes, &'static str) {
    (&SERVED.0, &SERVED.1)
}

/// Whether an operation takes a query. One that does not refuses every name in it.
pub(crate) fn takes_query(operation: &str) -> bool {
    QUERIES.contains(operation)
}
