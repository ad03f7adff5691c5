//! JSON Schemas (2020-12) of what its Rust type says too little about: names, paths, environments,
//! labels. Everything else derives [`schemars::JsonSchema`].
//!
//! A pattern is the same rule as the check beside the type, in the words of ECMA-262; the tests
//! below hold both to the same samples. A `maxLength` counts characters where the check counts
//! bytes, so a text that is not ASCII may be refused although it fits the schema.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    exec::{BLOCKED_ENV, BLOCKED_ENV_PREFIXES},
    id::PREFIXES,
    limits::{MAX_ENV_VARS, MAX_LABELS},
    name::{MAX_IMAGE_NAME_BYTES, MAX_NAME_BYTES},
};

/// Text without a NUL byte.
pub const NO_NUL: &str = r"^[^\u0000]*$";
/// Text without control characters.
pub const NO_CONTROLS: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// An absolute path without a NUL byte.
pub const ABSOLUTE_PATH: &str = r"^/[^\u0000]*$";
/// An absolute path that is not the root.
pub const PATH_BELOW_ROOT: &str = r"^/(?:[^\u0000]*/)?(?:[^\u0000/.]|\.[^\u0000/])[^\u0000]*$";
/// A name in a directory.
pub const FILE_NAME: &str = r"^[^\u0000/]*$";
/// A user or its number, with or without a group.
pub const USER: &str = r"^[^\u0000-\u001f\u007f/]+$";
/// A host name of one label.
pub const HOST_NAME: &str = "^[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?$";
/// A Debian package or release.
pub const DEBIAN_NAME: &str = r"^[a-z0-9][a-z0-9+.-]*$";
/// The URL of a Debian archive.
pub const MIRROR: &str = r"^https?://[^\u0000-\u0020\u007f]*$";
/// The `cursor` of a list: the id of the last entry of the page before.
pub const CURSOR: &str = "^[a-z]+_[0-7][0-9a-hjkmnp-tv-z]{25}$";

/// Somebody at another provider.
pub const SUBJECT: &str = "^[!-~]{1,255}$";

/// A scope: a right, all rights of a noun, or all.
pub const SCOPE: &str = r"^(?:\*|[a-z]+:(?:\*|[a-z]+))$";

const ENV_NAME: &str = "^[A-Za-z_][A-Za-z0-9_]*$";
const IMAGE_PART: &str = r"[a-z0-9]+(?:(?:\.|\.?[_-]+(?:\.[_-]+)*\.?)[a-z0-9]+)*";

/// One text that is not among the others of `words`, as a pattern of its beginning.
fn one_of(words: &[&str]) -> String {
    format!("^(?:{})", words.join("|"))
}

/// A name by the rule of workspaces and snapshots.
pub(crate) fn name(what: &str) -> Schema {
    json_schema!({
        "type": "string",
        "description": what,
        "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$",
        "minLength": 1,
        "maxLength": MAX_NAME_BYTES,
        "not": { "pattern": one_of(PREFIXES) },
    })
}

fn image_pattern() -> String {
    let tag = "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}";
    format!("{IMAGE_PART}(?:(?::[0-9]{{1,5}})?(?:/{IMAGE_PART})+)?(?::{tag})?")
}

/// The name of an image.
/// A token for its maker has no quota of its own.
pub(crate) fn own_principal_or_no_quota() -> serde_json::Value {
    serde_json::json!([
        { "properties": { "same_principal": { "const": false } } },
        { "properties": { "quota": { "additionalProperties": { "type": "null" } } } },
    ])
}

pub(crate) fn image(what: &str) -> Schema {
    json_schema!({
        "type": "string",
        "description": what,
        "pattern": format!("^{}$", image_pattern()),
        "minLength": 1,
        "maxLength": MAX_IMAGE_NAME_BYTES,
        "not": { "pattern": one_of(PREFIXES) },
    })
}

