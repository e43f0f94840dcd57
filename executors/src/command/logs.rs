//! Output, read again and again from where it was left.

use futures::stream::BoxStream;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::log::{LogChunk, LogCursor};
use hybrid_runner_core::poll::{self, Output};
use hybrid_runner_core::program;
use serde_json::json;

use super::script::Step;
use super::{Command, answers};

/// The output from `from`, followed to the run's end.
pub(super) fn follow(
    backend: Command,
    run: Handle,
    from: Option<LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let every = backend.0.settings.interval.get();
    poll::logs(run.run, from, every, move |offset| {
        let (backend, run) = (backend.clone(), run.clone());
        async move {
            let ended = backend.status(&run).await?.is_finished();
            let bytes = backend.output(&run, offset).await?.into();
            Ok(Output { bytes, ended })
        }
    })
}

impl Command {
    /// What the run wrote from a byte on.
    async fn output(&self, run: &Handle, offset: u64) -> Result<Vec<u8>> {
        let place = Self::place(run)?;
        let settings = &self.0.settings;
        let request = json!({ "run": run.run, "id": place.id, "offset": offset, "settings": settings.settings });
        let step = Step::new(run.run).id(&place.id).offset(offset);
        let printed = self.ask("logs", &step, &request).await?;
        if settings.raw_logs {
            return Ok(printed);
        }
        program::read::<answers::Output>("logs", &printed)?.bytes()
    }
}
