//! Reading: records by number, the last ones, and raw lines.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    ops::RangeInclusive,
    path::Path,
};

use super::{
    chain::seq_of,
    error::AuditError,
    event::{AuditRecord, MAX_RECORD_BYTES},
    header::HEADER_END,
    segment::{self, Segment},
    walk::read_line,
};

/// Most records that one reading returns.
pub const MAX_RECORDS_PAGE: usize = 1000;

/// Calls `each` with every raw line from record `from` to record `to`, newline included, until it
/// returns `false`. A line that is not whole ends it.
fn lines(
    dir: &Path,
    from: u64,
    to: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<bool, AuditError>,
) -> Result<(), AuditError> {
    let segments = segment::list(dir)?;
    let start = segments.partition_point(|segment| segment.first <= from).saturating_sub(1);
    let mut line = Vec::new();
    for segment in &segments[start..] {
        if segment.first > to {
            break;
        }
        let failed = |err| AuditError::file("read", &segment.path)(err);
        let mut reader = find(segment, from).map_err(failed)?;
        while read_line(&mut reader, &mut line).map_err(failed)? > 0 {
            let Some((seq, _)) = seq_of(&line).filter(|_| line.ends_with(b"\n")) else {
                return Ok(());
            };
            if seq > to || (seq >= from && !each(seq, &line)?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A reader that stands at a record not far before `from`.
fn find(segment: &Segment, from: u64) -> io::Result<BufReader<File>> {
    const NEAR: u64 = 128 << 10;
    let file = File::open(&segment.path)?;
    let mut high = file.metadata()?.len();
    let mut low = HEADER_END;
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut line = Vec::new();
    while from > segment.first && high.saturating_sub(low) > NEAR {
        let middle = low + (high - low) / 2;
        reader.seek(SeekFrom::Start(middle))?;
        let skipped = read_line(&mut reader, &mut line)? as u64;
        let begins = middle + skipped;
        let limit = MAX_RECORD_BYTES as u64;
        (&mut reader).take(limit).read_until(b'\n', {
            line.clear();
            &mut line
        })?;
        match seq_of(&line) {
            Some((seq, _)) if seq <= from => low = begins,
            _ => high = middle,
        }
    }
    reader.seek(SeekFrom::Start(low))?;
    Ok(reader)
}

fn parse(seq: u64, line: &[u8]) -> Result<AuditRecord, AuditError> {
    serde_json::from_slice(line).map_err(|err| {
        AuditError::BadValue(format!(
            "record {seq} of the audit log does not parse ({err}): pinfold audit verify says more"
        ))
    })
}

/// Records from number `from_seq` on, at most `limit` of them and at most [`MAX_RECORDS_PAGE`].
/// They are not verified. Blocks on the disk.
pub fn read(dir: &Path, from_seq: u64, limit: usize) -> pinfold_types::Result<Vec<AuditRecord>> {
    Ok(read_until(dir, from_seq, u64::MAX, limit)?)
}

pub(crate) fn read_until(
    dir: &Path,
    from: u64,
    to: u64,
    limit: usize,
) -> Result<Vec<AuditRecord>, AuditError> {
    let limit = limit.min(MAX_RECORDS_PAGE);
    let mut found = Vec::new();
    if limit > 0 {
        lines(dir, from, to, |seq, line| {
            found.push(parse(seq, line)?);
            Ok(found.len() < limit)
        })?;
    }
    Ok(found)
}

/// The last `count` records, oldest first, at most [`MAX_RECORDS_PAGE`]. Blocks on the disk.
pub fn tail(dir: &Path, count: usize) -> pinfold_types::Result<Vec<AuditRecord>> {
    let last = last_seq(dir)?;
    let count = count.min(MAX_RECORDS_PAGE);
    let from = last.saturating_sub(count as u64) + 1;
    Ok(read_until(dir, from, last, count)?)
}

/// Number of the last whole line.
fn last_seq(dir: &Path) -> Result<u64, AuditError> {
    let segments = segment::list(dir)?;
    let Some(segment) = segments.last() else { return Ok(0) };
    let failed = |err| AuditError::file("read", &segment.path)(err);
    let mut last = segment.first.saturating_sub(1);
    let mut reader = find(segment, u64::MAX).map_err(failed)?;
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line).map_err(failed)? > 0 {
        match seq_of(&line).filter(|_| line.ends_with(b"\n")) {
            Some((seq, _)) => last = seq,
            None => break,
        }
    }
    Ok(last)
}

/// Writes the raw lines of a range of records, as they stand in the files, and says how many.
/// Blocks on the disk and on the writer.
pub fn export(
    dir: &Path,
    range: RangeInclusive<u64>,
    to: &mut dyn Write,
) -> pinfold_types::Result<u64> {
    let mut count = 0;
    lines(dir, *range.start(), *range.end(), |_, line| {
        let failed = AuditError::file("export to", Path::new("the given output"));
        to.write_all(line).map_err(failed)?;
        count += 1;
        Ok(true)
    })?;
    Ok(count)
}
