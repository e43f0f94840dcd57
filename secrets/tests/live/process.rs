//! A store asked from a process of its own: with variables, and if need be a network, that only it has.
//!
//! Platforms tell an identity by variables, and by addresses that every machine of theirs has. Neither can be set in the process of
//! the tests. So these tests start their own program once more, for the one test at the end of this file, which builds a store from
//! a section and answers over a socket; sockets in the file system reach into another network.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hybrid_runner_core::secret::{SecretName, SecretProvider};
use hybrid_runner_secrets::Refusal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Where the socket and everything else of the process lie; only that process has it.
const FOLDER: &str = "HYBRID_RUNNER_LIVE_FOLDER";
/// Longer than any answer takes.
const LIMIT: Duration = Duration::from_secs(40);
/// What a network of its own is made of, before the program starts in it.
const NETWORK: &str = r#"set -e
ip link set lo up
for address in $ADDRESSES; do ip address add "$address/32" dev lo; done
mount --bind "$HOSTS" /etc/hosts
exec "$@""#;

/// A machine of a platform, as a process sees it.
pub(crate) struct Machine {
    section: Value,
    variables: Vec<(&'static str, OsString)>,
    /// Addresses in its own network, and who answers there.
    answering: Vec<(SocketAddr, SocketAddr)>,
    hosts: String,
}

/// What the process was asked, refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: String,
    pub(crate) report: String,
}

impl Machine {
    /// One with a section `[secrets.NAME]`.
    pub(crate) fn with(section: Value) -> Self {
        Self {
            section,
            variables: Vec::new(),
            answering: Vec::new(),
            hosts: String::new(),
        }
    }

    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// In a network of its own, somebody answers at an address.
    pub(crate) fn answers(mut self, at: &str, who: SocketAddr) -> Self {
        self.answering.push((at.parse().unwrap(), who));
        self
    }

    /// And is called by a name.
    #[cfg(feature = "gcp")]
    pub(crate) fn called(mut self, name: &str, address: &str) -> Self {
        self.hosts = format!("{}{address} {name}\n", self.hosts);
        self
    }

    /// Whether networks can be made here.
    pub(crate) fn has_networks() -> bool {
        let mut probe = Command::new("unshare");
        probe.args(["--net", "--mount", "ip", "link", "set", "lo", "up"]);
        probe.stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    }

    pub(crate) async fn start(self) -> Process {
        let folder = TempDir::new().unwrap();
        let text =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let inside: Vec<_> = self
            .answering
            .iter()
            .map(|(at, _)| at.to_string())
            .collect();
        text("section", self.section.to_string());
        text("answering", inside.join("\n"));
        text("hosts", format!("127.0.0.1 localhost\n{}", self.hosts));
        let mut bridges = JoinSet::new();
        for (number, (_, who)) in self.answering.iter().enumerate() {
            let listener = UnixListener::bind(folder.path().join(number.to_string())).unwrap();
            bridges.spawn(lead_out(listener, *who));
        }
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let child = self.command(folder.path()).spawn().unwrap();
        let child = Ended(child);
        let stream = timeout(LIMIT, listener.accept()).await;
        let (stream, _) = stream
            .unwrap_or_else(|_| panic!("{}", said(folder.path())))
            .unwrap();
        Process {
            stream: BufReader::new(stream),
            folder,
            _child: child,
            _bridges: bridges,
        }
    }

