//! The shape of every operation. A new line of the operation table needs a line here: the test
//! below names what is missing.

use pinfold_auth::OperationInfo;
use pinfold_proto::{Archived, FileList};
use pinfold_types::{
    ImageId, SessionId, SnapshotId, TokenId, WorkspaceId,
    access::{
        AdoptWorkspaces, Adopted, AuditEntry, AuditQuery, AuditVerdict, CreateSession, CreateToken,
        EndedLogins, NewLogin, NewTicket, NewToken, SessionInfo, TokenInfo, WhoAmI,
    },
    api::{
        CreateBackup, DoctorReport, EventInfo, EventsQuery, ExecChunk, ExecInput, ExecOutput,
        FileInfo, LogsQuery, PortInfo, RecoveryAction, Removed, RemovedImages, RestoreWorkspace,
        RunRequest, ServerInfo, SignalExec, WatchEvent, WorkspaceLogs,
    },
    exec::{ExecInfo, ExecSpec},
    files::{
        ChangeMode, FilePath, ListFiles, MakeDirectory, ReadFile, RemoveFile, RenameFile,
        WatchFiles, WriteArchive, WriteFile,
    },
    image::{BuildImage, ImageInfo, ImageProgress, ImportImage, PullImage},
    snapshot::{CreateSnapshot, SnapshotInfo},
    workspace::{
        CreateWorkspace, ForkOutcome, ForkWorkspace, UpdateWorkspace, WorkspaceInfo, WorkspaceStats,
    },
};

use super::shape::{Frames, Shape, Typed, shape, typed};
use crate::routes::From;

const BYTES: &str = "application/octet-stream";
const LINES: &str = "application/x-ndjson";
const TAR: &str = "application/x-tar";

/// Output of a command.
const OUTPUT: &str = "One byte, 1 for standard output and 2 for standard error, then the bytes.";
/// Input of a command.
const INPUT: &str = "Bytes of standard input.";
/// A tunnel's bytes.
const TUNNEL: &str = "Bytes of the connection. An empty message ends this way of it.";

fn exec() -> Frames {
    Frames::default()
        .client_text::<ExecInput>()
        .client_binary(INPUT)
        .server_text::<ExecOutput>()
        .server_binary(OUTPUT)
}

/// What the data of a command's events is.
const FOLLOWED: &[(&str, Typed)] = &[
    ("started", typed::<ExecOutput>),
    ("stdout", typed::<ExecChunk>),
    ("stderr", typed::<ExecChunk>),
    ("exited", typed::<ExecOutput>),
    ("failed", typed::<ExecOutput>),
];

