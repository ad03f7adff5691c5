//! The tools, resources and prompts that the conformance runner asks for.
#![expect(deprecated, reason = "the runner asks for what the newest revision has put aside")]

use std::time::Duration;

use pinfold_mcp::http::Hangup;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams,
        CompleteResult, CustomRequest, GetPromptRequestParams, GetPromptResponse, GetPromptResult,
        ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams,
        ReadResourceResponse, ReadResourceResult, ServerConfig, ServerRequest,
        SetLevelRequestParams, SubscribeRequestParams, UnsubscribeRequestParams,
    },
    service::RequestContext,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// One red pixel.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
/// No samples.
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
/// Between two things that a slow tool says.
const STEP: Duration = Duration::from_millis(50);

/// A server that has them.
#[derive(Debug)]
pub(crate) struct Fixture;

type Context = RequestContext<RoleServer>;

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|err| ErrorData::internal_error(err.to_string(), None))
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn embedded(uri: &str, kind: &str, text: &str) -> Value {
    json!({"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}})
}

/// Asks the client something, and gives its answer.
async fn ask(asked: &Context, method: &str, params: Value) -> Result<Value, ErrorData> {
    let request = ServerRequest::CustomRequest(CustomRequest::new(method, Some(params)));
    let answer = asked.peer.send_request(request).await;
    let answer = answer.map_err(|err| ErrorData::internal_error(err.to_string(), None))?;
    serde_json::to_value(answer).map_err(|err| ErrorData::internal_error(err.to_string(), None))
}

async fn elicit(asked: &Context, properties: Value) -> Result<Value, ErrorData> {
    let schema = json!({"type": "object", "properties": properties, "required": []});
    let params = json!({"message": "Please fill this in", "requestedSchema": schema});
    let answer = ask(asked, "elicitation/create", params).await?;
    let (action, content) = (&answer["action"], &answer["content"]);
    let action = action.as_str().unwrap_or_default();
    Ok(text(&format!("Elicitation completed: action={action}, content={content}")))
}

async fn log(asked: &Context, message: &str) -> Result<(), ErrorData> {
    let params = json!({"level": "info", "data": message});
    let said = typed(json!({"method": "notifications/message", "params": params}))?;
    let sent = asked.peer.send_notification(said).await;
    sent.map_err(|err| ErrorData::internal_error(err.to_string(), None))
}

async fn tool(name: &str, arguments: Value, asked: &Context) -> Result<Value, ErrorData> {
    let argument = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
    Ok(match name {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => {
            json!({"content": [{"type": "image", "data": PNG, "mimeType": "image/png"}]})
        }
        "test_audio_content" => {
            json!({"content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}]})
        }
        "test_embedded_resource" => {
            let uri = "test://embedded-resource";
            json!({"content":
                [embedded(uri, "text/plain", "This is an embedded resource content.")]})
        }
        "test_multiple_content_types" => {
            let uri = "test://mixed-content-resource";
            json!({"content": [
                {"type": "text", "text": "Multiple content types test:"},
                {"type": "image", "data": PNG, "mimeType": "image/png"},
                embedded(uri, "application/json", r#"{"test":"data","value":123}"#),
            ]})
        }
        "test_tool_with_logging" => {
            for message in
                ["Tool execution started", "Tool processing data", "Tool execution completed"]
            {
                log(asked, message).await?;
                tokio::time::sleep(STEP).await;
            }
            text("logged three times")
        }
        "test_error_handling" => {
            let mut failed = text("This tool intentionally returns an error for testing");
            failed["isError"] = true.into();
            failed
        }
        "test_tool_with_progress" => {
            for done in [0.0, 50.0, 100.0] {
                if let Some(token) = asked.meta.get_progress_token() {
                    let param = ProgressNotificationParam::new(token, done).with_total(100.0);
                    let told = asked.peer.notify_progress(param).await;
                    told.map_err(|err| ErrorData::internal_error(err.to_string(), None))?;
                }
                tokio::time::sleep(STEP).await;
            }
            text("done in three steps")
        }
        "test_sampling" => {
            let content = json!({"type": "text", "text": argument("prompt")});
            let params =
                json!({"messages": [{"role": "user", "content": content}], "maxTokens": 100});
            let answer = ask(asked, "sampling/createMessage", params).await?;
            let said = answer["content"]["text"].as_str().unwrap_or_default();
            text(&format!("LLM response: {said}"))
        }
        "test_elicitation" => {
            let field = |about: &str| json!({"type": "string", "description": about});
            let params = json!({"message": argument("message"), "requestedSchema": {
                "type": "object",
                "properties": {
                    "username": field("User's response"),
                    "email": field("User's email address"),
                },
                "required": ["username", "email"],
            }});
            let answer = ask(asked, "elicitation/create", params).await?;
            text(&format!("User response: {answer}"))
        }
        "test_elicitation_sep1034_defaults" => {
            let properties = json!({
                "name": {"type": "string", "default": "John Doe"},
                "age": {"type": "integer", "default": 30},
                "score": {"type": "number", "default": 95.5},
                "status": {"type": "string", "enum": ["active", "inactive", "pending"],
                    "default": "active"},
                "verified": {"type": "boolean", "default": true},
            });
            elicit(asked, properties).await?
        }
        "test_elicitation_sep1330_enums" => {
            let titled = |words: &[(&str, &str)]| -> Vec<Value> {
                words.iter().map(|(value, title)| json!({"const": value, "title": title})).collect()
            };
            let options = ["option1", "option2", "option3"];
            let one = titled(&[
                ("value1", "First Option"),
                ("value2", "Second Option"),
                ("value3", "Third Option"),
            ]);
            let many = titled(&[
                ("value1", "First Choice"),
                ("value2", "Second Choice"),
                ("value3", "Third Choice"),
            ]);
            let properties = json!({
                "untitledSingle": {"type": "string", "enum": options},
                "titledSingle": {"type": "string", "oneOf": one},
                "legacyEnum": {"type": "string", "enum": ["opt1", "opt2", "opt3"],
                    "enumNames": ["Option One", "Option Two", "Option Three"]},
                "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}},
                "titledMulti": {"type": "array", "items": {"anyOf": many}},
            });
            elicit(asked, properties).await?
        }
        // The connection ends in the middle; the answer is there when the client asks again.
        "test_reconnection" => {
            tokio::time::sleep(STEP).await;
            let parts = asked.extensions.get::<http::request::Parts>();
            let hangup = parts.and_then(|parts| parts.extensions.get::<Hangup>());
            hangup.ok_or_else(|| ErrorData::internal_error("no stream", None))?.hang_up();
            tokio::time::sleep(STEP).await;
            text("still here")
        }
        _ => return Err(ErrorData::invalid_params("there is no such tool", None)),
    })
}

const TOOLS: &[&str] = &[
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_tool_with_logging",
    "test_error_handling",
    "test_tool_with_progress",
    "test_sampling",
    "test_elicitation",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_reconnection",
];

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        serde_json::from_value(json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}, "resources": {"subscribe": true}, "prompts": {},
                "logging": {}, "completions": {}},
            "serverInfo": {"name": "fixture", "version": "1"},
        }))
        .expect("it is well formed")
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut tools: Vec<Value> = TOOLS
            .iter()
            .map(|name| {
                json!({"name": name, "description": "A fixture",
                "inputSchema": {"type": "object"}})
            })
            .collect();
        tools.push(json!({
            "name": "json_schema_2020_12_tool",
            "description": "Tool with JSON Schema 2020-12 features",
            "inputSchema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "$defs": {"address": {"type": "object", "properties": {
                    "street": {"type": "string"}, "city": {"type": "string"}}}},
                "properties": {"name": {"type": "string"},
                    "address": {"$ref": "#/$defs/address"}},
                "additionalProperties": false,
            },
        }));
        typed(json!({"tools": tools}))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let result: CallToolResult = typed(tool(&request.name, arguments, &context).await?)?;
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resource = |uri: &str, kind: &str| json!({"uri": uri, "name": uri, "mimeType": kind});
        typed(json!({"resources": [
            resource("test://static-text", "text/plain"),
            resource("test://static-binary", "image/png"),
            resource("test://watched-resource", "text/plain"),
        ]}))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        typed(json!({"resourceTemplates":
            [{"uriTemplate": "test://template/{id}/data", "name": "template"}]}))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri.as_str();
        let id = uri.strip_prefix("test://template/").and_then(|rest| rest.strip_suffix("/data"));
        let contents = match (uri, id) {
            ("test://static-text", _) => json!({"uri": uri, "mimeType": "text/plain",
                "text": "This is the content of the static text resource."}),
            ("test://static-binary", _) => {
                json!({"uri": uri, "mimeType": "image/png", "blob": PNG})
            }
            ("test://watched-resource", _) => {
                json!({"uri": uri, "mimeType": "text/plain", "text": "Watched."})
            }
            (_, Some(id)) => {
                let data = json!({"id": id, "templateTest": true,
                    "data": format!("Data for ID: {id}")});
                json!({"uri": uri, "mimeType": "application/json", "text": data.to_string()})
            }
            _ => return Err(ErrorData::resource_not_found("there is no such resource", None)),
        };
        let result: ReadResourceResult = typed(json!({"contents": [contents]}))?;
        Ok(result.into())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: Context) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: Context,
    ) -> Result<CompleteResult, ErrorData> {
        typed(json!({"completion": {"values": ["paris", "park", "party"], "total": 3,
            "hasMore": false}}))
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        let needs = |name: &str| json!({"name": name, "description": "Needed", "required": true});
        let prompt = |name: &str, arguments: &[Value]| json!({"name": name, "description": "A fixture", "arguments": arguments});
        typed(json!({"prompts": [
            prompt("test_simple_prompt", &[]),
            prompt("test_prompt_with_arguments", &[needs("arg1"), needs("arg2")]),
            prompt("test_prompt_with_embedded_resource", &[needs("resourceUri")]),
            prompt("test_prompt_with_image", &[]),
        ]}))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments = serde_json::to_value(&request.arguments).unwrap_or_default();
        let argument = |name: &str| arguments[name].as_str().unwrap_or_default();
        let said = |content: Value| json!({"role": "user", "content": content});
        let words = |text: &str| said(json!({"type": "text", "text": text}));
        let messages = match request.name.as_str() {
            "test_simple_prompt" => vec![words("This is a simple prompt for testing.")],
            "test_prompt_with_arguments" => {
                let (one, two) = (argument("arg1"), argument("arg2"));
                vec![words(&format!("Prompt with arguments: arg1='{one}', arg2='{two}'"))]
            }
            "test_prompt_with_embedded_resource" => {
                let held = "Embedded resource content for testing.";
                vec![
                    said(embedded(argument("resourceUri"), "text/plain", held)),
                    words("Please process the embedded resource above."),
                ]
            }
            "test_prompt_with_image" => vec![
                said(json!({"type": "image", "data": PNG, "mimeType": "image/png"})),
                words("Please analyze the image above."),
            ],
            _ => return Err(ErrorData::invalid_params("there is no such prompt", None)),
        };
        let result: GetPromptResult = typed(json!({"messages": messages}))?;
        Ok(result.into())
    }
}
