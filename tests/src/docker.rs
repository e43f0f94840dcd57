//! A real Docker Engine, and what it has of a story, seen from outside: by its own API and not by our client.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use hybrid_runner_core::id::Owner;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::skipped;
use crate::story::{Story, files};

/// The image of shell scripts.
pub const BUSYBOX: &str = "hybrid-runner-test/busybox:1";

/// The label by which the containers of a story are found; its value is the story's folder.
const STORY_LABEL: &str = "story";
const OWNER_LABEL: &str = "io.hybrid-runner.owner";
const RUN_LABEL: &str = "io.hybrid-runner.run";

/// An engine that is being restarted, or that tells of nothing, is asked again this often.
const AGAIN: Duration = Duration::from_millis(50);
/// What is waited for comes within this, or the story fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// An engine, and the containers that one story has in it. When dropped, they are removed, with all they left.
#[derive(Debug)]
pub struct Docker {
    story: Story,
    address: String,
}

impl Docker {
    /// The engine of the tests; where there is none, the story is skipped.
    pub fn of(story: &Story) -> Option<Self> {
        let address = std::env::var("HYBRID_RUNNER_TEST_DOCKER").unwrap_or_default();
        if address.is_empty() {
            skipped(
                "no engine: `HYBRID_RUNNER_TEST_DOCKER` is not set (scripts/services/docker up)",
            );
            return None;
        }
        Some(Self::at(story, &address))
    }

    /// The engine at this address.
    pub fn at(story: &Story, address: &str) -> Self {
        Self {
            story: story.clone(),
            address: address.to_owned(),
        }
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The lines of `[executors.NAME]` that run work in it: scripts find the story's folder as local ones do.
    pub fn section(&self) -> String {
        self.section_with(BUSYBOX)
    }

    /// The same with another image.
    pub fn section_with(&self, image: &str) -> String {
        let folder = self.story.folder().display();
        format!(
            "kind = \"docker\"\nhost = \"{}\"\nimage = \"{image}\"\nnetwork = \"none\"\n\
             mounts = [{{ source = \"{folder}\", target = \"{folder}\" }}]\nlabels = {{ {STORY_LABEL} = \"{folder}\" }}\n",
            self.address
        )
    }

    /// Asks once: the code and the JSON.
    pub async fn ask(&self, method: Method, path: &str) -> reqwest::Result<(StatusCode, Value)> {
        Api::of(&self.address).ask(method, path).await
    }

    /// GETs what must be there.
    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self
            .ask(Method::GET, path)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error:?}"));
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    /// The containers of the story, whether they run or not.
    pub async fn containers(&self) -> Vec<Value> {
        let label = self.label();
        list(self.get(&by_label(CONTAINERS, &label)).await)
    }

    /// The containers of one owner.
    pub async fn containers_of(&self, owner: &Owner) -> Vec<Value> {
        list(
            self.get(&by_label(CONTAINERS, &format!("{OWNER_LABEL}={owner}")))
                .await,
        )
    }

    /// The volumes of one owner: the marks of its stops.
    pub async fn volumes_of(&self, owner: &Owner) -> Vec<Value> {
        let path = by_label("/volumes", &format!("{OWNER_LABEL}={owner}"));
        list(self.get(&path).await["Volumes"].take())
    }

    /// The one container of a run.
    pub async fn container(&self, run: &str) -> Value {
        let found = self.containers().await;
        let mut of_run = found.iter().filter(|container| run_of(container) == run);
        let one = of_run
            .next()
            .unwrap_or_else(|| panic!("no container of {run} among {found:?}"));
        assert!(
            of_run.next().is_none(),
            "two containers of {run}: {found:?}"
        );
        let id = one["Id"].as_str().expect("a container has an id");
        self.get(&format!("/containers/{id}/json")).await
    }

