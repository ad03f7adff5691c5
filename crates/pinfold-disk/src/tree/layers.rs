//! Sealed layers: what disks and snapshots share below their own slots.
//!
//! A layer is a directory `layers/ID` that holds the `upper` of a disk as it was when it was
//! sealed, all slots together, and is never written again. A disk or snapshot names those it
//! stands on, topmost first, in a file `layers` in its own directory.
//!
//! Sealing is three steps: the new list is written beside the old one, `upper` is moved into the
//! layer, and the new list takes the old one's place. After a crash the second step decides: a
//! list whose layer has its `upper` is put in place, one whose layer has none is thrown away.
//! Whoever writes or settles lists holds [`Layers::lock`], and so does whoever looks for layers
//! that nobody names; no lock is held while files are copied or removed.

use std::{
    collections::HashMap,
    io::{Read, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};

use crate::{
    error::{At, DiskError},
    id,
    layout::{Layout, Place, Shelf},
    types::{MAX_SLOTS, SealedLayer},
};

/// Most layers of one disk. Each costs a mount at every start, and a look-up for every file that
/// is in none of them.
pub(crate) const MAX_DEPTH: usize = 32;
/// A list of [`MAX_DEPTH`] ids has room in this many bytes.
const MAX_LIST_BYTES: u64 = 8 << 10;
const HEAD: &str = "pinfold layers 1";
const END: &str = "end";

const LIST: &str = "layers";
const NEW_LIST: &str = "layers.new";
const UPPER: &str = "upper";

/// What sealing a disk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sealing {
    /// All that the disk holds is in layers.
    Sealed,
    /// It has its most layers already, and was left alone.
    TooDeep,
}

