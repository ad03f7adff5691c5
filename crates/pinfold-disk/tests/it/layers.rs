//! Sealed layers against a model, through real overlay mounts: whatever is done in whatever order,
//! every disk shows what was written to it, and what nobody stands on is gone.

use std::{collections::BTreeMap, path::Path};

use pinfold_disk::{Disk, DiskKind, DiskLimits, Mounted, Pool};
use pinfold_types::{
    Mode,
    config::{PoolConfig, PoolKind},
};
use proptest::prelude::*;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::support::{eventually, private_mounts, text};

/// Path to contents; a directory has none.
type Tree = BTreeMap<String, Option<String>>;

const FILES: [&str; 5] = ["f", "d/g", "d/e/h", "image/x", "image/deep/y"];
const DIRECTORIES: [&str; 4] = ["d", "d/e", "image", "image/deep"];

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Unlink(usize, usize),
    RemoveAll(usize, usize),
    MakeDirectory(usize, usize),
    Snapshot(usize, bool),
    Fork(usize),
    Restore(usize, usize),
    RemoveDisk(usize),
    RemoveSnapshot(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let some = 0..8_usize;
    prop_oneof![
        6 => (some.clone(), 0..FILES.len()).prop_map(|(disk, file)| Step::Write(disk, file)),
        3 => (some.clone(), 0..FILES.len()).prop_map(|(disk, file)| Step::Unlink(disk, file)),
        3 => (some.clone(), 0..DIRECTORIES.len())
            .prop_map(|(disk, directory)| Step::RemoveAll(disk, directory)),
        2 => (some.clone(), 0..DIRECTORIES.len())
            .prop_map(|(disk, directory)| Step::MakeDirectory(disk, directory)),
        6 => (some.clone(), any::<bool>()).prop_map(|(disk, idle)| Step::Snapshot(disk, idle)),
        4 => some.clone().prop_map(Step::Fork),
        3 => (some.clone(), some.clone()).prop_map(|(disk, from)| Step::Restore(disk, from)),
        1 => some.clone().prop_map(Step::RemoveDisk),
        2 => some.prop_map(Step::RemoveSnapshot),
        1 => Just(Step::Reopen),
    ]
}

struct World {
    root: tempfile::TempDir,
    pool: Option<Pool>,
    disks: BTreeMap<String, Tree>,
    snapshots: BTreeMap<String, Tree>,
    made: usize,
}

fn pool(root: &Path) -> Pool {
    let kind = PoolKind::Plain;
    let config = PoolConfig { kind, path: None, loop_bytes: None, min_free_bytes: 0 };
    Pool::open(&config, root, Mode::Root).expect("a pool")
}

