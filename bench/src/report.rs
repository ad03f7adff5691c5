//! The table, as Markdown.

use std::{fmt::Write, time::Duration};

use crate::{
    stats::{Times, millis, ratio},
    timer::Runs,
};

/// One measured candidate.
#[derive(Debug)]
struct Row {
    who: String,
    median: String,
    p99: String,
    beside: String,
}

#[derive(Debug)]
struct Section {
    title: String,
    aim: String,
    /// What the ratios are to.
    base: Option<Duration>,
    rows: Vec<Row>,
    verdict: String,
}

/// Everything measured, in the order it was measured.
#[derive(Debug)]
pub(crate) struct Report {
    machine: Vec<String>,
    notes: Vec<String>,
    sections: Vec<Section>,
}

impl Report {
    pub(crate) fn new(machine: &[String]) -> Self {
        Self { machine: machine.to_vec(), notes: Vec::new(), sections: Vec::new() }
    }

    pub(crate) fn note(&mut self, text: String) {
        eprintln!("bench: {text}");
        self.notes.push(text);
    }

    /// Begins a part of the table.
    pub(crate) fn section(&mut self, title: &str, aim: &str) {
        eprintln!("bench: {title}");
        self.sections.push(Section {
            title: title.to_owned(),
            aim: aim.to_owned(),
            base: None,
            rows: Vec::new(),
            verdict: String::new(),
        });
    }

    fn last(&mut self) -> Option<&mut Section> {
        self.sections.last_mut()
    }

    /// Times, with the ratio of medians to the section's first.
    pub(crate) fn times(&mut self, who: &str, times: &Times) {
        let Some(section) = self.last() else { return };
        let base = *section.base.get_or_insert(times.median());
        section.rows.push(Row {
            who: format!("{who} (n={})", times.count()),
            median: millis(times.median()),
            p99: millis(times.p99()),
            beside: format!("{:.2}", ratio(times.median(), base)),
        });
    }

    /// Times to the first output.
    pub(crate) fn first(&mut self, who: &str, runs: &Runs) {
        self.times(who, &runs.first);
    }

    /// A number that is not a time.
    pub(crate) fn value(&mut self, who: &str, value: &str, beside: &str) {
        if let Some(section) = self.last() {
            section.rows.push(Row {
                who: who.to_owned(),
                median: value.to_owned(),
                p99: String::new(),
                beside: beside.to_owned(),
            });
        }
    }

    /// A line as it is.
    pub(crate) fn cells(&mut self, [who, median, p99, beside]: [String; 4]) {
        if let Some(section) = self.last() {
            section.rows.push(Row { who, median, p99, beside });
        }
    }

    /// What was seen where there is no aim.
    pub(crate) fn remark(&mut self, numbers: &str) {
        if let Some(section) = self.last() {
            section.verdict.push_str(numbers);
            eprintln!("bench:   {numbers}");
        }
    }

    /// Whether the aim was met, and by what number.
    pub(crate) fn verdict(&mut self, met: bool, numbers: &str) {
        if let Some(section) = self.last() {
            let word = if met { "met" } else { "NOT met" };
            if !section.verdict.is_empty() {
                section.verdict.push_str("; ");
            }
            let _ = write!(section.verdict, "{word}: {numbers}");
            eprintln!("bench:   {word}: {numbers}");
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "# Benchmarks\n\nOne run of `make bench`; everything below was measured in it, on the same machine, with the\nsame root filesystem. Ratios are of medians, to the first line of each part. Where\nruns follow one another, everybody pauses for 20 ms between two.\n\n",
        );
        for line in &self.machine {
            let _ = writeln!(text, "- {line}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        for section in &self.sections {
            let _ = write!(
                text,
                "\n## {}\n\nAim: {}. **{}**\n\n| | median | p99 | ratio |\n|---|---|---|---|\n",
                section.title,
                section.aim,
                if section.verdict.is_empty() { "no aim to meet" } else { &section.verdict },
            );
            for row in &section.rows {
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} |",
                    row.who, row.median, row.p99, row.beside
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_first_of_a_part() {
        let mut report = Report::new(&["a machine".into()]);
        report.section("Create", "fast");
        report.times("floor", &Times::new(vec![Duration::from_millis(1)]));
        report.times("pinfold", &Times::new(vec![Duration::from_millis(3)]));
        report.verdict(false, "3.00 × the floor");
        let text = report.markdown();
        assert!(text.contains("| floor (n=1) | 1.00 ms | 1.00 ms | 1.00 |"), "{text}");
        assert!(text.contains("| pinfold (n=1) | 3.00 ms | 3.00 ms | 3.00 |"), "{text}");
        assert!(text.contains("NOT met: 3.00 × the floor"), "{text}");
    }
}
