//! What happens, as it happens.

use futures_util::StreamExt;
use pinfold_auth::ops;
use pinfold_control::{ExecEvent, ExecSession, Node, Service, Tracked};
use pinfold_types::{
    ExecId, Result,
    api::{EventsQuery, ExecChunk, ExecOutput},
};

use super::From;
use crate::{
    call::{Call, read_query},
    reply::Reply,
    site::Terminals,
    sse::{Event, Events, position},
    streams::exec::started,
};

pub(super) async fn follow<N: Node>(service: Service<N>, call: Call<ops::EventFollow>) -> Reply {
    let EventsQuery { after } = read_query(call.parts())?;
    let (grant, parts) = call.into_parts();
    let after = position(&parts.headers, after)?;
    let events = Events::new(parts)?;
    let happened = service.follow_events(grant, after).await?;
    Ok(events.answer(StreamExt::map(happened, |event| {
        let event = event?;
        Event::new(Some(event.seq), &event.kind, &event)
    })))
}

pub(super) async fn output<N: Node>(service: Service<N>, call: Call<ops::ExecFollow>) -> Reply {
    let exec: ExecId = call.path("exec")?;
    let From { from } = read_query(call.parts())?;
    let (grant, parts) = call.into_parts();
    let from = position(&parts.headers, from.map(i64::try_from).transpose().unwrap_or(None))?;
    let terminals = parts.extensions.get::<Terminals>().copied();
    let terminal = terminals.is_some_and(|terminals| terminals.check(true).is_ok());
    let events = Events::new(parts)?;
    let from = from.map(i64::unsigned_abs);
    let session = service.follow_exec(grant, exec, from, terminal).await?;
    Ok(events.answer(told(session)))
}

/// A command's output as events. Each is numbered with the offset that follows it, so that a
/// client that comes back misses nothing and sees nothing twice.
fn told<S: ExecSession>(
    session: Tracked<S>,
) -> impl futures_util::Stream<Item = Result<Event>> + Send + 'static {
    let start = session.start();
    let first = Event::new(Some(number(start.offset)), "started", &started(&start));
    let rest = futures_util::stream::unfold(Some((session, start.offset)), |state| async {
        let (mut session, offset) = state?;
        let chunk = |kind: &str, data: bytes::Bytes| {
            let end = offset + data.len() as u64;
            let chunk = ExecChunk { offset, data_base64: data_encoding::BASE64.encode(&data) };
            (Event::new(Some(number(end)), kind, &chunk), end)
        };
        let (event, next) = match session.next().await? {
            ExecEvent::Stdout(data) => chunk("stdout", data),
            ExecEvent::Stderr(data) => chunk("stderr", data),
            ExecEvent::Exited(result) => {
                let event = Event::new(None, "exited", &ExecOutput::Exited { result });
                return Some((event, None));
            }
            ExecEvent::Failed(error) => {
                let event = Event::new(None, "failed", &ExecOutput::Failed { error });
                return Some((event, None));
            }
        };
        Some((event, Some((session, next))))
    });
    futures_util::stream::once(std::future::ready(first)).chain(rest)
}

fn number(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
