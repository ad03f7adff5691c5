//! What is recorded, and how much of it: every text has a limit, so that a record has one.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::chain::ChainHash;

/// Most bytes of one record, its newline included.
pub const MAX_RECORD_BYTES: usize = 16 << 10;
/// Most bytes of all ids in [`AuditEvent::made`] as they stand in the file; what is more is
/// counted, not named. About 190 ids of workspaces: who makes more appends several records.
pub const MAX_MADE_BYTES: usize = 6 << 10;
/// Most bytes of all of [`AuditEvent::detail`] as it stands in the file.
pub const MAX_DETAIL_BYTES: usize = 4 << 10;

/// Room for the mark that something was cut.
const MARK_BYTES: usize = 40;

/// At which point of an operation a record is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Granted, and about to be done.
    Begin,
    /// Done, with its outcome.
    End,
    /// Refused.
    Denied,
    /// Nobody's operation, and still worth knowing: a login that failed, a log that was mended.
    Security,
}

/// One thing that happened. No field may hold a secret.
///
/// Texts longer than their limit (bytes as they stand in the file) are cut on a character
/// boundary, and a mark says how much is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// Before, after, instead of, or beside an operation.
    pub phase: Phase,
    /// The operation's name in the operation table. 128 bytes.
    pub operation: String,
    /// Who. 256 bytes.
    pub principal: String,
    /// Fingerprint of the credential that was shown. 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The caller's session. 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Which door it came in by. 32 bytes.
    pub surface: String,
    /// From which address. 128 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// On what. 1024 bytes.
    pub object: String,
    /// What was decided. 64 bytes.
    pub decision: String,
    /// By which rule. 512 bytes.
    pub rule: String,
    /// How it ended. 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Id of the request, which the server's log has too. 128 bytes.
    pub request: String,
    /// Ids of what came to be by it. [`MAX_MADE_BYTES`] together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<String>,
    /// What else is worth knowing. [`MAX_DETAIL_BYTES`] together, names 64 bytes, values 1024.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub detail: BTreeMap<String, String>,
}

/// An event in its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its number: the first record of a home is 1, and none is left out.
    pub seq: u64,
    /// The hash of the record before it; zeros before the first.
    pub prev: ChainHash,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
    /// HMAC-SHA-256 (RFC 2104) of this record without this field.
    pub hash: ChainHash,
}

impl AuditEvent {
    /// An event of which only this is known; the rest is empty.
    pub fn new(at: Timestamp, phase: Phase, operation: impl Into<String>) -> Self {
        Self {
            at,
            phase,
            operation: operation.into(),
            principal: String::new(),
            credential: None,
            session: None,
            surface: String::new(),
            peer: None,
            object: String::new(),
            decision: String::new(),
            rule: String::new(),
            outcome: None,
            request: String::new(),
            made: Vec::new(),
            detail: BTreeMap::new(),
        }
    }

    /// The log's word about itself.
    pub(crate) fn of_the_log(operation: &str, outcome: &str) -> Self {
        let mut event = Self::new(Timestamp::now(), Phase::Security, operation);
        "server".clone_into(&mut event.principal);
        "audit".clone_into(&mut event.object);
        event.outcome = Some(outcome.to_owned());
        event
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.detail.insert(name.to_owned(), value.into());
        self
    }

    /// The same within its limits.
    pub(crate) fn fit(mut self) -> Self {
        for (text, limit) in [
            (&mut self.operation, 128),
            (&mut self.principal, 256),
            (&mut self.surface, 32),
            (&mut self.object, 1024),
            (&mut self.decision, 64),
            (&mut self.rule, 512),
            (&mut self.request, 128),
        ] {
            cut(text, limit);
        }
        for (text, limit) in [
            (&mut self.credential, 128),
            (&mut self.session, 128),
            (&mut self.peer, 128),
            (&mut self.outcome, 1024),
        ] {
            if let Some(text) = text {
                cut(text, limit);
            }
        }
        self.fit_made();
        self.fit_detail();
        self
    }

    fn fit_made(&mut self) {
        let mut used = MARK_BYTES;
        let mut kept = 0;
        for id in &mut self.made {
            cut(id, 128);
            used += written_bytes(id) + 3;
            if used > MAX_MADE_BYTES {
                break;
            }
            kept += 1;
        }
        let more = self.made.len() - kept;
        if more > 0 {
            self.made.truncate(kept);
            self.made.push(format!("…[{more} more]"));
        }
    }

    fn fit_detail(&mut self) {
        let mut used = MARK_BYTES;
        let mut more = 0;
        let mut kept = BTreeMap::new();
        for (mut name, mut value) in std::mem::take(&mut self.detail) {
            cut(&mut name, 64);
            cut(&mut value, 1024);
            used += written_bytes(&name) + written_bytes(&value) + 6;
            if used > MAX_DETAIL_BYTES || kept.contains_key(&name) {
                more += 1;
            } else {
                kept.insert(name, value);
            }
        }
        if more > 0 {
            kept.insert("…".to_owned(), format!("{more} more"));
        }
        self.detail = kept;
    }

