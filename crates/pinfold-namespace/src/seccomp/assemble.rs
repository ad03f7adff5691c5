//! From a table of rules to classic BPF (`linux/filter.h`, seccomp(2)).

use std::collections::BTreeMap;

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET,
    BPF_W, sock_filter,
};

use super::{Judge, Rule};

/// `AUDIT_ARCH_*` of the programs that may run. Others (i386, x32) would have other numbers.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets in `struct seccomp_data`, little-endian: the low half of an argument comes first.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | u32::try_from(number).expect("errnos are positive")
}

fn code(parts: u32) -> u16 {
    u16::try_from(parts).expect("opcodes are 16 bits")
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: code(BPF_LD | BPF_W | BPF_ABS), jt: 0, jf: 0, k: offset }
}

fn ret(value: u32) -> sock_filter {
    sock_filter { code: code(BPF_RET | BPF_K), jt: 0, jf: 0, k: value }
}

fn and(mask: u32) -> sock_filter {
    sock_filter { code: code(BPF_ALU | BPF_AND | BPF_K), jt: 0, jf: 0, k: mask }
}

fn jump(kind: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code(BPF_JMP | kind | BPF_K), jt, jf, k }
}

/// `if accumulator is one of values, then return value`, falling through otherwise.
fn return_if_any(values: &[u32], value: u32) -> Vec<sock_filter> {
    values.iter().flat_map(|k| [jump(BPF_JEQ, *k, 0, 1), ret(value)]).collect()
}

/// The whole filter: right architecture, then a search for the number.
pub(super) fn assemble(table: &BTreeMap<u32, Rule>) -> Vec<sock_filter> {
    let mut program =
        vec![load(ARCH), jump(BPF_JEQ, ARCHITECTURE, 1, 0), ret(errno(libc::ENOSYS)), load(NUMBER)];
    program.extend(search(&runs(table)));
    program
}

/// Numbers from `start` to the next run's start have `rule`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    start: u32,
    rule: Rule,
}

fn runs(table: &BTreeMap<u32, Rule>) -> Vec<Run> {
    let unknown = Rule::Refuse(libc::ENOSYS);
    let mut runs: Vec<Run> = vec![Run { start: 0, rule: unknown }];
    let mut push = |start, rule| {
        let last = runs.last_mut().expect("never empty");
        if last.start == start {
            last.rule = rule;
        } else if last.rule != rule {
            runs.push(Run { start, rule });
        }
    };
    for (number, rule) in table {
        push(*number, *rule);
        // Ends the run, unless the next number goes on with it.
        if table.get(&(number + 1)) != Some(rule) {
            push(number + 1, table.get(&(number + 1)).copied().unwrap_or(unknown));
        }
    }
    // Two neighbours can have come to be equal where a run was replaced at its start.
    runs.dedup_by(|next, previous| next.rule == previous.rule);
    runs
}

fn search(runs: &[Run]) -> Vec<sock_filter> {
    let [only] = runs else {
        let (low, high) = runs.split_at(runs.len() / 2);
        let (below, from) = (search(low), search(high));
        let start = high[0].start;
        let distance = below.len();
        let mut program = match u8::try_from(distance) {
            Ok(near) => vec![jump(BPF_JGE, start, near, 0)],
            // Conditional jumps reach 255 instructions; beyond, over an unconditional one.
            Err(_) => vec![
                jump(BPF_JGE, start, 0, 1),
                jump(BPF_JA, u32::try_from(distance).expect("far below 4096"), 0, 0),
            ],
        };
        program.extend(below);
        program.extend(from);
        return program;
    };
    match only.rule {
        Rule::Allow => vec![ret(ALLOW)],
        Rule::Refuse(number) => vec![ret(errno(number))],
        Rule::Judge(judge) => judged(judge),
    }
}

fn judged(judge: Judge) -> Vec<sock_filter> {
    match judge {
        Judge::NamespaceFlags => namespace_flags(),
        Judge::Socket => socket(),
        Judge::Ioctl => ioctl(),
        Judge::Personality => personality(),
        Judge::RefuseBits { argument: index, bits, errno: number } => vec![
            load(argument(index)),
            jump(BPF_JSET, bits.cast_unsigned(), 0, 1),
            ret(errno(number)),
            ret(ALLOW),
        ],
        Judge::ProcessLimit => process_limit(),
        Judge::OwnLimit => {
            let mut program = vec![load(argument(0))];
            program.extend(return_if_any(&[libc::RLIMIT_CORE], errno(0)));
            program.push(ret(ALLOW));
            program
        }
    }
}

