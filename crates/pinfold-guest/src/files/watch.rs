//! Watching paths. Man page: inotify(7).

use std::{
    collections::HashMap,
    fs,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use pinfold_proto::Kind;
use pinfold_types::{
    Error,
    api::{WatchEvent, WatchKind},
    exec::check_path,
};
use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};
use tokio::io::Interest;

use super::blocking;
use crate::{channel::Stream, failure::on_path, watched::watched};

/// Directories one recursive watch covers. Beyond, the first event is an overflow.
const MAX_DIRECTORIES: usize = 8192;
/// Events read at once.
const BATCH: usize = 256;
/// A frame that has grown beyond this is sent.
const FRAME_BYTES: usize = 32 << 10;

/// Watched directories by the kernel's number, and their paths below the top.
struct Tree {
    inotify: Arc<OwnedFd>,
    top: PathBuf,
    recursive: bool,
    below: HashMap<i32, PathBuf>,
    /// Something could not be watched.
    incomplete: bool,
}

impl Tree {
    fn open(path: &str, recursive: bool) -> Result<Self, Error> {
        check_path(path)?;
        let failed = |errno: Errno| on_path("watch", path, &errno.into());
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let mut tree = Self {
            inotify: Arc::new(inotify),
            top: PathBuf::from(path),
            recursive,
            below: HashMap::new(),
            incomplete: false,
        };
        tree.add(Path::new("")).map_err(failed)?;
        if recursive {
            tree.add_below(PathBuf::new(), &mut Vec::new());
        }
        Ok(tree)
    }

    fn add(&mut self, place: &Path) -> Result<(), Errno> {
        let mut flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::EXCL_UNLINK;
        let whole = if place.as_os_str().is_empty() {
            self.top.clone()
        } else {
            flags |= WatchFlags::DONT_FOLLOW | WatchFlags::ONLYDIR;
            self.top.join(place)
        };
        let number = inotify::add_watch(&self.inotify, &whole, flags)?;
        self.below.insert(number, place.to_owned());
        Ok(())
    }

    /// Watches every directory below `start`, and tells what is there already in `found`.
    fn add_below(&mut self, start: PathBuf, found: &mut Vec<WatchEvent>) {
        let mut todo = vec![start];
        while let Some(place) = todo.pop() {
            let Ok(entries) = fs::read_dir(self.top.join(&place)) else { continue };
            for entry in entries.flatten() {
                let path = place.join(entry.file_name());
                if found.len() < MAX_DIRECTORIES {
                    found.push(event(WatchKind::Created, &path));
                }
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                if self.below.len() >= MAX_DIRECTORIES {
                    self.incomplete = true;
                    return;
                }
                match self.add(&path) {
                    Ok(()) => todo.push(path),
                    Err(Errno::NOENT | Errno::NOTDIR) => {}
                    // The user's allowance of watches is used up.
                    Err(_) => {
                        self.incomplete = true;
                        return;
                    }
                }
            }
        }
    }

    /// Forgets a directory that was moved away, with all below it.
    fn forget(&mut self, place: &Path) {
        let inotify = Arc::clone(&self.inotify);
        self.below.retain(|number, path| {
            let gone = path.starts_with(place);
            if gone {
                let _ = inotify::remove_watch(&inotify, *number);
            }
            !gone
        });
    }

