//! From a request to a running process.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    rc::Rc,
};

use pinfold_proto::Kind;
use pinfold_sys::spawn::{self, Credentials, Group, Limit, Spawn, SpawnError, Step};
use pinfold_types::{
    Error, ErrorCode,
    exec::{Command, ExecSpec, TtySize},
    name::excerpt,
};
use rustix::{
    fs::{Gid, Mode, OFlags, Uid},
    pipe::PipeFlags,
    pty::OpenptFlags,
    termios::Winsize,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::tree::Mark;
use crate::{
    failure,
    guest::Guest,
    passwd::{Accounts, Identity},
    watched,
};

/// Not started: why, and the code a shell would give.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: Error,
    pub(super) exit_code: Option<i32>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, exit_code: None }
    }
}

/// A process that runs.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) pid: i32,
    pub(super) mark: Mark,
    pub(super) input: Option<Rc<AsyncFd<OwnedFd>>>,
    pub(super) outputs: Vec<(Kind, Rc<AsyncFd<OwnedFd>>)>,
    pub(super) terminal: Option<Rc<AsyncFd<OwnedFd>>>,
}

/// `/etc/passwd` and `/etc/group` as last read, with what says whether they changed.
#[derive(Debug, Default)]
pub(super) struct AccountCache {
    seen: Option<[Option<[i64; 5]>; 2]>,
    accounts: Accounts,
}

impl AccountCache {
    fn find(&mut self, user: &str) -> Result<Identity, Error> {
        let now = ["/etc/passwd", "/etc/group"].map(|path| {
            let facts = fs::metadata(path).ok()?;
            let inode = facts.ino().cast_signed();
            Some([inode, facts.mtime(), facts.mtime_nsec(), facts.ctime_nsec(), facts.ctime()])
        });
        if self.seen != Some(now) {
            self.accounts = Accounts::load();
            self.seen = Some(now);
        }
        self.accounts.find(user)
    }
}

/// The streams of a command: the child's ends and ours.
struct Streams {
    child: Vec<(OwnedFd, i32)>,
    input: Option<Rc<AsyncFd<OwnedFd>>>,
    outputs: Vec<(Kind, Rc<AsyncFd<OwnedFd>>)>,
    terminal: Option<Rc<AsyncFd<OwnedFd>>>,
}

fn ours(fd: OwnedFd, interest: Interest) -> io::Result<Rc<AsyncFd<OwnedFd>>> {
    // Our end only: the child's end is another open file.
    rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
    Ok(Rc::new(watched::watched(fd, interest)?))
}

fn pipes(stdin: bool) -> io::Result<Streams> {
    let (out, out_child) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (err, err_child) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (input, in_child) = if stdin {
        let (theirs, mine) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        (Some(ours(mine, Interest::WRITABLE)?), theirs)
    } else {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        (None, rustix::fs::open("/dev/null", flags, Mode::empty())?)
    };
    Ok(Streams {
        child: vec![(in_child, 0), (out_child, 1), (err_child, 2)],
        input,
        outputs: vec![
            (Kind::Data1, ours(out, Interest::READABLE)?),
            (Kind::Data2, ours(err, Interest::READABLE)?),
        ],
        terminal: None,
    })
}

fn terminal(size: TtySize, who: &Identity) -> io::Result<Streams> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    let cells = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, cells)?;
    if who.uid != 0 {
        // So that the user may open it by name. tmux wants that, most programs do not.
        let (user, group) = (Some(Uid::from_raw(who.uid)), None::<Gid>);
        let _ = rustix::fs::fchown(&slave, user, group);
    }
    let again = |fd: &OwnedFd| fd.try_clone();
    let master = ours(master, Interest::READABLE | Interest::WRITABLE)?;
    Ok(Streams {
        child: vec![(again(&slave)?, 0), (again(&slave)?, 1), (slave, 2)],
        input: Some(Rc::clone(&master)),
        outputs: vec![(Kind::Data1, Rc::clone(&master))],
        terminal: Some(master),
    })
}

fn text(word: &str) -> Result<CString, Error> {
    CString::new(word)
        .map_err(|_| Error::new(ErrorCode::InvalidArgument, "the command contains a NUL byte"))
}

