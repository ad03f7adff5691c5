//! What the pipe knows of a session: how it began, and what has no answer yet.

use std::collections::HashMap;

use pinfold_types::{Error, ErrorCode, limits::MAX_BODY_BYTES};
use serde_json::{Value, json};

/// Most requests without an answer that are remembered; the server takes far fewer.
const MAX_WAITING: usize = 1024;
/// JSON-RPC's code for a server's own errors (JSON-RPC 2.0 §5.1).
const SERVER_ERROR: i32 = -32000;
const INVALID_REQUEST: i32 = -32600;

/// One client's session.
#[derive(Debug, Default)]
pub(super) struct Session {
    initialize: Option<Value>,
    initialized: Option<String>,
    /// Request ids as JSON text, and the methods.
    waiting: HashMap<String, String>,
    replays: u64,
    client: Option<String>,
}

/// What begins a session again.
#[derive(Debug)]
pub(super) struct Opening {
    /// The first request, under an id of ours.
    pub(super) request: String,
    /// That id.
    pub(super) id: Value,
    /// What the client said when it had the answer.
    pub(super) told: Option<String>,
}

impl Session {
    /// Whether the client has begun it.
    pub(super) const fn begun(&self) -> bool {
        self.initialize.is_some()
    }

    /// Requests without an answer.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Looks for the client's name in its first message.
    pub(super) fn name_of(&mut self, text: &str) {
        let Ok(message) = serde_json::from_str::<Value>(text) else { return };
        let params = &message["params"];
        let info = match &params["clientInfo"] {
            Value::Null => &params["_meta"]["io.modelcontextprotocol/clientInfo"],
            info => info,
        };
        if let Some(name) = info["name"].as_str() {
            let plain = name.chars().filter(|one| one.is_ascii() && !one.is_ascii_control());
            self.client.get_or_insert(plain.take(64).collect());
        }
    }

    /// What the session is called.
    pub(super) fn client(&self) -> String {
        format!("mcp {}", self.client.as_deref().unwrap_or_default()).trim().to_owned()
    }

    /// Remembers what a message of the client means.
    pub(super) fn note_client(&mut self, text: &str) {
        let Ok(message) = serde_json::from_str::<Value>(text) else { return };
        let Some(method) = message["method"].as_str() else { return };
        match message.get("id") {
            Some(id) if self.waiting.len() < MAX_WAITING => {
                self.waiting.insert(id.to_string(), method.to_owned());
            }
            None if method == "notifications/initialized" => {
                self.initialized = Some(text.to_owned());
            }
            // The server does not answer what was cancelled.
            None if method == "notifications/cancelled" => {
                self.waiting.remove(&message["params"]["requestId"].to_string());
            }
            Some(_) | None => {}
        }
        if method == "initialize" {
            self.initialize = Some(message);
        }
    }

    /// Forgets what a message of the server answers.
    pub(super) fn note_server(&mut self, text: &str) {
        let Ok(message) = serde_json::from_str::<Value>(text) else { return };
        if message.get("method").is_none()
            && let Some(id) = message.get("id")
        {
            self.waiting.remove(&id.to_string());
        }
    }

    /// Answers for everything that waits, now that the server has gone.
    pub(super) fn lost(&mut self) -> Vec<String> {
        let waiting = std::mem::take(&mut self.waiting);
        // The client has to begin again what had not begun.
        if waiting.values().any(|method| method == "initialize") {
            self.initialize = None;
            self.initialized = None;
        }
        let answer = |id: &str| {
            let id: Value = serde_json::from_str(id).unwrap_or_default();
            failure(
                &id,
                SERVER_ERROR,
                "the server restarted while this call ran: whether it was carried out is not \
                 known; a command that was started goes on",
                "look first: workspace_list, exec_list; then call again",
            )
        };
        waiting.keys().map(|id| answer(id)).collect()
    }