fn nth<V>(all: &BTreeMap<String, V>, number: usize) -> Option<String> {
    all.keys().nth(number % all.len().max(1)).cloned()
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        for directory in ["image/image/deep", "mount"] {
            std::fs::create_dir_all(root.path().join(directory)).expect("a directory");
        }
        for file in ["image/image/x", "image/image/deep/y"] {
            std::fs::write(root.path().join(file), "of the image").expect("a file");
        }
        let pool = Some(pool(root.path()));
        let mut world =
            Self { root, pool, disks: BTreeMap::new(), snapshots: BTreeMap::new(), made: 0 };
        let first = world.pool().create("ws_0", &DiskLimits::default(), 1).expect("a disk");
        let tree = world.within(&first, tree_at);
        world.disks.insert("ws_0".into(), tree);
        world
    }

    fn pool(&self) -> &Pool {
        self.pool.as_ref().expect("it is open")
    }

    /// Mounts a disk as a start does.
    fn within<T>(&self, disk: &Disk, what: impl FnOnce(&Path) -> T) -> T {
        disk.prepare_slots(1).expect("slots");
        let mut lowers: Vec<String> = disk
            .sealed()
            .expect("a list")
            .iter()
            .map(|layer| layer.path.join("upper/0").display().to_string())
            .collect();
        lowers.push(self.root.path().join("image").display().to_string());
        let options = format!(
            "userxattr,lowerdir={},upperdir={1}/upper/0,workdir={1}/work/0",
            lowers.join(":"),
            disk.path.display()
        );
        let options = std::ffi::CString::new(options).expect("no NUL");
        let at = self.root.path().join("mount");
        rustix::mount::mount("overlay", &at, "overlay", MountFlags::empty(), options.as_c_str())
            .expect("mounted");
        let answer = what(&at);
        rustix::mount::unmount(&at, UnmountFlags::empty()).expect("unmounted");
        answer
    }

    /// Does something in a disk.
    fn change(&mut self, number: usize, what: impl FnOnce(&Path)) {
        let Some(id) = nth(&self.disks, number) else { return };
        let disk = self.pool().open_disk(&id).expect("it is there");
        let tree = self.within(&disk, |at| {
            what(at);
            tree_at(at)
        });
        self.disks.insert(id, tree);
    }

    fn take(&mut self, step: &Step) {
        self.made += 1;
        let made = self.made;
        match *step {
            Step::Write(disk, file) => self.change(disk, |at| {
                let path = at.join(FILES[file]);
                if path.parent().is_some_and(Path::is_dir) && !path.is_dir() {
                    std::fs::write(path, made.to_string()).expect("written");
                }
            }),
            Step::Unlink(disk, file) => {
                self.change(disk, |at| drop(std::fs::remove_file(at.join(FILES[file]))));
            }
            Step::RemoveAll(disk, directory) => {
                self.change(disk, |at| {
                    drop(std::fs::remove_dir_all(at.join(DIRECTORIES[directory])));
                });
            }
            Step::MakeDirectory(disk, directory) => self.change(disk, |at| {
                std::fs::create_dir_all(at.join(DIRECTORIES[directory])).expect("made");
            }),
            Step::Snapshot(disk, idle) => {
                let Some(id) = nth(&self.disks, disk) else { return };
                let mounted = if idle { Mounted::No } else { Mounted::Still };
                let name = format!("snap_{made}");
                let said = self.pool().snapshot(&id, &name, mounted).expect("taken").method;
                if idle
                    && self.pool().open_disk(&id).expect("there").sealed().expect("list").len() < 32
                {
                    assert_eq!(said, "sealed layer");
                }
                self.snapshots.insert(name, self.disks[&id].clone());
            }
            Step::Fork(from) => {
                let Some(from) = nth(&self.snapshots, from) else { return };
                let id = format!("ws_{made}");
                self.pool().clone_to(&from, &id, &DiskLimits::default(), 1).expect("forked");
                self.disks.insert(id, self.snapshots[&from].clone());
            }
            Step::Restore(disk, from) => {
                let (disk, from) = (nth(&self.disks, disk), nth(&self.snapshots, from));
                let (Some(disk), Some(from)) = (disk, from) else { return };
                self.pool().replace(&disk, &from).expect("restored");
                self.disks.insert(disk, self.snapshots[&from].clone());
            }
            Step::RemoveDisk(disk) => {
                let Some(id) = nth(&self.disks, disk) else { return };
                self.pool().remove(&id).expect("removed");
                self.disks.remove(&id);
            }
            Step::RemoveSnapshot(snapshot) => {
                let Some(id) = nth(&self.snapshots, snapshot) else { return };
                self.pool().remove(&id).expect("removed");
                self.snapshots.remove(&id);
            }
            Step::Reopen => {
                drop(self.pool.take());
                self.pool = Some(pool(self.root.path()));
                let keep = self.disks.keys().chain(self.snapshots.keys()).cloned().collect();
                let said = self.pool().reclaim(&keep).expect("reclaimed");
                assert!(said.is_empty(), "the last one had ended its work: {said:?}");
            }
        }
        for (id, tree) in &self.disks {
            let disk = self.pool().open_disk(id).expect("it is there");
            assert_eq!(&self.within(&disk, tree_at), tree, "{id} after {step:?}");
        }
    }

    fn layers(&self) -> usize {
        std::fs::read_dir(self.root.path().join("pool/layers")).expect("a shelf").count()
    }

    /// Children show what their snapshots held; then all is removed, and nothing is left.
    fn end(mut self) {
        let snapshots: Vec<(String, Tree)> =
            std::mem::take(&mut self.snapshots).into_iter().collect();
        for (id, tree) in snapshots {
            let child = format!("of_{id}");
            let disk =
                self.pool().clone_to(&id, &child, &DiskLimits::default(), 1).expect("forked");
            assert_eq!(self.within(&disk, tree_at), tree, "{id}");
            self.pool().remove(&child).expect("removed");
            self.pool().remove(&id).expect("removed");
        }
        for id in self.disks.keys() {
            self.pool().remove(id).expect("removed");
        }
        eventually("nothing is left", || {
            self.layers() == 0 && self.pool().list().expect("list").is_empty()
        });
    }
}

/// What is seen below a directory.
fn tree_at(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory).expect("list") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("below").display().to_string();
            if path.symlink_metadata().expect("what is listed is there").is_dir() {
                found.insert(name, None);
                waiting.push(path);
            } else {
                found.insert(name, Some(std::fs::read_to_string(&path).expect("read")));
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..Default::default() })]

    #[test]
    fn every_disk_shows_what_was_written_to_it(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        private_mounts();
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.end();
    }
}

