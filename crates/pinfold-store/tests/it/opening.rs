//! What is refused at the door, with its mend; and never by starting empty.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use pinfold_store::Store;
use pinfold_types::{Error, ErrorCode};

use crate::sample::{Home, workspace};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

async fn refused(home: &Home) -> Error {
    let refused = Store::open(home.db()).await.expect_err("it must not open");
    assert_eq!(refused.code, ErrorCode::Unavailable, "{refused:?}");
    assert!(
        refused.message.contains("state.db") || refused.message.contains("/tmp"),
        "{refused:?}"
    );
    assert!(refused.hint.is_some());
    refused
}

/// A home with one workspace in it, closed.
async fn used_home() -> Home {
    let home = Home::new();
    let store = home.store().await;
    store.insert_workspace(&workspace("kept")).await.expect("stored");
    store.close().await;
    home
}

async fn sql(home: &Home, text: &'static str) {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(home.db());
    let mut conn = options.connect().await.expect("a connection");
    sqlx::raw_sql(text).execute(&mut conn).await.expect("the statement");
    conn.close().await.expect("closed");
}

#[tokio::test]
async fn files_are_private_from_their_beginning() {
    let home = Home::new();
    // Whatever the umask was when the process started, the files' own mode says 0600.
    let store = home.store().await;
    store.insert_workspace(&workspace("a")).await.expect("stored");
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        assert_eq!(mode(&home.db().with_file_name(name)), 0o600, "{name}");
    }
    assert!(!home.db().with_file_name("state.db.new").exists());
}

#[tokio::test]
async fn files_that_others_can_reach_are_refused_with_the_command_that_mends_them() {
    let home = used_home().await;
    for bad in [0o640, 0o604, 0o666, 0o610] {
        set_mode(&home.db(), bad);
        let hint = refused(&home).await.hint.expect("a mend");
        assert_eq!(hint, format!("chmod 600 {}", home.db().display()));
    }
    set_mode(&home.db(), 0o600);
    let dir = home.db().parent().expect("a parent").to_owned();
    set_mode(&dir, 0o755);
    let hint = refused(&home).await.hint.expect("a mend");
    assert_eq!(hint, format!("chmod 700 {}", dir.display()));
    set_mode(&dir, 0o700);
    assert_eq!(home.store().await.workspaces().await.expect("read").len(), 1);
}

#[tokio::test]
async fn a_link_or_directory_in_its_place_is_refused() {
    let home = used_home().await;
    let real = home.db().with_file_name("elsewhere.db");
    fs::rename(home.db(), &real).expect("moved");
    symlink(&real, home.db()).expect("a link");
    assert!(refused(&home).await.message.contains("not a regular file"));
    fs::remove_file(home.db()).expect("removed");
    fs::create_dir(home.db()).expect("a directory");
    assert!(refused(&home).await.message.contains("not a regular file"));
}

#[tokio::test]
async fn damage_is_refused_and_nothing_is_touched() {
    let whole = fs::read(used_home().await.db()).expect("read");
    let mut torn = whole.clone();
    // The second page and all that follow: the schema names them, their content is noise.
    for (place, byte) in torn.iter_mut().enumerate().skip(4096) {
        *byte = u8::try_from(place * 31 % 251).expect("below 251");
    }
    let cases: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("short", whole[..10].to_vec()),
        ("cut", whole[..4096].to_vec()),
        ("text", b"this is not a database at all, only some text\n".to_vec()),
        ("torn", torn),
    ];
    for (name, bytes) in cases {
        let home = Home::new();
        fs::write(home.db(), &bytes).expect("written");
        set_mode(&home.db(), 0o600);
        let refused = refused(&home).await;
        assert!(refused.message.contains("damaged"), "{name}: {refused:?}");
        assert_eq!(fs::read(home.db()).expect("read"), bytes, "{name} was changed");
    }
}

#[tokio::test]
async fn a_log_without_its_main_file_is_not_a_new_home() {
    let home = Home::new();
    let store = home.store().await;
    store.insert_workspace(&workspace("kept")).await.expect("stored");
    // The store stays open, so that its log is on the disk as after a crash.
    fs::rename(home.db(), home.db().with_file_name("mislaid")).expect("moved");
    assert!(refused(&home).await.message.contains("missing"));
    fs::rename(home.db().with_file_name("mislaid"), home.db()).expect("moved back");
    store.close().await;
    assert_eq!(home.store().await.workspaces().await.expect("read").len(), 1);
}

#[tokio::test]
async fn an_attempt_to_make_it_that_died_is_cleared_away() {
    let home = Home::new();
    for name in ["state.db.new", "state.db.new-wal", "state.db.new-shm"] {
        let path = home.db().with_file_name(name);
        fs::write(&path, b"half").expect("written");
    }
    let store = home.store().await;
    assert!(store.created());
    store.close().await;
    let left: Vec<_> = fs::read_dir(home.db().parent().expect("a parent"))
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["state.db"]);
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_both_numbers() {
    let home = used_home().await;
    sql(
        &home,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9001, 'from the future', true, x'00', 0)",
    )
    .await;
    let refused = refused(&home).await;
    assert!(refused.message.contains("newer version"), "{refused:?}");
    assert!(refused.message.contains("9001"), "{refused:?}");
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let home = Home::new();
    fs::write(home.db(), b"").expect("written");
    set_mode(&home.db(), 0o600);
    sql(&home, "CREATE TABLE bookmarks (url TEXT)").await;
    assert!(refused(&home).await.message.contains("not one of Pinfold's"));
}

#[tokio::test]
async fn a_row_that_does_not_parse_is_told_and_not_skipped() {
    let home = used_home().await;
    sql(&home, "UPDATE workspaces SET state = 'levitating'").await;
    let store = home.store().await;
    let refused = store.workspaces().await.expect_err("no such state");
    assert_eq!(refused.code, ErrorCode::Internal);
    assert!(refused.internal.expect("context").contains("state"));
}