    /// How the session begins again with another server; `None` when it has not begun.
    pub(super) fn opening(&mut self) -> Option<Opening> {
        let mut request = self.initialize.clone()?;
        self.replays += 1;
        let id = Value::from(format!("pinfold-replay-{}", self.replays));
        request["id"] = id.clone();
        Some(Opening { request: request.to_string(), id, told: self.initialized.clone() })
    }
}

/// Whether a message answers the request with this id.
pub(super) fn answers(text: &str, id: &Value) -> bool {
    serde_json::from_str::<Value>(text)
        .is_ok_and(|message| message.get("id") == Some(id) && message.get("method").is_none())
}

/// The answer to a request that could not be sent; notifications get none.
pub(super) fn refusal(text: &str, error: &Error) -> Option<String> {
    let message: Value = serde_json::from_str(text).ok()?;
    let id = message.get("id").filter(|_| message.get("method").is_some())?;
    let hint = error.hint.as_deref().unwrap_or("start it by hand to see more: pinfold up");
    let code = if error.code == ErrorCode::TooLarge { INVALID_REQUEST } else { SERVER_ERROR };
    Some(failure(id, code, &error.message, hint))
}

/// The answer to a line that is too long to be read.
pub(super) fn too_long() -> String {
    let message = format!("a message is larger than {MAX_BODY_BYTES} bytes");
    failure(&Value::Null, INVALID_REQUEST, &message, "write large files in parts, with offset")
}

fn failure(id: &Value, code: i32, message: &str, hint: &str) -> String {
    json!({
        "jsonrpc": "2.0",
        "id": id,
        "error": {"code": code, "message": message, "data": {"hint": hint}},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#;
    const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

    fn begun() -> Session {
        let mut session = Session::default();
        session.note_client(INITIALIZE);
        session.note_server(r#"{"jsonrpc":"2.0","id":0,"result":{}}"#);
        session.note_client(INITIALIZED);
        session
    }

    #[test]
    fn what_waits_is_answered_once() {
        let mut session = begun();
        for id in ["1", "\"1\"", "2"] {
            let call = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call"}}"#);
            session.note_client(&call);
        }
        session.note_server(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        session.note_client(
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#,
        );
        let lost = session.lost();
        assert_eq!(lost.len(), 1);
        let answer: Value = serde_json::from_str(&lost[0]).expect("JSON");
        assert_eq!(answer["id"], "1");
        assert!(session.lost().is_empty());
    }

    #[test]
    fn a_session_begins_again_under_another_id() {
        let mut session = begun();
        let opening = session.opening().expect("it had begun");
        let request: Value = serde_json::from_str(&opening.request).expect("JSON");
        assert_eq!(request["method"], "initialize");
        assert_eq!(request["id"], opening.id);
        assert_eq!(opening.told.as_deref(), Some(INITIALIZED));
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, opening.id);
        assert!(answers(&answer, &opening.id) && !answers(INITIALIZE, &opening.id));
    }

    #[test]
    fn one_that_had_not_begun_is_the_clients_to_begin() {
        let mut session = Session::default();
        session.note_client(INITIALIZE);
        assert_eq!(session.lost().len(), 1);
        assert!(session.opening().is_none() && !session.begun());
    }

    #[test]
    fn a_session_is_called_like_its_client() {
        let mut session = Session::default();
        assert_eq!(session.client(), "mcp");
        session.name_of(r#"{"params":{"clientInfo":{"name":"claude\n-code"}}}"#);
        session.name_of(r#"{"params":{"clientInfo":{"name":"other"}}}"#);
        assert_eq!(session.client(), "mcp claude-code");
        let mut session = Session::default();
        session
            .name_of(r#"{"params":{"_meta":{"io.modelcontextprotocol/clientInfo":{"name":"x"}}}}"#);
        assert_eq!(session.client(), "mcp x");
    }

    #[test]
    fn notifications_get_no_refusal() {
        let error = Error::new(ErrorCode::NoServer, "none");
        assert!(refusal(INITIALIZED, &error).is_none());
        assert!(refusal("nonsense", &error).is_none());
        assert!(refusal(INITIALIZE, &error).expect("an answer").contains("\"id\":0"));
    }
}
