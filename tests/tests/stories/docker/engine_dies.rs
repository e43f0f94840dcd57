//! Deaths of the engine, alone and with the runner: the true end, one container, no line twice, and what the engine lost
//! is one gap.

use std::time::Duration;

use hybrid_runner_tests::docker::Events;
use hybrid_runner_tests::follow::Event;
use hybrid_runner_tests::processes::until;
use hybrid_runner_tests::{Client, Docker, Engine, Follow, Run, Runner, Server, Story};
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_mins(1);

/// So many lines are known to have arrived before the engine dies.
const BEFORE: usize = 20;

/// A run that prints until it is told to end, and leaves evidence of each line.
struct Printing {
    name: String,
    run: String,
    follow: Follow,
}

impl Printing {
    async fn submit(story: &Story, client: &Client, runner: &str, kind: &str) -> Self {
        let name = format!("{kind}-{runner}");
        let script = format!(
            "echo start >> $STORY/{name}.starts; i=0; while [ ! -e $STORY/{kind}.gate ]; do i=$((i+1)); \
             echo line $i; echo $i >> $STORY/{name}.lines; sleep 0.02; done; echo over >> $STORY/{name}.over; exit 3"
        );
        let workflow = story.sh(&name, &script).with("grace", "5s");
        let run = client.submit(&workflow, runner).await;
        let mut follow = client.follow(&run);
        follow.lines(BEFORE).await;
        Self { name, run, follow }
    }

    /// How many lines it has written, whether they arrived or not.
    fn written(&self, story: &Story) -> usize {
        story.read(&format!("{}.lines", self.name)).lines().count()
    }

    fn goes_on(&self, story: &Story) -> impl Future<Output = ()> + use<> {
        let (story, file) = (story.clone(), format!("{}.lines", self.name));
        let goal = self.written(&story) + BEFORE;
        let goes_on = move || (story.read(&file).lines().count() >= goal).then_some(());
        until("the work goes on without the engine", SOON, goes_on)
    }

    fn is_over(&self, story: &Story) -> impl Future<Output = ()> + use<> {
        let over = story.path(&format!("{}.over", self.name));
        let is_over = move || over.exists().then_some(());
        until("the work ends without the engine", SOON, is_over)
    }

    /// Waits until more of its log arrives: the engine is there again.
    async fn tells_more(&mut self) {
        while !matches!(self.follow.next().await, Event::Log(..)) {}
    }

    /// Its end. There was one container, started once; what had arrived is there, in its order and none twice; what is
    /// missing is told.
    async fn end(&mut self, story: &Story, events: &Events) -> Run {
        let end = self.follow.end().await;
        let name = &self.name;
        assert_eq!(story.read(&format!("{name}.starts")), "start\n", "{name}");
        assert_eq!(
            events.made(&self.run),
            1,
            "{name}: {:?}",
            events.of(&self.run)
        );
        let lines = self.lines();
        let known = lines.iter().copied().take(BEFORE);
        assert!(known.eq(1..=BEFORE), "{name}: {lines:?}");
        let (gaps, written) = (&self.follow.gaps, self.written(story));
        let lost = lines.len() < written;
        assert!(
            *gaps == ["crashed"] || !lost && gaps.is_empty(),
            "{name}: {} of {written} lines, gaps {gaps:?}",
            lines.len()
        );
        end
    }

    /// The numbers of the lines that arrived.
    fn lines(&self) -> Vec<usize> {
        let text = self.follow.text();
        let number = |line: &str| line.strip_prefix("line ")?.parse().ok();
        let number = |line| number(line).unwrap_or_else(|| panic!("{}: `{line}`", self.name));
        let numbers: Vec<usize> = text.lines().map(number).collect();
        let is_once = numbers.is_sorted_by(|one, next| one < next);
        assert!(is_once, "{}: {numbers:?}", self.name);
        numbers
    }

    fn is_whole(&self, story: &Story) {
        let gaps = &self.follow.gaps;
        assert!(gaps.is_empty(), "{}: {gaps:?}", self.name);
        assert_eq!(self.lines().len(), self.written(story), "{}", self.name);
    }
}

/// What there is of one runner when the engine dies, and behind it.
struct Witness {
    id: &'static str,
    /// Goes on printing.
    on: Printing,
    /// Ends while the engine is away.
    over: Printing,
    /// Is stopped while the engine is away.
    stopped: Printing,
    /// Is submitted while the engine is away.
    late: Option<String>,
}

impl Witness {
    async fn begin(story: &Story, client: &Client, id: &'static str) -> Self {
        let (on, over, stopped) = tokio::join!(
            Printing::submit(story, client, id, "on"),
            Printing::submit(story, client, id, "over"),
            Printing::submit(story, client, id, "stopped"),
        );
        Self {
            id,
            on,
            over,
            stopped,
            late: None,
        }
    }

    async fn while_it_is_away(&mut self, story: &Story, client: &Client) {
        client.stop(&self.stopped.run).await;
        let script = format!("echo start >> $STORY/late-{}.starts; echo here", self.id);
        self.late = Some(client.submit(&story.sh("late", &script), self.id).await);
        self.on.goes_on(story).await;
        self.over.is_over(story).await;
    }

    /// What is so whatever the engine does with its containers.
    async fn check(&mut self, story: &Story, client: &Client, events: &Events) {
        let end = self.over.end(story, events).await;
        end.expect_failed("exit", &["3"]);
        let late = self.late.take().expect("it was submitted");
        client.finished(&late).await.expect("succeeded");
        assert_eq!(client.text(&late).await, "here\n");
        assert_eq!(story.read(&format!("late-{}.starts", self.id)), "start\n");
        assert_eq!(events.made(&late), 1);
    }
}

