//! `token create|ls|revoke`, `session ls|adopt|takeover|end`, `whoami`.

use std::fmt::Write;

use http::Method;
use pinfold_types::{
    Result,
    access::{
        AdoptWorkspaces, Adopted, CreateToken, NewToken, Quota, SessionInfo, SessionState,
        TokenInfo, WhoAmI,
    },
};

use super::{Context, Several, workspace, workspace_path};
use crate::{
    args::access::{SessionCommand, TokenCommand, TokenCreate, TokenRevoke},
    client::encode_segment,
    output::{
        human,
        table::{Cell, Paint, Table},
    },
};

const TOKENS: &str = "/api/v1/tokens";
const SESSIONS: &str = "/api/v1/sessions";

pub(super) async fn token(context: &Context, args: TokenCommand) -> Result<u8> {
    match args {
        TokenCommand::Create(args) => create(context, *args).await.map(|()| 0),
        TokenCommand::Ls => ls(context).await.map(|()| 0),
        TokenCommand::Revoke(args) => revoke(context, &args).await,
    }
}

async fn create(context: &Context, args: TokenCreate) -> Result<()> {
    let made: NewToken = if let Some(workspace) = &args.self_of {
        context.client.act(Method::POST, &workspace_path(workspace, "/token")).await?
    } else {
        let body = CreateToken {
            name: args.name.unwrap_or_default(),
            scopes: args.scope,
            expires_ms: args.expires.map(|time| time.0),
            workspaces: args.workspace.iter().map(ToString::to_string).collect(),
            same_principal: args.as_me,
            reach: args.reach.into(),
            subject: args.subject,
            quota: Quota {
                workspaces: args.quota.max_workspaces,
                cpu_millis: args.quota.max_cpus.map(|cpus| cpus.0),
                memory_bytes: args.quota.max_memory.map(|size| size.0),
                disk_bytes: args.quota.max_disk.map(|size| size.0),
                snapshots: args.quota.max_snapshots,
                streams: args.quota.max_streams,
                ..Quota::default()
            },
        };
        body.check()?;
        context.client.send(Method::POST, TOKENS, &body).await?
    };
    // The text alone on standard output, so that it can be piped into where it belongs.
    context.output.show(&made, |made| {
        made.token.as_ref().map_or_else(String::new, |text| format!("{text}\n"))
    })?;
    let until = made
        .info
        .expires_at
        .map_or("until it is revoked".to_owned(), |end| format!("until {}", human::moment(end)));
    let shown = match &made.info.subject {
        Some(subject) => format!("{subject} brings the provider's tokens"),
        None => "this is the only time that its text is shown".to_owned(),
    };
    context.output.note(format!("{} stands {until}; {shown}", made.info.id));
    Ok(())
}

/// Scopes in a cell: as many as fit, then how many more. `--json` has all.
fn scopes(all: &[String]) -> String {
    const WIDE: usize = 40;
    let mut text = String::new();
    for (shown, scope) in all.iter().enumerate() {
        let comma = if shown == 0 { "" } else { "," };
        if shown > 0 && text.len() + comma.len() + scope.len() > WIDE {
            return format!("{text} +{}", all.len() - shown);
        }
        text.push_str(comma);
        text.push_str(scope);
    }
    text
}

async fn ls(context: &Context) -> Result<()> {
    let found: Vec<TokenInfo> = context.client.pages(TOKENS).await?;
    workspace::listed(context, found, |found| {
        let headings = &["ID", "NAME", "CLASS", "SCOPES", "REACH", "AGE", "USED", "STATE"];
        let mut table = Table::new(context.output.color(), headings);
        for info in found {
            table.row([
                Cell::from(info.id.to_string()),
                info.name.as_str().into(),
                info.class.as_str().into(),
                Cell::from(scopes(&info.scopes)),
                if info.reach == pinfold_types::access::Reach::All { "all" } else { "own" }.into(),
                human::age(info.created_at).into(),
                info.last_used_at.map_or("-".to_owned(), human::age).into(),
                state(info),
            ]);
        }
        table.render()
    })
}

