//! Which processes of this machine belong to a run.

use crate::id::RunId;

/// The processes of this machine that were started with the id of this run in `WORKFLOW_RUN_ID`; `None`
/// where there is no `/proc` to look in. Sees only what this user may see; zombies are not counted.
pub fn processes_of(run: RunId) -> Option<Vec<u32>> {
    let mark = format!("WORKFLOW_RUN_ID={}", run.run());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
        {
            found.push(id);
        }
    }
    Some(found)
}
