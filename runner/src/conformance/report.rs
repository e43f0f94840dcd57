//! What came of a trial: lines, JSON, `JUnit`.

use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::testing::Verdict;
use serde::Serialize;

use super::candidate::Candidate;
use super::frames::Frames;

/// What came of one promise.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The method that promises it; `pipe` for promises of the pipe.
    pub method: String,
    /// The promise, in `snake_case`.
    pub name: String,
    /// `passed`, `failed` or `not_offered`.
    pub verdict: &'static str,
    /// What the contract says, if it failed; what would be needed, if it is not offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What came instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub came: Option<String>,
    /// The last messages of a case that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<String>,
}

impl Outcome {
    /// The promise in words.
    pub fn title(&self) -> String {
        self.name.replace('_', " ")
    }
}

/// What came of all of them.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// What was tried, in its own words.
    pub software: String,
    /// The contract that it was held to: `executor` or `secrets`.
    pub contract: Contract,
    /// What a person should know of it besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How many promises were kept.
    pub passed: usize,
    /// How many were not.
    pub failed: usize,
    /// How many could not be tried.
    pub not_offered: usize,
    /// Each of them.
    pub cases: Vec<Outcome>,
}

impl Report {
    pub(super) fn new(candidate: &Candidate) -> Self {
        Self {
            software: candidate.software().to_owned(),
            contract: candidate.contract(),
            notes: candidate.notes(),
            passed: 0,
            failed: 0,
            not_offered: 0,
            cases: Vec::new(),
        }
    }

    /// Whether every promise that could be tried was kept, and some were.
    pub fn is_kept(&self) -> bool {
        self.failed == 0 && self.passed > 0
    }

    pub(super) fn add(
        &mut self,
        method: &str,
        name: &str,
        verdict: Verdict,
        frames: &Frames,
        told: &mut impl FnMut(&Outcome),
    ) {
        let mut outcome = Outcome {
            method: method.to_owned(),
            name: name.to_owned(),
            verdict: "passed",
            expected: None,
            came: None,
            messages: Vec::new(),
        };
        match verdict {
            Verdict::Kept => self.passed += 1,
            Verdict::NotOffered(needs) => {
                self.not_offered += 1;
                outcome.verdict = "not_offered";
                outcome.expected = Some(needs);
            }
            Verdict::Failed(failed) => {
                self.failed += 1;
                outcome.verdict = "failed";
                outcome.expected = Some(failed.expected);
                outcome.came = Some(failed.came);
                outcome.messages = frames.shown();
            }
        }
        told(&outcome);
        self.cases.push(outcome);
    }
}

/// The report as `JUnit` XML, as build servers read it.
pub fn junit(report: &Report) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let tests = report.cases.len();
    let head = format!(
        "<testsuite name=\"{}\" tests=\"{tests}\" failures=\"{}\" skipped=\"{}\">\n",
        escaped(&report.software),
        report.failed,
        report.not_offered
    );
    xml.push_str(&head);
    for case in &report.cases {
        let mut line = format!(
            "  <testcase classname=\"{}\" name=\"{}\"",
            escaped(&case.method),
            escaped(&case.name)
        );
        let expected = escaped(case.expected.as_deref().unwrap_or_default());
        match case.verdict {
            "failed" => {
                let came = escaped(case.came.as_deref().unwrap_or_default());
                let messages = escaped(&case.messages.join("\n"));
                line.extend([
                    "><failure message=\"expected ",
                    &expected,
                    "\">came ",
                    &came,
                ]);
                line.extend(["\n", &messages, "</failure></testcase>\n"]);
            }
            "not_offered" => {
                line.extend(["><skipped message=\"needs ", &expected, "\"/></testcase>\n"]);
            }
            _ => line.push_str("/>\n"),
        }
        xml.push_str(&line);
    }
    xml.push_str("</testsuite>\n");
    xml
}

/// Text as XML has it; what XML cannot hold becomes U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push('\t'),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_hold_is_escaped() {
        assert_eq!(
            escaped("<a b=\"1\">\u{1}&\n"),
            "&lt;a b=&quot;1&quot;&gt;\u{fffd}&amp;&#10;"
        );
    }
}