/// What an engine's death is told with: two runners, of which the second is killed with the engine.
struct Scene {
    story: Story,
    docker: Docker,
    _engine: Engine,
    events: Events,
    client: Client,
    _server: Server,
    _runners: Vec<Runner>,
    witnesses: [Witness; 2],
}

impl Scene {
    /// Up to the engine's return.
    async fn play(story: &Story, options: &[&str]) -> Option<Self> {
        let mut engine = Engine::started(options).await?;
        let docker = Docker::at(story, engine.address());
        let events = docker.events();
        let server = Server::started(story).await;
        let client = server.client();
        let mut runners = Vec::new();
        for id in ["stays", "dies"] {
            let mut runner = Runner::new(story, &server, id).await;
            runner.run_in(Some(&docker));
            runner.start().await;
            runners.push(runner);
        }
        let (stays, dies) = tokio::join!(
            Witness::begin(story, &client, "stays"),
            Witness::begin(story, &client, "dies"),
        );
        let mut witnesses = [stays, dies];

        tokio::join!(engine.kill(), runners[1].kill());
        story.write("over.gate", "");
        for witness in &mut witnesses {
            witness.while_it_is_away(story, &client).await;
        }
        not_ready(&runners[0]).await;
        engine.start().await;
        runners[1].start().await;
        runners[0].ready().await;
        Some(Self {
            story: story.clone(),
            docker,
            _engine: engine,
            events,
            client,
            _server: server,
            _runners: runners,
            witnesses,
        })
    }

    async fn check(&mut self) {
        for witness in &mut self.witnesses {
            witness.check(&self.story, &self.client, &self.events).await;
            self.docker
                .nothing_of(&self.docker.owner_of(witness.id))
                .await;
        }
    }
}

/// Waits until a runner says that its engine is away.
async fn not_ready(runner: &Runner) {
    let deadline = Instant::now() + SOON;
    loop {
        let (code, words) = runner.ask("readyz").await;
        if code != 200 && words.contains("docker.sock") {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "its engine is away: {code} {words}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_killed_without_live_restore_ends_its_containers_and_that_is_told() {
    Story::told(200, async |story| {
        let Some(mut scene) = Scene::play(&story, &[]).await else {
            return;
        };
        for witness in &mut scene.witnesses {
            let end = witness.on.end(&story, &scene.events).await;
            end.expect_failed("killed", &["the engine was shut down"]);
            // Where the engine is quicker than the stop, it has ended already.
            let end = witness.stopped.end(&story, &scene.events).await;
            assert!(
                end.state() == "stopped" || end.class() == "killed",
                "{}",
                end.0
            );
        }
        scene.check().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_killed_with_live_restore_loses_nothing_of_what_goes_on() {
    Story::told(200, async |story| {
        let Some(mut scene) = Scene::play(&story, &["--live-restore"]).await else {
            return;
        };
        for witness in &mut scene.witnesses {
            witness.on.tells_more().await;
        }
        story.write("on.gate", "");
        for witness in &mut scene.witnesses {
            let end = witness.on.end(&story, &scene.events).await;
            end.expect_failed("exit", &["3"]);
            witness.on.is_whole(&story);
            let end = witness.stopped.end(&story, &scene.events).await;
            end.expect("stopped");
            witness.stopped.is_whole(&story);
        }
        scene.check().await;
    })
    .await;
}

/// Runs that the engine dies under while they start, at several moments: each is started once at most.
async fn killed_while_containers_start(story: &Story, options: &[&str]) -> Option<Vec<Run>> {
    let mut engine = Engine::started(options).await?;
    let docker = Docker::at(story, engine.address());
    let events = docker.events();
    let server = Server::started(story).await;
    let client = server.client();
    let mut runner = Runner::started_in(story, &server, Some(&docker)).await;
    let mut ends = Vec::new();
    for (round, millis) in [50, 400, 800].into_iter().enumerate() {
        let mut runs = Vec::new();
        for number in 0..4 {
            let name = format!("start-{round}-{number}");
            let script = format!("echo start >> $STORY/{name}.starts; echo here; sleep 0.2");
            let run = client.submit(&story.sh(&name, &script), "runner-1").await;
            runs.push((name, run));
        }
        // No event tells the moments between.
        sleep(Duration::from_millis(millis)).await;
        engine.kill().await;
        if round % 2 == 1 {
            runner.kill().await;
            runner.spawn();
        }
        engine.start().await;
        for (name, run) in runs {
            let end = client.finished(&run).await;
            let starts = story.read(&format!("{name}.starts")).lines().count();
            assert!(starts <= 1, "{name} was started {starts} times");
            // One that the engine was about to start when it died is put away, and another one made.
            assert!(events.started(&run) <= 1, "{name}: {:?}", events.of(&run));
            let is_true = match end.class() {
                "" => starts == 1,
                // Its input was lost between the claim and the last byte.
                "backend" => starts == 0,
                class => class == "killed" && !options.contains(&"--live-restore"),
            };
            assert!(is_true, "{name} was started {starts} times: {}", end.0);
            ends.push(end);
        }
    }
    docker.nothing_of(&docker.owner_of(&runner.id)).await;
    Some(ends)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_under_which_the_engine_dies_are_completed_where_it_keeps_its_containers() {
    Story::told(200, async |story| {
        let ends = killed_while_containers_start(&story, &["--live-restore"]).await;
        let Some(ends) = ends else { return };
        let good = ends.iter().filter(|end| end.state() == "succeeded");
        assert!(good.count() * 4 > ends.len() * 3, "{ends:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_under_which_the_engine_dies_happen_once_at_most_where_it_ends_its_containers() {
    Story::told(200, async |story| {
        killed_while_containers_start(&story, &[]).await;
    })
    .await;
}