    /// The event as it stands in the file: one JSON object, fields in order, nothing in it that
    /// could end a line or move a terminal's cursor.
    pub(crate) fn to_json(&self) -> String {
        let mut bytes = Vec::with_capacity(512);
        let mut writer = serde_json::Serializer::with_formatter(&mut bytes, Plain);
        self.serialize(&mut writer).expect("strings and maps of strings can be written");
        String::from_utf8(bytes).expect("JSON is UTF-8")
    }
}

/// Characters that JSON lets through and a terminal or an editor obeys: DEL, the C1 controls, and
/// those that turn or break lines (Unicode Standard Annex 9, and 23.2 of the standard).
fn steers(c: char) -> bool {
    matches!(c,
        '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Bytes that a character takes in the file.
fn written(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' || steers(c) => 6,
        c => c.len_utf8(),
    }
}

fn written_bytes(text: &str) -> usize {
    text.chars().map(written).sum()
}

/// Cuts a text to what fits, less the room that the mark takes.
fn cut(text: &mut String, limit: usize) {
    if written_bytes(text) <= limit {
        return;
    }
    let room = limit.saturating_sub(MARK_BYTES);
    let mut used = 0;
    let end = text.char_indices().find_map(|(place, c)| {
        used += written(c);
        (used > room).then_some(place)
    });
    let end = end.expect("a text that is too long has a character too much");
    let missing = text.len() - end;
    text.truncate(end);
    text.push_str("…[");
    text.push_str(&missing.to_string());
    text.push_str(" bytes cut]");
}

/// JSON without spaces, with [`steers`] escaped (RFC 8259 §7 lets any character be).
struct Plain;

impl serde_json::ser::Formatter for Plain {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(place) = rest.find(steers) {
            writer.write_all(&rest.as_bytes()[..place])?;
            let c = rest[place..].chars().next().expect("it was found there");
            write!(writer, "\\u{:04x}", u32::from(c))?;
            rest = &rest[place + c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> AuditEvent {
        AuditEvent::new(Timestamp::UNIX_EPOCH, Phase::Begin, "workspace.create")
    }

    #[test]
    fn fields_stand_in_order_and_empty_ones_are_left_out() {
        let mut event = event().with("b", "2").with("a", "1");
        event.peer = Some("::1".into());
        assert_eq!(
            event.to_json(),
            "{\"at\":\"1970-01-01T00:00:00Z\",\"phase\":\"begin\",\"operation\":\"workspace.create\",\
             \"principal\":\"\",\"surface\":\"\",\"peer\":\"::1\",\"object\":\"\",\"decision\":\"\",\
             \"rule\":\"\",\"request\":\"\",\"detail\":{\"a\":\"1\",\"b\":\"2\"}}"
        );
    }

    #[test]
    fn no_text_ends_a_line_or_moves_the_cursor() {
        let mut event = event();
        event.object = "a\n\u{1b}[2J\u{7f}\u{9b}2J\u{202e}\u{2028}\u{0}ß\"\\".into();
        let json = event.to_json();
        assert!(json.contains(r#""a\n\u001b[2J\u007f\u009b2J\u202e\u2028\u0000ß\"\\""#), "{json}");
        assert!(!json.chars().any(|c| c.is_control() || steers(c)), "{json}");
        let back: AuditEvent = serde_json::from_str(&json).expect("JSON");
        assert_eq!(back, event);
    }

    #[test]
    fn the_fullest_event_fits_a_record() {
        for filler in ["x", "\u{1}", "ß", "\u{1f600}", "\"", "\u{202e}"] {
            let long = filler.repeat(40_000);
            let mut event = event();
            for text in [
                &mut event.operation,
                &mut event.principal,
                &mut event.surface,
                &mut event.object,
                &mut event.decision,
                &mut event.rule,
                &mut event.request,
            ] {
                text.clone_from(&long);
            }
            for text in
                [&mut event.credential, &mut event.session, &mut event.peer, &mut event.outcome]
            {
                *text = Some(long.clone());
            }
            event.made = vec![long.clone(); 1000];
            event.detail = (0..1000).map(|n| (format!("{n}{long}"), long.clone())).collect();
            let event = event.fit();
            let json = event.to_json();
            assert!(json.len() + 200 < MAX_RECORD_BYTES, "{} bytes of {filler:?}", json.len());
            assert!(event.object.contains("bytes cut]"), "{}", event.object);
            assert!(event.made.last().expect("some").ends_with(" more]"));
            assert_eq!(event.clone().fit().object, event.object);
        }
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let mut event = event().with("name", "value");
        event.object = "ß".repeat(512);
        event.made = vec!["ws_1".into()];
        assert_eq!(event.clone().fit(), event);
        event.object.push('x');
        let cut = event.fit().object;
        assert!(
            cut.starts_with("ßß") && cut.ends_with("…[33 bytes cut]") || cut.len() <= 1024,
            "{cut}"
        );
    }
}
