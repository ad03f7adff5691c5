//! The filter run by a small interpreter, against the table it was made from.

use super::*;

/// Runs classic BPF over a `seccomp_data`. Panics on what the kernel would refuse to load.
fn run(program: &[sock_filter], number: u32, arch: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0_u64.to_ne_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    for _ in 0..program.len() {
        let step = program[at];
        let taken = |condition: bool| usize::from(if condition { step.jt } else { step.jf });
        at += 1;
        match u32::from(step.code) {
            0x20 => {
                let place = usize::try_from(step.k).expect("small");
                let word = data[place..place + 4].try_into().expect("four bytes");
                accumulator = u32::from_ne_bytes(word);
            }
            0x54 => accumulator &= step.k,
            0x06 => return step.k,
            0x05 => at += usize::try_from(step.k).expect("small"),
            0x15 => at += taken(accumulator == step.k),
            0x35 => at += taken(accumulator >= step.k),
            0x45 => at += taken(accumulator & step.k != 0),
            other => panic!("no such opcode {other:#x}"),
        }
    }
    panic!("the filter ended without a verdict");
}

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;

fn verdict(nested: bool, call: libc::c_long, arguments: &[u64]) -> Result<(), i32> {
    let filters = Filters::build();
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let program = if nested { &filters.nested } else { &filters.plain };
    match run(program, u32::try_from(call).expect("small"), X86_64, all) {
        ALLOW => Ok(()),
        other => Err(i32::from(u16::try_from(other & 0xffff).expect("masked"))),
    }
}

#[test]
fn every_number_gets_the_rule_of_the_table() {
    for nested in [false, true] {
        let table = table(nested);
        let filters = Filters::build();
        let program = if nested { &filters.nested } else { &filters.plain };
        assert!(program.len() < 1000, "{} instructions", program.len());
        for number in (0..2000).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, u32::MAX]) {
            let got = run(program, number, X86_64, [0; 6]);
            match table.get(&number) {
                Some(Rule::Allow) => assert_eq!(got, ALLOW, "{number}"),
                Some(Rule::Refuse(errno)) => {
                    assert_eq!(got, 0x5_0000 | errno.cast_unsigned(), "{number}");
                }
                Some(Rule::Judge(_)) => {}
                None => assert_eq!(got, 0x5_0000 | libc::ENOSYS.cast_unsigned(), "{number}"),
            }
            assert_ne!(run(program, number, I386, [0; 6]), ALLOW, "i386 {number}");
        }
    }
}

