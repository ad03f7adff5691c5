//! The table of tools in `docs/mcp.md` is what the code says.

use std::fmt::Write;

use pinfold_node::LocalNode;

use crate::summaries;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/mcp.md");
const END: &str = "<!-- end of tools -->";

fn table() -> String {
    let mut table =
        String::from("\n| Tool | What it does | Effect | Operations |\n|---|---|---|---|\n");
    for tool in summaries::<LocalNode>() {
        let operations: Vec<_> = tool.operations.iter().map(|name| format!("`{name}`")).collect();
        let _infallible = writeln!(
            table,
            "| `{}` | {} | {} | {} |",
            tool.name,
            tool.about,
            tool.effect,
            operations.join(", ")
        );
    }
    table.push('\n');
    table
}

#[test]
fn the_page_lists_every_tool() {
    let page = std::fs::read_to_string(PAGE).expect("docs/mcp.md");
    let begin = page.find("<!-- tools:").expect("the beginning of the table");
    let begin = begin + page[begin..].find('\n').expect("a line") + 1;
    let end = page.find(END).expect("the end of the table");
    let right = format!("{}{}{}", &page[..begin], table(), &page[end..]);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &right).expect("docs/mcp.md");
    } else {
        assert_eq!(page, right, "run: UPDATE_DOCS=1 cargo test -p pinfold-mcp");
    }
}

#[test]
fn the_page_says_the_limits_of_the_code() {
    use crate::limits;
    let page = std::fs::read_to_string(PAGE).expect("docs/mcp.md");
    for number in [limits::DEFAULT_OUTPUT_BYTES, limits::MAX_OUTPUT_BYTES] {
        let text = format!("{},{:03}", number / 1000, number % 1000);
        assert!(page.contains(&text), "{text}");
    }
    for (bytes, text) in [
        (limits::MAX_MESSAGE_BYTES as u64, "8 MiB"),
        (limits::MAX_RESOURCE_BYTES, "1 MiB"),
        (limits::MAX_EDIT_BYTES, "4 MiB"),
    ] {
        assert_eq!(format!("{} MiB", bytes >> 20), text);
        assert!(page.contains(text), "{text}");
    }
}
