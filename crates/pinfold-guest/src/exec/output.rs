//! From a command's pipes into its ring.

use std::{cell::Cell, io, os::fd::OwnedFd, rc::Rc, time::Duration};

use bytes::BytesMut;
use pinfold_proto::Kind;
use pinfold_sys::fill::read_into;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::{AHEAD, Exec, MAX_LEFTOVERS};

/// First and largest size of a read buffer.
const SMALL: usize = 8 << 10;
const LARGE: usize = 256 << 10;
/// Size of a pipe whose writer keeps it full.
const WIDE_PIPE: usize = 1 << 20;
/// How long a terminal may take to hang up after its session's leader has ended.
const HANG_UP: Duration = Duration::from_millis(250);

/// Reads one output until its end, or until the command has exited and all it wrote is read.
/// Other processes that still hold it open are read into nothing from then on, so that they
/// neither stop nor die of it.
pub(super) async fn pump(
    exec: &Rc<Exec>,
    output: Option<(Kind, Rc<AsyncFd<OwnedFd>>)>,
    leftovers: &Rc<Cell<usize>>,
) {
    let Some((kind, pipe)) = output else { return };
    let (mut buffer, mut size) = (BytesMut::new(), SMALL);
    loop {
        wait_for_room(exec).await;
        let exited = exec.status.get().is_some();
        if buffer.capacity() - buffer.len() < size / 2 {
            buffer = BytesMut::with_capacity(size);
        }
        let room = buffer.capacity();
        let tried = if exited {
            read_into(&*pipe, &mut buffer, LARGE)
        } else {
            tokio::select! {
                biased;
                ready = pipe.readable() => match ready {
                    Ok(mut ready) => match ready.try_io(|fd| read_into(fd, &mut buffer, LARGE)) {
                        Ok(tried) => tried,
                        Err(_would_block) => continue,
                    },
                    Err(_) => return,
                },
                () = exec.has_exited() => continue,
            }
        };
        match tried {
            Ok(0) => return,
            Ok(n) => {
                let count =
                    if kind == Kind::Data2 { &exec.stderr_bytes } else { &exec.stdout_bytes };
                count.set(count.get() + n as u64);
                let keep = if exec.background { u64::MAX } else { exec.taken.get() };
                exec.ring.borrow_mut().push(kind, buffer.split(), keep);
                exec.grown.notify_waiters();
                if n == room && size < LARGE {
                    size = (size * 4).min(LARGE);
                    if size == LARGE && !exec.tty {
                        // Beyond the user's allowance for pipes it just stays as it is.
                        let _ = rustix::pipe::fcntl_setpipe_size(&*pipe, WIDE_PIPE);
                    }
                }
                if exited || n >= SMALL {
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Exited, and what it wrote is read. A terminal passes bytes on a little later
                // and then hangs up.
                if exec.tty && tokio::time::timeout(HANG_UP, hung_up(&pipe)).await == Ok(true) {
                    continue;
                }
                swallow(pipe, leftovers);
                return;
            }
            // EIO: the last holder of the terminal has closed it.
            Err(_) => return,
        }
    }
}

/// Waits until there is something to read or the other side is gone.
async fn hung_up(pipe: &AsyncFd<OwnedFd>) -> bool {
    loop {
        let Ok(mut ready) = pipe.readable().await else { return false };
        match rustix::io::read(pipe, &mut [0_u8; 0][..]) {
            Ok(_) | Err(Errno::IO) => {}
            Err(_) => return false,
        }
        let mut watched = [rustix::event::PollFd::new(pipe, rustix::event::PollFlags::IN)];
        match rustix::event::poll(&mut watched, Some(&rustix::event::Timespec::default())) {
            Ok(0) => ready.clear_ready(),
            _ => return true,
        }
    }
}

/// A foreground command may be ahead of its reader by so much and no more; a background one
/// never waits.
async fn wait_for_room(exec: &Exec) {
    while !exec.background && exec.ring.borrow().end().saturating_sub(exec.taken.get()) >= AHEAD {
        exec.freed.notified().await;
    }
}

fn swallow(pipe: Rc<AsyncFd<OwnedFd>>, leftovers: &Rc<Cell<usize>>) {
    if leftovers.get() >= MAX_LEFTOVERS {
        return;
    }
    leftovers.set(leftovers.get() + 1);
    let leftovers = Rc::clone(leftovers);
    tokio::task::spawn_local(async move {
        let mut buffer = BytesMut::with_capacity(4096);
        loop {
            let Ok(mut ready) = pipe.readable().await else { break };
            buffer.clear();
            match ready.try_io(|fd| read_into(fd, &mut buffer, 4096)) {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => tokio::task::yield_now().await,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => break,
                Err(_would_block) => {}
            }
        }
        leftovers.set(leftovers.get().saturating_sub(1));
    });
}
