//! P2: the death of the runner, the server or the link ends no run and loses no line.

use std::time::Duration;

use hybrid_runner_tests::docker::Events;
use hybrid_runner_tests::processes::{self, until};
use hybrid_runner_tests::proxy::Mode;
use hybrid_runner_tests::workflow::numbered_lines;
use hybrid_runner_tests::{Client, Docker, Follow, Proxy, Runner, Server, Story};

const LINES: u32 = 300;
const SOON: Duration = Duration::from_secs(30);

/// A run that prints a numbered line each 20 ms and leaves evidence that it does.
pub(super) struct Printing {
    story: Story,
    client: Client,
    pub(super) run: String,
    pub(super) follow: Follow,
    containers: Option<Events>,
}

impl Printing {
    /// Submits it to a runner whose runs are containers of this engine, if one is given.
    pub(super) async fn submit(story: &Story, server: &Server, docker: Option<&Docker>) -> Self {
        let script = format!(
            "echo start >> $STORY/starts; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); \
             echo line $i; echo $i >> $STORY/beats; sleep 0.02; done"
        );
        let client = server.client();
        let containers = docker.map(Docker::events);
        let run = client
            .submit(&story.sh("printing", &script), "runner-1")
            .await;
        let follow = client.follow(&run);
        Self {
            story: story.clone(),
            client,
            run,
            follow,
            containers,
        }
    }

    /// Waits until it has printed so many lines more, whether anybody reads them or not.
    pub(super) fn goes_on(&self, lines: usize) -> impl Future<Output = ()> + use<> {
        let story = self.story.clone();
        let beats = move || story.read("beats").lines().count();
        let goal = beats() + lines;
        until("the workload goes on", SOON, move || {
            (beats() >= goal).then_some(())
        })
    }

    /// It ends well, was started once, and every line has arrived once, at the follower and in the store.
    pub(super) async fn ends_well(&mut self) {
        let end = self.follow.end().await;
        end.expect("succeeded");
        assert_eq!(
            self.follow.text(),
            numbered_lines(LINES),
            "what the follower was told"
        );
        assert_eq!(self.follow.gaps, Vec::<String>::new());
        assert_eq!(
            self.client.text(&self.run).await,
            numbered_lines(LINES),
            "what is stored"
        );
        assert_eq!(self.story.read("starts"), "start\n");
        assert_eq!(self.client.show(&self.run).await.0["attempt"], 1);
        if let Some(containers) = &self.containers {
            assert_eq!(
                containers.made(&self.run),
                1,
                "{:?}",
                containers.of(&self.run)
            );
        }
    }
}

#[tokio::test]
async fn a_runner_killed_and_started_again_goes_on_where_it_was() {
    Story::told(90, async |story| runner_killed(&story, None).await).await;
}

pub(super) async fn runner_killed(story: &Story, docker: Option<&Docker>) {
    let server = Server::started(story).await;
    let mut runner = Runner::started_in(story, &server, docker).await;
    let mut printing = Printing::submit(story, &server, docker).await;
    for seen in [40, 140] {
        printing.follow.lines(seen).await;
        runner.kill().await;
        printing.goes_on(25).await;
        runner.start().await;
    }
    printing.ends_well().await;
}

#[tokio::test]
async fn a_server_killed_and_started_again_goes_on_where_it_was() {
    Story::told(90, async |story| server_killed(&story, None).await).await;
}

pub(super) async fn server_killed(story: &Story, docker: Option<&Docker>) {
    let mut server = Server::started(story).await;
    let _runner = Runner::started_in(story, &server, docker).await;
    let mut printing = Printing::submit(story, &server, docker).await;
    for seen in [40, 140] {
        printing.follow.lines(seen).await;
        server.kill().await;
        printing.goes_on(25).await;
        server.start().await;
    }
    printing.ends_well().await;
}

#[tokio::test]
async fn runner_and_server_killed_together_go_on_where_they_were() {
    Story::told(90, async |story| both_killed(&story, None).await).await;
}

pub(super) async fn both_killed(story: &Story, docker: Option<&Docker>) {
    let mut server = Server::started(story).await;
    let mut runner = Runner::started_in(story, &server, docker).await;
    let mut printing = Printing::submit(story, &server, docker).await;
    for seen in [40, 140] {
        printing.follow.lines(seen).await;
        tokio::join!(server.kill(), runner.kill());
        printing.goes_on(25).await;
        runner.spawn();
        server.start().await;
    }
    runner.ready().await;
    printing.ends_well().await;
}

#[tokio::test]
async fn a_link_cut_again_and_again_loses_no_line() {
    Story::told(90, async |story| link_cut(&story, None).await).await;
}

pub(super) async fn link_cut(story: &Story, docker: Option<&Docker>) {
    let server = Server::started(story).await;
    let proxy = Proxy::new(&server.address()).await;
    let mut runner = Runner::new(story, &server, "runner-1").await;
    runner.dials = proxy.address().to_owned();
    runner.run_in(docker);
    runner.start().await;
    let mut printing = Printing::submit(story, &server, docker).await;
    for seen in [30, 80, 130, 180, 230] {
        printing.follow.lines(seen).await;
        proxy.cut();
    }
    printing.ends_well().await;
    assert!(
        proxy.taken() >= 6,
        "the link was not made again: {}",
        proxy.taken()
    );
}

