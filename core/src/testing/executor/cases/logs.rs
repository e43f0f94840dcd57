//! What `logs` promises.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;

use crate::error::ErrorKind;
use crate::executor::Handle;
use crate::log::{LogChunk, LogCursor, Stream};
use crate::testing::executor::Trial;
use crate::testing::executor::trial::{all_bytes, gaps, streams};
use crate::testing::script::{Script, Step};
use crate::testing::verdict::{
    Tried, cut_short, done, ensure, equal, equal_bytes, failed, not_offered, refused_as, shown,
    shown_item,
};

/// Fails unless the output was the same on each stream.
fn equal_streams(
    what: &str,
    expected: &HashMap<Stream, Bytes>,
    came: &HashMap<Stream, Bytes>,
) -> Tried {
    for stream in [Stream::Out, Stream::Err, Stream::Both] {
        let of = |log: &HashMap<Stream, Bytes>| log.get(&stream).cloned().unwrap_or_default();
        let what = format!("{what}, stream {}", shown(&stream));
        equal_bytes(&what, &of(expected), &of(came))?;
    }
    Ok(())
}

/// Cursors that one case re-reads from at most.
const MOST_CURSORS: usize = 40;

pub(in super::super) async fn from_any_cursor_comes_exactly_the_rest(t: &Trial) -> Tried {
    let script = Script::new()
        .lines(20, Duration::ZERO)
        .err("to the other stream\n")
        .then(Step::Letters(200_000))
        .out("\n\nno newline at the end");
    let (handle, _) = t.run(script).await?;
    let other = t.harness.executor().await;
    let log = t.log(&handle, None).await?;
    ensure(!log.is_empty(), "a log", || "nothing".to_owned())?;
    let step = log.len().div_ceil(MOST_CURSORS);
    for (index, chunk) in log.iter().enumerate().rev().step_by(step) {
        let rest = t.log_through(&*other, &handle, Some(&chunk.next)).await?;
        let expected = streams(&log[index + 1..]);
        let what = format!("the rest behind cursor `{}`", chunk.next);
        equal_streams(&what, &expected, &streams(&rest))?;
        equal("gaps in it", &0, &gaps(&rest))?;
    }
    Ok(())
}

pub(in super::super) async fn a_reader_that_comes_back_misses_nothing(t: &Trial) -> Tried {
    let expected = lines(25);
    let handle = t.begin(Script::new().lines(25, t.tick() / 20)).await?;
    let mut log: Vec<LogChunk> = Vec::new();
    let reading = async {
        loop {
            let from = log.last().map(|chunk| chunk.next.clone());
            let mut chunks = t.executor.logs(&handle, from);
            for _ in 0..2 {
                match chunks.next().await {
                    None => return Ok(()),
                    Some(chunk) => log.push(done("a piece of the log", chunk)?),
                }
            }
            // One that repeats itself would never come to its end.
            let read = all_bytes(&log).len();
            ensure(read <= expected.len(), "nothing twice", || {
                format!("{read} bytes of a log of {}", expected.len())
            })?;
        }
    };
    t.within("the end of the log", reading).await??;
    text_is(&log, &expected)
}

pub(in super::super) async fn a_running_run_is_followed(t: &Trial) -> Tried {
    let script = Script::new().sleep(t.tick() / 2).out("now\n").hold();
    let handle = t.begin(script).await?;
    let mut chunks = t.executor.logs(&handle, None);
    let log = t.read_until(&mut chunks, "now\n").await?;
    text_is(&log, "now\n")?;
    t.running(&handle).await
}