/// All shapes, in the order of the operation table.
pub(super) fn shapes() -> Vec<Shape> {
    vec![
        shape("server.read").gives::<ServerInfo>(),
        shape("server.operations").gives::<Vec<OperationInfo>>(),
        shape("server.openapi").gives::<serde_json::Map<String, serde_json::Value>>().cached(),
        shape("server.doctor").gives::<DoctorReport>(),
        shape("server.recovery").gives::<Vec<RecoveryAction>>(),
        shape("session.whoami").gives::<WhoAmI>(),
        shape("token.create").takes::<CreateToken>().makes::<NewToken>().also(&[404]),
        shape("token.list").pages::<TokenId, TokenInfo>(),
        shape("token.read").gives::<TokenInfo>(),
        shape("token.revoke").gives::<TokenInfo>(),
        shape("login.create").makes::<NewLogin>(),
        shape("login.end").gives::<EndedLogins>(),
        shape("session.create").takes::<CreateSession>().makes::<SessionInfo>(),
        shape("session.list").pages::<SessionId, SessionInfo>(),
        shape("session.end"),
        shape("session.adopt").takes::<AdoptWorkspaces>().gives::<Adopted>().also(&[404]),
        shape("session.takeover").gives::<Adopted>(),
        shape("workspace.token").makes::<NewToken>(),
        shape("event.follow")
            .query::<EventsQuery>()
            .events(&[("name of an operation", typed::<EventInfo>)]),
        shape("session.ticket").makes::<NewTicket>(),
        shape("backup.create").takes::<CreateBackup>().bytes(BYTES),
        shape("mcp.connect").frames(
            Frames::default().client_text::<serde_json::Value>().server_text::<serde_json::Value>(),
        ),
        shape("audit.list").query::<AuditQuery>().gives::<Vec<AuditEntry>>(),
        shape("audit.verify").gives::<AuditVerdict>(),
        shape("audit.export").query::<AuditQuery>().bytes(LINES),
        shape("workspace.create").takes::<CreateWorkspace>().makes::<WorkspaceInfo>().also(&[404]),
        shape("workspace.list").pages::<WorkspaceId, WorkspaceInfo>(),
        shape("workspace.run").frames(exec().first::<RunRequest>()),
        shape("workspace.read").gives::<WorkspaceInfo>(),
        shape("workspace.update").takes::<UpdateWorkspace>().gives::<WorkspaceInfo>(),
        shape("workspace.destroy"),
        shape("workspace.start").gives::<WorkspaceInfo>(),
        shape("workspace.stop").gives::<WorkspaceInfo>(),
        shape("workspace.pause").gives::<WorkspaceInfo>(),
        shape("workspace.resume").gives::<WorkspaceInfo>(),
        shape("workspace.restore").takes::<RestoreWorkspace>().gives::<WorkspaceInfo>(),
        shape("workspace.fork").takes::<ForkWorkspace>().gives::<Vec<ForkOutcome>>(),
        shape("workspace.stats").gives::<WorkspaceStats>(),
        shape("workspace.logs").query::<LogsQuery>().gives::<WorkspaceLogs>(),
        shape("exec.run").frames(exec().first::<ExecSpec>()),
        shape("exec.start").takes::<ExecSpec>().makes::<ExecInfo>(),
        shape("exec.list").gives::<Vec<ExecInfo>>(),
        shape("exec.attach").query::<From>().frames(exec()),
        shape("exec.follow").query::<From>().events(FOLLOWED),
        shape("exec.signal").takes::<SignalExec>(),
        shape("file.stat").query::<FilePath>().gives::<FileInfo>(),
        shape("file.list").query::<ListFiles>().gives::<FileList>(),
        shape("file.read").query::<ReadFile>().bytes(BYTES).ranges(),
        shape("file.write").query::<WriteFile>().uploads(BYTES).gives::<FileInfo>(),
        shape("file.mkdir").takes::<MakeDirectory>(),
        shape("file.rename").takes::<RenameFile>(),
        shape("file.remove").takes::<RemoveFile>(),
        shape("file.chmod").takes::<ChangeMode>(),
        shape("file.watch")
            .query::<WatchFiles>()
            .frames(Frames::default().server_text::<WatchEvent>()),
        shape("archive.read").query::<FilePath>().bytes(TAR),
        shape("archive.write").query::<WriteArchive>().uploads(TAR).gives::<Archived>(),
        shape("port.list").gives::<Vec<PortInfo>>(),
        shape("port.connect")
            .frames(Frames::default().client_binary(TUNNEL).server_binary(TUNNEL))
            .also(&[502]),
        shape("snapshot.create").takes::<CreateSnapshot>().makes::<SnapshotInfo>(),
        shape("workspace.snapshots").pages::<SnapshotId, SnapshotInfo>(),
        shape("snapshot.list").pages::<SnapshotId, SnapshotInfo>(),
        shape("snapshot.read").gives::<SnapshotInfo>(),
        shape("snapshot.remove").gives::<Removed>(),
        shape("snapshot.fork").takes::<ForkWorkspace>().gives::<Vec<ForkOutcome>>(),
        shape("image.list").pages::<ImageId, ImageInfo>(),
        shape("image.read").gives::<ImageInfo>(),
        shape("image.remove").gives::<RemovedImages>(),
        shape("image.pull").takes::<PullImage>().lines::<ImageProgress>(),
        shape("image.import")
            .query::<super::Uploaded>()
            .takes::<ImportImage>()
            .uploads(TAR)
            .lines::<ImageProgress>(),
        shape("image.build")
            .query::<super::Uploaded>()
            .takes::<BuildImage>()
            .uploads(TAR)
            .lines::<ImageProgress>(),
        shape("image.prune").gives::<RemovedImages>(),
        shape("image.export").bytes(TAR),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pinfold_auth::{
        OPERATIONS,
        operation::{Body, Reply},
    };

    use super::{super::shape::Given, *};

    #[test]
    fn every_operation_has_one_shape_and_every_shape_an_operation() {
        let shaped: Vec<&str> = shapes().iter().map(|shape| shape.operation).collect();
        let known: BTreeSet<&str> = OPERATIONS.iter().map(|op| op.name).collect();
        let missing: Vec<&&str> = known.iter().filter(|name| !shaped.contains(name)).collect();
        assert!(missing.is_empty(), "openapi/shapes.rs needs a line for each of {missing:?}");
        let extra: Vec<&&str> = shaped.iter().filter(|name| !known.contains(*name)).collect();
        assert!(extra.is_empty(), "openapi/shapes.rs has lines of no operation: {extra:?}");
        assert_eq!(shaped.len(), known.len(), "an operation has two shapes in openapi/shapes.rs");
    }

    /// The table says how an operation carries its request and reply; the shape says what.
    #[test]
    fn shapes_carry_what_the_table_says() {
        for shape in shapes() {
            let name = shape.operation;
            let Some(op) = OPERATIONS.iter().find(|op| op.name == name) else { continue };
            match op.body {
                Body::None => assert!(shape.body.is_none() && shape.upload.is_none(), "{name}"),
                Body::Json(_) => assert!(shape.body.is_some() && shape.upload.is_none(), "{name}"),
                Body::Stream => assert!(shape.upload.is_some(), "{name}"),
            }
            let same = match op.reply {
                Reply::Json => matches!(shape.reply, Given::Json(..) | Given::Nothing),
                Reply::Bytes => matches!(shape.reply, Given::Bytes(_)),
                Reply::Lines => matches!(shape.reply, Given::Lines(_)),
                Reply::Events => matches!(shape.reply, Given::Events(_)),
                Reply::WebSocket => matches!(shape.reply, Given::Frames(_)),
            };
            assert!(same, "{name} replies with {:?}", shape.reply);
        }
    }
}
