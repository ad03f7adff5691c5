//! Landlock on top of the other walls (landlock(7)).
//!
//! The root is the workspace's own already, so file access as such is not restricted again.
//! What Landlock adds: no change to the mount tree by any means, no device nodes, no device
//! ioctls outside of `/dev`, and no tracing, signals or abstract sockets across its border,
//! each enforced by another part of the kernel than the one that makes namespaces.

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::io::Errno;

use crate::failure::{AtStep, Failure, Step};

/// The newest ABI whose meaning this file knows.
const KNOWN: [(u32, ABI); 6] =
    [(6, ABI::V6), (5, ABI::V5), (4, ABI::V4), (3, ABI::V3), (2, ABI::V2), (1, ABI::V1)];

/// The newest of them.
pub(crate) const NEWEST_LANDLOCK: u32 = KNOWN[0].0;

/// The ABI of this kernel, 0 where Landlock is missing or off at boot.
pub(super) fn landlock_abi() -> u32 {
    pinfold_sys::privilege::landlock_abi()
}

/// Restricts this process and all its descendants, entirely or with an error. Nothing is done
/// where `abi` is 0, which the walls then report.
pub(super) fn landlock(abi: u32, nested: bool) -> Result<(), Failure> {
    let Some((_, abi)) = KNOWN.iter().find(|(number, _)| *number <= abi) else { return Ok(()) };
    let abi = *abi;
    restrict(abi, nested)
        .map_err(|error| Failure::said(Step::Landlock, format!("{abi:?}"), error.to_string()))?
        .then_some(())
        .ok_or(Errno::NOTSUP)
        .at(Step::Landlock)
}

fn restrict(abi: ABI, nested: bool) -> Result<bool, Box<dyn std::error::Error>> {
    let known = AccessFs::from_all(abi);
    let nodes: BitFlags<AccessFs> = AccessFs::MakeChar | AccessFs::MakeBlock;
    // REFER is always handled, and allowed below: otherwise renames between directories, which
    // package managers live on, would be refused.
    let watched = (nodes | AccessFs::Refer | AccessFs::IoctlDev) & known;
    let scopes = Scope::from_all(abi);
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    if !scopes.is_empty() {
        ruleset = ruleset.scope(scopes)?;
    }
    // Any rule on files forbids mounting, which nested containers must do in their own
    // namespaces.
    let files = !nested;
    if !files && scopes.is_empty() {
        return Ok(true);
    }
    if files {
        ruleset = ruleset.handle_access(watched)?;
    }
    // Set by the step before, on its own.
    let mut created = ruleset.create()?.no_new_privs(false);
    if files {
        for (path, right) in [("/", AccessFs::Refer), ("/dev", AccessFs::IoctlDev)] {
            let allowed = known & right;
            if !allowed.is_empty() {
                created = created.add_rule(PathBeneath::new(PathFd::new(path)?, allowed))?;
            }
        }
    }
    Ok(created.restrict_self()?.ruleset == RulesetStatus::FullyEnforced)
}
