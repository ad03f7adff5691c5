//! Commands: their table, their life from start to result.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pinfold_proto::Kind;
use pinfold_sys::signal::{self, Target};
use pinfold_types::{
    Error, ErrorCode, ExecId,
    exec::{Command, ExecInfo, ExecResult, ExecSpec, ExitReason, TtySize, check_tty},
    limits::MAX_EXECS_PER_WORKSPACE,
};
use rustix::{
    process::{WaitOptions, WaitStatus},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{io::unix::AsyncFd, sync::Notify};

use crate::{failure, guest::Guest};

mod attach;
mod environment;
mod launch;
mod output;
pub mod ring;
mod score;
mod tree;

pub use attach::attach;
pub use environment::Environment;
use launch::{Launched, launch};
use ring::Ring;
pub use score::OomScore;

/// Ended commands that are kept for a late look at their output and result.
/// The signal that ends all of a command (signal(7)).
const KILL: i32 = 9;
const KEEP_ENDED: usize = 64;
/// Most output of ended commands kept in all.
const KEEP_BYTES: usize = 16 << 20;
/// How much a foreground command may write beyond what its reader has taken.
const AHEAD: u64 = 1 << 20;
/// Processes of ended commands whose output still has to be swallowed.
const MAX_LEFTOVERS: usize = 256;

/// One command.
#[derive(Debug)]
pub struct Exec {
    id: ExecId,
    command: Command,
    tty: bool,
    background: bool,
    started_at: jiff::Timestamp,
    begun: Instant,
    pid: Cell<Option<i32>>,
    mark: Cell<Option<tree::Mark>>,
    status: Cell<Option<WaitStatus>>,
    exited: Notify,
    timed_out: Cell<bool>,
    /// All that belongs to it is to be killed.
    kill: Notify,
    ring: RefCell<Ring>,
    /// The ring grew, or the result is there.
    grown: Notify,
    taken: Cell<u64>,
    /// The reader took more.
    freed: Notify,
    /// Serial of the newest reader, whose pace a foreground command keeps.
    reader: Cell<u64>,
    input: RefCell<Option<Rc<AsyncFd<OwnedFd>>>>,
    terminal: RefCell<Option<Rc<AsyncFd<OwnedFd>>>>,
    stdout_bytes: Cell<u64>,
    stderr_bytes: Cell<u64>,
    result: RefCell<Option<ExecResult>>,
}

/// Every command, running and lately ended.
#[derive(Debug, Default)]
pub struct Table {
    all: RefCell<HashMap<ExecId, Rc<Exec>>>,
    running: RefCell<HashMap<i32, Rc<Exec>>>,
    ended_order: RefCell<VecDeque<ExecId>>,
    leftovers: Rc<Cell<usize>>,
    marks: tree::Marks,
    childless: Cell<bool>,
    nobody: Notify,
    end: Notify,
    accounts: RefCell<launch::AccountCache>,
}

impl Table {
    /// Starts a command. One that cannot be started is in the table with its result.
    ///
    /// # Errors
    /// `invalid_argument` for a request that breaks the rules, `already_exists` for a known id,
    /// `rate_limited` for too many, `conflict` when the workspace is stopping.
    pub fn start(
        &self,
        guest: &Rc<Guest>,
        id: ExecId,
        mut spec: ExecSpec,
    ) -> Result<Rc<Exec>, Error> {
        spec.check()?;
        if guest.stopping.get() {
            return Err(Error::new(ErrorCode::Conflict, "the workspace is stopping"));
        }
        if self.all.borrow().contains_key(&id) {
            return Err(Error::new(ErrorCode::AlreadyExists, format!("{id} is known already")));
        }
        if self.live() >= MAX_EXECS_PER_WORKSPACE {
            return Err(Error::new(
                ErrorCode::RateLimited,
                format!("the workspace runs {MAX_EXECS_PER_WORKSPACE} commands, the most it may"),
            )
            .hint("wait for one to end, or end one with a signal"));
        }
        let exec = Rc::new(Exec {
            id,
            tty: spec.tty.is_some(),
            background: spec.background,
            started_at: jiff::Timestamp::now(),
            begun: Instant::now(),
            pid: Cell::new(None),
            mark: Cell::new(None),
            status: Cell::new(None),
            exited: Notify::new(),
            timed_out: Cell::new(false),
            kill: Notify::new(),
            ring: RefCell::default(),
            grown: Notify::new(),
            taken: Cell::new(0),
            freed: Notify::new(),
            reader: Cell::new(0),
            input: RefCell::new(None),
            terminal: RefCell::new(None),
            stdout_bytes: Cell::new(0),
            stderr_bytes: Cell::new(0),
            result: RefCell::new(None),
            command: spec.command.clone(),
        });
        self.all.borrow_mut().insert(id, Rc::clone(&exec));
        match launch(guest, &mut spec) {
            Ok(Launched { pid, mark, input, outputs, terminal }) => {
                exec.pid.set(Some(pid));
                exec.mark.set(Some(mark));
                *exec.input.borrow_mut() = input;
                *exec.terminal.borrow_mut() = terminal;
                self.childless.set(false);
                self.running.borrow_mut().insert(pid, Rc::clone(&exec));
                let limit = spec.timeout_ms.map(Duration::from_millis);
                let run = supervise(Rc::clone(guest), Rc::clone(&exec), outputs, limit);
                tokio::task::spawn_local(run);
            }
            Err(refused) => {
                let result = ExecResult {
                    reason: ExitReason::NotStarted,
                    exit_code: refused.exit_code,
                    error: Some(refused.error),
                    ..exec.outcome()
                };
                self.finish(&exec, result);
            }
        }
        Ok(exec)
    }

    /// Finds a command.
    ///
    /// # Errors
    /// `not_found`.
    pub fn get(&self, id: ExecId) -> Result<Rc<Exec>, Error> {
        self.all.borrow().get(&id).cloned().ok_or_else(|| {
            Error::not_found("command", id)
                .hint(format!("the last {KEEP_ENDED} ended commands are remembered"))
        })
    }

    /// Every command known, oldest first.
    pub fn list(&self) -> Vec<ExecInfo> {
        let mut all: Vec<_> = self.all.borrow().values().map(|exec| exec.info()).collect();
        all.sort_by_key(|info| (info.started_at, info.id));
        all
    }

    /// How many have not ended.
    pub fn live(&self) -> usize {
        self.all.borrow().len().saturating_sub(self.ended_order.borrow().len())
    }

    /// Takes every child that has ended off the kernel's list.
    pub fn reap(&self) {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let ended = self.running.borrow_mut().remove(&pid.as_raw_nonzero().get());
                    if let Some(exec) = ended {
                        exec.status.set(Some(status));
                        exec.exited.notify_waiters();
                    }
                }
                Ok(None) => return self.childless.set(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    self.childless.set(true);
                    self.nobody.notify_waiters();
                    return;
                }
            }
        }
    }

    /// Asks every process to end, waits up to `grace`, then kills the rest. Returns once no
    /// process but the guest is left and every command has its result, or a second later.
    pub async fn stop_all(&self, grace: Duration) {
        // Stopped processes would never see the signal.
        for number in [15, 18] {
            drop(signal::send(Target::Everyone, number));
        }
        // Interactive shells ignore TERM; a terminal that goes away ends them.
        for exec in self.running.borrow().values() {
            if let (true, Some(pid)) = (exec.tty, exec.pid.get()) {
                drop(signal::send(Target::Group(pid), 1));
            }
        }
        drop(tokio::time::timeout(grace, self.alone()).await);
        drop(signal::send(Target::Everyone, 9));
        drop(tokio::time::timeout(Duration::from_secs(1), self.alone()).await);
        let finished = async {
            let all: Vec<_> = self.all.borrow().values().cloned().collect();
            for exec in all {
                exec.finished().await;
            }
        };
        drop(tokio::time::timeout(Duration::from_millis(200), finished).await);
    }

    async fn alone(&self) {
        self.reap();
        while !self.childless.get() {
            self.nobody.notified().await;
        }
    }

    /// Lets [`Self::ended`] return.
    pub fn end(&self) {
        self.end.notify_one();
    }

    /// Waits until the guest shall exit.
    pub async fn ended(&self) {
        self.end.notified().await;
    }

    fn finish(&self, exec: &Rc<Exec>, result: ExecResult) {
        *exec.result.borrow_mut() = Some(result);
        exec.input.borrow_mut().take();
        exec.terminal.borrow_mut().take();
        exec.grown.notify_waiters();
        let mut order = self.ended_order.borrow_mut();
        order.push_back(exec.id);
        let mut all = self.all.borrow_mut();
        let mut held: usize =
            order.iter().filter_map(|id| all.get(id)).map(|exec| exec.ring.borrow().held()).sum();
        while order.len() > 1 && (order.len() > KEEP_ENDED || held > KEEP_BYTES) {
            let oldest = order.pop_front().and_then(|id| all.remove(&id));
            held -= oldest.map_or(0, |exec| exec.ring.borrow().held()).min(held);
        }
    }
}

