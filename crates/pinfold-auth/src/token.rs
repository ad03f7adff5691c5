//! Bearer credentials: their text, and what is kept of them.
//!
//! A token reads `pf_<class>_<id>_<secret><checksum>`: the class says where it may be presented,
//! the id finds its record, the secret is 256 random bits, and the checksum (the first 35 bits of
//! a SHA-256 over all before it) lets a scanner or a person see that a character is missing. Only
//! a keyed hash of the secret is kept, HMAC-SHA-256 (RFC 2104), and hashes of one length are
//! compared in constant time (AUTH-01, AUTH-04).

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use pinfold_types::{Error, Result, TokenId, id};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Characters of a secret: two times 128 bits.
const SECRET_TEXT: usize = 52;
/// Characters of a checksum.
const CHECKSUM_TEXT: usize = 7;
/// Longest text of a token. Anything longer is not looked at.
pub const MAX_TOKEN_TEXT: usize = 128;

/// Where a credential may be presented (AX-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialClass {
    /// The kernel's word about the process at the other end of the unix socket. No text.
    Peer,
    /// REST, WebSocket and MCP, for programs and people.
    Api,
    /// The same, from inside one workspace, for a few operations on it.
    Workspace,
    /// MCP over HTTP, and nothing else.
    Mcp,
    /// A browser's cookie.
    Browser,
    /// Gets new tokens for MCP over HTTP at the token endpoint, and opens nothing.
    Refresh,
    /// Gets the first of them, once. Opens nothing.
    Code,
    /// Somebody whom an external provider vouches for. No text.
    Oidc,
}

impl CredentialClass {
    /// The class in a token's text; `None` where there is none.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Api => "api",
            Self::Workspace => "ws",
            Self::Mcp => "mcp",
            Self::Browser => "web",
            Self::Refresh => "refresh",
            Self::Code => "code",
            Self::Oidc => "oidc",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Api, Self::Workspace, Self::Mcp, Self::Browser, Self::Refresh, Self::Code]
            .into_iter()
            .find(|class| class.word() == word)
    }
}

/// The server's key for hashes of secrets: 32 bytes that lie beside the state, not in it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TokenKey([u8; 32]);

impl TokenKey {
    /// Takes a key.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn hash(&self, class: CredentialClass, id: TokenId, secret: &[u8; 32]) -> TokenHash {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        mac.update(b"pinfold token 1\0");
        mac.update(class.word().as_bytes());
        mac.update(b"\0");
        mac.update(id.to_string().as_bytes());
        mac.update(secret);
        TokenHash(mac.finalize().into_bytes().into())
    }

    fn foreign(&self, text: &str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        mac.update(b"pinfold foreign token 1\0");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn family(&self, id: TokenId, root: &[u8]) -> TokenHash {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        mac.update(b"pinfold refresh family 1\0");
        mac.update(id.to_string().as_bytes());
        mac.update(root);
        TokenHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(hidden)")
    }
}

/// An access token of another provider: a JWT in compact form (RFC 7519 §3, RFC 7515 §3.1).
/// That it has the form says nothing of who signed it.
#[derive(Clone, Copy)]
pub struct ForeignToken<'a>(&'a str);

/// Longest text of a token of another provider.
pub const MAX_FOREIGN_TEXT: usize = 8192;

impl<'a> ForeignToken<'a> {
    /// A text that has the form.
    pub fn of(text: &'a str) -> Option<Self> {
        let fine = |part: &str| {
            let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !part.is_empty() && part.bytes().all(letter)
        };
        let parts: Vec<&str> = text.splitn(4, '.').collect();
        let form = text.len() <= MAX_FOREIGN_TEXT && parts.len() == 3;
        // Every header of a JWT is an object, and begins so.
        (form && text.starts_with("ey") && parts.into_iter().all(fine)).then_some(Self(text))
    }

    /// The text.
    pub const fn text(self) -> &'a str {
        self.0
    }

    /// The id of its record, and what is kept of it: both made of the text with the server's key,
    /// so that the record is found without a table beside the tokens.
    pub fn kept(self, key: &TokenKey) -> (TokenId, TokenHash) {
        let hash = key.foreign(self.0);
        let (first, _) = hash.split_at(16);
        let number = u128::from_be_bytes(first.try_into().expect("half of 32 is 16"));
        let id = format!("tok_{}", id::encode(number)).parse().expect("26 known digits are an id");
        (id, TokenHash(hash))
    }
}

impl fmt::Debug for ForeignToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForeignToken(hidden)")
    }
}

