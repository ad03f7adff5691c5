//! Long image work: pull, import, export, remove, prune.

use std::{
    collections::HashSet,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use pinfold_image::{ImportSource, Pruned};
use pinfold_types::{
    Error, ErrorCode, ImageId, Result,
    api::RemovedImages,
    image::{ImageInfo, ImageProgress, ImportFormat, ImportFrom, ImportImage, PullImage},
};
use tokio::sync::mpsc;

use crate::{
    LocalNode,
    guest::ByteStream,
    node::{Inner, blocking},
};

/// Bytes of an export that wait for a slow reader, in pieces of [`PIECE`].
const PIECES: usize = 8;
/// One piece of an export.
const PIECE: usize = 256 << 10;

impl LocalNode {
    /// Fetches an image from a registry.
    pub async fn pull_image(
        &self,
        request: PullImage,
        progress: mpsc::Sender<ImageProgress>,
    ) -> Result<ImageInfo> {
        let images = self.inner().images.clone();
        images.pull(request.image.as_str(), request.name, progress).await
    }

    /// Makes an image of an archive, directory or Debian release. `content` is the upload, used
    /// only where the request says so.
    pub async fn import_image(
        &self,
        request: ImportImage,
        content: ByteStream,
        progress: mpsc::Sender<ImageProgress>,
    ) -> Result<ImageInfo> {
        request.check()?;
        let inner = self.inner();
        let (source, _upload) = match request.source {
            ImportFrom::Path { path, format } => (source(path.into(), format), None),
            ImportFrom::Upload { format } => {
                let upload = inner.take_upload(content).await?;
                (source(upload.path.clone(), format), Some(upload))
            }
            ImportFrom::Debian { suite, packages, mirror } => {
                (ImportSource::Debian { suite, packages, mirror }, None)
            }
            ImportFrom::Default { mirror } => (ImportSource::Default { mirror }, None),
        };
        inner.images.import(source, Some(request.name), progress).await
    }

    /// An image as one tar that is an OCI image layout and what `docker load` reads. An error in
    /// the middle is the stream's last item.
    pub async fn export_image(&self, reference: &str) -> Result<ByteStream> {
        let image = self.inner().image_for(reference).await?;
        let hold = self.inner().holds.hold(image.id)?;
        let images = self.inner().images.clone();
        let mut stream = stream_of(move |out| {
            let _hold = hold;
            images.export(&image.id, out)
        });
        // What is wrong from the beginning is an error of the call.
        match stream.next().await {
            Some(Err(failed)) => Err(failed),
            Some(first) => {
                Ok(Box::pin(futures_util::stream::once(async move { first }).chain(stream)))
            }
            None => Ok(stream),
        }
    }

    /// Removes an image, or one of its names. One that workspaces or snapshots stand on stays.
    pub async fn remove_image(&self, reference: &str) -> Result<RemovedImages> {
        let image = self.inner().images.get(reference)?;
        let reference = reference.to_owned();
        self.shielded(|inner| async move {
            let by_name = image.names.len() > 1 && reference.parse::<ImageId>().is_err();
            inner.drop_ready(image.id).await;
            let removal = inner.holds.remove(vec![image.id]);
            let used = inner.images_in_use().await?.get(&image.id).copied().unwrap_or(0);
            if !by_name && (used > 0 || removal.images().is_empty()) {
                return Err(Error::new(
                    ErrorCode::Conflict,
                    format!(
                        "image {reference:?} is in use by {} workspaces and snapshots",
                        used.max(1)
                    ),
                )
                .hint("remove those first: pinfold ls, pinfold snapshot ls"));
            }
            let images = inner.images.clone();
            let pruned = blocking(move || images.remove(&reference)).await?;
            drop(removal);
            Ok(removed(pruned))
        })
        .await
    }

    /// Removes images without a name that nothing stands on, and layers that nobody needs.
    pub async fn prune_images(&self) -> Result<RemovedImages> {
        self.shielded(|inner| async move {
            let all: Vec<ImageId> = inner.images.list().iter().map(|image| image.id).collect();
            for image in &all {
                inner.drop_ready(*image).await;
            }
            let removal = inner.holds.remove(all.clone());
            let used = inner.images_in_use().await?;
            let free: HashSet<&ImageId> = removal.images().iter().collect();
            let keep: HashSet<ImageId> = all
                .into_iter()
                .filter(|image| used.contains_key(image) || !free.contains(image))
                .collect();
            let images = inner.images.clone();
            let pruned = blocking(move || images.prune(&keep, false)).await?;
            drop(removal);
            Ok(removed(pruned))
        })
        .await
    }
}

/// An uploaded file, removed when dropped.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) path: PathBuf,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Inner {
    /// Writes an upload to a file of the home's own, within the images' size limit.
    pub(crate) async fn take_upload(self: &Arc<Self>, mut content: ByteStream) -> Result<Upload> {
        use tokio::io::AsyncWriteExt as _;
        let name = pinfold_types::RequestId::generate().to_string();
        let upload = Upload { path: self.home.uploads().join(name) };
        let failed = |err: io::Error| cannot_write(&upload.path, &err);
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&upload.path)
            .await
            .map_err(failed)?;
        let most = self.config.images.max_image_bytes;
        let mut total = 0_u64;
        while let Some(piece) = content.next().await {
            let piece = piece?;
            total += u64::try_from(piece.len()).expect("a usize fits");
            if total > most {
                return Err(Error::new(
                    ErrorCode::TooLarge,
                    format!("the upload is larger than {most} bytes"),
                )
                .hint("images.max_image_bytes in config.toml sets the limit"));
            }
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        Ok(upload)
    }
}

fn cannot_write(path: &Path, err: &io::Error) -> Error {
    let code = match err.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        _ => ErrorCode::Unavailable,
    };
    Error::new(code, format!("the upload cannot be kept: {err}"))
        .hint("see that the disk of $PINFOLD_HOME is not full")
        .context(path.display())
}

fn source(path: PathBuf, format: Option<ImportFormat>) -> ImportSource {
    match format {
        None => ImportSource::Detect(path),
        Some(ImportFormat::OciLayout) => ImportSource::OciLayout(path),
        Some(ImportFormat::DockerArchive) => ImportSource::DockerArchive(path),
        Some(ImportFormat::RootfsTar) => ImportSource::RootfsTar(path),
        Some(ImportFormat::Directory) => ImportSource::Directory(path),
    }
}

fn removed(pruned: Pruned) -> RemovedImages {
    RemovedImages { images: pruned.images, freed_bytes: pruned.freed_bytes }
}

/// Turns writes into pieces of a stream; ends when the reader has gone.
pub(crate) struct Pieces {
    sender: mpsc::Sender<Result<Bytes>>,
    piece: BytesMut,
}

/// Runs `write` on a thread of its own and streams what it writes. An error is the last item.
pub(crate) fn stream_of(
    write: impl FnOnce(&mut Pieces) -> Result<()> + Send + 'static,
) -> ByteStream {
    let (sender, receiver) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces { sender, piece: BytesMut::with_capacity(PIECE) };
        let done = write(&mut out).and_then(|()| {
            out.flush().map_err(|err| Error::new(ErrorCode::Cancelled, err.to_string()))
        });
        if let Err(failed) = done {
            // Nobody listens any more when this fails.
            let _ = out.sender.blocking_send(Err(failed));
        }
    });
    Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    }))
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE)).freeze();
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader has gone"))
    }
}
