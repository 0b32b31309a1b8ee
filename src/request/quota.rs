//! Quotas: limits on the nodes and bytes of a subtree, and what it uses.
//!
//! Both live in ordinary nodes, `/zookeeper/quota<path>/zookeeper_limits` and `…/zookeeper_stats`, as text:
//! `count=N,bytes=M`, optionally followed by `=;key=value…` with the hard limits. -1 is no limit.
//! Source: ZooKeeper `Quotas`, `StatsTrack`.
//!
//! Which subtrees are counted follows from the limits nodes; usage is derived from the tree, so text that does not parse is taken
//! as unset and counted afresh (client-protocol §14.4-14.6).

use std::collections::BTreeMap;

pub const QUOTA_ROOT: &str = "/zookeeper/quota";
pub const LIMITS: &str = "zookeeper_limits";
pub const STATS: &str = "zookeeper_stats";

/// The path a quota node speaks of: `/zookeeper/quota/a/zookeeper_limits` is about `/a`.
///
/// `None` for any other node, and for a quota on the root, which has no effect.
pub fn subject<'p>(path: &'p str, leaf: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(QUOTA_ROOT)?;
    let subject = rest.strip_suffix(leaf)?.strip_suffix('/')?;
    (!subject.is_empty() && subject.starts_with('/')).then_some(subject)
}

pub fn limits_path(subject: &str) -> String {
    format!("{QUOTA_ROOT}{subject}/{LIMITS}")
}

pub fn stats_path(subject: &str) -> String {
    format!("{QUOTA_ROOT}{subject}/{STATS}")
}

/// The text of a limits or stats node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Track {
    pub count: i64,
    pub bytes: i64,
    /// Every other key, sorted; values as written.
    others: BTreeMap<String, i64>,
}

impl Track {
    pub fn new(count: i64, bytes: i64) -> Track {
        Track { count, bytes, others: BTreeMap::new() }
    }

    /// `None` where ZooKeeper's parser would fail.
    pub fn parse(text: &[u8]) -> Option<Track> {
        let text = std::str::from_utf8(text).ok()?;
        let mut track = Track::new(-1, -1);
        for pair in text.split([',', ';']).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=')?;
            // An odd `=` after the first pairs keeps older parsers working.
            let value = value.trim_end_matches('=');
            let value = if value.is_empty() { -1 } else { value.parse().ok()? };
            match key {
                "count" => track.count = value,
                "bytes" => track.bytes = value,
                _ => {
                    track.others.insert(key.to_owned(), value);
                }
            }
        }
        Some(track)
    }

    pub fn text(&self) -> String {
        let mut text = format!("count={},bytes={}", self.count, self.bytes);
        if !self.others.is_empty() {
            text.push('=');
            for (key, value) in &self.others {
                text.push_str(&format!(";{key}={value}"));
            }
        }
        text
    }

    /// -1 is no limit.
    pub fn count_hard(&self) -> i64 {
        self.others.get("countHardLimit").copied().unwrap_or(-1)
    }

    /// -1 is no limit.
    pub fn bytes_hard(&self) -> i64 {
        self.others.get("byteHardLimit").copied().unwrap_or(-1)
    }
}

/// The subtrees with a limits node.
#[derive(Debug, Default)]
pub struct Quotas {
    subjects: std::collections::BTreeSet<String>,
}

impl Quotas {
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    pub fn insert(&mut self, subject: &str) {
        self.subjects.insert(subject.to_owned());
    }

    pub fn remove(&mut self, subject: &str) {
        self.subjects.remove(subject);
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.subjects.iter().map(String::as_str)
    }

    /// The deepest subtree with a quota that holds `path`.
    pub fn charged<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.subjects.is_empty() {
            return None;
        }
        let mut candidate = path;
        while !candidate.is_empty() {
            if self.subjects.contains(candidate) {
                return Some(candidate);
            }
            candidate = &candidate[..candidate.rfind('/')?];
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["count=5,bytes=-1", "count=5,bytes=-1=;byteHardLimit=-1;countHardLimit=10"] {
            assert_eq!(Track::parse(text.as_bytes()).unwrap().text(), text);
        }
        assert_eq!(Track::parse(b"count=5,bytes=-1=;countHardLimit=10").unwrap().count_hard(), 10);
        assert_eq!(Track::parse(b"rubbish"), None);
        assert_eq!(Track::parse(b"count=x"), None);
        assert_eq!(Track::parse(b"\xff"), None);
    }

    #[test]
    fn subjects() {
        assert_eq!(subject("/zookeeper/quota/a/b/zookeeper_limits", LIMITS), Some("/a/b"));
        assert_eq!(subject("/zookeeper/quota/zookeeper_limits", LIMITS), None);
        assert_eq!(subject("/zookeeperX/zookeeper_limits", LIMITS), None);
        assert_eq!(subject("/zookeeper/quotaX/zookeeper_limits", LIMITS), None);
        assert_eq!(subject("/zookeeper/quota/a/zookeeper_stats", LIMITS), None);
    }

    #[test]
    fn deepest_is_charged_by_components() {
        let mut quotas = Quotas::default();
        quotas.insert("/a");
        quotas.insert("/a/b");
        assert_eq!(quotas.charged("/a/b/c"), Some("/a/b"));
        assert_eq!(quotas.charged("/a/bc"), Some("/a"));
        assert_eq!(quotas.charged("/a"), Some("/a"));
        assert_eq!(quotas.charged("/ab"), None);
    }
}
