//! What we send: standard input, sizes of the terminal, signals.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
};

use bytes::{Bytes, BytesMut};
use pinfold_types::{Error, Result, exec::TtySize};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::terminal;

/// Bytes of standard input read at a time.
const READ_BYTES: usize = 128 << 10;
/// As many interrupts without an end make us leave.
const PATIENCE: u32 = 3;

/// Whether standard input goes to the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// It does.
    Open,
    /// The command reads end of file.
    Closed,
}

/// The next thing to tell the server.
#[derive(Debug)]
pub(super) enum Event {
    Data(Bytes),
    Eof,
    Resize(TtySize),
    Signal(i32),
    /// A signal that ends us too.
    Leave(i32),
    /// `~.` at the start of a line.
    Detach,
}

/// All sources together. [`Input::next`] is cancel safe and never ends.
#[derive(Debug)]
pub(super) struct Input {
    stdin: Option<mpsc::Receiver<Bytes>>,
    escape: Option<Escape>,
    winch: Option<Signal>,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
    interrupts: u32,
}

impl Input {
    pub(super) fn new(stdin: Stdin, tty: bool) -> Result<Self> {
        let listen = |kind| signal(kind).map_err(Error::internal);
        Ok(Self {
            stdin: (stdin == Stdin::Open).then(read_stdin).transpose()?,
            escape: tty.then(Escape::default),
            winch: if tty { Some(listen(SignalKind::window_change())?) } else { None },
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
            interrupts: 0,
        })
    }

    pub(super) async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => {
                    self.interrupts += 1;
                    return if self.interrupts >= PATIENCE { Event::Leave(2) } else { Event::Signal(2) };
                }
                // With a terminal of its own the command hears of our end by a hangup.
                _ = self.terminate.recv() => {
                    return if self.escape.is_some() { Event::Leave(1) } else { Event::Signal(15) };
                }
                _ = self.hangup.recv() => return Event::Leave(1),
                _ = self.quit.recv() => return Event::Signal(3),
                Some(()) = recv(self.winch.as_mut()) => return Event::Resize(terminal::size()),
                data = read(self.stdin.as_mut()) => match data {
                    None => {
                        self.stdin = None;
                        return Event::Eof;
                    }
                    Some(data) => match &mut self.escape {
                        None => return Event::Data(data),
                        Some(escape) => match escape.filter(&data) {
                            None => return Event::Detach,
                            Some(data) if data.is_empty() => {}
                            Some(data) => return Event::Data(data),
                        },
                    },
                },
            }
        }
    }
}

async fn recv(signal: Option<&mut Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

async fn read(stdin: Option<&mut mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    match stdin {
        Some(stdin) => stdin.recv().await,
        None => std::future::pending().await,
    }
}

/// A thread that may block in read(2) for as long as it likes: it ends with the process.
fn read_stdin() -> Result<mpsc::Receiver<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    let own = io::stdin().as_fd().try_clone_to_owned().map_err(Error::internal)?;
    let mut file = File::from(own);
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(move || {
            let mut buffer = BytesMut::zeroed(READ_BYTES);
            loop {
                match file.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        let data = if count > READ_BYTES / 2 {
                            let full = std::mem::replace(&mut buffer, BytesMut::zeroed(READ_BYTES));
                            full.freeze().slice(..count)
                        } else {
                            Bytes::copy_from_slice(&buffer[..count])
                        };
                        if sender.blocking_send(data).is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        })
        .map_err(Error::internal)?;
    Ok(receiver)
}

/// Finds `~.` at the start of a line, as ssh does; `~~` sends one `~`.
#[derive(Debug)]
struct Escape {
    line_start: bool,
    tilde: bool,
}

impl Default for Escape {
    fn default() -> Self {
        Self { line_start: true, tilde: false }
    }
}

impl Escape {
    /// What is to be sent of `data`, or `None` when the escape was typed.
    fn filter(&mut self, data: &[u8]) -> Option<Bytes> {
        let mut out = BytesMut::with_capacity(data.len() + 1);
        for &byte in data {
            if std::mem::take(&mut self.tilde) {
                match byte {
                    b'.' => return None,
                    b'~' => {}
                    _ => out.extend_from_slice(b"~"),
                }
            } else if self.line_start && byte == b'~' {
                self.tilde = true;
                self.line_start = false;
                continue;
            }
            out.extend_from_slice(&[byte]);
            self.line_start = matches!(byte, b'\r' | b'\n');
        }
        Some(out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_is_found_only_at_the_start_of_a_line() {
        let typed = |text: &str| {
            let mut escape = Escape::default();
            // Byte by byte, as keys arrive.
            let mut out = Vec::new();
            for byte in text.bytes() {
                out.extend_from_slice(&escape.filter(&[byte])?);
            }
            Some(String::from_utf8(out).expect("text"))
        };
        assert_eq!(typed("~."), None);
        assert_eq!(typed("ls\r~."), None);
        assert_eq!(typed("ls ~.\r").as_deref(), Some("ls ~.\r"));
        assert_eq!(typed("~~.").as_deref(), Some("~."));
        assert_eq!(typed("~/x").as_deref(), Some("~/x"));
    }
}
