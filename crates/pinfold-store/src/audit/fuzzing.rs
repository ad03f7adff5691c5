//! Doors for the fuzz target: the log's parsers take any bytes, and neither panic nor pass the
//! limits.

use super::{
    chain::{Point, push_record, seq_of},
    event::{AuditEvent, AuditRecord, MAX_RECORD_BYTES},
    header::{HEADER_BYTES, HEADER_END, Head, Header},
    key::AuditKey,
    walk::{Step, Walk},
};

/// Reads the bytes as a segment, and as a head.
///
/// # Panics
///
/// When a parser takes what it did not write, or passes a limit: that is the finding.
pub fn segment(bytes: &[u8]) {
    let key = AuditKey::from_bytes(&[0; 32], "keys");
    // Nobody guesses a keyed hash.
    assert!(Header::parse(&key, bytes).is_none() && Head::parse(&key, bytes).is_none());
    let _ = Head::claimed_seq(bytes);
    let records = bytes.get(HEADER_BYTES..).unwrap_or(bytes);
    let mut walk = Walk::new(&key, records, Point::START, HEADER_END);
    loop {
        match walk.step().expect("memory can be read") {
            Step::Record => panic!("a record that the key did not make"),
            Step::Fault(_) => {}
            Step::End | Step::Torn => break,
        }
    }
    for line in records.split(|byte| *byte == b'\n') {
        let _ = seq_of(line);
        let _ = serde_json::from_slice::<AuditRecord>(line);
    }
}

/// Reads the bytes as an event, and records it.
///
/// # Panics
///
/// When the record is too long, is not one line, or is not read again as it was written: that is
/// the finding.
pub fn event(bytes: &[u8]) {
    let Ok(event) = serde_json::from_slice::<AuditEvent>(bytes) else { return };
    let key = AuditKey::from_bytes(&[0; 32], "keys");
    let event = event.fit();
    let mut line = Vec::new();
    let point = push_record(&key, Point::START, &event.to_json(), &mut line);
    assert!(line.len() <= MAX_RECORD_BYTES, "a record of {} bytes", line.len());
    assert!(!line[..line.len() - 1].iter().any(u8::is_ascii_control), "a control character");
    let mut walk = Walk::new(&key, line.as_slice(), Point::START, 0);
    assert_eq!(walk.step().expect("memory can be read"), Step::Record);
    assert_eq!((walk.point, walk.offset), (point, line.len() as u64));
    let record: AuditRecord = serde_json::from_slice(&line).expect("what was written is read");
    assert_eq!(record.event, event);
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_doors_open() {
        super::segment(b"");
        super::segment(&vec![b'{'; 40_000]);
        let line =
            format!("{{\"seq\":1,\"prev\":\"{0}\",\"a\":1,\"hash\":\"{0}\"}}\n", "0".repeat(64));
        super::segment([&[b' '; 512], line.as_bytes(), b"{\"seq\":"].concat().as_slice());
        let text = r#"{"at":"1970-01-01T00:00:00Z","phase":"denied","operation":"\u0000","principal":"",
            "surface":"","object":"","decision":"","rule":"","request":"","made":["a","b"]}"#;
        super::event(text.as_bytes());
        super::event(
            text.replace("1970-01-01T00:00:00Z", "9999-12-30T22:00:00.999999999Z").as_bytes(),
        );
    }
}