#[test]
fn a_disk_has_at_most_so_many_layers() {
    private_mounts();
    let mut world = World::new();
    for number in 0..40 {
        world.take(&Step::Write(0, number % FILES.len()));
        world.take(&Step::RemoveAll(0, number % DIRECTORIES.len()));
        world.take(&Step::MakeDirectory(0, number % DIRECTORIES.len()));
        world.take(&Step::Snapshot(0, true));
        let disk = world.pool().open_disk("ws_0").expect("there");
        assert!(disk.sealed().expect("a list").len() <= 32);
    }
    // Forks of those that could not be sealed are whole too: the end looks at all of them.
    world.end();
}

#[test]
fn shared_layers_are_counted_for_each_and_are_nobodys_own() {
    let root = tempfile::tempdir().expect("a directory");
    let pool = pool(root.path());
    let limits = DiskLimits::default();
    let disk = pool.create("ws_1", &limits, 1).expect("create");
    std::fs::write(disk.path.join("upper/0/f"), vec![1; 1 << 20]).expect("write");
    pool.snapshot("ws_1", "snap_1", Mounted::No).expect("snapshot");
    assert_eq!(pool.usage_at_once("snap_1"), None, "it takes a walk");
    pool.clone_to("snap_1", "ws_2", &limits, 1).expect("fork");
    for id in ["ws_1", "ws_2", "snap_1"] {
        let usage = pool.usage(id).expect("usage");
        assert!(usage.referenced_bytes >= 1 << 20, "{id}: {usage:?}");
        assert!(usage.exclusive_bytes.is_some_and(|own| own < 1 << 16), "{id}: {usage:?}");
        assert!(usage.inodes.is_some_and(|inodes| inodes >= 2), "{id}: {usage:?}");
    }
    let known = pool.usage_at_once("snap_1").expect("measured before");
    assert_eq!(known, pool.usage("snap_1").expect("usage"));
    pool.remove("ws_1").expect("remove");
    pool.remove("ws_2").expect("remove");
    eventually("the trash is empty", || {
        pool.list().expect("list").iter().all(|entry| entry.kind == DiskKind::Snapshot)
    });
    let usage = pool.usage("snap_1").expect("usage");
    assert!(usage.exclusive_bytes.is_some_and(|own| own >= 1 << 20), "it is the last: {usage:?}");
}

#[test]
fn what_the_root_looks_like_is_kept() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let root = tempfile::tempdir().expect("a directory");
    let pool = pool(root.path());
    let limits = DiskLimits::default();
    let disk = pool.create("ws_1", &limits, 2).expect("create");
    let upper = disk.path.join("upper/1");
    chown(&upper, Some(5), Some(6)).expect("chown");
    std::fs::set_permissions(&upper, PermissionsExt::from_mode(0o2711)).expect("chmod");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&upper, "user.note", b"kept", flags).expect("an attribute");
    rustix::fs::setxattr(&upper, "user.overlay.impure", b"y", flags).expect("an attribute");
    // Nothing is in it, and still there is something to be kept.
    pool.snapshot("ws_1", "snap_1", Mounted::No).expect("snapshot");
    let clone = pool.clone_to("snap_1", "ws_2", &limits, 2).expect("fork");
    disk.prepare_slots(2).expect("slots");
    for disk in [&disk, &clone] {
        let slot = disk.path.join("upper/1");
        let meta = std::fs::metadata(&slot).expect("a slot");
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (5, 6, 0o2711));
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(&slot, "user.note", &mut value[..]).expect("kept");
        assert_eq!(&value[..length], b"kept");
        assert!(rustix::fs::getxattr(&slot, "user.overlay.impure", &mut value[..]).is_err());
    }
    pool.snapshot("ws_2", "snap_2", Mounted::No).expect("snapshot");
    assert_eq!(clone.sealed().expect("a list").len(), 1, "nothing was new");
}

#[test]
fn a_snapshot_of_an_earlier_release_is_sealed_when_it_is_forked() {
    let root = tempfile::tempdir().expect("a directory");
    let pool = pool(root.path());
    let limits = DiskLimits::default();
    let old = root.path().join("pool/snapshots/snap_old");
    std::fs::create_dir_all(old.join("upper/0")).expect("a slot");
    std::fs::create_dir_all(old.join("work/0/work")).expect("its work");
    std::fs::write(old.join("upper/0/f"), "old").expect("a file");
    let ids: Vec<String> = (1..=8).map(|number| format!("ws_{number}")).collect();
    for clone in pool.clone_many("snap_old", &ids, &limits, 1) {
        let clone = clone.expect("forked");
        assert_eq!(clone.sealed().expect("a list").len(), 1);
        assert_eq!(text(&clone, "0/f"), "old");
    }
    assert_eq!(std::fs::read_dir(root.path().join("pool/layers")).expect("a shelf").count(), 1);
}
