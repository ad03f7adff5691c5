//! From a result or an error to what the client gets.

use pinfold_types::{Error, ErrorCode};
use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::json;

use crate::tool::Answer;

/// Where an error says what programs may want of it.
const ERROR_KEY: &str = "io.pinfold/error";

/// A tool's result. What went wrong is a result too, so that the model reads it.
pub(crate) fn render(answer: Answer) -> CallToolResult {
    match answer {
        Ok(reply) => {
            let mut result = CallToolResult::success(vec![ContentBlock::text(reply.text)]);
            result.structured_content = Some(reply.value);
            result
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> CallToolResult {
    if error.code == ErrorCode::Internal {
        tracing::error!(cause = error.internal, "a tool failed");
    }
    let mut text = format!("{} ({})", sentence(&error.message), error.code);
    let hint = error.hint.as_deref().filter(|hint| !speaks_of_commands(hint));
    for line in hint.into_iter().chain(next(error.code)) {
        text.push('\n');
        text.push_str(&sentence(line));
    }
    if let Some(ms) = error.retry_after_ms {
        text.push_str("\nTry again in ");
        text.push_str(&ms.to_string());
        text.push_str(" ms.");
    }
    let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
    let mut meta = MetaObject::new();
    let mut about = json!({"code": error.code, "message": error.message});
    if let Some(hint) = hint {
        about["hint"] = hint.into();
    }
    if let Some(ms) = error.retry_after_ms {
        about["retry_after_ms"] = ms.into();
    }
    meta.insert(ERROR_KEY.into(), about);
    result.meta = Some(meta);
    result
}

/// A hint for somebody at a shell of the host, where a model is not.
fn speaks_of_commands(hint: &str) -> bool {
    hint.contains("pinfold ")
}

/// The call to make next, for errors of this kind.
const fn next(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::NotFound => {
            "see what there is: workspace_list, snapshot_list, exec_list or file_list"
        }
        ErrorCode::AlreadyExists => "choose another name, or use what exists: workspace_list",
        ErrorCode::Conflict | ErrorCode::StaleBoot => {
            "look at its state with workspace_info; workspace_control starts or resumes it"
        }
        ErrorCode::DiskFull | ErrorCode::QuotaExceeded => {
            "make room: workspace_destroy and snapshot_remove what is no longer needed"
        }
        ErrorCode::CannotEnforce | ErrorCode::Unavailable => {
            "call server_info with check true to see what this machine lacks"
        }
        ErrorCode::Timeout => "give more time, or start it with exec_start",
        ErrorCode::Forbidden => "this token may not do it: ask the user for another",
        _ => return None,
    })
}

fn sentence(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    let mut chars = text.chars();
    out.extend(chars.next().into_iter().flat_map(char::to_uppercase));
    out.push_str(chars.as_str());
    if !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_result_that_says_what_to_do() {
        let error = Error::not_found("workspace", "x").hint("list them: pinfold ls");
        let result = render(Err(error));
        assert_eq!(result.is_error, Some(true));
        assert_eq!(result.structured_content, None);
        let text = &result.content[0].as_text().expect("text").text;
        assert_eq!(
            text,
            "No workspace named \"x\" (not_found)\nSee what there is: workspace_list, \
             snapshot_list, exec_list or file_list."
                .replace(" (not_found)", ". (not_found)")
                .as_str()
        );
        let meta = result.meta.expect("about the error");
        assert_eq!(meta[ERROR_KEY]["code"], "not_found");
    }

    #[test]
    fn what_is_for_the_log_stays_there() {
        let result = render(Err(Error::internal("a secret cause")));
        let all = serde_json::to_string(&result).expect("plain data");
        assert!(!all.contains("secret"), "{all}");
    }
}
