//! `docs/security/controls.md`: every promise has a row, and a row that says `done` names code
//! that is there and tests that exist and, where a run's results are given, ran and passed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Context;

use crate::{
    repo::{Problem, Repo},
    source::split,
};

const PAGE: &str = "docs/security/controls.md";

/// Every promise there is. A row may be added here and in the page together, never taken away.
const IDS: &[&str] = &[
    "AUTH-01",
    "AUTH-02",
    "AUTH-03",
    "AUTH-04",
    "AUTH-05",
    "AUTH-06",
    "AUTH-07",
    "AUTH-08",
    "AUTH-09",
    "AUTH-10",
    "AUTH-11",
    "AUTH-12",
    "AUTH-13",
    "AUTH-14",
    "AUTH-15",
    "AX-01",
    "AX-02",
    "AX-03",
    "AX-04",
    "AX-05",
    "AX-06",
    "AX-07",
    "AX-08",
    "AX-09",
    "AX-10",
    "AX-11",
    "AX-12",
    "AX-13",
    "AX-14",
    "AX-15",
    "AX-16",
    "AX-17",
    "AX-18",
    "AX-19",
    "AX-20",
    "AX-21",
    "AX-22",
    "AX-23",
    "F-02",
    "F-04",
    "F-05",
    "F-06",
    "F-07",
    "F-08",
    "F-11",
    "F-14",
    "F-15",
    "GX-01",
    "GX-02",
    "GX-03",
    "GX-04",
    "GX-05",
    "GX-06",
    "GX-07",
    "GX-08",
    "GX-09",
    "GX-10",
    "GX-11",
    "INP-I3",
    "INP-I4",
    "INP-L2",
    "INP-M1",
    "INP-M2",
    "NET-01..06",
    "NET-08",
    "NET-09",
    "NET-11",
    "PF-01",
    "PF-02",
    "PF-03",
    "PF-04",
    "PF-05",
    "PF-06",
    "PF-07",
    "PF-08",
    "PF-09",
    "PF-10",
    "PF-11",
    "PF-12",
    "PF-13",
    "PRIV-03",
    "PRIV-04",
    "PRIV-06",
    "PRIV-09",
    "PRIV-12",
    "VM-02",
    "VM-05",
    "VM-07",
    "VM-08",
    "VM-09",
    "VM-16",
    "VM-17",
    "VM-18",
];

/// One row of the page.
#[derive(Debug)]
struct Row {
    line: usize,
    ids: Vec<String>,
    places: Vec<String>,
    tests: Vec<String>,
    status: String,
}

pub(crate) fn check(repo: &Repo, ran: Option<&Path>) -> anyhow::Result<Vec<Problem>> {
    let rows = parse(&repo.text(PAGE)?);
    let mut tests = BTreeSet::new();
    for (_, text) in repo.rust_files()? {
        tests.extend(test_functions(&text));
    }
    let results = match ran {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{}: run the tests first", path.display()))?;
            Some(junit_results(&text))
        }
        None => None,
    };
    Ok(judge(&rows, &tests, results.as_ref(), |place| repo.path(place).exists()))
}

fn judge(
    rows: &[Row],
    tests: &BTreeSet<String>,
    results: Option<&BTreeMap<String, bool>>,
    exists: impl Fn(&str) -> bool,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for row in rows {
        let mut wrong = |what: String| problems.push(Problem::at(PAGE, row.line, what));
        for id in &row.ids {
            if !IDS.contains(&id.as_str()) {
                wrong(format!("{id} is not in xtask's list of promises"));
            }
            if !seen.insert(id.clone()) {
                wrong(format!("{id} has two rows"));
            }
        }
        let built = row.status == "done" || row.status.starts_with("partly: ");
        if !built {
            let later = row.status.strip_prefix("not built yet: ");
            if later.is_none_or(|theme| theme.trim().is_empty()) {
                wrong(format!(
                    "the status {:?} is not `done`, `partly: …` or `not built yet: …`",
                    row.status
                ));
            }
            if !row.tests.is_empty() {
                wrong("names tests and says it is not built".into());
            }
            continue;
        }
        if row.tests.is_empty() || row.places.is_empty() {
            wrong("is built and names no test or no place in the code".into());
        }
        for place in row.places.iter().filter(|place| !exists(place)) {
            wrong(format!("{place} is not in the tree"));
        }
        for test in &row.tests {
            if !tests.contains(test) {
                wrong(format!("no test is named {test}"));
            } else if let Some(results) = results {
                match results.get(test) {
                    Some(true) => {}
                    Some(false) => wrong(format!("{test} failed")),
                    None => wrong(format!("{test} did not run")),
                }
            }
        }
    }
    for id in IDS.iter().filter(|id| !seen.contains(**id)) {
        problems.push(Problem::new(PAGE, format!("{id} has no row")));
    }
    problems
}

/// Rows of five cells whose first looks like ids.
fn parse(text: &str) -> Vec<Row> {
    text.lines()
        .enumerate()
        .filter_map(|(at, line)| {
            let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
            let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
            let [ids, _promise, places, tests, status] = cells.as_slice() else { return None };
            let ids: Vec<String> = ids.split_whitespace().map(str::to_owned).collect();
            let is_id = |id: &String| {
                id.contains('-')
                    && id.starts_with(|c: char| c.is_ascii_uppercase())
                    && id.ends_with(|c: char| c.is_ascii_digit())
            };
            (!ids.is_empty() && ids.iter().all(is_id)).then(|| Row {
                line: at + 1,
                ids,
                places: quoted(places),
                tests: quoted(tests),
                status: (*status).to_owned(),
            })
        })
        .collect()
}

