//! A bare client of the engine: what anybody must ask it for.

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{
    CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptions,
};
use futures::StreamExt as _;

use super::IMAGE;

#[derive(Debug)]
pub(super) struct Bare(Docker);

impl Bare {
    pub(super) fn new(host: &str) -> Result<Self> {
        let socket = host
            .strip_prefix("unix://")
            .context("an engine at a socket")?;
        Ok(Self(Docker::connect_with_unix(
            socket,
            120,
            bollard::API_DEFAULT_VERSION,
        )?))
    }

    pub(super) async fn start(&self, command: &[&str]) -> Result<String> {
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                log_config: Some(HostConfigLogConfig {
                    typ: Some("local".to_owned()),
                    config: None,
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let made = self
            .0
            .create_container(None::<CreateContainerOptions>, body)
            .await?;
        self.0.start_container(&made.id, None).await?;
        Ok(made.id)
    }

    /// Waits, reads the log, removes.
    pub(super) async fn end(&self, id: String) -> Result<()> {
        let mut waited = self.0.wait_container(&id, None::<WaitContainerOptions>);
        while let Some(end) = waited.next().await {
            end?;
        }
        self.read(&id).await?;
        let options = RemoveContainerOptionsBuilder::default().v(true).build();
        Ok(self.0.remove_container(&id, Some(options)).await?)
    }

    pub(super) async fn whole(&self, command: &[&str]) -> Result<()> {
        let id = self.start(command).await?;
        self.end(id).await
    }

    /// Reads a log; how many bytes, without what the engine puts before each record.
    pub(super) async fn read(&self, container: &str) -> Result<u64> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .build();
        let mut records = self.0.logs(container, Some(options));
        let mut bytes = 0;
        while let Some(record) = records.next().await {
            bytes += record?.into_bytes().len().saturating_sub(31) as u64;
        }
        Ok(bytes)
    }
}
