//! What a guest says on its standard error: nothing, but why it could not start or go on.

use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::PipeFlags;

/// Most bytes that are read of it.
const MOST: usize = 4096;

/// The reading end of a guest's standard error. The pipe holds what was said until somebody asks,
/// and drops what is over its size, so a guest never waits for it.
#[derive(Debug)]
pub struct LastWords(OwnedFd);

impl LastWords {
    /// The two ends; neither waits.
    pub(crate) fn pipe() -> std::io::Result<(Self, OwnedFd)> {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        let (reader, writer) = rustix::pipe::pipe_with(flags)?;
        Ok((Self(reader), writer))
    }

    /// What was said since the last time, on one line and without control characters.
    pub fn take(&self) -> Option<String> {
        let mut bytes = [0; MOST];
        let length = rustix::io::read(self.0.as_fd(), &mut bytes).ok()?;
        let text = String::from_utf8_lossy(bytes.get(..length)?);
        let words: Vec<&str> =
            text.split(|char: char| char.is_whitespace() || char.is_control()).collect();
        let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        (!line.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_kept_after_the_end_of_who_said_it() {
        let (words, writer) = LastWords::pipe().expect("a pipe");
        assert_eq!(words.take(), None);
        rustix::io::write(&writer, b"panicked:\n\t\x1b[31mwhy\n").expect("room");
        drop(writer);
        assert_eq!(words.take().as_deref(), Some("panicked: [31mwhy"));
        assert_eq!(words.take(), None);
    }
}
