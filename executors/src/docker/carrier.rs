//! The volume that carries init into all containers: one for each engine and version of init, read-only there.
//!
//! Laying a file into each container would take longer than all else we add to a start: the engine runs itself anew
//! for every archive. So it is done once, and each container only mounts the volume. Runners that share an engine take
//! turns at it: what one has laid, and perhaps started already, is not written again by another.
//!
//! A turn is a container of a known name. It is taken away from one that has surely ended ([`Holder`]); from one of whom
//! that cannot be seen only behind a long time, as an engine under load is slow and not dead. Who has lost its turn in spite
//! of all takes another.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder,
    RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::executor::Progress;
use hybrid_runner_core::fault;
use hybrid_runner_core::run::FailureClass;
use hybrid_runner_helper::container::{FOLDER, INIT, PRIVATE};
use sha2::{Digest as _, Sha256};
use tokio::time::{Duration, Instant, sleep};

use super::Shared;
use super::blame::NO_FOLDER;
use super::engine::{Engine, found, is_status};
use super::holder::{self, Holder};
use crate::helper;

/// The mode of init.
const MODE: u32 = 0o755;
/// The mode of the folder for private files. Whatever is mounted there gets it too, from runc, and not the mode that was
/// asked for; and the workload need not be root.
const PRIVATE_MODE: u32 = 0o1777;

/// A turn that takes longer was left behind by a crash on another host. The slowest engine that still serves runs lays init in
/// a quarter of it; and from one that is slower still nothing is taken but time.
const LONGEST_TURN: Duration = Duration::from_mins(1);
/// So many turns may be lost to others.
const TURNS: u32 = 5;
/// Tells people whose a container is that lays init into a volume.
const LAYING: &str = "io.hybrid-runner.laying";
/// Tells others who lays.
const HOLDER: &str = "io.hybrid-runner.holder";
/// What an archive of the volume has beside init, at the most.
const MOST_FRAMING: usize = 64 << 10;
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
        let laid = Engine::again(|| self.lay(&name, image)).await;
        laid.map_err(of_backend)?;
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
        for _ in 0..TURNS {
            let turn = self.take_turn(name, image).await?;
            fault::step("docker.carrier.made");
            let laid = self.lay_into(name, &turn.container).await;
            fault::step("docker.carrier.laid");
            self.end_turn(&turn.container).await?;
            match laid {
                // Somebody has taken the container away, and perhaps lays now.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                laid => return laid,
            }
        }
        Err(Error::unavailable(format!(
            "others took the volume `{name}` away again and again while init was laid into it"
        )))
    }

    /// Makes the container that mounts the volume. Its name is the turn: nobody else can make one meanwhile.
    async fn take_turn(&self, name: &str, image: &str) -> Result<Turn> {
        let docker = self.engine.order()?;
        let turn = format!("{name}.laying");
        let holder = Holder::new();
        let mut other: Option<(String, Instant)> = None;
        loop {
            let options = CreateContainerOptionsBuilder::default().name(&turn).build();
            let body = mounting(name, image, holder.as_ref());
            match docker.create_container(Some(options), body).await {
                Ok(made) => {
                    return Ok(Turn {
                        container: made.id,
                        _holder: holder,
                    });
                }
                Err(error) if is_status(&error, 409) => {}
                Err(error) if is_status(&error, 404) => {
                    return Err(Error::unavailable(format!(
                        "the image `{image}` was removed while the engine was made ready for it"
                    ))
                    .with_source(error));
                }
                Err(error) => {
                    return Err(self.engine.failed("prepare the volume of init", error));
                }
            }
            let taken = self.taken(&turn).await?;
            if let Some(Taken { id, is_dead }) = &taken {
                let known = other.as_ref().filter(|(known, _)| known == id);
                let since = known.map(|(_, since)| *since);
                if *is_dead || since.is_some_and(|since| since.elapsed() > LONGEST_TURN) {
                    self.end_turn(id).await?;
                }
                other = Some((id.clone(), since.unwrap_or_else(Instant::now)));
            }
            sleep(PAUSE).await;
        }
    }

    /// Who has the turn.
    async fn taken(&self, turn: &str) -> Result<Option<Taken>> {
        let inspect = |docker: Docker| {
            async move { found(docker.inspect_container(turn, None).await) }.boxed()
        };
        let what = "look who prepares the volume of init";
        let found = self.engine.question(what, inspect).await?;
        Ok(found.and_then(|container| {
            let labels = container.config.and_then(|config| config.labels);
            let holder = labels.as_ref().and_then(|labels| labels.get(HOLDER));
            Some(Taken {
                id: container.id?,
                is_dead: holder.is_some_and(|holder| holder::is_dead(holder)),
            })
        }))
    }

    async fn end_turn(&self, container: &str) -> Result<()> {
        // With what the engine has made for a VOLUME of the image; a volume with a name stays.
        let options = RemoveContainerOptionsBuilder::default().v(true).build();
        let docker = self.engine.order()?;
        match found(docker.remove_container(container, Some(options)).await) {
            // Somebody else is at it.
            Err(error) if is_status(&error, 409) => Ok(()),
            removed => removed
                .map(drop)
                .map_err(|error| self.engine.failed("prepare the volume of init", error)),
        }
    }

    async fn lay_into(&self, name: &str, container: &str) -> Result<()> {
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
        Err(Error::internal(format!(
            "the volume `{name}` holds more than init, or does not keep init as it was laid: remove it (`docker volume rm {name}`), and it is made anew"
        ))
        .with_class(FailureClass::Backend))
    }

    /// Whether the volume that is mounted there holds the whole of init, byte by byte, and nothing else.
    pub(super) async fn is_laid(&self, container: &str) -> Result<bool> {
        let remaps = self.facts().await?.remaps;
        let look = |docker: Docker| {
            let asked = async move {
                let options = DownloadFromContainerOptionsBuilder::default()
                    .path(FOLDER)
                    .build();
                let mut parts = docker.download_from_container(container, Some(options));
                let mut archive = Vec::new();
                while let Some(part) = parts.next().await {
                    match part {
                        Ok(part) => archive.extend_from_slice(&part),
                        Err(error) if is_no_folder(&error) => return Ok(Held::NoFolder),
                        Err(error) => return Err(error),
                    }
                    if archive.len() > helper::program().len() + MOST_FRAMING {
                        return Ok(Held::Other);
                    }
                }
                let is_ours = holds_ours(&archive, remaps);
                Ok(if is_ours { Held::Init } else { Held::Other })
            };
            asked.boxed()
        };
        let what = "look into the volume of init";
        match self.engine.question(what, look).await? {
            Held::Init => Ok(true),
            Held::Other => Ok(false),
            Held::NoFolder => {
                Err(Error::invalid(format!("the image {NO_FOLDER}"))
                    .with_class(FailureClass::Image))
            }
        }
    }
}

