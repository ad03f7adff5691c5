//! A host on a loopback address, as the program composes it, but for who may come in.

use std::{any::Any, net::SocketAddr};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::Request;
use http_body_util::BodyDataStream;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use pinfold_auth::{Authenticator, Caller, PeerCredentials, Surface, TokenKey};
use pinfold_control::ByteStream;
use pinfold_mcp::http::{Endpoint, Host, Lease, Refusal};
use pinfold_types::{Error, ErrorCode, Result, config::StreamsConfig};
use rmcp::model::ClientJsonRpcMessage;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;

/// Everybody may say everything, or nothing.
#[derive(Debug)]
pub(crate) struct Open {
    lacks: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Nothing;

impl Host for Open {
    type Handler = Fixture;
    type Lease = Nothing;

    async fn admit(&self, _: &Caller, _: &ClientJsonRpcMessage) -> Result<(), Refusal> {
        let Some(scope) = self.lacks else { return Ok(()) };
        let error = Error::new(ErrorCode::Forbidden, "a right is missing");
        Err(Refusal { error, scope: Some(scope.to_owned()) })
    }

    async fn open(&self, _: &Caller, _: &str) -> Result<Nothing> {
        Ok(Nothing)
    }

    fn within(&self, _: &Nothing, caller: &Caller) -> Caller {
        caller.clone()
    }

    fn handler(&self, _: Option<&Nothing>, _: Option<&Caller>) -> Fixture {
        Fixture
    }

    fn ended(&self, _: &Caller) -> CancellationToken {
        CancellationToken::new()
    }
}

impl Lease for Nothing {
    fn attend(&self, _: &Caller) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(()))
    }

    fn stands(&self, _: &Caller) -> bool {
        true
    }

    async fn end(self) {}
}

/// The fixture, for everybody.
pub(crate) fn endpoint() -> Endpoint<Open> {
    Endpoint::new(Open { lacks: None }, StreamsConfig::default(), CancellationToken::new())
}

/// The same, for nobody who lacks two rights.
pub(crate) fn narrow() -> Endpoint<Open> {
    let host = Open { lacks: Some("a:b c:d") };
    Endpoint::new(host, StreamsConfig::default(), CancellationToken::new())
}

/// Whoever asks.
pub(crate) fn owner() -> Caller {
    let authenticator = Authenticator::new(0, TokenKey::new([0; 32]));
    let owner = authenticator.peer(PeerCredentials { uid: 0 }).expect("the owner");
    Caller::new(owner, Surface::McpStdio)
}

/// Serves the fixture until the runtime ends.
pub(crate) async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let endpoint = endpoint();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let endpoint = endpoint.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(owner());
                let endpoint = endpoint.clone();
                async move { Ok::<_, Error>(endpoint.handle(request.map(stream_of)).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn stream_of(body: Incoming) -> ByteStream {
    let parts = BodyDataStream::new(body);
    Box::pin(parts.map(|part: Result<Bytes, hyper::Error>| part.map_err(Error::internal)))
}
