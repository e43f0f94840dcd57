//! The engine through a connection that stalls, breaks, lies: each line still comes once, each end is told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::error::Error;
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::log::LogItem;
use hybrid_runner_core::run::{Outcome, State};
use hybrid_runner_core::secret::Secrets;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::bench::{Bench, within};

/// What is done to an answer that carries a log.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// So many bytes, then nothing for ever.
    Stall(usize),
    /// So many bytes, then the end.
    Cut(usize),
    /// This instead.
    Instead(&'static [u8]),
    /// This instead, once the engine has done what it was asked to.
    InsteadOfDone(&'static [u8]),
    /// So many bytes, then the next chunk twice.
    Twice(usize),
    /// So many bytes and the rest of their chunk, then the engine's word that it cannot read on, as behind a full disk.
    Torn(usize),
    /// All but a byte that comes alone, at which both sides are told that the other has ended.
    Swallow,
}

/// What the engine says behind a record that it could write in part only.
const UNREADABLE: &[u8] =
    b"31\r\n\x03\0\0\0\0\0\0\x29error grabbing logs: message is too large\r\n0\r\n\r\n";

/// Stands between the executor and the engine.
struct Proxy {
    path: PathBuf,
    /// Answers that were spoilt.
    spoilt: Arc<AtomicU32>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Spoils the first `times` answers to questions that have `of` in their first line.
    fn start(folder: &Path, engine: &str, of: &'static str, fault: Fault, times: u32) -> Self {
        let path = folder.join("proxy.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let engine = engine.strip_prefix("unix://").unwrap().to_owned();
        let spoilt = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&spoilt);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (engine, count) = (engine.clone(), Arc::clone(&count));
                connections.spawn(async move {
                    // A connection that broke is what this is about.
                    drop(pass(client, &engine, of, fault, times, &count).await);
                });
            }
        });
        Self {
            path,
            spoilt,
            _task: task,
        }
    }
}

async fn pass(
    mut client: UnixStream,
    engine: &str,
    of: &str,
    fault: Fault,
    times: u32,
    count: &AtomicU32,
) -> std::io::Result<()> {
    let mut server = UnixStream::connect(engine).await?;
    let mut request = vec![0; 64 << 10];
    let length = client.read(&mut request).await?;
    let request = &request[..length];
    let end = request.windows(2).position(|window| window == b"\r\n");
    let (line, rest) = request.split_at(end.unwrap_or(length));
    server.write_all(line).await?;
    if !String::from_utf8_lossy(rest).contains("pgrade") {
        // Each question comes over a connection of its own, so that all are seen.
        server.write_all(b"\r\nConnection: close").await?;
    }
    server.write_all(rest).await?;
    let line = String::from_utf8_lossy(line).into_owned();
    let spoil = |count: u32| (count < times).then_some(count + 1);
    let order = Ordering::SeqCst;
    if line.contains(of) && count.fetch_update(order, order, spoil).is_ok() {
        spoilt(&mut client, &mut server, fault).await?;
        return Ok(());
    }
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

async fn spoilt(
    client: &mut UnixStream,
    server: &mut UnixStream,
    fault: Fault,
) -> std::io::Result<()> {
    let limit = match fault {
        Fault::Instead(words) => return client.write_all(words).await,
        Fault::InsteadOfDone(words) => {
            server.read_u8().await?;
            return client.write_all(words).await;
        }
        Fault::Swallow => return swallow(client, server).await,
        Fault::Stall(limit) | Fault::Cut(limit) | Fault::Twice(limit) | Fault::Torn(limit) => limit,
    };
    let mut all = Vec::new();
    while all.len() < limit && server.read_buf(&mut all).await? > 0 {}
    match fault {
        Fault::Twice(_) => {
            // Up to the end of a chunk: the next begins behind it, if the engine gives one for each line.
            while !all.ends_with(b"\n\r\n") && server.read_buf(&mut all).await? > 0 {}
            client.write_all(&all).await?;
            let mut chunk = Vec::new();
            while !chunk.ends_with(b"\n\r\n") {
                chunk.push(server.read_u8().await?);
            }
            client.write_all(&chunk).await?;
            client.write_all(&chunk).await?;
            copy_bidirectional(client, server).await.map(drop)
        }
        Fault::Torn(_) => {
            while server.read_buf(&mut all).await? > 0 {}
            let behind = all.windows(3).skip(limit).position(|end| end == b"\n\r\n");
            all.truncate(behind.map_or(0, |at| limit + at + 3));
            client.write_all(&all).await?;
            client.write_all(UNREADABLE).await
        }
        Fault::Stall(_) => {
            client.write_all(&all[..limit.min(all.len())]).await?;
            std::future::pending().await
        }
        _ => client.write_all(&all[..limit.min(all.len())]).await,
    }
}

async fn swallow(client: &mut UnixStream, server: &mut UnixStream) -> std::io::Result<()> {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            length = client.read(&mut up) => match length? {
                0 | 1 => return Ok(()),
                length => server.write_all(&up[..length]).await?,
            },
            length = server.read(&mut down) => match length? {
                0 => return Ok(()),
                length => client.write_all(&down[..length]).await?,
            },
        }
    }
}

