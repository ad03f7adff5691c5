//! The terminal in raw mode, given back on every way out: drop, panic, signal.

use std::{
    io,
    sync::{Mutex, Once, PoisonError},
};

use pinfold_types::{Error, ErrorCode, Result, exec::TtySize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// What the terminal was before; the one place that every way out looks at.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// Raw mode of standard input while it lives.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Turns off echo, line editing, signals from keys and translation (termios(3), cfmakeraw).
    pub(crate) fn enter() -> Result<Self> {
        let failed = |error: rustix::io::Errno| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("standard input is not a usable terminal: {error}"),
            )
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw).map_err(failed)?;
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Puts the terminal back as it was; nothing when it is.
pub(crate) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        let _gone = tcsetattr(io::stdin(), OptionalActions::Flush, &before);
    }
}

/// The size of the terminal that standard output, else standard input, is on.
pub(crate) fn size() -> TtySize {
    let found = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok();
    let fit = |cells: u16, usual: u16| if cells == 0 { usual } else { cells.min(10_000) };
    let (cols, rows) = found.map_or((0, 0), |size| (size.ws_col, size.ws_row));
    TtySize { cols: fit(cols, 80), rows: fit(rows, 24) }
}
