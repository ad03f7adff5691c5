//! Durations, times and limits for people.

use jiff::Timestamp;
use pinfold_types::{ByteSize, limits::LimitKind};

/// `3s`, `12m`, `5h`, `9d`: one unit.
pub(crate) fn coarse(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Time since, coarse.
pub(crate) fn age(then: Timestamp) -> String {
    let passed = Timestamp::now().as_millisecond() - then.as_millisecond();
    coarse(u64::try_from(passed).unwrap_or(0))
}

/// A limit's value with its unit.
pub(crate) fn limit(kind: LimitKind, value: u64) -> String {
    match kind {
        LimitKind::Memory | LimitKind::Swap | LimitKind::Disk => ByteSize(value).to_string(),
        LimitKind::Output => format!("{}/s", ByteSize(value)),
        LimitKind::Cpu => format!("{}.{:03} CPUs", value / 1000, value % 1000),
        _ => value.to_string(),
    }
}

/// RFC 3339 UTC, to the second.
pub(crate) fn moment(then: Timestamp) -> String {
    then.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_unit_is_enough() {
        for (ms, text) in
            [(5, "5ms"), (119_000, "119s"), (120_000, "2m"), (7_200_000, "2h"), (172_800_000, "2d")]
        {
            assert_eq!(super::coarse(ms), text);
        }
    }
}