#[test]
fn arguments_decide() {
    let cases: &[(libc::c_long, &[u64], Result<(), i32>)] = &[
        (libc::SYS_clone, &[0x0120_0011], Ok(())),
        (libc::SYS_clone, &[0x1000_0011], Err(libc::EPERM)),
        (libc::SYS_clone, &[0x0002_0011], Err(libc::EPERM)),
        (libc::SYS_unshare, &[0x400], Ok(())),
        (libc::SYS_unshare, &[0x4000_0000], Err(libc::EPERM)),
        (libc::SYS_unshare, &[0x0200_0000], Err(libc::EPERM)),
        (libc::SYS_clone3, &[], Err(libc::ENOSYS)),
        (libc::SYS_socket, &[1, 1, 0], Ok(())),
        (libc::SYS_socket, &[2, 1, 0], Ok(())),
        (libc::SYS_socket, &[2, 0x80802, 17], Ok(())),
        (libc::SYS_socket, &[10, 2, 58], Ok(())),
        (libc::SYS_socket, &[2, 3, 1], Err(libc::EPERM)),
        (libc::SYS_socket, &[10, 0x80003, 255], Err(libc::EPERM)),
        (libc::SYS_socket, &[2, 1, 262], Err(libc::EPROTONOSUPPORT)),
        (libc::SYS_socket, &[2, 5, 132], Err(libc::ESOCKTNOSUPPORT)),
        (libc::SYS_socket, &[16, 3, 0], Ok(())),
        (libc::SYS_socket, &[16, 3, 9], Err(libc::EPROTONOSUPPORT)),
        (libc::SYS_socket, &[16, 3, 15], Err(libc::EPROTONOSUPPORT)),
        (libc::SYS_socket, &[17, 3, 0], Err(libc::EPERM)),
        (libc::SYS_socket, &[38, 5, 0], Err(libc::EAFNOSUPPORT)),
        (libc::SYS_socket, &[40, 1, 0], Err(libc::EAFNOSUPPORT)),
        (libc::SYS_socket, &[44, 3, 0], Err(libc::EAFNOSUPPORT)),
        (libc::SYS_ioctl, &[0, 0x5412], Err(libc::EPERM)),
        // The high half of a request is not read by the kernel, so it must not help.
        (libc::SYS_ioctl, &[0, 0x1_0000_5412], Err(libc::EPERM)),
        (libc::SYS_ioctl, &[0, 0x5413], Ok(())),
        (libc::SYS_ioctl, &[0, 0x541c], Err(libc::EPERM)),
        (libc::SYS_personality, &[0xffff_ffff], Ok(())),
        (libc::SYS_personality, &[0x0004_0000], Ok(())),
        (libc::SYS_personality, &[0x0040_0000], Err(libc::EPERM)),
        (libc::SYS_mmap, &[0, 4096, 3, 0x22], Ok(())),
        (libc::SYS_mmap, &[0, 4096, 3, 0x4_0022], Err(libc::ENOMEM)),
        (libc::SYS_memfd_create, &[0, 3], Ok(())),
        (libc::SYS_memfd_create, &[0, 4], Err(libc::EINVAL)),
        (libc::SYS_shmget, &[0, 4096, 0o1600], Ok(())),
        (libc::SYS_shmget, &[0, 4096, 0o5600], Err(libc::ENOMEM)),
        (libc::SYS_prlimit64, &[1, 7, 0, 0x7fff_0000_0000], Ok(())),
        (libc::SYS_prlimit64, &[1, 7, 0x7fff_0000_0000], Err(libc::EPERM)),
        (libc::SYS_prlimit64, &[1, 7, 0x1000], Err(libc::EPERM)),
        (libc::SYS_prlimit64, &[0, 7, 0x1000], Ok(())),
        // Answered, and not done: errno 0.
        (libc::SYS_prlimit64, &[0, 4, 0x1000], Err(0)),
        (libc::SYS_setrlimit, &[4, 0x1000], Err(0)),
        (libc::SYS_setrlimit, &[7, 0x1000], Ok(())),
        (libc::SYS_io_setup, &[], Err(libc::ENOSYS)),
        (libc::SYS_bpf, &[], Err(libc::EPERM)),
        (libc::SYS_io_uring_setup, &[], Err(libc::ENOSYS)),
        (libc::SYS_keyctl, &[], Err(libc::ENOSYS)),
        (libc::SYS_mount, &[], Err(libc::EPERM)),
        (libc::SYS_setns, &[], Err(libc::EPERM)),
    ];
    for (call, arguments, wanted) in cases {
        assert_eq!(verdict(false, *call, arguments), *wanted, "{call} {arguments:x?}");
    }
}

#[test]
fn nested_adds_namespaces_and_mounts_and_nothing_else() {
    assert_eq!(verdict(true, libc::SYS_clone, &[0x1000_0011]), Ok(()));
    assert_eq!(verdict(true, libc::SYS_mount, &[]), Ok(()));
    let (plain, nested) = (table(false), table(true));
    let wider: Vec<u32> = nested
        .iter()
        .filter(|(number, rule)| **rule == Rule::Allow && plain.get(number) != Some(&Rule::Allow))
        .map(|(number, _)| *number)
        .collect();
    assert_eq!(wider.len(), allowed::NESTED.iter().map(|group| group.calls.len()).sum::<usize>());
}

#[test]
fn every_group_has_a_reason() {
    let all = [allowed::GROUPS, allowed::NESTED, refused::GROUPS, refused::NAMESPACES];
    assert!(all.into_iter().flatten().all(|group| group.reason.len() > 10));
}
