//! The source keeps to the order of `src/lib.rs`, and the pure part stays pure.
//!
//! Reads the source as text: comments and literals are blanked, test code is left out, and what remains is searched
//! for paths. A module uses only modules listed before it; up to `node` nothing touches files, sockets, threads, clocks
//! or maps of random order; unsafe is where the list says it may be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules that may contain unsafe code, and so do not carry `#[forbid(unsafe_code)]`.
const UNSAFE_MODULES: [&str; 4] = ["stdx", "tree", "io", "server"];

/// Modules that touch the world. `client` does for tests and the load generator; it is listed early because it needs little.
const IMPURE_MODULES: [&str; 4] = ["client", "io", "server", "cli"];

/// What the pure modules do without.
const IMPURE: [&str; 16] = [
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::os",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::Condvar",
    "std::sync::mpsc",
    "std::time::Instant",
    "SystemTime",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "RandomState",
    "monoio",
    "async fn",
];

/// Plain values of `std::net`; everything else there is a socket or a lookup.
const NET_VALUES: [&str; 8] = [
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "AddrParseError",
    "self",
];

/// Lines of one file, tests included, beyond which it wants to be split.
const LINES_WANTED_MAX: usize = 800;

#[derive(Debug)]
struct Module {
    name: String,
    forbids_unsafe: bool,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    module: String,
    lines: usize,
    /// Without comments, literals and test code.
    code: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The modules of `lib.rs`, from the ground up.
fn modules() -> Vec<Module> {
    let code = blank(&fs::read_to_string(root().join("lib.rs")).expect("lib.rs is there"));
    let mut forbids_unsafe = false;
    let mut modules = Vec::new();
    for line in code.lines().map(str::trim) {
        if line == "#[forbid(unsafe_code)]" {
            forbids_unsafe = true;
        } else if let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')) {
            modules.push(Module { name: name.to_owned(), forbids_unsafe });
            forbids_unsafe = false;
        }
    }
    assert!(modules.len() > 10, "lib.rs lists the modules one a line");
    modules
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root(), &mut files);
    let mut test_files = BTreeSet::new();
    let mut sources = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a source file is UTF-8");
        let (code, test_modules) = without_tests(&blank(&text));
        let inside = match path.file_name().and_then(|name| name.to_str()) {
            Some("mod.rs" | "lib.rs" | "main.rs") => {
                path.parent().expect("a file is in a directory").to_owned()
            }
            _ => path.with_extension(""),
        };
        for name in test_modules {
            test_files.insert(inside.join(format!("{name}.rs")));
            test_files.insert(inside.join(&name).join("mod.rs"));
        }
        let below = path.strip_prefix(root()).expect("collected below the root");
        let first = below.components().next().expect("a file has a name");
        let module = Path::new(first.as_os_str()).with_extension("").display().to_string();
        sources.push(Source { module, lines: text.lines().count(), code, path });
    }
    sources.retain(|source| !test_files.contains(&source.path));
    sources
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .expect("a source directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The text with comments and the insides of literals replaced by blanks; line ends stay.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut index = 0;
    let mut erase = |from: usize, to: usize| {
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    while index < bytes.len() {
        let rest = &bytes[index..];
        let before_is_word =
            index > 0 && (bytes[index - 1].is_ascii_alphanumeric() || bytes[index - 1] == b'_');
        let end = match rest {
            [b'/', b'/', ..] => index + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => index + block_comment(rest),
            [b'"', ..] => index + string(rest),
            [b'r', ..] if !before_is_word && raw_string(rest).is_some() => {
                index + raw_string(rest).expect("just found")
            }
            [b'b', b'r', ..] if !before_is_word && raw_string(&rest[1..]).is_some() => {
                index + 1 + raw_string(&rest[1..]).expect("just found")
            }
            // A character, or else a lifetime.
            [b'\'', b'\\', ..] => {
                index + 2 + rest[2..].iter().skip(1).position(|byte| *byte == b'\'').map_or(0, |at| at + 2)
            }
            [b'\'', ..] => {
                let character = std::str::from_utf8(&rest[1..]).ok().and_then(|text| text.chars().next());
                match character.map(char::len_utf8) {
                    Some(width) if rest.get(1 + width) == Some(&b'\'') => index + width + 2,
                    _ => {
                        index += 1;
                        continue;
                    }
                }
            }
            _ => {
                index += 1;
                continue;
            }
        };
        let end = end.min(bytes.len());
        erase(index, end);
        index = end.max(index + 1);
    }
    String::from_utf8(out).expect("whole characters were replaced")
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut index) = (0, 0);
    while index < rest.len() {
        match &rest[index..] {
            [b'/', b'*', ..] => (depth, index) = (depth + 1, index + 2),
            [b'*', b'/', ..] => (depth, index) = (depth - 1, index + 2),
            _ => index += 1,
        }
        if depth == 0 {
            return index;
        }
    }
    index
}

fn string(rest: &[u8]) -> usize {
    let mut index = 1;
    while index < rest.len() {
        match rest[index] {
            b'\\' => index += 2,
            b'"' => return index + 1,
            _ => index += 1,
        }
    }
    index
}

/// The length of a raw string that starts here with its `r`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let inside = &rest[2 + hashes..];
    let length = inside.windows(close.len()).position(|window| window == close)?;
    Some(2 + hashes + length + close.len())
}

