//! The document: every operation of the table with its shape.

use std::collections::BTreeSet;

use pinfold_auth::{
    OPERATIONS, ObjectKind, OperationInfo, SCOPES,
    operation::{Body, Method},
};
use pinfold_types::{
    ExecId, ImageId, ImageName, RequestId, SessionId, SnapshotId, SnapshotName, TokenId,
    WorkspaceId, WorkspaceName,
    schema::{either, token_name},
};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{
    schemas::{Schemas, parameters, rename},
    shape::{Frames, Given, Shape, Typed},
    shapes::shapes,
    statuses,
};
use crate::{idempotency::MAX_KEY_BYTES, problem::Problem};

const ABOUT: &str = "\
Walled workspaces for agents and scripts. Every operation names the right that a caller needs \
(`x-scope`), the bucket that it is counted in (`x-rate-class`) and what a second call does \
(`x-repeat`: `safe`, `idempotent`, or `acts`, which a retry repeats unless it carries the same \
`Idempotency-Key`). Ids and names can be used alike wherever an object is named. Errors are problem \
documents (RFC 9457) with a stable `code`, a `hint` and the `request_id`. Operations with \
`x-websocket` are opened by a WebSocket handshake (RFC 6455).";

/// Makes the document of this version.
pub(super) fn document(version: &str) -> Value {
    let mut schemas = Schemas::new();
    let shapes = shapes();
    let mut paths = Map::new();
    let mut requests = BTreeSet::new();
    for operation in OPERATIONS {
        let Some(shape) = shapes.iter().find(|shape| shape.operation == operation.name) else {
            continue;
        };
        let told = tell(operation, shape, &mut schemas);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        let method = operation.method.as_str().to_ascii_lowercase();
        requests.insert((operation.path, method.clone()));
        path[method] = told;
    }
    schemas.reply(schemars::SchemaGenerator::subschema_for::<Problem>);
    schemas.reply(schemars::SchemaGenerator::subschema_for::<RequestId>);
    let (mut components, differ) = schemas.into_components();
    name_scopes(&mut components);
    for (path, method) in requests {
        let operation = &mut paths[path][method];
        for part in ["parameters", "requestBody", "x-websocket"] {
            if let Some(part) = operation.get_mut(part) {
                rename(part, &differ);
            }
        }
    }
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Pinfold",
            "version": version,
            "description": ABOUT,
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/", "description": "The server that gave this document." }],
        "security": [{ "bearer": [] }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `pinfold token create`. On the unix socket the \
                        kernel says who calls, and none is needed.",
                },
            },
            "schemas": components,
            "responses": statuses::responses(),
            "headers": statuses::headers(),
        },
    })
}

/// The noun of an operation's name.
fn noun(operation: &OperationInfo) -> &'static str {
    operation.name.split_once('.').map_or(operation.name, |(noun, _)| noun)
}

fn tags() -> Vec<Value> {
    let mut seen = BTreeSet::new();
    let nouns = OPERATIONS.iter().map(noun).filter(|noun| seen.insert(*noun));
    nouns.map(|noun| json!({ "name": noun })).collect()
}

fn tell(operation: &OperationInfo, shape: &Shape, schemas: &mut Schemas) -> Value {
    let doc = operation.doc.split_whitespace().collect::<Vec<_>>().join(" ");
    let summary = doc.split_once(". ").map_or(doc.as_str(), |(first, _)| first);
    let mut told = json!({
        "operationId": operation.name,
        "tags": [noun(operation)],
        "summary": summary.trim_end_matches('.'),
        "description": doc,
        "parameters": parameters_of(operation, shape, schemas),
        "responses": responses(operation, shape, schemas),
        "x-object": operation.object,
        "x-scope": operation.scope,
        "x-rate-class": operation.rate,
        "x-repeat": operation.repeat,
        "x-audit": operation.audit,
    });
    if let Some(body) = body(operation, shape, schemas) {
        told["requestBody"] = body;
    }
    if let Given::Frames(frames) = &shape.reply {
        told["x-websocket"] = websocket(frames, schemas);
    }
    told
}

