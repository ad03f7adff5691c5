//! The listener of profiles: `/debug/pprof/profile` and `/debug/runtime`, on loopback alone.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use pinfold_types::{Error, ErrorCode, Result, config::ProfilingConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    aside::{Answer, Aside, PLAIN, say},
    reply,
};

/// Seconds of a profile where none are asked for.
const SECONDS: u64 = 30;
const INDEX: &str = "\
/debug/pprof/profile?seconds=30   CPU profile, 1 to 60 seconds, pprof's format
/debug/runtime                    async runtime and memory, JSON
";

/// Takes a profile of so long.
pub type Profile =
    Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send>> + Send + Sync>;
/// Looks at runtime and memory, as JSON.
pub type RuntimeLook = Arc<dyn Fn() -> Result<Vec<u8>> + Send + Sync>;

/// What is served.
#[derive(Clone)]
pub struct Profiles {
    /// Takes a CPU profile.
    pub cpu: Profile,
    /// Longest that one may take.
    pub longest: Duration,
    /// Looks at the runtime.
    pub look: RuntimeLook,
}

impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiles").finish_non_exhaustive()
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct ProfilingServer(Aside);

impl ProfilingServer {
    /// Binds where the configuration says; `None` where it says nothing.
    ///
    /// # Errors
    /// When the address is beyond loopback, or cannot be bound.
    pub async fn bind(config: &ProfilingConfig, profiles: Profiles) -> Result<Option<Self>> {
        config.check()?;
        let Some(at) = config.listen else { return Ok(None) };
        let listener = TcpListener::bind(at).await.map_err(|error| {
            Error::new(
                ErrorCode::Unavailable,
                format!("profiles cannot be served on {at}: {error}"),
            )
            .hint("set profiling.listen to a free address, or leave it out")
        })?;
        let answer: Answer = Arc::new(move |request| {
            let profiles = profiles.clone();
            Box::pin(async move { answer(&request, &profiles).await })
        });
        let lets_in = Arc::new(|peer: std::net::IpAddr| peer.to_canonical().is_loopback());
        Ok(Some(Self(Aside { listener, what: "profiles", lets_in, answer })))
    }

    /// Where it listens, with the port that the kernel chose where 0 was asked for.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.0.listener.local_addr().ok()
    }

    /// Answers until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        self.0.run(stop).await;
    }
}

async fn answer<B>(request: &Request<B>, profiles: &Profiles) -> Response<Full<Bytes>> {
    let (path, query) = (request.uri().path(), request.uri().query());
    if !matches!(path, "/" | "/debug/pprof/" | "/debug/pprof/profile" | "/debug/runtime") {
        return say(StatusCode::NOT_FOUND, INDEX, PLAIN);
    }
    if request.method() != Method::GET {
        return say(StatusCode::METHOD_NOT_ALLOWED, "this is only read\n", PLAIN);
    }
    let made = match path {
        "/debug/pprof/profile" => match wanted(query, profiles.longest) {
            Ok(time) => (profiles.cpu)(time).await.map(|file| {
                let mut response = say(StatusCode::OK, file, "application/octet-stream");
                let name = HeaderValue::from_static("attachment; filename=\"pinfold.pb.gz\"");
                response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
                response
            }),
            Err(error) => Err(error),
        },
        "/debug/runtime" => {
            (profiles.look)().map(|text| say(StatusCode::OK, text, "application/json"))
        }
        _ => Ok(say(StatusCode::OK, INDEX, PLAIN)),
    };
    made.unwrap_or_else(|error| {
        if error.code == ErrorCode::Internal {
            tracing::error!(cause = error.internal, "a profile failed");
        }
        let hint = error.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        let text = format!("{}{hint}\n", error.message);
        say(reply::status(error.code.http_status()), text, PLAIN)
    })
}

/// `seconds=N`, and nothing else.
fn wanted(query: Option<&str>, longest: Duration) -> Result<Duration> {
    let seconds = match query.unwrap_or_default() {
        "" => Some(SECONDS),
        query => query.strip_prefix("seconds=").and_then(|text| text.parse().ok()),
    };
    let most = longest.as_secs();
    seconds.filter(|seconds| (1..=most).contains(seconds)).map(Duration::from_secs).ok_or_else(
        || {
            let message =
                format!("a profile takes ?seconds=N, N from 1 to {most}, and nothing else");
            Error::new(ErrorCode::InvalidArgument, message)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_profile_is_bounded() {
        let most = Duration::from_mins(1);
        assert_eq!(wanted(None, most).expect("the default"), Duration::from_secs(30));
        assert_eq!(wanted(Some("seconds=60"), most).expect("the most"), most);
        for bad in ["seconds=0", "seconds=61", "seconds=", "seconds=1.5", "hz=9", "seconds=-1"] {
            let refused = wanted(Some(bad), most).expect_err(bad);
            assert!(refused.message.contains("1 to 60"), "{bad}");
        }
    }
}
