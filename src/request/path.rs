//! Paths of znodes: what is a valid one, and where its parent ends.

/// Whether a node may be made or changed under this name. Source: ZooKeeper `PathUtils#validatePath`.
///
/// Counted in UTF-16 units as there: so no characters outside the basic plane, none for private use, no U+FFFD.
pub fn is_valid(path: &str) -> bool {
    if !path.starts_with('/') {
        return false;
    }
    if path.len() == 1 {
        return true;
    }
    let components_are_valid = || path[1..].split('/').all(|component| !matches!(component, "" | "." | ".."));
    if path.is_ascii() {
        return path.bytes().all(|b| (0x20..0x7f).contains(&b)) && components_are_valid();
    }
    path.chars().all(char_is_valid) && components_are_valid()
}

fn char_is_valid(c: char) -> bool {
    !matches!(u32::from(c), 0..=0x1f | 0x7f..=0x9f | 0xd800..=0xf8ff | 0xfff0..)
}

/// The parent's path and the node's name; the parent of `/a` is `""`, another name of the root. `None` without a slash.
pub fn split(path: &str) -> Option<(&str, &str)> {
    let slash = path.rfind('/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

/// The parent's path as watches know it: `/` for a top-level node.
pub fn parent_for_watch(path: &str) -> &str {
    match split(path) {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

/// The node that shows the membership of the ensemble.
pub const CONFIG: &str = "/zookeeper/config";

/// Nodes nobody may delete, not even super. Source: ZooKeeper `DataTree#isSpecialPath`.
pub fn is_special(path: &str) -> bool {
    matches!(path, "/" | "/zookeeper" | "/zookeeper/quota" | "/zookeeper/config")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_of_each_class() {
        for valid in ["/", "/a", "/a/b", "/...", "/.x", "/x.", "/a b", "/ä", "/\u{ffef}", "/\u{a0}"] {
            assert!(is_valid(valid), "{valid:?}");
        }
        for invalid in [
            "",
            "a",
            "/a/",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a\0",
            "/\u{1}",
            "/\u{1f}",
            "/\u{7f}",
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{fffd}",
            "/😀",
        ] {
            assert!(!is_valid(invalid), "{invalid:?}");
        }
    }

    #[test]
    fn parents() {
        assert_eq!(split("/a"), Some(("", "a")));
        assert_eq!(split("/a/b"), Some(("/a", "b")));
        assert_eq!(split("/a//b"), Some(("/a/", "b")));
        assert_eq!(split("a"), None);
        assert_eq!(parent_for_watch("/a"), "/");
        assert_eq!(parent_for_watch("/a/b"), "/a");
    }
}