    /// Waits until nothing of an owner is left: no container, no mark.
    pub async fn nothing_of(&self, owner: &Owner) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut left = self.containers_of(owner).await;
            left.extend(self.volumes_of(owner).await);
            if left.is_empty() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left in the engine after {PATIENCE:?}: {left:?}"
            );
            sleep(AGAIN).await;
        }
    }

    /// Whose the objects of a runner of the story are, once that was started.
    pub fn owner_of(&self, runner: &str) -> Owner {
        let file = self.story.path(&format!("{runner}.data/owner"));
        owner(&file).unwrap_or_else(|| panic!("no owner in `{}`", file.display()))
    }

    /// What it tells of the story's containers from now on.
    pub fn events(&self) -> Events {
        let told = Arc::default();
        let mut task = JoinSet::new();
        task.spawn(listen(
            self.address.clone(),
            self.label(),
            Arc::clone(&told),
        ));
        Events { told, _task: task }
    }

    fn label(&self) -> String {
        format!("{STORY_LABEL}={}", self.story.folder().display())
    }
}

impl Drop for Docker {
    /// By a thread of its own: a drop cannot wait.
    fn drop(&mut self) {
        let (address, label) = (self.address.clone(), self.label());
        let owners = owners(self.story.folder());
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            if let Ok(runtime) = runtime {
                runtime.block_on(clean(&address, &label, owners));
            }
        });
        drop(cleaning.join());
    }
}

const CONTAINERS: &str = "/containers/json?all=true";

async fn clean(address: &str, label: &str, mut owners: BTreeSet<String>) {
    let api = Api::of(address);
    let found = async |path: String| match api.ask(Method::GET, &path).await {
        Ok((_, Value::Object(mut answer))) => list(answer.remove("Volumes").unwrap_or_default()),
        Ok((_, answer)) => list(answer),
        Err(_) => Vec::new(),
    };
    let remove = async |path: String| drop(api.ask(Method::DELETE, &path).await);
    let containers = found(by_label(CONTAINERS, label)).await;
    let of_owner = |container: &Value| container["Labels"][OWNER_LABEL].as_str().map(str::to_owned);
    owners.extend(containers.iter().filter_map(of_owner));
    let labels = owners.iter().map(|owner| format!("{OWNER_LABEL}={owner}"));
    let mut all = containers;
    for label in labels {
        all.extend(found(by_label(CONTAINERS, &label)).await);
    }
    for container in all {
        let id = container["Id"].as_str().unwrap_or_default();
        remove(format!("/containers/{id}?force=true&v=true")).await;
    }
    for owner in owners {
        for volume in found(by_label("/volumes", &format!("{OWNER_LABEL}={owner}"))).await {
            let name = volume["Name"].as_str().unwrap_or_default();
            remove(format!("/volumes/{name}")).await;
        }
    }
}

/// The owners that the runners of a story have been.
fn owners(folder: &Path) -> BTreeSet<String> {
    let files = files(folder, ".data/owner");
    let owners = files.iter().filter_map(|file| owner(file));
    owners.map(|owner| owner.to_string()).collect()
}

/// By the file in its data that says which control plane it first had.
fn owner(file: &Path) -> Option<Owner> {
    let data = file.parent()?.file_name()?.to_str()?;
    let agent = data.strip_suffix(".data")?.parse().ok()?;
    let server = std::fs::read_to_string(file).ok()?;
    Some(Owner::of(server.trim(), &agent))
}

/// The run, without its attempt, of a container or of an event's attributes.
fn run_of(container: &Value) -> &str {
    let labels = [&container["Labels"][RUN_LABEL], &container[RUN_LABEL]];
    let attempt = labels.iter().find_map(|label| label.as_str());
    attempt.unwrap_or_default().split('.').next().unwrap_or("")
}

fn list(answer: Value) -> Vec<Value> {
    match answer {
        Value::Array(list) => list,
        _ => Vec::new(),
    }
}

fn by_label(path: &str, label: &str) -> String {
    let filters = json!({"label": [label]}).to_string();
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}filters={}", escaped(&filters))
}

