//! Who owns what, tokens, sessions and quotas, as callers ask for them and see them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Error, ErrorCode, PrincipalId, Result, SessionId, SnapshotId, TokenId, WorkspaceId,
    id::PREFIXES,
    limits::{MAX_TIMEOUT_MS, ResourceLimits},
    name::excerpt,
    schema,
};

/// Most scopes of a token.
pub const MAX_SCOPES: usize = 64;
/// Most workspaces that a token can be bound to.
pub const MAX_BOUND: usize = 64;
/// Longest life of a token: ten years.
pub const MAX_TOKEN_MS: u64 = 120 * MAX_TIMEOUT_MS;

/// Who a workspace belongs to, recorded with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Holder {
    /// The principal; absent: the user who runs the server.
    pub principal: Option<PrincipalId>,
    /// The session; absent: the principal's default session.
    pub session: Option<SessionId>,
    /// Ties a workspace that is being made to what was reserved for it.
    #[serde(skip)]
    pub ticket: u64,
}

/// One workspace, as quotas count it.
#[derive(Clone, Debug, PartialEq)]
pub struct Holding {
    /// Which.
    pub id: WorkspaceId,
    /// Whose.
    pub holder: Holder,
    /// What it may use.
    pub limits: ResourceLimits,
}

/// One snapshot, as quotas count it and its forks.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotHolding {
    /// Which.
    pub id: SnapshotId,
    /// The workspace that it was taken of.
    pub workspace: WorkspaceId,
    /// Whose.
    pub holder: Holder,
    /// What a workspace made of it may use at most.
    pub limits: ResourceLimits,
}

/// Which objects a principal sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Its own, and those of principals that it made.
    #[default]
    Own,
    /// Everybody's.
    All,
}

/// Most that a principal, with all principals that it made, may hold. Absent: no limit of its
/// own. Every ancestor's quota holds too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Workspaces, whatever their state, as all that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspaces: Option<u64>,
    /// Processor limits in thousandths, together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Memory limits, together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Disk limits, together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Process limits, together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<u64>,
    /// Snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
    /// Bytes that snapshots can reach, shared ones counted for each: what two snapshots share is
    /// nobody's alone, and would count for nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_bytes: Option<u64>,
    /// Streams open at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams: Option<u64>,
    /// Commands started over streams at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execs: Option<u64>,
}

impl Quota {
    /// Every field with its name.
    pub const fn fields(&self) -> [(&'static str, Option<u64>); 9] {
        [
            ("workspaces", self.workspaces),
            ("cpu_millis", self.cpu_millis),
            ("memory_bytes", self.memory_bytes),
            ("disk_bytes", self.disk_bytes),
            ("pids", self.pids),
            ("snapshots", self.snapshots),
            ("snapshot_bytes", self.snapshot_bytes),
            ("streams", self.streams),
            ("execs", self.execs),
        ]
    }

    /// Whether this one limits nothing.
    pub fn is_open(&self) -> bool {
        self.fields().iter().all(|(_, most)| most.is_none())
    }
}

/// Longest name of a client that begins a session, in characters.
pub const MAX_CLIENT_CHARS: usize = 100;

/// A request for a new token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"], "anyOf" = schema::own_principal_or_no_quota()))]
pub struct CreateToken {
    /// What people call it: 1 to 63 letters, digits, `.`, `_`, `-`.
    #[schemars(schema_with = "schema::token_name")]
    pub name: String,
    /// `noun:right`, `noun:*` or `*`. Empty: everything that its maker may.
    #[schemars(length(max = MAX_SCOPES), inner(regex(pattern = schema::SCOPE)))]
    pub scopes: Vec<String>,
    /// Ends this long after it was made. Absent: with its maker's credential, at most ten years.
    #[schemars(range(min = 1, max = MAX_TOKEN_MS))]
    pub expires_ms: Option<u64>,
    /// Only these workspaces, by id or name. Empty: no such limit.
    #[schemars(schema_with = "schema::workspace_references")]
    pub workspaces: Vec<String>,
    /// Stands for its maker, with the maker's own workspaces and quota, instead of for a new
    /// principal below it.
    pub same_principal: bool,
    /// Which objects it sees. Never more than its maker.
    pub reach: Reach,
    /// Quota of the new principal.
    pub quota: Quota,
    /// Instead of a secret: who this is at the external provider (`sub` of its tokens), 1 to 255
    /// visible ASCII characters. Only a maker that sees everybody's may name somebody.
    #[schemars(regex(pattern = schema::SUBJECT))]
    pub subject: Option<String>,
}

impl CreateToken {
    /// Checks everything that needs no table.
    pub fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::new(ErrorCode::InvalidArgument, why));
        check_token_name(&self.name)?;
        if self.scopes.len() > MAX_SCOPES {
            return refuse(format!("more than {MAX_SCOPES} scopes"));
        }
        if self.workspaces.len() > MAX_BOUND {
            return refuse(format!("bound to more than {MAX_BOUND} workspaces"));
        }
        if self.expires_ms.is_some_and(|ms| ms == 0 || ms > MAX_TOKEN_MS) {
            return refuse(format!("expires_ms must be 1 to {MAX_TOKEN_MS} (ten years)"));
        }
        if self.same_principal && !self.quota.is_open() {
            return refuse(
                "a token for its maker has its maker's quota, and none of its own".into(),
            );
        }
        let visible = |text: &String| text.bytes().all(|b| b.is_ascii_graphic());
        if self.subject.as_ref().is_some_and(|of| !(1..=255).contains(&of.len()) || !visible(of)) {
            return refuse("subject must be 1 to 255 visible ASCII characters".into());
        }
        Ok(())
    }
}

