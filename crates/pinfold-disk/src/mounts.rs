//! What is mounted where (`proc_pid_mountinfo(5)`).

use std::path::{Path, PathBuf};

use crate::error::{At, DiskError};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) target: PathBuf,
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) options: String,
}

/// What is mounted exactly at `target`, topmost, as the calling thread sees it.
pub(crate) fn at(target: &Path) -> Result<Option<Mount>, DiskError> {
    let file = "/proc/thread-self/mountinfo";
    let text = std::fs::read_to_string(file).at("read", file)?;
    Ok(text.lines().filter_map(parse).rfind(|mount| mount.target == target))
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(4);
    let target = PathBuf::from(unescape(left.next()?));
    let options = left.next()?.to_owned();
    let mut right = right.split(' ');
    Some(Mount { target, options, kind: right.next()?.to_owned(), source: unescape(right.next()?) })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            _ => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_targets_are_read_back() {
        let line = "36 35 98:0 /mnt1 /a\\040b\\134c rw,noatime master:1 - btrfs /dev/loop3 rw";
        let mount = parse(line).expect("a line");
        assert_eq!(mount.target, Path::new("/a b\\c"));
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("btrfs", "/dev/loop3"));
        assert_eq!(unescape("tail\\"), "tail\\");
        assert!(parse("").is_none() && parse("1 2 - x").is_none());
    }
}