pub(in super::super) async fn logs_end_only_after_the_run(t: &Trial) -> Tried {
    let handle = t.begin(Script::new().out("one\n").hold()).await?;
    let mut chunks = t.executor.logs(&handle, None);
    t.read_until(&mut chunks, "one\n").await?;
    let early = tokio::time::timeout(t.tick(), chunks.next()).await;
    ensure(
        early.is_err(),
        "nothing more while the run is silent",
        || shown_item(early.as_ref().ok().and_then(Option::as_ref)),
    )?;
    t.stop(&handle, Duration::ZERO).await?;
    let last = t.within("the end of the log", chunks.next()).await?;
    ensure(last.is_none(), "the end of the log", || {
        shown_item(last.as_ref())
    })?;
    let status = t.status(&handle).await?;
    ensure(
        status.is_finished(),
        "the run to have ended by then",
        || shown(&status),
    )
}

pub(in super::super) async fn the_last_words_are_delivered(t: &Trial) -> Tried {
    for _ in 0..3 {
        let script = Script::new()
            .then(Step::Letters(150_000))
            .out("last words")
            .exit(3);
        let handle = t.begin(script).await?;
        let followed = all_bytes(&t.log(&handle, None).await?);
        ends_with_last_words(&followed)?;
        t.end(&handle).await?;
        let read = all_bytes(&t.log(&handle, None).await?);
        ends_with_last_words(&read)?;
    }
    Ok(())
}

fn ends_with_last_words(bytes: &[u8]) -> Tried {
    equal("the length of the log", &150_010, &bytes.len())?;
    ensure(
        bytes.ends_with(b"last words"),
        "the last words at the end",
        || shown(&String::from_utf8_lossy(&bytes[bytes.len() - 20..])),
    )
}

pub(in super::super) async fn a_run_without_output_has_an_empty_log(t: &Trial) -> Tried {
    let (handle, _) = t.run(Script::new()).await?;
    let log = t.log(&handle, None).await?;
    ensure(
        all_bytes(&log).is_empty() && gaps(&log) == 0,
        "an empty log",
        || shown(&log),
    )
}

pub(in super::super) async fn unicode_comes_as_written(t: &Trial) -> Tried {
    comes_as_written(t, "Grüße \u{1F980} \u{2028} 日本語 ﷽ e\u{301}\n".as_bytes()).await
}

pub(in super::super) async fn binary_comes_as_written(t: &Trial) -> Tried {
    let bytes: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    comes_as_written(t, &bytes).await
}

pub(in super::super) async fn a_missing_final_newline_stays_missing(t: &Trial) -> Tried {
    comes_as_written(t, b"one\n\n two\r\nno newline").await
}

async fn comes_as_written(t: &Trial, bytes: &[u8]) -> Tried {
    let (handle, _) = t.run(Script::new().out(bytes)).await?;
    bytes_are(&t.log(&handle, None).await?, bytes)
}

pub(in super::super) async fn a_long_line_comes_as_written(t: &Trial) -> Tried {
    let length = 1 << 20;
    let script = Script::new().then(Step::Letters(length)).out("end\n");
    let (handle, _) = t.run(script).await?;
    let mut expected = vec![b'x'; length];
    expected.extend_from_slice(b"end\n");
    bytes_are(&t.log(&handle, None).await?, &expected)
}

pub(in super::super) async fn much_output_comes_in_order(t: &Trial) -> Tried {
    let (handle, _) = t.run(Script::new().lines(5000, Duration::ZERO)).await?;
    text_is(&t.log(&handle, None).await?, &lines(5000))
}

pub(in super::super) async fn streams_are_told_apart(t: &Trial) -> Tried {
    let capabilities = t.within("the capabilities", t.executor.capabilities());
    if !done("the capabilities", capabilities.await?)?.streams {
        return Err(not_offered("a backend that tells stdout and stderr apart"));
    }
    let script = Script::new()
        .out("o1\n")
        .err("e1\n")
        .out("o2\n")
        .err("e2\n");
    let (handle, _) = t.run(script).await?;
    let came = streams(&t.log(&handle, None).await?);
    let expected = [
        (Stream::Out, Bytes::from_static(b"o1\no2\n")),
        (Stream::Err, Bytes::from_static(b"e1\ne2\n")),
    ];
    equal_streams("what came on each stream", &expected.into(), &came)
}

