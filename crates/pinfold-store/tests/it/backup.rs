//! A copy taken while others write.

use std::{os::unix::fs::PermissionsExt, path::Path};

use pinfold_store::Store;

fn private(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).expect("chmod");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_has_all_that_was_acknowledged_and_writers_go_on() {
    let home = tempfile::tempdir().expect("a directory");
    private(home.path());
    let store = Store::open(home.path().join("state.db")).await.expect("a store");
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0..400_u32 {
                store.set_meta("later", number.to_string()).await.expect("written");
            }
        }
    });
    store.set_meta("known", "yes").await.expect("written");
    let copy = home.path().join("copy.db");
    store.backup_to(&copy).await.expect("copied");
    writing.await.expect("the writer lives");
    let mode = copy.metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(!home.path().join("copy.db.new").exists());
    assert!(!home.path().join("copy.db-wal").exists(), "one file");
    let copy = Store::open(&copy).await.expect("a sound database");
    assert!(!copy.created());
    assert_eq!(copy.meta("known").await.expect("read").as_deref(), Some("yes"));
    copy.set_meta("known", "still").await.expect("it can be written");
    assert_eq!(store.meta("known").await.expect("read").as_deref(), Some("yes"));
    copy.close().await;
    store.close().await;
}
