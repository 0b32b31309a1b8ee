//! A configuration without its secrets, for whoever shows it to others.

use super::properties;

/// What stands where a secret was.
pub const REDACTED: &str = "<redacted>";

/// Parts of keys, in small letters, whose values are nobody's business.
const SECRET_PARTS: [&str; 4] = ["password", "passwd", "secret", "superdigest"];

/// Whether a key's value is a secret.
pub fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| key.contains(part))
}

/// The text of a `zoo.cfg`, with [`REDACTED`] for the values of secrets and for comments that mention one.
pub fn text(text: &[u8]) -> String {
    // A text that does not parse starts no server.
    let secrets: Vec<properties::Property> = properties::parse(text)
        .unwrap_or_default()
        .into_iter()
        .filter(|property| is_secret(&property.key))
        .collect();
    // ISO-8859-1: every byte is the character of its number.
    let text: String = text.iter().map(|byte| char::from(*byte)).collect();
    let mut out = String::with_capacity(text.len());
    let mut hiding = false;
    for (index, line) in text.replace("\r\n", "\n").replace('\r', "\n").lines().enumerate() {
        let continued = line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1;
        if hiding {
            hiding = continued;
            continue;
        }
        let start = line.trim_start();
        let found = secrets.iter().find(|property| property.line as usize == index + 1);
        if let Some(property) = found {
            out.push_str(&format!("{}={REDACTED}\n", property.key));
            hiding = continued;
        } else if start.starts_with(['#', '!']) && is_secret(start) {
            out.push_str(&format!("# {REDACTED}\n"));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_all_else_stays() {
        let before = b"# a comment\ntickTime=5\r\nssl.keyStore.password = a\\\n   b\\\n c\nclientPort=1\n\
                       #superDigest=super:x\nmetricsProvider.ssl.trustStore.passwordPath=/p\nx=\xe9\n";
        assert_eq!(
            text(before),
            "# a comment\ntickTime=5\nssl.keyStore.password=<redacted>\nclientPort=1\n# <redacted>\n\
             metricsProvider.ssl.trustStore.passwordPath=<redacted>\nx=\u{e9}\n"
        );
        assert_eq!(text(b""), "");
        // However the key is written.
        assert_eq!(text(b"ssl.keyStore.p\\u0061ssword=x\n"), "ssl.keyStore.password=<redacted>\n");
    }
}
