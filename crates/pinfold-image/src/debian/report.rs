//! What the tools say, as progress that people can follow.

use std::collections::VecDeque;

use pinfold_types::image::ImageProgress;

use crate::import::{Progress, say};

/// Kept of a tool's last words.
const MAX_TAIL_LINES: usize = 12;
/// Longest line read.
const MAX_LINE_CHARS: usize = 400;

/// Reads lines of mmdebstrap, debootstrap, apt and dpkg.
#[derive(Debug, Default)]
pub(super) struct Report {
    tail: VecDeque<String>,
    why: Option<String>,
    /// Packages that apt announced in all.
    wanted: u64,
    fetched: u64,
    set_up: u64,
}

impl Report {
    /// Takes one line, and tells what it means.
    pub(super) fn line(&mut self, line: &[u8], progress: &Progress) {
        let text: String =
            String::from_utf8_lossy(line).trim_end().chars().take(MAX_LINE_CHARS).collect();
        if let Some(event) = self.read(&text) {
            match event {
                ImageProgress::Step { message } => say(progress, message),
                // A listener that is gone or slow must not stop the work.
                event => drop(progress.try_send(event)),
            }
        }
        if self.tail.len() >= MAX_TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(text);
    }

    fn read(&mut self, text: &str) -> Option<ImageProgress> {
        if let Some(why) = text.strip_prefix("E: ") {
            // The first of them is the cause, the later ones tell whom it met.
            self.why.get_or_insert_with(|| why.to_owned());
        }
        if let Some(said) = text.strip_prefix("I: ") {
            let often = ["Retrieving", "Validating", "Extracting", "Unpacking", "Configuring"];
            let worth = said != "done"
                && !often.iter().chain(&["success in"]).any(|often| said.starts_with(often))
                && !["tempdir", "hook", "signed-by", "architecture"]
                    .iter()
                    .any(|dull| said.contains(dull));
            return worth.then(|| ImageProgress::Step { message: said.to_owned() });
        }
        if let Some((_, rest)) = text.split_once(" upgraded, ") {
            let count = rest.split(' ').next()?.parse::<u64>().ok()?;
            self.wanted = self.wanted.saturating_add(count);
            return None;
        }
        if is_package_fetch(text) {
            self.fetched += 1;
            return Some(self.count("fetching packages", self.fetched));
        }
        if text.starts_with("Setting up ") {
            self.set_up += 1;
            return Some(self.count("setting up packages", self.set_up));
        }
        None
    }

    fn count(&self, what: &str, done: u64) -> ImageProgress {
        ImageProgress::Count { what: what.into(), done, total: self.wanted.max(done) }
    }

    /// Why the tool failed, in its words.
    pub(super) fn why(&self) -> &str {
        self.why.as_deref().unwrap_or("it said nothing of use")
    }

    /// Its last words.
    pub(super) fn tail(self) -> String {
        Vec::from(self.tail).join(" | ")
    }
}

/// apt-get(8) shows each fetch as `Get:N URI SUITE/COMPONENT ARCH PACKAGE ARCH VERSION [SIZE]`;
/// a list of packages has two words less.
fn is_package_fetch(text: &str) -> bool {
    text.starts_with("Get:") && text.split_ascii_whitespace().count() >= 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_and_dpkg_are_counted_and_the_first_error_is_the_reason() {
        let (progress, mut events) = tokio::sync::mpsc::channel(64);
        let mut report = Report::default();
        for line in [
            "I: downloading packages with apt...",
            "Get:1 http://deb.debian.org/debian bookworm InRelease [151 kB]",
            "Get:2 http://deb.debian.org/debian bookworm/main amd64 Packages [8791 kB]",
            "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
            "Get:1 http://deb.debian.org/debian bookworm/main amd64 dash amd64 0.5.12-2 [98.5 kB]",
            "Get:2 http://deb.debian.org/debian bookworm/main amd64 jq amd64 1.6-2 [64.9 kB]",
            "Setting up dash (0.5.12-2) ...",
            "I: Retrieving jq 1.6",
            "E: Unable to locate package nonesuch",
            "E: apt-get failed",
        ] {
            report.line(line.as_bytes(), &progress);
        }
        assert_eq!(report.why(), "Unable to locate package nonesuch");
        let mut seen = Vec::new();
        while let Ok(event) = events.try_recv() {
            seen.push(event);
        }
        let count = |what: &str, done| ImageProgress::Count { what: what.into(), done, total: 2 };
        assert_eq!(
            seen,
            [
                ImageProgress::Step { message: "downloading packages with apt...".into() },
                count("fetching packages", 1),
                count("fetching packages", 2),
                count("setting up packages", 1),
            ]
        );
        assert!(report.tail().contains("nonesuch"));
    }
}
