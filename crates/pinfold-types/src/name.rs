//! Names that people choose. One rule in one place, used by every surface (INP-I3).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, id::PREFIXES, schema};

/// Longest workspace or snapshot name, in bytes.
pub const MAX_NAME_BYTES: usize = 63;
/// Longest image name with its tag, in bytes.
pub const MAX_IMAGE_NAME_BYTES: usize = 255;

/// At most 80 characters of what a caller sent, for an error message.
pub fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn check(kind: &str, text: &str) -> Result<(), Error> {
    let refuse = |why: &str| {
        Err(Error::new(
            ErrorCode::InvalidName,
            format!("{:?} is not a valid {kind} name: {why}", excerpt(text)),
        )
        .hint("names have 1 to 63 of A-Z a-z 0-9 . _ - and start with a letter or digit"))
    };
    match text.as_bytes() {
        [] => refuse("it is empty"),
        bytes if bytes.len() > MAX_NAME_BYTES => refuse("it is longer than 63 bytes"),
        [first, ..] if !first.is_ascii_alphanumeric() => {
            refuse("it must start with a letter or digit")
        }
        bytes
            if bytes
                .iter()
                .any(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))) =>
        {
            refuse("it has a character other than A-Z a-z 0-9 . _ -")
        }
        _ if PREFIXES.iter().any(|prefix| text.starts_with(prefix)) => {
            refuse("it starts like an id")
        }
        _ => Ok(()),
    }
}

macro_rules! names {
    ($($(#[doc = $doc:literal])* $name:ident, $kind:literal, $check:expr, $schema:expr;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str { &self.0 }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                schema::called(stringify!($name))
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema(concat!($($doc),*).trim())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                $check($kind, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> { text.parse() }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String { name.0 }
        }
    )*};
}

names! {
    /// 1 to 63 bytes of `[A-Za-z0-9._-]`, starting with a letter or digit, not looking like an id.
    WorkspaceName, "workspace", check, schema::name;
    /// The same rule as a workspace name.
    SnapshotName, "snapshot", check, schema::name;
    /// `part[/part…][:tag]`: lower-case parts of `[a-z0-9]` with single `.`, `_`, `-` between,
    /// an optional registry host with port in front, at most 255 bytes. Tag defaults to `latest`
    /// and is not added by parsing.
    ImageName, "image", check_image, schema::image;
    /// An image of a registry: an image name, by which it is found there, and optionally
    /// `@sha256:` with the 64 hexadecimal digits of its manifest's digest.
    ImageReference, "image", check_reference, schema::image_reference;
}

fn check_reference(kind: &str, text: &str) -> Result<(), Error> {
    let Some((name, digest)) = text.split_once('@') else { return check_image(kind, text) };
    check_image(kind, name)?;
    let hex = |text: &str| {
        text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    if digest.strip_prefix("sha256:").is_some_and(hex) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::InvalidName,
        format!("{:?} is not a valid {kind} reference: its digest is wrong", excerpt(text)),
    )
    .hint("a digest is sha256: and 64 of 0-9 a-f"))
}

fn check_image(kind: &str, text: &str) -> Result<(), Error> {
    let refuse = |why: &str| {
        Err(Error::new(
            ErrorCode::InvalidName,
            format!("{:?} is not a valid {kind} name: {why}", excerpt(text)),
        )
        .hint("image names look like host, debian:12 or registry.example/team/app:1.2"))
    };
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > MAX_IMAGE_NAME_BYTES {
        return refuse("it is longer than 255 bytes");
    }
    if PREFIXES.iter().any(|prefix| text.starts_with(prefix)) {
        return refuse("it starts like an id");
    }
    let (path, tag) = match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (text, None),
    };
    if let Some(tag) = tag {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if tag.is_empty()
            || tag.len() > 128
            || !tag.bytes().all(fine)
            || tag.starts_with(['.', '-'])
        {
            return refuse(
                "its tag must be 1 to 128 of A-Z a-z 0-9 . _ - and not start with . or -",
            );
        }
    }
    for (place, part) in path.split('/').enumerate() {
        let host_with_port = place == 0 && path.contains('/');
        let body = match part.split_once(':') {
            Some((host, port))
                if host_with_port
                    && !port.is_empty()
                    && port.len() <= 5
                    && port.bytes().all(|b| b.is_ascii_digit()) =>
            {
                host
            }
            Some(_) => return refuse("it has a colon in the wrong place"),
            None => part,
        };
        let bytes = body.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !edge(bytes.first()) || !edge(bytes.last()) {
            return refuse("each part must start and end with a lower-case letter or digit");
        }
        if !bytes.iter().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
        }) {
            return refuse("it has a character other than a-z 0-9 . _ - /");
        }
        if body.contains("..") {
            return refuse("it has two dots in a row");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn references_may_carry_a_digest() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for good in
            ["debian", "r.example:5000/a/b:1", &format!("a@{digest}"), &format!("a:1@{digest}")]
        {
            let read: ImageReference = good.parse().expect(good);
            assert_eq!(read.as_str(), good);
        }
        let long = format!("a@{digest}0");
        for bad in [
            "",
            "@",
            "a@",
            "a@sha256:",
            "a@sha512:00",
            &long,
            &format!("@{digest}"),
            &format!("a@{}", digest.to_uppercase()),
            &format!("a@{digest}@{digest}"),
        ] {
            let refused = bad.parse::<ImageReference>().expect_err(bad);
            assert_eq!(refused.code, ErrorCode::InvalidName, "{bad:?}");
            assert!(refused.hint.is_some());
        }
    }

    #[test]
    fn workspace_names_follow_the_rule() {
        for good in ["a", "0", "fix-42", "A.b_c", &"x".repeat(63)] {
            assert!(good.parse::<WorkspaceName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            ".a",
            "a/b",
            "a b",
            "a\0",
            "é",
            "a\n",
            "../x",
            "ws_1",
            "snap_a",
            &"x".repeat(64),
        ] {
            let refused = bad.parse::<WorkspaceName>().expect_err(bad);
            assert_eq!(refused.code, ErrorCode::InvalidName, "{bad:?}");
            assert!(refused.hint.is_some());
        }
    }

    #[test]
    fn image_names_follow_the_rule() {
        for good in
            ["host", "debian:12", "docker.io/library/alpine:3.20", "localhost:5000/a/b", "a-b_c.d"]
        {
            assert!(good.parse::<ImageName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ":",
            "a:",
            ":a",
            "A",
            "a//b",
            "/a",
            "a/",
            "a:b:c",
            "../a",
            "a/..",
            "a:.x",
            "a b",
            "img_x",
            "a:5000x/b",
            "a\0b",
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn wild_text_never_panics(text in "\\PC*") {
            let _ = text.parse::<WorkspaceName>();
            let _ = text.parse::<ImageName>();
        }
    }
}
