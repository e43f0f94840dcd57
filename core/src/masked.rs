//! The output of a run without the values that it was given, although they may lie across chunks: for backends that do not
//! mask before we read.
//!
//! What may still become a value is held back, and a cursor must not lie behind it. So while something is held back,
//! a chunk's cursor is `~<out>.<err>.<both>~<cursor>`: the backend's last cursor at which nothing was, and how much of each
//! stream was handed on since. Whoever comes back with it reads from there and skips that much.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_helper::mask::{Masker, Patterns};

use crate::error::{Error, Result};
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor, LogItem, MAX_CHUNK, Stream};

/// Begins a cursor of ours.
const MARK: char = '~';

/// Whether a cursor was made here.
pub fn is_ours(cursor: &LogCursor) -> bool {
    cursor.as_str().starts_with(MARK)
}

/// A place in the masked log: a cursor of the backend, and what was handed on behind it.
#[derive(Debug, Clone, Default)]
struct Place {
    base: Option<LogCursor>,
    skip: [u64; 3],
}

impl Place {
    fn read(run: RunId, from: Option<LogCursor>) -> Result<Self> {
        let Some(rest) = from
            .as_ref()
            .and_then(|from| from.as_str().strip_prefix(MARK))
        else {
            let skip = [0; 3];
            return Ok(Self { base: from, skip });
        };
        let foreign = || Error::invalid(format!("the cursor is not of the log of `{run}`"));
        let (counts, base) = rest.split_once(MARK).ok_or_else(foreign)?;
        let mut skip = [0; 3];
        let mut texts = counts.split('.');
        for count in &mut skip {
            let text = texts.next().ok_or_else(foreign)?;
            *count = text.parse().map_err(|_| foreign())?;
        }
        let base = (!base.is_empty()).then(|| base.parse()).transpose();
        let base = base.map_err(|_| foreign())?;
        Ok(Self { base, skip })
    }

    fn cursor(&self) -> Result<LogCursor> {
        let base = self.base.as_ref().map_or("", LogCursor::as_str);
        if self.skip == [0; 3]
            && let Some(base) = &self.base
            && !base.as_str().starts_with(MARK)
        {
            return Ok(base.clone());
        }
        let [out, err, both] = self.skip;
        let text = format!("{MARK}{out}.{err}.{both}{MARK}{base}");
        text.parse().map_err(|error: Error| {
            Error::internal("a log cursor of the backend is longer than 448 characters")
                .with_source(error)
        })
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Out => 0,
        Stream::Err => 1,
        Stream::Both => 2,
    }
}

const STREAMS: [Stream; 3] = [Stream::Out, Stream::Err, Stream::Both];