    /// What the kernel has to say, in its order.
    fn read(&mut self) -> Result<Vec<WatchEvent>, Errno> {
        let mut space = [MaybeUninit::uninit(); 16 << 10];
        let inotify = Arc::clone(&self.inotify);
        let mut reader = inotify::Reader::new(&*inotify, &mut space);
        let mut events = Vec::new();
        loop {
            let (flags, number, name) = match reader.next() {
                Ok(raw) => {
                    let name = raw.file_name().map(|name| name.to_string_lossy().into_owned());
                    (raw.events(), raw.wd(), name)
                }
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            self.translate(flags, number, name.as_deref(), &mut events);
            if events.len() >= BATCH {
                break;
            }
        }
        events.dedup();
        Ok(events)
    }

    fn translate(
        &mut self,
        flags: ReadFlags,
        number: i32,
        name: Option<&str>,
        events: &mut Vec<WatchEvent>,
    ) {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            events.push(event(WatchKind::Overflow, Path::new("")));
            return;
        }
        if flags.contains(ReadFlags::IGNORED) {
            self.below.remove(&number);
            return;
        }
        let Some(directory) = self.below.get(&number).cloned() else { return };
        let own = name.is_none();
        // What happens to a directory is told by the one above it, except for the top.
        if own && !directory.as_os_str().is_empty() {
            return;
        }
        let path = name.map_or_else(|| directory.clone(), |name| directory.join(name));
        let is_dir = flags.contains(ReadFlags::ISDIR);
        let kind = if flags.contains(ReadFlags::CREATE) {
            WatchKind::Created
        } else if flags.contains(ReadFlags::MODIFY) {
            WatchKind::Modified
        } else if flags.contains(ReadFlags::ATTRIB) {
            WatchKind::Attributes
        } else if flags.intersects(ReadFlags::DELETE | ReadFlags::DELETE_SELF) {
            WatchKind::Removed
        } else if flags
            .intersects(ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO | ReadFlags::MOVE_SELF)
        {
            WatchKind::Renamed
        } else {
            return;
        };
        events.push(event(kind, &path));
        if !self.recursive || !is_dir || own {
            return;
        }
        if flags.contains(ReadFlags::MOVED_FROM) {
            self.forget(&path);
        } else if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            let room = self.below.len() < MAX_DIRECTORIES;
            if room && self.add(&path).is_ok() {
                self.add_below(path, events);
            } else if self.top.join(&path).is_dir() {
                self.incomplete = true;
            }
        }
    }
}

fn event(kind: WatchKind, path: &Path) -> WatchEvent {
    WatchEvent { kind, path: path.to_string_lossy().into_owned() }
}

/// The events as JSON lists, each short enough for one frame: a path of 4 KiB is at most 24 KiB
/// when every byte of it is escaped.
fn frames(events: &[WatchEvent]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let mut text = Vec::new();
    for (place, one) in events.iter().enumerate() {
        text.push(if text.is_empty() { b'[' } else { b',' });
        // A struct of text is always JSON.
        text.extend(serde_json::to_vec(one).unwrap_or_default());
        if text.len() > FRAME_BYTES || place + 1 == events.len() {
            text.push(b']');
            frames.push(Bytes::from(std::mem::take(&mut text)));
        }
    }
    frames
}

/// Sends what changes until the host has enough.
pub(super) async fn watch(stream: Stream, path: String, recursive: bool) {
    let asked = path.clone();
    let mut tree = match blocking(move || Tree::open(&asked, recursive)).await {
        Ok(tree) => tree,
        Err(error) => return stream.fail(&error),
    };
    let failed = |error: std::io::Error| on_path("watch", &path, &error);
    let copy = tree.inotify.try_clone();
    let ready = match copy.and_then(|copy| watched(copy, Interest::READABLE)) {
        Ok(ready) => ready,
        Err(error) => return stream.fail(&failed(error)),
    };
    stream.message(&());
    loop {
        let mut events = Vec::new();
        if std::mem::take(&mut tree.incomplete) {
            events.push(event(WatchKind::Overflow, Path::new("")));
        } else {
            let mut guard = tokio::select! {
                guard = ready.readable() => match guard {
                    Ok(guard) => guard,
                    Err(error) => return stream.fail(&failed(error)),
                },
                () = stream.gone() => return,
            };
            // New directories are walked, which may wait.
            let read = blocking(move || {
                let read = tree.read();
                Ok((tree, read))
            });
            match read.await {
                Ok((back, Ok(read))) => {
                    tree = back;
                    if read.is_empty() {
                        guard.clear_ready();
                    }
                    events.extend(read);
                }
                Ok((_, Err(errno))) => return stream.fail(&failed(errno.into())),
                Err(error) => return stream.fail(&error),
            }
        }
        for text in frames(&events) {
            // A host that does not take them makes the kernel's queue overflow, which it is told.
            if stream.send_whole(Kind::Data0, text).await.is_err() {
                return;
            }
        }
    }
}
