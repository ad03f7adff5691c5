//! One page of a directory, however large the directory is.

use std::{collections::BinaryHeap, ffi::OsString, fs, path::Path};

use pinfold_proto::{FileList, message::MAX_LIST};
use pinfold_types::{Error, exec::check_path};

use super::info;
use crate::failure::on_path;

/// The `limit` first entries after `after`, in byte order of names. Only as many names are held
/// as the page has, whatever the directory holds.
pub(super) fn list(
    path: &str,
    after: Option<&str>,
    limit: Option<usize>,
) -> Result<FileList, Error> {
    check_path(path)?;
    let failed = |error| on_path("list", path, &error);
    let limit = limit.unwrap_or(MAX_LIST).clamp(1, MAX_LIST);
    // Largest on top: the one to drop when a smaller one comes. Names that are not UTF-8 are
    // shown, and so ordered and continued, with replacement characters.
    let mut page: BinaryHeap<(String, OsString)> = BinaryHeap::with_capacity(limit + 2);
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let shown = name.to_string_lossy().into_owned();
        if after.is_some_and(|after| shown.as_str() <= after) {
            continue;
        }
        page.push((shown, name));
        if page.len() > limit + 1 {
            page.pop();
        }
    }
    let mut page = page.into_sorted_vec();
    let more = page.len() > limit;
    page.truncate(limit);
    let next = if more { page.last().map(|(shown, _)| shown.clone()) } else { None };
    let entries = page
        .into_iter()
        .filter_map(|(_, name)| {
            let place = Path::new(path).join(name);
            // Gone between the two looks: then it is not there.
            Some(info(&place, &fs::symlink_metadata(&place).ok()?))
        })
        .collect();
    Ok(FileList { entries, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_whole_directory_in_order() {
        let place = tempfile::tempdir().expect("a directory");
        let mut names: Vec<String> = (0..57).map(|number| format!("f{number}")).collect();
        for name in &names {
            fs::write(place.path().join(name), "x").expect("written");
        }
        names.sort();
        let path = place.path().to_str().expect("plain");
        let (mut got, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = list(path, after.as_deref(), Some(10)).expect("a page");
            got.extend(page.entries.into_iter().map(|entry| entry.name));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(got, names);
        assert!(list(&format!("{path}/f1"), None, None).is_err());
        assert!(list("relative", None, None).is_err());
    }
}
