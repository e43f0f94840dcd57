//! Programs of the cluster are killed under a run, and come back.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use hybrid_runner_core::run::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::bench::{Bench, read_and_watch, until, within};
use crate::over::Over;
use crate::place::{Place, kubeconfig};

/// A cluster that is removed once it is dropped.
struct Own {
    name: String,
    kubeconfig: PathBuf,
}

impl Own {
    async fn up() -> Option<Self> {
        // Where there is none for all, there is none to be had.
        kubeconfig()?;
        let name = format!("test-{}", std::process::id());
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
        let pid = self.kubeconfig.with_file_name("pids").join(program);
        let pid = std::fs::read_to_string(pid).unwrap();
        let pid: i32 = pid.trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let revived = script(&["revive", &self.name]).await;
        assert!(revived.status.success(), "{revived:?}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_outlives_the_programs_of_its_cluster() {
    let Some(own) = Own::up().await else { return };
    let path = own.kubeconfig.to_str().unwrap().to_owned();
    let bench = Bench::at(Place::with(Over::Jobs, Some(path), json!({}))).await;
    let done = bench.place.folder.path().join("done");
    let script = format!(
        "i=0; while [ ! -e {} ]; do i=$((i+1)); echo line $i; sleep 0.1; done; echo last $i",
        done.display()
    );
    let run = bench.begin(&script).await;
    bench.running(&run).await;
    let killing = async {
        for program in [
            "kube-apiserver",
            "kubelet",
            "etcd",
            "kube-controller-manager",
        ] {
            own.kill(program).await;
            until("the cluster to answer", async || {
                bench.executor.list().await.is_ok()
            })
            .await;
        }
        std::fs::write(&done, "").unwrap();
    };
    let both = read_and_watch(&*bench.executor, &run);
    let all = async { tokio::join!(both, killing) };
    let ((log, status), ()) = within(Duration::from_mins(4), "the end", all).await;
    assert_eq!(status.outcome(), Some(&Outcome::Succeeded));
    let text = log.text();
    let count = text.lines().count() - 1;
    let expected = (1..=count).fold(String::new(), |text, n| text + &format!("line {n}\n"));
    assert_eq!(text, expected + &format!("last {count}\n"));
    assert_eq!(log.gaps(), [0; 0]);
    bench.remove(&run).await;
}