/// Starts what `spec` asks for.
pub(super) fn launch(guest: &Guest, spec: &mut ExecSpec) -> Result<Launched, Refused> {
    let user = spec.user.as_deref().or(guest.user.as_deref()).unwrap_or("0");
    let who = guest.execs.accounts.borrow_mut().find(user)?;

    let environment = guest.environment.borrow();
    let variables = environment.compose(&who, &guest.hostname, spec.tty.is_some(), &spec.env);
    let path = variables.get("PATH").copied().unwrap_or_default().to_owned();
    let environment = spawn::environment(variables)
        .map_err(|_| Error::new(ErrorCode::InvalidArgument, "the environment has a NUL byte"))?;

    let words: Vec<&str> = match &spec.command {
        Command::Argv(words) => words.iter().map(String::as_str).collect(),
        Command::Shell(line) => vec!["/bin/sh", "-c", line],
    };
    let program = words.first().copied().unwrap_or_default();
    let programs = spawn::candidates(program, &path)
        .map_err(|_| Error::new(ErrorCode::InvalidArgument, "the command contains a NUL byte"))?;
    let arguments = words.iter().map(|word| text(word)).collect::<Result<Vec<_>, _>>()?;

    // A directory that was asked for must be there; one that is only usual may be missing.
    let usual = guest.cwd.as_deref().into_iter().chain([who.home.as_str()]);
    let directory = match &spec.cwd {
        Some(asked) => asked.clone(),
        None => usual
            .into_iter()
            .find(|place| fs::metadata(place).is_ok_and(|facts| facts.is_dir()))
            .unwrap_or("/")
            .to_owned(),
    };

    let streams = match spec.tty {
        Some(size) => terminal(size, &who),
        None => pipes(spec.stdin),
    };
    let streams = streams.map_err(|error| failure::on("make the command's streams", &error))?;
    let mark = guest.execs.marks.next();
    let request = Spawn {
        programs,
        arguments,
        environment,
        fds: streams.child.iter().map(|(fd, number)| (fd.as_fd(), *number)).collect(),
        directory: Some(text(&directory)?),
        group: if spec.tty.is_some() { Group::Terminal } else { Group::NewSession },
        credentials: (who.uid != 0 || who.gid != 0 || who.groups != guest.execs.marks.groups())
            .then(|| Credentials { uid: who.uid, gid: who.gid, groups: who.groups.clone() }),
        limits: vec![Limit { resource: Mark::RESOURCE, soft: mark.value(), hard: mark.value() }],
        umask: Some(0o022),
        first_to_go: Some(guest.score.first_to_go()),
        script_shell: Some(spawn::shell()),
    };
    let started = spawn::spawn(&request);
    if request.credentials.is_some() {
        // The child shared our memory when it changed its identity, and the kernel then sets the
        // dumpable flag of that memory to the machine's default.
        let off = rustix::process::DumpableBehavior::NotDumpable;
        let _ = rustix::process::set_dumpable_behavior(off);
    }
    let pid = started.map_err(|error| refused(&error, program, &directory, user))?;
    let Streams { input, outputs, terminal, child: _ } = streams;
    Ok(Launched { pid, mark, input, outputs, terminal })
}

fn refused(error: &SpawnError, program: &str, directory: &str, user: &str) -> Refused {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(&error.source);
    let program = excerpt(program);
    let (exit_code, error) = match (error.step, errno) {
        (Step::Execute, Some(Errno::NOENT)) => (
            Some(127),
            Error::new(ErrorCode::NotFound, format!("{program:?} is not found in the workspace"))
                .hint("check the name and PATH, or give its full path"),
        ),
        (Step::Execute, Some(Errno::TOOBIG)) => (
            Some(126),
            Error::new(
                ErrorCode::TooLarge,
                format!(
                    "the arguments of {program:?} and its environment are too long for the kernel"
                ),
            )
            .hint("128 KiB is the most for one argument: send long text through standard input"),
        ),
        (Step::Execute, _) => (Some(126), failure::on_path("run", &program, &error.source)),
        (Step::Directory, _) => (None, failure::on_path("start in", directory, &error.source)),
        (Step::Credentials, _) => (
            None,
            failure::on(&format!("become user {:?}", excerpt(user)), &error.source)
                .hint("ids inside a workspace go up to the size of its range"),
        ),
        (Step::Clone, Some(Errno::AGAIN)) => (
            None,
            Error::new(
                ErrorCode::QuotaExceeded,
                format!("cannot start {program:?}: the workspace has as many processes as it may"),
            )
            .hint("end some, or raise its pids limit"),
        ),
        (step, _) => (
            None,
            failure::on(&format!("start {program:?}"), &error.source).context(format!("{step:?}")),
        ),
    };
    Refused { error, exit_code }
}
