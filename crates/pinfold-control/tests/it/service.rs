//! What every operation has in common, shown on some of each kind.

use std::{collections::BTreeSet, os::unix::fs::PermissionsExt, time::Instant};

use futures_util::StreamExt;
use pinfold_auth::{
    Authenticator, Authorizer, Caller, Facts, Grant, ObjectRef, Operation, PeerCredentials,
    Surface, TokenKey, ops,
};
use pinfold_control::{Access, ServerFacts, Service};
use pinfold_store::{
    EventRow, Store,
    audit::{AuditKey, AuditLog, AuditOptions},
};
use pinfold_types::{
    ErrorCode, ExecId,
    api::{PageQuery, RestoreWorkspace, RunRequest, SignalExec},
    config::Config,
    exec::ExecSpec,
    files::{ChangeMode, FilePath, ReadFile, RemoveFile, WriteFile},
    workspace::{CreateWorkspace, ForkWorkspace, UpdateWorkspace},
};

use crate::recorder::Recorder;

struct House {
    service: Service<Recorder>,
    node: Recorder,
    store: Store,
    _dir: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700))
            .expect("a private directory");
        let store = Store::open(dir.path().join("state.db")).await.expect("a store");
        let node = Recorder::new();
        let facts = ServerFacts {
            version: "0.0.0".into(),
            home: dir.path().into(),
            started: Instant::now(),
        };
        let access = Access::open(1000, TokenKey::new([1; 32]), store.clone(), &Config::default())
            .await
            .expect("access");
        let key = AuditKey::open(&dir.path().join("keys")).expect("a key");
        let audit = AuditLog::open(&dir.path().join("audit"), key, AuditOptions::default());
        let audit = audit.expect("an audit log");
        let service = Service::new(node.clone(), access, store.clone(), audit, facts);
        Self { service, node, store, _dir: dir }
    }

    async fn known<O: Operation>(&self) -> Grant<O> {
        let owner = self.service.access().authenticate_peer(PeerCredentials { uid: 1000 });
        let caller = Caller::new(owner.expect("the owner"), Surface::Unix);
        self.service.grant(&caller, ObjectRef::workspace("known")).await.expect("the owner may")
    }

    async fn events(&self) -> Vec<EventRow> {
        self.store.flush().await.expect("flushed");
        self.store.events(None, 0, 1000).await.expect("events")
    }

    /// Kind, object and outcome of every event.
    async fn story(&self) -> Vec<(String, String, Option<String>)> {
        let rows = self.events().await.into_iter().map(|row| {
            let outcome = row.event.detail["outcome"].as_str().map(str::to_owned);
            (row.event.kind, row.event.object, outcome)
        });
        rows.collect()
    }
}

fn grant<O: Operation>(object: ObjectRef) -> Grant<O> {
    let authenticator = Authenticator::new(1000, TokenKey::new([1; 32]));
    let owner = authenticator.peer(PeerCredentials { uid: 1000 }).expect("the owner");
    let caller = Caller::new(owner, Surface::Unix);
    Authorizer::new(1000).authorize(&caller, object, Facts::default()).expect("the owner may")
}

#[tokio::test]
async fn a_change_is_recorded_before_and_after_by_id() {
    let house = House::new().await;
    let id = house.node.known.id.to_string();
    house.service.destroy_workspace(house.known().await).await.expect("destroyed");
    let missing = house.service.destroy_workspace(grant(ObjectRef::workspace("ghost"))).await;
    assert_eq!(missing.expect_err("no such workspace").code, ErrorCode::NotFound);
    let step = |object: &str, outcome: Option<&str>| {
        ("workspace.destroy".to_owned(), object.to_owned(), outcome.map(str::to_owned))
    };
    assert_eq!(
        house.story().await,
        [
            step(&id, None),
            step(&id, Some("ok")),
            step("ghost", None),
            step("ghost", Some("not_found")),
        ]
    );
    assert_eq!(house.node.asked(), [format!("destroy {id}"), "destroy ghost".to_owned()]);
    let first = &house.events().await[0].event;
    assert_eq!(first.detail["rule"], "owner");
    assert!(first.principal.starts_with("usr_"));
}

#[tokio::test]
async fn what_is_made_is_named_by_its_id() {
    let house = House::new().await;
    let request = CreateWorkspace {
        name: Some("new".parse().expect("a name")),
        env: [("TOKEN".into(), "hunter2-hunter2".into())].into(),
        ..CreateWorkspace::default()
    };
    let made =
        house.service.create_workspace(grant(ObjectRef::server()), request).await.expect("created");
    let outcomes = house
        .service
        .fork_workspace(house.known().await, ForkWorkspace { count: 3, ..ForkWorkspace::default() })
        .await
        .expect("forked");
    assert_eq!(outcomes.len(), 3);
    let events = house.events().await;
    assert_eq!(
        (events[0].event.object.as_str(), events[1].event.object.clone()),
        ("", made.id.to_string())
    );
    let children: Vec<_> = events[3].event.detail["made"].as_array().expect("ids").iter().collect();
    assert_eq!(children.len(), 2, "one child failed");
    let all = format!("{events:?}");
    assert!(!all.contains("hunter2"), "no value that a caller sent as content is recorded");
}