/// The name of an image, and perhaps its digest.
pub(crate) fn image_reference(what: &str) -> Schema {
    let mut schema = image(what);
    let pattern = format!("^{}(?:@sha256:[0-9a-f]{{64}})?$", image_pattern());
    schema.insert("pattern".to_owned(), pattern.into());
    schema.insert("maxLength".to_owned(), (MAX_IMAGE_NAME_BYTES + "@sha256:".len() + 64).into());
    schema
}

/// Environment variables: no name on the block-list, no NUL.
pub(crate) fn env(_: &mut SchemaGenerator) -> Schema {
    let blocked =
        format!("^(?:{}|(?:{}).*)$", BLOCKED_ENV.join("|"), BLOCKED_ENV_PREFIXES.join("|"));
    json_schema!({
        "type": "object",
        "propertyNames": { "pattern": ENV_NAME, "not": { "pattern": blocked } },
        "additionalProperties": { "type": "string", "pattern": NO_NUL },
        "maxProperties": MAX_ENV_VARS,
    })
}

/// Labels: short texts without control characters.
pub(crate) fn labels(_: &mut SchemaGenerator) -> Schema {
    let text = NO_CONTROLS;
    json_schema!({
        "type": "object",
        "propertyNames": { "pattern": text, "minLength": 1, "maxLength": 63 },
        "additionalProperties": { "type": "string", "pattern": text, "maxLength": 255 },
        "maxProperties": MAX_LABELS,
    })
}

/// Labels, or nothing.
pub(crate) fn labels_or_null(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = labels(generator);
    schema.insert("type".to_owned(), serde_json::json!(["object", "null"]));
    schema
}

/// Program and arguments: at least a program, no NUL.
pub(crate) fn argv(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": { "type": "string", "pattern": NO_NUL },
        "prefixItems": [{ "type": "string", "pattern": NO_NUL, "minLength": 1 }],
        "minItems": 1,
        "maxItems": crate::limits::MAX_ARGS,
    })
}

/// An id or a name of a snapshot, as a path or a body names it.
pub(crate) fn snapshot_reference(generator: &mut SchemaGenerator) -> Schema {
    either::<crate::SnapshotId, crate::SnapshotName>(generator)
}

/// Ids or names of workspaces that a token is bound to.
pub(crate) fn workspace_references(generator: &mut SchemaGenerator) -> Schema {
    let one = either::<crate::WorkspaceId, crate::WorkspaceName>(generator);
    json_schema!({ "type": "array", "items": one, "maxItems": crate::access::MAX_BOUND })
}

/// An id or a name of a workspace, or nothing.
pub(crate) fn workspace_reference_or_null(generator: &mut SchemaGenerator) -> Schema {
    let one = either::<crate::WorkspaceId, crate::WorkspaceName>(generator);
    json_schema!({ "anyOf": [one, { "type": "null" }] })
}

/// The name of a token: the rule of workspaces.
pub fn token_name(_: &mut SchemaGenerator) -> Schema {
    name("What people call it.")
}

/// An id or a name.
pub fn either<I: JsonSchema, N: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let (id, name) = (generator.subschema_for::<I>(), generator.subschema_for::<N>());
    json_schema!({ "anyOf": [id, name] })
}

/// The schema of one kind of id.
pub(crate) fn id(prefix: &str, what: &str) -> Schema {
    json_schema!({
        "type": "string",
        "description": what,
        "pattern": format!("^{prefix}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$"),
    })
}

