//! Looking at files.

use std::fmt::Write;

use futures_util::StreamExt;
use pinfold_auth::ops;
use pinfold_control::Node;
use pinfold_types::{
    Error, ErrorCode, Result,
    api::{FileInfo, FileKind},
    files::{FilePath, ListFiles, ReadFile},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{count, invalid};
use crate::{
    call::Call,
    cut::whole,
    limits::{DEFAULT_LINES, DEFAULT_OUTPUT_BYTES, MAX_OUTPUT_BYTES, MAX_SKIP_BYTES},
    tool::{Effect, Info, Reply, Tool},
};

/// A file or directory.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FileView {
    /// Last part of the path.
    pub(crate) name: String,
    /// file, directory, symlink, fifo, socket or device.
    pub(crate) kind: String,
    pub(crate) size_bytes: u64,
    /// Permission bits in octal, such as 0644.
    mode: String,
    /// Owner and group inside, as numbers.
    owner: String,
    modified_at: String,
    /// Where a symbolic link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
}

impl From<&FileInfo> for FileView {
    fn from(info: &FileInfo) -> Self {
        let kind = match info.kind {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::Symlink => "symlink",
            FileKind::Fifo => "fifo",
            FileKind::Socket => "socket",
            FileKind::Device => "device",
        };
        // Times before year -9999 or after 9999 exist only in broken inodes.
        let at = jiff::Timestamp::from_millisecond(info.modified_ms).unwrap_or_default();
        Self {
            name: info.name.clone(),
            kind: kind.to_owned(),
            size_bytes: info.size_bytes,
            mode: format!("{:04o}", info.mode),
            owner: format!("{}:{}", info.uid, info.gid),
            modified_at: at.to_string(),
            target: info.target.clone(),
        }
    }
}

impl FileView {
    /// One line.
    pub(crate) fn line(&self) -> String {
        let mark = if self.kind == "directory" { "/" } else { "" };
        let mut line = format!("{} {:>10} {}{mark}", self.mode, self.size_bytes, self.name);
        if let Some(target) = &self.target {
            let _infallible = write!(line, " -> {target}");
        }
        line
    }
}

pub(crate) struct List;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListInput {
    /// Name or id of the workspace.
    workspace: String,
    /// Absolute path inside: a directory, or one file to learn its facts.
    path: String,
    /// `next` of the page before. Leave out for the first page.
    after: Option<String>,
    /// Most entries, 1 to 1000. Default 200.
    limit: Option<u32>,
}