impl Exec {
    /// What callers may know of it.
    pub fn info(&self) -> ExecInfo {
        ExecInfo {
            id: self.id,
            command: self.command.clone(),
            pid: self.pid.get(),
            tty: self.tty,
            background: self.background,
            started_at: self.started_at,
            result: self.result.borrow().clone(),
        }
    }

    /// Signals its process group. `SIGKILL`, which nothing survives anyway, ends every process
    /// that came of it, also those that left the group.
    ///
    /// # Errors
    /// `invalid_argument` for a number outside 1 to 64, `conflict` when it has ended.
    pub fn signal(&self, number: i32) -> Result<(), Error> {
        if !(1..=64).contains(&number) {
            return Err(Error::new(
                ErrorCode::InvalidArgument,
                format!("{number} is not a signal, which is 1 to 64"),
            ));
        }
        let ended = || Error::new(ErrorCode::Conflict, format!("{} has ended", self.id));
        let pid = self.pid.get().filter(|_| self.status.get().is_none()).ok_or_else(ended)?;
        if number == KILL && self.mark.get().is_some() {
            self.kill.notify_one();
            return Ok(());
        }
        // The leader is not reaped yet, so the number still means its group.
        signal::send(Target::Group(pid), number)
            .map_err(|error| failure::on(&format!("signal {}", self.id), &error))
    }