/// What a type is called in the schema: its own name.
pub(crate) const fn called(name: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;
    use serde_json::Value;

    use super::*;
    use crate::{
        ImageName, ImageReference, WorkspaceId, WorkspaceName,
        exec::{check_env, check_path},
        files::RemoveFile,
    };

    fn matches(pattern: &Value, text: &str) -> bool {
        let pattern = pattern.as_str().expect("a pattern is text");
        Regex::new(pattern).expect("a valid pattern").is_match(text)
    }

    /// Whether a text fits a schema of text.
    fn fits(schema: &Schema, text: &str) -> bool {
        let length = u64::try_from(text.chars().count()).expect("a length fits");
        let within = |name: &str, least: bool| {
            schema
                .get(name)
                .and_then(Value::as_u64)
                .is_none_or(|bound| if least { length >= bound } else { length <= bound })
        };
        let not = schema.get("not").is_some_and(|not| matches(&not["pattern"], text));
        schema.get("pattern").is_none_or(|pattern| matches(pattern, text))
            && within("minLength", true)
            && within("maxLength", false)
            && !not
    }

    const TEXTS: &[&str] = &[
        "",
        ".",
        "..",
        "-a",
        "_a",
        ".a",
        "a",
        "0",
        "fix-42",
        "A.b_c",
        "a/b",
        "a b",
        "a\0",
        "é",
        "a\n",
        "\n",
        "../x",
        "ws_1",
        "snap_a",
        "img_x",
        "tok_",
        "host",
        "debian:12",
        "a:",
        ":a",
        "docker.io/library/alpine:3.20",
        "localhost:5000/a/b",
        "a-b_c.d",
        "A",
        "a//b",
        "/a",
        "a/",
        "a:b:c",
        "a/..",
        "a:.x",
        "a:5000x/b",
        "a..b/c",
        "a.-.b",
        "a_.b",
        "a:1..2",
        "a:_x",
        "a-",
        "ws_0123456789abcdefghjkmnpqrs",
        "ws_81234567890123456789012345",
        "/",
        "//",
        "/.",
        "/a\0b",
        "/..",
        "/a/",
        "/./",
        "/é",
    ];

    #[test]
    fn schemas_and_checks_take_the_same_texts() {
        let long = ["x".repeat(63), "x".repeat(64), "x".repeat(255), "x".repeat(256)];
        let digest = format!("debian@sha256:{}", "0a".repeat(32));
        let id = WorkspaceId::generate().to_string();
        let more = long.iter().map(String::as_str).chain([digest.as_str(), id.as_str()]);
        let path = json_schema!({ "pattern": ABSOLUTE_PATH });
        let below = json_schema!({ "pattern": PATH_BELOW_ROOT });
        for text in TEXTS.iter().copied().chain(more) {
            let same = |what: &str, schema: &Schema, taken: bool| {
                assert_eq!(fits(schema, text), taken, "{what} {text:?}");
            };
            same("name", &name(""), text.parse::<WorkspaceName>().is_ok());
            same("image", &image(""), text.parse::<ImageName>().is_ok());
            // A pattern cannot say how long the part before the digest may be.
            if text.len() <= MAX_IMAGE_NAME_BYTES || text.contains('@') {
                same("reference", &image_reference(""), text.parse::<ImageReference>().is_ok());
            }
            same("id", &super::id("ws", ""), text.parse::<WorkspaceId>().is_ok());
            same("path", &path, check_path(text).is_ok());
            let remove = RemoveFile { path: text.to_owned(), recursive: true };
            same("removal", &below, remove.check().is_ok());
        }
    }

    #[test]
    fn the_schema_of_an_environment_knows_the_block_list() {
        let schema = env(&mut SchemaGenerator::default());
        let names = &schema.as_value()["propertyNames"];
        for name in [
            "PATH",
            "A1",
            "_",
            "",
            "1A",
            "A=B",
            "É",
            "LD_PRELOAD",
            "IFS",
            "IFSX",
            "PS4",
            "BASH_FUNC_x",
            "PINFOLD_TOKEN",
            "ENV",
            "ENVIRONMENT",
            "GLIBC_TUNABLES",
        ] {
            let taken =
                matches(&names["pattern"], name) && !matches(&names["not"]["pattern"], name);
            let env = std::collections::BTreeMap::from([(name.to_owned(), String::new())]);
            assert_eq!(taken, check_env(&env).is_ok(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn image_patterns_say_what_the_check_says(text in "[a-b0:/._-]{0,12}") {
            prop_assert_eq!(fits(&image(""), &text), text.parse::<ImageName>().is_ok());
        }
    }
}
