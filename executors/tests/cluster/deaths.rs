//! Programs of the cluster are killed under a run, and come back.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::run::{FailureClass, Outcome, State};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::bench::{Bench, read_and_watch, until, within};
use crate::over::Over;
use crate::place::{Place, admin, kubeconfig};

/// A cluster that is removed once it is dropped.
struct Own {
    name: String,
    kubeconfig: PathBuf,
}

impl Own {
    async fn up(what: &str) -> Option<Self> {
        // Where there is none for all, there is none to be had.
        kubeconfig()?;
        let name = format!("test-{what}-{}", std::process::id());
        let started = script(&["up", &name]).await;
        let path = String::from_utf8_lossy(&started.stdout).trim().to_owned();
        let own = Self {
            name,
            kubeconfig: path.into(),
        };
        assert!(started.status.success(), "{started:?}");
        Some(own)
    }

    /// Kills one of its programs, and starts it again a while later.
    async fn kill(&self, program: &str) {
        self.kill_for_good(program);
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.revive().await;
    }

    fn kill_for_good(&self, program: &str) {
        let pid = self.kubeconfig.with_file_name("pids").join(program);
        let pid = std::fs::read_to_string(pid).unwrap();
        let pid: i32 = pid.trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    async fn revive(&self) {
        let revived = script(&["revive", &self.name]).await;
        assert!(revived.status.success(), "{revived:?}");
    }
}

impl Own {
    fn path(&self) -> String {
        self.kubeconfig.to_str().unwrap().to_owned()
    }

    /// Kills Argo's controller, which the kubelet starts again.
    fn kill_argo(&self) {
        let network = std::fs::read_to_string(self.kubeconfig.with_file_name("network")).unwrap();
        let mut killed = 0;
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |name| std::fs::read_to_string(process.path().join(name));
            let (Ok(command), Ok(cgroup)) = (read("cmdline"), read("cgroup")) else {
                continue;
            };
            if command.starts_with("workflow-controller\0") && cgroup.contains(network.trim()) {
                let pid = process.file_name().to_str().unwrap().parse().unwrap();
                kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
                killed += 1;
            }
        }
        assert_eq!(killed, 1);
    }

    /// Removes the kind of object.
    async fn forget_workflows(&self) {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/workflows.argoproj.io";
        let request = http::Request::delete(path).body(Vec::new()).unwrap();
        let client = admin(&self.path()).await;
        client.request_text(request).await.unwrap();
    }

    /// Takes Argo's controller away, or gives it back.
    async fn controllers(&self, count: i32) {
        use kube::api::{Patch, PatchParams};
        let client = admin(&self.path()).await;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), "argo");
        let patch = Patch::Merge(json!({ "spec": { "replicas": count } }));
        deployments
            .patch("workflow-controller", &PatchParams::default(), &patch)
            .await
            .unwrap();
        let pods: Api<Pod> = Api::namespaced(client, "argo");
        until("the number of controllers", async || {
            let listed = pods.list(&ListParams::default()).await.unwrap();
            listed.items.len() == usize::try_from(count).unwrap()
        })
        .await;
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(command(&["remove", &self.name]).output());
    }
}

fn command(arguments: &[&str]) -> Command {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services/cluster");
    let mut command = Command::new(path);
    command.args(arguments);
    command
}

async fn script(arguments: &[&str]) -> Output {
    let mut command = command(arguments);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    within(Duration::from_mins(4), "a script", run)
        .await
        .unwrap()
}

/// A run that goes on until it is told, and its end.
struct Long {
    bench: Bench,
    run: Handle,
}

impl Long {
    async fn begin(own: &Own, over: Over) -> Self {
        let bench = Bench::at(Place::with(over, Some(own.path()), json!({}))).await;
        let done = bench.place.folder.path().join("done");
        let script = format!(
            "i=0; while [ ! -e {} ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo last $i",
            done.display()
        );
        let run = bench.begin(&script).await;
        bench.running(&run).await;
        Self { bench, run }
    }

    async fn answers(&self) {
        let executor = &self.bench.executor;
        until("the cluster to answer", async || {
            executor.list().await.is_ok()
        })
        .await;
    }

    fn tell(&self) {
        std::fs::write(self.bench.place.folder.path().join("done"), "").unwrap();
    }

