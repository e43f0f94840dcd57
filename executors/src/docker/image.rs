//! The image of a run: there, or pulled, or whose fault it is that it is not.

use std::collections::HashMap;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, ImageConfig};
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::executor::Progress;
use hybrid_runner_core::run::FailureClass;
use hybrid_runner_core::unit::ByteSize;
use tokio::time::{Duration, Instant};

use super::Shared;
use super::config::PullPolicy;
use super::engine::found;

/// Between two reports of how a pull is getting on.
const REPORT: Duration = Duration::from_millis(500);
/// Images without a registry in their name come from here.
const DEFAULT_REGISTRY: &str = "docker.io";

/// An image that is there.
pub(super) struct Image {
    pub(super) config: ImageConfig,
    /// What was done to get it, for the run's log.
    pub(super) note: Option<String>,
}

impl Shared {
    /// The image, pulled if the section says so.
    pub(super) async fn image(&self, name: &str, progress: &Progress) -> Result<Image> {
        let policy = self.settings.pull;
        if policy != PullPolicy::Always
            && let Some(config) = self.image_config(name).await?
        {
            return Ok(Image { config, note: None });
        }
        if policy == PullPolicy::Never {
            return Err(missing(
                name,
                "and `pull = \"never\"` is set: load it there, or set `pull = \"missing\"`",
            ));
        }
        let note = self.pull(name, progress).await?;
        let config = self.image_config(name).await?;
        let config = config.ok_or_else(|| missing(name, "although it has just been pulled"))?;
        Ok(Image {
            config,
            note: Some(note),
        })
    }

    /// What an image says about itself; `None` if the engine does not have it.
    pub(super) async fn image_config(&self, name: &str) -> Result<Option<ImageConfig>> {
        let inspect =
            |docker: Docker| async move { found(docker.inspect_image(name).await) }.boxed();
        let what = format!("look at the image `{name}`");
        let answer = self.engine.question(&what, inspect).await;
        let answer = answer.map_err(|error| match error.kind() {
            // Its name is none.
            ErrorKind::Invalid => error.with_class(FailureClass::Image),
            _ => error,
        })?;
        Ok(answer.map(|image| image.config.unwrap_or_default()))
    }

    /// Whether the registry would let us pull an image; asks without pulling.
    pub(super) async fn is_pullable(&self, name: &str) -> Result<()> {
        let credentials = self.credentials(name).await?;
        let docker = self.engine.order()?;
        let answer = docker
            .inspect_registry_image(&tagged(name), credentials)
            .await;
        answer
            .map(drop)
            .map_err(|error| self.not_pulled(name, error))
    }

