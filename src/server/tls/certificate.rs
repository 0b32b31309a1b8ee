//! What a certificate says, apart from what its verification needs: its subject as Java writes it, how long it is
//! good, and its public key.

use super::der::{self, Reader, SEQUENCE, Value};

/// The parts of a certificate that are looked at here.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    /// The relative names, most general first.
    subject: Reader<'a>,
    /// Both names whole, to be compared.
    pub subject_der: &'a [u8],
    pub issuer_der: &'a [u8],
    /// Seconds since 1970, both ends included.
    pub valid_from_s: i64,
    pub valid_to_s: i64,
    /// SubjectPublicKeyInfo, whole.
    pub public_key: &'a [u8],
    /// Among its alternative names is one of a host.
    pub names_hosts: bool,
}

impl<'a> Certificate<'a> {
    /// `None`: no certificate.
    pub fn parse(certificate: &'a [u8]) -> Option<Certificate<'a>> {
        let mut signed = Reader::new(certificate).enter(SEQUENCE)?.enter(SEQUENCE)?;
        let _version = signed.optional(der::context(0));
        let _serial = signed.take(der::INTEGER)?;
        let _algorithm = signed.take(SEQUENCE)?;
        let issuer_der = signed.optional(SEQUENCE)?.whole;
        let mut validity = signed.enter(SEQUENCE)?;
        let (from, to) = (validity.any()?, validity.any()?);
        let subject = signed.optional(SEQUENCE)?;
        let public_key = signed.optional(SEQUENCE)?.whole;
        Some(Certificate {
            subject: Reader::new(subject.content),
            subject_der: subject.whole,
            issuer_der,
            valid_from_s: seconds(from)?,
            valid_to_s: seconds(to)?,
            public_key,
            names_hosts: names_hosts(signed).unwrap_or(false),
        })
    }

    /// The most specific common name.
    pub fn common_name(&self) -> Option<&'a str> {
        let mut names = self.subject;
        let mut found = None;
        while let Some(mut attributes) = names.enter(der::SET) {
            while let Some(mut attribute) = attributes.enter(SEQUENCE) {
                if attribute.oid() == Some(COMMON_NAME) {
                    found = attribute.any().and_then(|value| std::str::from_utf8(value.content).ok());
                }
            }
        }
        found
    }

    pub fn is_valid_at(&self, now_s: i64) -> bool {
        (self.valid_from_s..=self.valid_to_s).contains(&now_s)
    }

    /// The subject as Java's `X500Principal.getName()` gives it: RFC 2253, most specific first. `None`: malformed.
    /// Source: Java `X500Name`, `RDN`, `AVA`.
    pub fn subject(&self) -> Option<String> {
        let mut names = self.subject;
        let mut written = Vec::new();
        while !names.is_empty() {
            let mut attributes = names.enter(der::SET)?;
            let mut relative = Vec::new();
            while !attributes.is_empty() {
                let mut attribute = attributes.enter(SEQUENCE)?;
                relative.push(attribute_text(attribute.oid()?, attribute.any()?)?);
            }
            written.push(relative.join("+"));
        }
        written.reverse();
        Some(written.join(","))
    }
}

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// subjectAltName, and the tag of a host's name in it.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 17];
const DNS_NAME: u8 = 0x82;

/// Looks for a host in the alternative names, which are among the extensions behind the key. `None`: there are none.
fn names_hosts(mut behind_key: Reader<'_>) -> Option<bool> {
    let mut extensions = loop {
        let value = behind_key.any()?;
        if value.tag == der::context(3) {
            break Reader::new(value.content).enter(SEQUENCE)?;
        }
    };
    while let Some(mut extension) = extensions.enter(SEQUENCE) {
        if extension.oid()? != ALTERNATIVE_NAMES {
            continue;
        }
        let _critical = extension.optional(der::BOOLEAN);
        let mut names = Reader::new(extension.take(der::OCTET_STRING)?).enter(SEQUENCE)?;
        while let Some(name) = names.any() {
            if name.tag == DNS_NAME {
                return Some(true);
            }
        }
    }
    None
}

