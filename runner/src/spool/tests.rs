//! Copies over the fake backend.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use bytes::Bytes;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::log::LogItem;
use hybrid_runner_core::run::Outcome;
use hybrid_runner_core::testing::{Control, FakeBackend, Harness, skipped};
use tokio::time::timeout;

use super::*;

/// The contract, held by an executor whose logs are copied.
struct Outer(World);

#[async_trait]
impl Harness for Outer {
    /// Each has a disk of its own: two never share one.
    async fn executor(&self) -> Arc<dyn Executor> {
        let disk = self.0.disk.path().join(RunId::generate().to_string());
        let inner = self.0.backend.executor();
        Arc::new(Spooled::new(inner, &disk, "fake", self.0.room.clone()))
    }

    fn tick(&self) -> Duration {
        self.0.backend.tick()
    }

    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        self.0.backend.other_owner().await
    }

    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        let elsewhere = World::new();
        elsewhere.backend.set_reachable(false);
        Some(Arc::new(elsewhere.life()))
    }

    async fn half_start(&self, spec: &RunSpec, secrets: &Secrets) -> bool {
        self.0.backend.half_start(spec, secrets).await
    }

    async fn alive(&self, run: RunId) -> Option<bool> {
        self.0.backend.alive(run).await
    }

    async fn starts(&self, run: RunId) -> Option<u32> {
        Some(self.0.backend.starts_of(run))
    }
}

hybrid_runner_core::executor_contract_tests!(
    #[tokio::test(start_paused = true)]
    Outer(World::new())
);

const SOON: Duration = Duration::from_secs(20);

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(SOON, work).await.expect("in time")
}

/// A backend that may drop logs, and a disk for the copies.
struct World {
    backend: FakeBackend,
    disk: tempfile::TempDir,
    room: Room,
}

impl World {
    fn new() -> Self {
        let backend = FakeBackend::new();
        let mut can = Capabilities::least();
        can.logs = LogKeeping::Volatile;
        can.streams = true;
        backend.set_capabilities(can);
        Self {
            backend,
            disk: tempfile::tempdir().unwrap(),
            room: Room::new(1 << 30, 1 << 30),
        }
    }

    /// A life of the runner.
    fn life(&self) -> Spooled {
        let inner = self.backend.executor();
        Spooled::new(inner, self.disk.path(), "fake", self.room.clone())
    }

    /// A run that does as it is told by hand.
    async fn begin(&self, life: &Spooled) -> (Handle, Control) {
        let run = RunId::generate().attempt(1);
        let spec = RunSpec::new(run, "by-hand".parse().unwrap(), ["work"]);
        let (secrets, progress) = (Secrets::none(), Progress::none());
        let started = life.start(&spec, &secrets, &progress);
        let handle = within(started).await.unwrap();
        let control = self.backend.control(run);
        within(control.begun()).await;
        (handle, control)
    }

    fn file(&self, run: &Handle) -> PathBuf {
        let folder = self.disk.path().join(FOLDER).join("fake");
        folder.join(format!("{}.log", run.run))
    }