/// The whole log as somebody reads it who asks again from the last place after each error; the signs of life are left out.
async fn read(executor: &dyn Executor, run: &Handle) -> String {
    let mut text = Vec::new();
    let mut from = None;
    loop {
        let mut chunks = executor.logs(run, from.clone());
        let mut broken = false;
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => {
                    match &chunk.item {
                        LogItem::Data { bytes, .. } => text.extend_from_slice(bytes),
                        gap => text.extend_from_slice(format!("{gap:?}\n").as_bytes()),
                    }
                    from = Some(chunk.next);
                }
                Err(error) => {
                    assert!(error.is_transient(), "{error:?}");
                    broken = true;
                }
            }
        }
        if !broken {
            return String::from_utf8(text).unwrap();
        }
    }
}

/// The end as somebody sees it who watches again after each error.
async fn end(executor: &dyn Executor, run: &Handle) -> Outcome {
    loop {
        let levels = executor.watch(run).collect::<Vec<_>>().await;
        match levels.into_iter().next_back() {
            Some(Ok(status)) => return status.outcome().unwrap().clone(),
            Some(Err(error)) => assert!(error.is_transient(), "{error:?}"),
            None => {}
        }
    }
}

fn exit_code(outcome: &Outcome) -> Option<i32> {
    match outcome {
        Outcome::Failed(failure) => failure.exit_code,
        _ => None,
    }
}

async fn each_line_comes_once(fault: Fault, times: u32) {
    each_line_comes_once_through("follow=1", fault, times).await;
}

