//! The metrics: the names of the existing chart's dashboard and alerts, and ours.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::Observed;
use crate::measure::Times;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The chart's name of a metric.
macro_rules! chart {
    ($name:literal) => {
        concat!("collate_hybrid_agent_", $name)
    };
}

/// All metrics as text.
pub(super) fn render(observed: &Observed) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(observed.clone())));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Scrape(Observed);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(&mut encoder);
        let load = self.0.load.now();
        self.charts(&mut out, load)?;
        self.ours(&mut out, load)
    }
}

impl Scrape {
    /// The names that dashboard and alerts of the existing chart know.
    fn charts(&self, out: &mut Out<'_, '_>, load: Used) -> fmt::Result {
        let observed = &self.0;
        let counts = &observed.counts;
        let connected = observed.link.borrow().is_connected();

        out.gauge(
            chart!("connected"),
            "Whether the link to the control plane is up",
            f64::from(u8::from(connected)),
        )?;
        out.counter(
            chart!("jobs_counter"),
            "Attempts handed to executors",
            counts.started(),
        )?;
        out.by_label(
            chart!("jobs"),
            "Attempts that ended",
            "status",
            counts.ended(),
        )?;
        out.gauge(
            chart!("cpu_usage"),
            "Processor time of this process, percent of one core",
            load.cpu_percent,
        )?;
        out.gauge(
            chart!("memory_usage"),
            "Resident memory of this process, percent of its limit",
            load.memory_percent,
        )?;
        out.times(
            chart!("server_response_time_seconds"),
            "Answers of the control plane",
            counts.server.read(),
        )?;
        let executor = counts.executor.read();
        out.times(
            chart!("executor_response_time_seconds"),
            "Answers of executors",
            executor,
        )?;
        out.times(
            chart!("argo_response_time_seconds"),
            "Older name of executor_response_time_seconds",
            executor,
        )
    }

    /// Ours.
    fn ours(&self, out: &mut Out<'_, '_>, load: Used) -> fmt::Result {
        let observed = &self.0;
        let ready = observed.obstacles().is_empty();
        let snapshot = observed.snapshot.snapshot();
        let runs = snapshot.runs;
        out.gauge(
            "hybrid_runner_ready",
            "Whether work can flow",
            f64::from(u8::from(ready)),
        )?;
        out.gauge(
            "hybrid_runner_memory_bytes",
            "Resident memory of this process",
            load.memory_bytes,
        )?;
        out.gauge(
            "hybrid_runner_slots",
            "Runs that fit at the same time",
            f64::from(snapshot.slots),
        )?;
        out.gauge(
            "hybrid_runner_slots_used",
            "Runs that hold a slot",
            f64::from(snapshot.slots_used),
        )?;
        out.gauges_by_label(
            "hybrid_runner_runs",
            "Runs by state; finished ones wait for their acknowledgement",
            "state",
            [
                ("queued", runs.queued),
                ("starting", runs.starting),
                ("running", runs.running),
                ("finished", runs.finished),
            ],
        )?;
        let oldest = snapshot.oldest_outcome.unwrap_or_default();
        out.gauge(
            "hybrid_runner_oldest_outcome_seconds",
            "How long the oldest outcome has waited for its acknowledgement",
            oldest.as_secs_f64(),
        )?;
        out.gauges_by_label(
            "hybrid_runner_executor_usable",
            "Whether an executor answers",
            "executor",
            snapshot
                .executors
                .iter()
                .map(|(name, wrong)| (name.as_str(), u32::from(wrong.is_none()))),
        )?;
        self.secrets(out)?;
        out.gauges_by_label(
            "hybrid_runner_build_info",
            "Always 1",
            "version",
            [(env!("CARGO_PKG_VERSION"), 1)],
        )
    }
}

impl Scrape {
    /// Reads of secrets by store and outcome.
    fn secrets(&self, out: &mut Out<'_, '_>) -> fmt::Result {
        let reads = self.0.stores.reads();
        out.by_store(
            "hybrid_runner_secret_reads",
            "References that were asked for",
            reads.iter().map(|(store, outcome, reads)| {
                (store.as_str(), *outcome, ConstCounter::new(reads.count))
            }),
        )?;
        out.by_store(
            "hybrid_runner_secret_read_seconds",
            "Time until they were answered, together",
            reads.iter().map(|(store, outcome, reads)| {
                let took = ConstCounter::new(reads.took.as_secs_f64());
                (store.as_str(), *outcome, took)
            }),
        )
    }
}

/// Writes metrics of one value each.
struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn by_label<'n>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'n str, u64)>,
    ) -> fmt::Result {
        let mut encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            ConstCounter::new(count).encode(encoder.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn by_store<'n, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (&'n str, &'static str, M)>,
    ) -> fmt::Result {
        let mut encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (store, outcome, value) in values {
            let labels = [("store", store), ("outcome", outcome)];
            value.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges_by_label<'n>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'n str, u32)>,
    ) -> fmt::Result {
        let mut encoder = self
            .0
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, number) in values {
            ConstGauge::new(i64::from(number)).encode(encoder.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    /// As a Micrometer timer is exported: `_count`, `_sum`, `_max`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a count beyond 2^52 is not reached"
    )]
    fn times(&mut self, name: &str, help: &str, times: Times) -> fmt::Result {
        self.gauge(&format!("{name}_count"), help, times.count as f64)?;
        self.gauge(&format!("{name}_sum"), help, times.sum)?;
        self.gauge(&format!("{name}_max"), help, times.max)
    }
}

/// What this process uses.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<Option<(Instant, Duration)>>);

/// What this process uses now.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Used {
    cpu_percent: f64,
    memory_percent: f64,
    memory_bytes: f64,
}

impl Load {
    /// The processor's share since the last call, and the memory of now.
    fn now(&self) -> Used {
        let (now, spent) = (Instant::now(), processor_time());
        let mut last = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (then, before) = last.replace((now, spent)).unwrap_or((now, spent));
        let wall = now.duration_since(then).as_secs_f64();
        let memory_bytes = resident();
        Used {
            cpu_percent: if wall > 0.0 {
                100.0 * spent.saturating_sub(before).as_secs_f64() / wall
            } else {
                0.0
            },
            memory_percent: 100.0 * memory_bytes / memory_limit(),
            memory_bytes,
        }
    }
}

/// Processor time of this process, from `/proc/self/stat`.
fn processor_time() -> Duration {
    /// `USER_HZ`, the same on every Linux.
    const TICK: Duration = Duration::from_millis(10);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything; what follows is regular.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u32 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u32>().ok())
        .sum();
    TICK * ticks
}

/// Resident memory of this process, in bytes.
fn resident() -> f64 {
    field_kib("/proc/self/status", "VmRSS:").unwrap_or_default() * 1024.0
}

/// What this process may use, in bytes: its cgroup's limit, else the machine's memory.
fn memory_limit() -> f64 {
    let cgroup = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let limit: Option<f64> = cgroup.and_then(|text| text.trim().parse().ok());
    limit
        .or_else(|| Some(field_kib("/proc/meminfo", "MemTotal:")? * 1024.0))
        .unwrap_or(f64::INFINITY)
}

fn field_kib(path: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