    async fn ends_well(&self) {
        let (log, status) = read_and_watch(&*self.bench.executor, &self.run).await;
        assert_eq!(status.outcome(), Some(&Outcome::Succeeded));
        let text = log.text();
        let count = text.lines().count() - 1;
        let expected = (1..=count).fold(String::new(), |text, n| text + &format!("line {n}\n"));
        assert_eq!(text, expected + &format!("last {count}\n"));
        assert_eq!(log.gaps(), [0; 0]);
        self.bench.remove(&self.run).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_outlives_the_programs_of_its_cluster() {
    let Some(own) = Own::up("kill").await else {
        return;
    };
    let job = Long::begin(&own, Over::Jobs).await;
    let workflow = Long::begin(&own, Over::Workflows).await;
    let killing = async {
        own.kill_argo();
        for program in [
            "kube-apiserver",
            "kubelet",
            "etcd",
            "kube-controller-manager",
        ] {
            own.kill(program).await;
            job.answers().await;
            workflow.answers().await;
        }
        own.kill_argo();
        job.tell();
        workflow.tell();
    };
    let all = async { tokio::join!(job.ends_well(), workflow.ends_well(), killing) };
    within(Duration::from_mins(5), "the end", all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_argos_controller_a_run_waits_and_says_why_and_one_that_runs_can_be_stopped() {
    let Some(own) = Own::up("away").await else {
        return;
    };
    let running = Long::begin(&own, Over::Workflows).await;
    own.controllers(0).await;
    let bench = &running.bench;
    let mut spec = bench.spec("cat $WORKFLOW_CONFIG");
    spec.config = Some("text".into());
    let waiting = bench.start(&spec).await;
    let stop = bench.executor.stop(&running.run, Duration::from_secs(1));
    stop.await.unwrap();
    assert_eq!(bench.end(&running.run).await, Outcome::Stopped { by: None });
    bench.remove(&running.run).await;
    let never = bench.begin("true").await;
    bench.executor.stop(&never, Duration::ZERO).await.unwrap();
    assert_eq!(bench.end(&never).await, Outcome::Stopped { by: None });
    until("the words about the controller", async || {
        let status = bench.status(&waiting, |_| true).await;
        assert_eq!(status.state, State::Starting);
        status
            .message
            .is_some_and(|message| message.contains("no controller of Argo"))
    })
    .await;
    own.controllers(1).await;
    assert_eq!(bench.end(&waiting).await, Outcome::Succeeded);
    assert_eq!(bench.log(&waiting, None).await.text(), "text");
    bench.remove(&waiting).await;
    bench.remove(&never).await;
    assert!(bench.executor.list().await.unwrap().is_empty());
    own.forget_workflows().await;
    until("the words about a cluster without Argo", async || {
        let findings = bench.executor.examine().await;
        findings
            .last()
            .is_some_and(|finding| finding.message.contains("Argo Workflows is not installed"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_lost_is_told_while_it_is_and_the_run_was_evicted() {
    let Some(own) = Own::up("node").await else {
        return;
    };
    let lost = async |over| {
        let bench = Bench::at(Place::with(over, Some(own.path()), json!({}))).await;
        let run = bench.begin("sleep 600").await;
        bench.running(&run).await;
        (bench, run)
    };
    let runs = [lost(Over::Jobs).await, lost(Over::Workflows).await];
    own.kill_for_good("kubelet");
    for (bench, run) in &runs {
        // It is not known whether its processes run, so the run goes on.
        let told = |status: &hybrid_runner_core::Status| {
            let message = status.message.as_deref().unwrap_or_default();
            message.contains("NodeNotReady")
        };
        let status = bench.status(run, told).await;
        assert_eq!(status.state, State::Running);
    }
    // As whoever looks after the machines does with one that will not come back. Without any other the cluster evicts nothing by itself.
    let nodes: Api<Node> = Api::all(admin(&own.path()).await);
    let node = nodes.list(&ListParams::default()).await.unwrap();
    let node = node.items[0].metadata.name.clone().unwrap();
    nodes.delete(&node, &DeleteParams::default()).await.unwrap();
    for (bench, run) in &runs {
        let failure = bench.failure(run).await;
        assert_eq!(failure.class, FailureClass::Evicted, "{failure:?}");
        assert!(failure.may_pass, "{failure:?}");
        bench.remove(run).await;
    }
}
