//! Text that others chose, made safe to show on a terminal (F-07).

use std::fmt::Write;

/// Control characters and invisible direction changes become `\x1b`-like escapes, so that a name
/// can neither move the cursor, set the title, nor pretend to be another line.
pub(crate) fn visible(text: &str) -> String {
    escape(text, false)
}

/// The same, with line feeds kept.
pub(crate) fn lines(text: &str) -> String {
    escape(text, true)
}

fn escape(text: &str, keep_lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if keep_lines => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            // C0, DEL, C1 (8-bit CSI and OSC), and the bidirectional controls of Unicode TR9.
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}') =>
            {
                let _infallible = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let hostile = "a\x1b]0;title\x07\x1b[2J\u{9b}31m\r\n\u{202e}b\x7f";
        let shown = visible(hostile);
        assert!(shown.chars().all(|c| !c.is_control() && c != '\u{202e}'), "{shown}");
        assert!(shown.starts_with("a\\u{1b}]0;title"));
        assert_eq!(visible("plain é 猫"), "plain é 猫");
        assert_eq!(lines("a\nb"), "a\nb");
    }
}
