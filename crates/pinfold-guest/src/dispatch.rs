//! Which request goes where.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use pinfold_proto::Request;
use pinfold_types::{Error, ErrorCode, name::excerpt};

use crate::{api, archive, channel::Stream, exec, files, guest::Guest, net, stats};

/// Longest grace of a shutdown.
const MAX_GRACE: Duration = Duration::from_mins(10);

/// Serves one stream to its end.
pub async fn serve(guest: Rc<Guest>, stream: Stream, request: Bytes) {
    let request = match serde_json::from_slice(&request) {
        Ok(request) => request,
        Err(why) => {
            let error = Error::new(
                ErrorCode::Unprocessable,
                format!(
                    "the workspace's guest does not understand this: {}",
                    excerpt(&why.to_string())
                ),
            )
            .hint("it was started by an older server: stop and start the workspace");
            return stream.fail(&error);
        }
    };
    match request {
        Request::Exec { id, spec } => match guest.execs.start(&guest, id, *spec) {
            Ok(exec) => exec::attach(exec, stream, Some(0)).await,
            Err(error) => stream.fail(&error),
        },
        Request::Attach { id, from } => match guest.execs.get(id) {
            Ok(exec) => exec::attach(exec, stream, from).await,
            Err(error) => stream.fail(&error),
        },
        Request::Execs => stream.answer(Ok(guest.execs.list())).await,
        Request::Signal { id, signal } => {
            stream.answer(guest.execs.get(id).and_then(|exec| exec.signal(signal))).await;
        }
        Request::SetEnv { env } => {
            let done = guest.environment.borrow_mut().replace(env);
            stream.answer(done).await;
        }
        Request::Stats => stream.answer(Ok(stats::collect(&guest))).await,
        Request::Shutdown { grace_ms } => {
            guest.stopping.set(true);
            guest.execs.stop_all(Duration::from_millis(grace_ms).min(MAX_GRACE)).await;
            let channel = stream.channel().clone();
            stream.close(&());
            // The reply should be on its way before the end of PID 1 ends everything.
            drop(tokio::time::timeout(Duration::from_millis(500), channel.flushed()).await);
            guest.execs.end();
        }
        Request::Api => api::serve(guest.api.as_ref(), stream).await,
        Request::Tcp { port } => net::tunnel(stream, port).await,
        Request::Ports => stream.answer(net::ports()).await,
        Request::ArchiveGet { path } => archive::get(stream, path).await,
        Request::ArchivePut { path, options } => archive::put(stream, path, options).await,
        other => files::serve(stream, other).await,
    }
}
