//! From what a caller asks for to what stands: profile, ceilings, and what can be enforced here.
//!
//! Nothing is ever limited on paper only. A limit asked for that nothing enforces is refused; a
//! limit of the default profile that nothing enforces is left out and shown as absent (PF-11).

use pinfold_types::{
    Error, ErrorCode, Mode,
    config::WorkspacesConfig,
    limits::{LimitKind, LimitStatus, ResourceLimits},
};

/// What enforces a kind here, or why nothing can.
pub(crate) type Enforceable<'a> = &'a dyn Fn(LimitKind) -> Result<String, String>;

/// The limits without which a workspace could take the whole machine.
const GUARDS: [LimitKind; 3] = [LimitKind::Memory, LimitKind::Pids, LimitKind::Cpu];

/// The limits of a new workspace. An ordinary user's may lack what only root can enforce: the
/// machine's own limits for that user hold for all its workspaces together.
pub(crate) fn for_create(
    asked: &ResourceLimits,
    config: &WorkspacesConfig,
    mode: Mode,
    allow_unlimited: bool,
    enforceable: Enforceable<'_>,
) -> Result<ResourceLimits, Error> {
    asked.check()?;
    if allow_unlimited && config.forbid_unlimited {
        return Err(Error::new(
            ErrorCode::Forbidden,
            "workspaces without enforced limits are not allowed on this server",
        )
        .hint("workspaces.forbid_unlimited is set in config.toml"));
    }
    let guarded = config.forbid_unlimited || (mode == Mode::Root && !allow_unlimited);
    if guarded {
        check_guards(enforceable)?;
    }
    let mut limits = ResourceLimits::default();
    for kind in LimitKind::ALL.iter().copied() {
        let ceiling = config.ceilings.get(kind);
        check_ceiling(kind, asked.get(kind), ceiling)?;
        if let Some(value) = asked.get(kind) {
            enforceable(kind).map_err(|why| cannot_enforce(kind, value, &why))?;
            limits.set(kind, Some(value));
            continue;
        }
        let usual = match (config.defaults.get(kind), ceiling) {
            (Some(usual), Some(most)) => Some(usual.min(most)),
            (usual, most) => usual.or(most),
        };
        match (usual, enforceable(kind)) {
            (Some(value), Ok(_)) => limits.set(kind, Some(value)),
            (Some(value), Err(why)) if ceiling.is_some() && !allow_unlimited => {
                return Err(cannot_enforce(kind, value, &why));
            }
            _ => {}
        }
    }
    Ok(limits)
}

/// The limits of a live change: those named replace the present ones.
pub(crate) fn for_update(
    present: &ResourceLimits,
    asked: &ResourceLimits,
    config: &WorkspacesConfig,
    enforceable: Enforceable<'_>,
) -> Result<ResourceLimits, Error> {
    asked.check()?;
    for kind in LimitKind::ALL.iter().copied() {
        check_ceiling(kind, asked.get(kind), config.ceilings.get(kind))?;
        if let Some(value) = asked.get(kind) {
            enforceable(kind).map_err(|why| cannot_enforce(kind, value, &why))?;
        }
    }
    Ok(asked.over(present))
}

/// The limits of a fork: the source's, narrowed where asked. Wider is refused.
pub(crate) fn for_fork(
    source: &ResourceLimits,
    asked: &ResourceLimits,
    enforceable: Enforceable<'_>,
) -> Result<ResourceLimits, Error> {
    asked.check()?;
    for kind in LimitKind::ALL.iter().copied() {
        let Some(value) = asked.get(kind) else { continue };
        if let Some(most) = source.get(kind).filter(|most| value > *most) {
            return Err(Error::new(
                ErrorCode::Forbidden,
                format!(
                    "{} of {value} is wider than the source's {most}: a fork never has wider \
                     rights than its source",
                    kind.field()
                ),
            )
            .hint("ask for at most the source's value, or leave it out to take the source's"));
        }
        enforceable(kind).map_err(|why| cannot_enforce(kind, value, &why))?;
    }
    Ok(asked.over(source))
}

