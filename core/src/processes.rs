//! Processes of this machine, as `/proc` shows them. Each look is of a moment: a process may have ended by the time it is judged.

use std::fs;
use std::io;

/// The numbers of all processes that can be seen.
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn all() -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        all.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(all)
}

/// Whether `NAME=value` stands in a process's environment, as it was given to it. That of another user's is not shown, and a
/// process may write over its own.
pub fn has_variable(id: i32, variable: &[u8]) -> bool {
    fs::read(format!("/proc/{id}/environ")).is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|one| one == variable)
    })
}

/// The boot in which all of them live, as the kernel names it.
///
/// # Errors
///
/// It has no name here.
pub fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// What `/proc/<id>/stat` says (`proc(5)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// It has ended, and was not waited for yet.
    pub is_dead: bool,
    /// Its process group.
    pub group: i32,
    /// Its session: 0 for one that was made outside of this process namespace, as in `docker exec`.
    pub session: i32,
    /// When it began, in clock ticks since the boot: another one of its number began later.
    pub ticks: u64,
}

impl Stat {
    /// `None` if there is no such process.
    pub fn read(id: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)
    }

    /// The second field is the name in parentheses, in which anything may stand.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_whatever_the_process_calls_itself() {
        let line = "42 (a) R 1 (x) S 1 40 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.group, stat.session, stat.ticks), (40, 41, 12345));
        assert!(!stat.is_dead);
        assert_eq!(Stat::parse("nonsense"), None);
    }
}
