//! The opening handshake's key (RFC 6455 §4.2.2).

use sha1::{Digest, Sha1};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// `Sec-WebSocket-Accept` for a client's key.
pub fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    data_encoding::BASE64.encode(&hash.finalize())
}

/// A fresh `Sec-WebSocket-Key`.
pub fn new_key() -> String {
    data_encoding::BASE64.encode(uuid::Uuid::now_v7().as_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 §1.3.
        assert_eq!(super::accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
