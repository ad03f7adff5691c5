//! Plain columns, as `ls -l` and `ps` show them: easy to read, easy to cut.

use super::escape::visible;

/// Rows under headings; columns are as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    color: bool,
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    paint: Option<Paint>,
}

/// Colours by meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Well.
    Good,
    /// Look here.
    Warn,
    /// Broken.
    Bad,
    /// Beside the point.
    Dim,
}

impl Paint {
    const fn code(self) -> &'static str {
        match self {
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Dim => "\x1b[2m",
        }
    }
}

impl Cell {
    /// A painted cell.
    pub(crate) fn painted(text: impl AsRef<str>, paint: Paint) -> Self {
        Self { text: visible(text.as_ref()), paint: Some(paint) }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: visible(text.as_ref()), paint: None }
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn new(color: bool, headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new(), color }
    }

    /// Adds a row; missing cells are blank.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The text, ending with a line feed.
    pub(crate) fn render(&self) -> String {
        let width = |text: &str| text.chars().count();
        let mut widths: Vec<usize> = self.headings.iter().map(|h| width(h)).collect();
        for row in &self.rows {
            for (place, cell) in row.iter().enumerate() {
                widths[place] = widths[place].max(width(&cell.text));
            }
        }
        let mut out = String::new();
        let heading: Vec<Cell> = self
            .headings
            .iter()
            .map(|text| Cell { text: (*text).to_owned(), paint: Some(Paint::Dim) })
            .collect();
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            for (place, cell) in row.iter().enumerate() {
                let gap = if place + 1 == row.len() { 0 } else { widths[place] + 2 };
                let pad = gap.saturating_sub(width(&cell.text));
                match cell.paint.filter(|_| self.color) {
                    Some(paint) => {
                        line.push_str(paint.code());
                        line.push_str(&cell.text);
                        line.push_str("\x1b[0m");
                    }
                    None => line.push_str(&cell.text),
                }
                line.extend(std::iter::repeat_n(' ', pad));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_names_cannot_escape() {
        let mut table = Table::new(false, &["NAME", "STATE"]);
        table.row(["a".into(), "running".into()]);
        table.row(["longer\x1b[2J".into(), Cell::painted("failed", Paint::Bad)]);
        let text = table.render();
        assert_eq!(
            text,
            "NAME             STATE\na                running\nlonger\\u{1b}[2J  failed\n"
        );
    }
}
