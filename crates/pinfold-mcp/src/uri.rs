//! Addresses of resources.

use pinfold_types::{Error, ErrorCode, Result, name::excerpt};

/// What a resource's address names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `pinfold://workspaces`
    Workspaces,
    /// `pinfold://workspace/{workspace}`
    Workspace(String),
    /// `pinfold://workspace/{workspace}/logs`
    Logs(String),
    /// `pinfold://workspace/{workspace}/file/{+path}{?offset}`
    File { workspace: String, path: String, offset: u64 },
    /// `pinfold://workspace/{workspace}/exec/{exec}/output{?from}`
    Output { workspace: String, exec: String, from: u64 },
}

/// Longest address: a path of `PATH_MAX`, percent-encoded, and room.
const MAX_URI_BYTES: usize = 16 << 10;

/// Where the output of a command is.
pub(crate) fn output(workspace: &str, exec: &str, from: u64) -> String {
    format!("pinfold://workspace/{workspace}/exec/{exec}/output?from={from}")
}

/// Where a workspace is.
pub(crate) fn workspace(workspace: &str) -> String {
    format!("pinfold://workspace/{workspace}")
}

/// Reads an address.
pub(crate) fn parse(uri: &str) -> Result<Address> {
    let wrong = |why: &str| {
        Error::new(
            ErrorCode::NotFound,
            format!("{:?} is not the address of a resource: {why}", excerpt(uri)),
        )
        .hint("see resources/list and resources/templates/list")
    };
    if uri.len() > MAX_URI_BYTES {
        return Err(wrong("it is too long"));
    }
    let rest = uri.strip_prefix("pinfold://").ok_or_else(|| wrong("it is not pinfold://"))?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let number = |name: &str| match query {
        "" => Ok(0),
        query => query
            .strip_prefix(name)
            .and_then(|value| value.strip_prefix('=')?.parse().ok())
            .ok_or_else(|| wrong("its query is not understood")),
    };
    let decode = |text: &str| decode(text).ok_or_else(|| wrong("its percent-encoding is wrong"));
    let none = || if query.is_empty() { Ok(()) } else { Err(wrong("it takes no query")) };
    if path == "workspaces" {
        return none().map(|()| Address::Workspaces);
    }
    let rest = path.strip_prefix("workspace/").ok_or_else(|| wrong("there is no such thing"))?;
    let (workspace, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let workspace = decode(workspace)?;
    if rest.is_empty() {
        return none().map(|()| Address::Workspace(workspace));
    }
    if rest == "logs" {
        return none().map(|()| Address::Logs(workspace));
    }
    if let Some(path) = rest.strip_prefix("file/") {
        // Both `file//etc/hosts`, as a template with the absolute path gives, and `file/etc/hosts`.
        let path = format!("/{}", decode(path)?.trim_start_matches('/'));
        return Ok(Address::File { workspace, path, offset: number("offset")? });
    }
    let exec = rest.strip_prefix("exec/").and_then(|rest| rest.strip_suffix("/output"));
    let exec = exec.ok_or_else(|| wrong("there is no such thing"))?;
    Ok(Address::Output { workspace, exec: decode(exec)?, from: number("from")? })
}

/// Percent-decoding (RFC 3986 §2.1) of UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let file =
            |path: &str, offset| Address::File { workspace: "a".into(), path: path.into(), offset };
        for (uri, address) in [
            ("pinfold://workspaces", Address::Workspaces),
            ("pinfold://workspace/a", Address::Workspace("a".into())),
            ("pinfold://workspace/a/logs", Address::Logs("a".into())),
            ("pinfold://workspace/a/file/etc/hosts", file("/etc/hosts", 0)),
            ("pinfold://workspace/a/file//etc/hosts?offset=7", file("/etc/hosts", 7)),
            ("pinfold://workspace/a/file/x%20y%C3%A9%3f", file("/x yé?", 0)),
        ] {
            assert_eq!(parse(uri).expect(uri), address);
        }
        let Ok(Address::Output { exec, from, .. }) = parse(&output("a", "exec_1", 9)) else {
            panic!("its own address");
        };
        assert_eq!((exec.as_str(), from), ("exec_1", 9));
        assert_eq!(parse(&workspace("a")).expect("its own"), Address::Workspace("a".into()));
    }

    #[test]
    fn what_is_none_is_refused() {
        for uri in [
            "",
            "file:///etc/passwd",
            "pinfold://",
            "pinfold://workspaces?x=1",
            "pinfold://workspace/a/logs?after=1",
            "pinfold://workspace/a/file/x?offset=-1",
            "pinfold://workspace/a/file/x?offset=1&offset=2",
            "pinfold://workspace/a/file/%zz",
            "pinfold://workspace/a/file/%f",
            "pinfold://workspace/a/file/%ff",
            "pinfold://workspace/a/exec/e",
            "pinfold://workspace/a/other",
            &format!("pinfold://workspace/a/file/{}", "x".repeat(MAX_URI_BYTES)),
        ] {
            assert_eq!(parse(uri).expect_err(uri).code, ErrorCode::NotFound);
        }
    }
}
