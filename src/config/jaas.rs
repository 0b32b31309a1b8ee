//! JAAS login configurations: named sections of login modules with options.
//!
//! ```text
//! Server {
//!     org.apache.zookeeper.server.auth.DigestLoginModule required
//!     user_super="adminsecret"
//!     user_bob="bobsecret";
//! };
//! ```
//!
//! `//` and `/* */` are comments, and so is `#` where a word could begin. Values are quoted or single words.
//! Source: Java `javax.security.auth.login.Configuration`.

use super::Secret;

/// A section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    pub name: String,
    pub modules: Vec<Module>,
}

/// A login module with its options, in the order written. Whether it is required is not kept: all are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    pub class: String,
    pub options: Vec<(String, Secret)>,
    /// From 1.
    pub line: u32,
}

/// What does not read as a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    pub line: u32,
    pub expected: &'static str,
}

const FLAGS: [&str; 4] = ["required", "requisite", "sufficient", "optional"];

/// All sections of a text.
pub fn parse(text: &str) -> Result<Vec<Section>, Malformed> {
    let mut tokens = Tokens { rest: text, line: 1 };
    let mut sections = Vec::new();
    while let Some(token) = tokens.next()? {
        let Token::Word(name) = token else { return Err(tokens.malformed("the name of a section")) };
        tokens.expect('{', "{ after the name of a section")?;
        let mut modules = Vec::new();
        while let Some(module) = module(&mut tokens)? {
            modules.push(module);
        }
        tokens.expect(';', "; after the end of a section")?;
        sections.push(Section { name, modules });
    }
    Ok(sections)
}

/// The next module of a section; `None` at the section's end.
fn module(tokens: &mut Tokens<'_>) -> Result<Option<Module>, Malformed> {
    let class = match tokens.next()? {
        Some(Token::Word(class)) => class,
        Some(Token::Mark('}')) => return Ok(None),
        _ => return Err(tokens.malformed("a login module, or } at the end of a section")),
    };
    let line = tokens.line;
    match tokens.next()? {
        Some(Token::Word(flag)) if FLAGS.iter().any(|known| known.eq_ignore_ascii_case(&flag)) => {}
        _ => return Err(tokens.malformed("required, requisite, sufficient or optional")),
    }
    let mut options = Vec::new();
    loop {
        match tokens.next()? {
            Some(Token::Word(name)) => {
                tokens.expect('=', "= after the name of an option")?;
                match tokens.next()? {
                    Some(Token::Word(value) | Token::Quoted(value)) => options.push((name, Secret(value))),
                    _ => return Err(tokens.malformed("the value of an option")),
                }
            }
            Some(Token::Mark(';')) => return Ok(Some(Module { class, options, line })),
            _ => return Err(tokens.malformed("an option, or ; at the end of a login module")),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Mark(char),
}

struct Tokens<'a> {
    rest: &'a str,
    line: u32,
}

impl Tokens<'_> {
    fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { line: self.line, expected }
    }

    fn expect(&mut self, mark: char, expected: &'static str) -> Result<(), Malformed> {
        if self.next()? == Some(Token::Mark(mark)) { Ok(()) } else { Err(self.malformed(expected)) }
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].bytes().filter(|byte| *byte == b'\n').count() as u32;
        self.rest = &self.rest[bytes..];
    }

    /// Past blanks and comments.
    fn skip_blanks(&mut self) -> Result<(), Malformed> {
        loop {
            self.skip(self.rest.len() - self.rest.trim_start().len());
            if self.rest.starts_with("//") || self.rest.starts_with('#') {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                let end = self.rest.find("*/").ok_or(self.malformed("*/ at the end of a comment"))?;
                self.skip(end + 2);
            } else {
                return Ok(());
            }
        }
    }

    fn next(&mut self) -> Result<Option<Token>, Malformed> {
        self.skip_blanks()?;
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        if matches!(first, '{' | '}' | ';' | '=') {
            self.skip(1);
            return Ok(Some(Token::Mark(first)));
        }
        if matches!(first, '"' | '\'') {
            return self.quoted(first).map(Some);
        }
        let is_end = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '=' | '"' | '\'');
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let word = self.rest[..end].to_owned();
        self.skip(end);
        Ok(Some(Token::Word(word)))
    }

    fn quoted(&mut self, quote: char) -> Result<Token, Malformed> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.skip(at + 1);
                    return Ok(Token::Quoted(value));
                }
                '\n' => break,
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, 't')) => value.push('\t'),
                    Some((_, 'r')) => value.push('\r'),
                    Some((_, other)) => value.push(other),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err(self.malformed("a closing quote on the same line"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_modules_and_options_are_found() {
        let text = "// clients\nServer {\n  a.b.DigestLoginModule required # who may come\n  user_super=\"a\\\"b;\"\n  \
                    user_bob='x y'\n  useKeyTab=true;\n};\n/* between\n servers */\nQuorumServer{c.D optional;e.F sufficient;};";
        let sections = parse(text).unwrap();
        assert_eq!(sections.len(), 2);
        let server = &sections[0];
        assert_eq!((server.name.as_str(), server.modules.len()), ("Server", 1));
        assert_eq!((server.modules[0].class.as_str(), server.modules[0].line), ("a.b.DigestLoginModule", 3));
        let options: Vec<(&str, &str)> =
            server.modules[0].options.iter().map(|(name, value)| (name.as_str(), value.0.as_str())).collect();
        assert_eq!(options, [("user_super", "a\"b;"), ("user_bob", "x y"), ("useKeyTab", "true")]);
        assert_eq!(
            sections[1].modules.iter().map(|module| module.class.as_str()).collect::<Vec<_>>(),
            ["c.D", "e.F"]
        );
        assert_eq!(parse(" # nothing\n").unwrap(), []);
        assert!(!format!("{sections:?}").contains("x y"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, line, expected) in [
            ("Server\nx", 2, "{ after the name of a section"),
            ("Server {\n x.Y\n};", 3, "required, requisite, sufficient or optional"),
            ("Server {\n x.Y required a\n b=c;\n};", 3, "= after the name of an option"),
            ("Server {\n x.Y required a=;\n};", 2, "the value of an option"),
            ("Server {\n x.Y required a=\"b\n;};", 2, "a closing quote on the same line"),
            ("Server {\n x.Y required\n}", 3, "an option, or ; at the end of a login module"),
            ("Server {\n x.Y required;\n}", 3, "; after the end of a section"),
            ("/* x", 1, "*/ at the end of a comment"),
            ("{", 1, "the name of a section"),
            ("Server {", 1, "a login module, or } at the end of a section"),
        ] {
            assert_eq!(parse(text), Err(Malformed { line, expected }), "{text}");
        }
    }
}
