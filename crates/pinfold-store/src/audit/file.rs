//! The end of the log as the writer holds it: one open segment, and the head.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    chain::Point,
    error::AuditError,
    examine::Examined,
    header::{Head, Header, State},
    key::{self, AuditKey},
    segment::{self, Segment},
};

#[derive(Debug)]
pub(crate) struct LogFile {
    key: AuditKey,
    dir: PathBuf,
    rotate_bytes: u64,
    segment: Segment,
    file: File,
    header: Header,
    head_file: File,
    head: Head,
    /// The last record that is on the disk, and where it ends.
    point: Point,
    length: u64,
}

/// Opens the head for writing and holds it against other writers until it is closed.
pub(crate) fn lock_head(dir: &Path, key: &AuditKey) -> Result<File, AuditError> {
    let path = key.head_path();
    // One that is missing is found by the examination, which says what that means.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .map_err(AuditError::file("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuditError::Locked { path: dir.to_owned() }),
        Err(TryLockError::Error(err)) => Err(AuditError::file("lock", &path)(err)),
    }
}

impl LogFile {
    /// Takes a log that was found sound: removes what a pruning left, cuts off what was never
    /// acknowledged, and makes it ready for the next record.
    pub(crate) fn open(
        dir: &Path,
        key: &AuditKey,
        rotate_bytes: u64,
        found: Examined,
        head_file: File,
    ) -> Result<Self, AuditError> {
        let drafts = segment::drafts(dir)?;
        for path in found.leftovers.iter().map(|segment| &segment.path).chain(&drafts) {
            fs::remove_file(path).map_err(AuditError::file("remove", path))?;
        }
        let (segment, header) = match (found.segments.last(), found.header) {
            (Some(segment), Some(header)) => (segment.clone(), header),
            _ => begin_segment(dir, key, found.end)?,
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&segment.path)
            .map_err(AuditError::file("open", &segment.path))?;
        let mut log = Self {
            key: key.clone(),
            dir: dir.to_owned(),
            rotate_bytes,
            file,
            header,
            head_file,
            head: found.head,
            point: found.end,
            length: found.end_bytes,
            segment,
        };
        let path = log.segment.path.clone();
        log.restore().map_err(AuditError::file("write", &path))?;
        Ok(log)
    }

    pub(crate) const fn point(&self) -> Point {
        self.point
    }

    /// Whether header and head are behind.
    pub(crate) fn lags(&self) -> bool {
        self.header.mark() != self.point || self.head.point() != self.point
    }

    /// Brings the file to its last durable record, whatever a failed write left behind, and opens
    /// it for more. On the disk when this returns: no batch may follow a header that says closed.
    pub(crate) fn restore(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.mark(self.state())?;
        self.file.sync_all()
    }

    /// What the header should say between batches. A segment that is full stays closed: its
    /// successor may be there already.
    const fn state(&self) -> State {
        if self.wants_rotation() { State::Closed } else { State::Open }
    }

    /// Writes the header: everything that it names is on the disk.
    fn mark(&mut self, state: State) -> io::Result<()> {
        let mut header = self.header.clone();
        header.seq = self.point.seq;
        header.hash = self.point.hash;
        header.bytes = self.length;
        header.state = state;
        header.write(&self.key, &self.file)?;
        self.header = header;
        Ok(())
    }

    /// Puts a batch behind the last record. It is on the disk when this returns.
    pub(crate) fn append(&mut self, batch: &[u8], end: Point) -> io::Result<()> {
        if self.header.mark() != self.point {
            self.mark(State::Open)?;
        }
        self.file.write_all_at(batch, self.length)?;
        self.file.sync_data()?;
        self.point = end;
        self.length += batch.len() as u64;
        Ok(())
    }

    /// Writes the head, without waiting for the disk.
    pub(crate) fn write_head(&mut self) -> io::Result<()> {
        let mut head = self.head.clone();
        head.set(self.point);
        head.write(&self.key, &self.head_file)?;
        self.head = head;
        Ok(())
    }

    /// Header and head name the last record, and are on the disk.
    pub(crate) fn catch_up(&mut self) -> io::Result<()> {
        self.write_ends(self.state())
    }

    /// The same, and nothing more will be appended.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        self.write_ends(State::Closed)
    }

    fn write_ends(&mut self, state: State) -> io::Result<()> {
        self.mark(state)?;
        self.file.sync_data()?;
        self.write_head()?;
        self.head_file.sync_data()
    }

    pub(crate) const fn wants_rotation(&self) -> bool {
        self.length >= self.rotate_bytes && self.point.seq >= self.header.first
    }

    /// Closes this segment and begins the next. After a failure the old one is still in use.
    pub(crate) fn rotate(&mut self) -> Result<(), AuditError> {
        let path = self.segment.path.clone();
        self.close().map_err(AuditError::file("close", &path))?;
        let (segment, header) = begin_segment(&self.dir, &self.key, self.point)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&segment.path)
            .map_err(AuditError::file("open", &segment.path))?;
        self.length = header.bytes;
        self.header = header;
        self.file = file;
        self.segment = segment;
        Ok(())
    }

    /// First record of the oldest segment to keep when `keep` are kept, and how many go; `None`
    /// when there are no more.
    pub(crate) fn oldest_of(&self, keep: usize) -> Result<Option<(u64, usize)>, AuditError> {
        let segments = segment::list(&self.dir)?;
        let gone = segments.len().saturating_sub(keep);
        Ok((gone > 0).then(|| (segments[gone].first, gone)))
    }

    /// Removes the segments before the one that begins with `first`. The head says so before the
    /// first of them goes, so that a crash in between is no riddle.
    pub(crate) fn prune_before(&mut self, first: u64) -> Result<(), AuditError> {
        let head_path = self.key.head_path();
        self.head.first = first;
        self.write_head()
            .and_then(|()| self.head_file.sync_data())
            .map_err(AuditError::file("write", &head_path))?;
        for segment in segment::list(&self.dir)? {
            if segment.first < first {
                let failed = AuditError::file("remove", &segment.path);
                fs::remove_file(&segment.path).map_err(failed)?;
            }
        }
        key::sync_directory(&self.dir)
    }
}

fn begin_segment(
    dir: &Path,
    key: &AuditKey,
    after: Point,
) -> Result<(Segment, Header), AuditError> {
    let header = Header::new(after);
    let segment = Segment::new(dir, header.first);
    key::put(&segment.path, &header.to_bytes(key))?;
    Ok((segment, header))
}
