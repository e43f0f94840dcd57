//! Handing the payload to init, through the standard input that the engine keeps open for it.
//!
//! Init answers with a line among the output of the container; whoever gives it a whole payload once more gets the line
//! once more, so that an answer that was lost, or bytes that were mixed up with those of somebody else, are mended by
//! trying again.

use std::pin::Pin;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::AttachContainerOptionsBuilder;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_helper::container::{Line, needle};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use super::Shared;
use super::engine::Engine;
use super::look::Container;

/// How long init may take to answer; a machine that is this slow is out of order.
const PATIENCE: Duration = Duration::from_mins(1);
/// After so long without an answer the payload is given once more.
const AGAIN: Duration = Duration::from_secs(3);
/// How much of the output is kept to find the answer in.
const WINDOW: usize = 16 << 10;

/// The standard input of a container, and what it answers.
pub(super) struct Feed {
    input: Pin<Box<dyn AsyncWrite + Send>>,
    output: BoxStream<'static, Result<LogOutput, bollard::errors::Error>>,
    container: String,
    needle: Vec<u8>,
    window: Vec<u8>,
}

impl Feed {
    /// Attaches to a container, which need not run yet. Nothing is given to it by that, so that it may be tried again.
    pub(super) async fn attach(shared: &Shared, container: &Container) -> Result<Self> {
        let options = AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .build();
        let docker = shared.engine.order()?;
        let attach = || async {
            let attached = docker.attach_container(&container.id, Some(options.clone()));
            attached.await.map_err(|error| {
                shared
                    .engine
                    .failed("attach to the container of the run", error)
            })
        };
        let attached = Engine::again(attach).await?;
        Ok(Self {
            input: attached.input,
            output: attached.output.boxed(),
            container: container.id.clone(),
            needle: needle(&container.mark),
            window: Vec::new(),
        })
    }

    /// Writes; the engine may take its time, but not for ever.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = timeout(PATIENCE, async {
            self.input.write_all(bytes).await?;
            self.input.flush().await
        });
        let failed = |error: std::io::Error| {
            Error::unavailable("failed to hand the run over to its container").with_source(error)
        };
        written
            .await
            .map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))?
            .map_err(failed)
    }

    /// Waits until init says that it has begun, or the container ends: `false`, and its status tells how. `payload` is given
    /// again while it says nothing.
    pub(super) async fn await_start(&mut self, shared: &Shared, payload: &[u8]) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        let mut again = Instant::now() + AGAIN;
        while Instant::now() < deadline {
            match timeout_at(again, self.output.next()).await {
                // The container has ended, or the connection alone.
                Ok(None) if is_alive(shared, &self.container).await? => {
                    return Err(Error::unavailable(
                        "the connection to the container of the run ended before it said that the work has begun",
                    ));
                }
                Ok(None) => return Ok(false),
                Ok(Some(Err(error))) => {
                    return Err(
                        Error::unavailable("failed to hear from the container of the run")
                            .with_source(error),
                    );
                }
                Ok(Some(Ok(output))) => {
                    if self.is_answer(&output.into_bytes()) {
                        return Ok(true);
                    }
                }
                Err(_) => {
                    // Attached to behind its end, it would be silent for ever.
                    if !is_alive(shared, &self.container).await? {
                        return Ok(false);
                    }
                    self.write(payload).await?;
                    again = Instant::now() + AGAIN;
                }
            }
        }
        Err(Error::unavailable(format!(
            "the container of the run did not answer within {} s",
            PATIENCE.as_secs()
        )))
    }

    /// Whether the output holds init's answer.
    fn is_answer(&mut self, output: &[u8]) -> bool {
        self.window.extend_from_slice(output);
        let found = self
            .window
            .windows(self.needle.len())
            .position(|window| window == self.needle);
        if let Some(at) = found {
            // A line that is not whole yet is none.
            return Line::parse(&self.window[at + self.needle.len()..]).is_ok();
        }
        let surplus = self.window.len().saturating_sub(WINDOW);
        self.window.drain(..surplus);
        false
    }
}

async fn is_alive(shared: &Shared, container: &str) -> Result<bool> {
    let found = shared.inspect(container).await?;
    Ok(found.is_some_and(|found| found.phase.is_alive()))
}
