//! Can this kernel, these privileges and this process be watched? What degrades?
//!
//! Every need is a [`Finding`]; what they say is put together in [`render`], which is pure.

mod faults;
mod host;
mod process;
mod render;
mod tracefs;

pub use render::render;

use crate::session;
use crate::target::Proc;

/// How well a need is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ok,
    /// A recording is made, but says less.
    Degraded,
    /// No recording can be made.
    Missing,
}

/// One need and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub need: &'static str,
    pub state: State,
    /// What was found; may quote the target, unescaped.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<&'static str>,
}

impl Finding {
    fn ok(need: &'static str, detail: impl Into<String>) -> Self {
        Self {
            need,
            state: State::Ok,
            detail: detail.into(),
            advice: None,
        }
    }

    fn degraded(need: &'static str, detail: impl Into<String>, advice: &'static str) -> Self {
        Self {
            need,
            state: State::Degraded,
            detail: detail.into(),
            advice: Some(advice),
        }
    }

    fn missing(need: &'static str, detail: impl Into<String>, advice: &'static str) -> Self {
        Self {
            need,
            state: State::Missing,
            detail: detail.into(),
            advice: Some(advice),
        }
    }
}

/// Looks at everything: the host, process `pid` where one is named, and at last the real thing.
#[must_use]
pub fn examine(pid: Option<u32>) -> Vec<Finding> {
    let proc = Proc::host();
    let mut findings = host::examine(&proc);
    if let Some(pid) = pid {
        findings.extend(process::examine(&proc, pid));
    }
    findings.extend(faults::examine(pid));
    findings.push(match run_self_test() {
        Ok(detail) => Finding::ok("self-test", detail),
        Err(error) => Finding::missing(
            "self-test",
            format!("{error:#}"),
            "see the lines above; without any other that is not ok, please report this",
        ),
    });
    findings
}

/// Whether `record` would work.
#[must_use]
pub fn can_record(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.state != State::Missing)
}

/// Loads and attaches the programs, and sees a mapping of a child come back with its stack. On success one line on
/// what came back.
fn run_self_test() -> anyhow::Result<String> {
    let result = session::self_test()?;
    Ok(format!(
        "attached in {} ms; a child's mapping came back through the ring buffer in {:.1} ms with {} frames",
        result.attach.as_millis(),
        result.event.as_secs_f64() * 1000.0,
        result.frames
    ))
}
