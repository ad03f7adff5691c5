//! A profile of this process' CPU time, in the format of pprof (`profile.proto`, gzipped), which
//! `go tool pprof`, Speedscope and Pyroscope read.

mod encode;
mod proto;

use std::{
    io,
    sync::mpsc::{RecvTimeoutError, sync_channel},
    time::Duration,
};

use pinfold_sys::profile::{HERTZ, Sampling};
use pinfold_types::{Error, ErrorCode, Result};

/// Longest profile.
pub const MAX: Duration = Duration::from_mins(1);

/// Profiles for `time`, at most [`MAX`], and gives the file. Ends early, with nothing, when the
/// future is dropped.
///
/// # Errors
/// [`ErrorCode::Conflict`] while another profile is under way; [`ErrorCode::Unavailable`] where the
/// kernel does not let us.
pub async fn cpu(time: Duration) -> Result<Vec<u8>> {
    let time = time.min(MAX);
    // A thread of its own: the profile is to end in time also when the runtime is busy.
    let (held, gone) = sync_channel::<()>(1);
    let work = tokio::task::spawn_blocking(move || {
        let began = now_nanos();
        let sampling = Sampling::begin(room(time)).map_err(|error| refused(&error))?;
        match gone.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => {}
            // Whoever asked has gone.
            _ => return Err(Error::new(ErrorCode::Cancelled, "nobody waits for the profile")),
        }
        let samples = sampling.end();
        let file = encode::file(&samples, began, time);
        pinfold_sys::profile::forget_names();
        file.map_err(Error::internal)
    });
    let file = work.await.map_err(Error::internal)?;
    drop(held);
    file
}

/// Samples that so many CPUs can give in this time.
fn room(time: Duration) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let seconds = usize::try_from(time.as_secs()).unwrap_or(1).max(1);
    let hertz = usize::try_from(HERTZ).unwrap_or(1);
    // Some more: the last interval, and a clock that is not exact.
    cores.saturating_mul(seconds).saturating_mul(hertz).saturating_add(hertz)
}

fn refused(error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::ResourceBusy {
        return Error::new(
            ErrorCode::Conflict,
            "a profile is under way, and there is one at a time",
        )
        .hint("try again when it has ended; none takes longer than a minute");
    }
    Error::new(ErrorCode::Unavailable, format!("this kernel gives no profile: {error}"))
}

/// Nanoseconds since 1970.
fn now_nanos() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}
