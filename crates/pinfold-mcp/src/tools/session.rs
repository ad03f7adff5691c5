//! Who the caller is, and which session owns what.

use std::{collections::BTreeMap, fmt::Write};

use pinfold_auth::ops;
use pinfold_control::Node;
use pinfold_types::{
    Result,
    access::{AdoptWorkspaces, SessionInfo, SessionState},
    api::PageQuery,
};
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{count, invalid};
use crate::{
    call::Call,
    tool::{Effect, Info, Reply, Tool},
};

pub(crate) struct Show;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowInput {
    /// `next` of the page of sessions before. Leave out for the first page.
    cursor: Option<String>,
}

/// The caller and the sessions that it sees.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Shown {
    /// Who the server takes you for.
    principal: String,
    /// owner, user, token or workspace.
    kind: String,
    /// What you may do.
    scopes: Vec<String>,
    /// Your session, which owns what you make.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// What you hold, by the names of quotas.
    usage: BTreeMap<String, u64>,
    /// Sessions that you see.
    sessions: Vec<SessionView>,
    /// Give it as `cursor` for the next page. Absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A session.
#[derive(Debug, Serialize, JsonSchema)]
struct SessionView {
    id: String,
    /// What its client calls itself.
    client: String,
    /// live: at work; stale: silent for some time; ended: what it owned is anybody's.
    state: String,
    last_active_at: String,
    /// Ids of the workspaces that it owns.
    workspaces: Vec<String>,
}

impl From<&SessionInfo> for SessionView {
    fn from(info: &SessionInfo) -> Self {
        let state = match info.state {
            SessionState::Live => "live",
            SessionState::Stale => "stale",
            SessionState::Ended => "ended",
        };
        Self {
            id: info.id.to_string(),
            client: info.client.clone(),
            state: state.to_owned(),
            last_active_at: info.last_active_at.to_string(),
            workspaces: info.workspaces.iter().map(ToString::to_string).collect(),
        }
    }
}

impl<N: Node> Tool<N> for Show {
    const INFO: Info = Info {
        name: "session_info",
        title: "Show who you are and which sessions there are",
        about: "Shows who the server takes you for, what you may do and hold, and which session \
                owns which workspace. Next: session_adopt for workspaces of a session that is \
                stale or ended.",
        operations: &["session.whoami", "session.list"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = ShowInput;
    type Output = Shown;

    async fn run(call: Call<N>, input: ShowInput) -> Result<Reply<Shown>> {
        let grant = call.on_server::<ops::WhoAmI>().await?;
        let who = call.service.who_am_i(grant).await?;
        let grant = call.on_server::<ops::SessionList>().await?;
        let query = PageQuery { cursor: input.cursor, limit: Some(100) };
        let page = call.service.list_sessions(grant, &query).await?;
        let shown = Shown {
            principal: who.principal.to_string(),
            kind: who.kind,
            scopes: who.scopes,
            session: who.session.map(|id| id.to_string()),
            usage: who.usage,
            sessions: page.items.iter().map(SessionView::from).collect(),
            next: page.next,
        };
        let mut text = format!("{} ({})", shown.principal, shown.kind);
        if let Some(session) = &shown.session {
            let _infallible = write!(text, ", session {session}");
        }
        for one in &shown.sessions {
            let owns = count(one.workspaces.len(), "workspace");
            let _infallible = write!(text, "\n{} {} {}: {owns}", one.id, one.state, one.client);
        }
        Ok(Reply::new(text, shown))
    }
}

pub(crate) struct Adopt;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdoptInput {
    /// Name or id of one workspace that no live session owns.
    workspace: Option<String>,
    /// Id of a stale or ended session: everything that it owns.
    session: Option<String>,
    /// Every workspace whose session has ended.
    #[serde(default)]
    all_orphans: bool,
}

/// What is yours now.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Adopted {
    /// Ids of workspaces.
    workspaces: Vec<String>,
}

impl<N: Node> Tool<N> for Adopt {
    const INFO: Info = Info {
        name: "session_adopt",
        title: "Become the owner of workspaces",
        about: "Makes your session the owner of one workspace, of all that a stale or ended \
                session owns, or of every orphan. A session that is at work never loses one.",
        operations: &["session.adopt", "session.takeover"],
        effect: Effect::Changes,
        idempotent: true,
        open_world: false,
    };
    type Input = AdoptInput;
    type Output = Adopted;

    fn needs(arguments: &JsonObject) -> Vec<&'static str> {
        let session = arguments.get("session").is_some_and(Value::is_string);
        vec![if session { "session.takeover" } else { "session.adopt" }]
    }

    async fn run(call: Call<N>, input: AdoptInput) -> Result<Reply<Adopted>> {
        let adopted = match (input.workspace, input.session, input.all_orphans) {
            (None, Some(session), false) => {
                let grant = call.on::<ops::SessionTakeover>(&session).await?;
                call.service.takeover(grant).await?
            }
            (workspace @ Some(_), None, false) | (workspace @ None, None, true) => {
                let grant = call.on_server::<ops::SessionAdopt>().await?;
                call.service.adopt(grant, AdoptWorkspaces { workspace }).await?
            }
            _ => return Err(invalid("give one of workspace, session and all_orphans")),
        };
        let workspaces: Vec<_> = adopted.workspaces.iter().map(ToString::to_string).collect();
        let mut text = format!("{} yours now", count(workspaces.len(), "workspace"));
        for id in &workspaces {
            let _infallible = write!(text, "\n{id}");
        }
        Ok(Reply::new(text, Adopted { workspaces }))
    }
}