/// What is at a path.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Listed {
    /// The path itself.
    entry: FileView,
    /// What a directory holds, by name.
    entries: Vec<FileView>,
    /// Give it as `after` for the next page. Absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl<N: Node> Tool<N> for List {
    const INFO: Info = Info {
        name: "file_list",
        title: "List a directory",
        about: "Lists a directory, or shows the facts of one file: kind, size, mode, owner, time.",
        operations: &["file.stat", "file.list"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = ListInput;
    type Output = Listed;

    async fn run(call: Call<N>, input: ListInput) -> Result<Reply<Listed>> {
        let grant = call.on::<ops::FileStat>(&input.workspace).await?;
        let path = FilePath { path: input.path.clone() };
        let info = call.service.stat_file(grant, &path).await?;
        let entry = FileView::from(&info);
        // A link may lead to a directory, which only listing can tell.
        let may_hold = matches!(info.kind, FileKind::Directory | FileKind::Symlink);
        let listed = if may_hold {
            let grant = call.on::<ops::FileList>(&input.workspace).await?;
            let request = ListFiles {
                path: input.path,
                after: input.after,
                limit: Some(input.limit.unwrap_or(200)),
            };
            match call.service.list_files(grant, &request).await {
                Ok(listed) => Some(listed),
                Err(error) if info.kind == FileKind::Directory => return Err(error),
                Err(_) => None,
            }
        } else {
            None
        };
        let (entries, next) = listed.map(|list| (list.entries, list.next)).unwrap_or_default();
        let entries: Vec<_> = entries.iter().map(FileView::from).collect();
        let mut text = entry.line();
        if may_hold {
            let _infallible =
                write!(text, "\n{}", count(entries.len(), "entry").replace("entrys", "entries"));
        }
        for one in &entries {
            let _infallible = write!(text, "\n{}", one.line());
        }
        if let Some(next) = &next {
            let _infallible = write!(text, "\nThere are more: after {next:?}");
        }
        Ok(Reply::new(text, Listed { entry, entries, next }))
    }
}

pub(crate) struct Read;

/// How bytes are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Encoding {
    /// As text. Binary files are refused.
    #[default]
    Text,
    /// As base64, which keeps every byte.
    Base64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadInput {
    /// Name or id of the workspace.
    workspace: String,
    /// Absolute path inside.
    path: String,
    /// First line wanted, from 1. Not together with `offset`.
    line: Option<u64>,
    /// Most lines. Default 2000.
    lines: Option<u64>,
    /// First byte wanted, from 0: for huge lines and binary files.
    offset: Option<u64>,
    /// Most bytes returned: 1 to 262144, default 30000.
    max_bytes: Option<u64>,
    /// text (default) or base64.
    #[serde(default)]
    encoding: Encoding,
}

/// A part of a file.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "it is the word that models look for")]
pub(crate) struct Content {
    /// The content: text, or base64.
    content: String,
    encoding: Encoding,
    /// Bytes of the whole file.
    size_bytes: u64,
    /// Offset of the first byte of `content`.
    offset: u64,
    /// Number of the first line of `content`, where it was asked for by lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    /// Give it as `offset` to read on. Absent at the end of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<u64>,
    /// Give it as `line` to read on, where `content` ends with a whole line.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_line: Option<u64>,
    /// Some bytes are not UTF-8 and are shown as U+FFFD: do not write this content back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lossy: bool,
}

impl<N: Node> Tool<N> for Read {
    const INFO: Info = Info {
        name: "file_read",
        title: "Read a file",
        about: "Reads a text file by lines or bytes. Long files come in parts: go on with line = \
                next_line or offset = next_offset. Binary files need encoding base64.",
        operations: &["file.stat", "file.read"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = ReadInput;
    type Output = Content;

    async fn run(call: Call<N>, input: ReadInput) -> Result<Reply<Content>> {
        let max = input.max_bytes.unwrap_or(DEFAULT_OUTPUT_BYTES);
        if !(1..=MAX_OUTPUT_BYTES).contains(&max) {
            return Err(invalid(format!("max_bytes must be 1 to {MAX_OUTPUT_BYTES}")));
        }
        if input.line == Some(0) {
            return Err(invalid("lines are counted from 1"));
        }
        if input.line.is_some() && (input.offset.is_some() || input.encoding == Encoding::Base64) {
            return Err(invalid("line goes neither with offset nor with base64"));
        }
        let grant = call.on::<ops::FileStat>(&input.workspace).await?;
        let path = FilePath { path: input.path.clone() };
        let info = call.service.stat_file(grant, &path).await?;
        if info.kind == FileKind::Directory {
            let message = format!("{} is a directory", input.path);
            return Err(Error::new(ErrorCode::Unprocessable, message).hint("use file_list"));
        }
        let wanted = Wanted {
            path: input.path,
            offset: input.offset.unwrap_or(0),
            skip_lines: input.line.map_or(0, |line| line - 1),
            lines: input.lines.unwrap_or(DEFAULT_LINES),
            max: usize::try_from(max).map_err(Error::internal)?,
            text: input.encoding == Encoding::Text,
        };
        let part = read(&call, &input.workspace, &wanted).await?;
        let lossy = wanted.text && std::str::from_utf8(&part.bytes).is_err();
        let content = match input.encoding {
            Encoding::Text => String::from_utf8_lossy(&part.bytes).into_owned(),
            Encoding::Base64 => data_encoding::BASE64.encode(&part.bytes),
        };
        let by_line = wanted.text && input.offset.is_none();
        let end = part.offset + part.bytes.len() as u64;
        let content = Content {
            content,
            encoding: input.encoding,
            // A link's own size says nothing, and a file may have grown.
            size_bytes: if part.more { info.size_bytes.max(end) } else { end },
            offset: part.offset,
            line: by_line.then_some(wanted.skip_lines + 1),
            next_offset: part.more.then_some(end),
            next_line: part.next_line.filter(|_| by_line && part.more),
            lossy,
        };
        let mut text = content.content.clone();
        if let Some(next) = content.next_offset {
            let at =
                content.next_line.map_or(format!("offset {next}"), |line| format!("line {line}"));
            let _infallible =
                write!(text, "\n[… more from {at}; {} bytes in all …]", content.size_bytes);
        }
        if lossy {
            text.push_str("\n[… not all UTF-8: other bytes are shown as \u{fffd} …]");
        }
        Ok(Reply::new(text, content))
    }
}

pub(crate) struct Wanted {
    pub(crate) path: String,
    pub(crate) offset: u64,
    pub(crate) skip_lines: u64,
    pub(crate) lines: u64,
    pub(crate) max: usize,
    /// Refuse binary content, and end between characters.
    pub(crate) text: bool,
}

#[derive(Debug)]
pub(crate) struct Portion {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offset: u64,
    /// The file goes on.
    pub(crate) more: bool,
    /// Number of the line that follows, when this ends with a whole one.
    pub(crate) next_line: Option<u64>,
}

/// A part of a file, as it is needed and no more.
pub(crate) async fn read<N: Node>(
    call: &Call<N>,
    workspace: &str,
    wanted: &Wanted,
) -> Result<Portion> {
    let grant = call.on::<ops::FileRead>(workspace).await?;
    let request = ReadFile { path: wanted.path.clone(), offset: Some(wanted.offset), length: None };
    let mut stream = call.service.read_file(grant, &request).await?;
    let mut taker = Taker::new(wanted);
    loop {
        let next = tokio::select! {
            biased;
            () = call.cancelled.cancelled() => {
                return Err(Error::new(ErrorCode::Cancelled, "the call was cancelled"));
            }
            next = stream.next() => next,
        };
        let Some(chunk) = next.transpose()? else { break };
        if taker.take(&chunk)? {
            break;
        }
    }
    taker.finish()
}

/// Picks lines out of chunks.
struct Taker<'a> {
    wanted: &'a Wanted,
    skipped: u64,
    skipped_bytes: u64,
    lines: u64,
    bytes: Vec<u8>,
    more: bool,
}

impl<'a> Taker<'a> {
    const fn new(wanted: &'a Wanted) -> Self {
        Self { wanted, skipped: 0, skipped_bytes: 0, lines: 0, bytes: Vec::new(), more: false }
    }

    /// Takes what is wanted of a chunk; true when there is enough.
    fn take(&mut self, mut chunk: &[u8]) -> Result<bool> {
        while self.skipped < self.wanted.skip_lines {
            let Some(at) = chunk.iter().position(|byte| *byte == b'\n') else {
                return self.skip(chunk.len()).map(|()| false);
            };
            self.skip(at + 1)?;
            self.skipped += 1;
            chunk = &chunk[at + 1..];
        }
        for byte in chunk {
            if self.bytes.len() == self.wanted.max
                || (self.wanted.text && self.lines == self.wanted.lines)
            {
                self.more = true;
                return Ok(true);
            }
            if *byte == 0 && self.wanted.text {
                return Err(Error::new(
                    ErrorCode::Unprocessable,
                    format!("{} is a binary file", self.wanted.path),
                )
                .hint("read it with encoding base64, or look at it with a program: exec"));
            }
            self.bytes.push(*byte);
            self.lines += u64::from(*byte == b'\n');
        }
        Ok(false)
    }

    fn skip(&mut self, count: usize) -> Result<()> {
        self.skipped_bytes += count as u64;
        if self.skipped_bytes > MAX_SKIP_BYTES {
            return Err(Error::new(
                ErrorCode::TooLarge,
                format!("that line is beyond the first {MAX_SKIP_BYTES} bytes"),
            )
            .hint("use offset, or exec with sed"));
        }
        Ok(())
    }

    fn finish(self) -> Result<Portion> {
        let Self { wanted, skipped, skipped_bytes, lines, mut bytes, more } = self;
        if skipped < wanted.skip_lines && wanted.skip_lines > 0 {
            return Err(Error::new(
                ErrorCode::RangeNotSatisfiable,
                format!("{} has only {} lines", wanted.path, skipped + 1),
            )
            .hint("ask for an earlier line"));
        }
        if more && wanted.text {
            let cut = whole(&bytes);
            bytes.truncate(if cut == 0 { bytes.len() } else { cut });
        }
        let ends_with_line = bytes.last() == Some(&b'\n');
        Ok(Portion {
            offset: wanted.offset + skipped_bytes,
            more,
            next_line: ends_with_line.then_some(skipped + lines + 1),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(skip_lines: u64, lines: u64, max: usize) -> Wanted {
        Wanted { path: "/f".into(), offset: 0, skip_lines, lines, max, text: true }
    }

    fn taken(wanted: &Wanted, text: &[u8], piece: usize) -> Result<Portion> {
        let mut taker = Taker::new(wanted);
        for chunk in text.chunks(piece) {
            if taker.take(chunk)? {
                break;
            }
        }
        taker.finish()
    }

    #[test]
    fn lines_are_picked_however_chunks_fall() {
        let text = "eins\nzwei\ndrei\nvier".as_bytes();
        for piece in 1..=text.len() {
            let part = taken(&wanted(1, 2, 100), text, piece).expect("there");
            assert_eq!(part.bytes, b"zwei\ndrei\n");
            assert_eq!((part.offset, part.more, part.next_line), (5, true, Some(4)));
            let part = taken(&wanted(3, 9, 100), text, piece).expect("there");
            assert_eq!((part.bytes.as_slice(), part.more), (b"vier".as_slice(), false));
            let part = taken(&wanted(0, 9, 7), text, piece).expect("there");
            assert_eq!((part.bytes.as_slice(), part.next_line), (b"eins\nzw".as_slice(), None));
            assert!(part.more);
            assert!(taken(&wanted(4, 1, 100), text, piece).is_err());
        }
        let whole = taken(&wanted(0, 9, 100), b"", 1).expect("an empty file");
        assert!(whole.bytes.is_empty() && !whole.more);
    }

    #[test]
    fn parts_end_between_characters_and_binary_is_refused() {
        let part = taken(&wanted(0, 9, 4), "aéé".as_bytes(), 2).expect("there");
        assert_eq!(part.bytes, "aé".as_bytes());
        let refused = taken(&wanted(0, 9, 100), b"a\0b", 3).expect_err("binary");
        assert!(refused.hint.expect("a way").contains("base64"));
    }
}
