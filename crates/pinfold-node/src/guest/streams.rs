//! Files and archives in pieces, and watching.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use pinfold_proto::{FileStart, Request};
use pinfold_types::{
    Error, Result,
    api::{FileInfo, WatchEvent},
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{
    ByteStream,
    call::{Call, Event, out_of_order, parse},
    link::{self, Users},
};

/// Watch events that wait for whoever asked.
const WATCH_QUEUE: usize = 256;

/// Bytes of a call until its reply.
struct Download(Option<Call>);

impl Stream for Download {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(call) = &self.0 else { return Poll::Ready(None) };
            let last = match ready!(call.poll_event(context)) {
                Some(Event::Data(_, bytes)) if bytes.is_empty() => continue,
                Some(Event::Data(_, bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Some(Event::Message(_)) => continue,
                Some(Event::Reply(_)) => None,
                Some(Event::Failed(error)) => Some(Err(error)),
                None => Some(Err(out_of_order())),
            };
            self.0 = None;
            return Poll::Ready(last);
        }
    }
}

pub(super) async fn download(
    link: &Arc<Users>,
    request: &Request,
) -> Result<(Option<FileInfo>, ByteStream)> {
    let call = link::open(link, request).await?;
    let start: FileStart = call.message().await?;
    Ok((start.info, Box::pin(Download(Some(call)))))
}

pub(super) async fn upload<T: DeserializeOwned>(
    link: &Arc<Users>,
    request: &Request,
    mut content: ByteStream,
) -> Result<T> {
    let call = link::open(link, request).await?;
    let sender = call.sender();
    let sending = async {
        while let Some(bytes) = content.next().await {
            sender.send(bytes?).await?;
        }
        sender.end();
        Ok::<(), Error>(())
    };
    // A reply before the end is a refusal: a full disk, for one.
    tokio::select! {
        biased;
        reply = call.reply() => return reply,
        sent = sending => sent?,
    }
    call.reply().await
}

pub(super) async fn watch(
    link: &Arc<Users>,
    request: &Request,
) -> Result<mpsc::Receiver<WatchEvent>> {
    let call = link::open(link, request).await?;
    call.message::<()>().await?;
    let (sender, receiver) = mpsc::channel(WATCH_QUEUE);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = call.event() => event,
                () = sender.closed() => return,
            };
            let Some(Event::Data(_, text)) = event else { return };
            let Ok(events) = parse::<Vec<WatchEvent>>(&text) else { return };
            for event in events {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(receiver)
}
