//! Images. Long work answers with its progress, a JSON object a line, the last of which is the
//! image or the error.

use std::{future::Future, task::Poll};

use futures_util::{StreamExt, stream};
use pinfold_auth::ops;
use pinfold_control::{Node, Progress, Service};
use pinfold_types::{
    Result,
    image::{ImageInfo, ImageProgress},
};
use tokio::sync::mpsc;

use crate::{
    call::Call,
    reply::{Reply, bytes, json, lines},
};

/// Steps that may wait for a slow reader.
const STEPS: usize = 64;

pub(super) async fn list<N: Node>(service: Service<N>, call: Call<ops::ImageList>) -> Reply {
    let (grant, query) = call.query()?;
    json(&service.list_images(grant, &query).await?)
}

pub(super) async fn read<N: Node>(service: Service<N>, call: Call<ops::ImageRead>) -> Reply {
    json(&service.image(call.grant()).await?)
}

pub(super) async fn remove<N: Node>(service: Service<N>, call: Call<ops::ImageRemove>) -> Reply {
    json(&service.remove_image(call.grant()).await?)
}

pub(super) async fn prune<N: Node>(service: Service<N>, call: Call<ops::ImagePrune>) -> Reply {
    json(&service.prune_images(call.grant()).await?)
}

pub(super) async fn export<N: Node>(service: Service<N>, call: Call<ops::ImageExport>) -> Reply {
    Ok(bytes("application/x-tar", service.export_image(call.grant()).await?))
}

pub(super) async fn pull<N: Node>(service: Service<N>, call: Call<ops::ImagePull>) -> Reply {
    let (grant, request) = call.json().await?;
    Ok(follow(move |progress| async move { service.pull_image(grant, request, progress).await }))
}

pub(super) async fn import<N: Node>(service: Service<N>, call: Call<ops::ImageImport>) -> Reply {
    let (grant, request, content) = call.json_or_upload().await?;
    Ok(follow(move |progress| async move {
        service.import_image(grant, request, content, progress).await
    }))
}

pub(super) async fn build<N: Node>(service: Service<N>, call: Call<ops::ImageBuild>) -> Reply {
    let (grant, request, content) = call.json_or_upload().await?;
    Ok(follow(move |progress| async move {
        service.build_image(grant, request, content, progress).await
    }))
}

/// Streams the progress of `work`. The work ends with the connection: an unfinished image is
/// worth nothing to a caller that has gone, and what was fetched is kept for the next try.
fn follow<F>(work: impl FnOnce(Progress) -> F + Send + 'static) -> axum::response::Response
where
    F: Future<Output = Result<ImageInfo>> + Send + 'static,
{
    let (progress, mut steps) = mpsc::channel(STEPS);
    let mut work = Box::pin(work(progress));
    let mut result = None;
    let next = stream::poll_fn(move |context| {
        if result.is_none() {
            match work.as_mut().poll(context) {
                Poll::Ready(done) => result = Some(Some(done)),
                // Work that has told its last step may still have some way to go.
                Poll::Pending => {
                    return match steps.poll_recv(context) {
                        Poll::Ready(None) => Poll::Pending,
                        told => told,
                    };
                }
            }
        }
        // What was told before the end comes before it. `poll_recv` could be told to yield here.
        if let Ok(step) = steps.try_recv() {
            return Poll::Ready(Some(step));
        }
        Poll::Ready(result.as_mut().and_then(Option::take).map(|done| match done {
            Ok(image) => ImageProgress::Done { image: Box::new(image) },
            Err(error) => ImageProgress::Failed { error },
        }))
    });
    lines(next.boxed())
}

#[cfg(test)]
mod tests {
    use pinfold_types::{Error, ErrorCode};

    use super::*;

    #[tokio::test]
    async fn the_report_lasts_as_long_as_the_work() {
        let response = follow(|progress| async move {
            let step = ImageProgress::Step { message: "all that is told".into() };
            progress.send(step).await.expect("somebody listens");
            drop(progress);
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            Err(Error::new(ErrorCode::BadImage, "it did not work"))
        });
        let body = axum::body::to_bytes(response.into_body(), 4096).await.expect("a whole body");
        let text = String::from_utf8_lossy(&body);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("all that is told"), "{text}");
        assert!(lines[1].contains("it did not work"), "{text}");
    }
}
