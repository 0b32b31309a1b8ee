//! The text of `zoo.cfg`: Java properties.
//!
//! Bytes are ISO-8859-1. A logical line is `key=value`, `key: value` or `key value`; lines whose first visible
//! character is `#` or `!` are comments; an odd number of backslashes at the end of a line joins the next one to
//! it, without that line's leading blanks. Inside keys and values `\t \n \r \f \uXXXX` are escapes, and a backslash
//! before anything else only quotes it. Source: `java.util.Properties#load`; keys and values are trimmed afterwards
//! as ZooKeeper does (`QuorumPeerConfig#parseProperties`).
//!
//! What this leaves to others: what the keys mean, and which of two equal keys wins.

/// One `key=value`, both unescaped and trimmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    pub key: String,
    pub value: String,
    /// The line it starts on, from 1.
    pub line: u32,
}

/// A `\u` that is not followed by four hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadEscape {
    pub line: u32,
}

/// All properties of a text, in its order. A leading UTF-8 byte order mark is passed over.
pub fn parse(text: &[u8]) -> Result<Vec<Property>, BadEscape> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut lines = Lines { rest: text, line: 1 };
    let mut properties = Vec::new();
    while let Some((line, logical)) = lines.next_logical() {
        let (key, value) = split(&logical);
        let bad = |_| BadEscape { line };
        let key = unescape(key).map_err(bad)?.trim_matches(is_java_blank).to_owned();
        let value = unescape(value).map_err(bad)?.trim_matches(is_java_blank).to_owned();
        properties.push(Property { key, value, line });
    }
    Ok(properties)
}

/// What `String#trim` takes off.
fn is_java_blank(c: char) -> bool {
    c <= ' '
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0c)
}

/// Cuts a text into logical lines: comments and empty lines left out, continued lines joined.
struct Lines<'a> {
    rest: &'a [u8],
    /// The number of the natural line that `rest` begins with.
    line: u32,
}

impl Lines<'_> {
    /// One natural line without its end; `None` at the end of the text.
    fn next_natural(&mut self) -> Option<&[u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let text = self.rest;
        let end = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(text.len());
        let after = match &text[end..] {
            [b'\r', b'\n', ..] => end + 2,
            [] => end,
            _ => end + 1,
        };
        self.rest = &text[after..];
        self.line = self.line.saturating_add(1);
        Some(&text[..end])
    }

    fn next_logical(&mut self) -> Option<(u32, Vec<u8>)> {
        loop {
            let line = self.line;
            let first = without_leading_blanks(self.next_natural()?);
            if matches!(first.first(), None | Some(b'#' | b'!')) {
                continue;
            }
            let mut logical = first.to_vec();
            while ends_in_continuation(&logical) {
                logical.pop();
                match self.next_natural() {
                    Some(next) => logical.extend_from_slice(without_leading_blanks(next)),
                    None => break,
                }
            }
            // A line of nothing but a backslash and emptiness is an empty line.
            if !logical.is_empty() {
                return Some((line, logical));
            }
        }
    }
}

fn without_leading_blanks(line: &[u8]) -> &[u8] {
    let start = line.iter().position(|&byte| !is_blank(byte)).unwrap_or(line.len());
    &line[start..]
}

fn ends_in_continuation(line: &[u8]) -> bool {
    line.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

/// Key and value, still escaped: the key ends at the first `=`, `:` or blank that no backslash quotes, and one
/// `=` or `:` with the blanks around it belongs to neither.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let mut key_end = line.len();
    let mut index = 0;
    while index < line.len() {
        match line[index] {
            b'\\' => index += 2,
            b'=' | b':' => {
                key_end = index;
                break;
            }
            byte if is_blank(byte) => {
                key_end = index;
                break;
            }
            _ => index += 1,
        }
    }
    let mut value = without_leading_blanks(&line[key_end..]);
    if let [b'=' | b':', rest @ ..] = value {
        value = without_leading_blanks(rest);
    }
    (&line[..key_end], value)
}

