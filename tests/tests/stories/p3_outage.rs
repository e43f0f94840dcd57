//! P3: status and logs survive an outage of the server of any length, within a declared disk bound; and a full disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::future::join_all;
use hybrid_runner_tests::processes::until;
use hybrid_runner_tests::workflow::{numbered, numbered_lines};
use hybrid_runner_tests::{Runner, Server, Story, files, skipped};

const SOON: Duration = Duration::from_secs(40);

#[tokio::test]
async fn nothing_is_lost_of_fifty_runs_of_which_the_server_missed_the_second_half() {
    Story::told(110, async |story| {
        let mut server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script = |number: u32| {
            let gate = if number < 25 { "" } else { "while [ ! -e $STORY/gate ]; do sleep 0.05; done;" };
            format!("echo {number} >> $STORY/starts; echo begin; {gate} echo end {number}; echo {number} >> $STORY/ends; exit $(({number} % 2))")
        };
        let submits = (0..50).map(|number| {
            let workflow = story.sh(&format!("run-{number}"), &script(number));
            let client = client.clone();
            async move { client.submit(&workflow, "runner-1").await }
        });
        let runs = join_all(submits).await;
        join_all(runs[..25].iter().map(|run| client.finished(run))).await;
        join_all(runs[25..].iter().map(|run| client.running(run))).await;

        server.kill().await;
        story.write("gate", "");
        until("all have ended", SOON, || (story.read("ends").lines().count() == 50).then_some(())).await;
        // Not even the runner's memory is needed.
        runner.kill().await;
        runner.spawn();
        server.start().await;

        let ends = join_all(runs.iter().map(|run| client.finished(run))).await;
        for (number, (end, run)) in ends.iter().zip(&runs).enumerate() {
            let state = if number % 2 == 0 { "succeeded" } else { "failed" };
            assert_eq!(end.state(), state, "{}", end.0);
            assert_eq!(client.text(run).await, format!("begin\nend {number}\n"));
        }
        assert_eq!(story.read("starts").lines().count(), 50);
    })
    .await;
}

