use super::*;
use std::{
    io::{Read, pipe},
    os::fd::AsFd,
};

fn words(text: &[&str]) -> Vec<CString> {
    text.iter().map(|word| CString::new(*word).expect("no NUL")).collect()
}

fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: our own child and a live status.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    status
}

fn output(request: Spawn<'_>) -> String {
    let (mut reader, writer) = pipe().expect("pipe");
    let mut request = Spawn { fds: vec![], ..request };
    request.fds.push((writer.as_fd(), 1));
    let pid = spawn(&request).expect("started");
    drop(request);
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("output");
    wait(pid);
    text
}

#[test]
fn arguments_environment_and_directory_arrive() {
    let text = output(Spawn {
        programs: candidates("sh", "/nonexistent:/bin").expect("plain"),
        arguments: words(&["sh", "-c", "echo $0 $1 $NAME $PWD $(pwd)", "a", "b"]),
        environment: environment([("NAME", "value")]).expect("plain"),
        directory: Some(CString::new("/usr").expect("plain")),
        ..Spawn::default()
    });
    assert_eq!(text, "a b value /usr /usr\n");
}

#[test]
fn only_named_descriptors_are_open_in_the_child() {
    let (_keep, leak) = pipe().expect("pipe");
    // SAFETY: clears CLOEXEC of our own descriptor, to show that it is closed all the same.
    unsafe { libc::fcntl(leak.as_raw_fd(), libc::F_SETFD, 0) };
    let (extra, _other) = pipe().expect("pipe");
    let (mut reader, writer) = pipe().expect("pipe");
    let request = Spawn {
        programs: words(&["/bin/ls"]),
        arguments: words(&["ls", "/proc/self/fd"]),
        fds: vec![(writer.as_fd(), 1), (extra.as_fd(), 7)],
        ..Spawn::default()
    };
    let pid = spawn(&request).expect("started");
    drop(request);
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("output");
    wait(pid);
    // 0 is what ls opens the directory as: the lowest free number.
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", "1", "7"]);
}

#[test]
fn descriptors_that_sit_on_each_others_numbers_are_swapped() {
    let (mut out, into) = pipe().expect("pipe");
    let (from, mut feed) = pipe().expect("pipe");
    io::Write::write_all(&mut feed, b"swapped").expect("fits");
    drop(feed);
    // The targets are each other's sources.
    let (a, b) = (into.as_raw_fd(), from.as_raw_fd());
    let request = Spawn {
        programs: words(&["/bin/sh"]),
        arguments: words(&["sh", "-c", &format!("cat <&{a} >&{b}")]),
        environment: environment([("PATH", "/bin:/usr/bin")]).expect("plain"),
        fds: vec![(into.as_fd(), b), (from.as_fd(), a)],
        ..Spawn::default()
    };
    let pid = spawn(&request).expect("started");
    drop(request);
    drop((into, from));
    let mut text = String::new();
    out.read_to_string(&mut text).expect("output");
    wait(pid);
    assert_eq!(text, "swapped");
}

#[test]
fn failures_name_their_step_and_leave_no_zombie() {
    let run = |change: fn(&mut Spawn<'_>)| {
        let mut request = Spawn {
            programs: words(&["/bin/true"]),
            arguments: words(&["true"]),
            ..Spawn::default()
        };
        change(&mut request);
        let failed = spawn(&request).expect_err("cannot start");
        (failed.step, failed.source.raw_os_error())
    };
    assert_eq!(
        run(|request| request.directory = Some(c"/nonexistent".to_owned())),
        (Step::Directory, Some(libc::ENOENT))
    );
    assert_eq!(
        run(|request| request.programs = vec![c"/nonexistent".to_owned()]),
        (Step::Execute, Some(libc::ENOENT))
    );
    assert_eq!(
        run(|request| request.programs = vec![c"/etc/passwd".to_owned(), c"/x".to_owned()]),
        (Step::Execute, Some(libc::EACCES))
    );
    assert_eq!(run(|request| request.arguments.clear()).0, Step::Prepare);
    assert_eq!(
        run(|request| {
            request.limits = vec![Limit { resource: libc::RLIMIT_NOFILE, soft: 5, hard: 4 }];
        }),
        (Step::Limits, Some(libc::EINVAL))
    );
}

#[test]
fn identity_session_limits_and_mask_are_taken_on() {
    let text = output(Spawn {
        programs: words(&["/bin/sh"]),
        arguments: words(&[
            "sh",
            "-c",
            "id -u; id -g; id -G; umask; ulimit -n; cut -d' ' -f5,6 /proc/$$/stat; echo $$; \
             grep -E 'SigBlk|SigIgn' /proc/$$/status",
        ]),
        environment: environment([("PATH", "/bin:/usr/bin")]).expect("plain"),
        group: Group::NewSession,
        credentials: Some(Credentials { uid: 65534, gid: 65533, groups: vec![7, 9] }),
        limits: vec![Limit { resource: libc::RLIMIT_NOFILE, soft: 33, hard: 44 }],
        umask: Some(0o27),
        ..Spawn::default()
    });
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..5], ["65534", "65533", "65533 7 9", "0027", "33"]);
    assert_eq!(lines[5], format!("{0} {0}", lines[6]));
    assert_eq!(lines[7..], ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]);
}

#[test]
fn a_script_without_an_interpreter_runs_in_the_shell() {
    use std::os::unix::fs::PermissionsExt;
    let place = std::env::temp_dir().join(format!("pinfold-script-{}", std::process::id()));
    std::fs::write(&place, "echo plain $1\n").expect("written");
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let program = CString::new(place.to_str().expect("plain")).expect("plain");
    let text = output(Spawn {
        programs: vec![program],
        arguments: words(&["script", "word"]),
        script_shell: Some(shell()),
        ..Spawn::default()
    });
    std::fs::remove_file(&place).expect("removed");
    assert_eq!(text, "plain word\n");
}