/// Attribute types with a keyword in RFC 2253; all others are written as numbers. Source: Java `AVAKeyword`.
const KEYWORDS: [(&[u8], &str); 9] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
];

const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const T61_STRING: u8 = 0x14;
const IA5_STRING: u8 = 0x16;
const GENERAL_STRING: u8 = 0x1b;
const UNIVERSAL_STRING: u8 = 0x1c;
const BMP_STRING: u8 = 0x1e;

fn attribute_text(oid: &[u8], value: Value<'_>) -> Option<String> {
    let is_text = matches!(
        value.tag,
        UTF8_STRING
            | PRINTABLE_STRING
            | T61_STRING
            | IA5_STRING
            | GENERAL_STRING
            | UNIVERSAL_STRING
            | BMP_STRING
    );
    match KEYWORDS.iter().find(|(known, _)| *known == oid) {
        // Java takes the bytes of every kind of string for UTF-8.
        Some((_, keyword)) if is_text => {
            Some(format!("{keyword}={}", escaped(&String::from_utf8_lossy(value.content))))
        }
        keyword => {
            let name =
                keyword.map_or_else(|| der::dotted(oid), |(_, keyword)| Some((*keyword).to_owned()))?;
            let hex: String = value.whole.iter().map(|byte| format!("{byte:02x}")).collect();
            Some(format!("{name}=#{hex}"))
        }
    }
}

