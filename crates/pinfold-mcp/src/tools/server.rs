//! The server and its images.

use std::{collections::BTreeMap, fmt::Write};

use pinfold_auth::ops;
use pinfold_control::Node;
use pinfold_types::{
    Error, ErrorCode, Result,
    api::{PageQuery, Verdict},
    image::{ImageInfo, ImageProgress, PullImage},
};
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    call::Call,
    progress::Progress,
    tool::{Effect, Info, Reply, Tool},
};

pub(crate) struct Show;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShowInput {
    /// Also try what this machine can do, and say what is missing.
    #[serde(default)]
    check: bool,
}

/// The server.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Shown {
    version: String,
    /// How many workspaces there are, by state.
    workspaces: BTreeMap<String, u64>,
    /// Images that workspace_create takes.
    images: Vec<ImageView>,
    /// What is missing on this machine, when `check` was true.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<Vec<Problem>>,
}

/// An image.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ImageView {
    id: String,
    /// Names that workspace_create takes.
    names: Vec<String>,
    size_bytes: u64,
}

impl From<&ImageInfo> for ImageView {
    fn from(info: &ImageInfo) -> Self {
        Self {
            id: info.id.to_string(),
            names: info.names.iter().map(ToString::to_string).collect(),
            size_bytes: info.size_bytes,
        }
    }
}

/// Something that is missing.
#[derive(Debug, Serialize, JsonSchema)]
struct Problem {
    /// What was tried.
    check: String,
    /// What was seen.
    detail: String,
    /// What whoever runs the machine can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

impl<N: Node> Tool<N> for Show {
    const INFO: Info = Info {
        name: "server_info",
        title: "Show the server",
        about: "Shows the server's version, its images for workspace_create, and how many \
                workspaces there are. With check, what this machine lacks.",
        operations: &["server.read", "image.list", "server.doctor"],
        effect: Effect::Reads,
        idempotent: true,
        open_world: false,
    };
    type Input = ShowInput;
    type Output = Shown;

    fn needs(arguments: &JsonObject) -> Vec<&'static str> {
        let mut needs = vec!["server.read", "image.list"];
        if arguments.get("check") == Some(&Value::Bool(true)) {
            needs.push("server.doctor");
        }
        needs
    }

    async fn run(call: Call<N>, input: ShowInput) -> Result<Reply<Shown>> {
        let grant = call.on_server::<ops::ServerRead>().await?;
        let info = call.service.server(grant).await?;
        let grant = call.on_server::<ops::ImageList>().await?;
        let images = call.service.list_images(grant, &PageQuery::default()).await?;
        let problems = if input.check {
            let grant = call.on_server::<ops::DoctorRun>().await?;
            let report = call.service.doctor(grant).await?;
            let found = report.findings.into_iter().filter(|one| one.verdict != Verdict::Ok);
            Some(
                found
                    .map(|one| Problem { check: one.check, detail: one.detail, mend: one.mend })
                    .collect(),
            )
        } else {
            None
        };
        let shown = Shown {
            version: info.version,
            workspaces: info.workspaces,
            images: images.items.iter().map(ImageView::from).collect(),
            problems,
        };
        Ok(Reply::new(text(&shown), shown))
    }
}

fn text(shown: &Shown) -> String {
    let mut text = format!("Pinfold {}", shown.version);
    for (state, count) in &shown.workspaces {
        let _infallible = write!(text, "\nworkspaces {state}: {count}");
    }
    for image in &shown.images {
        let names = if image.names.is_empty() { image.id.clone() } else { image.names.join(", ") };
        let _infallible = write!(text, "\nimage {names}: {} bytes", image.size_bytes);
    }
    match shown.problems.as_deref() {
        Some([]) => text.push_str("\nnothing is missing"),
        problems => {
            for one in problems.unwrap_or_default() {
                let _infallible = write!(text, "\nproblem: {}: {}", one.check, one.detail);
            }
        }
    }
    text
}

pub(crate) struct Pull;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PullInput {
    /// What to fetch, such as debian:12 or ghcr.io/owner/name:tag.
    reference: String,
    /// Name to give it here. Default: made from the reference.
    name: Option<String>,
}

/// The image that was fetched.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Pulled {
    image: ImageView,
}

impl<N: Node> Tool<N> for Pull {
    const INFO: Info = Info {
        name: "image_pull",
        title: "Fetch an image",
        about: "Fetches a container image from a registry. Next: workspace_create with its name \
                as image.",
        operations: &["image.pull"],
        effect: Effect::Adds,
        idempotent: true,
        open_world: true,
    };
    type Input = PullInput;
    type Output = Pulled;

    async fn run(mut call: Call<N>, input: PullInput) -> Result<Reply<Pulled>> {
        let request = PullImage {
            image: input.reference.parse()?,
            name: input.name.map(|name| name.parse()).transpose()?,
        };
        let grant = call.on_server::<ops::ImagePull>().await?;
        let (progress, mut steps) = mpsc::channel(16);
        let service = call.service.clone();
        let mut work = Box::pin(service.pull_image(grant, request, progress));
        let mut ticks = Progress::ticks();
        let mut latest = None;
        let info = loop {
            tokio::select! {
                biased;
                () = call.cancelled.cancelled() => {
                    return Err(Error::new(ErrorCode::Cancelled, "the fetch was cancelled")
                        .hint("what was fetched is kept for the next try"));
                }
                done = &mut work => break done?,
                Some(step) = steps.recv() => latest = said(step).or(latest),
                _ = ticks.tick(), if call.progress.wanted() => {
                    if let Some(message) = latest.take() {
                        call.progress.say(&message).await;
                    }
                }
            }
        };
        let image = ImageView::from(&info);
        let text = format!("Fetched {}: {} bytes", image.names.join(", "), image.size_bytes);
        Ok(Reply::new(text, Pulled { image }))
    }
}

fn said(step: ImageProgress) -> Option<String> {
    match step {
        ImageProgress::Step { message } => Some(message),
        ImageProgress::Bytes { part, done_bytes, total_bytes } => Some(match total_bytes {
            Some(total) => format!("{part}: {done_bytes} of {total} bytes"),
            None => format!("{part}: {done_bytes} bytes"),
        }),
        ImageProgress::Count { what, done, total } => Some(format!("{what}: {done} of {total}")),
        ImageProgress::Output { text } => Some(text),
        ImageProgress::Done { .. } | ImageProgress::Failed { .. } => None,
    }
}
