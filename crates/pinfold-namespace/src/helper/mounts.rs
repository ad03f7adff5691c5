//! From root mounts to trees, overlays and views.

use std::{
    fmt::Write,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use pinfold_sys::mounts as attributes;
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, move_mount, open_tree,
    },
};

use super::files;
use crate::{
    failure::{AtStep, Failure, Step},
    spec::LaunchSpec,
    wire::MAX_DESCRIPTORS,
};

/// A directory tree to be cloned out of the host's mounts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tree {
    path: PathBuf,
    idmapped: bool,
    read_only: bool,
}

/// What is seen at one place of the root; numbers are places in [`Plan::trees`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    target: String,
    slot: usize,
    lowers: Vec<usize>,
    writable: bool,
}

/// All trees and what is made of them. Parent and child compute the same plan.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The disk first.
    pub(super) trees: Vec<Tree>,
    layers: Vec<Layer>,
    volatile: bool,
}

/// Plans the mounts of `spec`.
pub(super) fn plan(spec: &LaunchSpec) -> Plan {
    let mut trees = vec![Tree { path: spec.disk.clone(), idmapped: true, read_only: false }];
    let layers = spec
        .mounts
        .iter()
        .enumerate()
        .map(|(slot, mount)| {
            let lowers = mount.lowers.iter().map(|path| {
                let tree = Tree { path: path.clone(), idmapped: mount.idmapped, read_only: true };
                trees.iter().position(|known| *known == tree).unwrap_or_else(|| {
                    trees.push(tree);
                    trees.len() - 1
                })
            });
            Layer {
                target: mount.target.clone(),
                slot,
                lowers: lowers.collect(),
                writable: mount.writable,
            }
        })
        .collect();
    Plan { trees, layers, volatile: spec.volatile }
}

/// Refuses what no launch can mount.
pub(super) fn check(plan: &Plan) -> Result<(), Failure> {
    let wrong = |detail: &str| Err(Failure::said(Step::Request, "", detail));
    // Two descriptors are the socket of the guest and the device nodes.
    if plan.trees.len() + 1 >= MAX_DESCRIPTORS {
        return wrong("more than 250 layers");
    }
    if plan.layers.first().is_none_or(|layer| layer.target != "/") {
        return wrong("the first mount must be on /");
    }
    if plan.layers.iter().any(|layer| layer.lowers.is_empty() || !layer.target.starts_with('/')) {
        return wrong("every mount needs an absolute target and a layer");
    }
    Ok(())
}

/// Clones every tree out of the caller's mount namespace as a detached mount; with `mapping`,
/// the owners of those whose files are unshifted are mapped onto the workspace's ids.
pub(super) fn open_trees(
    trees: &[Tree],
    mapping: Option<BorrowedFd<'_>>,
) -> Result<Vec<OwnedFd>, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    trees
        .iter()
        .map(|tree| {
            let name = tree.path.display();
            let opened = open_tree(CWD, &tree.path, flags).on(Step::OpenTree, &name)?;
            let mut set = attributes::NO_SUID | attributes::NO_DEVICES;
            if tree.read_only {
                set |= attributes::READ_ONLY;
            }
            let mapping = mapping.filter(|_| tree.idmapped);
            attributes::set_attributes(opened.as_fd(), set, mapping).on(Step::IdmapTree, &name)?;
            Ok(opened)
        })
        .collect()
}

/// A mount that covers part of the root, to be moved there once the root is in place.
pub(super) struct Cover {
    target: String,
    mount: OwnedFd,
}