    /// Until the copy has this.
    async fn copied(&self, run: &Handle, text: &str) {
        let path = self.file(run);
        within(async {
            loop {
                let copy = fs::read(&path).unwrap_or_default();
                if String::from_utf8_lossy(&copy).contains(text) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

fn text(chunk: &LogChunk) -> Bytes {
    match &chunk.item {
        LogItem::Data { bytes, .. } => bytes.clone(),
        _ => Bytes::from_static(b"[gap]"),
    }
}

/// A world with a life in it, and a run of that.
async fn begun(world: World) -> (World, Spooled, Handle, Control) {
    let life = world.life();
    let (run, control) = world.begin(&life).await;
    (world, life, run, control)
}

/// The first chunk from there.
async fn first(life: &Spooled, run: &Handle, from: Option<LogCursor>) -> LogChunk {
    let mut chunks = life.logs(run, from);
    within(chunks.next()).await.unwrap().unwrap()
}

/// All that is left from there, and the last cursor.
async fn rest(life: &Spooled, run: &Handle, from: Option<LogCursor>) -> Result<String> {
    let mut chunks = life.logs(run, from);
    let mut all = Vec::new();
    while let Some(chunk) = within(chunks.next()).await {
        all.extend_from_slice(&text(&chunk?));
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

#[tokio::test]
async fn what_was_written_while_nobody_read_is_there_though_the_backend_dropped_it() {
    let (world, life, run, control) = begun(World::new()).await;
    control.emit("first\n");
    let first = first(&life, &run, None).await;
    assert_eq!(text(&first), "first\n");
    control.emit("second\n");
    world.copied(&run, "second").await;
    control.rotate(0);
    control.emit("third\n");
    control.finish(Outcome::Succeeded);
    world.copied(&run, "\"end\"").await;
    control.vanish();
    let left = rest(&life, &run, Some(first.next.clone())).await.unwrap();
    assert_eq!(left, "second\nthird\n");
    // Nor does the next life need the backend.
    drop(life);
    let life = world.life();
    let left = rest(&life, &run, Some(first.next)).await.unwrap();
    assert_eq!(left, "second\nthird\n");
    within(life.remove(&run)).await.unwrap();
    assert!(!world.file(&run).exists());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_nobody_asks_for_is_copied_from_its_beginning() {
    let (world, life, run, control) = begun(World::new()).await;
    control.emit("alone\n");
    world.copied(&run, "alone").await;
    drop(life);
    control.emit("between\n");
    let life = world.life();
    assert_eq!(within(life.list()).await.unwrap().len(), 1);
    world.copied(&run, "between").await;
    control.finish(Outcome::Succeeded);
    assert_eq!(rest(&life, &run, None).await.unwrap(), "alone\nbetween\n");
}

#[tokio::test]
async fn a_life_without_a_disk_goes_on_where_the_control_plane_is() {
    let (world, life, run, control) = begun(World::new()).await;
    control.emit("one\n");
    let mut chunks = life.logs(&run, None);
    let first = within(chunks.next()).await.unwrap().unwrap();
    drop((chunks, life));
    fs::remove_file(world.file(&run)).unwrap();
    let life = world.life();
    control.emit("two\n");
    let mut chunks = life.logs(&run, Some(first.next.clone()));
    let second = within(chunks.next()).await.unwrap().unwrap();
    assert_eq!(text(&second), "two\n");
    drop(chunks);
    control.emit("three\n");
    world.copied(&run, "three").await;
    control.rotate(0);
    control.finish(Outcome::Succeeded);
    let left = rest(&life, &run, Some(first.next)).await.unwrap();
    assert_eq!(left, "two\nthree\n");
}

#[tokio::test]
async fn a_place_that_is_not_in_the_copy_is_asked_for_at_the_backend() {
    let (world, life, run, control) = begun(World::new()).await;
    control.emit("one\n");
    let first = first(&life, &run, None).await;
    control.emit("two\n");
    world.copied(&run, "two").await;
    drop(life);
    // The copy of a life that began elsewhere.
    fs::remove_file(world.file(&run)).unwrap();
    let life = world.life();
    let mut chunks = life.logs(&run, Some(first.next.clone()));
    assert_eq!(
        text(&within(chunks.next()).await.unwrap().unwrap()),
        "two\n"
    );
    drop(chunks);
    // Before it.
    let mut chunks = life.logs(&run, None);
    assert_eq!(
        text(&within(chunks.next()).await.unwrap().unwrap()),
        "one\n"
    );
    drop(chunks);
    let other = life.logs(&run, Some("no cursor of it".parse().unwrap()));
    let refused = within(other.collect::<Vec<_>>()).await;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].as_ref().unwrap_err().kind(), ErrorKind::Invalid);
    control.rotate(0);
    control.finish(Outcome::Succeeded);
    let left = rest(&life, &run, Some(first.next)).await.unwrap();
    assert_eq!(left, "two\n", "the refusal left the copy alone");
}

#[tokio::test]
async fn what_finds_no_room_goes_past_the_disk_and_waits_for_whoever_reads() {
    let mut world = World::new();
    world.room = Room::new(1 << 30, 6000);
    let (world, life, run, control) = begun(world).await;
    let mut wanted = String::new();
    for number in 0..100 {
        let words = format!("{number} {}\n", "x".repeat(1000));
        control.emit(&words);
        wanted.push_str(&words);
    }
    world.copied(&run, "4 x").await;
    control.finish(Outcome::Succeeded);
    assert_eq!(rest(&life, &run, None).await.unwrap(), wanted);
}

#[tokio::test]
async fn without_a_disk_that_can_be_written_logs_flow_all_the_same() {
    let world = World::new();
    fs::write(world.disk.path().join(FOLDER), "in the way").unwrap();
    let life = world.life();
    let (run, control) = world.begin(&life).await;
    control.emit("one\n");
    let first = first(&life, &run, None).await;
    assert_eq!(text(&first), "one\n");
    control.emit("two\n");
    control.finish(Outcome::Succeeded);
    let left = rest(&life, &run, Some(first.next)).await.unwrap();
    assert_eq!(left, "two\n");
}

#[tokio::test]
async fn a_small_disk_is_not_filled_and_nothing_is_lost() {
    let world = World::new();
    let disk = world.disk.path();
    let mount = || {
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(disk)
            .output()
    };
    if !mount().is_ok_and(|mount| mount.status.success()) {
        return skipped("a small disk cannot be mounted: that needs root");
    }
    let life = world.life();
    let (run, control) = world.begin(&life).await;
    let block = "x".repeat(64 << 10);
    for _ in 0..160 {
        control.emit(&block);
    }
    control.finish(Outcome::Succeeded);
    within(async {
        while fs::metadata(world.file(&run)).map_or(0, |file| file.len()) < 4 << 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let journal = fs::write(disk.join("journal"), vec![1; 1 << 20]);
    let log = rest(&life, &run, None).await;
    drop(life);
    drop(Command::new("umount").arg("-l").arg(disk).output());
    journal.expect("there is room for the journal");
    assert_eq!(log.unwrap().len(), 160 * block.len());
}

#[tokio::test]
async fn what_was_read_is_given_back_and_a_megabyte_of_it_is_kept() {
    let (world, life, run, control) = begun(World::new()).await;
    let block = "x".repeat(64 << 10);
    for _ in 0..64 {
        control.emit(&block);
    }
    control.finish(Outcome::Succeeded);
    let mut chunks = life.logs(&run, None);
    let mut cursors = Vec::new();
    while let Some(chunk) = within(chunks.next()).await {
        cursors.push(chunk.unwrap().next);
    }
    assert_eq!(cursors.len(), 64);
    let taken = fs::metadata(world.file(&run)).unwrap().blocks() * 512;
    assert!((1 << 20..3 << 20).contains(&taken), "{taken}");
    // What was on its way when the link died is still there.
    control.vanish();
    let left = rest(&life, &run, Some(cursors[49].clone())).await.unwrap();
    assert_eq!(left.len(), 14 * block.len());
}

#[tokio::test]
async fn a_damaged_copy_is_copied_anew() {
    let (world, life, run, control) = begun(World::new()).await;
    control.emit("one\n");
    world.copied(&run, "one").await;
    let copy = fs::read(world.file(&run)).unwrap();
    let damaged = String::from_utf8(copy)
        .unwrap()
        .replace("\"text\"", "\"txet\"");
    fs::write(world.file(&run), damaged).unwrap();
    control.finish(Outcome::Succeeded);
    let error = rest(&life, &run, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(rest(&life, &run, None).await.unwrap(), "one\n");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_backend_is_told_and_the_log_asked_for_again() {
    let (world, life, run, control) = begun(World::new()).await;
    control.emit("one\n");
    world.copied(&run, "one").await;
    world.backend.set_reachable(false);
    world.backend.cut_streams();
    let error = rest(&life, &run, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    world.backend.set_reachable(true);
    control.emit("two\n");
    world.copied(&run, "two").await;
    control.finish(Outcome::Succeeded);
    assert_eq!(rest(&life, &run, None).await.unwrap(), "one\ntwo\n");
}

#[test]
fn copies_of_runs_that_nobody_knows_are_deleted() {
    let disk = tempfile::tempdir().unwrap();
    let folder = disk.path().join(FOLDER).join("a");
    fs::create_dir_all(&folder).unwrap();
    let (known, unknown) = (RunId::generate(), RunId::generate());
    for run in [known, unknown] {
        fs::write(folder.join(format!("{}.log", run.attempt(2))), "").unwrap();
    }
    sweep(disk.path(), &HashSet::from([known]));
    let left: Vec<_> = fs::read_dir(&folder).unwrap().collect();
    assert_eq!(left.len(), 1);
    let name = left[0].as_ref().unwrap().file_name();
    assert_eq!(name.to_string_lossy(), format!("{}.log", known.attempt(2)));
}
