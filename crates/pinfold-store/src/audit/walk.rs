//! A walk along one segment, record by record, checking each.

use std::io::{self, BufRead};

use super::{
    chain::{Line, Point},
    event::MAX_RECORD_BYTES,
    key::AuditKey,
};

/// What comes next in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The record that had to come.
    Record,
    /// The end of the file, right behind a record.
    End,
    /// The end of the file in the midst of a line.
    Torn,
    /// A line that must not stand here.
    Fault(Fault),
}

/// Why a line must not stand here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not of the form of a record, or longer than one may be.
    Form,
    /// Its hash is not that of its content.
    Changed,
    /// A sound record with another number.
    Displaced(u64),
    /// A sound record with the right number that follows another one than stands before it.
    Stranger,
}

/// Reads on from a place whose record is known.
#[derive(Debug)]
pub(crate) struct Walk<'a, R> {
    key: &'a AuditKey,
    reader: R,
    line: Vec<u8>,
    /// The last good record.
    pub(crate) point: Point,
    /// Where it ends.
    pub(crate) offset: u64,
}

impl<'a, R: BufRead> Walk<'a, R> {
    pub(crate) fn new(key: &'a AuditKey, reader: R, point: Point, offset: u64) -> Self {
        Self { key, reader, line: Vec::new(), point, offset }
    }

    /// After a fault the walk stands where it was, and the next step reads the next line.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let read = read_line(&mut self.reader, &mut self.line)?;
        if read == 0 {
            return Ok(Step::End);
        }
        let Some(text) = self.line.strip_suffix(b"\n") else {
            return Ok(if read > MAX_RECORD_BYTES { Step::Fault(Fault::Form) } else { Step::Torn });
        };
        let Some(line) = Line::parse(text) else { return Ok(Step::Fault(Fault::Form)) };
        let fault = if !line.genuine(self.key) {
            Some(Fault::Changed)
        } else if line.seq != self.point.seq.wrapping_add(1) {
            Some(Fault::Displaced(line.seq))
        } else if line.prev != self.point.hash {
            Some(Fault::Stranger)
        } else {
            None
        };
        if let Some(fault) = fault {
            return Ok(Step::Fault(fault));
        }
        self.point = Point { seq: line.seq, hash: line.hash };
        self.offset += read as u64;
        Ok(Step::Record)
    }

    /// Whether a sound record of that number stands in what is left.
    pub(crate) fn comes_later(mut self, seq: u64) -> io::Result<bool> {
        while read_line(&mut self.reader, &mut self.line)? > 0 {
            let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            if Line::parse(text).is_some_and(|line| line.seq == seq && line.genuine(self.key)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Reads one line, its newline included, or the first bytes of one that is too long.
pub(crate) fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    let limit = MAX_RECORD_BYTES as u64 + 1;
    io::Read::take(reader, limit).read_until(b'\n', line)
}
