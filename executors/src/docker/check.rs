//! What the doctor finds about an engine.

use std::path::Path;

use bollard::models::SystemInfo;
use hybrid_runner_core::Finding;
use hybrid_runner_core::unit::ByteSize;

use super::Shared;
use super::config::{LogDriver, PullPolicy};
use super::engine::found;
use super::facts::Facts;

/// The oldest API that this was tried with: Docker 20.10.
const OLDEST_API: (u32, u32) = (1, 41);
/// What the engine lets a container have, at the least: thousandths of a core, bytes.
const LEAST_CPU: u64 = 10;
const LEAST_MEMORY: u64 = 6 << 20;
/// Less free space than this, and pulls and logs will soon fail.
const LITTLE_SPACE: u64 = 5 << 30;

impl Shared {
    /// Reachable, which version, our rights, free space, limits, and whether the image is there.
    pub(super) async fn examine(&self) -> Vec<Finding> {
        let info = match self.info().await {
            Ok(info) => info,
            Err(error) => return vec![Finding::of_error(&error)],
        };
        let mut findings = vec![self.version(&info).await, self.rights().await, space(&info)];
        findings.extend(limits(&Facts::of(&info)));
        if self.settings.given.log.driver == LogDriver::JsonFile {
            findings.push(Finding::warning(
                "the log driver `json_file` replaces bytes that are not UTF-8; `local` does not",
            ));
        }
        findings.extend(self.wishes(&info));
        findings.extend(self.network().await);
        match self.image_finding().await {
            Some(Image::There(finding)) => {
                findings.extend([finding, self.trial().await]);
            }
            Some(Image::Elsewhere(finding)) => findings.push(finding),
            None => {}
        }
        findings
    }

    /// What the section asks for and the engine's host does not have.
    fn wishes(&self, info: &SystemInfo) -> Vec<Finding> {
        let given = &self.settings.given;
        let mut wrong = Vec::new();
        if let Some(refused) = other_architecture(info) {
            wrong.push(refused);
        }
        let known = info.runtimes.as_ref();
        if let Some(name) = &given.runtime
            && known.is_some_and(|known| !known.contains_key(name))
        {
            let known: Vec<_> = known.into_iter().flat_map(|known| known.keys()).collect();
            wrong.push(format!(
                "the engine has no runtime `{name}`: correct `runtime`; it has {known:?}"
            ));
        }
        let cores = info.ncpu.and_then(|cores| u64::try_from(cores).ok());
        if let (Some(cpu), Some(cores)) = (given.limits.cpu, cores)
            && (cpu.millis() > cores * 1000 || cpu.millis() < LEAST_CPU)
        {
            wrong.push(format!(
                "the engine refuses `limits.cpu`: its host has {cores} cores, and 10m is the least"
            ));
        }
        if given
            .limits
            .memory
            .is_some_and(|memory| memory.get() < LEAST_MEMORY)
        {
            wrong.push("the engine refuses `limits.memory`: 6Mi is the least".to_owned());
        }
        wrong.into_iter().map(Finding::failed).collect()
    }

    /// Whether the section's network is there.
    async fn network(&self) -> Option<Finding> {
        let name = self.settings.given.network.as_deref()?;
        let modes = ["none", "host", "bridge", "default"];
        if modes.contains(&name) {
            return None;
        }
        if let Some(container) = name.strip_prefix("container:") {
            return Some(self.lender(container).await);
        }
        let asked = match self.engine.ask() {
            Ok(docker) => found(docker.inspect_network(name, None).await)
                .map_err(|error| self.engine.failed("look for the network", error)),
            Err(error) => Err(error),
        };
        Some(match asked {
            Ok(Some(_)) => Finding::ok(format!("the network `{name}` is there")),
            Ok(None) => Finding::failed(format!(
                "the engine has no network `{name}`: make it (`docker network create {name}`), or correct `network`"
            )),
            Err(error) => Finding::of_error(&error),
        })
    }

    /// Whether the container is there whose network the section's containers share.
    async fn lender(&self, name: &str) -> Finding {
        match self.inspect(name).await {
            Ok(Some(container)) if container.phase.is_alive() => {
                Finding::ok(format!("the container `{name}` of `network` runs"))
            }
            Ok(Some(_)) => Finding::failed(format!(
                "the container `{name}`, whose network is to be shared, does not run: start it, or correct `network`"
            )),
            Ok(None) => Finding::failed(format!(
                "the engine has no container `{name}`, whose network is to be shared: start it, or correct `network`"
            )),
            Err(error) => Finding::of_error(&error),
        }
    }

