//! Profiles of this server, on a thread of their own: a runtime that is stuck is what somebody
//! wants to look at.

use std::sync::Arc;

use pinfold_api::profiling::{Profiles, ProfilingServer};
use pinfold_telemetry::{profile, runtime};
use pinfold_types::{Error, Result, config::ProfilingConfig};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Serves profiles until `stop`, where the configuration says so.
pub(super) async fn serve(config: &ProfilingConfig, stop: CancellationToken) -> Result<()> {
    if config.listen.is_none() {
        return Ok(());
    }
    let observed = Handle::current();
    let profiles = Profiles {
        cpu: Arc::new(|time| Box::pin(profile::cpu(time))),
        longest: profile::MAX,
        look: Arc::new(move || {
            let look = runtime::look(env!("CARGO_PKG_VERSION"), &observed);
            serde_json::to_vec(&look).map_err(Error::internal)
        }),
    };
    let own = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::internal)?;
    let config = config.clone();
    let (tell, told) = tokio::sync::oneshot::channel();
    let serving = async move {
        let bound = ProfilingServer::bind(&config, profiles).await;
        let (server, answer) = match bound {
            Ok(Some(server)) => {
                let place = server.local_address();
                (Some(server), Ok(place))
            }
            Ok(None) => (None, Ok(None)),
            Err(error) => (None, Err(error)),
        };
        let _gone = tell.send(answer);
        if let Some(server) = server {
            server.run(stop).await;
        }
    };
    std::thread::Builder::new()
        .name("profiling".to_owned())
        .spawn(move || own.block_on(serving))
        .map_err(Error::internal)?;
    if let Some(place) = told.await.map_err(Error::internal)?? {
        tracing::info!(%place, "profiles are served");
    }
    Ok(())
}
