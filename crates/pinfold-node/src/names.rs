//! Made-up workspace names: two plain words, such as `mossy-heron`.

mod words;

use pinfold_types::WorkspaceName;

use words::{FIRST, SECOND};

/// A random pair of words. About sixteen thousand exist; the caller tries again on a clash.
pub(crate) fn pair() -> WorkspaceName {
    let [first, second] = random_indexes();
    join(FIRST[first % FIRST.len()], SECOND[second % SECOND.len()], None)
}

/// A random pair with a number, for a house where most pairs are taken.
pub(crate) fn numbered() -> WorkspaceName {
    let [first, second] = random_indexes();
    let [number, _] = random_indexes();
    join(FIRST[first % FIRST.len()], SECOND[second % SECOND.len()], Some(number % 100_000))
}

fn join(first: &str, second: &str, number: Option<usize>) -> WorkspaceName {
    let text = number
        .map_or_else(|| format!("{first}-{second}"), |number| format!("{first}-{second}-{number}"));
    text.parse().expect("short lower-case words with hyphens are a name")
}

/// Names need to be unlikely to clash, not hard to guess, so a failing generator only makes
/// clashes likelier.
fn random_indexes() -> [usize; 2] {
    let mut bytes = [0_u8; 8];
    let _ = getrandom::fill(&mut bytes);
    let half =
        |part: &[u8]| part.iter().fold(0_usize, |value, byte| (value << 8) | usize::from(*byte));
    [half(&bytes[..4]), half(&bytes[4..])]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_pair_is_a_valid_name_and_the_lists_have_no_doubles() {
        for list in [FIRST, SECOND] {
            assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
            assert!(list.iter().all(|word| word.len() <= 12));
        }
        for first in FIRST {
            for second in SECOND {
                join(first, second, Some(99_999));
            }
        }
        assert!(FIRST.len() * SECOND.len() > 15_000);
    }

    #[test]
    fn names_differ() {
        let names: BTreeSet<_> = (0..200).map(|_| pair()).collect();
        assert!(names.len() > 150, "{}", names.len());
    }
}
