//! The system calls a workspace may make, as a filter for the kernel (seccomp(2)).
//!
//! An allow-list: what no group names gets ENOSYS, the answer of an older kernel, for which
//! every libc has a way round. What is refused on purpose stands in [`refused`] with the errno
//! that programs handle best. The filter is built once, as a binary search over the call's
//! number: the kernel runs it for every known number when it is installed, so a short path
//! saves time at each start.

mod allowed;
mod assemble;
mod refused;

use std::collections::BTreeMap;

use libc::sock_filter;
use pinfold_sys::privilege::install_filter;

/// What happens to one system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// It runs.
    Allow,
    /// It fails with this errno.
    Refuse(i32),
    /// It depends on its arguments.
    Judge(Judge),
}

/// Calls whose arguments decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judge {
    /// clone(2), unshare(2): no new namespaces.
    NamespaceFlags,
    /// socket(2): local, TCP, UDP, ping, and routing netlink only.
    Socket,
    /// ioctl(2): nothing that types into a terminal or changes its line discipline.
    Ioctl,
    /// personality(2): what debuggers and 32-bit builds ask for.
    Personality,
    /// Any of these bits in an argument are refused.
    RefuseBits { argument: u32, bits: i32, errno: i32 },
    /// prlimit(2): as [`Self::OwnLimit`], and nothing of process 1.
    ProcessLimit,
    /// setrlimit(2): a change of `RLIMIT_CORE` is taken and forgotten, because a limit of one byte
    /// is what keeps the host from piping dumps to a program of its own, and zero would not.
    OwnLimit,
}

/// System calls that belong together, and why they are treated so.
pub(crate) struct Group {
    #[cfg_attr(not(test), expect(dead_code, reason = "said for readers and checked by tests"))]
    pub reason: &'static str,
    pub rule: Rule,
    pub calls: &'static [libc::c_long],
}

/// Both filters, ready to install.
#[derive(Debug)]
pub(crate) struct Filters {
    plain: Vec<sock_filter>,
    nested: Vec<sock_filter>,
}

impl Filters {
    pub(crate) fn build() -> Self {
        Self { plain: assemble::assemble(&table(false)), nested: assemble::assemble(&table(true)) }
    }

    /// Installs the filter on this process, for good. Needs `no_new_privs`.
    pub(crate) fn install(&self, nested: bool) -> std::io::Result<()> {
        install_filter(if nested { &self.nested } else { &self.plain })
    }
}

/// Number to rule; what is absent gets ENOSYS.
fn table(nested: bool) -> BTreeMap<u32, Rule> {
    let mut table = BTreeMap::new();
    let namespaces: &[Group] = if nested { allowed::NESTED } else { refused::NAMESPACES };
    for group in [allowed::GROUPS, refused::GROUPS, namespaces].into_iter().flatten() {
        for call in group.calls {
            let number = u32::try_from(*call).expect("system call numbers are small");
            let earlier = table.insert(number, group.rule);
            debug_assert!(earlier.is_none(), "system call {number} is in two groups");
        }
    }
    table
}

#[cfg(test)]
mod tests;
