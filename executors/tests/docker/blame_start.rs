//! A start that cannot succeed says whose fault it is, what to do, and what the engine said.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::time::Duration;

use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::Health;
use hybrid_runner_core::error::{Error, ErrorKind};
use hybrid_runner_core::executor::{Handle, Progress};
use hybrid_runner_core::run::{Failure, FailureClass, RunSpec};
use hybrid_runner_core::secret::{References, Secret, Secrets};
use serde_json::{Value, json};

use crate::bench::{Bench, listener, within};
use crate::own::Own;
use crate::place::service;

const REGISTRIES: &str = "scripts/services/docker-registry up";

fn registry(variable: &str) -> Option<String> {
    service(variable, REGISTRIES)
}

/// The class, words of the message, words of the source.
fn assert_blames(
    (_, failure): &(Error, Failure),
    class: FailureClass,
    says: &[&str],
    source: &str,
) {
    assert_eq!(failure.class, class, "{failure:?}");
    for words in says {
        assert!(failure.message.contains(words), "no `{words}`: {failure:?}");
    }
    let own_words = failure.source.as_deref().unwrap_or_default();
    assert!(own_words.contains(source), "no `{source}`: {failure:?}");
}

fn of_image(bench: &Bench, image: &str) -> RunSpec {
    let mut spec = bench.spec("true");
    spec.image = Some(image.to_owned());
    spec
}