/// Leaves out what stands behind `#[cfg(test)]` or a condition that includes it, and tells the names of modules in
/// files of their own among it.
fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(";
    let mut out = String::new();
    let mut names = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        let condition_end = at + rest[at..].find(']').expect("an attribute ends") + 1;
        let condition = &rest[at..condition_end];
        if !names_path(condition, "test") || condition.contains("not(test") {
            out.push_str(&rest[..condition_end]);
            rest = &rest[condition_end..];
            continue;
        }
        out.push_str(&rest[..at]);
        let item = &rest[condition_end..];
        let end = item_end(item);
        if let Some((_, name)) = item[..end].split_once("mod ")
            && let Some(name) = name.trim().strip_suffix(';')
        {
            names.push(name.trim().to_owned());
        }
        rest = &item[end..];
    }
    out.push_str(rest);
    (out, names)
}

/// Where the item ends that begins here: at its `;`, or behind its braces.
fn item_end(item: &str) -> usize {
    let mut depth = 0;
    for (index, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return index + 1;
                }
            }
            ';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    item.len()
}

/// The first names of all paths that begin with this one: of `crate::a::b`, `crate::{c, d::e}` and `crate::*` with
/// prefix `crate::` they are `a`, `c`, `d` and `*`.
fn names_after<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let is_part = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '$');
        if is_part {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            None => {
                names.insert(first_name(rest));
            }
            Some(group) => {
                let (mut depth, mut start) = (0, 0);
                for (index, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => {
                            names.insert(first_name(&group[start..index]));
                            break;
                        }
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            names.insert(first_name(&group[start..index]));
                            start = index + 1;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names.remove("");
    names
}

fn first_name(path: &str) -> &str {
    let path = path.trim_start();
    if path.starts_with('*') {
        return "*";
    }
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    &path[..end]
}

/// Whether the code names this path, as a whole and not as part of a longer word.
fn names_path(code: &str, path: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(path)
        .any(|(at, _)| !code[..at].ends_with(is_word) && !code[at + path.len()..].starts_with(is_word))
}

/// The paths of `std` the code uses, groups taken apart one level: `std::{fs, io::Read}` uses `std::fs` and `std::io`.
fn std_paths(code: &str) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> =
        names_after(code, "std::").into_iter().map(|name| format!("std::{name}")).collect();
    for parent in ["std::collections::", "std::sync::", "std::time::"] {
        paths.extend(names_after(code, parent).into_iter().map(|name| format!("{parent}{name}")));
    }
    paths
}

#[test]
fn modules_use_only_those_before_them() {
    let modules = modules();
    let order: BTreeMap<&str, usize> =
        modules.iter().enumerate().map(|(place, module)| (module.name.as_str(), place)).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        if matches!(source.module.as_str(), "lib" | "main") {
            continue;
        }
        let Some(place) = order.get(source.module.as_str()) else {
            panic!("{} belongs to no module of lib.rs", source.path.display());
        };
        for used in names_after(&source.code, "crate::") {
            match order.get(used) {
                Some(its_place) if its_place <= place => {}
                Some(_) => wrong.push(format!("{}: {used} comes later", source.path.display())),
                None => wrong.push(format!("{}: crate::{used} is no module", source.path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_is_forbidden_wherever_it_is_not_needed() {
    for module in modules() {
        let may = UNSAFE_MODULES.contains(&module.name.as_str());
        assert_eq!(module.forbids_unsafe, !may, "{}: #[forbid(unsafe_code)] in lib.rs", module.name);
    }
    for source in sources() {
        let may = UNSAFE_MODULES.contains(&source.module.as_str());
        let uses = names_path(&source.code, "unsafe");
        assert!(may || !uses, "{} has unsafe code", source.path.display());
    }
}

#[test]
fn the_pure_modules_touch_nothing() {
    let mut wrong = Vec::new();
    for source in sources() {
        let is_program = matches!(source.module.as_str(), "lib" | "main");
        if is_program || IMPURE_MODULES.contains(&source.module.as_str()) {
            continue;
        }
        let paths = std_paths(&source.code);
        for impure in IMPURE {
            if paths.contains(impure) || names_path(&source.code, impure) {
                wrong.push(format!("{}: {impure}", source.path.display()));
            }
        }
        for name in names_after(&source.code, "std::net::") {
            if !NET_VALUES.contains(&name) {
                wrong.push(format!("{}: std::net::{name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Long files are told and not refused: one state machine may read best whole.
#[test]
fn long_files_are_named() {
    for source in sources() {
        if source.lines > LINES_WANTED_MAX {
            println!("{}: {} lines, more than {LINES_WANTED_MAX}", source.path.display(), source.lines);
        }
    }
}

#[test]
fn the_reader_of_sources_reads_rightly() {
    let code = blank("a /* x /* y */ z */ b // c\n'\"' \"crate::q \\\" \" r#\"crate::r\"# 'a 'x' '\\'' d");
    assert!(!code.contains("crate") && !code.contains('z') && !code.contains('x') && !code.contains(" c"));
    assert!(code.contains("a ") && code.contains(" b ") && code.contains("'a ") && code.ends_with(" d"));
    let (code, names) = without_tests(
        "use a;\n#[cfg(test)]\nmod echo;\nfn f() {}\n#[cfg(test)]\nmod tests { fn g() { {} } }\nfn h() {}",
    );
    assert_eq!(names, ["echo"]);
    assert!(
        code.contains("fn f") && code.contains("fn h") && !code.contains("fn g") && !code.contains("echo")
    );
    let names = names_after(
        "use crate::{a, b::{c, d}, e as f}; crate::g::h(); super_crate::i; crate::j!()",
        "crate::",
    );
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b", "e", "g", "j"]);
    assert!(names_path("use std::fs;", "std::fs") && !names_path("use std::fsx;", "std::fs"));
    assert!(
        std_paths("use std::{fs, sync::Arc}; use std::sync::{Mutex, Weak};").contains("std::sync::Mutex")
    );
}