/// Nobody can be given more open files than the server's own hard limit.
pub(crate) fn cap_open_files(config: &mut WorkspacesConfig, own: Option<u64>) {
    let Some(own) = own else { return };
    let ceiling = &mut config.ceilings.open_files;
    *ceiling = Some(ceiling.map_or(own, |ceiling| ceiling.min(own)));
}

/// Every kind with its value and what stands behind it.
pub(crate) fn statuses(limits: &ResourceLimits, enforceable: Enforceable<'_>) -> Vec<LimitStatus> {
    LimitKind::ALL
        .iter()
        .map(|kind| {
            let (value, by) = match enforceable(*kind) {
                Ok(by) => (limits.get(*kind), by),
                // The mend that follows the reason is the doctor's to say.
                Err(why) => (None, why.split("; ").next().unwrap_or_default().to_owned()),
            };
            LimitStatus { kind: *kind, value, by, enforced: value.is_some() }
        })
        .collect()
}

/// Every kind of a machine: whether it could be enforced, and by what.
pub(crate) fn table(enforceable: Enforceable<'_>) -> Vec<LimitStatus> {
    LimitKind::ALL
        .iter()
        .map(|kind| match enforceable(*kind) {
            Ok(by) => LimitStatus { kind: *kind, value: None, by, enforced: true },
            Err(why) => LimitStatus { kind: *kind, value: None, by: why, enforced: false },
        })
        .collect()
}

fn check_guards(enforceable: Enforceable<'_>) -> Result<(), Error> {
    let mut reasons = Vec::new();
    for kind in GUARDS {
        match enforceable(kind) {
            Ok(_) => return Ok(()),
            Err(why) => reasons.push(why),
        }
    }
    reasons.dedup();
    Err(Error::new(
        ErrorCode::CannotEnforce,
        format!("memory, CPU and process limits cannot be enforced here: {}", reasons.join("; ")),
    )
    .hint("pinfold doctor names the mend; --allow-unlimited creates it without, and is recorded"))
}

fn check_ceiling(kind: LimitKind, asked: Option<u64>, most: Option<u64>) -> Result<(), Error> {
    match (asked, most) {
        (Some(value), Some(most)) if value > most => Err(Error::new(
            ErrorCode::Unprocessable,
            format!("{} of {value} is above this server's ceiling of {most}", kind.field()),
        )
        .hint("ask for less, or raise workspaces.ceilings in config.toml")),
        _ => Ok(()),
    }
}

