//! Just enough of Rust's lexical grammar to tell code from comments and literals.

/// A source text taken apart: each part has the line structure of the whole, with everything that
/// belongs to the other part blanked out.
#[derive(Debug)]
pub(crate) struct Source {
    /// Code without comments, and with literals emptied.
    pub(crate) code: String,
    /// Comments only.
    pub(crate) comments: String,
}

/// Takes a source text apart.
pub(crate) fn split(text: &str) -> Source {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut comments = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match (chars[at], chars.get(at + 1)) {
            ('/', Some('/')) => {
                let end = line_end(&chars, at);
                emit(&chars[at..end], &mut comments, &mut code);
                end
            }
            ('/', Some('*')) => {
                let end = block_comment_end(&chars, at);
                emit(&chars[at..end], &mut comments, &mut code);
                end
            }
            ('"', _) => literal(&chars, at, string_end(&chars, at), &mut code, &mut comments),
            ('\'', _) if char_end(&chars, at).is_some() => {
                let end = char_end(&chars, at).unwrap_or(at + 1);
                literal(&chars, at, end, &mut code, &mut comments)
            }
            ('r', Some('"' | '#')) if !word_before(&chars, at) => match raw_end(&chars, at) {
                Some(end) => literal(&chars, at, end, &mut code, &mut comments),
                None => one(&chars, at, &mut code, &mut comments),
            },
            ('b' | 'c', Some('r')) if !word_before(&chars, at) => match raw_end(&chars, at + 1) {
                Some(end) => literal(&chars, at, end, &mut code, &mut comments),
                None => one(&chars, at, &mut code, &mut comments),
            },
            _ => one(&chars, at, &mut code, &mut comments),
        };
        at = end;
    }
    // Both parts have every line, also the last one of a text that does not end in a line break.
    if !text.ends_with('\n') {
        code.push('\n');
        comments.push('\n');
    }
    Source { code, comments }
}

fn one(chars: &[char], at: usize, code: &mut String, comments: &mut String) -> usize {
    emit(&chars[at..=at], code, comments);
    at + 1
}

/// Copies to `to`, and only the line breaks to `other`.
fn emit(chars: &[char], to: &mut String, other: &mut String) {
    to.extend(chars);
    other.extend(chars.iter().filter(|c| **c == '\n'));
}

/// A literal keeps its first and last character, so that code stays readable as code.
fn literal(
    chars: &[char],
    from: usize,
    end: usize,
    code: &mut String,
    comments: &mut String,
) -> usize {
    code.push(chars[from]);
    let inner: Vec<char> = chars[from + 1..end].iter().copied().filter(|c| *c == '\n').collect();
    emit(&inner, code, comments);
    code.push('"');
    end
}

fn word_before(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

/// Block comments nest.
fn block_comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                at += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], mut at: usize) -> usize {
    at += 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// `'x'` and `'\n'` are literals; `'a` is a lifetime.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    match chars.get(at + 1)? {
        '\\' => {
            let close = chars[at + 3..].iter().take(10).position(|c| *c == '\'')?;
            Some(at + 3 + close + 1)
        }
        _ => (chars.get(at + 2) == Some(&'\'')).then_some(at + 3),
    }
}

/// `r"…"`, `r#"…"#` with any number of hashes; not a raw identifier.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return None;
    }
    let mut here = at + 2 + hashes;
    while here < chars.len() {
        if chars[here] == '"'
            && chars[here + 1..].iter().take_while(|c| **c == '#').count() >= hashes
        {
            return Some(here + 1 + hashes);
        }
        here += 1;
    }
    Some(chars.len())
}

/// Whether `word` stands in `line` with no letter, digit or underscore at either side.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part)
            && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = concat!(
            "let a = \"unsafe // no\"; // unsafe here\n",
            "/* unsafe /* nested */ still */ let c = '\\''; let d = '\"';\n",
            "fn f<'a>(x: &'a str) { r#\"unsafe \"quoted\" \"#; br\"unsafe\"; }\n",
        );
        let source = split(text);
        assert!(!has_word(&source.code, "unsafe"), "{}", source.code);
        assert!(has_word(&source.comments, "unsafe"));
        assert!(source.code.contains("fn f<'a>(x: &'a str)"));
        assert_eq!(source.code.matches('\n').count(), 3);
        assert_eq!(source.comments.matches('\n').count(), 3);
    }

    #[test]
    fn raw_identifiers_and_multi_line_strings_keep_lines() {
        let source = split("let r#type = 1;\nlet s = \"a\nb\";\nunsafe {}\n");
        assert_eq!(source.code.lines().nth(3), Some("unsafe {}"));
        assert!(source.code.contains("r#type"));
    }

    #[test]
    fn words_have_edges() {
        assert!(has_word("x unsafe{", "unsafe"));
        assert!(!has_word("unsafe_code", "unsafe"));
        assert!(!has_word("is_unsafe", "unsafe"));
    }
}
