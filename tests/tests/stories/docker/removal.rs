//! What an engine does not remove is named.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hybrid_runner_tests::{Docker, Story};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

const REFUSAL: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 18\r\n\r\n{\"message\":\"busy\"}";
const REMOVES: &[u8] = b"DELETE /containers/";

/// Stands before an engine and refuses to remove containers, but for the first, which only lays init into its volume.
fn refusing(engine: &str, path: &Path) -> JoinSet<()> {
    let listener = UnixListener::bind(path).expect("a socket can be made");
    let engine = engine
        .strip_prefix("unix://")
        .expect("the engine is at a socket")
        .to_owned();
    let removals = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let (engine, removals) = (engine.clone(), Arc::clone(&removals));
            connections.spawn(async move {
                // A connection ends as its client likes.
                drop(pass(client, &engine, &removals).await);
            });
        }
    });
    tasks
}

async fn pass(mut client: UnixStream, engine: &str, removals: &AtomicU32) -> std::io::Result<()> {
    let mut request = vec![0; 64 << 10];
    let length = client.read(&mut request).await?;
    let request = &request[..length];
    if request.starts_with(REMOVES) && removals.fetch_add(1, Ordering::SeqCst) > 0 {
        return client.write_all(REFUSAL).await;
    }
    let mut server = UnixStream::connect(engine).await?;
    let end = request.windows(2).position(|window| window == b"\r\n");
    let (line, rest) = request.split_at(end.unwrap_or(length));
    server.write_all(line).await?;
    if !String::from_utf8_lossy(rest).contains("pgrade") {
        // Each question comes over a connection of its own, so that all are seen.
        server.write_all(b"\r\nConnection: close").await?;
    }
    server.write_all(rest).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

#[tokio::test]
async fn an_exec_whose_container_is_not_removed_tells_the_outcome_and_names_the_container() {
    Story::told(90, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let socket = tempfile::tempdir().unwrap();
        let socket = socket.path().join("engine.sock");
        let _engine = refusing(docker.address(), &socket);
        let address = format!("unix://{}", socket.display());
        let section = docker.section().replace(docker.address(), &address);
        let config = story.write("kept.toml", format!("[executors.here]\n{section}"));
        let file = story.write("kept.yaml", story.sh("kept", "echo up; exit 5").to_yaml());
        let (config, file) = (config.display().to_string(), file.display().to_string());
        let arguments = ["exec", &file, "-c", &config];
        let ended = tokio::time::timeout(Duration::from_mins(1), story.command(&arguments));
        let ended = ended.await.unwrap();
        ended.expect(1).says(&[
            "failed (exit)",
            "could not be removed",
            "nobody will remove it",
        ]);
        let left = docker.containers().await;
        let name = left[0]["Names"][0].as_str().unwrap();
        let named = format!("container `{}`", name.trim_start_matches('/'));
        assert!(ended.err.contains(&named), "no {named} in {}", ended.err);
    })
    .await;
}
