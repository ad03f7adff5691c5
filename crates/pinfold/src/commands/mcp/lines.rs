//! Standard input and output as lines, within bounds.

use std::{
    io::{self, BufRead, Write},
    thread::JoinHandle,
};

use pinfold_types::{Error, ErrorCode, Result, limits::MAX_BODY_BYTES};
use tokio::sync::mpsc;

/// Lines read ahead, and lines not yet written.
const QUEUE: usize = 8;

/// One line of the client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A message; bytes that are not UTF-8 make it none that any server takes.
    Text(String),
    /// It was longer than a message may be, and is dropped.
    TooLong,
    /// The client has closed its end.
    End,
}

/// Standard input. Read by a thread: it may be a file or a terminal.
#[derive(Debug)]
pub(super) struct Input(mpsc::Receiver<io::Result<Line>>);

impl Input {
    pub(super) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        std::thread::spawn(move || {
            let mut input = io::stdin().lock();
            loop {
                let line = read(&mut input, MAX_BODY_BYTES);
                let ends = !matches!(line, Ok(Line::Text(_) | Line::TooLong));
                if sender.blocking_send(line).is_err() || ends {
                    return;
                }
            }
        });
        Self(receiver)
    }

    /// The next line. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Line> {
        match self.0.recv().await {
            None => Ok(Line::End),
            Some(line) => line.map_err(|error| {
                Error::new(ErrorCode::Internal, format!("standard input cannot be read: {error}"))
            }),
        }
    }
}

/// Reads one line that is not empty, keeping at most `most` bytes of it.
fn read(input: &mut impl BufRead, most: usize) -> io::Result<Line> {
    let (mut line, mut long) = (Vec::new(), false);
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            // A message without its line end is not whole.
            return Ok(Line::End);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        long |= line.len() + part.len() > most;
        if long {
            line = Vec::new();
        } else {
            line.extend_from_slice(part);
        }
        let used = end.map_or(available.len(), |at| at + 1);
        input.consume(used);
        if end.is_none() {
            continue;
        }
        if long {
            return Ok(Line::TooLong);
        }
        if !line.trim_ascii().is_empty() {
            return Ok(Line::Text(String::from_utf8_lossy(&line).into_owned()));
        }
        line.clear();
    }
}

/// Standard output. Written by a thread, and waited for.
#[derive(Debug)]
pub(super) struct Output {
    lines: mpsc::Sender<String>,
    thread: JoinHandle<()>,
}

impl Output {
    pub(super) fn new() -> Self {
        let (lines, mut receiver) = mpsc::channel::<String>(QUEUE);
        let thread = std::thread::spawn(move || {
            let mut output = io::stdout().lock();
            while let Some(mut line) = receiver.blocking_recv() {
                line.push('\n');
                if output.write_all(line.as_bytes()).and_then(|()| output.flush()).is_err() {
                    return;
                }
            }
        });
        Self { lines, thread }
    }

    /// Writes one line. Fails when nobody reads any more.
    pub(super) async fn line(&self, text: &str) -> Result<()> {
        self.lines
            .send(text.to_owned())
            .await
            .map_err(|_| Error::new(ErrorCode::Cancelled, "the client has closed standard output"))
    }

    /// Returns when everything is written, or nobody reads any more.
    pub(super) async fn close(self) {
        let Self { lines, thread } = self;
        drop(lines);
        let _panicked = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_empty_ones_mean_nothing() {
        let text = b"one\n\n  \r\n0123456789\ntwo\r\n\xff\nrest";
        let mut input = io::BufReader::with_capacity(3, text.as_slice());
        let mut next = || read(&mut input, 6).expect("memory");
        assert_eq!(next(), Line::Text("one".into()));
        assert_eq!(next(), Line::TooLong);
        assert_eq!(next(), Line::Text("two\r".into()));
        assert_eq!(next(), Line::Text("\u{fffd}".into()));
        assert_eq!(next(), Line::End);
    }
}