    async fn pull(&self, name: &str, progress: &Progress) -> Result<String> {
        let begun = Instant::now();
        progress.report(&format!("pulling image `{name}`"));
        let credentials = self.credentials(name).await?;
        let options = CreateImageOptionsBuilder::default()
            .from_image(&tagged(name))
            .build();
        let mut steps = self
            .engine
            .order()?
            .create_image(Some(options), None, credentials);
        let mut layers = Layers::default();
        let mut reported = begun;
        while let Some(step) = steps.next().await {
            let step = step.map_err(|error| self.not_pulled(name, error))?;
            if let Some(detail) = &step.error_detail {
                let words = detail.message.clone().unwrap_or_default();
                let error = bollard::errors::Error::DockerStreamError { error: words };
                return Err(self.not_pulled(name, error));
            }
            layers.take(&step);
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                progress.report(&format!("pulling image `{name}`: {layers}"));
            }
        }
        let took = begun.elapsed().as_secs_f64();
        let note = format!("pulled image `{name}` in {took:.1} s ({layers})");
        progress.report(&note);
        Ok(note)
    }

    async fn credentials(&self, image: &str) -> Result<Option<DockerCredentials>> {
        let host = registry_of(image);
        let Some(registry) = self.settings.registries.get(host) else {
            return Ok(None);
        };
        let unresolved = |error: Error| {
            Error::new(
                error.kind(),
                format!("failed to get the password for registry `{host}`"),
            )
            .with_class(FailureClass::Secret)
            .with_source(error)
        };
        let value = self
            .references
            .read(&registry.password)
            .await
            .map_err(unresolved)?;
        // On its way into the header that the engine hands on to the registry.
        let password = value.expose_text().map_err(unresolved)?.to_owned();
        Ok(Some(DockerCredentials {
            username: Some(registry.username.clone()),
            password: Some(password),
            serveraddress: Some(host.to_owned()),
            ..DockerCredentials::default()
        }))
    }

    /// Who is to blame for an image that could not be pulled.
    fn not_pulled(&self, name: &str, error: bollard::errors::Error) -> Error {
        let error = self
            .engine
            .failed(&format!("pull the image `{name}`"), error);
        if error.class().is_some() {
            return error;
        }
        let source = error.causes().unwrap_or_default();
        let words = source.to_lowercase();
        let says = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
        let host = registry_of(name);
        if says(&[
            "unauthorized",
            "access denied",
            "access to the resource is denied",
            "no basic auth",
            "authentication required",
            "forbidden",
        ]) || error.kind() == ErrorKind::Denied
        {
            let advice = format!(
                "the registry `{host}` does not let us pull `{name}`: it is not there, or `registries.\"{host}\"` of the executor needs a user and a password that may"
            );
            return Error::new(ErrorKind::Denied, advice)
                .with_class(FailureClass::Image)
                .with_source(source);
        }
        if says(&[
            "not found",
            "manifest unknown",
            "name unknown",
            "no such image",
            "invalid reference format",
        ]) {
            let why = format!("and the registry `{host}` does not have it: correct `image`");
            return missing(name, &why).with_source(source);
        }
        if error.kind() == ErrorKind::Internal {
            // A registry that is away, or a network that is: it may be better soon.
            return Error::unavailable(format!("failed to pull the image `{name}` from `{host}`"))
                .with_class(FailureClass::Image)
                .with_source(source);
        }
        error.with_class(FailureClass::Image)
    }
}

fn missing(name: &str, why: &str) -> Error {
    Error::not_found(format!(
        "the engine does not have the image `{name}`, {why}"
    ))
    .with_class(FailureClass::Image)
}

/// Without a tag or digest the engine would pull every tag there is.
fn tagged(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains([':', '@']) {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

/// The registry in an image's name: a first part that looks like a host.
pub(super) fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DEFAULT_REGISTRY,
    }
}

/// How the layers of a pull are getting on.
#[derive(Default)]
struct Layers(HashMap<String, Layer>);

#[derive(Default)]
struct Layer {
    current: u64,
    total: u64,
    is_done: bool,
}

impl Layers {
    fn take(&mut self, step: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&step.id, &step.status) else {
            return;
        };
        if status.starts_with("Pulling from") {
            return;
        }
        let layer = self.0.entry(id.clone()).or_default();
        layer.is_done |= matches!(status.as_str(), "Pull complete" | "Already exists");
        if let (true, Some(detail)) = (status == "Downloading", &step.progress_detail) {
            let number = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
            layer.current = number(detail.current).unwrap_or(layer.current);
            layer.total = number(detail.total).unwrap_or(layer.total);
        }
    }
}

impl std::fmt::Display for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = self.0.values().filter(|layer| layer.is_done).count();
        write!(f, "{done} of {} layers", self.0.len())?;
        let total: u64 = self.0.values().map(|layer| layer.total).sum();
        if total > 0 {
            let current: u64 = self
                .0
                .values()
                .map(|layer| {
                    if layer.is_done {
                        layer.total
                    } else {
                        layer.current
                    }
                })
                .sum();
            let mib = |bytes: u64| ByteSize::mib(bytes >> 20);
            write!(f, ", {} of {}", mib(current), mib(total))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_the_first_part_if_it_looks_like_a_host() {
        for (image, host) in [
            ("busybox", "docker.io"),
            ("openmetadata/ingestion:1", "docker.io"),
            ("localhost/a:1", "localhost"),
            ("127.0.0.1:5000/a/b@sha256:00", "127.0.0.1:5000"),
            ("ghcr.io/a/b", "ghcr.io"),
        ] {
            assert_eq!(registry_of(image), host);
        }
    }

    #[test]
    fn an_image_without_a_tag_is_the_latest_and_not_all() {
        for (name, full) in [
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("a:1", "a:1"),
            ("a@sha256:00", "a@sha256:00"),
        ] {
            assert_eq!(tagged(name), full);
        }
    }
}
