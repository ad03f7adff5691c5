//! Sizes in bytes, as people write them.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorCode, name::excerpt};

/// A number of bytes. JSON carries the plain number.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

const UNITS: &[(&str, u64)] = &[
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("t", 1 << 40),
    ("g", 1 << 30),
    ("m", 1 << 20),
    ("k", 1 << 10),
    ("b", 1),
    ("", 1),
];

impl FromStr for ByteSize {
    type Err = Error;

    /// `512MiB`, `2G` (binary), `1.5GB` (decimal) or a plain number of bytes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = |why: &str| {
            Error::new(
                ErrorCode::InvalidArgument,
                format!("{:?} is not a size: {why}", excerpt(text)),
            )
            .hint("write a number and a unit: 512MiB, 2G, 1.5GB")
        };
        let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start().to_ascii_lowercase();
        let (_, factor) =
            UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| refuse("unknown unit"))?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.len() > 6 {
            return Err(refuse("it needs a number"));
        }
        let whole: u64 = whole.parse().map_err(|_| refuse("the number is too large"))?;
        let mut bytes = whole.checked_mul(*factor).ok_or_else(|| refuse("it is too large"))?;
        if !fraction.is_empty() {
            let parts: u64 = fraction.parse().map_err(|_| refuse("it needs a number"))?;
            let scale = 10_u64.pow(u32::try_from(fraction.len()).expect("at most six"));
            let extra = u128::from(parts) * u128::from(*factor) / u128::from(scale);
            let extra = u64::try_from(extra).map_err(|_| refuse("it is too large"))?;
            bytes = bytes.checked_add(extra).ok_or_else(|| refuse("it is too large"))?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ByteSize {
    /// Three significant digits in binary units: `1.50 GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let mut place = 0;
        let mut scale = 1_u64;
        while place + 1 < NAMES.len() && self.0 / scale >= 1024 {
            scale = scale.saturating_mul(1024);
            place += 1;
        }
        if place == 0 {
            return write!(f, "{} B", self.0);
        }
        let whole = self.0 / scale;
        let hundredths = u128::from(self.0 % scale) * 100 / u128::from(scale);
        match whole {
            0..=9 => write!(f, "{whole}.{hundredths:02} {}", NAMES[place]),
            10..=99 => write!(f, "{whole}.{} {}", hundredths / 10, NAMES[place]),
            _ => write!(f, "{whole} {}", NAMES[place]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in
            [("0", 0), ("1", 1), ("2G", 2 << 30), ("1.5GB", 1_500_000_000), ("512 MiB", 512 << 20)]
        {
            assert_eq!(text.parse::<ByteSize>().expect(text).0, bytes);
        }
        for bad in ["", "-1", "G", "1.G", "1e9", "999999999999G", "1 XB", "1.1234567G"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize(1536 << 20).to_string(), "1.50 GiB");
        assert_eq!(ByteSize(u64::MAX).to_string(), "15.9 EiB");
    }

    proptest! {
        #[test]
        fn any_number_displays_and_any_text_parses_or_errs(bytes: u64, text in "\\PC{0,20}") {
            let _ = ByteSize(bytes).to_string();
            let _ = text.parse::<ByteSize>();
        }
    }
}
