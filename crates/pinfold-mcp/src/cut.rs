//! Output that is too long for a model: its head and its tail, cut between characters.

use std::collections::VecDeque;

/// Gathers the head and the tail of bytes that come in pieces, within a limit.
#[derive(Debug)]
pub(crate) struct Gather {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_limit: usize,
    tail_limit: usize,
    total: u64,
}

/// What was gathered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The text, with a mark where something was left out.
    pub(crate) text: String,
    /// Bytes left out between head and tail.
    pub(crate) left_out: u64,
    /// Some bytes were not UTF-8 and are shown as U+FFFD.
    pub(crate) lossy: bool,
}

impl Gather {
    /// Keeps at most `limit` bytes, half of them from the end.
    pub(crate) fn new(limit: usize) -> Self {
        let head_limit = limit / 2;
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_limit,
            tail_limit: limit - head_limit,
            total: 0,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (first, rest) = bytes.split_at(bytes.len().min(self.head_limit - self.head.len()));
        self.head.extend_from_slice(first);
        // Of a piece longer than the tail only its end can stay.
        let rest = &rest[rest.len().saturating_sub(self.tail_limit)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(self.tail_limit);
        self.tail.drain(..over);
        self.tail.extend(rest);
    }

    /// Bytes so far, kept or not.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn finish(self) -> Cut {
        let Self { mut head, tail, total, .. } = self;
        let tail: Vec<u8> = tail.into();
        if (head.len() + tail.len()) as u64 == total {
            head.extend_from_slice(&tail);
            let text = String::from_utf8_lossy(&head);
            let lossy = matches!(text, std::borrow::Cow::Owned(_));
            return Cut { text: text.into_owned(), left_out: 0, lossy };
        }
        let head = &head[..whole(&head)];
        let tail = &tail[inside(&tail)..];
        let left_out = total - (head.len() + tail.len()) as u64;
        let (first, last) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
        let lossy = [&first, &last].iter().any(|text| matches!(text, std::borrow::Cow::Owned(_)));
        Cut {
            text: format!("{first}\n[… {left_out} bytes left out …]\n{last}"), left_out, lossy
        }
    }
}

/// Length without a character that is not complete at the end.
pub(crate) fn whole(bytes: &[u8]) -> usize {
    // A character has at most four bytes, so only the last three can begin one that is cut off.
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let wants = match bytes[at] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        return if wants > back { at } else { bytes.len() };
    }
    bytes.len()
}

/// Length of the rest of a character whose beginning was cut off.
fn inside(bytes: &[u8]) -> usize {
    bytes.iter().take(3).take_while(|byte| (0x80..=0xbf).contains(*byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(limit: usize, pieces: &[&[u8]]) -> Cut {
        let mut gather = Gather::new(limit);
        for piece in pieces {
            gather.push(piece);
        }
        assert_eq!(gather.total(), pieces.iter().map(|piece| piece.len() as u64).sum::<u64>());
        gather.finish()
    }

    #[test]
    fn what_fits_is_whole_even_when_pieces_split_characters() {
        let bytes = "grün".as_bytes();
        for at in 0..=bytes.len() {
            let cut = gathered(5, &[&bytes[..at], &bytes[at..]]);
            assert_eq!(cut, Cut { text: "grün".into(), left_out: 0, lossy: false });
        }
    }

    #[test]
    fn head_and_tail_stay_and_no_character_is_split() {
        let text = "é".repeat(50);
        for limit in 2..40 {
            let cut = gathered(limit, &[text.as_bytes()]);
            assert!(!cut.lossy, "{limit}: {}", cut.text);
            let kept = cut.text.matches('é').count();
            assert_eq!(cut.left_out + 2 * kept as u64, 100, "{limit}");
            assert!(kept * 2 <= limit && kept * 2 + 3 > limit - 1, "{limit}: {kept}");
        }
        let cut = gathered(6, &[b"abc", b"defgh", b"ijk"]);
        assert_eq!(cut.text, "abc\n[… 5 bytes left out …]\nijk");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_and_said() {
        let cut = gathered(100, &[b"a\xffb"]);
        assert_eq!((cut.text.as_str(), cut.lossy), ("a\u{fffd}b", true));
        assert!(gathered(4, &[b"\xff\xff\xff\xff\xff\xff"]).lossy);
    }

    #[test]
    fn only_incomplete_characters_are_held_back() {
        assert_eq!(whole("aé".as_bytes()), 3);
        assert_eq!(whole(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole(&"a😀".as_bytes()[..4]), 1);
        assert_eq!(whole(b"a\xff"), 2);
        assert_eq!(whole(b"\x80\x80\x80\x80"), 4);
        assert_eq!(whole(b""), 0);
    }
}
