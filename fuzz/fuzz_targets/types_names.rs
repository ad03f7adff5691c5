//! Names, ids, sizes, paths and the configuration: text that people and programs type.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinfold_types::{
    ByteSize, ExecId, ImageName, SnapshotId, SnapshotName, WorkspaceId, WorkspaceName,
    config::Config, exec::check_path,
};

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<WorkspaceName>() {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        assert!(text.len() <= 63 && text.chars().all(plain) && !text.starts_with('.'));
        assert_eq!(name.to_string(), text);
        assert!(text.parse::<WorkspaceId>().is_err(), "a name that is an id");
    }
    if let Ok(name) = text.parse::<ImageName>() {
        assert!(text.len() <= 255 && text.split('/').all(|part| !part.starts_with('.')));
        assert_eq!(name.to_string(), text);
    }
    if let Ok(id) = text.parse::<WorkspaceId>() {
        assert_eq!(id.to_string(), text);
    }
    if check_path(text).is_ok() {
        assert!(text.starts_with('/') && !text.contains('\0') && text.len() < 4096);
    }
    let _ = text.parse::<SnapshotName>();
    let _ = text.parse::<SnapshotId>();
    let _ = text.parse::<ExecId>();
    let _ = text.parse::<ByteSize>();
    let _ = Config::parse(text);
});
