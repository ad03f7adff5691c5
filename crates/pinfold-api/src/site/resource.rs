//! Where a client of the protected resource that `/mcp` is learns what to do next.

use http::Extensions;

use super::Called;
use crate::routes::mcp;

/// Whether a request is one of MCP over HTTP.
pub(crate) fn is_mcp(path: &str) -> bool {
    path == mcp::PATH
}

/// Where the metadata of the protected resource are that `/mcp` is (RFC 9728 §3.1); nowhere on the
/// unix socket.
pub(crate) fn protected_resource(extensions: &Extensions) -> Option<String> {
    let Called { origin, .. } = extensions.get()?;
    Some(format!("{origin}/.well-known/oauth-protected-resource{}", mcp::PATH))
}
