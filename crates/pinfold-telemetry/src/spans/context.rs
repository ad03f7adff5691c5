//! Trace contexts: ours, and what callers bring (W3C Trace Context, version 00).

/// Ids of a span's trace and of the span itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
}

impl Context {
    /// `00-` 32 digits `-` 16 digits `-` 2 digits, in lower case, neither id zero. Later versions
    /// begin the same and may go on after a dash.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let dashes = bytes.len() >= 55 && [2, 35, 52].iter().all(|at| bytes[*at] == b'-');
        let version = hex::<1>(bytes.get(..2)?)?;
        let ends = match version {
            [0] => bytes.len() == 55,
            [0xff] => false,
            _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
        };
        if !dashes || !ends {
            return None;
        }
        hex::<1>(&bytes[53..55])?;
        let found = Self { trace: hex(&bytes[3..35])?, span: hex(&bytes[36..52])? };
        (found.trace != [0; 16] && found.span != [0; 8]).then_some(found)
    }
}

fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut found = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in found.iter_mut().zip(digits.chunks(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(found)
}

/// An id that nobody has; zero would mean none.
pub(super) fn fresh<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    // Without random bytes a trace is put together wrongly, and nothing worse.
    let _random = getrandom::fill(&mut id);
    id[N - 1] |= u8::from(id == [0; N]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_specification_says_is_a_context() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let found = Context::parse(good).expect("the specification's own");
        assert_eq!((found.trace[0], found.span[7]), (0x0a, 0x31));
        assert!(Context::parse(&format!("01{}-more", &good[2..])).is_some(), "a later version");
        for bad in [
            "",
            "00",
            &good.to_uppercase(),
            &good[..54],
            &format!("{good}-more"),
            &format!("{good}0"),
            &format!("ff{}", &good[2..]),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &good.replace("b7ad6b7169203331", &"0".repeat(16)),
            &good.replace('-', "_"),
            &good.replace("-01", "-zz"),
            &"é".repeat(30),
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
        assert_ne!(fresh::<16>(), fresh::<16>());
    }
}