/// The layers of one pool.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    lock: Mutex<()>,
    made: AtomicU64,
    /// Bytes and inodes of layers that were measured: they do not change.
    sizes: Mutex<HashMap<String, (u64, u64)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is half done in memory: the state is on the disk.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Layers {
    /// Finishes or undoes what a crash left of sealings.
    pub(crate) fn recover(&self, layout: &Layout) -> Result<(), DiskError> {
        let _lock = locked(&self.lock);
        for shelf in [Shelf::Disks, Shelf::Snapshots] {
            for place in layout.places(shelf)? {
                settle(&place)?;
            }
        }
        Ok(())
    }

    /// The layers of what is at `place`, topmost first.
    pub(crate) fn of(&self, place: &Place<'_>) -> Result<Vec<SealedLayer>, DiskError> {
        let names = {
            let _lock = locked(&self.lock);
            settle(place)?;
            read(&place.open()?, LIST, place)?
        };
        names.into_iter().map(|name| layer(place.layout, &name)).collect()
    }

    /// Moves the slots of the disk or snapshot at `place`, which nobody has mounted, into a layer
    /// that it then stands on. `changed` says whether they hold anything.
    pub(crate) fn seal(
        &self,
        place: &Place<'_>,
        changed: impl FnOnce(&[SealedLayer]) -> Result<bool, DiskError>,
    ) -> Result<Sealing, DiskError> {
        let _lock = locked(&self.lock);
        settle(place)?;
        let disk = place.open()?;
        let names = read(&disk, LIST, place)?;
        let below: Vec<_> =
            names.iter().map(|name| layer(place.layout, name)).collect::<Result<_, _>>()?;
        if !exists(&disk, UPPER) || !changed(&below)? {
            return Ok(Sealing::Sealed);
        }
        if names.len() >= MAX_DEPTH {
            return Ok(Sealing::TooDeep);
        }
        let fresh = self.make(place.layout)?;
        announce(place, &fresh, names)?;
        shift(place, &fresh)?;
        commit(place)?;
        Ok(Sealing::Sealed)
    }

    fn make<'a>(&self, layout: &'a Layout) -> Result<Place<'a>, DiskError> {
        loop {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos());
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let fresh = layout.at(Shelf::Layers, format!("layer_{now:x}_{number:x}"));
            match rustix::fs::mkdirat(fresh.directory(), &fresh.name, Mode::RWXU) {
                Ok(()) => return Ok(fresh),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error).at("make", fresh.path().display()),
            }
        }
    }

    /// Lets `to` stand on the layers that `from` stands on. `sync`: its list is on the disk when
    /// this returns; without, whoever made `to` syncs before he says so.
    pub(crate) fn share(
        &self,
        from: &Place<'_>,
        to: &Place<'_>,
        sync: bool,
    ) -> Result<(), DiskError> {
        let _lock = locked(&self.lock);
        settle(from)?;
        let names = read(&from.open()?, LIST, from)?;
        if names.is_empty() {
            return Ok(());
        }
        write(&to.open()?, NEW_LIST, &names, to, sync)?;
        commit(to)
    }

    /// Lets `to`, which stands on nothing yet, stand on these layers, which are there.
    pub(crate) fn stand_on(&self, to: &Place<'_>, names: &[String]) -> Result<(), DiskError> {
        if names.is_empty() {
            return Ok(());
        }
        let _lock = locked(&self.lock);
        for name in names {
            id::check(name)?;
            to.layout.at(Shelf::Layers, name.as_str()).open()?;
        }
        write(&to.open()?, NEW_LIST, names, to, true)?;
        commit(to)
    }

    /// Moves those of the layers `which`, or of all, that nobody names to the trash.
    pub(crate) fn collect(
        &self,
        layout: &Layout,
        which: Option<&[String]>,
    ) -> Result<Vec<String>, DiskError> {
        let _lock = locked(&self.lock);
        let mut present: Vec<Place<'_>> = match which {
            None => layout.places(Shelf::Layers)?,
            Some(names) => names.iter().map(|name| layout.at(Shelf::Layers, name)).collect(),
        };
        present.retain(Place::exists);
        if present.is_empty() {
            return Ok(Vec::new());
        }
        let named = counts(layout)?;
        let mut gone = Vec::new();
        for place in present {
            if named.contains_key(&place.name) {
                continue;
            }
            let trash = layout.attempt(Shelf::Trash, &place.name);
            place.move_to(&trash)?;
            locked(&self.sizes).remove(&place.name);
            gone.push(trash.name);
        }
        Ok(gone)
    }

    /// How many disks and snapshots name each layer.
    pub(crate) fn counts(&self, layout: &Layout) -> Result<HashMap<String, usize>, DiskError> {
        let _lock = locked(&self.lock);
        counts(layout)
    }

    /// Bytes and inodes of a layer; measured with `measure` the first time.
    pub(crate) fn size(
        &self,
        name: &str,
        measure: impl FnOnce() -> Result<(u64, u64), DiskError>,
    ) -> Result<(u64, u64), DiskError> {
        if let Some(known) = self.known_size(name) {
            return Ok(known);
        }
        let size = measure()?;
        locked(&self.sizes).insert(name.to_owned(), size);
        Ok(size)
    }

    pub(crate) fn known_size(&self, name: &str) -> Option<(u64, u64)> {
        locked(&self.sizes).get(name).copied()
    }
}

/// First step of a sealing: the list that will be.
fn announce(place: &Place<'_>, fresh: &Place<'_>, below: Vec<String>) -> Result<(), DiskError> {
    let names: Vec<String> = std::iter::once(fresh.name.clone()).chain(below).collect();
    write(&place.open()?, NEW_LIST, &names, place, true)
}

/// Second step, from which on it will be finished.
fn shift(place: &Place<'_>, fresh: &Place<'_>) -> Result<(), DiskError> {
    rustix::fs::renameat(&place.open()?, UPPER, &fresh.open()?, UPPER)
        .at("seal", place.path().display())
}

/// Last step: the list that will be is the list.
fn commit(place: &Place<'_>) -> Result<(), DiskError> {
    let disk = place.open()?;
    rustix::fs::renameat(&disk, NEW_LIST, &disk, LIST).at("list", place.path().display())
}

