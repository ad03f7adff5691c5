//! Changing files.

use bytes::Bytes;
use pinfold_auth::ops;
use pinfold_control::{ByteStream, Node};
use pinfold_types::{
    Error, ErrorCode, Result,
    files::{ChangeMode, MakeDirectory, RemoveFile, RenameFile, WriteFile},
};
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    file::{FileView, Wanted, read},
    invalid,
};
use crate::{
    call::Call,
    limits::MAX_EDIT_BYTES,
    tool::{Effect, Info, Reply, Tool},
};

fn stream(content: Vec<u8>) -> ByteStream {
    // An upload ends with its stream; an empty file is a stream of nothing.
    let chunks = if content.is_empty() { Vec::new() } else { vec![Ok(Bytes::from(content))] };
    Box::pin(futures_util::stream::iter(chunks))
}

/// Permission bits as people write them: `755`, `0644`.
fn octal(text: Option<&str>) -> Result<Option<u32>> {
    text.map(|text| {
        u32::from_str_radix(text, 8)
            .map_err(|_| invalid("mode must be octal permission bits, such as 0644"))
    })
    .transpose()
}

/// What a file became.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Written {
    /// The file.
    entry: FileView,
}

pub(crate) struct Write;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteInput {
    /// Name or id of the workspace.
    workspace: String,
    /// Absolute path inside. Missing directories are made.
    path: String,
    /// Text to write. Give this or `content_base64`.
    content: Option<String>,
    /// Bytes to write, as base64.
    content_base64: Option<String>,
    /// Write into the file from this byte on, instead of replacing it whole.
    offset: Option<u64>,
    /// Octal permission bits, such as 0755. Default: the old file's, or 0644.
    mode: Option<String>,
}

impl<N: Node> Tool<N> for Write {
    const INFO: Info = Info {
        name: "file_write",
        title: "Write a file",
        about: "Writes a file whole, at once, making missing directories; or a part of it, with \
                offset. To change some lines of a file use file_edit.",
        operations: &["file.write"],
        effect: Effect::Changes,
        idempotent: true,
        open_world: false,
    };
    type Input = WriteInput;
    type Output = Written;

    async fn run(call: Call<N>, input: WriteInput) -> Result<Reply<Written>> {
        let content = match (input.content, input.content_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => data_encoding::BASE64
                .decode(text.as_bytes())
                .map_err(|_| invalid("content_base64 is not base64 (RFC 4648 §4)"))?,
            _ => return Err(invalid("give either content or content_base64")),
        };
        let request = WriteFile {
            path: input.path,
            offset: input.offset,
            mode: octal(input.mode.as_deref())?,
            parents: true,
        };
        let grant = call.on::<ops::FileWrite>(&input.workspace).await?;
        let info = call.service.write_file(grant, &request, stream(content)).await?;
        let entry = FileView::from(&info);
        Ok(Reply::new(format!("Wrote {}: {}", request.path, entry.line()), Written { entry }))
    }
}

pub(crate) struct Edit;

/// One replacement.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Replacement {
    /// Text that is there now, exactly, with its indentation and line ends. It must occur once, or
    /// `all` must be true.
    old: String,
    /// Text to put in its place.
    new: String,
    /// Replace every occurrence.
    #[serde(default)]
    all: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditInput {
    /// Name or id of the workspace.
    workspace: String,
    /// Absolute path inside.
    path: String,
    /// Replacements, made one after the other; either all of them or none.
    edits: Vec<Replacement>,
}

/// What was edited.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Edited {
    /// The file.
    entry: FileView,
    /// Occurrences that were replaced.
    replaced: usize,
}

impl<N: Node> Tool<N> for Edit {
    const INFO: Info = Info {
        name: "file_edit",
        title: "Edit a file",
        about: "Replaces exact pieces of a text file. Each old text must occur exactly once, or \
                all must be true; when one does not fit, nothing is changed. Read the file first: \
                file_read.",
        operations: &["file.read", "file.write"],
        effect: Effect::Changes,
        idempotent: false,
        open_world: false,
    };
    type Input = EditInput;
    type Output = Edited;

    async fn run(call: Call<N>, input: EditInput) -> Result<Reply<Edited>> {
        if input.edits.is_empty() {
            return Err(invalid("edits is empty"));
        }
        let wanted = Wanted {
            path: input.path.clone(),
            offset: 0,
            skip_lines: 0,
            lines: u64::MAX,
            max: usize::try_from(MAX_EDIT_BYTES).map_err(Error::internal)?,
            text: false,
        };
        let part = read(&call, &input.workspace, &wanted).await?;
        if part.more {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("{} is larger than {MAX_EDIT_BYTES} bytes", input.path),
            )
            .hint("change it with a program: exec with sed"));
        }
        let mut text = String::from_utf8(part.bytes).map_err(|_| {
            Error::new(ErrorCode::Unprocessable, format!("{} is not UTF-8 text", input.path))
                .hint("change it with a program: exec")
        })?;
        let replaced = apply(&mut text, &input.edits, &input.path)?;
        let request = WriteFile { path: input.path, offset: None, mode: None, parents: false };
        let grant = call.on::<ops::FileWrite>(&input.workspace).await?;
        let info = call.service.write_file(grant, &request, stream(text.into_bytes())).await?;
        let entry = FileView::from(&info);
        let said = format!("Replaced {replaced} in {}: {}", request.path, entry.line());
        Ok(Reply::new(said, Edited { entry, replaced }))
    }
}