/// What is kept of a secret.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Takes a recorded hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For the record.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Names a *stored* token in logs: 48 bits of the hash, from which nothing can be found
    /// (AUTH-06).
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(&self.0[..6])
    }

    /// Whether both are one, in a time that tells nothing.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({})", self.fingerprint())
    }
}

/// A token with its secret: fresh, or as presented. It cannot be printed by accident.
#[derive(Clone)]
pub struct Token {
    class: CredentialClass,
    id: TokenId,
    secret: Zeroizing<[u8; 32]>,
}

impl Token {
    /// Draws a new one from the operating system.
    pub fn generate(class: CredentialClass) -> Result<Self> {
        Self::generate_for(class, TokenId::generate())
    }

    /// Draws one that finds this record.
    pub fn generate_for(class: CredentialClass, id: TokenId) -> Result<Self> {
        let mut secret = Zeroizing::new([0_u8; 32]);
        fill(secret.as_mut_slice())?;
        Ok(Self { class, id, secret })
    }

    /// Draws the one that takes this one's place: the same record and the same first half of the
    /// secret, by which every member of the line is known, and a fresh second half of 128 bits,
    /// by which only the last one is.
    pub fn successor(&self) -> Result<Self> {
        let mut next = self.clone();
        fill(&mut next.secret[16..])?;
        Ok(next)
    }

    /// What is kept of the first half: whoever shows a token with it has had one of its line.
    pub fn family(&self, key: &TokenKey) -> TokenHash {
        key.family(self.id, &self.secret[..16])
    }

    /// Where it may be presented.
    pub const fn class(&self) -> CredentialClass {
        self.class
    }

    /// Finds its record.
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// What is kept.
    pub fn hash(&self, key: &TokenKey) -> TokenHash {
        key.hash(self.class, self.id, &self.secret)
    }

    /// The text to hand out, once.
    pub fn reveal(&self) -> Zeroizing<String> {
        let id = self.id.to_string();
        let digits = id.split_once('_').map_or(id.as_str(), |(_, digits)| digits);
        let (high, low) = self.secret.split_at(16);
        let number = |half: &[u8]| u128::from_be_bytes(half.try_into().expect("half of 32 is 16"));
        let mut text = Zeroizing::new(format!(
            "pf_{}_{digits}_{}{}",
            self.class.word(),
            id::encode(number(high)),
            id::encode(number(low)),
        ));
        let sum = checksum(&text);
        text.push_str(&sum);
        text
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} {}, hidden)", self.class.word(), self.id)
    }
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|err| Error::internal(format!("the system gave no random bytes: {err}")))
}

/// Why a text is no token. Told to whoever typed it on this machine, never to a remote caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAToken {
    /// It does not have the form.
    #[error("this is not a token of Pinfold: those begin with pf_")]
    Form,
    /// It has the form, and a character is wrong or missing.
    #[error("this token is mangled: its checksum does not fit; copy it again")]
    Checksum,
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        if text.len() > MAX_TOKEN_TEXT || !text.is_ascii() {
            return Err(NotAToken::Form);
        }
        let mut parts = text.split('_');
        let (Some("pf"), Some(word), Some(digits), Some(rest), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAToken::Form);
        };
        let class = CredentialClass::of_word(word).ok_or(NotAToken::Form)?;
        if rest.len() != SECRET_TEXT + CHECKSUM_TEXT {
            return Err(NotAToken::Checksum);
        }
        let (body, sum) = text.split_at(text.len() - CHECKSUM_TEXT);
        if checksum(body) != sum {
            return Err(NotAToken::Checksum);
        }
        let id = format!("tok_{digits}").parse().map_err(|_| NotAToken::Form)?;
        let (high, low) = rest[..SECRET_TEXT].split_at(SECRET_TEXT / 2);
        let mut secret = Zeroizing::new([0_u8; 32]);
        for (half, digits) in secret.chunks_exact_mut(16).zip([high, low]) {
            let number = id::decode(digits).ok_or(NotAToken::Form)?;
            half.copy_from_slice(&number.to_be_bytes());
        }
        Ok(Self { class, id, secret })
    }
}