/// What is mounted for init.
enum Held {
    /// The whole of it, and nothing else.
    Init,
    Other,
    /// Nothing can be mounted there.
    NoFolder,
}

/// Whether the image has a file where the volume is mounted.
fn is_no_folder(error: &bollard::errors::Error) -> bool {
    let is_said = error.to_string().contains("not a directory");
    is_said && is_status(error, 500)
}

/// The right to lay init.
struct Turn {
    container: String,
    _holder: Option<Holder>,
}

/// The turn of somebody.
struct Taken {
    id: String,
    is_dead: bool,
}

/// Nothing that a workflow says has to do with it.
fn of_backend(error: Error) -> Error {
    let is_known = matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unavailable);
    if is_known || error.class().is_some() {
        return error;
    }
    error.with_class(FailureClass::Backend)
}

/// A container that is never started, and holds nothing but the mount.
fn mounting(volume: &str, image: &str, holder: Option<&Holder>) -> ContainerCreateBody {
    let mut labels = HashMap::from([(LAYING.to_owned(), volume.to_owned())]);
    labels.extend(holder.map(|holder| (HOLDER.to_owned(), holder.label().to_owned())));
    ContainerCreateBody {
        image: Some(image.to_owned()),
        labels: Some(labels),
        entrypoint: Some(vec![INIT.to_owned()]),
        host_config: Some(HostConfig {
            network_mode: Some("none".to_owned()),
            mounts: Some(vec![Mount {
                target: Some(FOLDER.to_owned()),
                source: Some(volume.to_owned()),
                typ: Some(MountType::VOLUME),
                volume_options: Some(MountVolumeOptions {
                    // The image may have such a folder, which is not ours.
                    no_copy: Some(true),
                    ..MountVolumeOptions::default()
                }),
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
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(helper::program().len() as u64);
    archive.append_data(&mut header, below(INIT), helper::program())?;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(PRIVATE_MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    archive.append_data(&mut header, below(PRIVATE), std::io::empty())?;
    archive.into_inner()
}

fn below(path: &str) -> &str {
    path.trim_start_matches(FOLDER).trim_start_matches('/')
}

/// Whether an archive of the whole folder holds what we lay, and nothing else. An engine that maps users to others shows
/// those.
fn holds_ours(archive: &[u8], remaps: bool) -> bool {
    let mut archive = tar::Archive::new(archive);
    let Ok(entries) = archive.entries() else {
        return false;
    };
    let (mut has_init, mut has_private) = (false, false);
    for entry in entries {
        let Ok(mut entry) = entry else { return false };
        let Ok(path) = entry.path().map(std::borrow::Cow::into_owned) else {
            return false;
        };
        let path = path
            .strip_prefix(FOLDER.trim_start_matches('/'))
            .unwrap_or(&path);
        let kind = entry.header().entry_type();
        let mode = entry.header().mode().unwrap_or_default() & 0o7777;
        let is_of_root = remaps || is_of_root(entry.header());
        match path.to_str() {
            // Whoever it belongs to, all must find the way through it.
            Some("") if kind.is_dir() && mode & 0o555 == 0o555 => {}
            Some(path) if path == below(INIT) && !has_init => {
                has_init = kind.is_file() && mode == MODE && is_of_root && is_program(&mut entry);
            }
            Some(path) if path == below(PRIVATE) && !has_private => {
                has_private = kind.is_dir() && mode == PRIVATE_MODE && is_of_root;
            }
            _ => return false,
        }
    }
    has_init && has_private
}

fn is_of_root(header: &tar::Header) -> bool {
    header.uid().is_ok_and(|user| user == 0) && header.gid().is_ok_and(|group| group == 0)
}

fn is_program(content: &mut impl std::io::Read) -> bool {
    let mut read = Vec::new();
    content.read_to_end(&mut read).is_ok() && read == helper::program()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with what is given: path, kind, mode, owner, content.
    fn folder(entries: &[(&str, tar::EntryType, u32, u64, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, mode, owner, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_uid(*owner);
            header.set_gid(*owner);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn what_is_laid_is_recognized_and_half_of_it_is_not() {
        let whole = archive().unwrap();
        assert!(holds_ours(&whole, false));
        assert!(!holds_ours(&whole[..whole.len() / 2], false));
        assert!(!holds_ours(b"", false));
    }

    #[test]
    fn what_is_not_as_it_was_laid_is_seen() {
        use tar::EntryType::{Directory, Regular, Symlink};
        let program = helper::program();
        let root = (".hr/", Directory, 0o755, 0, &b""[..]);
        let init = (".hr/init", Regular, MODE, 0, program);
        let private = (".hr/private/", Directory, PRIVATE_MODE, 0, &b""[..]);
        assert!(holds_ours(&folder(&[root, init, private]), false));
        let remapped = folder(&[root, (init.0, Regular, MODE, 100_000, program), private]);
        assert!(holds_ours(&remapped, true));
        assert!(!holds_ours(&remapped, false));
        for spoilt in [
            &[root, init][..],
            &[root, private],
            &[(root.0, Directory, 0o700, 0, b""), init, private],
            &[root, (init.0, Regular, 0o4755, 0, program), private],
            &[root, (init.0, Regular, MODE, 0, b"other"), private],
            &[root, init, (".hr/private", Directory, 0o755, 0, b"")],
            &[root, init, (".hr/private", Symlink, PRIVATE_MODE, 0, b"")],
            &[root, init, private, (".hr/more", Regular, 0o644, 0, b"")],
        ] {
            assert!(!holds_ours(&folder(spoilt), false), "{:?}", spoilt.len());
        }
    }
}
