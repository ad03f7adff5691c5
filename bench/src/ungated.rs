//! The same node behind bare handlers: nobody is asked who they are, what they may, how often and
//! how much, and nothing is written down. What the gates cost is the difference to this.
//!
//! `pinfold-bench ungated HOME LAUNCHER GUEST` prints its address and serves until its standard
//! input ends.

use std::{io::Read, net::Ipv4Addr, path::PathBuf};

use anyhow::anyhow;
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::ListenerExt,
};
use pinfold_node::{LocalNode, NodeOptions};
use pinfold_store::Store;
use pinfold_types::{
    Error,
    config::Config,
    exec::{ExecInfo, ExecSpec},
    files::ReadFile,
    workspace::CreateWorkspace,
};
use serde_json::json;

/// The name of the only workspace, here and at the server with gates.
pub(crate) const WORKSPACE: &str = "held";

struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http_status());
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), self.0.message).into_response()
    }
}

/// Serves until standard input ends.
pub(crate) fn run(words: &[String]) -> anyhow::Result<()> {
    let [home, launcher, guest] = words else {
        return Err(anyhow!("ungated HOME LAUNCHER GUEST"));
    };
    // As many as `pinfold up` takes.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 4))
        .enable_all()
        .build()?;
    runtime.block_on(serve(home.into(), launcher.into(), guest.into()))
}

async fn serve(home: PathBuf, launcher: PathBuf, guest: PathBuf) -> anyhow::Result<()> {
    let store = Store::open(home.join("state.db")).await.map_err(shown)?;
    let options = NodeOptions::new(home, Config::default(), store.clone(), launcher, guest);
    let (node, _) = LocalNode::open(options).await.map_err(shown)?;
    let request: CreateWorkspace = serde_json::from_value(json!({ "name": WORKSPACE }))?;
    node.create(request).await.map_err(shown)?;
    let router = Router::new()
        .route("/api/v1/server", get(look))
        .route("/api/v1/workspaces/{ref}/files/content", get(read))
        .route("/api/v1/workspaces/{ref}/execs", post(exec))
        .with_state(node.clone());
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    // As the server does: an answer in two parts does not wait for an acknowledgement.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    serving.abort();
    node.destroy(WORKSPACE).await.map_err(shown)?;
    node.shutdown().await.map_err(shown)?;
    store.close().await;
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn shown(error: Error) -> anyhow::Error {
    anyhow!("{error}: {}", error.internal.as_deref().unwrap_or_default())
}

/// What `GET /api/v1/server` answers.
async fn look(State(node): State<LocalNode>) -> Json<serde_json::Value> {
    let running = node.list().iter().filter(|info| info.state.is_live()).count();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "home": "",
        "uptime_ms": 0,
        "workspaces": { "running": running },
    }))
}

async fn read(
    State(node): State<LocalNode>,
    Path(name): Path<String>,
    Query(request): Query<ReadFile>,
) -> Result<Response, Failure> {
    request.check()?;
    let offset = request.offset.unwrap_or(0);
    let content = node.read_file(&name, &request.path, offset, request.length).await?;
    Ok(Body::from_stream(content).into_response())
}

async fn exec(
    State(node): State<LocalNode>,
    Path(name): Path<String>,
    Json(spec): Json<ExecSpec>,
) -> Result<Response, Failure> {
    spec.check()?;
    let (command, tty) = (spec.command.clone(), spec.tty.is_some());
    let session = node.exec(&name, ExecSpec { background: true, ..spec }).await?;
    let info = ExecInfo {
        id: session.exec_id,
        command,
        pid: Some(session.pid),
        tty,
        background: true,
        started_at: jiff::Timestamp::now(),
        result: None,
    };
    Ok((StatusCode::CREATED, Json(info)).into_response())
}