/// A token, by its id or name.
fn token(generator: &mut SchemaGenerator) -> schemars::Schema {
    let id = generator.subschema_for::<TokenId>();
    schemars::json_schema!({ "anyOf": [id, token_name(generator)] })
}

/// Names the scopes that there are where a new token's are asked for.
fn name_scopes(components: &mut Map<String, Value>) {
    let nouns: BTreeSet<String> = SCOPES
        .iter()
        .filter_map(|scope| scope.split_once(':').map(|(noun, _)| format!("{noun}:*")))
        .collect();
    let all: Vec<Value> = std::iter::once("*".to_owned())
        .chain(nouns)
        .chain(SCOPES.iter().map(ToString::to_string))
        .map(Value::from)
        .collect();
    if let Some(items) = components
        .get_mut("CreateToken")
        .and_then(|token| token.pointer_mut("/properties/scopes/items"))
    {
        *items = json!({ "type": "string", "enum": all });
    }
}

/// The schema of one part of the path.
fn path_part(name: &str, operation: &OperationInfo) -> Option<(Typed, &'static str)> {
    let told: (Typed, &'static str) = match (name, operation.object) {
        ("ref", ObjectKind::Workspace) => {
            (either::<WorkspaceId, WorkspaceName>, "Id or name of a workspace.")
        }
        ("ref", ObjectKind::Snapshot) => {
            (either::<SnapshotId, SnapshotName>, "Id or name of a snapshot.")
        }
        ("ref", ObjectKind::Image) => (either::<ImageId, ImageName>, "Id or name of an image."),
        ("ref", ObjectKind::Session) => {
            (|generator| generator.subschema_for::<SessionId>(), "Id of a session.")
        }
        ("ref", ObjectKind::Token) => (token, "Id or name of a token."),
        ("exec", _) => (|generator| generator.subschema_for::<ExecId>(), "Id of a command."),
        ("port", _) => (
            |_| schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": 65535 }),
            "A TCP port inside the workspace.",
        ),
        _ => return None,
    };
    Some(told)
}

/// Names of the parts of a path that stand for something.
pub(super) fn path_parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn parameters_of(operation: &OperationInfo, shape: &Shape, schemas: &mut Schemas) -> Vec<Value> {
    let mut all = Vec::new();
    for name in path_parts(operation.path) {
        let (schema, description) = path_part(name, operation)
            .unwrap_or((|_| schemars::json_schema!({ "type": "string" }), "A part of the path."));
        all.push(json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": description,
            "schema": schemas.request(schema),
        }));
    }
    if let (Some(body), Some(_)) = (shape.body, shape.upload) {
        all.push(json!({
            "name": "request",
            "in": "query",
            "required": false,
            "description": "The request, where the body is an upload; else it is the body.",
            "content": { "application/json": { "schema": schemas.request(body) } },
        }));
    } else if let Some(query) = shape.query {
        all.extend(parameters(&schemas.request(query)));
    }
    let header = |name: &str, description: &str, schema: Value| {
        json!({
            "name": name,
            "in": "header",
            "required": false,
            "description": description,
            "schema": schema,
        })
    };
    if matches!(operation.method, Method::Post | Method::Patch | Method::Delete) {
        all.push(header(
            "Idempotency-Key",
            "Names this call: a retry with the same key and the same request gets the answer of \
             the first, for a day.",
            json!({ "type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": MAX_KEY_BYTES }),
        ));
    }
    all.push(header(
        "Pinfold-Session",
        "The session that the call belongs to. It authenticates nobody.",
        schemas.request(SessionId::json_schema),
    ));
    if shape.ranges {
        all.push(header(
            "Range",
            "One range of bytes, `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-LENGTH` (RFC 9110 \
             §14.2); anything else, as several or other units, gives the whole.",
            json!({ "type": "string" }),
        ));
    }
    if matches!(shape.reply, Given::Events(_)) {
        all.push(header(
            "Last-Event-ID",
            "Id of the last event that was seen: what comes after it follows.",
            json!({ "type": "string", "pattern": "^(?:0|[1-9][0-9]{0,17})$" }),
        ));
    }
    if shape.cached {
        all.push(header(
            "If-None-Match",
            "`ETag`s of before, or `*`: 304 when one is still right (RFC 9110 §13.1.2); what is no \
             `ETag` is none.",
            json!({ "type": "string" }),
        ));
    }
    all
}

