//! Looks for values where nobody may find one.

use std::collections::BTreeMap;
use std::path::Path;

use aho_corasick::AhoCorasick;

/// What is looked for, and what was found.
///
/// ```
/// use hybrid_runner_core::testing::Search;
///
/// let mut search = Search::new([("aHVudGVyMg==", "the password in base64")]);
/// search.look("the log", b"logged in as meow");
/// search.found_nothing(1);
/// assert_eq!(search.known_in(b"token: aHVudGVyMg=="), ["the password in base64"]);
/// ```
#[derive(Debug)]
pub struct Search {
    needles: AhoCorasick,
    /// What each of them is.
    names: Vec<String>,
    places: usize,
    bytes: usize,
    hits: Vec<String>,
}

impl Search {
    /// A search for these bytes, each with what it is. Of the same bytes twice, the first name stands.
    pub fn new<B: Into<Vec<u8>>, N: Into<String>>(
        needles: impl IntoIterator<Item = (B, N)>,
    ) -> Self {
        let mut known = BTreeMap::<Vec<u8>, String>::new();
        for (bytes, name) in needles {
            known.entry(bytes.into()).or_insert_with(|| name.into());
        }
        let (texts, names): (Vec<_>, Vec<_>) = known.into_iter().unzip();
        Self {
            needles: AhoCorasick::new(texts).expect("they fit into memory"),
            names,
            places: 0,
            bytes: 0,
            hits: Vec::new(),
        }
    }

    /// Looks into some bytes.
    pub fn look(&mut self, place: &str, bytes: &[u8]) {
        self.places += 1;
        self.bytes += bytes.len();
        let mut found = self.needles.find_iter(bytes);
        if let Some(hit) = found.next() {
            let around = &bytes[hit.start().saturating_sub(40)..bytes.len().min(hit.end() + 40)];
            self.hits.push(format!(
                "{place} at byte {}, {}, and {} more: …{}…",
                hit.start(),
                self.names[hit.pattern()],
                found.count(),
                around.escape_ascii()
            ));
        }
    }

    /// Looks into every file below a folder, but for the folders that are left out. How many there were.
    pub fn files(&mut self, folder: &Path, leave_out: &dyn Fn(&Path) -> bool) -> usize {
        let mut count = 0;
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() && !leave_out(&path) {
                count += self.files(&path, leave_out);
            } else if kind.is_file() {
                // One that was removed meanwhile holds nothing.
                let bytes = std::fs::read(&path).unwrap_or_default();
                self.look(&path.display().to_string(), &bytes);
                count += 1;
            }
        }
        count
    }

    /// Looks into the arguments and the environment of every process of this machine, as far as it is to be looked at: that is
    /// told by its number, its arguments and its environment.
    pub fn processes(&mut self, to_look_at: impl Fn(u32, &[u8], &[u8]) -> Looked) {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for entry in entries {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
            let (arguments, environment) = (read("cmdline"), read("environ"));
            let looked = to_look_at(pid, &arguments, &environment);
            let line = String::from_utf8_lossy(&arguments).replace('\0', " ");
            if looked != Looked::Nothing {
                self.look(&format!("the arguments of `{line}` ({pid})"), &arguments);
            }
            if looked == Looked::All {
                let place = format!("the environment of `{line}` ({pid})");
                self.look(&place, &environment);
            }
        }
    }

    /// What stands in these bytes, by name: shows that a search finds.
    pub fn known_in(&self, bytes: &[u8]) -> Vec<&str> {
        let found = self.needles.find_overlapping_iter(bytes);
        let mut names: Vec<_> = found
            .map(|hit| self.names[hit.pattern()].as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// How many bytes were looked at.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Panics unless nothing was found, and in as many places at least.
    #[track_caller]
    pub fn found_nothing(&self, places: usize) {
        assert!(
            self.hits.is_empty(),
            "{} of {} places ({} bytes) hold a value:\n{}",
            self.hits.len(),
            self.places,
            self.bytes,
            self.hits.join("\n")
        );
        assert!(
            self.places >= places,
            "only {} places were looked at, of {places}",
            self.places
        );
    }
}

/// What of a process is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// Arguments and environment.
    All,
    /// Its arguments.
    Arguments,
    /// It is left out.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["below", "left-out"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("file"), "a hunter2").unwrap();
        }
        let mut search = Search::new([("hunter2", "the password"), ("hunter2", "again")]);
        assert_eq!(
            search.files(folder.path(), &|path| path.ends_with("left-out")),
            1
        );
        let told = std::panic::catch_unwind(|| search.found_nothing(1)).unwrap_err();
        let told = told.downcast::<String>().unwrap();
        assert!(
            told.contains("below/file at byte 2, the password"),
            "{told}"
        );
        assert!(!told.contains("left-out"), "{told}");
    }

    #[test]
    fn processes_are_seen_with_arguments_and_environment() {
        let mark = format!("mark-{}", uuid::Uuid::new_v4());
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .env("MARK", &mark)
            .spawn()
            .unwrap();
        // Until it is another program than this one.
        while !std::fs::read(format!("/proc/{}/environ", child.id())).is_ok_and(|bytes| {
            !Search::new([(mark.as_str(), "")])
                .known_in(&bytes)
                .is_empty()
        }) {
            std::thread::yield_now();
        }
        let found = |looked| {
            let mut search = Search::new([(mark.as_str(), "the mark")]);
            search.processes(|_, _, _| looked);
            search.hits.len()
        };
        let found = [Looked::All, Looked::Arguments, Looked::Nothing].map(found);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [1, 0, 0]);
    }

    #[test]
    fn who_looked_nowhere_found_nothing_of_worth() {
        let search = Search::new([("hunter2", "the password")]);
        assert!(std::panic::catch_unwind(|| search.found_nothing(1)).is_err());
    }
}
