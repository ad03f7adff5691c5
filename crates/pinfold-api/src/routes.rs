//! Every route, from the operation table.

mod access;
mod events;
mod execs;
mod files;
mod images;
pub(crate) mod mcp;
mod server;
mod snapshots;
mod workspaces;

use std::{collections::BTreeSet, future::Future, time::Duration};

use axum::{
    Router,
    extract::State,
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
    routing::{MethodFilter, any, on},
};
use http::HeaderName;
use pinfold_auth::{
    OPERATIONS, ObjectKind, Operation, OperationInfo,
    operation::{Method, Reply as Answer},
};
use pinfold_control::{Node, RateState, Service};
use pinfold_types::{Error, ErrorCode};

pub(crate) use self::execs::From;
use crate::{
    authenticate,
    call::Call,
    idempotency::{self, Keys},
    layers,
    metrics::Metrics,
    reply::{Failure, Reply},
};

/// Longest that a call with one JSON answer may take: a fork of a thousand, a copied disk.
const CALL: Duration = Duration::from_mins(15);

/// The routes of a service. The server that serves them frames every answer and lets no request
/// past its gate that is not for it.
pub fn router<N: Node>(service: Service<N>) -> Router {
    let Table { router, .. } = table();
    let recognising = service.clone();
    let open = crate::open::routes(&service);
    crate::docs::routes(router)
        .route(mcp::PATH, any(mcp::over_http))
        .fallback(layers::no_route)
        .method_not_allowed_fallback(layers::no_method)
        .with_state(service)
        .layer(from_fn_with_state(Keys::default(), idempotency::layer))
        .layer(from_fn_with_state(recognising, authenticate::layer::<N>))
        .merge(open)
}

/// Names of the operations that have a route, for the test that all of them do.
pub fn routed<N: Node>() -> Vec<&'static str> {
    table::<N>().names
}

/// A router that answers everything with one error.
pub(crate) fn refusing(error: Error, metrics: Metrics) -> Router {
    let answer = move || std::future::ready(Failure(error.clone()).into_response());
    Router::new().fallback(answer).layer(from_fn_with_state(metrics, layers::frame))
}

struct Table<N: Node> {
    router: Router<Service<N>>,
    names: Vec<&'static str>,
}

impl<N: Node> Table<N> {
    /// The route of the operation that `handler` takes a call of.
    fn add<O, F, R>(mut self, handler: F) -> Self
    where
        O: Operation,
        F: Fn(Service<N>, Call<O>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Reply> + Send + 'static,
    {
        let filter = match O::INFO.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Patch => MethodFilter::PATCH,
            Method::Delete => MethodFilter::DELETE,
        };
        let route = move |State(service): State<Service<N>>, call: Call<O>| {
            let rate = call.rate();
            let answer = handler(service, call);
            let answer = async move { answer.await.map(|reply| rated(reply, rate)) };
            async move {
                if O::INFO.reply != Answer::Json
                    || O::INFO.body == pinfold_auth::operation::Body::Stream
                {
                    return answer.await;
                }
                match tokio::time::timeout(CALL, answer).await {
                    Ok(reply) => reply,
                    Err(_) => Err(Error::new(
                        ErrorCode::Timeout,
                        format!("{} took longer than {} s", O::INFO.name, CALL.as_secs()),
                    )
                    .into()),
                }
            }
        };
        // Objects may be called like an operation beside them: an image may be named `pull`.
        for path in beside(&O::INFO) {
            self.router = self.router.route(path, on(filter, route.clone()));
        }
        self.router = self.router.route(O::INFO.path, on(filter, route));
        self.names.push(O::INFO.name);
        self
    }
}

/// Tells a caller what is left of its rate (draft-ietf-httpapi-ratelimit-headers).
fn rated(mut reply: Response, rate: Option<RateState>) -> Response {
    let Some(RateState { limit, remaining, reset_s }) = rate else { return reply };
    let headers = reply.headers_mut();
    headers.insert(HeaderName::from_static("ratelimit-limit"), limit.into());
    headers.insert(HeaderName::from_static("ratelimit-remaining"), remaining.into());
    headers.insert(HeaderName::from_static("ratelimit-reset"), reset_s.into());
    reply
}

/// Routes of other methods whose last part is a word where this operation has `{ref}`. A router
/// prefers them, so this operation answers there too.
pub(crate) fn beside(operation: &OperationInfo) -> BTreeSet<&'static str> {
    let Some(prefix) = operation.path.strip_suffix("{ref}") else { return BTreeSet::new() };
    // Sessions have ids and no names.
    if operation.object == ObjectKind::Session {
        return BTreeSet::new();
    }
    OPERATIONS
        .iter()
        .map(|other| other.path)
        .filter(|path| {
            path.strip_prefix(prefix)
                .is_some_and(|word| !word.is_empty() && !word.contains(['/', '{']))
        })
        .collect()
}

fn table<N: Node>() -> Table<N> {
    Table { router: Router::new(), names: Vec::new() }
        .add(server::read)
        .add(access::who_am_i)
        .add(events::follow)
        .add(access::create_ticket)
        .add(access::create_token)
        .add(access::tokens)
        .add(access::audit)
        .add(access::verify_audit)
        .add(access::export_audit)
        .add(access::workspace_token)
        .add(access::token)
        .add(access::revoke)
        .add(access::create_login)
        .add(access::end_logins)
        .add(access::create_session)
        .add(access::sessions)
        .add(access::end_session)
        .add(access::adopt)
        .add(access::takeover)
        .add(server::operations)
        .add(server::openapi)
        .add(server::doctor)
        .add(server::recovery)
        .add(server::backup)
        .add(mcp::connect)
        .add(workspaces::create)
        .add(workspaces::list)
        .add(workspaces::read)
        .add(workspaces::update)
        .add(workspaces::destroy)
        .add(workspaces::start)
        .add(workspaces::stop)
        .add(workspaces::pause)
        .add(workspaces::resume)
        .add(workspaces::restore)
        .add(workspaces::fork)
        .add(workspaces::stats)
        .add(workspaces::logs)
        .add(execs::run)
        .add(execs::exec)
        .add(execs::start)
        .add(execs::list)
        .add(execs::attach)
        .add(events::output)
        .add(execs::signal)
        .add(files::stat)
        .add(files::list)
        .add(files::read)
        .add(files::write)
        .add(files::mkdir)
        .add(files::rename)
        .add(files::remove)
        .add(files::chmod)
        .add(files::watch)
        .add(files::archive)
        .add(files::unpack)
        .add(files::ports)
        .add(files::connect)
        .add(snapshots::create)
        .add(snapshots::of_workspace)
        .add(snapshots::list)
        .add(snapshots::read)
        .add(snapshots::remove)
        .add(snapshots::fork)
        .add(images::list)
        .add(images::read)
        .add(images::remove)
        .add(images::pull)
        .add(images::import)
        .add(images::build)
        .add(images::prune)
        .add(images::export)
}
