//! Every tool, and every operation that deliberately is none.

use pinfold_control::Node;

use crate::{
    tool::{Effect, Entry, entry},
    tools::{
        exec, exec_background, file, file_change, file_search, fork, server, session, snapshot,
        workspace,
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
        entry::<N, session::Show>(),
        entry::<N, session::Adopt>(),
    ]
}

/// Operations that no tool offers, each with the reason.
pub const NOT_TOOLS: &[(&str, &str)] = &[
    ("mcp.connect", "it is how a client comes to the tools"),
    ("server.openapi", "a model learns what it can do from tools/list"),
    ("session.ticket", "a credential has no place in a conversation"),
    ("server.operations", "a model learns what it can do from tools/list"),
    ("server.recovery", "for whoever runs the server"),
    ("backup.create", "for whoever runs the server"),
    ("event.follow", "a stream of events has no place in a conversation"),
    ("exec.follow", "exec_output gives a command's output"),
    ("audit.list", "for whoever runs the server"),
    ("audit.verify", "for whoever runs the server"),
    ("audit.export", "for whoever runs the server"),
    ("login.create", "a credential has no place in a conversation"),
    ("login.end", "browsers are for people"),
    ("token.create", "a credential has no place in a conversation"),
    ("token.list", "tokens are for people and programs"),
    ("token.read", "tokens are for people and programs"),
    ("token.revoke", "tokens are for people and programs"),
    ("workspace.token", "a credential has no place in a conversation"),
    ("session.create", "a client's session is made for it"),
    ("session.end", "a client's session ends with it"),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pinfold_auth::{OPERATIONS, operation::Repeat};
    use pinfold_node::LocalNode;

    use super::*;
    use crate::RESOURCE_OPERATIONS;

    #[test]
    fn every_operation_is_a_tools_or_deliberately_none() {
        let tools = tools::<LocalNode>();
        let mut used: BTreeSet<&str> = RESOURCE_OPERATIONS.iter().copied().collect();
        used.extend(tools.iter().flat_map(|entry| entry.info.operations));
        let left_out: BTreeSet<&str> = NOT_TOOLS.iter().map(|(name, _)| *name).collect();
        assert_eq!(left_out.len(), NOT_TOOLS.len(), "an operation is left out twice");
        let both: Vec<_> = used.intersection(&left_out).collect();
        assert!(both.is_empty(), "used and left out: {both:?}");
        let known: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
        let named: BTreeSet<&str> = used.union(&left_out).copied().collect();
        assert_eq!(named, known);
        assert!(NOT_TOOLS.iter().all(|(_, why)| why.len() > 10));
    }

    #[test]
    fn annotations_say_what_the_operations_do() {
        for entry in tools::<LocalNode>() {
            let name = entry.info.name;
            let changes = entry.info.operations.iter().any(|name| {
                let operation = OPERATIONS.iter().find(|operation| operation.name == *name);
                let repeat = operation.expect("it is known").repeat;
                // Joining and starting streams act, and change nothing of what a model sees.
                repeat != Repeat::Safe && !matches!(*name, "exec.attach")
            });
            // A search runs a program that only reads.
            let reads = entry.info.effect == Effect::Reads;
            assert_eq!(reads, !changes || name == "file_search", "{name}");
            assert!(!reads || entry.info.idempotent, "{name}");
        }
    }

    #[test]
    fn tools_are_well_named_and_described() {
        let tools = tools::<LocalNode>();
        let names: BTreeSet<&str> = tools.iter().map(|entry| entry.info.name).collect();
        assert_eq!(names.len(), tools.len());
        for entry in &tools {
            let info = entry.info;
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(info.name.bytes().all(plain), "{}", info.name);
            assert!(info.about.ends_with('.') && info.about.len() < 400, "{}", info.name);
            let schema = &entry.described.input_schema;
            assert_eq!(schema["type"], "object", "{}", info.name);
            assert_eq!(schema["additionalProperties"], false, "{}", info.name);
            for (field, about) in schema["properties"].as_object().expect("an object") {
                let said = about["description"].as_str().unwrap_or_default();
                let action = about.get("enum").is_some() || about.get("oneOf").is_some();
                assert!(!said.is_empty() || action, "{}: {field} is not described", info.name);
            }
            let output = entry.described.output_schema.as_ref().expect("typed results");
            assert_eq!(output["type"], "object", "{}", info.name);
        }
        // What a client sends to its model with every turn.
        let all: Vec<_> = tools.iter().map(|entry| &entry.described).collect();
        let size = serde_json::to_string(&all).expect("plain data").len();
        assert!(size < 64 << 10, "{size} bytes of descriptions");
    }
}
