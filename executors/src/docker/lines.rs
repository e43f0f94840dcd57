//! Takes init's own lines out of the output, wherever they stand.
//!
//! They begin with the mark of the container. The last one may stand behind an unfinished line of the work, and the engine
//! may cut such a record in two: then the first part is kept back until the second is there.

use bytes::{Bytes, BytesMut};
use hybrid_runner_helper::container::{End, Line, needle};

use super::records::Record;

/// Init's lines begin with it.
const SIGN: u8 = 0x1e;
/// No line of init is longer.
const LONGEST: usize = 8 << 10;

/// Takes them out, and remembers what they say.
#[derive(Debug)]
pub(super) struct Lines {
    needle: Vec<u8>,
    /// A record that may end within a line of init.
    kept: Option<Record>,
    /// When the work began, in microseconds since the epoch.
    pub(super) started: Option<i64>,
    /// How it ended.
    pub(super) end: Option<Box<End>>,
}

impl Lines {
    pub(super) fn new(mark: &str) -> Self {
        Self {
            needle: needle(mark),
            kept: None,
            started: None,
            end: None,
        }
    }

    /// What the work wrote in this record; `None`: it is kept back until the next one of its stream.
    pub(super) fn strip(&mut self, record: Record) -> Option<Record> {
        let record = self.with_kept(record);
        let Some(at) = self.find(&record.content) else {
            return Some(record);
        };
        let line = &record.content[at..];
        if !line.ends_with(b"\n") && line.len() < LONGEST {
            self.kept = Some(record);
            return None;
        }
        let Some(text) = line.strip_prefix(self.needle.as_slice()) else {
            // It only looked like one.
            return Some(record);
        };
        self.take(text);
        Some(Record {
            content: record.content.slice(..at),
            ..record
        })
    }

    /// Drops what was kept back: it was delivered, or is read again.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// What was kept back, once nothing more comes. Of a line that it was glued to, the engine may have dropped the end.
    pub(super) fn rest(&mut self) -> Option<Record> {
        let kept = self.kept.take()?;
        let mut whole = BytesMut::from(&kept.content[..]);
        whole.extend_from_slice(b"\n");
        let content = whole.freeze();
        let found = self.find(&content).filter(|at| {
            let line = &content[*at..];
            line.strip_prefix(self.needle.as_slice())
                .is_some_and(|text| Line::parse(text).is_ok())
        });
        let Some(at) = found else {
            return Some(kept);
        };
        self.take(&content[at + self.needle.len()..]);
        Some(Record {
            content: content.slice(..at),
            ..kept
        })
    }

    /// Whether this is the first line of init, so that nothing of the log is missing before.
    pub(super) fn is_first(&self, content: &[u8]) -> bool {
        let line = content.strip_prefix(self.needle.as_slice());
        match line.map(Line::parse) {
            Some(Ok(Line::Started { .. })) => true,
            // Nothing was started.
            Some(Ok(Line::End(end))) => end.started.is_none(),
            _ => false,
        }
    }

    fn with_kept(&mut self, record: Record) -> Record {
        let joins = |kept: &mut Record| kept.stream == record.stream;
        let Some(kept) = self.kept.take_if(joins) else {
            return record;
        };
        let mut whole = BytesMut::with_capacity(kept.content.len() + record.content.len());
        whole.extend_from_slice(&kept.content);
        whole.extend_from_slice(&record.content);
        Record {
            content: whole.freeze(),
            ..record
        }
    }

    /// Where a line of init begins, or may begin.
    fn find(&self, content: &Bytes) -> Option<usize> {
        let signs = content
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == SIGN);
        signs.map(|(at, _)| at).find(|at| {
            let rest = &content[*at..];
            let known = rest.len().min(self.needle.len());
            rest[..known] == self.needle[..known]
        })
    }

    fn take(&mut self, text: &[u8]) {
        match Line::parse(text) {
            Ok(Line::Started { time, .. }) => self.started = self.started.or(Some(time)),
            Ok(Line::End(end)) => self.end = Some(Box::new(end)),
            Ok(_) | Err(_) => tracing::debug!("a line of init is not understood"),
        }
    }
}
