//! The request to stop: the file `stop` in the folder of the run.
//!
//! The file's existence is the request, whatever is in it: a helper that finds it before the start never starts, and
//! one that cannot read it stops with the grace of the payload. It is written under another name and renamed. Then one
//! byte goes into the FIFO `control`, opened with `O_NONBLOCK`: without it the open would wait for ever where the helper
//! has just ended (`ENXIO`), or has not made the FIFO yet (`ENOENT`; it looks for the request after that). A later, shorter grace brings the kill forward; a longer one changes nothing.
//!
//! ```text
//! hybrid-runner stop 1
//! grace=30000
//! by=alice
//! .
//! ```

use std::time::Duration;

use crate::text::{TextError, TextReader, TextWriter, needed};

const NAME: &str = "stop";
const VERSION: u32 = 1;

/// A request to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// How long the workload may take after `SIGTERM`, to the millisecond.
    pub grace: Duration,
    /// Who asked.
    pub by: Option<String>,
}

impl Stop {
    /// The content of the file.
    pub fn encode(&self) -> Vec<u8> {
        TextWriter::new(NAME, VERSION)
            .number(
                "grace",
                i128::try_from(self.grace.as_millis()).unwrap_or(i128::MAX),
            )
            .optional("by", self.by.as_deref().map(str::as_bytes))
            .finish()
    }

    /// Reads the content of the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        let fields = TextReader::new(bytes, NAME, VERSION)?;
        let grace = needed("grace", fields.number("grace")?)?;
        Ok(Self {
            grace: Duration::from_millis(grace),
            by: fields.text("by")?,
        })
    }
}
