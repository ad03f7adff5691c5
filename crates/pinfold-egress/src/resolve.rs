//! Names to addresses.

use std::{fmt, future::Future, net::IpAddr, pin::Pin, sync::Arc};

use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use tokio::sync::OnceCell;

/// What a lookup gives.
pub(crate) type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, String>> + Send + 'a>>;

/// Where answers come from; tests bring their own.
pub(crate) trait Resolve: Send + Sync + fmt::Debug {
    /// All addresses of both families.
    fn resolve<'a>(&'a self, name: &'a str) -> Answer<'a>;
}

/// The name servers of `/etc/resolv.conf`, asked directly: a static binary has no NSS.
#[derive(Default)]
pub(crate) struct System {
    resolver: OnceCell<Arc<TokioResolver>>,
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("System")
    }
}

impl Resolve for System {
    fn resolve<'a>(&'a self, name: &'a str) -> Answer<'a> {
        Box::pin(async move {
            let resolver = self
                .resolver
                .get_or_try_init(|| async {
                    let mut builder =
                        TokioResolver::builder_tokio().map_err(|err| err.to_string())?;
                    // Every answer of both families is wanted, because one bad answer refuses
                    // the name.
                    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
                    builder.build().map(Arc::new).map_err(|err| err.to_string())
                })
                .await?;
            // The trailing dot keeps search domains out.
            let answer = resolver
                .lookup_ip(format!("{name}."))
                .await
                .map_err(|err: hickory_resolver::net::NetError| err.to_string())?;
            Ok(answer.iter().collect())
        })
    }
}