    /// Gives its terminal a new size; without a terminal nothing happens.
    ///
    /// # Errors
    /// `invalid_argument` for a size no terminal has.
    pub fn resize(&self, size: TtySize) -> Result<(), Error> {
        check_tty(size)?;
        if let Some(terminal) = &*self.terminal.borrow() {
            let cells =
                Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
            // The terminal may have gone with its last process.
            let _ = tcsetwinsize(terminal, cells);
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.result.borrow().is_some()
    }

    async fn finished(&self) {
        while !self.is_finished() {
            self.grown.notified().await;
        }
    }

    async fn has_exited(&self) {
        while self.status.get().is_none() {
            self.exited.notified().await;
        }
    }

    /// The result as far as it is known without the reason.
    fn outcome(&self) -> ExecResult {
        let millis = self.begun.elapsed().as_millis();
        ExecResult {
            exec_id: self.id,
            reason: ExitReason::Exited,
            exit_code: None,
            signal: None,
            limits_hit: Vec::new(),
            duration_ms: u64::try_from(millis).unwrap_or(u64::MAX),
            stdout_bytes: self.stdout_bytes.get(),
            stderr_bytes: self.stderr_bytes.get(),
            error: None,
        }
    }
}

/// From start to result.
async fn supervise(
    guest: Rc<Guest>,
    exec: Rc<Exec>,
    outputs: Vec<(Kind, Rc<AsyncFd<OwnedFd>>)>,
    limit: Option<Duration>,
) {
    let deadline = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let leftovers = Rc::clone(&guest.execs.leftovers);
    let pumps = async {
        let mut outputs = outputs.into_iter();
        let (first, second) = (outputs.next(), outputs.next());
        tokio::join!(
            output::pump(&exec, first, &leftovers),
            output::pump(&exec, second, &leftovers)
        );
    };
    let watch = async {
        let timed_out = tokio::select! {
            biased;
            () = exec.has_exited() => return,
            () = exec.kill.notified() => false,
            () = deadline => true,
        };
        exec.timed_out.set(timed_out);
        if let (Some(mark), Some(pid)) = (exec.mark.get(), exec.pid.get()) {
            tree::kill(mark, pid).await;
        }
        exec.has_exited().await;
    };
    tokio::join!(watch, pumps);
    let status = exec.status.get();
    let signal = status.and_then(WaitStatus::terminating_signal);
    let reason = if exec.timed_out.get() {
        ExitReason::TimedOut
    } else if guest.stopping.get() && signal.is_some() {
        ExitReason::WorkspaceStopped
    } else if signal.is_some() {
        ExitReason::Signaled
    } else {
        ExitReason::Exited
    };
    let exit_code = status.and_then(WaitStatus::exit_status);
    guest.execs.finish(&exec, ExecResult { reason, exit_code, signal, ..exec.outcome() });
}

/// Bytes for a command's standard input. Whatever a program does not read is dropped when it ends.
async fn feed(exec: &Exec, data: &Bytes) {
    let mut rest: &[u8] = data;
    while !rest.is_empty() {
        let Some(input) = exec.input.borrow().clone() else { return };
        let ready = tokio::select! {
            ready = input.writable() => ready,
            () = exec.finished() => return,
        };
        let Ok(mut ready) = ready else { return };
        let wrote = ready.try_io(|fd| rustix::io::write(fd, rest).map_err(Into::into));
        match wrote {
            Ok(Ok(n)) => rest = rest.get(n..).unwrap_or_default(),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // Nobody reads any more.
            Ok(Err(_)) => {
                exec.input.borrow_mut().take();
            }
            Err(_would_block) => {}
        }
    }
}