#[tokio::test]
async fn reading_is_not_recorded() {
    let house = House::new().await;
    let service = &house.service;
    service.workspace(house.known().await).await.expect("read");
    service.workspace_stats(house.known().await).await.expect("read");
    service.stat_file(house.known().await, &FilePath { path: "/a".into() }).await.expect("read");
    let query = PageQuery::default();
    let page = service.list_workspaces(grant(ObjectRef::server()), &query).await;
    assert_eq!(page.expect("a page").items.len(), 1);
    let server = service.server(grant(ObjectRef::server())).await.expect("read");
    assert_eq!(server.workspaces["running"], 1);
    assert!(house.events().await.is_empty());
}

#[tokio::test]
async fn bad_values_reach_neither_the_node_nor_the_record() {
    let house = House::new().await;
    let service = &house.service;
    let mut refused = Vec::new();
    let bad_path = || "a/b".to_owned();
    let too_long = UpdateWorkspace { ttl_ms: Some(u64::MAX), ..UpdateWorkspace::default() };
    refused.push(service.update_workspace(house.known().await, too_long).await.err());
    let none = ForkWorkspace { count: 0, ..ForkWorkspace::default() };
    refused.push(service.fork_workspace(house.known().await, none).await.err());
    let nothing = ExecSpec::argv(Vec::<String>::new());
    refused.push(service.exec(house.known().await, nothing.clone()).await.err());
    refused.push(service.start_exec(house.known().await, nothing.clone()).await.err());
    let run = RunRequest { workspace: CreateWorkspace::default(), exec: Some(nothing) };
    refused.push(service.run(grant(ObjectRef::server()), run).await.err());
    let stopped = CreateWorkspace { stopped: true, ..CreateWorkspace::default() };
    let run = RunRequest { workspace: stopped, exec: None };
    refused.push(service.run(grant(ObjectRef::server()), run).await.err());
    for signal in [i32::MIN, -1, 0, 65] {
        let request = SignalExec { signal };
        refused.push(
            service.signal_exec(house.known().await, ExecId::generate(), &request).await.err(),
        );
    }
    refused
        .push(service.stat_file(house.known().await, &FilePath { path: bad_path() }).await.err());
    let write = WriteFile { path: bad_path(), ..WriteFile::default() };
    let content = Box::pin(futures_util::stream::empty());
    refused.push(service.write_file(house.known().await, &write, content).await.err());
    let root = RemoveFile { path: "/".into(), recursive: true };
    refused.push(service.remove_file(house.known().await, &root).await.err());
    let mode = ChangeMode { path: "/a".into(), mode: u32::MAX };
    refused.push(service.change_mode(house.known().await, &mode).await.err());
    refused.push(service.connect_port(house.known().await, 0).await.err());
    for snapshot in ["", "../x", "snap_x", "a/b"] {
        let request = RestoreWorkspace { snapshot: snapshot.into() };
        refused.push(service.restore_workspace(house.known().await, &request).await.err());
    }
    for (place, refused) in refused.iter().enumerate() {
        let refused = refused.as_ref().unwrap_or_else(|| panic!("case {place} was let through"));
        assert!((400..500).contains(&refused.code.http_status()), "{place}: {refused:?}");
    }
    assert_eq!(house.node.asked(), Vec::<String>::new());
    assert!(house.events().await.is_empty());
    assert_eq!(service.in_flight().count(), 0);
}

#[tokio::test]
async fn a_call_whose_caller_leaves_is_recorded_as_abandoned() {
    let house = House::new().await;
    let service = house.service.clone();
    let mut happened =
        service.follow_events(grant(ObjectRef::server()), None).await.expect("a stream");
    let grant = house.known().await;
    let call = tokio::spawn(async move { service.stop_workspace(grant).await });
    let begun = happened.next().await.expect("told").expect("read");
    assert_eq!(begun.kind, "workspace.stop");
    assert!(begun.detail.get("outcome").is_none(), "it is under way");
    drop(happened);
    assert_eq!(house.service.in_flight().count(), 1);
    call.abort();
    let _ = call.await;
    assert_eq!(house.service.in_flight().count(), 0);
    let story = house.story().await;
    assert_eq!(story[1].2.as_deref(), Some("abandoned"));
    // One that is waited for ends in order.
    house.node.gate.notify_one();
    house.service.stop_workspace(house.known().await).await.expect("stopped");
    assert_eq!(house.story().await[3].2.as_deref(), Some("ok"));
}

