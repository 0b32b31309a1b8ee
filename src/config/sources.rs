//! Brings together what was written in different places: environment, file or start form, `--set`.
//!
//! The later of these wins over the earlier, as `zoo.cfg` wins over `-D` in ZooKeeper
//! (`QuorumPeerConfig#parseProperties` sets the system property anew). Names are settled here: the prefix
//! `zookeeper.` and the manual's aliases lead to the key that is meant.

use std::collections::BTreeMap;

use super::error::{ConfigError, Notice, Origin};
use super::{keys, properties};

/// Bytes of one configuration file: far above any real one, far below what could hurt.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;

/// What the server is started from. Pure text: the caller has read the files.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub start: Start,
    /// `key=value` of each `--set`, in order.
    pub sets: Vec<String>,
    /// Texts with Java options: the name of the variable or file, and its words. The later wins.
    pub flags: Vec<(String, String)>,
}

/// The forms a server is started in.
#[derive(Debug, Clone, Default)]
pub enum Start {
    /// Nothing given: 127.0.0.1:2181, `./data`, ticks of two seconds.
    #[default]
    Defaults,
    /// A configuration file.
    File { name: String, text: Vec<u8> },
    /// `port datadir [tickTime] [maxClientCnxns]`. Source: ZooKeeper `ServerConfig#parse`.
    Words(Vec<String>),
}

/// One value and where it was written.
#[derive(Debug, Clone)]
pub struct Written {
    pub value: String,
    pub origin: Origin,
}

/// All values by the name of their key.
#[derive(Debug, Default)]
pub struct Merged {
    pub values: BTreeMap<String, Written>,
    pub notices: Vec<Notice>,
    /// Where a missing key would have been written.
    pub home: Option<Origin>,
    unknown: Vec<String>,
}

struct Entry {
    key: String,
    value: String,
    origin: Origin,
}

impl Merged {
    pub fn of(sources: &Sources) -> Result<Merged, ConfigError> {
        let mut merged = Merged::default();
        merged.add_flags(&sources.flags);
        match &sources.start {
            Start::Defaults => merged.add_layer(built_in()),
            Start::File { name, text } => {
                merged.home = Some(Origin::Line { file: name.clone(), line: 1 });
                let entries = of_file(name, text)?;
                merged.note_duplicates(&entries)?;
                merged.add_layer(entries);
            }
            Start::Words(words) => {
                merged.home = Some(Origin::Argument);
                merged.add_layer(of_words(words)?);
            }
        }
        let mut entries = Vec::new();
        for set in &sources.sets {
            let (key, value) = set
                .split_once('=')
                .filter(|(key, _)| !key.trim().is_empty())
                .ok_or_else(|| ConfigError::Set { given: set.clone() })?;
            entries.push(Entry { key: key.trim().into(), value: value.trim().into(), origin: Origin::Set });
        }
        merged.add_layer(entries);
        if !merged.unknown.is_empty() {
            let names = std::mem::take(&mut merged.unknown);
            merged.notices.push(Notice::Unknown { names });
        }
        Ok(merged)
    }

    fn add_flags(&mut self, flags: &[(String, String)]) {
        let mut options = Vec::new();
        let mut entries = Vec::new();
        for (variable, text) in flags {
            for word in words_of(text) {
                let property = word.strip_prefix("-D").map(|rest| rest.split_once('=').unwrap_or((rest, "")));
                let named = property.and_then(|(name, value)| Some((keys::of_property(name)?, value)));
                match named {
                    Some((key, value)) => entries.push(Entry {
                        key: key.to_owned(),
                        value: value.trim().to_owned(),
                        origin: Origin::Flags { variable: variable.clone() },
                    }),
                    // Only the name: a value may be a password.
                    None => options.push(word.split('=').next().unwrap_or_default().to_owned()),
                }
            }
        }
        self.add_layer(entries);
        if !options.is_empty() {
            self.notices.push(Notice::JavaOptions { options });
        }
    }

    /// The later line counts, but a server that is given twice and differently is a mistake that could lose data.
    fn note_duplicates(&mut self, entries: &[Entry]) -> Result<(), ConfigError> {
        for (index, entry) in entries.iter().enumerate() {
            let before = entries[..index].iter().rev().find(|before| before.key == entry.key);
            if let Some(Entry { origin: Origin::Line { line, .. }, value, .. }) = before {
                if value != &entry.value && is_server(&entry.key) {
                    return Err(given_twice(&entry.origin, &entry.key, *line));
                }
                self.notices.push(Notice::Duplicate {
                    origin: entry.origin.clone(),
                    key: entry.key.clone(),
                    line_before: *line,
                });
            }
        }
        Ok(())
    }