#[tokio::test]
async fn packets_that_are_swallowed_for_a_while_come_late_and_once() {
    Story::told(90, async |story| {
        let server = Server::started(&story).await;
        let proxy = Proxy::new(&server.address()).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.dials = proxy.address().to_owned();
        runner.start().await;
        let mut printing = Printing::submit(&story, &server, None).await;
        printing.follow.lines(40).await;
        proxy.set(Mode::Swallow);
        printing.goes_on(60).await;
        proxy.set(Mode::Delay(Duration::from_millis(5)));
        printing.ends_well().await;
    })
    .await;
}

#[tokio::test]
async fn a_half_open_link_is_found_and_made_again() {
    Story::told(120, async |story| {
        let mut server = Server::new(&story, "server");
        server.settings.push("heartbeat = \"2s\"".to_owned());
        server.start().await;
        let proxy = Proxy::new(&server.address()).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.dials = proxy.address().to_owned();
        runner.start().await;
        let mut printing = Printing::submit(&story, &server, None).await;
        printing.follow.lines(40).await;
        // Both ends believe in the connection; only silence tells.
        proxy.strand();
        printing.ends_well().await;
        assert!(proxy.taken() >= 2, "the link was not made again");
    })
    .await;
}

#[tokio::test]
async fn a_run_whose_helper_is_killed_is_lost_and_leaves_no_orphan() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let mark = format!("mark-{}", uuid::Uuid::new_v4());
        let script = "trap '' TERM; (trap '' TERM; sleep 601) & setsid sleep 602 & echo up; while :; do sleep 1; done";
        let run = client.submit(&story.sh("helped", script).env("MARK", &mark), "runner-1").await;
        client.follow(&run).lines(1).await;
        processes::appear(&mark, 3, SOON).await;
        let helpers = runner.helpers();
        let helper = helpers.iter().find(|process| !process.mentions(&mark));
        let helper = helper.unwrap_or_else(|| panic!("no helper among {helpers:?}"));

        processes::signal(helper.pid, rustix::process::Signal::KILL);

        let end = client.finished(&run).await;
        end.expect("lost");
        assert!(end.why().contains("helper"), "{}", end.0);
        processes::gone(&mark, SOON).await;
        assert!(runner.is_running());
        // What it had read and not yet written is gone with it, and that is said.
        let mut follow = client.follow(&run);
        follow.end().await;
        assert_eq!((follow.text().as_str(), follow.gaps.as_slice()), ("up\n", &["crashed".to_owned()][..]));
    })
    .await;
}

#[tokio::test]
async fn helpers_killed_at_any_moment_of_a_start_leave_no_orphan_and_no_second_start() {
    Story::told(90, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let mark = format!("mark-{}", uuid::Uuid::new_v4());
        for number in 0..12 {
            let name = format!("helped-{number}");
            let script = format!("echo $$ >> $STORY/{name}.starts; sleep 603 & exec sleep 604");
            let workflow = story.sh(&name, &script).env("MARK", &mark);
            let run = client.submit(&workflow, "runner-1").await;
            let helper = until("a helper is there", SOON, || {
                runner
                    .helpers()
                    .into_iter()
                    .find(|process| !process.mentions(&mark))
            });
            let helper = helper.await;
            // Some are killed before they have begun, some after.
            tokio::time::sleep(Duration::from_millis(number)).await;
            processes::signal(helper.pid, rustix::process::Signal::KILL);

            let end = client.finished(&run).await;
            assert!(
                ["lost", "failed"].contains(&end.state()),
                "{name}: {}",
                end.0
            );
            let starts = story.read(&format!("{name}.starts")).lines().count();
            assert!(starts <= 1, "{name} was started {starts} times");
            processes::gone(&mark, SOON).await;
        }
        assert!(runner.is_running());
    })
    .await;
}

#[tokio::test]
async fn a_drained_runner_lets_go_of_its_runs_and_its_next_life_takes_them_up() {
    Story::told(60, async |story| runner_drained(&story, None).await).await;
}

pub(super) async fn runner_drained(story: &Story, docker: Option<&Docker>) {
    let server = Server::started(story).await;
    let mut runner = Runner::started_in(story, &server, docker).await;
    let mut printing = Printing::submit(story, &server, docker).await;
    printing.follow.lines(40).await;

    let ended = runner.terminate().await;

    assert_eq!(ended.code(), Some(0), "a drain ends well");
    server.client().runner_is("runner-1", "away").await;
    printing.goes_on(25).await;
    runner.start().await;
    printing.ends_well().await;
}

#[tokio::test]
async fn a_server_that_is_told_to_end_ends_well_and_its_next_life_goes_on() {
    Story::told(60, async |story| {
        let mut server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let mut printing = Printing::submit(&story, &server, None).await;
        printing.follow.lines(40).await;
        let ended = server.terminate().await;
        assert_eq!(ended.code(), Some(0));
        printing.goes_on(25).await;
        server.start().await;
        printing.ends_well().await;
    })
    .await;
}
