//! From a matched route to its operation.

use std::{collections::HashMap, sync::LazyLock};

use http::Method;
use pinfold_auth::{OPERATIONS, OperationInfo};

type Routes = HashMap<&'static str, Vec<(Method, &'static OperationInfo)>>;

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let mut routes = Routes::new();
    let method = |info: &OperationInfo| {
        Method::from_bytes(info.method.as_str().as_bytes()).expect("a method of the table")
    };
    for info in OPERATIONS {
        routes.entry(info.path).or_default().push((method(info), info));
    }
    for info in OPERATIONS {
        for path in crate::routes::beside(info) {
            let there = routes.entry(path).or_default();
            if there.iter().all(|(taken, _)| *taken != method(info)) {
                there.push((method(info), info));
            }
        }
    }
    routes
});

/// The operation that a matched route and method are.
pub(super) fn find(method: &Method, route: &str) -> Option<&'static OperationInfo> {
    ROUTES.get(route)?.iter().find(|(of, _)| of == method).map(|(_, info)| *info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_its_route() {
        for info in OPERATIONS {
            let method = Method::from_bytes(info.method.as_str().as_bytes()).expect("a method");
            assert_eq!(find(&method, info.path).map(|found| found.name), Some(info.name));
        }
        let pull = find(&Method::GET, "/api/v1/images/pull").map(|info| info.name);
        assert_eq!(pull, Some("image.read"), "an image named pull");
        assert_eq!(find(&Method::GET, "/nowhere").map(|info| info.name), None);
    }
}
