//! A terminal to run the program on.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::program::pinfold;

/// The program on a terminal of its own, and what it has shown so far.
pub(crate) struct OnTerminal {
    master: File,
    /// Kept open, so that its settings can be looked at after the program has ended.
    terminal: File,
    before: Termios,
    pub(crate) child: Child,
    shown: std::sync::mpsc::Receiver<Vec<u8>>,
    text: String,
}

impl OnTerminal {
    pub(crate) fn start(home: &Path, words: &[&str], size: (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("text");
        let terminal = File::options().read(true).write(true).open(name).expect("the terminal");
        let winsize = Winsize { ws_col: size.0, ws_row: size.1, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, winsize).expect("a size");
        let before = tcgetattr(&terminal).expect("settings");
        let end_of_it = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        let child = pinfold(home)
            .args(words)
            .env("TERM", "xterm")
            .stdin(end_of_it())
            .stdout(end_of_it())
            .stderr(end_of_it())
            .spawn()
            .expect("it starts");
        let master = File::from(master);
        let mut reader = master.try_clone().expect("a descriptor");
        let (send, shown) = std::sync::mpsc::sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { master, terminal, before, child, shown, text: String::new() }
    }

    /// Types.
    pub(crate) fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("typed");
    }

    /// Waits until this is shown; what came before it is forgotten.
    #[track_caller]
    pub(crate) fn expect(&mut self, wanted: &str) {
        loop {
            if let Some(at) = self.text.find(wanted) {
                self.text.drain(..at + wanted.len());
                return;
            }
            let Ok(more) = self.shown.recv_timeout(Duration::from_mins(1)) else {
                panic!("{wanted:?} was never shown, only {:?}", self.text);
            };
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
    }

    /// Gives the terminal another size. The kernel would tell a foreground process; ours is
    /// told by hand.
    pub(crate) fn resize(&self, cols: u16, rows: u16) {
        let winsize = Winsize { ws_col: cols, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.terminal, winsize).expect("a size");
        self.signal(rustix::process::Signal::WINCH);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid fits");
        let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
        rustix::process::kill_process(pid, signal).expect("our child");
    }

    /// The exit code; the terminal must be as it was.
    #[track_caller]
    pub(crate) fn end(mut self) -> i32 {
        let status = self.child.wait().expect("it ends");
        let after = tcgetattr(&self.terminal).expect("settings");
        assert_eq!(
            (after.local_modes, after.input_modes, after.output_modes),
            (self.before.local_modes, self.before.input_modes, self.before.output_modes),
            "the terminal was not given back"
        );
        status.code().unwrap_or(-1)
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