#[tokio::test]
async fn an_image_that_is_not_there_and_never_pulled_is_named_with_the_setting() {
    let Some(bench) = Bench::with(json!({ "pull": "never" })) else {
        return;
    };
    let refused = bench
        .refused(&of_image(&bench, "hybrid-runner-test/none:1"))
        .await;
    let says = [
        "`hybrid-runner-test/none:1`",
        "pull = \"never\"",
        "pull = \"missing\"",
    ];
    assert_blames(&refused, FailureClass::Image, &says, "");
    assert_eq!(refused.0.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_image_that_the_registry_does_not_have_is_named_with_the_registry() {
    let Some(bench) = Bench::new() else { return };
    let Some(registry) = registry("HYBRID_RUNNER_TEST_REGISTRY") else {
        return;
    };
    for image in ["none:1", "busybox:none", "busybox"].map(|name| format!("{registry}/{name}")) {
        let refused = bench.refused(&of_image(&bench, &image)).await;
        let says = [image.as_str(), registry.as_str(), "correct `image`"];
        assert_blames(&refused, FailureClass::Image, &says, "manifest");
        assert_eq!(refused.0.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn an_image_whose_name_is_none_is_the_fault_of_the_image() {
    let Some(bench) = Bench::new() else { return };
    for image in ["Not/Small:1", "a b", "a:b:c", "../etc", "a?b=c", "-"] {
        let refused = bench.refused(&of_image(&bench, image)).await;
        assert_blames(&refused, FailureClass::Image, &[image], "");
        assert!(!refused.0.is_transient(), "{refused:?}");
    }
}

/// Reads `secret:/registry` as this.
fn password(value: Result<String, ErrorKind>) -> References {
    References::through(move |_, reference| {
        assert_eq!(reference.as_str(), "/registry");
        let value = value.clone().map(Secret::new);
        let value = value.map_err(|kind| Error::new(kind, "the store says no"));
        async { value }.boxed()
    })
}

fn with_password(registry: &str, user: &str) -> Value {
    json!({ "pull": "always", "registries": { registry: { "username": user, "password": "secret:/registry" } } })
}

#[tokio::test]
async fn a_registry_that_does_not_let_us_is_told_from_one_that_does() {
    let Some(registry) = registry("HYBRID_RUNNER_TEST_REGISTRY_AUTH") else {
        return;
    };
    let user = std::env::var("HYBRID_RUNNER_TEST_REGISTRY_USER").unwrap();
    let right = std::env::var("HYBRID_RUNNER_TEST_REGISTRY_PASSWORD").unwrap();
    let image = format!("{registry}/busybox:1");

    let without = json!({ "pull": "always" });
    for (settings, given) in [
        (without, References::none()),
        (
            with_password(&registry, &user),
            password(Ok("wrong".into())),
        ),
    ] {
        let Some(bench) = Bench::with_references(settings, given) else {
            return;
        };
        let refused = bench.refused(&of_image(&bench, &image)).await;
        let advice = format!("registries.\"{registry}\"");
        assert_blames(&refused, FailureClass::Image, &[&image, &advice], "");
        assert_eq!(refused.0.kind(), ErrorKind::Denied);
    }
    let settings = with_password(&registry, &user);
    let Some(bench) = Bench::with_references(settings, password(Ok(right))) else {
        return;
    };
    let spec = of_image(&bench, &image);
    let run = bench.start(&spec).await;
    let text = bench.text(&run).await;
    assert!(
        text.starts_with(&format!("hybrid-runner: pulled image `{image}`")),
        "{text}"
    );
    bench.end(&run).await;
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_password_that_cannot_be_read_is_the_fault_of_the_secret() {
    let Some(registry) = registry("HYBRID_RUNNER_TEST_REGISTRY_AUTH") else {
        return;
    };
    let settings = with_password(&registry, "tester");
    let given = password(Err(ErrorKind::Denied));
    let Some(bench) = Bench::with_references(settings, given) else {
        return;
    };
    let refused = bench
        .refused(&of_image(&bench, &format!("{registry}/busybox:1")))
        .await;
    assert_blames(
        &refused,
        FailureClass::Secret,
        &["password", &registry],
        "the store says no",
    );
}

#[tokio::test]
async fn a_registry_that_is_away_may_be_tried_again() {
    let Some(bench) = Bench::new() else { return };
    // Nobody listens on this port of the machine.
    let refused = bench.refused(&of_image(&bench, "127.0.0.1:9/a:1")).await;
    assert_blames(
        &refused,
        FailureClass::Image,
        &["127.0.0.1:9"],
        "connection refused",
    );
    assert!(refused.0.is_transient());
}

#[tokio::test]
async fn a_pull_tells_how_it_gets_on_and_stands_in_the_log() {
    let Some(registry) = registry("HYBRID_RUNNER_TEST_REGISTRY") else {
        return;
    };
    let Some(own) = Own::up(&[]).await else {
        return;
    };
    let bench = Bench::at(own.host.clone(), json!({}), References::none());
    let image = format!("{registry}/large:1");
    let mut spec = bench.spec("echo output");
    spec.image = Some(image.clone());
    let (progress, heard) = listener();
    let secrets = Secrets::none();
    let started = bench.docker.start(&spec, &secrets, &progress);
    let run = within(Duration::from_secs(90), "the pull", started)
        .await
        .unwrap();
    let heard = heard.lock().unwrap().clone();
    let pulling = format!("pulling image `{image}`");
    let pulled = format!("pulled image `{image}` in ");
    assert_eq!(heard.first(), Some(&pulling));
    // What it says in between depends on how fast the registry is.
    assert!(
        heard
            .iter()
            .any(|line| line.starts_with(&pulled) && line.ends_with("33MiB of 33MiB)")),
        "{heard:?}"
    );
    assert_eq!(
        heard.last().map(String::as_str),
        Some("starting the container")
    );
    // The engine takes the two outputs one beside the other.
    let text = bench.text(&run).await;
    let (notes, output): (Vec<_>, Vec<_>) = text
        .lines()
        .partition(|line| line.starts_with("hybrid-runner: "));
    assert_eq!(output, ["output"]);
    assert_eq!(notes.len(), 1, "{text}");
    assert!(
        notes[0].starts_with(&format!("hybrid-runner: {pulled}")),
        "{text}"
    );
}

#[tokio::test]
async fn a_limit_of_nothing_is_refused_and_does_not_lift_that_of_the_section() {
    let Some(bench) =
        Bench::with(json!({ "limits": { "memory": "64Mi", "cpu": "1", "pids": 50 } }))
    else {
        return;
    };
    for (name, limits) in [
        ("memory", json!({ "memory": "0" })),
        ("cpu", json!({ "cpu": "0" })),
        ("pids", json!({ "pids": 0 })),
    ] {
        let mut spec = bench.spec("true");
        spec.resources.limits = serde_json::from_value(limits).unwrap();
        let (_, failure) = bench.refused(&spec).await;
        assert_eq!(failure.class, FailureClass::Spec, "{failure:?}");
        let says = format!("`resources.limits.{name}` is 0");
        assert!(failure.message.contains(&says), "{failure:?}");
    }
}

#[tokio::test]
async fn what_the_section_names_and_the_engine_does_not_have_is_named() {
    for (setting, class, says) in [
        (
            json!({ "network": "hybrid-runner-none" }),
            FailureClass::Backend,
            "hybrid-runner-none",
        ),
        (
            json!({ "network": "container:hybrid-runner-none" }),
            FailureClass::Backend,
            "hybrid-runner-none",
        ),
        (
            json!({ "runtime": "hybrid-runner-none" }),
            FailureClass::Backend,
            "hybrid-runner-none",
        ),
        (
            json!({ "mounts": [{ "source": "/nowhere/at/all", "target": "/data" }] }),
            FailureClass::Backend,
            "/nowhere/at/all",
        ),
        (
            json!({ "mounts": [{ "source": "/etc/hostname", "target": "/etc" }] }),
            FailureClass::Backend,
            "not a directory",
        ),
        (
            json!({ "mounts": [{ "source": "/etc", "target": "/proc" }] }),
            FailureClass::Backend,
            "/proc",
        ),
        (
            json!({ "limits": { "cpu": "1m" } }),
            FailureClass::Spec,
            "cpu",
        ),
        (
            json!({ "user": "nobody-knows-me" }),
            FailureClass::Backend,
            "nobody-knows-me",
        ),
        (json!({ "user": "-1" }), FailureClass::Backend, "in range"),
        (
            json!({ "extra_hosts": ["no address"] }),
            FailureClass::Backend,
            "no address",
        ),
        (
            json!({ "cap_drop": ["CAP_OF_NOBODY"] }),
            FailureClass::Backend,
            "CAP_OF_NOBODY",
        ),
    ] {
        let Some(bench) = Bench::with(setting) else {
            return;
        };
        let refused = bench.refused(&bench.spec("true")).await;
        assert_blames(
            &refused,
            class,
            &["container of the run", "[executors.here]"],
            says,
        );
        assert!(!refused.0.is_transient(), "{refused:?}");
    }
}

#[tokio::test]
async fn a_setting_of_the_log_that_is_none_is_refused_at_once() {
    let error = crate::place::Place::with(
        None,
        json!({ "log": { "driver": "syslog" } }),
        References::none(),
    )
    .try_docker("one", "unix:///nowhere/docker.sock")
    .unwrap_err();
    assert!(
        error.report().contains("`log.driver`"),
        "{}",
        error.report()
    );
}

#[tokio::test]
async fn an_engine_without_room_is_a_matter_of_storage() {
    let Some(registry) = registry("HYBRID_RUNNER_TEST_REGISTRY") else {
        return;
    };
    let Some(disk) = Disk::small() else { return };
    let root = format!("--data-root={}", disk.path());
    let Some(own) = Own::up(&[&root]).await else {
        return;
    };
    let bench = Bench::at(own.host.clone(), json!({}), References::none());
    let refused = bench
        .refused(&of_image(&bench, &format!("{registry}/large:1")))
        .await;
    assert_blames(
        &refused,
        FailureClass::Storage,
        &["disk is full"],
        "no space left on device",
    );
    disk.fill();
    let refused = bench.refused(&bench.spec("true")).await;
    assert_blames(
        &refused,
        FailureClass::Storage,
        &["disk is full"],
        "no space left on device",
    );
}

#[tokio::test]
async fn a_run_that_fills_the_engines_disk_ends_by_its_own_code_and_shows_a_gap() {
    let Some(disk) = Disk::small() else { return };
    let root = format!("--data-root={}", disk.path());
    let Some(own) = Own::up(&[&root]).await else {
        return;
    };
    let bench = Bench::at(own.host.clone(), json!({}), References::none());
    let fills = "dd if=/dev/zero of=/x bs=1M count=100; i=0; while [ $i -lt 20000 ]; do echo log$i; i=$((i+1)); done; exit 6";
    let run = bench.begin(fills).await;
    let failure = bench.failure(&run).await;
    assert_eq!(failure.exit_code, Some(6), "{failure:?}");
    let log = bench.log(&run, None).await;
    assert_eq!(log.gaps().len(), 1, "{:?}", log.0.last());
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_check_finds_what_the_engine_refuses_of_a_section_and_leaves_nothing() {
    let trials = [
        (json!({}), None),
        (
            json!({ "cap_drop": ["FLYING"] }),
            Some("correct `cap_drop`"),
        ),
        (
            json!({ "extra_hosts": ["db"] }),
            Some("correct `extra_hosts`"),
        ),
        (
            json!({ "mounts": [{ "source": "/nowhere/at/all", "target": "/data" }] }),
            Some("correct `mounts`"),
        ),
    ];
    for (more, wrong) in trials {
        let Some(bench) = Bench::with(more.clone()) else {
            return;
        };
        // The second finds nothing of the first.
        for _ in 0..2 {
            let findings =
                within(Duration::from_mins(1), "the check", bench.docker.examine()).await;
            let last = findings.last().unwrap();
            assert_eq!(
                last.health == Health::Failed,
                wrong.is_some(),
                "{more}: {last:?}"
            );
            let says = wrong.unwrap_or("makes containers as the section describes them");
            assert!(last.message.contains(says), "{last:?}");
        }
        let client = bench.place.client();
        let filters = HashMap::from([(
            "label".to_owned(),
            vec!["io.hybrid-runner.trial".to_owned()],
        )]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let left = client.list_containers(Some(options)).await.unwrap();
        let ours = format!("/hr-{}.check", bench.place.owner("one"));
        assert!(
            left.iter()
                .all(|one| one.names.as_ref().unwrap()[0] != ours),
            "{left:?}"
        );
    }
}

/// A file system in memory, of 40 MiB.
struct Disk(tempfile::TempDir);

impl Disk {
    fn small() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"])
            .arg(folder.path())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        hybrid_runner_core::testing::skipped("only root can make a small disk");
        None
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn fill(&self) {
        let all = std::fs::write(self.0.path().join("filling"), vec![0; 64 << 20]);
        assert_eq!(all.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(
            std::process::Command::new("umount")
                .arg("-l")
                .arg(self.0.path())
                .status(),
        );
    }
}

/// Every question to an engine at this address fails like this, and soon.
async fn assert_unreachable(host: &str, kind: ErrorKind, says: &[&str]) {
    let bench = Bench::at(host.to_owned(), json!({}), References::none());
    let spec = bench.spec("true");
    let (run, docker) = (Handle::of(spec.run), &bench.docker);
    let (secrets, progress) = (Secrets::none(), Progress::none());
    let asked = futures::future::join_all([
        docker
            .start(&spec, &secrets, &progress)
            .map(Result::unwrap_err)
            .boxed(),
        docker.check().map(Result::unwrap_err).boxed(),
        docker.capabilities().map(Result::unwrap_err).boxed(),
        docker.list().map(Result::unwrap_err).boxed(),
        docker
            .stop(&run, Duration::ZERO)
            .map(Result::unwrap_err)
            .boxed(),
        docker.remove(&run).map(Result::unwrap_err).boxed(),
    ]);
    // Who looks at a run goes on: an engine that cannot be asked says nothing of it.
    let looked = futures::future::join_all([
        docker
            .watch(&run)
            .into_future()
            .map(|(first, _)| first.unwrap().unwrap_err())
            .boxed(),
        docker
            .logs(&run, None)
            .into_future()
            .map(|(first, _)| first.unwrap().unwrap_err())
            .boxed(),
    ]);
    // A removal waits for the start of its run, so that it may take twice as long as a question.
    let (asked, looked) = within(Duration::from_secs(70), "the answers", async {
        tokio::join!(asked, looked)
    })
    .await;
    for error in looked {
        assert!(error.is_transient(), "{error:?}");
        for words in says {
            assert!(error.report().contains(words), "no `{words}`: {error:?}");
        }
    }
    for error in asked {
        assert_eq!(error.kind(), kind, "{error:?}");
        for words in says {
            assert!(error.report().contains(words), "no `{words}`: {error:?}");
        }
        let failure = Failure::of_start(&error);
        let class = match kind {
            ErrorKind::Denied => FailureClass::Denied,
            _ => FailureClass::Backend,
        };
        assert_eq!(failure.class, class, "{failure:?}");
    }
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_told_with_its_address() {
    let says = [
        "/nowhere/docker.sock",
        "start the engine, or correct `host`",
    ];
    assert_unreachable("unix:///nowhere/docker.sock", ErrorKind::Unavailable, &says).await;
    // Nobody listens on this port of the machine.
    let says = [
        "tcp://127.0.0.1:9",
        "nobody listens there",
        "connection refused",
    ];
    assert_unreachable("tcp://127.0.0.1:9", ErrorKind::Unavailable, &says).await;
}

#[tokio::test]
async fn an_engine_that_has_left_its_socket_is_told_with_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    drop(UnixListener::bind(&socket).unwrap());
    let host = format!("unix://{}", socket.display());
    let says = [host.as_str(), "start the engine", "connection refused"];
    assert_unreachable(&host, ErrorKind::Unavailable, &says).await;
}

#[tokio::test]
async fn an_engine_that_never_answers_is_not_waited_for_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let host = format!("unix://{}", socket.display());
    let says = [host.as_str(), "did not answer in time"];
    assert_unreachable(&host, ErrorKind::Unavailable, &says).await;
}

const SOCKET: &str = "SOCKET_OF_SOMEBODY_ELSE";

#[test]
fn a_socket_that_we_may_not_use_is_told_with_the_group_that_may() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("docker.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, Permissions::from_mode(0o600)).unwrap();
    let played = std::process::Command::new("/proc/self/exe")
        .args(["blame_start::play_somebody_else", "--exact", "--ignored"])
        .env(SOCKET, &socket)
        .uid(65534)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&played.stdout);
    assert!(
        played.status.success() && text.contains("1 passed"),
        "{played:?}"
    );
}

/// Not a test: another user, who asks the engine of this one.
#[tokio::test]
#[ignore = "played by its test"]
async fn play_somebody_else() {
    let Ok(socket) = std::env::var(SOCKET) else {
        return;
    };
    let host = format!("unix://{socket}");
    let says = [
        host.as_str(),
        "member of its group (`docker`)",
        "ermission denied",
    ];
    assert_unreachable(&host, ErrorKind::Denied, &says).await;
}
