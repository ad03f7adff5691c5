//! Who is at the other end: the first words of a connection, and what a guest is born with.

use std::{collections::BTreeMap, fmt};

use pinfold_types::{BootSecret, ExecId, WorkspaceId, exec::ExecSpec};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Version this build speaks.
pub const PROTOCOL: u32 = 1;
/// Oldest version this build understands.
pub const OLDEST_PROTOCOL: u32 = 1;

/// Whether two secrets are the same, in a time that does not depend on where they differ
/// (AUTH-01).
pub fn same_secret(a: &BootSecret, b: &BootSecret) -> bool {
    a.expose().as_slice().ct_eq(b.expose().as_slice()).into()
}

/// A boot secret as 64 hexadecimal digits, only inside the two messages that carry one.
#[derive(Clone, Debug)]
pub struct SecretField(pub BootSecret);

impl Serialize for SecretField {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Zeroizing::new(String::with_capacity(2 * BootSecret::LEN));
        for byte in self.0.expose() {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
            }
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for SecretField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let refuse = || de::Error::custom("a boot secret is 64 hexadecimal digits");
        if text.len() != 2 * BootSecret::LEN {
            return Err(refuse());
        }
        let mut bytes = Zeroizing::new([0_u8; BootSecret::LEN]);
        let mut digits = text.chars().map(|digit| digit.to_digit(16));
        for slot in bytes.iter_mut() {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(refuse());
            };
            *slot = u8::try_from(high << 4 | low).map_err(|_| refuse())?;
        }
        Ok(Self(BootSecret::from_bytes(*bytes)))
    }
}

/// The host's first frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Newest version the host speaks.
    pub protocol: u32,
    /// Which workspace it means to reach.
    pub workspace: WorkspaceId,
    /// Which boot of it.
    pub boot: u64,
    /// The boot's secret.
    pub secret: SecretField,
}

/// The guest's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both will speak.
    pub protocol: u32,
    /// Which workspace this is.
    pub workspace: WorkspaceId,
    /// Which boot of it.
    pub boot: u64,
    /// The guest's own version, for the log.
    #[serde(default)]
    pub version: String,
}

/// What a guest is told at its start, as JSON on file descriptor 4.
#[derive(Clone, Serialize, Deserialize)]
pub struct GuestConfig {
    /// Version of the host that starts it.
    pub protocol: u32,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// Its boot.
    pub boot: u64,
    /// What a host must show.
    pub secret: SecretField,
    /// Environment of every command, kept in memory only.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Default directory of commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Default user of commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The workspace's host name, for `HOSTNAME`.
    #[serde(default)]
    pub hostname: String,
    /// A token for its programs; with one it listens on [`crate::API_SOCKET`] for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_token: Option<String>,
    /// Started at once, before any host has dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<(ExecId, ExecSpec)>,
}

impl fmt::Debug for GuestConfig {
    /// Without values of the environment, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestConfig")
            .field("protocol", &self.protocol)
            .field("workspace", &self.workspace)
            .field("boot", &self.boot)
            .field("env", &self.env.len())
            .finish_non_exhaustive()
    }
}

impl Drop for GuestConfig {
    fn drop(&mut self) {
        for value in self.env.values_mut().chain(&mut self.api_token) {
            value.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_travel_as_hex_and_compare_by_value() {
        let secret = BootSecret::from_bytes([0xa5; 32]);
        let text = serde_json::to_string(&SecretField(secret.clone())).expect("text");
        assert_eq!(text, format!("\"{}\"", "a5".repeat(32)));
        let back: SecretField = serde_json::from_str(&text).expect("round trip");
        assert!(same_secret(&back.0, &secret));
        assert!(!same_secret(&back.0, &BootSecret::from_bytes([0xa4; 32])));
        for bad in ["\"\"", "\"a5\"", &format!("\"{}\"", "zz".repeat(32)), "3"] {
            assert!(serde_json::from_str::<SecretField>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_newer_hosts_unknown_fields_are_ignored() {
        let workspace = WorkspaceId::generate();
        let text = format!(
            r#"{{"protocol":9,"workspace":"{workspace}","boot":3,"secret":"{}","later":[1]}}"#,
            "00".repeat(32)
        );
        let config: GuestConfig = serde_json::from_str(&text).expect("tolerant");
        assert_eq!((config.boot, config.protocol), (3, 9));
        assert!(!format!("{config:?}").contains("000000"));
        let hello: Hello = serde_json::from_str(&text).expect("tolerant");
        assert_eq!(hello.workspace, workspace);
    }

    proptest! {
        #[test]
        fn wild_text_is_refused_without_a_panic(text in "\\PC{0,200}") {
            let _ = serde_json::from_str::<Hello>(&text);
            let _ = serde_json::from_str::<GuestConfig>(&text);
        }
    }
}