    /// Adds one source. Within it a key under its own name wins over its aliases, wherever they stand.
    fn add_layer(&mut self, entries: Vec<Entry>) {
        let (exact, other): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| keys::find(&entry.key).is_some());
        for entry in other {
            let bare = entry.key.strip_prefix("zookeeper.").unwrap_or(&entry.key);
            let alias = keys::ALIASES.iter().find(|(alias, _)| *alias == bare).map(|(_, key)| *key);
            match alias.or((bare != entry.key && keys::find(bare).is_some()).then_some(bare)) {
                Some(key) => {
                    self.notices.push(Notice::Alias {
                        origin: entry.origin.clone(),
                        alias: entry.key.clone(),
                        key: key.to_owned(),
                    });
                    let key = key.to_owned();
                    self.values.insert(key, Written { value: entry.value, origin: entry.origin });
                }
                None => {
                    let hint =
                        keys::near(bare).map(|key| format!(" (did you mean {key}?)")).unwrap_or_default();
                    let name = format!("{}{hint}", entry.key);
                    if !self.unknown.contains(&name) {
                        self.unknown.push(name);
                    }
                }
            }
        }
        for entry in exact {
            self.values.insert(entry.key, Written { value: entry.value, origin: entry.origin });
        }
    }
}

/// Whether a key is `server.N`.
pub(super) fn is_server(key: &str) -> bool {
    keys::find(key).is_some_and(|key| key.name == "server.*")
}

pub(super) fn given_twice(origin: &Origin, key: &str, line_before: u32) -> ConfigError {
    let reason = format!("{key} is given twice, otherwise in line {line_before}: expected each server once");
    ConfigError::Contradiction { origin: origin.clone(), reason }
}

/// What `ringkeeper serve` alone means.
fn built_in() -> Vec<Entry> {
    [
        ("clientPort", "2181"),
        ("clientPortAddress", "127.0.0.1"),
        ("admin.serverAddress", "127.0.0.1"),
        ("dataDir", "./data"),
        ("tickTime", "2000"),
    ]
    .map(|(key, value)| Entry { key: key.into(), value: value.into(), origin: Origin::Default })
    .into()
}

fn of_file(name: &str, text: &[u8]) -> Result<Vec<Entry>, ConfigError> {
    let origin = |line| Origin::Line { file: name.to_owned(), line };
    if text.len() > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge {
            file: name.to_owned(),
            bytes: text.len(),
            bytes_max: CONFIG_BYTES_MAX,
        });
    }
    let properties =
        properties::parse(text).map_err(|bad| ConfigError::Escape { origin: origin(bad.line) })?;
    Ok(properties
        .into_iter()
        .map(|property| Entry { key: property.key, value: property.value, origin: origin(property.line) })
        .collect())
}

fn of_words(words: &[String]) -> Result<Vec<Entry>, ConfigError> {
    if !(2..=4).contains(&words.len()) {
        return Err(ConfigError::Arguments { given: words.len() });
    }
    let names = ["clientPort", "dataDir", "tickTime", "maxClientCnxns"];
    let mut entries: Vec<Entry> = names
        .iter()
        .zip(words)
        .map(|(key, value)| Entry {
            key: (*key).into(),
            value: value.trim().into(),
            origin: Origin::Argument,
        })
        .collect();
    if words.len() < 4 {
        // Unlike a file, this form does not limit connections unless told to. Source: ZooKeeper `ServerConfig`.
        entries.push(Entry { key: "maxClientCnxns".into(), value: "0".into(), origin: Origin::Default });
    }
    Ok(entries)
}

/// Splits at blanks as a shell would; single and double quotes keep blanks, and are dropped.
fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut begun = false;
    let mut quote = None;
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                begun = true;
            }
            None if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            None => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// The Java options in a file of shell variables (`java.env`, `zookeeper-env.sh`): the words of assignments to
