//! From what was presented to a principal.

use jiff::Timestamp;
use pinfold_types::{Error, ErrorCode, PrincipalId, Result, SessionId, TokenId, WorkspaceId};

use crate::{
    Authority, CredentialClass, ForeignToken, PeerCredentials, Principal, Token, TokenHash,
    TokenKey, principal::owner_id,
};

/// Root can read the owner's files and memory whatever we answer, so it is let in, under its own
/// principal: what it does is then at least written down.
const ROOT: u32 = 0;

/// How a call came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Surface {
    /// REST over the unix socket.
    Unix,
    /// REST over TCP.
    Http,
    /// A WebSocket over TCP.
    WebSocket,
    /// MCP over HTTP.
    Mcp,
    /// MCP for one process, over the unix socket.
    McpStdio,
    /// REST from a program inside a workspace.
    Inside,
}

impl Surface {
    /// The surface in a word, for the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Http => "http",
            Self::WebSocket => "websocket",
            Self::Mcp => "mcp",
            Self::McpStdio => "mcp-stdio",
            Self::Inside => "inside",
        }
    }

    /// Whether a credential of this class is taken here (AX-10).
    pub const fn takes(self, class: CredentialClass) -> bool {
        match class {
            CredentialClass::Peer => matches!(self, Self::Unix | Self::McpStdio),
            CredentialClass::Api => !matches!(self, Self::Inside),
            CredentialClass::Workspace => true,
            CredentialClass::Mcp => matches!(self, Self::Mcp),
            CredentialClass::Browser => matches!(self, Self::Http | Self::WebSocket),
            CredentialClass::Refresh | CredentialClass::Code | CredentialClass::Oidc => false,
        }
    }
}

/// What is recorded of a token.
#[derive(Clone, Debug)]
pub struct TokenRecord {
    /// Id.
    pub id: TokenId,
    /// Where it may be presented.
    pub class: CredentialClass,
    /// Of its secret.
    pub hash: TokenHash,
    /// Whom it stands for.
    pub principal: PrincipalId,
    /// What that one is called.
    pub name: String,
    /// What it may.
    pub authority: Authority,
    /// The workspace that it is the token of.
    pub workspace: Option<WorkspaceId>,
    /// The only session that it may be used in.
    pub session: Option<SessionId>,
    /// Of an access token: what a client was granted, which all tokens that follow each other have
    /// in common.
    pub grant: Option<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Recognises callers.
#[derive(Clone, Debug)]
pub struct Authenticator {
    owner_uid: u32,
    key: TokenKey,
}

impl Authenticator {
    /// Of a server that runs as `owner_uid`.
    pub const fn new(owner_uid: u32, key: TokenKey) -> Self {
        Self { owner_uid, key }
    }

    /// The principal of the user who runs the server.
    pub fn owner(&self) -> PrincipalId {
        owner_id(self.owner_uid)
    }

    /// Recognises the process at the other end of the unix socket: the owner's, or root's.
    pub fn peer(&self, peer: PeerCredentials) -> Result<Principal> {
        if peer.uid == self.owner_uid || peer.uid == ROOT {
            Ok(Principal::owner(peer.uid))
        } else {
            Err(crate::authorizer::refused(&format!(
                "uid {} is neither {} nor root",
                peer.uid, self.owner_uid
            )))
        }
    }

    /// What is to be recorded of a new token.
    pub fn hash(&self, token: &Token) -> TokenHash {
        token.hash(&self.key)
    }

    /// What is to be recorded of all refresh tokens of one grant.
    pub fn family(&self, token: &Token) -> TokenHash {
        token.family(&self.key)
    }

    /// Where the record of another provider's token is, and what is to be kept of it.
    pub fn foreign(&self, token: ForeignToken<'_>) -> (TokenId, TokenHash) {
        token.kept(&self.key)
    }