/// What stands in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Names of functions below a test attribute.
fn test_functions(text: &str) -> Vec<String> {
    let source = split(text);
    let mut names = Vec::new();
    let mut armed = false;
    for line in source.code.lines() {
        let line = line.trim();
        let attribute = line.starts_with("#[test]")
            || (line.starts_with("#[") && line.contains("::test"))
            || line.starts_with("#[test_case");
        if attribute {
            armed = true;
        }
        if armed && let Some(at) = find_fn(line) {
            let name: String =
                line[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            names.push(name);
            armed = false;
        }
    }
    names
}

/// Where a function's name begins.
fn find_fn(line: &str) -> Option<usize> {
    if let Some(rest) = line.strip_prefix("fn ") {
        return Some(line.len() - rest.len());
    }
    line.find(" fn ").map(|at| at + 4)
}

/// Every test case of a junit file, by the last part of its name, with whether it passed. A name
/// that stands more than once must pass each time.
fn junit_results(text: &str) -> BTreeMap<String, bool> {
    let mut results = BTreeMap::new();
    for case in text.split("<testcase ").skip(1) {
        let case = case.split("</testcase>").next().unwrap_or(case);
        let (tag, body) = case.split_once('>').unwrap_or((case, ""));
        let Some(name) = attribute(tag, "name") else { continue };
        let last = name.rsplit("::").next().unwrap_or(&name).to_owned();
        let closed = tag.ends_with('/');
        let failed = !closed && ["<failure", "<error", "<skipped"].iter().any(|m| body.contains(m));
        results.entry(last).and_modify(|passed| *passed &= !failed).or_insert(!failed);
    }
    results
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let from = tag.find(&format!("{name}=\""))? + name.len() + 2;
    let before = tag[..from - name.len() - 2].chars().next_back();
    if before.is_some_and(|c| !c.is_whitespace()) {
        // `classname=` ends in `name=`: look behind it.
        return attribute(&tag[from..], name);
    }
    tag[from..].split('"').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, places: &[&str], tests: &[&str], status: &str) -> Row {
        Row {
            line: 1,
            ids: vec![id.into()],
            places: places.iter().map(|p| (*p).into()).collect(),
            tests: tests.iter().map(|t| (*t).into()).collect(),
            status: status.into(),
        }
    }

    fn about_the_row(row: Row, tests: &[&str], results: Option<&[(&str, bool)]>) -> Vec<Problem> {
        let tests = tests.iter().map(|t| (*t).to_owned()).collect();
        let results =
            results.map(|all| all.iter().map(|(name, ok)| ((*name).to_owned(), *ok)).collect());
        let mut found = judge(&[row], &tests, results.as_ref(), |place| place == "src/a.rs");
        found.retain(|problem| problem.place != PAGE);
        found
    }

    #[test]
    fn a_row_that_is_done_needs_tests_that_are_there_and_ran() {
        let good = || row("PF-10", &["src/a.rs"], &["holds"], "done");
        assert!(about_the_row(good(), &["holds"], None).is_empty());
        assert!(about_the_row(good(), &["holds"], Some(&[("holds", true)])).is_empty());
        assert_eq!(about_the_row(good(), &[], None).len(), 1);
        assert_eq!(about_the_row(good(), &["holds"], Some(&[])).len(), 1);
        assert_eq!(about_the_row(good(), &["holds"], Some(&[("holds", false)])).len(), 1);
        let untested = row("PF-10", &["src/a.rs"], &[], "done");
        assert_eq!(about_the_row(untested, &[], None).len(), 1);
        let elsewhere = row("PF-10", &["src/gone.rs"], &["holds"], "done");
        assert_eq!(about_the_row(elsewhere, &["holds"], None).len(), 1);
    }

    #[test]
    fn a_row_that_is_not_built_says_when() {
        assert!(
            about_the_row(row("PF-10", &[], &[], "not built yet: agents"), &[], None).is_empty()
        );
        assert_eq!(about_the_row(row("PF-10", &[], &[], "soon"), &[], None).len(), 1);
        assert_eq!(about_the_row(row("PF-10", &[], &[], "not built yet: "), &[], None).len(), 1);
        assert_eq!(about_the_row(row("ZZ-99", &[], &[], "not built yet: x"), &[], None).len(), 1);
    }

    #[test]
    fn a_missing_row_is_found() {
        let found = judge(&[], &BTreeSet::new(), None, |_| true);
        assert_eq!(found.len(), IDS.len());
    }

    #[test]
    fn rows_are_read_from_the_page() {
        let rows = parse(
            "| id | must | where | test | status |\n|---|---|---|---|---|\n| F-14 F-15 | p | `a/b.rs` | `t1`, `t2` | done |\n",
        );
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].ids, ["F-14", "F-15"]);
        assert_eq!(rows[0].tests, ["t1", "t2"]);
        assert_eq!(rows[0].places, ["a/b.rs"]);
    }

    #[test]
    fn test_functions_are_found_below_their_attributes() {
        let text = "#[test]\nfn a() {}\n#[tokio::test(flavor = \"current_thread\")]\nasync fn b() {}\nfn helper() {}\n// #[test]\nfn c() {}\n";
        assert_eq!(test_functions(text), ["a", "b"]);
    }

    #[test]
    fn results_are_read_from_junit() {
        let text = concat!(
            "<testsuite><testcase classname=\"x\" name=\"m::good\" time=\"1\"></testcase>",
            "<testcase name=\"m::bad\" classname=\"x\"><failure message=\"no\"/></testcase>",
            "<testcase name=\"short\" classname=\"y\"/></testsuite>",
        );
        let results = junit_results(text);
        assert_eq!(results.get("good"), Some(&true));
        assert_eq!(results.get("bad"), Some(&false));
        assert_eq!(results.get("short"), Some(&true));
    }
}
