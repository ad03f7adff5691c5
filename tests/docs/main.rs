//! The reference pages say what the types say: every configuration key with its default, every
//! error code with its status and exit code.

use pinfold_types::{ErrorCode, config::Config};

fn page(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// Cells of the table rows of a page, backticks taken off.
fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .map(|inner| inner.split('|').map(|cell| cell.trim().replace('`', "")).collect())
        .collect()
}

/// `table.key` and value of every leaf.
fn leaves(prefix: &str, value: &serde_json::Value, found: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                leaves(&name, value, found);
            }
        }
        serde_json::Value::String(text) => found.push((prefix.to_owned(), text.clone())),
        other => found.push((prefix.to_owned(), other.to_string())),
    }
}

#[test]
fn every_configuration_key_is_documented_with_its_default() {
    let default = serde_json::to_value(Config::default()).expect("a plain value");
    let mut keys = Vec::new();
    leaves("", &default, &mut keys);
    // Absent limits are skipped when written: the type itself lists them.
    for table in ["workspaces.defaults", "workspaces.ceilings"] {
        for kind in pinfold_types::limits::LimitKind::ALL {
            let name = format!("{table}.{}", kind.field());
            if !keys.iter().any(|(key, _)| *key == name) {
                keys.push((name, "none".into()));
            }
        }
    }
    let rows = rows(&page("configuration.md"));
    for (key, value) in &keys {
        let row = rows
            .iter()
            .find(|row| row.len() == 3 && row.first() == Some(key))
            .unwrap_or_else(|| panic!("docs/configuration.md has no row for {key}"));
        let shown = row.get(1).map_or("", String::as_str);
        let value = if value == "null" { "none" } else { value };
        assert_eq!(shown, value, "the default of {key}");
    }
    // And nothing is documented that is not a key.
    for row in &rows {
        let name = row.first().map_or("", String::as_str);
        let is_key = row.len() == 3 && name.contains('.') && !name.contains(' ');
        let table = ["images.registries.", "oauth.hosts.", "oidc.hosts.", "oidc.scopes."]
            .iter()
            .any(|of| name.starts_with(of));
        if is_key && !table {
            assert!(keys.iter().any(|(key, _)| key == name), "{name} is not a key");
        }
    }
}

#[test]
fn the_example_configuration_is_valid_and_says_the_defaults() {
    let text = page("config.example.toml");
    let commented: String = text
        .lines()
        .map(|line| line.strip_prefix("#= ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n");
    assert_eq!(Config::parse(&text).expect("as shipped"), Config::default());
    assert_eq!(Config::parse(&commented).expect("with every line in force"), Config::default());
}

#[test]
fn every_error_code_is_documented_with_its_status_and_exit_code() {
    let rows = rows(&page("exit-codes.md"));
    for code in ErrorCode::ALL {
        let wanted = [
            code.as_str().to_owned(),
            code.http_status().to_string(),
            code.exit_code().to_string(),
        ];
        assert!(
            rows.iter().any(|row| row.len() >= 3 && row[..3] == wanted),
            "docs/exit-codes.md has no row `{}`",
            wanted.join(" | ")
        );
    }
}