/// Refuses what no token is called: 1 to 63 letters, digits, `.`, `_`, `-`, and nothing that looks
/// like an id.
pub fn check_token_name(name: &str) -> Result<()> {
    let fine = (1..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && !PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    if fine {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidName, format!("{:?} is not a token's name", excerpt(name)))
        .hint("1 to 63 letters, digits, `.`, `_` and `-`, not beginning like an id"))
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenInfo {
    /// Id.
    pub id: TokenId,
    /// Name.
    pub name: String,
    /// `api`, `ws`, `web` (a browser), `mcp` (an access token), `refresh` (what a client of MCP over
    /// HTTP was granted), `oidc` (somebody of the external provider).
    pub class: String,
    /// Whom it stands for.
    pub principal: PrincipalId,
    /// Who made it.
    pub maker: PrincipalId,
    /// What it may.
    pub scopes: Vec<String>,
    /// Only these workspaces; empty: no such limit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<WorkspaceId>,
    /// Which objects it sees.
    pub reach: Reach,
    /// The client that it was granted to, as it calls itself and where it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Who this is at the external provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Quota of its principal.
    #[serde(default, skip_serializing_if = "Quota::is_open")]
    pub quota: Quota,
    /// The first characters of its keyed hash, as the audit log names it.
    pub fingerprint: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// When it was last presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

/// A new ticket. The only time that its text is given.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct NewTicket {
    /// The text to present, once, as `?ticket=` of a WebSocket.
    pub ticket: String,
    /// How long it stands.
    pub expires_in_ms: u64,
}

impl std::fmt::Debug for NewTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewTicket(hidden)")
    }
}

/// A link that signs one browser in. The only time that it is given.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct NewLogin {
    /// What to open in a browser.
    pub url: String,
    /// How long it stands.
    pub expires_in_ms: u64,
}

impl std::fmt::Debug for NewLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewLogin(hidden)")
    }
}

/// Browser sessions that were ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndedLogins {
    /// Their tokens.
    pub tokens: Vec<TokenId>,
}

/// A new token. The only time that its text is given.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct NewToken {
    /// The text to present. Absent for somebody of the external provider, who brings the
    /// provider's tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Everything else.
    pub info: TokenInfo,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Whom the caller is taken for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WhoAmI {
    /// Id.
    pub principal: PrincipalId,
    /// Name.
    pub name: String,
    /// `owner`, `token`, `workspace`.
    pub kind: String,
    /// What it may.
    pub scopes: Vec<String>,
    /// Which objects it sees.
    pub reach: Reach,
    /// Its token, where one was presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
    /// Its session, where the call is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Quota of its principal.
    pub quota: Quota,
    /// What is held against that quota now, by the same names.
    pub usage: BTreeMap<String, u64>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionInfo {
    /// Id.
    pub id: SessionId,
    /// Whose.
    pub principal: PrincipalId,
    /// What a client calls itself, without control characters.
    pub client: String,
    /// `live`, `stale` or `ended`.
    pub state: SessionState,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last had a call.
    pub last_active_at: Timestamp,
    /// Calls and streams now.
    pub in_flight: u64,
    /// Workspaces that it owns.
    pub workspaces: Vec<WorkspaceId>,
}

/// Whether a session is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// It has calls in flight, or had one a short while ago.
    Live,
    /// It was silent for longer than `sessions.stale_ms`.
    Stale,
    /// Its client said goodbye. What it owned is nobody's: an orphan.
    Ended,
}

/// A request for a new session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CreateSession {
    /// What the client calls itself: at most 100 characters, no control characters.
    #[schemars(length(max = MAX_CLIENT_CHARS), regex(pattern = schema::NO_CONTROLS))]
    pub client: String,
}

impl CreateSession {
    /// Checks everything that needs no table.
    pub fn check(&self) -> Result<()> {
        let client = &self.client;
        if client.chars().count() > MAX_CLIENT_CHARS || client.chars().any(char::is_control) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("client: at most {MAX_CLIENT_CHARS} characters, no control characters"),
            ));
        }
        Ok(())
    }
}

/// What is to be owned by the caller's session from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdoptWorkspaces {
    /// This workspace, by id or name; absent: every orphan that the caller sees.
    #[schemars(schema_with = "schema::workspace_reference_or_null")]
    pub workspace: Option<String>,
}

/// What changed hands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Adopted {
    /// Ids.
    pub workspaces: Vec<WorkspaceId>,
}

/// Which records of the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditQuery {
    /// From this number on; absent: the last ones, or for an export all.
    pub from: Option<u64>,
    /// How many, 1 to 1000; 100 where nothing is said. An export has no such limit.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

/// A record of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Number: one more than the record before.
    pub seq: u64,
    /// Hash of the record before.
    pub prev: String,
    /// When.
    pub at: Timestamp,
    /// `begin`, `end`, `denied`, `security`.
    pub phase: String,
    /// Name of the operation.
    pub operation: String,
    /// Who.
    pub principal: String,
    /// Fingerprint of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// Session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Where it came in.
    pub surface: String,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// On what.
    pub object: String,
    /// `allow` or `refuse`.
    pub decision: String,
    /// By which rule, or why not.
    pub rule: String,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Request.
    pub request: String,
    /// Ids of what came of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<String>,
    /// What else is worth knowing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
    /// Keyed hash of all of this.
    pub hash: String,
}

/// What a check of the audit log found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditVerdict {
    /// Nothing was changed, removed, moved or cut off.
    pub whole: bool,
    /// Records checked.
    pub records: u64,
    /// Number of the first that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// Number of the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Which record is wrong, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
