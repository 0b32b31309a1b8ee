//! Which cores the server runs on.

use std::fmt;

/// Cores one list may name: beyond any machine, small enough to print.
const CORES_MAX: usize = 1024;

/// `ringkeeper.cores`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cores {
    /// As many as the process may use.
    #[default]
    All,
    /// The first so many of those, at least 1.
    Count(usize),
    /// Exactly these, in this order, each once; the first one is the pipeline's.
    List(Vec<usize>),
}

impl Cores {
    /// Whether cores were given rather than left to the server.
    pub fn is_given(&self) -> bool {
        *self != Cores::All
    }

    /// Reads `all`, a count (`2`), or a list with a comma or a range (`0,2-3`, `0-3`, `5,`); the error is what was
    /// expected.
    pub fn parse(text: &str) -> Result<Cores, String> {
        let expected = || {
            format!(
                "all, a count from 1 to {CORES_MAX} (2), or a list of different cores (0,2-3; a single one as `5,`)"
            )
        };
        let text = text.trim();
        if text.eq_ignore_ascii_case("all") {
            return Ok(Cores::All);
        }
        if !text.contains([',', '-']) {
            return match text.parse() {
                Ok(count) if (1..=CORES_MAX).contains(&count) => Ok(Cores::Count(count)),
                _ => Err(expected()),
            };
        }
        let mut list = Vec::new();
        for part in text.strip_suffix(',').unwrap_or(text).split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<usize>().ok().filter(|core| *core < CORES_MAX);
            let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(expected()) };
            if first > last {
                return Err(expected());
            }
            for core in first..=last {
                if list.contains(&core) {
                    return Err(expected());
                }
                list.push(core);
            }
        }
        Ok(Cores::List(list))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cores::All => f.write_str("all"),
            Cores::Count(count) => write!(f, "{count}"),
            Cores::List(list) => {
                for core in list {
                    write!(f, "{core},")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_lists_are_told_apart() {
        assert_eq!(Cores::parse("2"), Ok(Cores::Count(2)));
        assert_eq!(Cores::parse(" All "), Ok(Cores::All));
        assert_eq!(Cores::parse("0,2-3"), Ok(Cores::List(vec![0, 2, 3])));
        assert_eq!(Cores::parse("5,"), Ok(Cores::List(vec![5])));
        assert_eq!(Cores::parse("3,1"), Ok(Cores::List(vec![3, 1])));
        for bad in ["", "0", "x", "1,1", "3-1", "-1", "1,,2", ",", "0-", "2000", "0-99999999999"] {
            assert!(Cores::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn printed_cores_parse_back() {
        for text in ["all", "3", "5,", "0,2-3"] {
            let cores = Cores::parse(text).unwrap();
            assert_eq!(Cores::parse(&cores.to_string()), Ok(cores));
        }
    }
}
