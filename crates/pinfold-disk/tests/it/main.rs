//! Disks on real filesystems: a btrfs pool file, XFS with reflinks, ext4.
//!
//! Every test has its own mount namespace and its own directory, so nothing it mounts is seen
//! outside or outlives it. They need root, loop devices, btrfs-progs, xfsprogs and e2fsprogs.

mod bench;
mod btrfs;
mod contract;
mod layers;
mod names;
mod recovery;
mod recycle;
mod support;
mod user;
