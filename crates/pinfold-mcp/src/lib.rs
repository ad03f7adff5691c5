//! MCP on stdio and HTTP: the operations, shaped for models.
#![forbid(unsafe_code)]
