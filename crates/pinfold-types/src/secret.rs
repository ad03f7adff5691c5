//! Secrets have types: they cannot be printed, logged or serialised, and are wiped after use.

use std::fmt;

use zeroize::Zeroize;

/// What a server must present to the guest of one boot, and only of that boot.
///
/// There is no `Display`, no serde and no equality on purpose: whoever compares one does so in
/// constant time on [`BootSecret::expose`].
#[derive(Clone)]
pub struct BootSecret([u8; BootSecret::LEN]);

impl BootSecret {
    /// Bytes in a secret.
    pub const LEN: usize = 32;

    /// Wraps 32 random bytes. The caller wipes its own copy.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the handshake and the state database only.
    pub const fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for BootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootSecret(hidden)")
    }
}

impl Drop for BootSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_bytes() {
        let secret = BootSecret::from_bytes([0xab; 32]);
        assert_eq!(format!("{secret:?}"), "BootSecret(hidden)");
        assert_eq!(secret.expose()[31], 0xab);
    }
}