async fn each_line_comes_once_through(of: &'static str, fault: Fault, times: u32) {
    let Some(bench) = Bench::new() else { return };
    let (folder, engine) = (bench.place.folder.path(), bench.place.host());
    let proxy = Proxy::start(folder, engine, of, fault, times);
    let host = format!("unix://{}", proxy.path.display());
    let through = bench.place.docker_at("one", &host);
    let run = bench
        .begin("i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.03; done")
        .await;
    let log = within(Duration::from_mins(2), "the log", read(&*through, &run)).await;
    let expected = (1..=60).fold(String::new(), |text, n| text + &format!("line {n}\n"));
    assert_eq!(log, expected, "{fault:?}");
    // The last times may be over before it is asked for again.
    assert!(proxy.spoilt.load(Ordering::SeqCst) > 0, "{fault:?}");
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_connection_that_stalls_costs_no_line() {
    each_line_comes_once(Fault::Stall(2000), 2).await;
}

#[tokio::test]
async fn an_answer_that_stalls_does_not_hold_up_the_outcome() {
    let Some(bench) = Bench::new() else { return };
    let (folder, engine) = (bench.place.folder.path(), bench.place.host());
    let proxy = Proxy::start(folder, engine, "follow=0", Fault::Stall(100), 2);
    let host = format!("unix://{}", proxy.path.display());
    let through = bench.place.docker_at("one", &host);
    let run = bench.begin("echo a; exit 3").await;
    let outcome = within(Duration::from_mins(1), "the outcome", end(&*through, &run)).await;
    assert_eq!(exit_code(&outcome), Some(3), "{outcome:?}");
    assert!(proxy.spoilt.load(Ordering::SeqCst) > 0);
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_anywhere_costs_no_line() {
    for limit in [10, 800, 1999, 2000, 2001, 2013] {
        each_line_comes_once(Fault::Cut(limit), 3).await;
    }
}

#[tokio::test]
async fn an_answer_that_is_none_costs_no_line() {
    for answer in [
        &b"HTTP/1.1 404 Not Found\r\nContent-Length: 26\r\n\r\n{\"message\":\"no such thing\"}"[..],
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 13\r\n\r\n<html></html>",
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n\x01\0\0\0\xff\xff\xff\xff\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 13\r\n\r\n<html></html>",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n\x01\0\0\0\0\0\0\x05\r\n0\r\n\r\n",
        b"nonsense",
    ] {
        each_line_comes_once(Fault::Instead(answer), 2).await;
    }
}

#[tokio::test]
async fn a_line_that_the_engine_gives_twice_comes_once() {
    each_line_comes_once(Fault::Twice(2000), 1).await;
}

const REFUSED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 18\r\n\r\n{\"message\":\"boom\"}";

#[tokio::test]
async fn an_answer_about_the_container_that_says_nothing_costs_no_line() {
    for answer in [
        REFUSED,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        // A container of which nothing is said has not ended.
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{\"Id\":\"x\"}",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"Id\":\"x\",\"State\":{}}",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        // Neither the container is there nor a list: it is not the engine that says so.
        b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{\"message\":\"nopage\"}",
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"message\":\"what\"}",
        b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 409 Conflict\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"message\":\"busy\"}",
    ] {
        // More often than one question is asked.
        each_line_comes_once_through("/json", Fault::Instead(answer), 7).await;
    }
}

/// The log is never there behind the end of the run: how that is told, and what is read of it.
async fn without_a_log(fault: Fault) -> Option<(Outcome, String)> {
    let bench = Bench::new()?;
    let (folder, engine) = (bench.place.folder.path(), bench.place.host());
    let proxy = Proxy::start(folder, engine, "/logs", fault, u32::MAX);
    let host = format!("unix://{}", proxy.path.display());
    let through = bench.place.docker_at("one", &host);
    let run = bench.begin("echo first; echo second; exit 5").await;
    bench.end(&run).await;
    let limit = Duration::from_secs(50);
    let told = async { tokio::join!(end(&*through, &run), read(&*through, &run)) };
    let told = within(limit, &format!("the end in spite of {fault:?}"), told).await;
    bench.remove(&run).await;
    Some(told)
}

#[tokio::test]
async fn a_log_that_stays_away_holds_nothing_up_and_is_a_gap() {
    let faults = [
        Fault::Stall(0),
        Fault::Cut(0),
        Fault::Instead(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 26\r\n\r\n{\"message\":\"no such thing\"}",
        ),
        Fault::Instead(REFUSED),
        Fault::Instead(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    let told = futures::future::join_all(faults.map(without_a_log)).await;
    for (fault, told) in faults.iter().zip(told) {
        let Some((outcome, log)) = told else { return };
        assert_eq!(exit_code(&outcome), Some(5), "{fault:?}: {outcome:?}");
        assert!(
            log.starts_with("Gap") && log.lines().count() == 1,
            "{fault:?}: {log}"
        );
    }
}

#[tokio::test]
async fn a_torn_record_behind_good_ones_holds_nothing_up_and_is_a_gap() {
    // Behind the first line of init at the least.
    let Some((outcome, log)) = without_a_log(Fault::Torn(400)).await else {
        return;
    };
    assert_eq!(exit_code(&outcome), Some(5), "{outcome:?}");
    assert!(
        log.lines()
            .last()
            .is_some_and(|line| line.starts_with("Gap")),
        "{log}"
    );
}

#[tokio::test]
async fn an_answer_that_says_nothing_does_not_fail_a_start() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    for of in [
        "/containers/hr-",
        "/containers/json",
        "/volumes/hr-",
        "/images/",
        "/info",
        // The volume of init, which each executor looks into once.
        "/volumes/create",
        "create?name=hybrid-runner-init",
        "/archive",
        "/attach",
        "/rename",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let engine = bench.place.host();
        // A name that was given is not given again.
        let (fault, times) = match of {
            "/rename" => (Fault::InsteadOfDone(REFUSED), 1),
            _ => (Fault::Instead(REFUSED), 2),
        };
        let proxy = Proxy::start(folder.path(), engine, of, fault, 2);
        let host = format!("unix://{}", proxy.path.display());
        bench.docker = bench.place.docker_at("one", &host);
        let run = bench.begin("exit 4").await;
        assert_eq!(proxy.spoilt.load(Ordering::SeqCst), times, "{of}");
        assert_eq!(exit_code(&bench.end(&run).await), Some(4), "{of}");
        bench.remove(&run).await;
    }
}

#[tokio::test]
async fn a_connection_that_ends_behind_the_claim_does_not_let_nothing_run() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let engine = bench.place.host();
    let proxy = Proxy::start(folder.path(), engine, "/attach", Fault::Swallow, 1);
    let host = format!("unix://{}", proxy.path.display());
    bench.docker = bench.place.docker_at("one", &host);
    let spec = bench.spec("exit 4");
    let (secrets, progress) = (Secrets::none(), Progress::none());
    let started = bench.docker.start(&spec, &secrets, &progress);
    let error = within(Duration::from_mins(1), "a start", started).await;
    assert!(error.as_ref().is_err_and(Error::is_transient), "{error:?}");
    assert_eq!(proxy.spoilt.load(Ordering::SeqCst), 1);
    let status = bench.status(&Handle::of(spec.run)).await.unwrap();
    assert_eq!(status.state.rank(), State::Starting.rank(), "{status:?}");
    let run = bench.start(&spec).await;
    assert_eq!(exit_code(&bench.end(&run).await), Some(4));
    bench.remove(&run).await;
}

#[tokio::test]
async fn an_answer_that_says_nothing_does_not_fail_a_stop() {
    let Some(bench) = Bench::new() else { return };
    for of in ["/volumes/create", "/containers/hr-"] {
        let folder = tempfile::tempdir().unwrap();
        let engine = bench.place.host();
        let proxy = Proxy::start(folder.path(), engine, of, Fault::Instead(REFUSED), 2);
        let host = format!("unix://{}", proxy.path.display());
        let through = bench.place.docker_at("one", &host);
        let run = bench.begin("sleep 600 & wait").await;
        let stopped = through.stop(&run, Duration::ZERO);
        let stopped = within(Duration::from_mins(1), "the stop", stopped).await;
        assert!(stopped.is_ok(), "{of}: {stopped:?}");
        assert_eq!(proxy.spoilt.load(Ordering::SeqCst), 2, "{of}");
        assert!(matches!(bench.end(&run).await, Outcome::Stopped { .. }));
        bench.remove(&run).await;
    }
}
