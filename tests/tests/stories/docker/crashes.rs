//! Deaths of runner, server and link while containers run: the right end, one container, each line once.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_tests::docker::Events;
use hybrid_runner_tests::{Binary, Docker, Runner, Server, Story, skipped};

use crate::p1_once::{Scenario, fault_at, fault_log, steps};
use crate::p2_survives;

/// Walks that go on at the same time: a container takes more of the machine than a process does.
const TOGETHER: usize = 3;

/// What a runner does around its containers.
const AROUND: [&str; 12] = [
    "supervisor.start",
    "supervisor.started",
    "supervisor.handle",
    "supervisor.stop",
    "supervisor.stopping",
    "supervisor.stopped",
    "supervisor.waiting",
    "supervisor.finish",
    "supervisor.finished",
    "supervisor.removing",
    "supervisor.cleaned",
    "supervisor.removed",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_killed_at_any_step_around_a_container_makes_no_second_one_and_loses_no_end() {
    if !Binary::Faults.is_there() {
        return skipped("the binary for crash tests was not built; scripts/test builds it");
    }
    Story::told(500, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let walker = Walker {
            story: &story,
            server: &server,
            docker: &docker,
            events: docker.events(),
        };
        // Without a fault, to see which steps there are.
        let log = fault_log(&story, "steps");
        walker.walk("whole", log).await;
        let steps = chosen(&steps(&story, "steps"));
        assert!(steps.len() > 20, "too few steps to walk over: {steps:?}");

        let walks = steps.iter().map(|step| walker.walk(step, fault_at(step)));
        let fired: Vec<bool> = futures::stream::iter(walks)
            .buffer_unordered(TOGETHER)
            .collect()
            .await;
        let count = fired.iter().filter(|fired| **fired).count();
        assert!(
            count * 4 > steps.len() * 3,
            "only {count} of {} walks came to their step",
            steps.len()
        );
    })
    .await;
}

/// The first and the last of the steps around a container; in a campaign each of all.
fn chosen(steps: &[String]) -> Vec<String> {
    if std::env::var_os("HYBRID_RUNNER_CAMPAIGN").is_some() {
        return (1..=steps.len()).map(|number| number.to_string()).collect();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for step in steps {
        *counts.entry(step).or_default() += 1;
    }
    let mut chosen = Vec::new();
    for (name, count) in counts {
        if name.starts_with("docker.") {
            chosen.push(format!("{name}:1"));
            if count > 1 {
                chosen.push(format!("{name}:{count}"));
            }
        } else if AROUND.contains(&name) {
            chosen.push(format!("{name}:1"));
        }
    }
    chosen
}

struct Walker<'a> {
    story: &'a Story,
    server: &'a Server,
    docker: &'a Docker,
    events: Events,
}

impl Walker<'_> {
    /// One walk: a runner that aborts at `step`, and its next life. Whether it came to that step.
    async fn walk(&self, step: &str, environment: Vec<(String, String)>) -> bool {
        let client = self.server.client();
        let name = format!("at-{}", step.replace(['.', ':'], "-"));
        let mut runner = Runner::new(self.story, self.server, &name).await;
        runner.run_in(Some(self.docker));
        runner.binary = Binary::Faults;
        runner.environment = environment;
        runner.spawn();
        let scenario = Scenario::play(self.story, &client, &name, &name).await;
        let owner = async {
            scenario.check(self.story, &client).await;
            // Also the deaths at the very end must leave nothing.
            self.docker.nothing_of(&self.docker.owner_of(&name)).await;
        };
        let lives = async {
            let ended = runner.program().end(Duration::from_mins(4)).await;
            assert!(!ended.success(), "{name}: a runner left by itself");
            runner.environment.clear();
            runner.start().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = owner => {}
            () = lives => {}
        }
        for (run, attempts) in scenario.runs.iter().zip([1, 2, 1]) {
            assert_eq!(
                self.events.made(run),
                attempts,
                "{name}: {:?}",
                self.events.of(run)
            );
        }
        let fired = runner.environment.is_empty();
        runner.kill().await;
        fired
    }
}

#[tokio::test]
async fn a_runner_killed_in_the_middle_of_output_goes_on_where_it_was() {
    told(p2_survives::runner_killed).await;
}

#[tokio::test]
async fn a_server_killed_and_started_again_goes_on_where_it_was() {
    told(p2_survives::server_killed).await;
}

#[tokio::test]
async fn runner_and_server_killed_together_go_on_where_they_were() {
    told(p2_survives::both_killed).await;
}

#[tokio::test]
async fn a_link_cut_again_and_again_loses_no_line() {
    told(p2_survives::link_cut).await;
}

#[tokio::test]
async fn a_drained_runner_lets_go_of_its_containers_and_its_next_life_takes_them_up() {
    told(p2_survives::runner_drained).await;
}

/// The story of processes, told of containers.
async fn told(tell: impl AsyncFnOnce(&Story, Option<&Docker>)) {
    Story::told(90, async |story| {
        if let Some(docker) = Docker::of(&story) {
            tell(&story, Some(&docker)).await;
        }
    })
    .await;
}
