//! From when until when a certificate is good: the one field of X.509 that is read here (RFC 5280
//! §4.1). Nothing is decided by it; it becomes a metric.

use jiff::civil::DateTime;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Seconds since 1970, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
}

impl Validity {
    /// Reads it from a certificate in DER; `None` from anything else.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(certificate).expect(SEQUENCE)?;
        let mut signed = outer.expect(SEQUENCE)?;
        if signed.peek() == Some(VERSION) {
            signed.next()?;
        }
        // Serial number, signature algorithm, issuer.
        signed.expect(INTEGER)?;
        signed.expect(SEQUENCE)?;
        signed.expect(SEQUENCE)?;
        let mut validity = signed.expect(SEQUENCE)?;
        Some(Self { not_before: validity.time()?, not_after: validity.time()? })
    }
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next value: its tag and content. Lengths of more than four bytes are nobody's.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let count = usize::from(first & 0x7f);
            if !(1..=4).contains(&count) || rest.len() < count {
                return None;
            }
            let (bytes, after) = rest.split_at(count);
            rest = after;
            bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte))
        };
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((tag, content))
    }

    fn expect(&mut self, tag: u8) -> Option<Der<'a>> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| Der(content))
    }

    /// `YYMMDDHHMMSSZ` (50 and above are of the last century) or `YYYYMMDDHHMMSSZ`.
    fn time(&mut self) -> Option<i64> {
        let (tag, content) = self.next()?;
        let digits = content.strip_suffix(b"Z").filter(|all| all.iter().all(u8::is_ascii_digit))?;
        let number = |part: &[u8]| part.iter().fold(0, |n: i16, d| n * 10 + i16::from(d - b'0'));
        let (year, rest) = match (tag, digits.len()) {
            (UTC_TIME, 12) => {
                let year = number(&digits[..2]);
                (if year >= 50 { 1900 + year } else { 2000 + year }, &digits[2..])
            }
            (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
            _ => return None,
        };
        let mut parts = rest.chunks(2).map(|part| i8::try_from(number(part)).ok());
        let mut part = || parts.next().flatten();
        let (month, day, hour, minute, second) = (part()?, part()?, part()?, part()?, part()?);
        let moment = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        Some(moment.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    #[test]
    fn both_ends_are_read_in_both_centuries() {
        let found = Validity::of(&certificate((1999, 12, 31), (2026, 11, 22)));
        assert_eq!(found, Some(Validity { not_before: 946_598_400, not_after: 1_795_305_600 }));
        // From 2050 on the year has four digits.
        let found = Validity::of(&certificate((2049, 1, 1), (2051, 1, 1)));
        assert_eq!(found, Some(Validity { not_before: 2_493_072_000, not_after: 2_556_144_000 }));
    }

    #[test]
    fn what_is_no_certificate_has_no_dates_and_does_no_harm() {
        let whole = certificate((2020, 1, 1), (2030, 1, 1));
        for end in 0..whole.len() {
            assert_eq!(Validity::of(&whole[..end]), None, "cut at {end}");
        }
        for at in 0..whole.len().min(120) {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            let _anything_but_a_panic = Validity::of(&broken);
        }
        assert_eq!(Validity::of(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
