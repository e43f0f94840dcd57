//! Figures and rows.

use std::fmt::Write as _;

/// One line of the table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    what: String,
    goal: String,
    ours: String,
    floor: String,
    ratio: String,
    load: String,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, ours: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ours: ours.into(),
            ..Self::default()
        }
    }

    pub(crate) fn goal(mut self, goal: impl Into<String>) -> Self {
        self.goal = goal.into();
        self
    }

    /// What the floor took in the same run, and the ratio of ours to it.
    pub(crate) fn floor(mut self, floor: impl Into<String>, ratio: f64) -> Self {
        self.floor = floor.into();
        self.ratio = format!("{ratio:.2}");
        self
    }

    pub(crate) fn at(mut self, load: &str) -> Self {
        load.clone_into(&mut self.load);
        self
    }
}

/// All rows as one table.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "\n| what | goal | measured | floor | ratio | load before |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Row {
            what,
            goal,
            ours,
            floor,
            ratio,
            load,
        } = row;
        writeln!(
            text,
            "| {what} | {goal} | {ours} | {floor} | {ratio} | {load} |"
        )
        .expect("writing to a string");
    }
    text
}

/// Values in the order of their size.
#[derive(Debug)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    pub(crate) fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value that this share (in percent) of all does not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let last = self.0.len() - 1;
        self.0[(last * percent).div_ceil(100)]
    }

    pub(crate) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    /// `p50 / p95 / p99 (max)` in milliseconds.
    pub(crate) fn spread(&self) -> String {
        format!(
            "{:.2} / {:.2} / {:.2} (max {:.1}) ms",
            self.p50(),
            self.percentile(95),
            self.percentile(99),
            self.percentile(100)
        )
    }
}

/// Numbers of this size lose nothing that a table shows.
#[expect(clippy::cast_precision_loss, reason = "a table shows three digits")]
pub(crate) fn number(value: u64) -> f64 {
    value as f64
}

pub(crate) fn mib(kib: f64) -> f64 {
    kib / 1024.0
}