/// Seven digits of the number whose bits are the first 35 of the hash.
fn checksum(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    let first: [u8; 16] = hash[..16].try_into().expect("a hash has 32 bytes");
    let digits = id::encode(u128::from_be_bytes(first) >> (128 - 35));
    digits[digits.len() - CHECKSUM_TEXT..].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn token() -> Token {
        Token::generate(CredentialClass::Api).expect("random bytes")
    }

    #[test]
    fn a_token_round_trips_and_shows_nothing() {
        let (token, key) = (token(), TokenKey::new([7; 32]));
        let text = token.reveal();
        assert!(text.len() <= MAX_TOKEN_TEXT && text.starts_with("pf_api_"), "{}", text.len());
        let back: Token = text.parse().expect("its own text");
        assert_eq!((back.id(), back.class()), (token.id(), token.class()));
        assert!(back.hash(&key).matches(&token.hash(&key)));
        assert!(!back.hash(&TokenKey::new([8; 32])).matches(&token.hash(&key)), "keyed");
        let secret = text.rsplit('_').next().expect("a last part");
        let shown = format!("{token:?} {key:?} {:?}", token.hash(&key));
        assert!(!shown.contains(&secret[..8]));
    }

    #[test]
    fn every_single_wrong_character_is_noticed() {
        let text = token().reveal().to_string();
        for place in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[place] = if wrong[place] == b'0' { b'1' } else { b'0' };
            let wrong = String::from_utf8(wrong).expect("ascii");
            assert!(wrong.parse::<Token>().is_err(), "{place}");
        }
        for end in 0..text.len() {
            assert!(text[..end].parse::<Token>().is_err(), "cut at {end}");
        }
        assert!(format!("{text}0").parse::<Token>().is_err());
    }

    #[test]
    fn secrets_have_all_their_bits() {
        let mut seen = [0_u8; 32];
        let mut all = BTreeSet::new();
        for _ in 0..200 {
            let token = token();
            seen.iter_mut().zip(token.secret.iter()).for_each(|(seen, byte)| *seen |= byte);
            assert!(all.insert(*token.secret), "drawn twice");
        }
        assert_eq!(seen, [0xff; 32], "every bit was set in one of 200");
    }

    #[test]
    fn a_successor_is_of_the_family_and_another_token() {
        let (key, first) = (TokenKey::new([2; 32]), token());
        let next = first.successor().expect("random bytes");
        assert!(next.family(&key).matches(&first.family(&key)));
        assert!(!next.hash(&key).matches(&first.hash(&key)));
        assert_eq!(next.id(), first.id());
        let forged = Token::generate_for(first.class(), first.id()).expect("random bytes");
        assert!(!forged.family(&key).matches(&first.family(&key)), "the id alone makes no family");
        let seen = first.family(&key);
        assert!(!seen.matches(&first.hash(&key)), "hashes of two kinds");
    }

    #[test]
    fn a_class_is_part_of_what_is_hashed() {
        let (key, api) = (TokenKey::new([1; 32]), token());
        let other = Token { class: CredentialClass::Mcp, ..api.clone() };
        assert!(!api.hash(&key).matches(&other.hash(&key)));
    }

    proptest! {
        #[test]
        fn wild_text_never_panics(text in "\\PC{0,200}") {
            let _ = text.parse::<Token>();
        }

        #[test]
        fn nearly_tokens_never_panic(text in "pf_(api|ws|mcp|web|refresh|code)_[0-9a-z]{20,30}_[0-9a-z]{50,64}") {
            prop_assert!(text.parse::<Token>().is_err());
        }
    }

    #[test]
    fn only_what_has_the_form_of_a_jwt_is_looked_for_among_foreign_tokens() {
        let key = TokenKey::new([5; 32]);
        let fine = ForeignToken::of("eyJh.eyJz.c2ln").expect("the form");
        assert_eq!(fine.kept(&key).0, ForeignToken::of("eyJh.eyJz.c2ln").expect("it").kept(&key).0);
        let other = ForeignToken::of("eyJh.eyJz.c2lo").expect("the form").kept(&key);
        assert!(other.0 != fine.kept(&key).0 && !other.1.matches(&fine.kept(&key).1));
        let elsewhere = fine.kept(&TokenKey::new([6; 32]));
        assert_ne!(elsewhere.0, fine.kept(&key).0, "ids are of this server's key");
        let long = format!("eyJh.{}.c2ln", "A".repeat(MAX_FOREIGN_TEXT));
        for bad in [
            "",
            "eyJh",
            "eyJh.eyJz",
            "eyJh.eyJz.",
            "eyJh..c2ln",
            "eyJh.eyJz.c2ln.x",
            &long,
            "abcd.eyJz.c2ln",
            "eyJh.eyJz.c2 n",
            "eyJh.eyJz.c2+n",
            "pf_api_x_y",
        ] {
            assert!(ForeignToken::of(bad).is_none(), "{bad:?}");
        }
    }
}
