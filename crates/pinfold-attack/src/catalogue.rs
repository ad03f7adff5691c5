//! All attempts in one list.

use std::sync::LazyLock;

use crate::{
    Attempt, devices, exhaustion, files, kernel, leaks, mounts, namespaces, processes, procfs,
    sockets,
};

/// Every attempt, in the order of the table.
pub static ALL: LazyLock<Vec<&'static Attempt>> = LazyLock::new(|| {
    [
        namespaces::ATTEMPTS,
        mounts::ATTEMPTS,
        procfs::ATTEMPTS,
        devices::ATTEMPTS,
        kernel::ATTEMPTS,
        processes::ATTEMPTS,
        sockets::ATTEMPTS,
        files::ATTEMPTS,
        leaks::ATTEMPTS,
        exhaustion::ATTEMPTS,
    ]
    .into_iter()
    .flatten()
    .collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_every_attempt_says_what_and_from_where() {
        let mut ids: Vec<&str> = ALL.iter().map(|attempt| attempt.id).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "two attempts share an id");
        assert!(count >= 80, "only {count} attempts");
        for attempt in ALL.iter() {
            assert!(!attempt.what.is_empty() && !attempt.source.is_empty(), "{}", attempt.id);
            assert!(!attempt.held.is_empty(), "{} has no error of its wall", attempt.id);
        }
    }
}
