//! What stands in the directory, compared with what must: for opening and for verifying.
//!
//! A crash leaves one of these, and nothing else:
//! - Everything up to the mark of the last segment's header, because the header is written with
//!   the batch *after* the one that it names, and that batch was on the disk by then.
//! - Behind the mark: one batch that was acknowledged, then one that was not, of which any pages
//!   may be there and any may be missing. The head names the former unless the machine died.
//! - A head that names the last record, or one before it, never one after it: it is written when
//!   the record is on the disk.
//! - Segments from before the head's first, where a pruning was not finished.

use std::{
    fs::File,
    io::{self, BufReader, Seek, SeekFrom},
    path::Path,
};

use super::{
    chain::Point,
    error::{AuditError, Tampered},
    header::{HEADER_END, Head, Header, State},
    key::AuditKey,
    segment::{self, Segment},
    walk::{Fault, Step, Walk},
};

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Every record.
    Whole,
    /// Headers, and what stands behind the last mark.
    Ends,
}

/// A sound log.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) head: Head,
    /// Left over from a pruning that a crash cut short.
    pub(crate) leftovers: Vec<Segment>,
    pub(crate) segments: Vec<Segment>,
    /// What the last segment's header says. `None` when nothing was written yet.
    pub(crate) header: Option<Header>,
    /// The last record.
    pub(crate) end: Point,
    /// Where it ends in the last segment.
    pub(crate) end_bytes: u64,
    /// Bytes behind it: of a batch that was never acknowledged.
    pub(crate) unfinished_bytes: u64,
}

pub(crate) enum Finding {
    Tampered(Tampered),
    Failed(AuditError),
}

impl From<AuditError> for Finding {
    fn from(err: AuditError) -> Self {
        Self::Failed(err)
    }
}

fn tampered(segment: &Path, seq: u64, what: impl Into<String>) -> Finding {
    Finding::Tampered(Tampered { segment: segment.to_owned(), seq, what: what.into() })
}

/// Compares everything.
pub(crate) fn examine(dir: &Path, key: &AuditKey, depth: Depth) -> Result<Examined, Finding> {
    let head_path = key.head_path();
    // The head before the list: what it names is in the list then, however fast a writer is.
    let head = Head::read(key, &head_path).map_err(AuditError::file("read", &head_path))?;
    let shown = Path::new("keys/audit.head");
    let Some(head) = head else {
        return Err(tampered(shown, 0, "it is missing, or not what this key wrote"));
    };
    let mut segments = segment::list(dir)?;
    let pruned = segments.partition_point(|segment| segment.first < head.first);
    let leftovers: Vec<_> = segments.drain(..pruned).collect();
    let mut log = Log { key, depth, head, expected: None, end_bytes: HEADER_END };
    let count = segments.len();
    let mut last = None;
    for (place, segment) in segments.iter().enumerate() {
        last = Some(log.segment(segment, place + 1 == count)?);
    }
    let Log { head, expected, end_bytes, .. } = log;
    let end = expected.unwrap_or(Point::START);
    if head.seq > end.seq {
        let name = segments.last().map_or(Path::new("audit").to_owned(), Segment::shown);
        let what = format!(
            "the end is missing: the log ends with record {}, and keys/audit.head names {}",
            end.seq, head.seq
        );
        return Err(tampered(&name, end.seq + 1, what));
    }
    let (header, unfinished_bytes) = last.unzip();
    let unfinished_bytes = unfinished_bytes.unwrap_or(0);
    Ok(Examined { head, leftovers, segments, header, end, end_bytes, unfinished_bytes })
}

struct Log<'a> {
    key: &'a AuditKey,
    depth: Depth,
    head: Head,
    /// The last record so far.
    expected: Option<Point>,
    end_bytes: u64,
}