pub(in super::super) async fn what_was_dropped_is_one_gap(t: &Trial) -> Tried {
    let (handle, _) = t.run(Script::new().lines(200, Duration::ZERO)).await?;
    if !t.harness.drop_log(handle.run).await {
        return Err(not_offered(
            "a way to make the backend drop the beginning of a log",
        ));
    }
    let log = t.log(&handle, None).await?;
    equal("gaps in the log", &1, &gaps(&log))?;
    equal("gaps at its beginning", &1, &gaps(&log[..1]))?;
    let rest = all_bytes(&log);
    ensure(
        lines(200).as_bytes().ends_with(&rest) && rest.len() < lines(200).len(),
        "what was not dropped, behind the gap",
        || shown(&String::from_utf8_lossy(&rest)),
    )
}

pub(in super::super) async fn a_foreign_cursor_is_refused(t: &Trial) -> Tried {
    let (handle, _) = t.run(Script::new().lines(3, Duration::ZERO)).await?;
    let (other, _) = t.run(Script::new().lines(3, Duration::ZERO)).await?;
    let foreign = t.log(&other, None).await?;
    let foreign = foreign.first().map(|chunk| chunk.next.clone());
    let long = "x".repeat(LogCursor::MAX);
    let garbage = ["garbage", "{}", "-1:-1", " ", long.as_str()];
    let garbage = garbage.map(|text| done("a cursor", text.parse()));
    for cursor in garbage.into_iter().chain(foreign.map(Ok)) {
        let cursor: LogCursor = cursor?;
        let mut chunks = t.executor.logs(&handle, Some(cursor.clone()));
        let what = format!("the cursor `{}`", crate::id::shorten(cursor.as_str()));
        match t
            .within("an answer to a foreign cursor", chunks.next())
            .await?
        {
            None => {
                return Err(failed(
                    format!("{what} to be refused as `invalid`"),
                    "an empty log",
                ));
            }
            Some(answer) => refused_as(ErrorKind::Invalid, &what, answer)?,
        }
        let after = t.within("the end after the error", chunks.next()).await?;
        ensure(after.is_none(), "the error as the last item", || {
            shown_item(after.as_ref())
        })?;
    }
    Ok(())
}

pub(in super::super) async fn a_new_executor_reads_by_the_id_alone(t: &Trial) -> Tried {
    let (handle, _) = t.run(Script::new().lines(3, Duration::ZERO)).await?;
    let other = t.harness.executor().await;
    let log = t
        .log_through(&*other, &Handle::of(handle.run), None)
        .await?;
    text_is(&log, &lines(3))
}

pub(in super::super) async fn dropping_a_reader_stops_nothing(t: &Trial) -> Tried {
    let handle = t
        .begin_and_see_running(Script::new().out("one\n").hold())
        .await?;
    for polls in 0..4 {
        let mut chunks = t.executor.logs(&handle, None);
        let dropped = cut_short(chunks.next(), polls);
        t.within("an await of the log to go on", dropped).await?;
    }
    t.running(&handle).await?;
    let mut chunks = t.executor.logs(&handle, None);
    t.read_until(&mut chunks, "one\n").await.map(drop)
}

fn lines(count: u32) -> String {
    (1..=count).fold(String::new(), |text, n| text + &format!("line {n}\n"))
}

fn text_is(log: &[LogChunk], expected: &str) -> Tried {
    bytes_are(log, expected.as_bytes())
}

fn bytes_are(log: &[LogChunk], expected: &[u8]) -> Tried {
    let came = all_bytes(log);
    if came == expected && gaps(log) == 0 {
        return Ok(());
    }
    let same = came
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    let near = |bytes: &[u8]| {
        let end = bytes.len().min(same + 60);
        shown(&String::from_utf8_lossy(&bytes[same.min(end)..end]))
    };
    Err(failed(
        format!(
            "{} bytes; at byte {same}: {}",
            expected.len(),
            near(expected)
        ),
        format!(
            "{} bytes and {} gaps; there: {}",
            came.len(),
            gaps(log),
            near(&came)
        ),
    ))
}
