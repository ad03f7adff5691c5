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

pub(super) fn usage(uuid: &str, id: u64) -> Option<Now> {
    let directory = format!("/sys/fs/btrfs/{uuid}/qgroups/0_{id}");
    let read = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("{directory}/{name}")).ok()?.trim().parse().ok()
    };
    Some(Now {
        referenced: read("referenced")?,
        exclusive: read("exclusive")?,
        reserved_data: read("rsv_data").unwrap_or(0),
        reserved_metadata: read("rsv_meta_pertrans").unwrap_or(0)
            + read("rsv_meta_prealloc").unwrap_or(0),
    })
}