/// `JVMFLAGS` and `SERVER_JVMFLAGS` that begin with `-` and need no shell to be understood.
pub fn flags_of_shell(text: &str) -> String {
    let mut options = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let Some((name, value)) = line.split_once('=') else { continue };
        if !matches!(name, "JVMFLAGS" | "SERVER_JVMFLAGS") {
            continue;
        }
        let value = value.trim().trim_matches(|c| c == '"' || c == '\'');
        options.extend(
            value.split_whitespace().filter(|word| word.starts_with('-') && !word.contains(['$', '`'])),
        );
    }
    options.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Sources {
        Sources {
            start: Start::File { name: "zoo.cfg".into(), text: text.as_bytes().to_vec() },
            ..Sources::default()
        }
    }

    fn value<'a>(merged: &'a Merged, key: &str) -> &'a str {
        merged.values.get(key).map_or("", |written| written.value.as_str())
    }

    #[test]
    fn later_sources_win() {
        let mut sources = file("snapCount=2\ntickTime=2000");
        sources.flags = vec![("JVMFLAGS".into(), "-Dzookeeper.snapCount=1 -Djute.maxbuffer=9".into())];
        sources.sets = vec!["tickTime=3000".into()];
        let merged = Merged::of(&sources).unwrap();
        assert_eq!(value(&merged, "snapCount"), "2");
        assert_eq!(value(&merged, "tickTime"), "3000");
        assert_eq!(value(&merged, "jute.maxbuffer"), "9");
        assert!(merged.notices.is_empty());
        assert_eq!(merged.values["snapCount"].origin.to_string(), "zoo.cfg:1");
    }

    #[test]
    fn last_duplicate_wins_and_is_named() {
        let merged = Merged::of(&file("tickTime=1\n\ntickTime=2")).unwrap();
        assert_eq!(value(&merged, "tickTime"), "2");
        let text = merged.notices[0].to_string();
        assert_eq!(
            text,
            "zoo.cfg:3: tickTime is given twice; the value of this line counts, not that of line 1"
        );
    }

    #[test]
    fn java_options_are_named_once_without_their_values() {
        let sources = Sources {
            flags: vec![
                ("SERVER_JVMFLAGS".into(), "-Xmx1g '-Dzookeeper.snapCount=5' -Dx.password=secret".into()),
                ("JVMFLAGS".into(), "-javaagent:a.jar=8080 -Dzookeeper.clientPort=1".into()),
            ],
            ..Sources::default()
        };
        let merged = Merged::of(&sources).unwrap();
        assert_eq!(value(&merged, "snapCount"), "5");
        assert_eq!(value(&merged, "clientPort"), "2181");
        assert_eq!(
            merged.notices,
            [Notice::JavaOptions {
                options: ["-Xmx1g", "-Dx.password", "-javaagent:a.jar", "-Dzookeeper.clientPort"]
                    .map(String::from)
                    .into()
            }]
        );
    }

    #[test]
    fn prefix_and_aliases_lead_to_the_key_and_the_key_itself_wins() {
        let merged = Merged::of(&file(
            "throttled_op_wait_time=7\nthrottledOpWaitTime=8\nzookeeper.snapCount=9\nzookeeper.connectionMaxTokens=4",
        ))
        .unwrap();
        assert_eq!(value(&merged, "throttled_op_wait_time"), "7");
        assert_eq!(value(&merged, "snapCount"), "9");
        assert_eq!(value(&merged, "connection_throttle_tokens"), "4");
        assert_eq!(merged.notices.len(), 3);
        assert_eq!(
            merged.notices[1].to_string(),
            "zoo.cfg:3: zookeeper.snapCount is called snapCount; taken as that"
        );
    }

    #[test]
    fn unknown_keys_are_named_once_with_a_hint() {
        let merged = Merged::of(&file("foo.bar=1\nticktime=2\nfoo.bar=2")).unwrap();
        let unknown: Vec<_> = merged.notices.iter().filter(|n| matches!(n, Notice::Unknown { .. })).collect();
        assert_eq!(unknown.len(), 1);
        assert_eq!(
            unknown[0].to_string(),
            "unknown keys, ignored: foo.bar, ticktime (did you mean tickTime?)"
        );
    }

    #[test]
    fn start_words_are_two_to_four() {
        let words = |words: &[&str]| Sources {
            start: Start::Words(words.iter().map(|word| (*word).into()).collect()),
            ..Sources::default()
        };
        let merged = Merged::of(&words(&["2182", "/d"])).unwrap();
        assert_eq!((value(&merged, "clientPort"), value(&merged, "dataDir")), ("2182", "/d"));
        assert_eq!((value(&merged, "tickTime"), value(&merged, "maxClientCnxns")), ("", "0"));
        let merged = Merged::of(&words(&["2182", "/d", "500", "9"])).unwrap();
        assert_eq!((value(&merged, "tickTime"), value(&merged, "maxClientCnxns")), ("500", "9"));
        for bad in [&["1"][..], &["1", "2", "3", "4", "5"]] {
            assert_eq!(Merged::of(&words(bad)).unwrap_err(), ConfigError::Arguments { given: bad.len() });
        }
    }

    #[test]
    fn sets_need_a_key() {
        for bad in ["tickTime", "=5", ""] {
            let sources = Sources { sets: vec![bad.into()], ..Sources::default() };
            assert_eq!(Merged::of(&sources).unwrap_err(), ConfigError::Set { given: bad.into() });
        }
    }

    #[test]
    fn shell_files_give_their_plain_options() {
        let text = "#!/bin/sh\nexport JVMFLAGS=\"$JVMFLAGS -Djute.maxbuffer=4 -Xms1g\"\nSERVER_JVMFLAGS='-Da=$X -Db=1'\nOTHER=-Dc=2\n# JVMFLAGS=-Dd=1";
        assert_eq!(flags_of_shell(text), "-Djute.maxbuffer=4 -Xms1g -Db=1");
    }
}
