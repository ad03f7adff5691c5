//! `doctor --attack`: the escape suite on the user's own machine (PF-13).
//!
//! An ordinary workspace with the usual walls is made, the attacker is copied in, and each
//! attempt runs in a process of its own. The workspace is removed whatever happens.

use http::Method;
use pinfold_api::ws::Message;
use pinfold_types::{
    Error, ErrorCode, Result, WorkspaceState,
    api::{DoctorReport, ExecOutput},
    exec::{ExecResult, ExecSpec, ExitReason},
    limits::LimitKind,
    workspace::{CreateWorkspace, WorkspaceInfo},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use crate::{
    client::{Body, lost, query},
    output::{
        progress::Progress,
        table::{Cell, Paint, Table},
    },
    server::program,
};

/// The attacker's name, here and inside.
const PROGRAM: &str = "pinfold-attack";
const INSIDE: &str = "/opt/pinfold-attack";
/// One attempt's time; the exhausting ones end themselves earlier.
const ATTEMPT_MS: u64 = 30_000;
/// Most output of an attempt that is kept.
const KEPT_BYTES: usize = 4 << 20;

/// An attempt as the attacker describes it.
#[derive(Debug, Deserialize)]
struct Entry {
    id: String,
    category: String,
    wall: String,
    what: String,
    source: String,
    held: Vec<String>,
}

/// How an attempt ended inside.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
enum Outcome {
    Gained { evidence: String },
    Refused { error: String },
    Inapplicable { reason: String },
}

/// What that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// The wall gave the error it gives.
    Held,
    /// Something was gained.
    Broken,
    /// Another end than the wall's: looked at by a person.
    Unclear,
    /// This machine has nothing to attack there.
    Inapplicable,
    /// A limit that nothing here enforces, as `info` and `doctor` say: not tried.
    Absent,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Line {
    id: String,
    category: String,
    wall: String,
    what: String,
    source: String,
    verdict: Verdict,
    detail: String,
}

pub(super) async fn attack(context: &Context) -> Result<u8> {
    let path = program(&context.home, PROGRAM)?;
    let bytes = std::fs::read(&path).map_err(|error| {
        Error::new(ErrorCode::Unavailable, format!("{} cannot be read: {error}", path.display()))
    })?;
    let workspace = make(context).await?;
    let lines = run_all(context, &workspace, bytes).await;
    let route = format!("/api/v1/workspaces/{}", workspace.id);
    let removed = context.client.act::<Value>(Method::DELETE, &route).await;
    let lines = lines?;
    removed?;
    context.output.show(&lines, |lines| table(context, lines))?;
    let failed = |line: &Line| matches!(line.verdict, Verdict::Broken | Verdict::Unclear);
    Ok(if lines.iter().any(failed) { ErrorCode::CannotEnforce.exit_code() } else { 0 })
}

/// The limit that an exhausting attempt is against.
fn limit_of(attempt: &str) -> Option<LimitKind> {
    match attempt {
        "use-memory" | "use-shared-memory" | "use-memfd" | "use-shm" => Some(LimitKind::Memory),
        "use-disk" | "use-tmp" | "use-fallocate" | "use-inodes" => Some(LimitKind::Disk),
        "use-forks" | "use-threads" => Some(LimitKind::Pids),
        "use-files" => Some(LimitKind::OpenFiles),
        _ => None,
    }
}

/// Small limits make the exhausting attempts short. Those that nothing here enforces are left
/// out, as they are for every workspace.
async fn make(context: &Context) -> Result<WorkspaceInfo> {
    let mut request = CreateWorkspace::default();
    request.labels.insert("pinfold".into(), "doctor-attack".into());
    // What the attempts are made for: each goes a little beyond.
    request.image = Some("host".parse()?);
    let wanted = [
        (LimitKind::Memory, 96 << 20),
        (LimitKind::Swap, 0),
        (LimitKind::Pids, 64),
        (LimitKind::Disk, 64 << 20),
        (LimitKind::OpenFiles, 256),
    ];
    for (kind, value) in wanted {
        request.limits.set(kind, Some(value));
    }
    let route = "/api/v1/workspaces";
    match context.client.send(Method::POST, route, &request).await {
        Err(error) if error.code == ErrorCode::CannotEnforce => {}
        other => return other,
    }
    let report: DoctorReport = context.client.get("/api/v1/doctor").await?;
    for (kind, _) in wanted {
        if report.limits.iter().any(|limit| limit.kind == kind && !limit.enforced) {
            request.limits.set(kind, None);
        }
    }
    context.client.send(Method::POST, route, &request).await
}

async fn run_all(
    context: &Context,
    workspace: &WorkspaceInfo,
    bytes: Vec<u8>,
) -> Result<Vec<Line>> {
    let mode = 0o755.to_string();
    let pairs = [("path", INSIDE), ("mode", mode.as_str()), ("parents", "true")];
    let route = format!("/api/v1/workspaces/{}/files/content{}", workspace.id, query(&pairs));
    let body = Body::Whole(Some(bytes.into()));
    context.client.request(Method::PUT, &route, Some("application/octet-stream"), body).await?;
    let (_, text) = capture(context, workspace, &[INSIDE, "--catalogue"]).await?;
    let entries: Vec<Entry> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(Error::internal)?;
    let total = u64::try_from(entries.len()).unwrap_or(0);
    let mut progress = Progress::new(&context.output);
    let mut lines = Vec::new();
    for (done, entry) in (1..).zip(entries) {
        progress.count("attempts", done, total);
        let limit = limit_of(&entry.id)
            .and_then(|kind| workspace.limits.iter().find(|limit| limit.kind == kind));
        let (verdict, detail) = match limit {
            Some(limit) if !limit.enforced => (Verdict::Absent, limit.by.clone()),
            _ => match capture(context, workspace, &[INSIDE, &entry.id]).await {
                Ok((result, text)) => judge(&entry, &result, &text),
                Err(error) => (Verdict::Unclear, error.message),
            },
        };
        lines.push(Line {
            id: entry.id,
            category: entry.category,
            wall: entry.wall,
            what: entry.what,
            source: entry.source,
            verdict,
            detail,
        });
        revive(context, workspace).await?;
    }
    Ok(lines)
}

/// An attempt may have taken its own workspace down, which is no gain; the next needs it.
async fn revive(context: &Context, workspace: &WorkspaceInfo) -> Result<()> {
    let route = format!("/api/v1/workspaces/{}", workspace.id);
    let info: WorkspaceInfo = context.client.get(&route).await?;
    if info.state == WorkspaceState::Stopped {
        let start = format!("{route}/start");
        context.client.act::<WorkspaceInfo>(Method::POST, &start).await?;
    }
    Ok(())
}

fn judge(entry: &Entry, result: &ExecResult, text: &str) -> (Verdict, String) {
    let refused = |word: &str| {
        let held = entry.held.iter().any(|known| known == word);
        (if held { Verdict::Held } else { Verdict::Unclear }, word.to_owned())
    };
    match text.lines().last().map(serde_json::from_str) {
        Some(Ok(Outcome::Gained { evidence })) => (Verdict::Broken, evidence),
        Some(Ok(Outcome::Refused { error })) => refused(&error),
        Some(Ok(Outcome::Inapplicable { reason })) => (Verdict::Inapplicable, reason),
        Some(Err(_)) | None => match result.reason {
            ExitReason::Signaled | ExitReason::OutOfMemory | ExitReason::WorkspaceStopped => {
                refused("killed")
            }
            ExitReason::TimedOut => refused("timeout"),
            ExitReason::Exited | ExitReason::NotStarted => {
                (Verdict::Unclear, format!("ended with {}", result.shell_code()))
            }
        },
    }
}

/// Runs a command and gathers its standard output.
async fn capture(
    context: &Context,
    workspace: &WorkspaceInfo,
    argv: &[&str],
) -> Result<(ExecResult, String)> {
    let mut spec = ExecSpec::argv(argv.iter().copied());
    spec.timeout_ms = Some(ATTEMPT_MS);
    spec.cwd = Some("/".into());
    let route = format!("/api/v1/workspaces/{}/exec", workspace.id);
    let (mut sender, mut receiver) = context.client.websocket(&route).await?;
    let first = serde_json::to_string(&spec).map_err(Error::internal)?;
    sender.text(first).await.map_err(|error| lost(&error))?;
    let mut kept = Vec::new();
    loop {
        match receiver.next().await.map_err(|error| lost(&error))? {
            Message::Binary(data) if data.first() == Some(&1) => {
                let room = KEPT_BYTES - kept.len();
                kept.extend_from_slice(&data[1..data.len().min(room + 1)]);
            }
            Message::Text(text) => match serde_json::from_str(&text).map_err(Error::internal)? {
                ExecOutput::Exited { result } => {
                    return Ok((result, String::from_utf8_lossy(&kept).into_owned()));
                }
                ExecOutput::Failed { error } => return Err(error),
                ExecOutput::Started { .. } => {}
            },
            Message::Ping(payload) => sender.pong(payload).await.map_err(|error| lost(&error))?,
            Message::Binary(_) | Message::Pong => {}
            Message::Close(..) => return Err(lost(&"it was closed")),
        }
    }
}

fn table(context: &Context, lines: &[Line]) -> String {
    let headings = &["CATEGORY", "ATTEMPT", "WALL", "VERDICT", "DETAIL"];
    let mut table = Table::new(context.output.color(), headings);
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    for line in lines {
        let verdict = match line.verdict {
            Verdict::Held => Cell::painted("held", Paint::Good),
            Verdict::Broken => Cell::painted("BROKEN", Paint::Bad),
            Verdict::Unclear => Cell::painted("unclear", Paint::Warn),
            Verdict::Inapplicable => Cell::painted("nothing there", Paint::Dim),
            Verdict::Absent => Cell::painted("no limit", Paint::Warn),
        };
        let detail: String = line.detail.chars().take(60).collect();
        table.row([
            line.category.as_str().into(),
            line.id.as_str().into(),
            line.wall.as_str().into(),
            verdict,
            detail.into(),
        ]);
    }
    let absent = count(Verdict::Absent);
    let unlimited = match absent {
        0 => String::new(),
        _ => format!(", {absent} against limits that this machine cannot enforce in this mode"),
    };
    format!(
        "{}\n{} attempts: {} held, {} broken, {} unclear, {} with nothing to attack{unlimited}\n",
        table.render(),
        lines.len(),
        count(Verdict::Held),
        count(Verdict::Broken),
        count(Verdict::Unclear),
        count(Verdict::Inapplicable),
    )
}
