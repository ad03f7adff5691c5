//! The operation table: every operation once.
//!
//! A line reads: type, name, object, scope, rate class, method and path, body and reply, what a
//! second call does, verb in events. The doc comment is the sentence in the documentation.

use pinfold_types::limits::MAX_BODY_BYTES;

use crate::operation::{Body, operations};

/// JSON bodies that only hold a few names and numbers.
const SMALL: Body = Body::Json(64 << 10);
/// JSON bodies with a command and an environment in them.
const LARGE: Body = Body::Json(MAX_BODY_BYTES);

operations! {
    /// Says which server this is, and how many workspaces it has.
    ServerRead "server.read" on Server, scope "server:read", rate Default,
        Get "/server", Body::None => Json, Safe, audit "read";
    /// Lists every operation with its route, scope and limits.
    OperationList "server.operations" on Server, scope "server:read", rate Default,
        Get "/operations", Body::None => Json, Safe, audit "list";
    /// Gives the `OpenAPI` document of this API.
    OpenapiRead "server.openapi" on Server, scope "server:read", rate Default,
        Get "/openapi.json", Body::None => Json, Safe, audit "read";
    /// Tries what this machine can do, and says what is missing and how to mend it.
    DoctorRun "server.doctor" on Server, scope "server:read", rate Default,
        Get "/doctor", Body::None => Json, Safe, audit "examine";
    /// Says what recovery did when the server started.
    RecoveryList "server.recovery" on Server, scope "server:read", rate Default,
        Get "/recovery", Body::None => Json, Safe, audit "list";

    /// Says whom the caller is taken for, what that one may, and what it holds of its quota.
    WhoAmI "session.whoami" on Server, scope "session:whoami", rate Default,
        Get "/whoami", Body::None => Json, Safe, audit "read";
    /// Reads records of the audit log: the last ones, or from a number on.
    AuditList "audit.list" on Server, scope "audit:read", rate Default,
        Get "/audit", Body::None => Json, Safe, audit "list";
    /// Checks the whole audit log, and names the first record that was changed, removed, moved or
    /// cut off.
    AuditVerify "audit.verify" on Server, scope "audit:read", rate Create,
        Get "/audit/verify", Body::None => Json, Safe, audit "verify";
    /// Reads a range of the audit log as it stands in the files, a JSON record a line.
    AuditExport "audit.export" on Server, scope "audit:read", rate Create,
        Get "/audit/export", Body::None => Bytes, Safe, audit "export";
    /// Follows what happens to everything that the caller sees, from now on or from a position:
    /// each event is numbered, and `Last-Event-ID` resumes.
    EventFollow "event.follow" on Server, scope "event:read", rate Stream,
        Get "/events", Body::None => Events, Safe, audit "follow";
    /// Makes a ticket: within 30 s it opens one WebSocket, as `?ticket=`, for the caller and for
    /// the page that asked.
    TicketCreate "session.ticket" on Server, scope "session:whoami", rate Stream,
        Post "/tickets", Body::None => Json, Acts, audit "ticket";
    /// Makes a token, for its maker or for a new principal below it, no wider than the maker's.
    TokenCreate "token.create" on Server, scope "token:create", rate Create,
        Post "/tokens", SMALL => Json, Acts, audit "mint";
    /// Lists tokens: those of the caller, and of principals below it.
    TokenList "token.list" on Server, scope "token:read", rate Default,
        Get "/tokens", Body::None => Json, Safe, audit "list";
    /// Shows a token, without its secret.
    TokenRead "token.read" on Token, scope "token:read", rate Default,
        Get "/tokens/{ref}", Body::None => Json, Safe, audit "read";
    /// Revokes a token and every token made with it, and ends their streams.
    TokenRevoke "token.revoke" on Token, scope "token:revoke", rate Default,
        Delete "/tokens/{ref}", Body::None => Json, Idempotent, audit "revoke";
    /// Makes a link that signs one browser in as the caller, once, within a few minutes.
    LoginCreate "login.create" on Server, scope "login:create", rate Login,
        Post "/logins", Body::None => Json, Acts, audit "link";
    /// Ends every browser session of the caller's principal, and their streams.
    LoginEnd "login.end" on Server, scope "login:end", rate Default,
        Delete "/logins", Body::None => Json, Idempotent, audit "logout";
    /// Begins a session of the caller. The server makes its id.
    SessionCreate "session.create" on Server, scope "session:create", rate Create,
        Post "/sessions", SMALL => Json, Acts, audit "begin";
    /// Lists sessions: those of the caller, and of principals below it.
    SessionList "session.list" on Server, scope "session:read", rate Default,
        Get "/sessions", Body::None => Json, Safe, audit "list";
    /// Ends a session. What it owned is an orphan from then on.
    SessionEnd "session.end" on Session, scope "session:end", rate Default,
        Delete "/sessions/{ref}", Body::None => Json, Idempotent, audit "end";
    /// Makes the caller's session the owner of a workspace, or of every orphan that it sees. A
    /// live session never loses one.
    SessionAdopt "session.adopt" on Server, scope "session:adopt", rate Default,
        Post "/sessions/adopt", SMALL => Json, Acts, audit "adopt";
    /// Makes the caller's session the owner of everything that another session of the same
    /// principal owns, or one of another principal that is stale.
    SessionTakeover "session.takeover" on Session, scope "session:takeover", rate Default,
        Post "/sessions/{ref}/takeover", Body::None => Json, Acts, audit "takeover";
    /// Streams a backup of the whole home, encrypted with the home's backup key.
    BackupCreate "backup.create" on Server, scope "backup:create", rate Create,
        Post "/backup", SMALL => Bytes, Acts, audit "backup";

    /// Speaks MCP: one JSON-RPC message in each text frame.
    McpConnect "mcp.connect" on Server, scope "mcp:connect", rate Stream,
        Get "/mcp", Body::None => WebSocket, Acts, audit "connect";

    /// Makes a workspace and starts it.
    WorkspaceCreate "workspace.create" on Server, scope "workspace:create", rate Create,
        Post "/workspaces", LARGE => Json, Acts, audit "create";
    /// Lists workspaces.
    WorkspaceList "workspace.list" on Server, scope "workspace:read", rate Default,
        Get "/workspaces", Body::None => Json, Safe, audit "list";
    /// Makes a workspace for one command, streams the command, and removes the workspace.
    WorkspaceRun "workspace.run" on Server, scope "workspace:run", rate Create,
        Get "/run", Body::None => WebSocket, Acts, audit "run";
    /// Shows a workspace: state, limits, walls, lineage.
    WorkspaceRead "workspace.read" on Workspace, scope "workspace:read", rate Default,
        Get "/workspaces/{ref}", Body::None => Json, Safe, audit "read";
    /// Renames a workspace, changes its limits, lifetime or labels.
    WorkspaceUpdate "workspace.update" on Workspace, scope "workspace:update", rate Default,
        Patch "/workspaces/{ref}", SMALL => Json, Idempotent, audit "update";
    /// Ends all its processes and removes a workspace with its disk; its snapshots stay.
    WorkspaceDestroy "workspace.destroy" on Workspace, scope "workspace:destroy", rate Default,
        Delete "/workspaces/{ref}", Body::None => Json, Idempotent, audit "destroy";
    /// Boots a stopped workspace.
    WorkspaceStart "workspace.start" on Workspace, scope "workspace:control", rate Create,
        Post "/workspaces/{ref}/start", Body::None => Json, Idempotent, audit "start";
    /// Ends all processes of a workspace; its disk stays.
    WorkspaceStop "workspace.stop" on Workspace, scope "workspace:control", rate Default,
        Post "/workspaces/{ref}/stop", Body::None => Json, Idempotent, audit "stop";
    /// Freezes all processes of a workspace.
    WorkspacePause "workspace.pause" on Workspace, scope "workspace:control", rate Default,
        Post "/workspaces/{ref}/pause", Body::None => Json, Idempotent, audit "pause";
    /// Thaws all processes of a workspace.
    WorkspaceResume "workspace.resume" on Workspace, scope "workspace:control", rate Default,
        Post "/workspaces/{ref}/resume", Body::None => Json, Idempotent, audit "resume";
    /// Makes a token with which programs inside a workspace may look at, snapshot and fork that
    /// workspace, and nothing else. It ends with the workspace's present boot.
    WorkspaceToken "workspace.token" on Workspace, scope "token:create", rate Create,
        Post "/workspaces/{ref}/token", Body::None => Json, Acts, audit "mint";
    /// Puts a workspace's disk back to one of its snapshots.
    WorkspaceRestore "workspace.restore" on Workspace, scope "snapshot:restore", rate Create,
        Post "/workspaces/{ref}/restore", SMALL => Json, Idempotent, audit "restore";
    /// Makes workspaces whose disks begin as this one's is now.
    WorkspaceFork "workspace.fork" on Workspace, scope "workspace:fork", rate Create,
        Post "/workspaces/{ref}/fork", LARGE => Json, Acts, audit "fork";
    /// Shows what a workspace uses now.
    WorkspaceStats "workspace.stats" on Workspace, scope "workspace:read", rate Default,
        Get "/workspaces/{ref}/stats", Body::None => Json, Safe, audit "read";
    /// Shows what happened to a workspace, and the last output of its start-up command.
    WorkspaceLogs "workspace.logs" on Workspace, scope "workspace:read", rate Default,
        Get "/workspaces/{ref}/logs", Body::None => Json, Safe, audit "read";

    /// Runs a command in a workspace and streams it both ways.
    ExecRun "exec.run" on Workspace, scope "exec:run", rate Exec,
        Get "/workspaces/{ref}/exec", Body::None => WebSocket, Acts, audit "exec";
    /// Starts a command in the background.
    ExecStart "exec.start" on Workspace, scope "exec:run", rate Exec,
        Post "/workspaces/{ref}/execs", LARGE => Json, Acts, audit "exec";
    /// Lists commands that run, or ended a short while ago.
    ExecList "exec.list" on Workspace, scope "exec:read", rate Default,
        Get "/workspaces/{ref}/execs", Body::None => Json, Safe, audit "list";
    /// Joins a command's streams, from an offset of its output.
    ExecAttach "exec.attach" on Workspace, scope "exec:run", rate Stream,
        Get "/workspaces/{ref}/execs/{exec}/attach", Body::None => WebSocket, Acts, audit "attach";
    /// Follows a command's output and its end as server-sent events, from an offset of its output.
    ExecFollow "exec.follow" on Workspace, scope "exec:run", rate Stream,
        Get "/workspaces/{ref}/execs/{exec}/output", Body::None => Events, Safe, audit "follow";
    /// Sends a signal to a command's process group.
    ExecSignal "exec.signal" on Workspace, scope "exec:run", rate Default,
        Post "/workspaces/{ref}/execs/{exec}/signal", SMALL => Json, Acts, audit "signal";

    /// Shows a file's kind, size, mode, owner and time.
    FileStat "file.stat" on Workspace, scope "files:read", rate Default,
        Get "/workspaces/{ref}/files/stat", Body::None => Json, Safe, audit "read";
    /// Lists a directory, a page at a time.
    FileList "file.list" on Workspace, scope "files:read", rate Default,
        Get "/workspaces/{ref}/files/list", Body::None => Json, Safe, audit "list";
    /// Reads a file's raw bytes, whole or a range.
    FileRead "file.read" on Workspace, scope "files:raw", rate Default,
        Get "/workspaces/{ref}/files/content", Body::None => Bytes, Safe, audit "read";
    /// Replaces a file whole, or writes into it at an offset.
    FileWrite "file.write" on Workspace, scope "files:write", rate Default,
        Put "/workspaces/{ref}/files/content", Body::Stream => Json, Idempotent, audit "write";
    /// Makes a directory.
    FileMkdir "file.mkdir" on Workspace, scope "files:write", rate Default,
        Post "/workspaces/{ref}/files/mkdir", SMALL => Json, Acts, audit "mkdir";
    /// Moves a file or directory.
    FileRename "file.rename" on Workspace, scope "files:write", rate Default,
        Post "/workspaces/{ref}/files/rename", SMALL => Json, Acts, audit "rename";
    /// Removes a file, or a directory with all in it.
    FileRemove "file.remove" on Workspace, scope "files:write", rate Default,
        Post "/workspaces/{ref}/files/remove", SMALL => Json, Acts, audit "remove";
    /// Changes a file's permission bits.
    FileChmod "file.chmod" on Workspace, scope "files:write", rate Default,
        Post "/workspaces/{ref}/files/chmod", SMALL => Json, Idempotent, audit "chmod";
    /// Reports changes below a path as they happen.
    FileWatch "file.watch" on Workspace, scope "files:read", rate Stream,
        Get "/workspaces/{ref}/files/watch", Body::None => WebSocket, Safe, audit "watch";
    /// Reads a file or directory as a tar archive.
    ArchiveRead "archive.read" on Workspace, scope "files:raw", rate Default,
        Get "/workspaces/{ref}/archive", Body::None => Bytes, Safe, audit "read";
    /// Unpacks a tar archive into a directory.
    ArchiveWrite "archive.write" on Workspace, scope "files:write", rate Default,
        Put "/workspaces/{ref}/archive", Body::Stream => Json, Idempotent, audit "write";

    /// Lists TCP ports that something listens on inside.
    PortList "port.list" on Workspace, scope "ports:read", rate Default,
        Get "/workspaces/{ref}/ports", Body::None => Json, Safe, audit "list";
    /// Carries one TCP connection to a port inside.
    PortConnect "port.connect" on Workspace, scope "ports:connect", rate Stream,
        Get "/workspaces/{ref}/ports/{port}", Body::None => WebSocket, Acts, audit "connect";

    /// Takes a snapshot of a workspace's disk.
    SnapshotCreate "snapshot.create" on Workspace, scope "snapshot:create", rate Create,
        Post "/workspaces/{ref}/snapshots", SMALL => Json, Acts, audit "snapshot";
    /// Lists the snapshots of one workspace.
    WorkspaceSnapshots "workspace.snapshots" on Workspace, scope "snapshot:read", rate Default,
        Get "/workspaces/{ref}/snapshots", Body::None => Json, Safe, audit "list";
    /// Lists all snapshots.
    SnapshotList "snapshot.list" on Server, scope "snapshot:read", rate Default,
        Get "/snapshots", Body::None => Json, Safe, audit "list";
    /// Shows a snapshot.
    SnapshotRead "snapshot.read" on Snapshot, scope "snapshot:read", rate Default,
        Get "/snapshots/{ref}", Body::None => Json, Safe, audit "read";
    /// Removes a snapshot.
    SnapshotRemove "snapshot.remove" on Snapshot, scope "snapshot:remove", rate Default,
        Delete "/snapshots/{ref}", Body::None => Json, Idempotent, audit "remove";
    /// Makes workspaces whose disks begin as this snapshot.
    SnapshotFork "snapshot.fork" on Snapshot, scope "workspace:fork", rate Create,
        Post "/snapshots/{ref}/fork", LARGE => Json, Acts, audit "fork";

    /// Lists images.
    ImageList "image.list" on Server, scope "image:read", rate Default,
        Get "/images", Body::None => Json, Safe, audit "list";
    /// Shows an image.
    ImageRead "image.read" on Image, scope "image:read", rate Default,
        Get "/images/{ref}", Body::None => Json, Safe, audit "read";
    /// Removes an image, or one of its names, when nothing stands on it.
    ImageRemove "image.remove" on Image, scope "image:remove", rate Default,
        Delete "/images/{ref}", Body::None => Json, Idempotent, audit "remove";
    /// Fetches an image from a registry.
    ImagePull "image.pull" on Server, scope "image:create", rate Create,
        Post "/images/pull", SMALL => Lines, Idempotent, audit "pull";
    /// Makes an image of an archive, a directory or a Debian release. The request's fields are in
    /// the query; the body is the archive, where it is sent along.
    ImageImport "image.import" on Server, scope "image:create", rate Create,
        Post "/images/import", Body::Stream => Lines, Acts, audit "import";
    /// Makes an image from a file of steps. The request's fields are in the query; the body is a
    /// tar archive of the files that steps copy, where it is sent along.
    ImageBuild "image.build" on Server, scope "image:create", rate Create,
        Post "/images/build", Body::Stream => Lines, Acts, audit "build";
    /// Removes layers and images that nothing names or stands on.
    ImagePrune "image.prune" on Server, scope "image:remove", rate Default,
        Post "/images/prune", Body::None => Json, Idempotent, audit "prune";
    /// Reads an image as an OCI archive.
    ImageExport "image.export" on Image, scope "image:read", rate Default,
        Get "/images/{ref}/export", Body::None => Bytes, Safe, audit "read";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        ObjectKind, OperationInfo,
        operation::{Method, Repeat, Reply},
    };

    fn unique<T: Ord>(what: &str, of: impl Fn(&OperationInfo) -> T) {
        let all: BTreeSet<T> = OPERATIONS.iter().map(of).collect();
        assert_eq!(all.len(), OPERATIONS.len(), "two operations share a {what}");
    }

    #[test]
    fn names_and_routes_are_unique() {
        unique("name", |op| op.name);
        unique("route", |op| (op.method.as_str(), op.path));
    }

    #[test]
    fn every_line_is_well_formed() {
        let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase());
        for op in OPERATIONS {
            let name = op.name;
            let (noun, verb) = name.split_once('.').expect(name);
            assert!(word(noun) && word(verb), "{name}");
            let (noun, right) = op.scope.split_once(':').expect(name);
            assert!(word(noun) && word(right), "{name}: {}", op.scope);
            assert!(word(op.audit), "{name}");
            assert!(op.doc.trim().ends_with('.') && op.doc.starts_with(' '), "{name}");
        }
    }

    #[test]
    fn paths_name_the_object_that_is_authorized() {
        for op in OPERATIONS {
            let collection = match op.object {
                ObjectKind::Server => {
                    assert!(!op.path.contains("{ref}"), "{}", op.name);
                    continue;
                }
                ObjectKind::Workspace => "/api/v1/workspaces/{ref}",
                ObjectKind::Snapshot => "/api/v1/snapshots/{ref}",
                ObjectKind::Image => "/api/v1/images/{ref}",
                ObjectKind::Token => "/api/v1/tokens/{ref}",
                ObjectKind::Session => "/api/v1/sessions/{ref}",
            };
            assert!(op.path.starts_with(collection), "{}", op.name);
            assert_eq!(op.path.matches("{ref}").count(), 1, "{}", op.name);
        }
    }

    #[test]
    fn methods_say_whether_something_changes() {
        for op in OPERATIONS {
            match op.method {
                Method::Get => {
                    assert!(!op.mutates() || op.reply == Reply::WebSocket, "{}", op.name);
                    assert_eq!(op.body, Body::None, "{}", op.name);
                }
                Method::Put | Method::Patch | Method::Delete => {
                    assert_eq!(op.repeat, Repeat::Idempotent, "{}", op.name);
                }
                Method::Post => assert!(op.mutates(), "{}", op.name),
            }
        }
    }

    /// The routes are part of the API: a changed line here is a changed API.
    #[test]
    fn routes_are_as_published() {
        let table: Vec<String> = OPERATIONS
            .iter()
            .map(|op| format!("{:22} {:6} {} [{}]", op.name, op.method.as_str(), op.path, op.scope))
            .collect();
        insta::assert_snapshot!(table.join("\n"));
    }
}
