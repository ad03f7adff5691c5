//! Workspace disks: btrfs, reflink and plain pools, snapshots, quotas.