/// Builds the root at `r` in the staging directory, which is the working directory, and the
/// covers beside it.
pub(super) fn build(plan: &Plan, trees: Vec<OwnedFd>) -> Result<Vec<Cover>, Failure> {
    let mut trees: Vec<Option<OwnedFd>> = trees.into_iter().map(Some).collect();
    // A lone read-only tree is the view itself; everything else is attached to be a layer.
    let mut views = Vec::new();
    for layer in &plan.layers {
        let view = match (layer.lowers.as_slice(), layer.writable) {
            ([only], false) => trees[*only].take(),
            _ => None,
        };
        views.push(view);
    }
    for (number, tree) in trees.iter().enumerate() {
        if let Some(tree) = tree {
            let place = number.to_string();
            rustix::fs::mkdir(&place, Mode::from_raw_mode(0o755)).at(Step::Staging)?;
            attach(tree, CWD, &place).on(Step::OpenTree, plan.trees[number].path.display())?;
        }
    }
    let mut covers = Vec::new();
    for (layer, view) in plan.layers.iter().zip(views) {
        let place = if layer.slot == 0 { "r".to_owned() } else { format!("m{}", layer.slot) };
        rustix::fs::mkdir(&place, Mode::from_raw_mode(0o755)).at(Step::Staging)?;
        let is_root = layer.slot == 0;
        let cover = match view {
            Some(view) if is_root => {
                attach(&view, CWD, &place).on(Step::View, &layer.target)?;
                continue;
            }
            Some(view) => view,
            None => {
                mount_overlay(layer, &place, plan.volatile)?;
                if is_root {
                    continue;
                }
                rustix::fs::open(&place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                    .on(Step::Overlay, &layer.target)?
            }
        };
        covers.push(Cover { target: layer.target.clone(), mount: cover });
    }
    Ok(covers)
}

fn mount_overlay(layer: &Layer, place: &str, volatile: bool) -> Result<(), Failure> {
    // An index would tie an upper to the place where it was first mounted; forks and sealed layers
    // move it.
    let mut options = String::from("userxattr,index=off,lowerdir=");
    for (place, lower) in layer.lowers.iter().enumerate() {
        let separator = if place == 0 { "" } else { ":" };
        let _ = write!(options, "{separator}{lower}");
    }
    if layer.writable {
        let slot = layer.slot;
        let _ = write!(options, ",upperdir=0/upper/{slot},workdir=0/work/{slot}");
        if volatile {
            options.push_str(",volatile");
        }
    }
    let options = std::ffi::CString::new(options).expect("digits and fixed words only");
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    // Relative names keep many layers within the page that mount(2) takes.
    let mount = || mount("overlay", place, "overlay", flags, options.as_c_str());
    let mut mounted = mount();
    if mounted == Err(rustix::io::Errno::INVAL) && forget_volatile(layer.slot) {
        mounted = mount();
    }
    mounted.on(Step::Overlay, &layer.target)
}

/// A disk that was mounted `volatile`, or was copied from one, bears a mark that forbids to mount
/// it again, lest somebody trust what was never synced. Since then it came here by a snapshot,
/// which is synced. Whether there was such a mark.
fn forget_volatile(slot: usize) -> bool {
    use rustix::fs::{AtFlags, unlinkat};
    let mark = format!("0/work/{slot}/work/incompat/volatile");
    let _ = unlinkat(CWD, format!("{mark}/dirty"), AtFlags::empty());
    unlinkat(CWD, mark, AtFlags::REMOVEDIR).is_ok()
}

/// Puts the covers in place; the working root is the workspace's own by now.
pub(super) fn place_covers(covers: Vec<Cover>) -> Result<(), Failure> {
    for cover in covers {
        files::ensure_directory(&cover.target, 0o755)?;
        attach(&cover.mount, CWD, &cover.target).on(Step::Overlay, &cover.target)?;
    }
    Ok(())
}

/// Attaches a mount held by descriptor. Does not follow a symbolic link at the end of `place`.
pub(super) fn attach(
    tree: &OwnedFd,
    directory: impl AsFd,
    place: impl rustix::path::Arg,
) -> Result<(), rustix::io::Errno> {
    move_mount(tree, c"", directory, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// A detached clone of what is at `path` below `directory`, without what is mounted beneath.
pub(super) fn clone_of(
    directory: impl AsFd,
    path: impl rustix::path::Arg,
) -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(directory, path, flags)
}

/// A new instance of a filesystem, detached.
pub(super) fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    flags: MountAttrFlags,
) -> Result<OwnedFd, rustix::io::Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}