    async fn version(&self, info: &SystemInfo) -> Finding {
        let engine = info
            .server_version
            .as_deref()
            .unwrap_or("of an unknown version");
        let asked = match self.engine.ask() {
            Ok(docker) => docker
                .version()
                .await
                .map_err(|error| self.engine.failed("ask for the version", error)),
            Err(error) => Err(error),
        };
        let api = match asked {
            Ok(version) => version.api_version.unwrap_or_default(),
            Err(error) => return Finding::of_error(&error),
        };
        let found = format!(
            "engine {engine} with API {api} at `{}`",
            self.engine.address()
        );
        match number(&api) {
            Some(api) if api >= OLDEST_API => Finding::ok(found),
            _ => Finding::warning(format!(
                "{found}: older than Docker 20.10 (API 1.41), with which nothing was tried"
            )),
        }
    }

    async fn rights(&self) -> Finding {
        match self.list().await {
            Ok(runs) => Finding::ok(format!(
                "may list containers and volumes: {} of ours are there",
                runs.len()
            )),
            Err(error) => Finding::of_error(&error),
        }
    }

    /// Whether the section's image can be had.
    async fn image_finding(&self) -> Option<Image> {
        let name = self.settings.image.as_deref()?;
        let is_there = match self.image_config(name).await {
            Ok(config) => config.is_some(),
            Err(error) => return Some(Image::Elsewhere(Finding::of_error(&error))),
        };
        if is_there && self.settings.pull != PullPolicy::Always {
            let finding = Finding::ok(format!("the image `{name}` is there"));
            return Some(Image::There(finding));
        }
        if self.settings.pull == PullPolicy::Never {
            return Some(Image::Elsewhere(Finding::failed(format!(
                "the engine does not have the image `{name}`, and `pull = \"never\"` is set: load it there, or set `pull = \"missing\"`"
            ))));
        }
        let finding = match self.is_pullable(name).await {
            Ok(()) => Finding::ok(format!("the image `{name}` can be pulled")),
            Err(error) => Finding::of_error(&error),
        };
        Some(if is_there {
            Image::There(finding)
        } else {
            Image::Elsewhere(finding)
        })
    }
}

/// What was found about the section's image.
enum Image {
    /// The engine has it.
    There(Finding),
    Elsewhere(Finding),
}

/// Why init, which is made for this machine, cannot run where the engine is.
pub(super) fn other_architecture(info: &SystemInfo) -> Option<String> {
    let theirs = info.architecture.as_deref()?;
    let ours = std::env::consts::ARCH;
    (theirs != ours).then(|| {
        format!("the engine's host is `{theirs}`, and this build is made for `{ours}`: use the build for `{theirs}`")
    })
}

fn number(api: &str) -> Option<(u32, u32)> {
    let (major, minor) = api.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Only of an engine on this machine.
fn space(info: &SystemInfo) -> Finding {
    let root = info.docker_root_dir.as_deref().unwrap_or_default();
    let Some(free) = free_bytes(Path::new(root)) else {
        return Finding::ok(format!(
            "keeps its data in `{root}`, whose free space cannot be seen from here"
        ));
    };
    let mib = ByteSize::mib(free >> 20);
    if free < LITTLE_SPACE {
        return Finding::warning(format!(
            "only {mib} are free in `{root}`: make room (`docker system prune`), or pulls and logs will fail"
        ));
    }
    Finding::ok(format!("{mib} are free in `{root}`"))
}

fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

fn limits(facts: &Facts) -> Vec<Finding> {
    let missing = facts.missing();
    let mut findings = vec![if missing.is_empty() {
        Finding::ok("limits of memory, cpu and pids are enforced")
    } else {
        Finding::warning(format!(
            "limits of {} cannot be enforced by the host and are refused: enable the cgroup controllers, or set `ignore = [\"resources\"]`",
            missing.join(", ")
        ))
    }];
    if !facts.live_restore {
        findings.push(Finding::warning(
            "the engine's restart ends all runs: set `\"live-restore\": true` in its `daemon.json`",
        ));
    }
    findings
}
