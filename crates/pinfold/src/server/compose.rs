//! The server, from its lock to its last stream.

mod first;
mod log;
mod login;
mod metrics;
mod profiling;
mod socket;
mod tcp;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pinfold_api::{
    Activity, Inside, McpConnect, McpHttp, McpStream, Metrics, Server, Site, Tcp, metrics::Address,
    router, with_mcp,
};
use pinfold_control::{Access, ServerFacts, Service};
use pinfold_mcp::{Lines, Served, http::Endpoint, serve_lines};
use pinfold_node::{LocalNode, NodeOptions};
use pinfold_store::{
    Store,
    audit::{AuditKey, AuditLog, AuditOptions},
};
use pinfold_telemetry::spans::Exporter;
use pinfold_types::{Error, Result, config::Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use self::first::First;
use super::{config, embed, inside::Answering, keys, lock::Lock, prepare, ready};
use crate::{args::server::Up, home::Home, output::Output, tls::Certificates};

/// Blocking work (disks, images) has threads of its own; the rest needs few.
const WORKERS: usize = 4;

/// Runs the server of a home until a signal, or until it is idle when it may leave.
pub(super) fn run(home: &Home, args: &Up, output: &Output) -> Result<()> {
    prepare::prepare(home)?;
    // Everything that can be wrong is found before anything is touched (AX-18).
    let config = config(home)?;
    let addresses = tcp::wanted(&config, args);
    tcp::check_encrypted(&addresses, config.server.has_tls())?;
    let telemetry = pinfold_telemetry::spans::of(&config.telemetry, env!("CARGO_PKG_VERSION"))?;
    let (spans, exporter) = telemetry.unzip();
    log::start(&config.server, spans)?;
    let measured = metrics::address(&config.metrics, args)?;
    let lock = Lock::take(home, args.on_demand)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, WORKERS))
        .enable_all()
        .build()
        .map_err(Error::internal)?;
    let result =
        runtime.block_on(serve(home, args, output, config, &addresses, measured, exporter));
    // A stuck thread of a disk's copy must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(5));
    drop(lock);
    result
}