fn apply(text: &mut String, edits: &[Replacement], path: &str) -> Result<usize> {
    let mut replaced = 0;
    for (index, edit) in edits.iter().enumerate() {
        let number = index + 1;
        if edit.old.is_empty() {
            return Err(invalid(format!("the old text of edit {number} is empty")));
        }
        let refuse = |why: String, hint: &str| {
            Err(Error::new(ErrorCode::Unprocessable, format!("edit {number} of {path}: {why}"))
                .hint(hint))
        };
        match text.matches(&edit.old).count() {
            0 => {
                return refuse(
                    "its old text is not in the file".into(),
                    "read the file again with file_read and copy the text exactly",
                );
            }
            more if more > 1 && !edit.all => {
                return refuse(
                    format!("its old text is there {more} times"),
                    "add surrounding lines to make it unique, or set all",
                );
            }
            found => replaced += found,
        }
        // Many short pieces replaced by long ones must not eat the memory.
        let grown = edit.new.len().saturating_sub(edit.old.len()).saturating_mul(replaced);
        if text.len().saturating_add(grown) as u64 > 2 * MAX_EDIT_BYTES {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("{path} would become larger than {} bytes", 2 * MAX_EDIT_BYTES),
            ));
        }
        *text = text.replace(&edit.old, &edit.new);
    }
    Ok(replaced)
}

pub(crate) struct Manage;

/// What to do.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Make a directory, with missing ones above it.
    Mkdir,
    /// Move or rename to `to`.
    Move,
    /// Remove; a directory with all in it needs `recursive`.
    Remove,
    /// Set permission bits to `mode`.
    Chmod,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManageInput {
    /// Name or id of the workspace.
    workspace: String,
    /// mkdir makes a directory and those above it; move renames to `to`; remove removes, a
    /// directory with all in it when `recursive`; chmod sets the permission bits `mode`.
    action: Action,
    /// Absolute path inside.
    path: String,
    /// Where to move it: an absolute path; a file there is replaced.
    to: Option<String>,
    /// Remove a directory with all in it.
    #[serde(default)]
    recursive: bool,
    /// Octal permission bits, such as 0755: for chmod and mkdir.
    mode: Option<String>,
}

/// What was done.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Managed {
    /// The path.
    path: String,
    /// In a few words.
    done: String,
}

impl<N: Node> Tool<N> for Manage {
    const INFO: Info = Info {
        name: "file_manage",
        title: "Make, move, remove or chmod files",
        about: "Makes a directory, moves, removes or chmods a file or directory.",
        operations: &["file.mkdir", "file.rename", "file.remove", "file.chmod"],
        effect: Effect::Changes,
        idempotent: false,
        open_world: false,
    };
    type Input = ManageInput;
    type Output = Managed;

    fn needs(arguments: &JsonObject) -> Vec<&'static str> {
        match arguments.get("action").and_then(Value::as_str) {
            Some("mkdir") => vec!["file.mkdir"],
            Some("move") => vec!["file.rename"],
            Some("remove") => vec!["file.remove"],
            Some("chmod") => vec!["file.chmod"],
            _ => Vec::new(),
        }
    }

    async fn run(call: Call<N>, input: ManageInput) -> Result<Reply<Managed>> {
        let (service, workspace, path) = (&call.service, input.workspace.as_str(), input.path);
        let mode = octal(input.mode.as_deref())?;
        let done = match (input.action, input.to) {
            (Action::Move, Some(to)) => {
                let grant = call.on::<ops::FileRename>(workspace).await?;
                let request = RenameFile { from: path.clone(), to };
                service.rename_file(grant, &request).await?;
                format!("moved to {}", request.to)
            }
            (Action::Move, None) => return Err(invalid("move needs to")),
            (_, Some(_)) => return Err(invalid("to is only for move")),
            (Action::Mkdir, None) => {
                let grant = call.on::<ops::FileMkdir>(workspace).await?;
                let request = MakeDirectory { path: path.clone(), mode, parents: true };
                service.make_directory(grant, &request).await?;
                "made".to_owned()
            }
            (Action::Remove, None) => {
                let grant = call.on::<ops::FileRemove>(workspace).await?;
                let request = RemoveFile { path: path.clone(), recursive: input.recursive };
                service.remove_file(grant, &request).await?;
                "removed".to_owned()
            }
            (Action::Chmod, None) => {
                let mode = mode.ok_or_else(|| invalid("chmod needs mode"))?;
                let grant = call.on::<ops::FileChmod>(workspace).await?;
                let request = ChangeMode { path: path.clone(), mode };
                service.change_mode(grant, &request).await?;
                format!("mode {mode:04o}")
            }
        };
        Ok(Reply::new(format!("{path}: {done}"), Managed { path, done }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(old: &str, new: &str, all: bool) -> Replacement {
        Replacement { old: old.into(), new: new.into(), all }
    }

    #[test]
    fn edits_are_exact() {
        let mut text = "one two one".to_owned();
        let replaced = apply(&mut text, &[edit("two", "2", false), edit("one", "1", true)], "/f");
        assert_eq!((text.as_str(), replaced.expect("fits")), ("1 2 1", 3));
        for (wrong, says) in [
            (edit("one", "1", false), "2 times"),
            (edit("none", "", false), "not in the file"),
            (edit("", "x", true), "empty"),
        ] {
            let refused =
                apply(&mut "one two one".to_owned(), &[wrong], "/f").expect_err("refused");
            assert!(refused.message.contains(says), "{}", refused.message);
        }
    }

    #[test]
    fn an_edit_cannot_grow_without_bound() {
        let mut text = "a".repeat(1 << 20);
        let refused = apply(&mut text, &[edit("a", &"b".repeat(1 << 20), true)], "/f");
        assert_eq!(refused.expect_err("too large").code, ErrorCode::TooLarge);
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal(Some("0755")).expect("octal"), Some(0o755));
        assert!(octal(Some("rwx")).is_err() && octal(Some("-1")).is_err());
    }
}