fn cannot_enforce(kind: LimitKind, value: u64, why: &str) -> Error {
    Error::new(
        ErrorCode::CannotEnforce,
        format!("{} of {value} cannot be enforced here: {why}", kind.field()),
    )
    .hint("leave the limit out, or see pinfold doctor for what enforces it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "the shape that is asked for")]
    fn all(_: LimitKind) -> Result<String, String> {
        Ok("test".into())
    }

    fn nothing(_: LimitKind) -> Result<String, String> {
        Err("no cgroups".into())
    }

    fn no_disk(kind: LimitKind) -> Result<String, String> {
        if kind == LimitKind::Disk { Err("plain pool".into()) } else { Ok("test".into()) }
    }

    #[test]
    fn what_is_asked_for_wins_over_the_profile_and_stays_under_the_ceiling() {
        let mut config = WorkspacesConfig::default();
        config.ceilings.pids = Some(100);
        let asked = ResourceLimits { memory_bytes: Some(64 << 20), ..Default::default() };
        let limits = for_create(&asked, &config, Mode::Root, false, &all).expect("fine");
        assert_eq!(limits.memory_bytes, Some(64 << 20));
        assert_eq!(limits.pids, Some(100), "the default is cut to the ceiling");
        let asked = ResourceLimits { pids: Some(101), ..Default::default() };
        let refused = for_create(&asked, &config, Mode::Root, false, &all).expect_err("too many");
        assert_eq!(refused.code, ErrorCode::Unprocessable);
        assert!(refused.message.contains("pids of 101"), "{}", refused.message);
    }

    #[test]
    fn what_cannot_be_enforced_is_refused_when_asked_for_and_absent_when_not() {
        let config = WorkspacesConfig::default();
        let limits = for_create(&ResourceLimits::default(), &config, Mode::Root, false, &no_disk)
            .expect("fine");
        assert_eq!(limits.disk_bytes, None);
        let shown = statuses(&limits, &no_disk);
        let disk = shown.iter().find(|status| status.kind == LimitKind::Disk).expect("listed");
        assert!(!disk.enforced && disk.value.is_none() && disk.by == "plain pool");
        assert!(shown.iter().all(|status| status.enforced == status.value.is_some()));

        let asked = ResourceLimits { disk_bytes: Some(1 << 30), ..Default::default() };
        let refused =
            for_create(&asked, &config, Mode::Root, true, &no_disk).expect_err("asked for");
        assert_eq!(refused.code, ErrorCode::CannotEnforce);
    }

    #[test]
    fn a_machine_without_any_guard_needs_the_operators_word() {
        let mut config = WorkspacesConfig::default();
        let none = ResourceLimits::default();
        let refused =
            for_create(&none, &config, Mode::Root, false, &nothing).expect_err("no guard");
        assert_eq!(refused.code, ErrorCode::CannotEnforce);
        assert!(refused.hint.expect("a mend").contains("--allow-unlimited"));
        assert_eq!(for_create(&none, &config, Mode::Root, true, &nothing).expect("said so"), none);
        config.forbid_unlimited = true;
        let refused =
            for_create(&none, &config, Mode::Root, true, &nothing).expect_err("forbidden");
        assert_eq!(refused.code, ErrorCode::Forbidden);
    }

    #[test]
    fn an_ordinary_user_gets_what_there_is_unless_the_configuration_wants_more() {
        let mut config = WorkspacesConfig::default();
        let none = ResourceLimits::default();
        let limits = for_create(&none, &config, Mode::User, false, &nothing).expect("none");
        assert_eq!(limits, none);
        let asked = ResourceLimits { memory_bytes: Some(1 << 30), ..Default::default() };
        let refused = for_create(&asked, &config, Mode::User, false, &nothing);
        assert_eq!(refused.expect_err("asked for").code, ErrorCode::CannotEnforce);
        config.forbid_unlimited = true;
        let refused = for_create(&none, &config, Mode::User, false, &nothing);
        assert_eq!(refused.expect_err("forbidden").code, ErrorCode::CannotEnforce);
    }

    #[test]
    fn a_ceiling_that_nothing_enforces_is_refused() {
        let mut config = WorkspacesConfig::default();
        config.ceilings.disk_bytes = Some(1 << 30);
        let none = ResourceLimits::default();
        let refused =
            for_create(&none, &config, Mode::Root, false, &no_disk).expect_err("a paper ceiling");
        assert_eq!(refused.code, ErrorCode::CannotEnforce);
    }

    #[test]
    fn a_fork_is_never_wider() {
        let source = ResourceLimits { pids: Some(100), ..Default::default() };
        for (pids, fine) in [(99, true), (100, true), (101, false)] {
            let asked = ResourceLimits { pids: Some(pids), ..Default::default() };
            assert_eq!(for_fork(&source, &asked, &all).is_ok(), fine, "{pids}");
        }
        let asked = ResourceLimits { memory_bytes: Some(1 << 30), ..Default::default() };
        let child = for_fork(&source, &asked, &all).expect("narrower than unlimited");
        assert_eq!((child.pids, child.memory_bytes), (Some(100), Some(1 << 30)));
    }
}