/// Special characters behind a backslash, and blanks at either end.
fn escaped(text: &str) -> String {
    let mut inner = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ',' | '=' | '+' | '<' | '>' | '#' | ';' | '"' | '\\' => inner.extend(['\\', c]),
            '\0' => inner.push_str("\\00"),
            c => inner.push(c),
        }
    }
    let is_blank = |c: char| c == ' ' || c == '\r';
    let lead = inner.chars().take_while(|c| is_blank(*c)).count();
    let count = inner.chars().count();
    // All blanks: each is escaped once.
    let trail = if lead == count { 0 } else { inner.chars().rev().take_while(|c| is_blank(*c)).count() };
    let mut out = String::with_capacity(inner.len() + lead + trail);
    for (index, c) in inner.chars().enumerate() {
        if index < lead || index >= count - trail {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, as RFC 5280 wants them.
fn seconds(time: Value<'_>) -> Option<i64> {
    let digits = time.content.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (year_digits, rest) = match time.tag {
        der::UTC_TIME => digits.split_at_checked(2)?,
        der::GENERALIZED_TIME => digits.split_at_checked(4)?,
        _ => return None,
    };
    let number = |digits: &[u8]| digits.iter().fold(0i64, |n, digit| n * 10 + i64::from(digit - b'0'));
    let year = match (time.tag, number(year_digits)) {
        (der::UTC_TIME, year @ 0..50) => 2000 + year,
        (der::UTC_TIME, year) => 1900 + year,
        (_, year) => year,
    };
    let [month, day, hour, minute, second] =
        rest.chunks(2).map(number).collect::<Vec<_>>().try_into().ok().filter(|_| rest.len() == 10)?;
    let in_range =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    if !in_range {
        return None;
    }
    // Days from 1970-01-01 in the proleptic Gregorian calendar, counted in years that begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut whole = vec![tag, u8::try_from(content.len()).unwrap()];
        whole.extend_from_slice(content);
        whole
    }

    fn attribute(oid: &[u8], tag: u8, content: &[u8]) -> Vec<u8> {
        value(SEQUENCE, &[value(der::OID, oid), value(tag, content)].concat())
    }

    fn certificate(names: &[Vec<u8>]) -> Vec<u8> {
        let subject: Vec<u8> = names.iter().flat_map(|name| value(der::SET, name)).collect();
        let validity =
            [value(der::UTC_TIME, b"700101000000Z"), value(der::GENERALIZED_TIME, b"20500101000000Z")]
                .concat();
        let inner = [
            value(der::INTEGER, &[1]),
            value(SEQUENCE, &[]),
            value(SEQUENCE, &[]),
            value(SEQUENCE, &validity),
            value(SEQUENCE, &subject),
            value(SEQUENCE, b"k"),
        ]
        .concat();
        let inner =
            [&[SEQUENCE, 0x82][..], &u16::try_from(inner.len()).unwrap().to_be_bytes(), &inner].concat();
        [&[SEQUENCE, 0x82][..], &u16::try_from(inner.len()).unwrap().to_be_bytes(), &inner].concat()
    }

    fn subject(names: &[Vec<u8>]) -> String {
        Certificate::parse(&certificate(names)).unwrap().subject().unwrap()
    }

    const CN: &[u8] = &[0x55, 4, 3];
    const O: &[u8] = &[0x55, 4, 10];
    const EMAIL: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1];

    /// What Java 17 answers for these names.
    #[test]
    fn subjects_are_written_as_java_writes_them() {
        assert_eq!(subject(&[]), "");
        assert_eq!(
            subject(&[
                attribute(O, UTF8_STRING, b"Acme, Inc"),
                attribute(CN, PRINTABLE_STRING, b"client one")
            ]),
            "CN=client one,O=Acme\\, Inc"
        );
        let both = [attribute(CN, UTF8_STRING, b"a"), attribute(O, UTF8_STRING, b"b")].concat();
        assert_eq!(subject(&[both]), "CN=a+O=b");
        assert_eq!(
            subject(&[
                attribute(EMAIL, IA5_STRING, b"a@b"),
                attribute(CN, UTF8_STRING, "ü+\"\\<>;#=".as_bytes())
            ]),
            "CN=ü\\+\\\"\\\\\\<\\>\\;\\#\\=,1.2.840.113549.1.9.1=#1603614062"
        );
        assert_eq!(subject(&[attribute(CN, UTF8_STRING, b"  a b ")]), "CN=\\ \\ a b\\ ");
        assert_eq!(subject(&[attribute(CN, UTF8_STRING, b"  ")]), "CN=\\ \\ ");
        assert_eq!(subject(&[attribute(CN, der::OCTET_STRING, b"a")]), "CN=#040161");
    }

    #[test]
    fn times_are_counted_from_1970() {
        let at = |tag, text: &[u8]| {
            let whole = value(tag, text);
            seconds(Reader::new(&whole).any().unwrap())
        };
        assert_eq!(at(der::UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(at(der::UTC_TIME, b"491231235959Z"), Some(2_524_607_999));
        assert_eq!(at(der::UTC_TIME, b"500101000000Z"), Some(-631_152_000));
        assert_eq!(at(der::GENERALIZED_TIME, b"20000229120000Z"), Some(951_825_600));
        assert_eq!(at(der::GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
        for bad in
            [&b"700101000000"[..], b"701301000000Z", b"7001010000Z", b"70010100000xZ", b"Z", b"700100000000Z"]
        {
            assert_eq!(at(der::UTC_TIME, bad), None, "{bad:?}");
        }
        let whole = certificate(&[]);
        let parsed = Certificate::parse(&whole).unwrap();
        assert!(parsed.is_valid_at(0) && !parsed.is_valid_at(-1) && !parsed.is_valid_at(2_524_608_001));
        assert_eq!(parsed.public_key, value(SEQUENCE, b"k"));
    }

    #[test]
    fn damaged_certificates_are_none() {
        let whole = certificate(&[attribute(CN, UTF8_STRING, b"a")]);
        for len in 0..whole.len() {
            assert!(Certificate::parse(&whole[..len]).is_none());
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0xff;
            let _ = Certificate::parse(&damaged).map(|parsed| parsed.subject());
        }
    }
}
