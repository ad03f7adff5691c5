//! Typed, sortable ids: a prefix that names the kind, `_`, and 26 Crockford base32 characters
//! of a UUID version 7 (RFC 9562 §5.7). Sorting ids as text sorts them by creation.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Error, ErrorCode};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 26;

/// 26 Crockford base32 digits, in lower case, the highest first.
pub fn encode(value: u128) -> String {
    (0..TEXT_LEN)
        .rev()
        .map(|place| {
            let digit = usize::try_from((value >> (place * 5)) & 31).expect("five bits fit");
            char::from(ALPHABET[digit])
        })
        .collect()
}

/// The number of 26 digits; `None` for anything else.
pub fn decode(text: &str) -> Option<u128> {
    if text.len() != TEXT_LEN {
        return None;
    }
    let mut value: u128 = 0;
    for (place, byte) in text.bytes().enumerate() {
        let digit = ALPHABET.iter().position(|known| *known == byte)?;
        // 26 * 5 = 130 bits: the first character carries only three.
        if place == 0 && digit > 7 {
            return None;
        }
        value = (value << 5) | u128::try_from(digit).expect("an index below 32 fits");
    }
    Some(value)
}

macro_rules! ids {
    ($($(#[doc = $doc:literal])* $name:ident = $prefix:literal;)*) => {
        /// Every id prefix with its underscore. A name may not start with one, so that a
        /// reference is never ambiguous between an id and a name.
        pub const PREFIXES: &[&str] = &[$(concat!($prefix, "_"),)*];
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
            #[serde(try_from = "String", into = "String")]
            pub struct $name(Uuid);

            impl $name {
                /// The text before the underscore.
                pub const PREFIX: &'static str = $prefix;

                /// A new id, later in order than every earlier one of this process.
                pub fn generate() -> Self { Self(Uuid::now_v7()) }
            }

            impl schemars::JsonSchema for $name {
                fn schema_name() -> std::borrow::Cow<'static, str> {
                    crate::schema::called(stringify!($name))
                }

                fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                    crate::schema::id($prefix, concat!($($doc),*).trim())
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write!(f, concat!($prefix, "_{}"), encode(self.0.as_u128()))
                }
            }

            impl FromStr for $name {
                type Err = Error;
                fn from_str(text: &str) -> Result<Self, Error> {
                    text.strip_prefix(concat!($prefix, "_")).and_then(decode)
                        .map(|value| Self(Uuid::from_u128(value)))
                        .ok_or_else(|| Error::new(
                            ErrorCode::InvalidArgument,
                            format!(concat!("{:?} is not an id of the form ", $prefix, "_…"), crate::name::excerpt(text)),
                        ))
                }
            }

            impl TryFrom<String> for $name {
                type Error = Error;
                fn try_from(text: String) -> Result<Self, Error> { text.parse() }
            }

            impl From<$name> for String {
                fn from(id: $name) -> String { id.to_string() }
            }
        )*
    };
}

ids! {
    /// A workspace.
    WorkspaceId = "ws";
    /// A snapshot.
    SnapshotId = "snap";
    /// An image.
    ImageId = "img";
    /// An unpacked layer of images.
    LayerId = "layer";
    /// A process started in a workspace, with its streams.
    ExecId = "exec";
    /// A caller.
    PrincipalId = "usr";
    /// A credential of a caller.
    TokenId = "tok";
    /// A lease of a caller's activity.
    SessionId = "sess";
    /// One request, as found in logs and problem documents.
    RequestId = "req";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(value: u128) {
            prop_assert_eq!(decode(&encode(value)), Some(value));
        }

        #[test]
        fn wild_text_never_panics(text in "\\PC*") {
            let _ = text.parse::<WorkspaceId>();
        }
    }

    #[test]
    fn text_order_is_creation_order() {
        let ids: Vec<String> = (0..1000).map(|_| WorkspaceId::generate().to_string()).collect();
        assert!(ids.is_sorted());
    }
}
