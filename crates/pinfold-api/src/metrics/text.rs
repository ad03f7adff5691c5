//! `OpenMetrics` as the library writes it, turned into Prometheus' older text format, which every
//! collector and `promtool` read: there a counter's help and type are said of the name with
//! `_total`, and there is no unit and no end mark.

use std::fmt;

use prometheus_client::{encoding::text::encode_registry, registry::Registry};

pub(super) fn encode(out: &mut String, registry: &Registry) -> fmt::Result {
    encode_registry(out, registry)
}

/// The same numbers in the other format.
pub(super) fn prometheus(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1024);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '));
        let kind = lines.peek().and_then(|next| next.strip_prefix("# TYPE "));
        let counter = kind.is_some_and(|kind| kind.ends_with(" counter"));
        match help {
            Some((name, help)) => {
                let suffix = if counter { "_total" } else { "" };
                out.push_str("# HELP ");
                out.push_str(name);
                out.push_str(suffix);
                out.push(' ');
                out.push_str(help);
                out.push('\n');
                if let Some((_, kind)) = kind.and_then(|kind| kind.split_once(' ')) {
                    out.push_str("# TYPE ");
                    out.push_str(name);
                    out.push_str(suffix);
                    out.push(' ');
                    out.push_str(kind);
                    out.push('\n');
                    lines.next();
                }
            }
            None if line.starts_with("# UNIT ") || line == "# EOF" => {}
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn counters_are_named_as_they_are_counted() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n\
                    # HELP g More.\n# TYPE g gauge\n# UNIT g seconds\ng 1\n# EOF\n";
        assert_eq!(
            super::prometheus(open),
            "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n\
             # HELP g More.\n# TYPE g gauge\ng 1\n"
        );
    }
}