#[tokio::test]
async fn a_stream_is_in_flight_until_it_is_dropped() {
    let house = House::new().await;
    let service = &house.service;
    let read = ReadFile { path: "/a".into(), offset: None, length: None };
    let mut bytes = service.read_file(house.known().await, &read).await.expect("a stream");
    let exec =
        service.exec(house.known().await, ExecSpec::argv(["true"])).await.expect("a session");
    let port = service.connect_port(house.known().await, 80).await.expect("a connection");
    assert_eq!(service.in_flight().count(), 3);
    assert_eq!(bytes.next().await.expect("an item").expect("bytes"), "bytes");
    drop((bytes, exec));
    assert_eq!(service.in_flight().count(), 1);
    drop(port);
    assert_eq!(service.in_flight().count(), 0);
}

#[tokio::test]
async fn a_command_started_in_the_background_is_one_whatever_was_asked() {
    let house = House::new().await;
    let spec = ExecSpec { background: false, ..ExecSpec::argv(["sleep", "1"]) };
    let info = house.service.start_exec(house.known().await, spec).await.expect("started");
    assert!(info.background && info.result.is_none());
    let id = house.node.known.id;
    assert_eq!(house.node.asked(), [format!("exec background=true {id}")]);
}

/// Stands for a further argument in code that is compiled and not run.
fn never<T>() -> T {
    unreachable!("only types matter here")
}

macro_rules! argument {
    (_) => {
        never()
    };
}

/// Each operation of the table has a function of the service that takes its grant.
#[test]
fn every_operation_has_its_function() {
    let mut names = BTreeSet::new();
    macro_rules! all {
        ($($function:ident $operation:ident($($further:tt),*),)*) => {$(
            let _ = |service: &Service<Recorder>, grant: Grant<ops::$operation>| {
                let _result = service.$function(grant $(, argument!($further))*);
            };
            assert!(names.insert(ops::$operation::INFO.name));
        )*};
    }
    all!(
        server ServerRead(),
        operations OperationList(),
        doctor DoctorRun(),
        recovery RecoveryList(),
        who_am_i WhoAmI(),
        openapi OpenapiRead(),
        create_backup BackupCreate(_),
        connect_mcp McpConnect(),
        create_ticket TicketCreate(_),
        create_login LoginCreate(_),
        end_logins LoginEnd(),
        create_token TokenCreate(_),
        list_tokens TokenList(_),
        token TokenRead(),
        revoke_token TokenRevoke(),
        workspace_token WorkspaceToken(),
        create_session SessionCreate(_),
        list_sessions SessionList(_),
        end_session SessionEnd(),
        adopt SessionAdopt(_),
        takeover SessionTakeover(),
        audit_records AuditList(_),
        verify_audit AuditVerify(),
        export_audit AuditExport(_),
        follow_events EventFollow(_),
        create_workspace WorkspaceCreate(_),
        list_workspaces WorkspaceList(_),
        run WorkspaceRun(_),
        workspace WorkspaceRead(),
        update_workspace WorkspaceUpdate(_),
        destroy_workspace WorkspaceDestroy(),
        start_workspace WorkspaceStart(),
        stop_workspace WorkspaceStop(),
        pause_workspace WorkspacePause(),
        resume_workspace WorkspaceResume(),
        restore_workspace WorkspaceRestore(_),
        fork_workspace WorkspaceFork(_),
        workspace_stats WorkspaceStats(),
        workspace_logs WorkspaceLogs(_),
        exec ExecRun(_),
        start_exec ExecStart(_),
        execs ExecList(),
        attach ExecAttach(_, _, _),
        follow_exec ExecFollow(_, _, _),
        signal_exec ExecSignal(_, _),
        stat_file FileStat(_),
        list_files FileList(_),
        read_file FileRead(_),
        write_file FileWrite(_, _),
        make_directory FileMkdir(_),
        rename_file FileRename(_),
        remove_file FileRemove(_),
        change_mode FileChmod(_),
        watch_files FileWatch(_),
        read_archive ArchiveRead(_),
        write_archive ArchiveWrite(_, _),
        ports PortList(),
        connect_port PortConnect(_),
        create_snapshot SnapshotCreate(_),
        workspace_snapshots WorkspaceSnapshots(_),
        list_snapshots SnapshotList(_),
        snapshot SnapshotRead(),
        remove_snapshot SnapshotRemove(),
        fork_snapshot SnapshotFork(_),
        list_images ImageList(_),
        image ImageRead(),
        remove_image ImageRemove(),
        pull_image ImagePull(_, _),
        import_image ImageImport(_, _, _),
        build_image ImageBuild(_, _, _),
        prune_images ImagePrune(),
        export_image ImageExport(),
    );
    let table: BTreeSet<_> = pinfold_auth::OPERATIONS.iter().map(|op| op.name).collect();
    assert_eq!(names, table);
}
