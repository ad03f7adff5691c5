//! Documents that lie outside, such as clients' own and the provider's keys: fetched through the
//! guarded client alone, small, soon or not at all.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use pinfold_egress::{Client, EgressConfig, Exception, Limits};
use pinfold_types::{Error, Result, config::OutsideHost};

/// The way out.
#[derive(Debug)]
pub(crate) struct Outside(Client);

impl Outside {
    /// One that reaches these hosts too.
    pub(crate) fn new(hosts: &BTreeMap<String, OutsideHost>) -> Self {
        let exceptions = hosts.iter().map(|(host, outside)| {
            let exception = Exception {
                allow_private: outside.allow_private,
                plain_http: false,
                ca_file: outside.ca_file.clone(),
            };
            (host.to_ascii_lowercase(), exception)
        });
        Self(Client::new(EgressConfig { exceptions: exceptions.collect() }))
    }

    /// A JSON document of at most this many bytes. A redirect is no answer: the place is the
    /// document's name. `bad` says whose document it is.
    pub(crate) async fn document(
        &self,
        url: &str,
        max_bytes: u64,
        bad: impl Fn(&str) -> Error,
    ) -> Result<Vec<u8>> {
        let limits = Limits {
            max_bytes,
            redirects: 0,
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(5),
            total: Duration::from_secs(10),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let mut answer = self.0.get(url, headers, &limits).await?;
        if answer.status != StatusCode::OK {
            return Err(bad(&format!("it is answered with {}", answer.status)));
        }
        Ok(answer.body.bytes().await?)
    }
}
