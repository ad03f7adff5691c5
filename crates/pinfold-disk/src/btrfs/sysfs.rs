//! What the kernel knows of a quota group now, in `/sys/fs/btrfs` (Linux 5.9). Where it cannot be
//! read, the quota tree answers as of the last commit.

#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) referenced: u64,
    pub(super) exclusive: u64,
    /// Written, and not on the disk yet.
    pub(super) reserved_data: u64,
    /// Held for running operations.
    pub(super) reserved_metadata: u64,
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The transaction that runs, or ran last.
pub(super) fn generation(uuid: &str) -> Option<u64> {
    number(&format!("/sys/fs/btrfs/{uuid}/generation"))
}

/// Size of a block of the trees: what an empty subvolume is charged.
pub(super) fn node_bytes(uuid: &str) -> Option<u64> {
    number(&format!("/sys/fs/btrfs/{uuid}/nodesize"))
}

pub(super) fn usage(uuid: &str, id: u64) -> Option<Now> {
    let directory = format!("/sys/fs/btrfs/{uuid}/qgroups/0_{id}");
    let read = |name: &str| number(&format!("{directory}/{name}"));
    Some(Now {
        referenced: read("referenced")?,
        exclusive: read("exclusive")?,
        reserved_data: read("rsv_data").unwrap_or(0),
        reserved_metadata: read("rsv_meta_pertrans").unwrap_or(0)
            + read("rsv_meta_prealloc").unwrap_or(0),
    })
}
