//! Progress bars, where a person waits; nothing else otherwise.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, stderr},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pinfold_types::image::ImageProgress;

use super::{Output, escape};

/// Bars on standard error. Draws nothing with `--quiet`, `--json` or without a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    parts: BTreeMap<String, ProgressBar>,
    notes: bool,
}

impl Progress {
    /// Nothing is drawn before the first step.
    pub(crate) fn new(output: &Output) -> Self {
        let wanted = !output.quiet() && !output.json();
        let bars = (wanted && stderr().is_terminal()).then(MultiProgress::new);
        Self { bars, parts: BTreeMap::new(), notes: wanted }
    }

    /// A line above the bars.
    pub(crate) fn note(&self, text: &str) {
        let text = escape::visible(text);
        match &self.bars {
            Some(bars) => {
                let _gone = bars.println(text);
            }
            None if self.notes => {
                use std::io::Write;
                let _gone = writeln!(stderr(), "{text}");
            }
            None => {}
        }
    }

    /// Bytes done of a part.
    pub(crate) fn bytes(&mut self, part: &str, done: u64, total: Option<u64>) {
        let Some(bars) = &self.bars else { return };
        if !self.parts.contains_key(part) && self.parts.len() >= 64 {
            return;
        }
        let bar = self.parts.entry(part.to_owned()).or_insert_with(|| {
            let template = if total.is_some() {
                "{msg:28!} [{bar:30}] {bytes:>10} of {total_bytes} {bytes_per_sec:>12} {eta:>4}"
            } else {
                "{msg:28!} {spinner} {bytes:>10} {bytes_per_sec:>12}"
            };
            let style = ProgressStyle::with_template(template)
                .expect("a constant template")
                .progress_chars("=> ");
            let bar = bars.add(ProgressBar::new(total.unwrap_or(0)).with_style(style));
            bar.set_message(escape::visible(part));
            bar
        });
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
        if total == Some(done) {
            bar.finish_and_clear();
        }
    }

    /// So many done of so many.
    pub(crate) fn count(&mut self, what: &str, done: u64, total: u64) {
        let Some(bars) = &self.bars else { return };
        if !self.parts.contains_key(what) && self.parts.len() >= 64 {
            return;
        }
        let bar = self.parts.entry(what.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos} of {len}")
                .expect("a constant template")
                .progress_chars("=> ");
            let bar = bars.add(ProgressBar::new(total).with_style(style));
            bar.set_message(escape::visible(what));
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
    }

    /// One step of image work.
    pub(crate) fn image(&mut self, step: &ImageProgress) {
        match step {
            ImageProgress::Step { message } => self.note(message),
            ImageProgress::Bytes { part, done_bytes, total_bytes } => {
                self.bytes(part, *done_bytes, *total_bytes);
            }
            ImageProgress::Count { what, done, total } => self.count(what, *done, *total),
            ImageProgress::Output { text } => {
                for line in text.trim_end_matches('\n').split('\n') {
                    self.note(&format!("  {line}"));
                }
            }
            ImageProgress::Done { .. } | ImageProgress::Failed { .. } => self.clear(),
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(&mut self) {
        for bar in std::mem::take(&mut self.parts).into_values() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