impl Log<'_> {
    /// Checks one segment and says what its header is, and how many bytes behind its last record
    /// are none.
    fn segment(&mut self, segment: &Segment, last: bool) -> Result<(Header, u64), Finding> {
        let name = segment.shown();
        let step = |step| AuditError::file(step, &segment.path);
        let wanted = self.expected.map_or(self.head.first, |point| point.seq + 1);
        if segment.first > wanted {
            let what = format!("records {wanted} to {} are missing before it", segment.first - 1);
            return Err(tampered(&name, wanted, what));
        }
        let mut file = File::open(&segment.path).map_err(step("open"))?;
        let header = Header::read(self.key, &file).map_err(step("read"))?;
        let Some(header) = header else {
            return Err(tampered(&name, segment.first, "its first line was changed"));
        };
        if header.first != segment.first {
            let what = format!("its first line says that it begins with {}", header.first);
            return Err(tampered(&name, segment.first, what));
        }
        if segment.first < wanted {
            let what = format!("it begins with record {}, which was there before", segment.first);
            return Err(tampered(&name, segment.first, what));
        }
        if self.expected.is_some_and(|point| point != header.before()) {
            let what = "it continues from another record than the segment before it ends with";
            return Err(tampered(&name, segment.first, what));
        }
        if !last && header.state != State::Closed {
            let what = "it was not closed, and a segment follows it";
            return Err(tampered(&name, header.seq, what));
        }
        let length = file.metadata().map_err(step("look at"))?.len();
        if length < header.bytes {
            return Err(self.cut_off(&name, file, &header).map_err(step("read"))?);
        }
        let whole = self.depth == Depth::Whole || last;
        if !whole {
            if length > header.bytes {
                let what = "something was appended after it was closed";
                return Err(tampered(&name, header.seq + 1, what));
            }
            self.expected = Some(header.mark());
            return Ok((header, 0));
        }
        let (point, offset) = match self.depth {
            Depth::Whole => (header.before(), HEADER_END),
            Depth::Ends => (header.mark(), header.bytes),
        };
        file.seek(SeekFrom::Start(offset)).map_err(step("read"))?;
        let reader = BufReader::with_capacity(1 << 18, &file);
        let mut walk = Walk::new(self.key, reader, point, offset);
        self.at(&name, &header, walk.point, walk.offset)?;
        let unfinished = loop {
            match walk.step().map_err(step("read"))? {
                Step::Record => self.at(&name, &header, walk.point, walk.offset)?,
                Step::End => break 0,
                Step::Torn | Step::Fault(_) if self.may_be_unfinished(&header, &walk) => {
                    let length = file.metadata().map_err(step("look at"))?.len();
                    break length.saturating_sub(walk.offset);
                }
                bad => return Err(explain(&name, walk, bad).map_err(step("read"))?),
            }
        };
        if walk.point.seq < header.seq {
            let what = format!("records {} to {} were cut off", walk.point.seq + 1, header.seq);
            return Err(tampered(&name, walk.point.seq + 1, what));
        }
        if header.state == State::Closed && walk.offset > header.bytes {
            let what = "something was appended after it was closed";
            return Err(tampered(&name, header.seq + 1, what));
        }
        self.expected = Some(walk.point);
        self.end_bytes = walk.offset;
        Ok((header, unfinished))
    }

    /// Whether what stands behind the last good record is of a batch that nobody was told of.
    fn may_be_unfinished<R>(&self, header: &Header, walk: &Walk<'_, R>) -> bool {
        let acknowledged = header.seq.max(self.head.seq);
        header.state == State::Open && walk.point.seq >= acknowledged
    }

    /// Checks a record against the header's mark and the head.
    fn at(&self, name: &Path, header: &Header, point: Point, offset: u64) -> Result<(), Finding> {
        if point.seq == header.seq && (point != header.mark() || offset != header.bytes) {
            let what = "it is not the record that the segment's first line names";
            return Err(tampered(name, point.seq, what));
        }
        if point.seq == self.head.seq && point != self.head.point() {
            return Err(tampered(
                name,
                point.seq,
                "it is not the record that keys/audit.head names",
            ));
        }
        Ok(())
    }

    /// A file that is shorter than its header says: looks for the first record that is missing.
    fn cut_off(&self, name: &Path, mut file: File, header: &Header) -> io::Result<Finding> {
        file.seek(SeekFrom::Start(HEADER_END))?;
        let mut walk = Walk::new(self.key, BufReader::new(file), header.before(), HEADER_END);
        let last = loop {
            match walk.step()? {
                Step::Record => {}
                step => break step,
            }
        };
        if let Step::Fault(_) = last {
            return explain(name, walk, last);
        }
        let what = format!("records {} to {} were cut off", walk.point.seq + 1, header.seq);
        Ok(tampered(name, walk.point.seq + 1, what))
    }
}

/// Names what a bad step means.
fn explain<R: io::BufRead>(name: &Path, walk: Walk<'_, R>, step: Step) -> io::Result<Finding> {
    let wanted = walk.point.seq + 1;
    let before = walk.point.seq;
    let what = match step {
        Step::Fault(Fault::Displaced(found)) if found > wanted => {
            let moved = walk.comes_later(wanted)?;
            if moved {
                format!("the order was changed: record {found} stands in its place")
            } else {
                format!("it was removed: record {found} follows {before}")
            }
        }
        Step::Fault(Fault::Displaced(found)) => {
            format!("record {found} stands a second time, in its place")
        }
        Step::Fault(Fault::Stranger) => {
            format!("it is a record of another log: it does not follow record {before} here")
        }
        Step::Fault(Fault::Changed) => "it was changed: its hash is not that of its content".into(),
        Step::Fault(Fault::Form) => "it was changed: the line is no record".into(),
        Step::Torn => "it was cut short".into(),
        Step::Record | Step::End => "it is in order".into(),
    };
    Ok(tampered(name, wanted, what))
}
