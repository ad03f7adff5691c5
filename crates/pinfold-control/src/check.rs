//! Checks of requests that consist of others.

use pinfold_types::{
    Error, ErrorCode, Result, SnapshotId, SnapshotName, WorkspaceName,
    api::RunRequest,
    limits::MAX_FORK_COUNT,
    workspace::{CreateWorkspace, ForkWorkspace, UpdateWorkspace},
};

pub(crate) fn run(request: &RunRequest) -> Result<()> {
    request.workspace.check()?;
    if request.workspace.stopped {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "a throw-away workspace cannot be made stopped",
        ));
    }
    request.exec.as_ref().map_or(Ok(()), pinfold_types::exec::ExecSpec::check)
}

/// Zero removes a lifetime; all else follows the rules of a new workspace.
pub(crate) fn update(change: &UpdateWorkspace) -> Result<()> {
    CreateWorkspace {
        limits: change.limits.clone(),
        ttl_ms: change.ttl_ms.filter(|ms| *ms != 0),
        idle_ms: change.idle_ms.filter(|ms| *ms != 0),
        labels: change.labels.clone().unwrap_or_default(),
        ..CreateWorkspace::default()
    }
    .check()
}

pub(crate) fn fork(request: &ForkWorkspace) -> Result<()> {
    if !(1..=MAX_FORK_COUNT).contains(&request.count) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("count of {} is outside 1 to {MAX_FORK_COUNT}", request.count),
        ));
    }
    if let Some(stem) = request.name.as_ref().filter(|_| request.count > 1) {
        let longest = format!("{stem}-{}", request.count);
        longest.parse::<WorkspaceName>().map_err(|refused| {
            refused.hint(format!(
                "the last of {} names is {longest:?}: use a shorter one",
                request.count
            ))
        })?;
    }
    CreateWorkspace {
        limits: request.limits.clone(),
        env: request.env.clone(),
        ttl_ms: request.ttl_ms,
        command: request.command.clone(),
        labels: request.labels.clone(),
        ..CreateWorkspace::default()
    }
    .check()
}

/// Signal 0 would only ask whether the process exists, and is not a signal.
pub(crate) fn signal(signal: i32) -> Result<()> {
    if (1..=64).contains(&signal) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidArgument, format!("{signal} is not a signal: 1 to 64")))
}

/// An id or a name.
pub(crate) fn snapshot_reference(text: &str) -> Result<()> {
    if text.strip_prefix(SnapshotId::PREFIX).is_some_and(|rest| rest.starts_with('_')) {
        return text.parse::<SnapshotId>().map(drop);
    }
    text.parse::<SnapshotName>().map(drop)
}

pub(crate) fn port(port: u16) -> Result<()> {
    if port != 0 {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidArgument, "0 is not a port: 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forks_out_of_range_are_refused() {
        let with = |count, name: Option<&str>| {
            fork(&ForkWorkspace {
                count,
                name: name.map(|name| name.parse().expect("a name")),
                ..ForkWorkspace::default()
            })
        };
        assert!(with(1, None).is_ok() && with(1000, None).is_ok());
        assert!(with(0, None).is_err() && with(1001, None).is_err());
        let long = "x".repeat(60);
        assert!(with(9, Some(&long)).is_ok() && with(10, Some(&long)).is_ok());
        assert!(with(100, Some(&long)).is_err());
        assert!(with(1, Some(&"x".repeat(63))).is_ok());
    }

    #[test]
    fn zero_removes_a_lifetime_and_more_than_a_year_is_refused() {
        let with = |ttl_ms| update(&UpdateWorkspace { ttl_ms, ..UpdateWorkspace::default() });
        assert!(with(Some(0)).is_ok() && with(None).is_ok());
        assert!(with(Some(u64::MAX)).is_err());
    }
}