    /// Recognises a token by its record, which `find` looks up. Every refusal reads the same and
    /// does the same work, whether there is such a token or not (AUTH-01).
    pub fn bearer<'a>(
        &self,
        presented: &str,
        surface: Surface,
        now: Timestamp,
        find: impl FnOnce(TokenId) -> Option<&'a TokenRecord>,
    ) -> Result<Principal> {
        let (id, class, hash) = if let Some(foreign) = ForeignToken::of(presented) {
            // Whoever signed it was asked when its record was made.
            let (id, hash) = self.foreign(foreign);
            (id, CredentialClass::Mcp, hash)
        } else {
            let token: Token = presented.parse().map_err(|_| unauthenticated("no token's text"))?;
            (token.id(), token.class(), self.hash(&token))
        };
        let record = find(id);
        let known = record.map_or(TokenHash::from_bytes([0; 32]), |record| record.hash);
        let right = known.matches(&hash);
        let Some(record) = record.filter(|_| right) else {
            return Err(unauthenticated("no such token"));
        };
        if record.class != class || !surface.takes(record.class) {
            return Err(unauthenticated("a token of a class that is not taken here"));
        }
        if record.revoked_at.is_some() {
            return Err(unauthenticated("a revoked token"));
        }
        if record.expires_at.is_some_and(|end| end <= now) {
            return Err(unauthenticated("an expired token"));
        }
        Ok(Principal::of_token(record))
    }
}

/// The one refusal of whoever is nobody.
pub fn unauthenticated(why: &str) -> Error {
    Error::new(ErrorCode::Unauthenticated, "no valid credential was given")
        .hint("send `Authorization: Bearer TOKEN`; pinfold token create makes one")
        .context(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(token: &Token, authenticator: &Authenticator) -> TokenRecord {
        TokenRecord {
            id: token.id(),
            class: token.class(),
            hash: authenticator.hash(token),
            principal: PrincipalId::generate(),
            name: "ci".into(),
            authority: Authority::all(),
            workspace: None,
            session: None,
            grant: None,
            expires_at: None,
            revoked_at: None,
        }
    }

    #[test]
    fn only_a_token_that_stands_is_somebody_and_every_refusal_reads_the_same() {
        let authenticator = Authenticator::new(1000, TokenKey::new([3; 32]));
        let token = Token::generate(CredentialClass::Api).expect("random");
        let good = record(&token, &authenticator);
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let ask = |text: &str, surface, record: Option<&TokenRecord>| {
            authenticator.bearer(text, surface, now, |_| record)
        };
        let text = token.reveal();
        let principal = ask(&text, Surface::Http, Some(&good)).expect("stands");
        assert_eq!((principal.id(), principal.token()), (good.principal, Some(token.id())));

        let mut forged = token.reveal().to_string();
        forged.replace_range(40..41, if &forged[40..41] == "0" { "1" } else { "0" });
        let other = Token::generate(CredentialClass::Api).expect("random");
        let revoked = TokenRecord { revoked_at: Some(now), ..good.clone() };
        let expired = TokenRecord { expires_at: Some(now), ..good.clone() };
        let mcp = TokenRecord { class: CredentialClass::Mcp, ..good.clone() };
        let elsewhere = TokenRecord { hash: authenticator.hash(&other), ..good.clone() };
        let refusals = [
            ask("", Surface::Http, Some(&good)),
            ask("pf_api_x_y", Surface::Http, Some(&good)),
            ask(&forged, Surface::Http, Some(&good)),
            ask(&text, Surface::Http, None),
            ask(&text, Surface::Http, Some(&revoked)),
            ask(&text, Surface::Http, Some(&expired)),
            ask(&text, Surface::Http, Some(&mcp)),
            ask(&text, Surface::Http, Some(&elsewhere)),
        ];
        for refused in refusals {
            let refused = refused.expect_err("nobody");
            let first = unauthenticated("");
            assert_eq!(
                (refused.code, refused.message, refused.hint),
                (ErrorCode::Unauthenticated, first.message, first.hint)
            );
        }
    }

    #[test]
    fn classes_stay_where_they_belong() {
        use CredentialClass::{Api, Browser, Code, Mcp, Oidc, Peer, Refresh, Workspace};
        use Surface::{Http, Mcp as McpHttp, McpStdio, Unix, WebSocket};
        let taken: &[(Surface, &[CredentialClass])] = &[
            (Unix, &[Peer, Api, Workspace]),
            (McpStdio, &[Peer, Api, Workspace]),
            (Http, &[Api, Workspace, Browser]),
            (WebSocket, &[Api, Workspace, Browser]),
            (Surface::Inside, &[Workspace]),
            (McpHttp, &[Api, Workspace, Mcp]),
        ];
        for (surface, classes) in taken {
            for class in [Peer, Api, Workspace, Mcp, Browser, Refresh, Code, Oidc] {
                assert_eq!(surface.takes(class), classes.contains(&class), "{surface:?} {class:?}");
            }
        }
    }
}
