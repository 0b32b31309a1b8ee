//! JSON as Jackson lays it out for ZooKeeper: `"key" : value`, one member a line, arrays on one line.
//!
//! Scripts that grep an answer rely on that layout and on the order of members, neither of which the common packages
//! offer; all there is to it is below.

use std::fmt::Write as _;

use crate::words::Number;

/// A value. Members of an object stay in the order they were added.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn object<const N: usize>(members: [(&str, Json); N]) -> Json {
        Json::Object(members.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// The value as text, without a newline at its end.
    pub fn print(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            // JSON has no word for these; Jackson writes them as text.
            Json::Number(Number::Real(value)) if !value.is_finite() => {
                write_text(out, &Number::Real(*value).to_string());
            }
            // Writing to a string does not fail, here and below.
            Json::Number(value) => {
                let _ = write!(out, "{value}");
            }
            Json::Text(text) => write_text(out, text),
            Json::Array(items) => {
                out.push_str("[ ");
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    item.write(out, depth);
                }
                out.push_str(if items.is_empty() { "]" } else { " ]" });
            }
            Json::Object(members) if members.is_empty() => out.push_str("{ }"),
            Json::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index > 0 { ",\n" } else { "\n" });
                    indent(out, depth + 1);
                    write_text(out, name);
                    out.push_str(" : ");
                    value.write(out, depth + 1);
                }
                out.push('\n');
                indent(out, depth);
                out.push('}');
            }
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl From<bool> for Json {
    fn from(value: bool) -> Json {
        Json::Bool(value)
    }
}

impl From<Number> for Json {
    fn from(value: Number) -> Json {
        Json::Number(value)
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::Text(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::Text(text)
    }
}

impl From<i64> for Json {
    fn from(value: i64) -> Json {
        Json::Number(Number::Whole(value))
    }
}

impl From<i32> for Json {
    fn from(value: i32) -> Json {
        Json::from(i64::from(value))
    }
}

impl From<u32> for Json {
    fn from(value: u32) -> Json {
        Json::from(i64::from(value))
    }
}

impl From<u64> for Json {
    fn from(value: u64) -> Json {
        Json::from(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl<T: Into<Json>> FromIterator<T> for Json {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Json {
        Json::Array(items.into_iter().map(Into::into).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text is what Jackson 2.15 made of the same value.
    #[test]
    fn the_layout_is_jacksons() {
        let value = Json::object([
            (
                "connections",
                Json::Array(vec![
                    Json::object([("session_id", Json::from(72058394535002112i64)), ("op", "NA".into())]),
                    Json::object([("session_id", Json::from(1))]),
                ]),
            ),
            ("paths", ["/w/e2", "/w/e1"].into_iter().collect()),
            ("none", Json::Array(Vec::new())),
            ("empty", Json::Object(Vec::new())),
            ("avg", Json::from(Number::Real(0.1111))),
            ("big", Json::from(Number::Real(1.7297301e7))),
            ("error", Json::Null),
        ]);
        let expected = "{\n  \"connections\" : [ {\n    \"session_id\" : 72058394535002112,\n    \"op\" : \"NA\"\n  }, {\n    \
                        \"session_id\" : 1\n  } ],\n  \"paths\" : [ \"/w/e2\", \"/w/e1\" ],\n  \"none\" : [ ],\n  \"empty\" : { },\n  \
                        \"avg\" : 0.1111,\n  \"big\" : 1.7297301E7,\n  \"error\" : null\n}";
        assert_eq!(value.print(), expected);
    }

    #[test]
    fn text_is_escaped() {
        let text = Json::from("a\"b\\c\nd\u{1}é/");
        assert_eq!(text.print(), "\"a\\\"b\\\\c\\nd\\u0001é/\"");
        assert_eq!(Json::from(Number::Real(f64::NAN)).print(), "\"NaN\"");
    }
}