fn body(operation: &OperationInfo, shape: &Shape, schemas: &mut Schemas) -> Option<Value> {
    let mut content = Map::new();
    let mut required = false;
    if let Some(of) = shape.body {
        let schema = schemas.request(of);
        required = schemas.requires_something(of);
        content.insert("application/json".into(), json!({ "schema": schema }));
    }
    if let Some(media) = shape.upload {
        required = required && shape.body.is_none();
        content.insert(media.into(), json!({}));
    }
    let limit = match operation.body {
        Body::None => return None,
        Body::Json(most) => format!("At most {most} bytes."),
        Body::Stream => "Any length; the disk is the limit.".to_owned(),
    };
    Some(json!({ "required": required, "description": limit, "content": content }))
}

fn responses(operation: &OperationInfo, shape: &Shape, schemas: &mut Schemas) -> Value {
    let mut all = Map::new();
    let mut headers = json!({ "X-Request-Id": statuses::header("X-Request-Id") });
    for name in statuses::RATE {
        headers[*name] = statuses::header(name);
    }
    if matches!(operation.method, Method::Post | Method::Patch | Method::Delete) {
        headers["Idempotency-Replayed"] = statuses::header("Idempotency-Replayed");
    }
    if shape.ranges {
        headers["Accept-Ranges"] = statuses::header("Accept-Ranges");
    }
    if shape.cached {
        headers["ETag"] = statuses::header("ETag");
        let unchanged = json!({ "description": "Unchanged.", "headers": headers });
        all.insert("304".into(), unchanged);
    }
    let (status, description, content) = match &shape.reply {
        Given::Json(status, of) => {
            let words = if status.as_u16() == 201 { "Made." } else { "Done." };
            let content = json!({ "application/json": { "schema": schemas.reply(*of) } });
            (status.as_u16(), words, Some(content))
        }
        Given::Nothing => (204, "Done; there is nothing more to say.", None),
        Given::Bytes(media) => (200, "The bytes.", Some(json!({ *media: {} }))),
        Given::Lines(of) => {
            let content = json!({
                "application/x-ndjson": { "x-line": schemas.reply(*of) },
            });
            (200, "One JSON document a line; the last one is the end.", Some(content))
        }
        Given::Events(kinds) => {
            let mut told = Map::new();
            for (kind, of) in *kinds {
                told.insert((*kind).to_owned(), schemas.reply(*of));
            }
            let content = json!({ "text/event-stream": { "x-events": told } });
            (
                200,
                "Server-sent events, numbered: the data of each kind is in `x-events`.",
                Some(content),
            )
        }
        Given::Frames(_) => (101, "The connection is a WebSocket now: see `x-websocket`.", None),
    };
    let mut good = json!({ "description": description, "headers": headers });
    if let Some(content) = content {
        good["content"] = content;
    }
    if shape.ranges {
        let mut part = good.clone();
        part["description"] = json!("The bytes asked for.");
        part["headers"]["Content-Range"] = statuses::header("Content-Range");
        all.insert("206".into(), part);
    }
    all.insert(status.to_string(), good);
    for status in statuses::of(operation, shape) {
        all.insert(status.to_string(), statuses::reference(status));
    }
    Value::Object(all)
}

fn websocket(frames: &Frames, schemas: &mut Schemas) -> Value {
    let mut told = Map::new();
    let mut side = |name: &str, schema: Option<Value>| {
        if let Some(schema) = schema {
            told.insert(name.into(), schema);
        }
    };
    side("first-client-text", frames.first.map(|of| schemas.request(of)));
    side("client-text", frames.client_text.map(|of| schemas.request(of)));
    side("client-binary", frames.client_binary.map(Value::from));
    side("server-text", frames.server_text.map(|of| schemas.request(of)));
    side("server-binary", frames.server_binary.map(Value::from));
    Value::Object(told)
}