fn state(info: &TokenInfo) -> Cell {
    if info.revoked_at.is_some() {
        return Cell::painted("revoked", Paint::Dim);
    }
    match info.expires_at {
        Some(end) if end <= jiff::Timestamp::now() => Cell::painted("expired", Paint::Dim),
        Some(end) => Cell::from(format!("until {}", human::moment(end))),
        None => Cell::painted("stands", Paint::Good),
    }
}

async fn revoke(context: &Context, args: &TokenRevoke) -> Result<u8> {
    let mut code = Several::default();
    for reference in &args.tokens {
        let path = format!("{TOKENS}/{}", encode_segment(reference));
        match context.client.act::<TokenInfo>(Method::DELETE, &path).await {
            Ok(info) => {
                context
                    .output
                    .show(&info, |info| format!("{} {} revoked\n", info.id, info.name))?;
            }
            Err(error) => code.note(&context.output, &error),
        }
    }
    Ok(code.0)
}

pub(super) async fn session(context: &Context, args: SessionCommand) -> Result<()> {
    match args {
        SessionCommand::Ls => sessions(context).await,
        SessionCommand::Adopt(args) => {
            let body = AdoptWorkspaces { workspace: args.workspace.map(|name| name.to_string()) };
            let path = format!("{SESSIONS}/adopt");
            adopted(context, &context.client.send(Method::POST, &path, &body).await?)
        }
        SessionCommand::Takeover(one) => {
            let path = format!("{SESSIONS}/{}/takeover", one.session);
            adopted(context, &context.client.act(Method::POST, &path).await?)
        }
        SessionCommand::End(one) => {
            let path = format!("{SESSIONS}/{}", one.session);
            context.client.act::<()>(Method::DELETE, &path).await
        }
    }
}

fn adopted(context: &Context, adopted: &Adopted) -> Result<()> {
    context.output.show(adopted, |adopted| {
        let ids: Vec<String> = adopted.workspaces.iter().map(ToString::to_string).collect();
        ids.join("\n") + if ids.is_empty() { "" } else { "\n" }
    })
}

async fn sessions(context: &Context) -> Result<()> {
    let found: Vec<SessionInfo> = context.client.pages(SESSIONS).await?;
    workspace::listed(context, found, |found| {
        let headings = &["ID", "CLIENT", "STATE", "IN FLIGHT", "ACTIVE", "WORKSPACES"];
        let mut table = Table::new(context.output.color(), headings);
        for info in found {
            let owned: Vec<String> = info.workspaces.iter().map(ToString::to_string).collect();
            table.row([
                Cell::from(info.id.to_string()),
                info.client.as_str().into(),
                match info.state {
                    SessionState::Live => Cell::painted("live", Paint::Good),
                    SessionState::Stale => Cell::painted("stale", Paint::Warn),
                    SessionState::Ended => Cell::painted("ended", Paint::Dim),
                },
                Cell::from(info.in_flight.to_string()),
                human::age(info.last_active_at).into(),
                Cell::from(owned.join(" ")),
            ]);
        }
        table.render()
    })
}

pub(super) async fn who_am_i(context: &Context) -> Result<()> {
    let me: WhoAmI = context.client.get("/api/v1/whoami").await?;
    context.output.show(&me, |me| {
        let mut text = format!("{} {} ({})\n", me.principal, me.name, me.kind);
        let _ = writeln!(text, "scopes {}", me.scopes.join(" "));
        let quota = me.quota.fields();
        for (name, used) in &me.usage {
            let most = quota.iter().find(|(known, _)| known == name).and_then(|(_, most)| *most);
            let most = most.map_or("no limit".to_owned(), |most| format!("of {most}"));
            let _ = writeln!(text, "{name} {used} {most}");
        }
        text
    })
}