/// The names in the list of what is at `place`, and in one that is not in place yet.
pub(crate) fn names(place: &Place<'_>) -> Result<Vec<String>, DiskError> {
    let disk = match place.open() {
        // Moved on or removed meanwhile.
        Err(DiskError::Missing(_)) => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = read(&disk, NEW_LIST, place).unwrap_or_default();
    for name in read(&disk, LIST, place)? {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn counts(layout: &Layout) -> Result<HashMap<String, usize>, DiskError> {
    let mut counts = HashMap::new();
    // What is half made moves to the other shelves, so it is looked at first.
    for shelf in [Shelf::Partial, Shelf::Disks, Shelf::Snapshots] {
        for place in layout.places(shelf)? {
            for name in names(&place)? {
                *counts.entry(name).or_default() += 1;
            }
        }
    }
    Ok(counts)
}

/// Finishes or undoes a sealing of `place` that was cut short.
fn settle(place: &Place<'_>) -> Result<(), DiskError> {
    let disk = place.open()?;
    if !exists(&disk, NEW_LIST) {
        return Ok(());
    }
    let path: PathBuf = place.path();
    // One that was cut short in the writing names nothing, and nothing was moved for it.
    let top = read(&disk, NEW_LIST, place).unwrap_or_default().into_iter().next();
    if let Some(top) = top {
        let before = read(&disk, LIST, place)?;
        let fresh = place.layout.at(Shelf::Layers, top.as_str());
        let moved = fresh.open().is_ok_and(|layer| exists(&layer, UPPER));
        if moved && !before.contains(&top) {
            return commit(place);
        }
        if !moved {
            match rustix::fs::unlinkat(fresh.directory(), &fresh.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error).at("remove", fresh.path().display()),
            }
        }
    }
    rustix::fs::unlinkat(&disk, NEW_LIST, AtFlags::empty()).at("unlist", path.display())
}

fn exists(directory: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn layer(layout: &Layout, name: &str) -> Result<SealedLayer, DiskError> {
    let place = layout.at(Shelf::Layers, name);
    let directory = place.open()?;
    let slots =
        (0..MAX_SLOTS).take_while(|slot| exists(&directory, &format!("{UPPER}/{slot}"))).count();
    Ok(SealedLayer { path: place.path(), slots })
}

fn read(disk: &OwnedFd, file: &str, place: &Place<'_>) -> Result<Vec<String>, DiskError> {
    let path = || place.path().join(file);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::openat(disk, file, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        other => other.at("open", path().display())?,
    };
    let mut text = String::new();
    let mut bounded = std::fs::File::from(file).take(MAX_LIST_BYTES);
    bounded.read_to_string(&mut text).at("read", path().display())?;
    let damaged = |what| Err(DiskError::List { path: path(), what });
    let mut lines: Vec<&str> = text.lines().collect();
    if lines.first() != Some(&HEAD) || lines.pop() != Some(END) {
        return damaged("it has no beginning or no end");
    }
    let names: Vec<String> = lines.into_iter().skip(1).map(str::to_owned).collect();
    if names.iter().any(|name| id::check(name).is_err()) || names.len() > MAX_DEPTH {
        return damaged("it names what is no layer");
    }
    Ok(names)
}

/// Writes a list. With `sync` its contents are on the disk before it gets its name.
fn write(
    disk: &OwnedFd,
    file: &str,
    names: &[String],
    place: &Place<'_>,
    sync: bool,
) -> Result<(), DiskError> {
    let path = place.path().join(file);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    let open = rustix::fs::openat(disk, file, flags, mode).at("make", path.display())?;
    let mut text = format!("{HEAD}\n");
    for name in names {
        text.push_str(name);
        text.push('\n');
    }
    text.push_str(END);
    text.push('\n');
    let mut open = std::fs::File::from(open);
    open.write_all(text.as_bytes()).at("write", path.display())?;
    if sync { open.sync_data().at("sync", path.display()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk `ws` that holds the file `0/f` and stands on `below` layers.
    fn disk(layout: &Layout, layers: &Layers, below: usize) {
        let place = layout.at(Shelf::Disks, "ws");
        for number in 0..=below {
            let upper = place.path().join("upper/0");
            std::fs::create_dir_all(&upper).expect("a slot");
            std::fs::write(upper.join("f"), number.to_string()).expect("a file");
            if number < below {
                let sealed = layers.seal(&place, |_| Ok(true)).expect("sealed");
                assert_eq!(sealed, Sealing::Sealed);
            }
        }
    }

    /// All versions of the file that the disk shows, topmost first.
    fn versions(layers: &Layers, place: &Place<'_>) -> Vec<String> {
        let sealed = layers.of(place).expect("a list").into_iter().map(|layer| layer.path);
        std::iter::once(place.path())
            .chain(sealed)
            .filter_map(|layer| std::fs::read_to_string(layer.join("upper/0/f")).ok())
            .collect()
    }

    fn present(layout: &Layout) -> usize {
        layout.places(Shelf::Layers).expect("a shelf").len()
    }

    #[test]
    fn a_sealing_that_is_cut_short_is_finished_or_undone() {
        for below in [0, 2] {
            for steps in 0..=4 {
                let home = tempfile::tempdir().expect("a directory");
                let layout = Layout::open(home.path()).expect("a pool");
                let layers = Layers::default();
                disk(&layout, &layers, below);
                let place = layout.at(Shelf::Disks, "ws");
                let before = versions(&layers, &place);
                assert_eq!(before.len(), below + 1);
                let fresh = layers.make(&layout).expect("a layer");
                let names = names(&place).expect("a list");
                if steps == 1 {
                    // Cut short in the writing: it has no end.
                    std::fs::write(place.path().join(NEW_LIST), format!("{HEAD}\n{}", fresh.name))
                        .expect("half a list");
                }
                if steps > 1 {
                    announce(&place, &fresh, names).expect("announced");
                }
                if steps > 2 {
                    shift(&place, &fresh).expect("shifted");
                }
                if steps > 3 {
                    commit(&place).expect("in place");
                }
                // The next start.
                let layers = Layers::default();
                layers.recover(&layout).expect("recovered");
                assert!(!place.path().join(NEW_LIST).exists());
                assert_eq!(versions(&layers, &place), before, "{below} layers, {steps} steps");
                assert_eq!(place.path().join("upper").exists(), steps < 3);
                layers.collect(&layout, None).expect("collected");
                assert_eq!(present(&layout), below + usize::from(steps > 2));
                assert_eq!(versions(&layers, &place), before);
                assert!(layers.collect(&layout, None).expect("again").is_empty());
            }
        }
    }

    #[test]
    fn what_is_half_made_keeps_its_layers_and_what_is_removed_does_not() {
        let home = tempfile::tempdir().expect("a directory");
        let layout = Layout::open(home.path()).expect("a pool");
        let layers = Layers::default();
        disk(&layout, &layers, 2);
        let place = layout.at(Shelf::Disks, "ws");
        let half = layout.attempt(Shelf::Partial, "snap");
        std::fs::create_dir(half.path()).expect("half a snapshot");
        layers.share(&place, &half, false).expect("shared");
        place.move_to(&layout.attempt(Shelf::Trash, "ws")).expect("removed");
        assert!(layers.collect(&layout, None).expect("collected").is_empty());
        assert_eq!(layers.counts(&layout).expect("counted").len(), 2);
        let named = names(&half).expect("a list");
        half.move_to(&layout.attempt(Shelf::Trash, "snap")).expect("removed");
        let gone = layers.collect(&layout, Some(&named[..1])).expect("collected");
        assert!(gone[0].starts_with(&named[0]), "only those asked for: {gone:?}");
        assert_eq!(present(&layout), 1);
    }

    #[test]
    fn a_list_that_makes_no_sense_removes_nothing() {
        let home = tempfile::tempdir().expect("a directory");
        let layout = Layout::open(home.path()).expect("a pool");
        let layers = Layers::default();
        disk(&layout, &layers, 1);
        let place = layout.at(Shelf::Disks, "ws");
        let long = format!("{HEAD}\n{}{END}\n", "layer_1\n".repeat(MAX_DEPTH + 1));
        let up = format!("{HEAD}\n../../etc\n{END}\n");
        for text in ["", HEAD, "layer_1\n", &long, &up] {
            std::fs::write(place.path().join(LIST), text).expect("damaged");
            assert!(matches!(layers.of(&place), Err(DiskError::List { .. })), "{text:?}");
            assert!(layers.collect(&layout, None).is_err(), "whose layers they are is not known");
            assert!(layers.seal(&place, |_| Ok(true)).is_err());
        }
        assert_eq!(present(&layout), 1);
    }
}
