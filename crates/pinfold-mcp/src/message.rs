//! JSON-RPC messages of clients, from text.

use rmcp::model::{ClientJsonRpcMessage, ErrorData, JsonRpcMessage, RequestId};

/// The message in this text, or what is wrong with it.
pub(crate) fn parse(text: &[u8]) -> Result<ClientJsonRpcMessage, ErrorData> {
    match serde_json::from_slice(text) {
        Ok(message) => Ok(message),
        Err(error) if error.is_data() => {
            Err(ErrorData::invalid_request(format!("not a JSON-RPC 2.0 message: {error}"), None))
        }
        Err(error) => Err(ErrorData::parse_error(format!("not JSON: {error}"), None)),
    }
}

/// The id of a request that is malformed elsewhere.
pub(crate) fn id_of(text: &[u8]) -> Option<RequestId> {
    let value: serde_json::Value = serde_json::from_slice(text).ok()?;
    serde_json::from_value(value.get("id")?.clone()).ok()
}

/// An answer that refuses a request.
pub(crate) fn refusal(error: ErrorData, id: Option<RequestId>) -> JsonRpcMessage<(), (), ()> {
    JsonRpcMessage::error(error, id)
}
