//! The table of operations for people.

use std::fmt::Write as _;

use pinfold_auth::OPERATIONS;
use serde::Serialize;

/// A word of the table as it is in JSON.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// The page.
pub(super) fn page() -> String {
    let mut text = String::from(
        "# Operations\n\nWritten from the operation table by `cargo xtask api-reference`. \
         [openapi.json](openapi.json) has the same with every field; a server gives its own as \
         `/api/v1/openapi.json`, and a page to read it at `/api/docs`.\n\n\
         | Operation | Route | Scope | Rate class | Repeat | What it does |\n\
         |---|---|---|---|---|---|\n",
    );
    for op in OPERATIONS {
        let doc = op.doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let _infallible = writeln!(
            text,
            "| `{}` | `{} {}` | `{}` | {} | {} | {} |",
            op.name,
            op.method.as_str(),
            op.path,
            op.scope,
            word(op.rate),
            word(op.repeat),
            doc.replace('|', "\\|"),
        );
    }
    text.push_str(
        "\n`Repeat` is what a second call does: `safe` changes nothing, `idempotent` finds done \
         what it asks for, `acts` does it again unless it carries the `Idempotency-Key` of the \
         first.\n",
    );
    text
}
