//! Fields of forms and queries: each at most once (RFC 6749 §3.1), within bounds.

use std::time::Duration;

use axum::extract::Request;
use pinfold_types::{Error, ErrorCode, Result, name::excerpt};

use crate::body::{self, collect};

/// Largest body.
const MAX_BYTES: usize = 16 << 10;
/// Most fields.
const MAX_FIELDS: usize = 64;
/// Longest wait for a body.
const WAIT: Duration = Duration::from_secs(15);

/// Fields, in order.
#[derive(Debug)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    fn read(text: &[u8]) -> Result<Self> {
        let fields: Vec<(String, String)> = url::form_urlencoded::parse(text)
            .take(MAX_FIELDS + 1)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        if fields.len() > MAX_FIELDS {
            return Err(Error::new(ErrorCode::TooLarge, format!("more than {MAX_FIELDS} fields")));
        }
        Ok(Self(fields))
    }

    /// The value of a field; an empty one is none.
    pub(crate) fn take(&mut self, name: &str) -> Result<Option<String>> {
        let mut found = None;
        let mut twice = false;
        self.0.retain_mut(|(key, value)| {
            if key != name {
                return true;
            }
            twice |= found.replace(std::mem::take(value)).is_some();
            false
        });
        if twice {
            let name = excerpt(name);
            return Err(Error::new(ErrorCode::InvalidArgument, format!("{name:?} is given twice")));
        }
        Ok(found.filter(|value| !value.is_empty()))
    }
}

/// Fields of the query.
pub(crate) fn query(request: &Request) -> Result<Fields> {
    Fields::read(request.uri().query().unwrap_or_default().as_bytes())
}

/// Fields of the body.
pub(crate) async fn body(request: Request) -> Result<Fields> {
    if body::is(request.headers(), "application/x-www-form-urlencoded") != Some(true) {
        let message = "this takes application/x-www-form-urlencoded";
        return Err(Error::new(ErrorCode::UnsupportedMedia, message));
    }
    Fields::read(&bytes(request, MAX_BYTES).await?)
}

/// A body of at most this many bytes.
pub(crate) async fn bytes(request: Request, most: usize) -> Result<bytes::Bytes> {
    collect(request.into_body(), most, WAIT).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_given_once() {
        let mut fields = Fields::read(b"a=1&b=x+y%26z&c=&d=1&d=1").expect("fields");
        assert_eq!(fields.take("a").expect("one"), Some("1".into()));
        assert_eq!(fields.take("b").expect("one"), Some("x y&z".into()));
        assert_eq!(fields.take("c").expect("empty"), None);
        assert!(fields.take("d").is_err());
        assert_eq!(fields.take("e").expect("none"), None);
        assert!(Fields::read("a=1&".repeat(MAX_FIELDS + 1).as_bytes()).is_err());
    }
}
