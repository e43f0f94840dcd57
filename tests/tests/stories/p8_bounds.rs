//! P8: memory and disk are bounded whatever the workload and the network do.

use std::time::Duration;

use hybrid_runner_tests::proxy::Mode;
use hybrid_runner_tests::{Proxy, Runner, Server, Story};

/// Anonymous memory of a process, in KiB.
pub(super) fn anonymous(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn a_flood_behind_a_slow_link_does_not_grow_runner_or_server() {
    Story::told(110, async |story| {
        let mut server = Server::started(&story).await;
        let proxy = Proxy::new(&server.address()).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.dials = proxy.address().to_owned();
        runner.start().await;
        let client = server.client();
        let before = (anonymous(runner.program().pid()), anonymous(server.program().pid()));
        let script = "head -c 60000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo; echo all > $STORY/written";
        proxy.set(Mode::Delay(Duration::from_millis(20)));
        let run = client.submit(&story.sh("flood", script), "runner-1").await;
        let pids = (runner.program().pid(), server.program().pid());
        hybrid_runner_tests::processes::until("the workload has written all", Duration::from_mins(1), || {
            story.path("written").exists().then_some(())
        })
        .await;
        let during = (anonymous(pids.0), anonymous(pids.1));
        proxy.set(Mode::Open);
        client.finished(&run).await.expect("succeeded");
        let after = (anonymous(pids.0), anonymous(pids.1));

        for (name, before, grown) in [
            ("runner", before.0, during.0.max(after.0)),
            ("server", before.1, during.1.max(after.1)),
        ] {
            assert!(grown < before + 32 * 1024, "the {name} grew from {before} KiB to {grown} KiB");
        }
        assert_eq!(client.log(&run).await.len(), 60_000_000 + 600_000);
    })
    .await;
}

#[tokio::test]
async fn more_runs_than_slots_wait_their_turn() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.settings = vec!["max_runs = 2".to_owned()];
        runner.start().await;
        let client = server.client();
        let script =
            "echo start >> $STORY/starts; echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done";
        let mut runs = Vec::new();
        for number in 0..5 {
            runs.push(
                client
                    .submit(&story.sh(&format!("turn-{number}"), script), "runner-1")
                    .await,
            );
        }
        for run in &runs[..2] {
            client.follow(run).lines(1).await;
        }
        for run in &runs[2..] {
            assert_eq!(client.show(run).await.state(), "queued");
        }
        assert_eq!(story.read("starts").lines().count(), 2);
        story.write("gate", "");
        for run in &runs {
            client.finished(run).await.expect("succeeded");
        }
        assert_eq!(story.read("starts").lines().count(), 5);
    })
    .await;
}
