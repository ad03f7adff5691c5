//! Every tool, and every operation that deliberately is none.

use pinfold_control::Node;

use crate::{
    tool::{Effect, Entry, entry},
    tools::{
        exec, exec_background, file, file_change, file_search, fork, server, snapshot, workspace,
    },
};

/// Every tool, in the order of the documentation.
pub(crate) fn tools<N: Node>() -> Vec<Entry<N>> {
    vec![
        entry::<N, workspace::Create>(),
        entry::<N, workspace::List>(),
        entry::<N, workspace::Show>(),
        entry::<N, workspace::Update>(),
        entry::<N, workspace::Control>(),
        entry::<N, workspace::Destroy>(),
        entry::<N, fork::Fork>(),
        entry::<N, workspace::Logs>(),
        entry::<N, exec::Exec>(),
        entry::<N, exec_background::Start>(),
        entry::<N, exec_background::Output>(),
        entry::<N, exec_background::List>(),
        entry::<N, exec_background::Kill>(),
        entry::<N, file::Read>(),
        entry::<N, file_change::Write>(),
        entry::<N, file_change::Edit>(),
        entry::<N, file::List>(),
        entry::<N, file_change::Manage>(),
        entry::<N, file_search::Search>(),
        entry::<N, snapshot::Create>(),
        entry::<N, snapshot::List>(),
        entry::<N, snapshot::Restore>(),
        entry::<N, snapshot::Remove>(),
        entry::<N, server::Show>(),
        entry::<N, server::Pull>(),
    ]
}

/// Operations that no tool offers, each with the reason.
pub const NOT_TOOLS: &[(&str, &str)] = &[
    ("mcp.connect", "it is how a client comes to the tools"),
    ("server.operations", "a model learns what it can do from tools/list"),
    ("server.recovery", "for whoever runs the server"),
    ("workspace.run", "a model keeps its workspace: workspace_create, exec, workspace_destroy"),
    ("file.watch", "a stream of changes has no place in a conversation"),
    ("archive.read", "archives are for programs; a model reads files"),
    ("archive.write", "archives are for programs; a model writes files"),
    ("port.connect", "a raw TCP stream; a model runs a client inside with exec"),
    ("snapshot.read", "snapshot_list says as much"),
    ("image.read", "server_info lists images"),
    ("image.remove", "images are shared: removing them is for whoever runs the server"),
    ("image.import", "takes an upload or a file of the host"),
    ("image.build", "takes an upload"),
    ("image.prune", "images are shared: removing them is for whoever runs the server"),
    ("image.export", "an archive for programs"),
];

/// A tool for the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolSummary {
    /// Name.
    pub name: &'static str,
    /// What it does: the first sentence of what models read.
    pub about: &'static str,
    /// `reads`, `adds` or `changes`.
    pub effect: &'static str,
    /// Operations it may use.
    pub operations: &'static [&'static str],
}

/// Every tool, for the documentation and for tests.
pub fn summaries<N: Node>() -> Vec<ToolSummary> {
    tools::<N>()
        .iter()
        .map(|entry| ToolSummary {
            name: entry.info.name,
            about: entry.info.about.split_inclusive(". ").next().unwrap_or_default().trim_end(),
            effect: match entry.info.effect {
                Effect::Reads => "reads",
                Effect::Adds => "adds",
                Effect::Changes => "changes",
            },
            operations: entry.info.operations,
        })
        .collect()
}