/// A small file system in memory. Unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(path).ok()?;
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size},mode=0700"),
                "tmpfs",
            ])
            .arg(path)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(path.to_owned()))
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let filler = self.0.join("filler");
        let mut size = 1 << 20;
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(filler)
            .expect("a file can be made");
        while size > 0 {
            if std::io::Write::write_all(&mut file, &vec![0; size]).is_err() {
                size /= 2;
            }
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("the filler can be removed");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

/// A runner whose data lies on a small disk; none where nothing can be mounted.
async fn on_small_disk(story: &Story, server: &Server, size: &str) -> Option<(Runner, Small)> {
    let mut runner = Runner::new(story, server, "runner-1").await;
    runner.data_dir = story.path("small").join("data");
    let Some(small) = Small::mount(&story.path("small"), size) else {
        skipped("a small disk cannot be mounted: that needs root");
        return None;
    };
    runner.start().await;
    Some((runner, small))
}

#[tokio::test]
async fn a_disk_filled_by_a_log_drops_the_log_and_says_so_and_the_run_ends_as_it_ends() {
    Story::told(90, async |story| {
        let server = Server::started(&story).await;
        let Some((mut runner, _small)) = on_small_disk(&story, &server, "12m").await else { return };
        let client = server.client();
        let script = "echo first; head -c 30000000 /dev/zero | tr '\\0' 'x'; echo; echo last >> $STORY/evidence; exit 5";
        let run = client.submit(&story.sh("flood", script), "runner-1").await;

        let mut follow = client.follow(&run);
        let end = follow.end().await;

        assert_eq!(story.read("evidence"), "last\n", "the work did not go on");
        match end.class() {
            "exit" => {
                assert_eq!(end.0["failure"]["exit_code"], 5, "{}", end.0);
                // Room comes and goes; each missing part is told in its place.
                let gaps = &follow.gaps;
                assert!(!gaps.is_empty() && gaps.len() < 100 && gaps.iter().all(|why| why == "disk_full"), "{gaps:?}");
            }
            class => assert_eq!(class, "storage", "{}", end.0),
        }
        assert!(follow.text().starts_with("first\n"));
        assert!(runner.is_running());
        // There is room again as soon as the run is put away.
        let spooled = || files(&runner.data_dir, "/log").iter().any(|path| path.to_string_lossy().contains(run.as_str()));
        until("the flood is put away", SOON, || (!spooled()).then_some(())).await;
        let next = client.submit(&story.sh("next", "echo fine"), "runner-1").await;
        client.finished(&next).await.expect("succeeded");
        assert_eq!(client.text(&next).await, "fine\n");
    })
    .await;
}

#[tokio::test]
async fn on_a_full_disk_running_work_goes_on_and_new_work_waits_or_is_refused_in_words() {
    Story::told(110, async |story| {
        let server = Server::started(&story).await;
        let Some((mut runner, small)) = on_small_disk(&story, &server, "8m").await else { return };
        let client = server.client();
        let script = "echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo done >> $STORY/evidence";
        let running = client.submit(&story.sh("running", script), "runner-1").await;
        client.follow(&running).lines(1).await;

        small.fill();
        let second = client.submit(&story.sh("second", "echo start >> $STORY/starts"), "runner-1").await;
        story.write("gate", "");
        until("the running work goes on", SOON, || story.path("evidence").exists().then_some(())).await;
        let said = until("the runner says that its disk is full", SOON, || {
            let errors = runner.program().errors();
            ["full", "no space", "No space"].iter().any(|words| errors.contains(words)).then_some(errors)
        });
        said.await;
        assert!(runner.is_running());
        small.free();

        client.finished(&running).await.expect("succeeded");
        let second = client.finished(&second).await;
        match second.state() {
            "succeeded" => assert_eq!(story.read("starts"), "start\n"),
            _ => assert!(["storage", "backend"].contains(&second.class()), "{}", second.0),
        }
        assert!(runner.is_running());
        let third = client.submit(&story.sh("third", "echo fine"), "runner-1").await;
        client.finished(&third).await.expect("succeeded");
    })
    .await;
}

#[tokio::test]
async fn a_server_with_a_full_disk_refuses_in_words_and_misses_nothing() {
    Story::told(110, async |story| {
        let mut server = Server::new(&story, "server");
        let Some(small) = Small::mount(&server.data_dir(), "8m") else {
            return skipped("a small disk cannot be mounted: that needs root");
        };
        server.start().await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script = format!(
            "echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; {}",
            numbered(20, 10, "echo done >> $STORY/evidence; head -c 200000 /dev/zero | tr '\\0' z; exit 3")
        );
        let run = client.submit(&story.sh("running", &script), "runner-1").await;
        client.follow(&run).lines(1).await;

        small.fill();
        let body = serde_json::json!({"workflow": story.sh("refused", &format!("true {}", "x".repeat(100_000))).to_value(), "runner": "runner-1"});
        let (status, answer) = client.insist(reqwest::Method::POST, "/runs", Some(&body)).await;
        assert_eq!(status.as_u16(), 507, "{answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|words| words.contains("disk")), "{answer}");
        story.write("gate", "");
        until("the running work goes on", SOON, || story.path("evidence").exists().then_some(())).await;
        assert!(server.program().is_running() && runner.is_running());
        small.free();

        let end = client.finished(&run).await;
        end.expect_failed("exit", &["3"]);
        let log = client.text(&run).await;
        assert!(log.starts_with("up\nline 1\nline 2\n") && log.ends_with("zzz"));
        assert_eq!(log.len(), 3 + numbered_lines(20).len() + 200_000);
        let next = client.submit(&story.sh("next", "echo fine"), "runner-1").await;
        client.finished(&next).await.expect("succeeded");
    })
    .await;
}

#[tokio::test]
async fn a_log_longer_than_its_bound_says_what_it_dropped() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner
            .settings
            .push("spool = { per_run = \"64KiB\", total = \"1MiB\" }".to_owned());
        runner.start().await;
        let client = server.client();
        let script = format!(
            "echo first; {}",
            numbered(
                1,
                0,
                "head -c 3000000 /dev/zero | tr '\\0' 'x'; echo; exit 0"
            )
        );
        let run = client.submit(&story.sh("long", &script), "runner-1").await;
        let mut follow = client.follow(&run);
        let end = follow.end().await;
        end.expect("succeeded");
        assert_eq!(follow.gaps, ["limit"]);
        assert!(follow.text().starts_with("first\nline 1\n"));
        assert!(
            follow.log.len() < 1 << 20,
            "{} bytes came through a bound of 64 KiB",
            follow.log.len()
        );
    })
    .await;
}