fn namespace_flags() -> Vec<sock_filter> {
    // CLONE_NEWTIME shares its bit with clone's exit signal; unshare alone takes it, and the
    // kernel refuses it without CAP_SYS_ADMIN.
    let flags = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let mask = flags.iter().fold(0, |mask, flag| mask | flag.cast_unsigned());
    vec![load(argument(0)), jump(BPF_JSET, mask, 0, 1), ret(errno(libc::EPERM)), ret(ALLOW)]
}

fn socket() -> Vec<sock_filter> {
    let family = |family: libc::c_int| u32::try_from(family).expect("families are positive");
    // Families first: unix as it is, netlink and internet to be looked at, others refused.
    // EPERM is what packet sockets give without CAP_NET_RAW; for the rest the kernel might as
    // well not have the family.
    let internet = {
        let mut body = vec![load(argument(1)), and(0xf)];
        body.extend([
            jump(BPF_JEQ, family(libc::SOCK_STREAM), 4, 0),
            jump(BPF_JEQ, family(libc::SOCK_DGRAM), 3, 0),
            jump(BPF_JEQ, family(libc::SOCK_RAW), 0, 1),
            ret(errno(libc::EPERM)),
            ret(errno(libc::ESOCKTNOSUPPORT)),
        ]);
        body.push(load(argument(2)));
        // Multipath TCP, SCTP and UDP-Lite are more kernel than anyone needs on a loopback.
        let protocols =
            [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];
        body.extend(return_if_any(&protocols.map(family), ALLOW));
        body.push(ret(errno(libc::EPROTONOSUPPORT)));
        body
    };
    // Routing answers getifaddrs and `ip`; audit, uevents, netfilter and the rest are the host's.
    let netlink = {
        let mut body = vec![load(argument(2))];
        body.extend(return_if_any(&[family(libc::NETLINK_ROUTE)], ALLOW));
        body.push(ret(errno(libc::EPROTONOSUPPORT)));
        body
    };
    let mut program = vec![load(argument(0))];
    program.extend(return_if_any(&[family(libc::AF_UNIX)], ALLOW));
    program.extend(return_if_any(&[family(libc::AF_PACKET)], errno(libc::EPERM)));
    let over_netlink = u8::try_from(netlink.len()).expect("short");
    program.push(jump(BPF_JEQ, family(libc::AF_NETLINK), 0, over_netlink));
    program.extend(netlink);
    program.push(jump(BPF_JEQ, family(libc::AF_INET), 2, 0));
    program.push(jump(BPF_JEQ, family(libc::AF_INET6), 1, 0));
    program.push(ret(errno(libc::EAFNOSUPPORT)));
    program.extend(internet);
    program
}

fn ioctl() -> Vec<sock_filter> {
    /// Console functions, among them pasting a selection.
    const TIOCLINUX: u32 = 0x541c;
    let number = |request: libc::Ioctl| u32::try_from(request).expect("32-bit requests");
    // The kernel reads 32 bits of the request, so comparing 32 misses nothing.
    let refused = [number(libc::TIOCSTI), TIOCLINUX, number(libc::TIOCSETD)];
    let mut program = vec![load(argument(1))];
    program.extend(return_if_any(&refused, errno(libc::EPERM)));
    program.push(ret(ALLOW));
    program
}

fn process_limit() -> Vec<sock_filter> {
    // Without new limits (a null pointer, 64 bits wide) it only asks.
    let mut program = vec![
        load(argument(2)),
        jump(BPF_JEQ, 0, 0, 3),
        load(argument(2) + 4),
        jump(BPF_JEQ, 0, 0, 1),
        ret(ALLOW),
        load(argument(0)),
    ];
    program.extend(return_if_any(&[1], errno(libc::EPERM)));
    program.push(load(argument(1)));
    program.extend(return_if_any(&[libc::RLIMIT_CORE], errno(0)));
    program.push(ret(ALLOW));
    program
}

fn personality() -> Vec<sock_filter> {
    /// Only asks.
    const QUERY: u32 = u32::MAX;
    const LINUX: u32 = 0;
    const LINUX32: u32 = 8;
    let fixed_addresses = libc::ADDR_NO_RANDOMIZE.cast_unsigned();
    let allowed = [LINUX, LINUX32, fixed_addresses, fixed_addresses | LINUX32, QUERY];
    let mut program = vec![load(argument(0))];
    program.extend(return_if_any(&allowed, ALLOW));
    program.push(ret(errno(libc::EPERM)));
    program
}