/// Latin-1 with escapes to text. Two `\u` that form a surrogate pair are one character; a lone half becomes U+FFFD.
fn unescape(escaped: &[u8]) -> Result<String, ()> {
    let mut units: Vec<u16> = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            units.push(u16::from(byte));
            continue;
        }
        let Some(quoted) = bytes.next() else { break };
        units.push(match quoted {
            b't' => u16::from(b'\t'),
            b'n' => u16::from(b'\n'),
            b'r' => u16::from(b'\r'),
            b'f' => 0x0c,
            b'u' => {
                let mut unit = 0u16;
                for _ in 0..4 {
                    let digit = bytes.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or(())?;
                    unit = unit << 4 | digit as u16;
                }
                unit
            }
            other => u16::from(other),
        });
    }
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text.as_bytes()).unwrap().into_iter().map(|p| (p.key, p.value)).collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = pairs(text);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn every_separator_works() {
        for text in ["a=b", "a:b", "a b", "a = b", "a : b", "  a\t=\tb  ", "\x0ca=b", "a\\=b"] {
            let expected = if text == "a\\=b" { pair("a=b", "") } else { pair("a", "b") };
            assert_eq!(one(text), expected, "{text:?}");
        }
        assert_eq!(one("a=:b"), pair("a", ":b"));
        assert_eq!(one("a==b"), pair("a", "=b"));
        assert_eq!(one("=b"), pair("", "b"));
        assert_eq!(one("a"), pair("a", ""));
        assert_eq!(one("server.1=h:2888:3888;2181"), pair("server.1", "h:2888:3888;2181"));
    }

    #[test]
    fn comments_and_empty_lines_are_nothing() {
        assert_eq!(pairs("# a=b\n\n  ! c=d\n\t\n#x\\\ne=f\n\\\n"), [pair("e", "f")]);
        assert_eq!(one("a=b#c"), pair("a", "b#c"));
    }

    #[test]
    fn continued_lines_lose_leading_blanks_and_are_no_comments() {
        assert_eq!(one("a=b\\\n   c\\\n\t#d"), pair("a", "bc#d"));
        assert_eq!(pairs("a=b\\\n\nc=d"), [pair("a", "b"), pair("c", "d")]);
        assert_eq!(pairs("a=b\\\\\nc=d"), [pair("a", "b\\"), pair("c", "d")]);
        assert_eq!(one("a=b\\"), pair("a", "b"));
        assert_eq!(one("a=b\\\r\n  c"), pair("a", "bc"));
    }

    #[test]
    fn line_numbers_count_every_kind_of_line_end() {
        let properties = parse(b"a=1\r\nb=2\rc=\\\n3\n\nd=4").unwrap();
        let lines: Vec<_> = properties.iter().map(|p| (p.key.as_str(), p.value.as_str(), p.line)).collect();
        assert_eq!(lines, [("a", "1", 1), ("b", "2", 2), ("c", "3", 3), ("d", "4", 6)]);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(one(r"a\ b=\t\u00e9\q\\"), pair("a b", "\u{e9}q\\"));
        assert_eq!(one(r"a=x\ny"), pair("a", "x\ny"));
        assert_eq!(one(r"a=\ud83d\ude00"), pair("a", "\u{1f600}"));
        assert_eq!(one(r"a=\ud83dx"), pair("a", "\u{fffd}x"));
        assert_eq!(parse(b"x=1\na=\\u12g4"), Err(BadEscape { line: 2 }));
        assert_eq!(parse(b"a=\\u12"), Err(BadEscape { line: 1 }));
    }

    #[test]
    fn bytes_are_latin_1() {
        let properties = parse(b"\xef\xbb\xbfa=\xe9").unwrap();
        assert_eq!((properties[0].key.as_str(), properties[0].value.as_str()), ("a", "\u{e9}"));
    }

    /// Any bytes parse or name a line that exists; keys and values stay within the text's length.
    #[test]
    fn any_bytes_parse_or_name_a_line() {
        let alphabet = b"ab=: \t\x0c\r\n\\\\#!u01\xff";
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for round in 0..20_000u32 {
            let mut text = Vec::new();
            for _ in 0..round % 40 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text.push(alphabet[(state >> 33) as usize % alphabet.len()]);
            }
            let lines = text.len() as u32 + 1;
            match parse(&text) {
                Ok(properties) => {
                    let total: usize =
                        properties.iter().map(|p| p.key.chars().count() + p.value.chars().count()).sum();
                    assert!(total <= text.len(), "{text:?}");
                    assert!(properties.windows(2).all(|two| two[0].line < two[1].line), "{text:?}");
                    assert!(properties.iter().all(|p| (1..=lines).contains(&p.line)), "{text:?}");
                }
                Err(bad) => assert!((1..=lines).contains(&bad.line), "{text:?}"),
            }
        }
    }

    /// What is escaped as Java escapes it comes back.
    #[test]
    fn escaped_text_comes_back() {
        let mut state = 7u64;
        for _ in 0..2_000 {
            let mut text = String::from("k");
            let mut escaped = String::from("k");
            for _ in 0..12 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let c = [' ', '=', ':', '#', '\\', 'x', '\u{20ac}', '!'][(state >> 40) as usize % 8];
                text.push(c);
                match c {
                    'x' => escaped.push('x'),
                    '\u{20ac}' => escaped.push_str("\\u20ac"),
                    other => escaped.extend(['\\', other]),
                }
            }
            text.push('z');
            escaped.push('z');
            assert_eq!(one(&format!("{escaped}={escaped}")), (text.clone(), text));
        }
    }
}
