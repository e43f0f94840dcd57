//! The volume that carries init into all containers: one for each engine and version of init, read-only there.
//!
//! Laying a file into each container would take longer than all else we add to a start: the engine runs itself anew
//! for every archive. So it is done once, and each container only mounts the volume. Runners that share an engine take
//! turns at it: what one has laid, and perhaps started already, is not written again by another.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder,
    RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::Progress;
use hybrid_runner_core::fault;
use hybrid_runner_helper::container::{FOLDER, INIT, PRIVATE};
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant, sleep};

use super::Shared;
use super::engine::{Engine, found, is_status};
use crate::helper;

/// The mode of init.
const MODE: u32 = 0o755;
/// The mode of the folder for private files. Whatever is mounted there gets it too, from runc, and not the mode that was
/// asked for; and the workload need not be root.
const PRIVATE_MODE: u32 = 0o1777;

/// A turn that takes longer was left behind by a crash.
const LONGEST_TURN: Duration = Duration::from_secs(10);
/// Tells people whose a container is that lays init into a volume.
const LAYING: &str = "io.hybrid-runner.laying";
/// Between two tries to get a turn.
const PAUSE: Duration = Duration::from_millis(100);

/// The name of the volume, by the content of init and the mode of the folder beside it.
pub(super) fn name() -> String {
    let digest = Sha256::new()
        .chain_update(helper::program())
        .chain_update(PRIVATE_MODE.to_le_bytes())
        .finalize();
    let head = digest[..8].iter().map(|byte| format!("{byte:02x}"));
    format!("hybrid-runner-init-{}", head.collect::<String>())
}

impl Shared {
    /// The volume's name, once it holds the whole of init. Looked into once in the life of this process, and again
    /// after [`Shared::distrust_carrier`].
    pub(super) async fn carrier(&self, image: &str, progress: &Progress) -> Result<String> {
        let mut trusted = self.carrier.lock().await;
        if let Some(name) = trusted.as_ref() {
            return Ok(name.clone());
        }
        let name = name();
        // Where another start was killed at this, it takes as long as that is waited for.
        progress.report("preparing the engine for the first container");
        Engine::again(|| self.lay(&name, image)).await?;
        Ok(trusted.insert(name).clone())
    }

    /// Somebody may have removed the volume: it is looked into before it is used again.
    pub(super) async fn distrust_carrier(&self) {
        *self.carrier.lock().await = None;
    }

    /// Makes the volume and what is in it, by way of a container that is never started.
    async fn lay(&self, name: &str, image: &str) -> Result<()> {
        let failed = |error| self.engine.failed("prepare the volume of init", error);
        let volume = VolumeCreateRequest {
            name: Some(name.to_owned()),
            ..VolumeCreateRequest::default()
        };
        let docker = self.engine.order()?;
        docker.create_volume(volume).await.map_err(failed)?;
        let turn = self.take_turn(name, image).await?;
        fault::step("docker.carrier.made");
        let laid = self.lay_into(&turn).await;
        fault::step("docker.carrier.laid");
        self.end_turn(&turn).await?;
        laid
    }

    /// Makes the container that mounts the volume. Its name is the turn: nobody else can make one meanwhile.
    async fn take_turn(&self, name: &str, image: &str) -> Result<String> {
        let failed = |error| self.engine.failed("prepare the volume of init", error);
        let docker = self.engine.order()?;
        let turn = format!("{name}.laying");
        let mut other: Option<(String, Instant)> = None;
        loop {
            let options = CreateContainerOptionsBuilder::default().name(&turn).build();
            let made = docker.create_container(Some(options), mounting(name, image));
            match made.await {
                Ok(made) => return Ok(made.id),
                Err(error) if is_status(&error, 409) => {}
                Err(error) => return Err(failed(error)),
            }
            let id = self.inspect(&turn).await?.map(|container| container.id);
            match (id, &other) {
                (Some(id), Some((known, since))) if id == *known => {
                    if since.elapsed() > LONGEST_TURN {
                        self.end_turn(&id).await?;
                    }
                }
                (id, _) => other = id.map(|id| (id, Instant::now())),
            }
            sleep(PAUSE).await;
        }
    }

    async fn end_turn(&self, container: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().v(false).build();
        let docker = self.engine.order()?;
        match found(docker.remove_container(container, Some(options)).await) {
            // Somebody else is at it.
            Err(error) if is_status(&error, 409) => Ok(()),
            removed => removed
                .map(drop)
                .map_err(|error| self.engine.failed("prepare the volume of init", error)),
        }
    }

    async fn lay_into(&self, container: &str) -> Result<()> {
        if self.is_laid(container).await? {
            return Ok(());
        }
        let failed = |error| self.engine.failed("lay init into its volume", error);
        let options = UploadToContainerOptionsBuilder::default()
            .path(FOLDER)
            .build();
        let archive = archive().map_err(|error| {
            Error::internal("failed to make the archive of init").with_source(error)
        })?;
        let body = bollard::body_full(archive.into());
        let docker = self.engine.order()?;
        docker
            .upload_to_container(container, Some(options), body)
            .await
            .map_err(failed)?;
        if self.is_laid(container).await? {
            return Ok(());
        }
        Err(Error::internal(
            "the engine did not keep init as it was laid into its volume",
        ))
    }

    /// Whether the volume holds the whole of init, byte by byte.
    async fn is_laid(&self, container: &str) -> Result<bool> {
        let look = |docker: Docker| {
            let asked = async move {
                let options = DownloadFromContainerOptionsBuilder::default()
                    .path(INIT)
                    .build();
                let mut parts = docker.download_from_container(container, Some(options));
                let mut archive = Vec::new();
                while let Some(part) = found(parts.next().await.transpose())?.flatten() {
                    archive.extend_from_slice(&part);
                }
                Ok(holds_init(&archive))
            };
            asked.boxed()
        };
        let what = "look into the volume of init";
        self.engine.question(what, look).await
    }
}

/// A container that is never started, and holds nothing but the mount.
fn mounting(volume: &str, image: &str) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.to_owned()),
        labels: Some(HashMap::from([(LAYING.to_owned(), volume.to_owned())])),
        entrypoint: Some(vec![INIT.to_owned()]),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            mounts: Some(vec![Mount {
                target: Some(FOLDER.to_owned()),
                source: Some(volume.to_owned()),
                typ: Some(MountType::VOLUME),
                ..Mount::default()
            }]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// `init`, and the empty folder on which private files are mounted.
fn archive() -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(MODE);
    header.set_size(helper::program().len() as u64);
    archive.append_data(&mut header, below(INIT), helper::program())?;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(PRIVATE_MODE);
    header.set_size(0);
    archive.append_data(&mut header, below(PRIVATE), std::io::empty())?;
    archive.into_inner()
}

fn below(path: &str) -> &str {
    path.trim_start_matches(FOLDER).trim_start_matches('/')
}

fn holds_init(archive: &[u8]) -> bool {
    use std::io::Read as _;
    let mut archive = tar::Archive::new(archive);
    let Some(Ok(mut entry)) = archive
        .entries()
        .ok()
        .and_then(|mut entries| entries.next())
    else {
        return false;
    };
    let executable = entry.header().mode().is_ok_and(|mode| mode & MODE == MODE);
    let mut content = Vec::new();
    entry.read_to_end(&mut content).is_ok() && executable && content == helper::program()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_is_recognized_and_half_of_it_is_not() {
        let whole = archive().unwrap();
        assert!(holds_init(&whole));
        assert!(!holds_init(&whole[..whole.len() / 2]));
        assert!(!holds_init(b""));
    }
}
