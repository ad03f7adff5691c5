//! The first lines of PID 1.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::net::UnixListener as StdListener,
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use pinfold_proto::{GuestConfig, frame::MAX_JSON};
use pinfold_sys::{inherit, signal::ChildSignals};
use rustix::process::DumpableBehavior;
use tokio::{io::Interest, net::UnixListener, task::LocalSet};
use zeroize::Zeroizing;

use crate::{api, exec::OomScore, guest::Guest, watched::watched};

/// The listening socket, by agreement with the launcher.
const LISTENER: i32 = 3;
/// The pipe with the configuration.
const CONFIG: i32 = 4;
/// The guest's own `oom_score_adj`, which it could not open itself.
const SCORE: i32 = 5;
/// When what only the start needed may go.
const SETTLED: Duration = Duration::from_millis(300);
/// Threads for file work that may wait.
const FILE_THREADS: usize = 8;

/// Why the guest could not start. The launcher shows its standard error.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot become undumpable")]
    Dumpable(#[source] io::Error),
    #[error("descriptor {0} is not what the launcher promised")]
    Descriptor(i32, #[source] io::Error),
    #[error("the configuration is not readable")]
    Read(#[source] io::Error),
    #[error("the configuration is not what this guest understands")]
    Config(#[source] serde_json::Error),
    #[error("cannot set up the event loop")]
    Runtime(#[source] io::Error),
}

/// Runs the guest until it is told to end.
pub fn run() -> ExitCode {
    // First of all, before a byte of the secret is here: no core, no ptrace, no /proc/1/mem.
    let started = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| StartError::Dumpable(errno.into()))
        .and_then(|()| start());
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let source = std::error::Error::source(&error).map(|why| format!(": {why}"));
            // When even that fails there is nobody to tell.
            drop(writeln!(io::stderr(), "pinfold-guest: {error}{}", source.unwrap_or_default()));
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), StartError> {
    let listener = inherit::take(LISTENER).map_err(|why| StartError::Descriptor(LISTENER, why))?;
    let config = inherit::take(CONFIG).map_err(|why| StartError::Descriptor(CONFIG, why))?;
    let score = inherit::take(SCORE).and_then(|file| OomScore::read(file.into()));
    let score = score.map_err(|why| StartError::Descriptor(SCORE, why))?;
    inherit::close_from(SCORE + 1).map_err(|why| StartError::Descriptor(SCORE + 1, why))?;
    prepare_process();
    let mut config = read_config(File::from(config))?;
    let command = config.command.take();
    // Before the runtime, which may start threads that must not get the signal.
    let signals = ChildSignals::new().map_err(StartError::Runtime)?;
    let listener = StdListener::from(listener);
    listener.set_nonblocking(true).map_err(|why| StartError::Descriptor(LISTENER, why))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(FILE_THREADS)
        .thread_stack_size(256 << 10)
        .build()
        .map_err(StartError::Runtime)?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = UnixListener::from_std(listener).map_err(StartError::Runtime)?;
        // Without it the workspace works, and who connects is told that nobody listens.
        let api = config.api_token.as_ref().and_then(|_| api::listen().ok());
        let guest = Guest::new(config, score, api);
        let signals = watched(signals, Interest::READABLE).map_err(StartError::Runtime)?;
        tokio::task::spawn_local(Rc::clone(&guest).reap(signals));
        if let Some((id, spec)) = command {
            // Its failure is its result, which `execs` shows.
            drop(guest.execs.start(&guest, id, spec));
        }
        tokio::task::spawn_local(Rc::clone(&guest).listen(listener));
        tokio::task::spawn_local(async {
            tokio::time::sleep(SETTLED).await;
            // Only a matter of size: hundreds of idle guests wait at once.
            drop(pinfold_sys::memory::drop_program_pages());
        });
        guest.execs.ended().await;
        Ok(())
    })
}

/// What makes a process a good PID 1. None of it can be forced, and none of it is a wall.
fn prepare_process() {
    // The kernel already ignores, for PID 1, every signal from inside that it has no handler for.
    let _ = rustix::thread::set_name(c"pinfold-guest");
    let _ = rustix::process::chdir("/");
    rustix::process::umask(rustix::fs::Mode::from_bits_retain(0o022));
}

fn read_config(pipe: File) -> Result<GuestConfig, StartError> {
    let limit = MAX_JSON;
    // At its full size from the start, so that growing leaves no copy of the secret behind.
    let mut text = Zeroizing::new(Vec::with_capacity(16 << 10));
    let mut chunk = Zeroizing::new([0_u8; 4096]);
    let mut pipe = pipe.take(limit as u64);
    loop {
        match pipe.read(chunk.as_mut_slice()) {
            Ok(0) => break,
            Ok(n) => {
                if text.len() + n > text.capacity() {
                    let mut larger = Zeroizing::new(Vec::with_capacity(text.capacity() * 4));
                    larger.extend_from_slice(&text);
                    text = larger;
                }
                text.extend_from_slice(chunk.get(..n).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StartError::Read(error)),
        }
    }
    serde_json::from_slice(&text).map_err(StartError::Config)
}