/// Reads a run's output through `open`, masked.
pub fn masked(
    run: RunId,
    patterns: Option<Patterns>,
    from: Option<LogCursor>,
    open: impl FnOnce(Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>>,
) -> BoxStream<'static, Result<LogChunk>> {
    let place = match Place::read(run, from) {
        Ok(place) => place,
        Err(error) => return stream::once(async { Err(error) }).boxed(),
    };
    let inner = open(place.base.clone());
    // Without values nothing is held back: what was handed on is as long as what was written.
    let patterns = patterns.unwrap_or_else(|| Patterns::new([]));
    let log = Log {
        maskers: STREAMS.map(|_| Masker::new(patterns.clone())),
        patterns,
        to_skip: place.skip,
        place: Place {
            skip: [0; 3],
            ..place
        },
        ready: Vec::new(),
    };
    stream::unfold((inner, Some(log)), |(mut inner, log)| async {
        let mut log = log?;
        loop {
            if let Some(chunk) = log.ready.pop() {
                return Some((Ok(chunk), (inner, Some(log))));
            }
            let taken = match inner.next().await {
                Some(Ok(chunk)) => log.take(chunk),
                Some(Err(error)) => Err(error),
                None => match log.finish(None) {
                    // The last words; nothing comes behind them.
                    Ok(()) if log.ready.is_empty() => return None,
                    Ok(()) => {
                        inner = stream::empty().boxed();
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
            };
            if let Err(error) = taken {
                return Some((Err(error), (inner, None)));
            }
        }
    })
    .boxed()
}

struct Log {
    patterns: Patterns,
    maskers: [Masker; 3],
    /// Of each stream, what was handed on before.
    to_skip: [u64; 3],
    /// How far it was handed on.
    place: Place,
    /// What is to be handed on, the last first.
    ready: Vec<LogChunk>,
}

impl Log {
    fn take(&mut self, chunk: LogChunk) -> Result<()> {
        let LogItem::Data {
            stream,
            time,
            bytes,
        } = chunk.item
        else {
            self.finish(None)?;
            self.place.base = Some(chunk.next);
            self.place.skip = [0; 3];
            let next = self.place.cursor()?;
            let item = chunk.item;
            self.ready.insert(0, LogChunk { item, next });
            return Ok(());
        };
        if bytes.is_empty() {
            // The log is being read, which takes long. Its place is that of what was handed on.
            let mut place = self.place.clone();
            for (skip, more) in place.skip.iter_mut().zip(self.to_skip) {
                *skip += more;
            }
            let next = place.cursor()?;
            let item = LogItem::Data {
                stream,
                time,
                bytes,
            };
            self.ready.insert(0, LogChunk { item, next });
            return Ok(());
        }
        let mut out = Vec::with_capacity(bytes.len());
        self.maskers[index(stream)].push(&bytes, &mut out);
        let decided = !self.maskers.iter().any(Masker::is_holding);
        self.hand_on(stream, time, out, decided.then_some(&chunk.next))
    }

    /// Hands on what was held back.
    fn finish(&mut self, at: Option<&LogCursor>) -> Result<()> {
        for stream in STREAMS {
            let mut out = Vec::new();
            self.maskers[index(stream)].finish(&mut out);
            self.maskers[index(stream)] = Masker::new(self.patterns.clone());
            self.hand_on(stream, None, out, at)?;
        }
        Ok(())
    }

    /// `decided` is the cursor behind all of it, if nothing is held back there.
    fn hand_on(
        &mut self,
        stream: Stream,
        time: Option<jiff::Timestamp>,
        out: Vec<u8>,
        decided: Option<&LogCursor>,
    ) -> Result<()> {
        let at = index(stream);
        let known = usize::try_from(self.to_skip[at]).unwrap_or(usize::MAX);
        let known = known.min(out.len());
        self.to_skip[at] -= known as u64;
        self.place.skip[at] += known as u64;
        let mut rest = Bytes::from(out).split_off(known);
        while !rest.is_empty() {
            let bytes = rest.split_to(rest.len().min(MAX_CHUNK));
            self.place.skip[at] += bytes.len() as u64;
            if rest.is_empty()
                && let Some(next) = decided
            {
                self.settle(next);
            }
            let next = self.place.cursor()?;
            let item = LogItem::Data {
                stream,
                time,
                bytes,
            };
            self.ready.insert(0, LogChunk { item, next });
        }
        if let Some(next) = decided {
            self.settle(next);
        }
        Ok(())
    }

    /// Nothing is held back here: maskers begin anew, as they do for who comes back to this place.
    fn settle(&mut self, next: &LogCursor) {
        self.place.base = Some(next.clone());
        self.place.skip = [0; 3];
        self.maskers = STREAMS.map(|_| Masker::new(self.patterns.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_runner_helper::mask::needles_of;

    const LOG: &str = "user=hunt hunter22hunter22 hunter2 hunter22\nhunter22";

    /// The log in chunks of a length, each behind one that says that it is being read; a cursor is the number of bytes before it.
    fn plugin(length: usize, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let from: usize = from.map_or(0, |from| from.as_str().parse().unwrap());
        let chunks = LOG.as_bytes()[from..]
            .chunks(length)
            .scan(from, |at, bytes| {
                let before = *at;
                *at += bytes.len();
                let chunk = |bytes: &'static [u8], next: usize| LogChunk {
                    item: LogItem::Data {
                        stream: Stream::Out,
                        time: None,
                        bytes: Bytes::from_static(bytes),
                    },
                    next: next.to_string().parse().unwrap(),
                };
                Some([Ok(chunk(b"", before)), Ok(chunk(bytes, *at))])
            })
            .flatten();
        stream::iter(chunks.collect::<Vec<_>>()).boxed()
    }

    async fn read(length: usize, from: Option<LogCursor>) -> Vec<LogChunk> {
        let patterns = Patterns::new(needles_of(b"hunter22"));
        let run = RunId::generate();
        let log = masked(run, Some(patterns), from, |from| plugin(length, from));
        log.map(Result::unwrap).collect().await
    }

    fn text(chunks: &[LogChunk]) -> String {
        let bytes = chunks.iter().flat_map(|chunk| match &chunk.item {
            LogItem::Data { bytes, .. } => bytes.to_vec(),
            LogItem::Gap { .. } => Vec::new(),
        });
        String::from_utf8(bytes.collect()).unwrap()
    }

    #[tokio::test]
    async fn however_it_is_cut_no_value_is_seen_and_every_cursor_gives_the_rest() {
        for length in 1..LOG.len() {
            let whole = read(length, None).await;
            let masked = text(&whole);
            assert!(!masked.contains("hunter22"), "{length}: {masked}");
            assert_eq!(
                masked.replace("******", "***"),
                "user=hunt *** hunter2 ***\n***"
            );
            let waits = whole.iter().filter(|chunk| chunk.item.is_empty());
            assert_eq!(waits.count(), LOG.len().div_ceil(length), "{length}");
            for (index, chunk) in whole.iter().enumerate() {
                let rest = read(length, Some(chunk.next.clone())).await;
                assert_eq!(
                    text(&rest),
                    text(&whole[index + 1..]),
                    "{length}, {}",
                    chunk.next
                );
            }
        }
    }

    #[tokio::test]
    async fn a_cursor_that_is_none_is_refused() {
        for cursor in ["~", "~1~2", "~a.b.c~1", "~1.2.3"] {
            let patterns = Patterns::new(needles_of(b"hunter22"));
            let from = Some(cursor.parse().unwrap());
            let mut log = masked(RunId::generate(), Some(patterns), from, |_| {
                stream::empty().boxed()
            });
            let error = log.next().await.unwrap().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{cursor}");
        }
    }
}