async fn serve(
    home: &Home,
    args: &Up,
    output: &Output,
    config: Config,
    addresses: &[SocketAddr],
    measured: Option<Address>,
    exporter: Option<Exporter>,
) -> Result<()> {
    let started = Instant::now();
    let idle_exit = match (&args.idle_exit, args.on_demand) {
        (Some(time), _) => Some(Duration::from_millis(time.0)),
        (None, true) => Some(Duration::from_millis(config.server.idle_exit_ms)),
        (None, false) => None,
    };
    let max_connections = usize::try_from(config.server.max_connections).unwrap_or(usize::MAX);
    let store = Store::open(&home.database()).await?;
    let access = Access::open(
        rustix::process::geteuid().as_raw(),
        keys::token_key(home)?,
        store.clone(),
        &config,
    )
    .await?;
    let key = AuditKey::open(&home.keys())?;
    let audit = AuditLog::open(&home.path().join("audit"), key, AuditOptions::default())?;
    // Before recovery, so that an address that is taken costs nothing. Whoever calls already waits.
    let first = First::wanted(addresses, access.has_credentials(), args, output)?;
    let certificates = Certificates::of(home, &config, addresses)?;
    let certificate = certificates.as_ref().map(Certificates::in_force);
    let bound = tcp::bind(addresses)?;
    let site = Site::new(&config, bound.addresses());
    let streams = config.streams.clone();
    let profiled = config.profiling.clone();
    let pages = login::pages(&config.server, bound.addresses());
    let (doorstep, inside) = Inside::new();
    let mut options = NodeOptions::new(
        home.path().to_owned(),
        config,
        store.clone(),
        embed::program(home, "pinfold-launcher")?,
        embed::program(home, "pinfold-guest")?,
    );
    let answering = Answering { access: access.clone(), audit: audit.clone(), doorstep };
    options.inside = Some(Arc::new(answering));
    let (node, recovered) = LocalNode::open(options).await?;
    tracing::info!(actions = recovered.len(), "recovery is done");
    let facts = ServerFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        home: home.path().to_owned(),
        started,
    };
    let (activity, stop) = (Activity::default(), CancellationToken::new());
    let numbers = Metrics::default();
    let spans = exporter.as_ref().map(Exporter::counts);
    // Spans of what ends with the server are taken until everything has ended.
    let ended = CancellationToken::new();
    let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(ended.clone())));
    if let Some(address) = measured {
        let look = metrics::look(&node, &store, &audit, certificate, spans);
        metrics::serve(address, numbers.clone(), look, stop.clone()).await?;
    }
    if !args.on_demand {
        profiling::serve(&profiled, stop.clone()).await?;
    }
    let service = Service::new(node.clone(), access.clone(), store, audit.clone(), facts);
    service.found_at(pages);
    // Nobody is served yet: what cannot be given away keeps the server from starting.
    if let Some(first) = first {
        first.give(&service, output).await?;
    }
    let listening = socket::listen(home)?;
    let names: Vec<String> = bound.addresses().iter().map(ToString::to_string).collect();
    let tls = certificates.as_ref().map(Certificates::server_config).transpose()?;
    let tcp = bound.into_listeners().into_iter().map(|socket| Tcp::new(socket, tls.clone()));
    let pin = certificates.as_ref().and_then(Certificates::pin);
    let _renewing = certificates
        .map(|certificates| AbortOnDropHandle::new(tokio::spawn(certificates.renew(stop.clone()))));
    let endpoint = Endpoint::new(Served::new(service.clone()), streams, stop.clone());
    let over_http = {
        let endpoint = endpoint.clone();
        McpHttp::new(move |request| {
            let endpoint = endpoint.clone();
            async move { endpoint.handle(request).await }
        })
    };
    let server = Server {
        listener: listening.listener()?,
        tcp: tcp.collect::<Result<_>>()?,
        inside,
        site: site.watched_by(service.clone()),
        router: with_mcp(router(service.clone()), mcp(service.clone()), over_http),
        access,
        metrics: numbers,
        max_connections,
        activity: activity.clone(),
        stop: stop.clone(),
    };
    let sweeping = AbortOnDropHandle::new(tokio::spawn(sweep(service.clone())));
    let serving = tokio::spawn(server.run());
    ready(args);
    tracing::info!(home = %home.path().display(), tcp = ?names, took = ?started.elapsed(), "listening");
    if !args.on_demand {
        output.note(format!("listening on {}", home.socket().display()));
        let scheme = if tls.is_some() { "https" } else { "http" };
        for name in names {
            output.note(format!("listening on {scheme}://{name}"));
        }
        if let Some(pin) = pin {
            output.note(format!("clients pin {pin}"));
        }
        login::invite(&service, output).await;
    }

    let why = wait(&activity, idle_exit, &node).await?;
    tracing::info!(why, "leaving; workspaces go on");
    super::notify::send("STOPPING=1");
    // New clients start a server of their own from here on; it waits for our lock.
    drop(listening);
    stop.cancel();
    let streams = serving.await.map_err(Error::internal)?;
    drop(sweeping);
    // The node first: what its streams carry then outlives them.
    let closed = node.shutdown().await;
    streams.end().await;
    endpoint.end().await;
    audit.close().await;
    ended.cancel();
    if let Some(exporting) = exporting {
        exporting.await.map_err(Error::internal)?;
    }
    closed
}

/// How soon the streams of an expired credential end, at the latest (PF-01: within a second).
const SWEEP: Duration = Duration::from_millis(250);

async fn sweep(service: Service<LocalNode>) {
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        service.sweep().await;
    }
}

/// What serves MCP over the server's own socket.
fn mcp(service: Service<LocalNode>) -> McpConnect {
    McpConnect::new(move |caller, McpStream { incoming, outgoing }| {
        serve_lines(service.clone(), &caller, Lines { incoming, outgoing })
    })
}

/// Returns with the reason to leave.
async fn wait(
    activity: &Activity,
    idle_exit: Option<Duration>,
    node: &LocalNode,
) -> Result<&'static str> {
    let listen = |kind| signal(kind).map_err(Error::internal);
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let idle = async {
        let Some(time) = idle_exit else { return std::future::pending().await };
        loop {
            activity.idle_for(time).await;
            // A lifetime that somebody has to end is work. Workspaces without one need nobody.
            let ends = |info: &pinfold_types::workspace::WorkspaceInfo| {
                info.expires_at.is_some() || (info.idle_ms.is_some() && info.state.is_live())
            };
            if !node.list().iter().any(ends) {
                return;
            }
        }
    };
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = hangup.recv() => "SIGHUP",
        () = idle => "idle",
    })
}