    fn command(&self, folder: &Path) -> Command {
        let program = std::env::current_exe().unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = if self.answering.is_empty() {
            Command::new(program)
        } else {
            let mut within = Command::new("unshare");
            within.args(["--net", "--mount", "sh", "-c", NETWORK, "sh"]);
            within.arg(program);
            within
        };
        command
            .args(["--exact", "process::answers_for_a_store"])
            .args(["--ignored", "--nocapture"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder)
            .env("ADDRESSES", self.addresses())
            .env("HOSTS", folder.join("hosts"))
            .env(FOLDER, folder)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Those that its network must be given.
    fn addresses(&self) -> String {
        let all = self.answering.iter().map(|(at, _)| at.ip());
        let all: BTreeSet<_> = all.filter(|ip| !ip.is_loopback()).collect();
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        all.join(" ")
    }
}

/// The process; it ends with this value.
pub(crate) struct Process {
    stream: BufReader<UnixStream>,
    folder: TempDir,
    _child: Ended,
    _bridges: JoinSet<()>,
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    pub(crate) async fn get(&mut self, name: &SecretName) -> Result<String, Refused> {
        self.ask(json!({"get": name.name})).await
    }

    pub(crate) async fn identity(&mut self) -> Result<String, Refused> {
        self.ask(json!("identity")).await
    }

    pub(crate) async fn check(&mut self) -> Result<String, Refused> {
        self.ask(json!("check")).await
    }

    async fn ask(&mut self, question: Value) -> Result<String, Refused> {
        let question = format!("{question}\n");
        self.stream.write_all(question.as_bytes()).await.unwrap();
        let mut line = String::new();
        let read = timeout(LIMIT, self.stream.read_line(&mut line)).await;
        assert!(
            read.is_ok_and(|read| read.is_ok_and(|bytes| bytes > 0)),
            "no answer: {}",
            said(self.folder.path())
        );
        let answer: Value = serde_json::from_str(&line).unwrap();
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        match text("refusal") {
            None => Ok(text("answer").unwrap()),
            Some(refusal) => Err(Refused {
                refusal,
                report: text("report").unwrap(),
            }),
        }
    }
}

fn said(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}

async fn lead_out(listener: UnixListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        connections.spawn(async move {
            let mut to = TcpStream::connect(to).await?;
            copy_bidirectional(&mut from, &mut to).await
        });
    }
}

async fn lead_in(listener: TcpListener, to: std::path::PathBuf) {
    let mut connections = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        let to = to.clone();
        connections.spawn(async move {
            let mut to = UnixStream::connect(to).await?;
            copy_bidirectional(&mut from, &mut to).await
        });
    }
}

fn store(section: Value) -> std::sync::Arc<dyn SecretProvider> {
    let mut section = section;
    let kind = section.as_object_mut().unwrap().remove("kind").unwrap();
    let store = match kind.as_str().unwrap() {
        #[cfg(feature = "aws")]
        "aws" => hybrid_runner_secrets::aws::provider(serde_json::from_value(section).unwrap()),
        #[cfg(feature = "azure")]
        "azure" => hybrid_runner_secrets::azure::provider(serde_json::from_value(section).unwrap()),
        #[cfg(feature = "gcp")]
        "gcp" => hybrid_runner_secrets::gcp::provider(serde_json::from_value(section).unwrap()),
        other => panic!("no test asks a store of kind `{other}` in this way"),
    };
    store.unwrap()
}

#[tokio::test]
#[ignore = "the process that tests of identities start, with variables of its own"]
async fn answers_for_a_store() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let mut bridges = JoinSet::new();
    for (number, at) in text("answering").lines().enumerate() {
        let listener = TcpListener::bind(at).await.unwrap();
        bridges.spawn(lead_in(listener, folder.join(number.to_string())));
    }
    let store = store(serde_json::from_str(&text("section")).unwrap());
    let socket = UnixStream::connect(folder.join("socket")).await.unwrap();
    let (read, mut write) = socket.into_split();
    let mut questions = BufReader::new(read).lines();
    while let Some(question) = questions.next_line().await.unwrap() {
        let question: Value = serde_json::from_str(&question).unwrap();
        let answer = match question.as_str() {
            Some("identity") => store.identity().await.map(Option::unwrap_or_default),
            Some(_) => store.check().await.map(|()| String::new()),
            None => {
                let name = SecretName::new(question["get"].as_str().unwrap());
                let secret = store.get(&name).await;
                // The secrets of tests are no secrets.
                secret.map(|secret| String::from_utf8(secret.value.expose().to_vec()).unwrap())
            }
        };
        let answer = match answer {
            Ok(text) => json!({"answer": text}),
            Err(error) => {
                json!({"refusal": Refusal::of(&error).as_str(), "report": error.report()})
            }
        };
        write
            .write_all(format!("{answer}\n").as_bytes())
            .await
            .unwrap();
    }
}
