//! `submit`: sends workflows to the control plane.

use serde_json::json;

use super::args::Submit;
use super::exec::read_workflow;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::runs::{self, OnSignal, Run, client};
use super::{Done, Interrupt};
use crate::client::Client;

/// `submit WORKFLOW…`
pub(crate) async fn submit(args: Submit, output: Output, interrupt: &Interrupt) -> Done {
    // All files are read before anything is sent: a slip in the second leaves no run of the first.
    let workflows = args
        .workflows
        .iter()
        .map(|path| read_workflow(path))
        .collect::<Result<Vec<_>, _>>()?;
    if args.key.is_some() && workflows.len() > 1 {
        return Err(Failure::usage(
            "`--key` names one run: submit the workflows one by one",
        ));
    }
    let client = client(&args.client, output)?;
    let mut sent = Vec::new();
    for workflow in &workflows {
        for warning in workflow.warnings() {
            output.warning(&warning);
        }
        let body = json!({ "workflow": workflow, "runner": args.runner, "key": args.key });
        let run: Run = client.post("/api/v1/runs", &body).await?;
        if args.follow {
            output.note(format!("run {} ({})", run.id, run.name));
        } else if output.json {
            output.record(&run.raw)?;
        } else {
            output.line(&run.id)?;
        }
        sent.push(run);
    }
    if args.follow {
        return follow_all(&client, &sent, OnSignal::Leave, output, interrupt).await;
    }
    Ok(Exit::Done)
}

/// Follows one run after the other; the worst end counts.
pub(crate) async fn follow_all(
    client: &Client,
    sent: &[Run],
    on_signal: OnSignal,
    output: Output,
    interrupt: &Interrupt,
) -> Done {
    let mut worst = Exit::Done;
    for run in sent {
        let exit = runs::follow(client, &run.id, on_signal, output, interrupt).await?;
        if matches!(exit, Exit::Interrupted(_)) {
            return Ok(exit);
        }
        if exit != Exit::Done {
            worst = exit;
        }
    }
    Ok(worst)
}
