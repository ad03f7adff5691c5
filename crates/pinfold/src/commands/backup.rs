//! `backup`: the server seals, this side writes; checking and restoring need no server.

mod pipe;

use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Method;
use http_body_util::BodyExt;
use pinfold_backup::{BackupKey, Key, Passphrase};
use pinfold_node::Restored;
use pinfold_types::{ByteSize, Error, ErrorCode, Result, api::CreateBackup};
use serde::Serialize;

use super::Context;
use crate::{
    args::backup::{Backup, BackupCreate, KeyArgs},
    client::{Body, lost},
    output::{Output, progress::Progress},
};

/// How often a person sees how far it is.
const TICK: Duration = Duration::from_millis(200);

pub(super) async fn backup(context: &Context, args: Backup) -> Result<()> {
    match args {
        Backup::Create(args) => create(context, args).await,
        Backup::Verify(args) => {
            let key = key_of(context, &args.key)?;
            let (source, total) = open(&args.file)?;
            let (count, counted) = Counting::new(source);
            let work = tokio::task::spawn_blocking(move || pinfold_node::verify(counted, &key));
            let checked = follow(&context.output, "checking", &count, total, async move {
                work.await.map_err(Error::internal)?
            })
            .await?;
            context.output.show(&checked, |read| said(read, "holds"))
        }
        Backup::Restore(args) => {
            let key = key_of(context, &args.key)?;
            let (source, total) = open(&args.file)?;
            let (count, counted) = Counting::new(source);
            let work = pinfold_node::restore(counted, key, context.home.path());
            let restored = follow(&context.output, "restoring", &count, total, work).await?;
            for id in &restored.dropped {
                context.output.note(format!("{id} had no disk in the backup, and is left out"));
            }
            context.output.note(format!(
                "start the server: pinfold --home {} up",
                context.home.path().display()
            ));
            context.output.show(&restored, |read| said(read, "restored"))
        }
    }
}

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    /// Absent when it went to standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    bytes: u64,
    /// What opens it.
    opens_with: String,
}

async fn create(context: &Context, args: BackupCreate) -> Result<()> {
    let to_stdout = args.file == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        return Err(Error::new(ErrorCode::InvalidArgument, "a backup is not for a terminal")
            .hint("name a file, or lead standard output somewhere else"));
    }
    // Everything that can be wrong here is found before the server begins.
    let another = if args.key.key_file.is_some() || args.key.passphrase_file.is_some() {
        Some(key_of(context, &args.key)?)
    } else {
        None
    };
    let target = pipe::Target::open((!to_stdout).then_some(args.file.as_path()))?;
    let request =
        CreateBackup { without_images: args.without_images, without_disks: args.without_disks };
    let body = serde_json::to_vec(&request).map_err(Error::internal)?;
    let response = context
        .client
        .request(
            Method::POST,
            "/api/v1/backup",
            Some("application/json"),
            Body::Whole(Some(body.into())),
        )
        .await?;
    let own_key = context.home.path().join("keys/backup.key");
    // The server seals with the key of the home. For another key it is opened and sealed anew
    // here, so that no key travels and no other caller can choose one.
    let anew = match another {
        Some(key) => Some((Key::File(BackupKey::read(&own_key)?), key)),
        None => None,
    };
    let count = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    let written = Arc::clone(&count);
    let writing = tokio::task::spawn_blocking(move || target.fill(receiver, anew, &written));
    let mut body = response.into_body();
    let feeding = async move {
        while let Some(frame) = body.frame().await {
            let piece = match frame {
                Ok(frame) => frame.into_data().map_err(|_| io::Error::other("a trailer")),
                Err(error) => Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
            };
            let failed = piece.is_err();
            // Whoever writes has failed, and says why.
            if sender.send(piece).await.is_err() || failed {
                break;
            }
        }
        drop(sender);
        writing.await.map_err(Error::internal)?.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionReset => lost(&error)
                .hint("the server broke the backup off: look at its log; nothing was kept"),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::new(ErrorCode::DiskFull, "the disk of the backup is full; nothing was kept")
            }
            _ => Error::new(ErrorCode::Unavailable, format!("the backup was not written: {error}"))
                .hint("nothing was kept"),
        })
    };
    let bytes = follow(&context.output, "backup", &count, None, feeding).await?;
    let opens_with = match (&args.key.key_file, &args.key.passphrase_file) {
        (Some(file), _) => file.display().to_string(),
        (_, Some(file)) => format!("the passphrase in {}", file.display()),
        (None, None) => own_key.display().to_string(),
    };
    context.output.note(format!(
        "{} written; it opens with {opens_with}: keep a copy of that elsewhere",
        ByteSize(bytes)
    ));
    let file = (!to_stdout).then(|| args.file.display().to_string());
    if context.output.json() && !to_stdout {
        return context.output.value(&Written { file, bytes, opens_with });
    }
    Ok(())
}

/// The key that was asked for, or that of the home.
fn key_of(context: &Context, args: &KeyArgs) -> Result<Key> {
    if let Some(path) = &args.passphrase_file {
        return Ok(Key::Passphrase(Passphrase::read(path)?));
    }
    if let Some(path) = &args.key_file {
        return Ok(Key::File(BackupKey::read(path)?));
    }
    let path = context.home.path().join("keys/backup.key");
    if !path.exists() {
        return Err(Error::new(ErrorCode::InvalidArgument, "there is no backup key in this home")
            .hint("give the key or passphrase of the backup: --key-file, --passphrase-file"));
    }
    Ok(Key::File(BackupKey::read(&path)?))
}

/// A backup to be read, and its length where that is known.
fn open(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None));
    }
    let failed = |error: io::Error| {
        Error::new(ErrorCode::InvalidPath, format!("{} cannot be read: {error}", path.display()))
    };
    let file = File::open(path).map_err(failed)?;
    let facts = file.metadata().map_err(failed)?;
    let length = facts.is_file().then_some(facts.len());
    Ok((Box::new(io::BufReader::with_capacity(256 << 10, file)), length))
}

/// Counts what is read.
struct Counting {
    source: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Counting {
    fn new(source: Box<dyn Read + Send>) -> (Arc<AtomicU64>, Self) {
        let count = Arc::new(AtomicU64::new(0));
        (Arc::clone(&count), Self { source, count })
    }
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.source.read(buffer)?;
        self.count.fetch_add(got as u64, Ordering::Relaxed);
        Ok(got)
    }
}

/// Shows how far work is until it ends.
async fn follow<T>(
    output: &Output,
    what: &str,
    count: &AtomicU64,
    total: Option<u64>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut progress = Progress::new(output);
    let mut ticks = tokio::time::interval(TICK);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => progress.bytes(what, count.load(Ordering::Relaxed), total),
        }
    }
}

fn said(read: &Restored, verb: &str) -> String {
    let Restored { manifest, contents, .. } = read;
    let mut text = format!(
        "backup of {} from {}, by pinfold {}\n{verb} {} workspaces, {} snapshots, {} images\n",
        manifest.home,
        manifest.created_at,
        manifest.version,
        contents.disks,
        contents.snapshots,
        manifest.images,
    );
    if manifest.without_disks {
        text.push_str("disks were left out\n");
    }
    if manifest.without_images {
        text.push_str("layers of images were left out: pull them again\n");
    }
    if contents.paths_left_out > 0 {
        text.push_str(&contents.paths_left_out.to_string());
        text.push_str(" files were left out: their paths are too long\n");
    }
    text
}