/// As a part of a URL.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// The engine's API.
struct Api {
    http: reqwest::Client,
    base: String,
}

impl Api {
    fn of(address: &str) -> Self {
        let builder = reqwest::Client::builder().no_proxy();
        let (builder, base) = match address.split_once("://") {
            Some(("unix", path)) => (builder.unix_socket(path), "http://engine".to_owned()),
            Some((_, host)) => (builder, format!("http://{host}")),
            None => panic!("`{address}` is no address of an engine"),
        };
        let http = builder
            .build()
            .expect("a client without certificates can be built");
        Self { http, base }
    }

    async fn ask(&self, method: Method, path: &str) -> reqwest::Result<(StatusCode, Value)> {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let response = request.timeout(PATIENCE).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        let text = || json!(String::from_utf8_lossy(&body));
        Ok((
            status,
            serde_json::from_slice(&body).unwrap_or_else(|_| text()),
        ))
    }
}

/// Something that happened to a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// When, in nanoseconds since the epoch.
    pub time: i64,
    /// What: `create`, `start`, `die`, `destroy`, …
    pub action: String,
    /// To which container.
    pub container: String,
    /// Of which run, without the attempt.
    pub run: String,
}

/// What the engine tells of the containers of a story, also of those that are gone.
#[derive(Debug)]
pub struct Events {
    told: Arc<Mutex<BTreeSet<Event>>>,
    _task: JoinSet<()>,
}

impl Events {
    /// All so far, in their order.
    pub fn all(&self) -> Vec<Event> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().cloned().collect()
    }

    /// Those of one run.
    pub fn of(&self, run: &str) -> Vec<Event> {
        let mut events = self.all();
        events.retain(|event| event.run == run);
        events
    }

    /// How many containers were ever made for a run.
    pub fn made(&self, run: &str) -> usize {
        self.count(run, "create")
    }

    /// How many of them were ever started.
    pub fn started(&self, run: &str) -> usize {
        self.count(run, "start")
    }

    fn count(&self, run: &str, action: &str) -> usize {
        let of_run = self.of(run);
        let such = of_run.iter().filter(|event| event.action == action);
        let containers: BTreeSet<_> = such.map(|event| &event.container).collect();
        containers.len()
    }

    /// The most containers that ran at one time.
    pub fn most_at_once(&self) -> usize {
        let mut running = BTreeSet::new();
        let mut most = 0;
        for event in self.all() {
            match event.action.as_str() {
                "start" => _ = running.insert(event.container),
                "die" => _ = running.remove(&event.container),
                _ => {}
            }
            most = most.max(running.len());
        }
        most
    }
}

/// Listens for ever. The engine tells once more what it has kept since the beginning whenever it is asked again.
async fn listen(address: String, label: String, told: Arc<Mutex<BTreeSet<Event>>>) {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let filters = json!({"label": [label], "type": ["container"]}).to_string();
    loop {
        let api = Api::of(&address);
        let url = format!(
            "{}/events?since={since}&filters={}",
            api.base,
            escaped(&filters)
        );
        if let Ok(response) = api.http.get(url).send().await {
            let mut body = response.bytes_stream();
            let mut text = Vec::new();
            while let Some(Ok(bytes)) = body.next().await {
                text.extend_from_slice(&bytes);
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    if let Some(event) = event(&line) {
                        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                        told.insert(event);
                    }
                }
            }
        }
        sleep(AGAIN).await;
    }
}

fn event(line: &[u8]) -> Option<Event> {
    let event: Value = serde_json::from_slice(line).ok()?;
    let actor = &event["Actor"];
    Some(Event {
        time: event["timeNano"].as_i64()?,
        action: event["Action"].as_str()?.to_owned(),
        container: actor["ID"].as_str()?.to_owned(),
        run: run_of(&actor["Attributes"]).to_owned(),
    })
}
