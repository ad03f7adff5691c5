//! Lists, a page at a time. The cursor is the id of the last entry: ids sort by creation, so a
//! page stays right whatever is made or removed meanwhile.

use std::str::FromStr;

use pinfold_types::{
    Error, ErrorCode, Result,
    api::{MAX_PAGE, Page, PageQuery},
    name::excerpt,
};

const DEFAULT_PAGE: usize = 100;

/// One page of `items`, which need not be sorted.
pub(crate) fn page<T, I>(
    mut items: Vec<T>,
    query: &PageQuery,
    id: impl Fn(&T) -> I,
) -> Result<Page<T>>
where
    I: Ord + FromStr + ToString,
{
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("limit must be 1 to {MAX_PAGE}"),
        ));
    }
    if let Some(cursor) = &query.cursor {
        let last: I = cursor.parse().map_err(|_| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{:?} is not a cursor of this list", excerpt(cursor)),
            )
            .hint("pass back the `next` of the page before, unchanged")
        })?;
        items.retain(|item| id(item) > last);
    }
    items.sort_by_key(&id);
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|item| id(item).to_string());
    Ok(Page { items, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinfold_types::WorkspaceId;

    #[test]
    fn pages_cover_everything_once() {
        let all: Vec<WorkspaceId> = (0..250).map(|_| WorkspaceId::generate()).collect();
        let mut shuffled = all.clone();
        shuffled.reverse();
        let (mut seen, mut query) = (Vec::new(), PageQuery::default());
        loop {
            let one = page(shuffled.clone(), &query, |id| *id).expect("a page");
            assert!(one.items.len() <= 100);
            seen.extend(one.items);
            match one.next {
                Some(next) => query.cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn wild_queries_are_refused() {
        let with = |cursor: Option<&str>, limit| {
            let query = PageQuery { cursor: cursor.map(Into::into), limit };
            page(vec![WorkspaceId::generate()], &query, |id| *id)
        };
        assert!(with(None, Some(0)).is_err());
        assert!(with(None, Some(MAX_PAGE + 1)).is_err());
        assert!(with(Some("snap_00000000000000000000000000"), None).is_err());
        assert!(with(Some("x"), None).is_err());
        assert!(with(None, Some(MAX_PAGE)).expect("fits").next.is_none());
    }
}
