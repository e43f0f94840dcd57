//! Which processes of this machine belong to a run.

use crate::id::RunId;

/// The processes of this machine that were started with the id of this run in `WORKFLOW_RUN_ID`; `None`
/// where there is no `/proc` to look in. Sees only what this user may see; zombies are not counted.
pub fn processes_of(run: RunId) -> Option<Vec<u32>> {
    let mark = format!("WORKFLOW_RUN_ID={}", run.run());
    let all = crate::processes::all().ok()?.into_iter();
    let marked = all.filter(|id| crate::processes::has_variable(*id, mark.as_bytes()));
    Some(marked.filter_map(|id| u32::try_from(id).ok()).collect())
}
