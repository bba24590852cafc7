//! An alert: one line, and the same as variables for a command. Pure.

use std::path::PathBuf;
use std::time::Duration;

use super::limit::Bound;
use super::thresholds::Threshold;
use crate::diagnose::correlate::Correlation;
use crate::diagnose::figures;
use crate::diagnose::verdict::{Goes, With};
use crate::history::At;
use crate::history::figures::Figures;
use crate::report::escape::{escape, text_of};

/// A name in a line is cut there, in columns.
const NAME_COLUMNS: usize = 60;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Raised,
    Cleared,
    /// Its process is gone.
    Ended,
    /// A recording that was begun for it is there.
    Recorded,
    /// It is not there.
    NotRecorded,
}

impl Event {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Cleared => "cleared",
            Self::Ended => "ended",
            Self::Recorded => "recorded",
            Self::NotRecorded => "not_recorded",
        }
    }
}

/// What is known of the growth.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Growth {
    /// The trend's name.
    pub kind: &'static str,
    /// The verdict's; `None` where it was not asked for.
    pub verdict: Option<&'static str>,
    /// Bytes per second.
    pub rate: f64,
    pub interval: (f64, f64),
    /// Seconds that it was watched.
    pub watched: f64,
    /// What it goes with best, as far as that can be told.
    pub with: Option<(&'static str, Correlation)>,
    pub time_to_limit: Option<(Duration, Bound)>,
}

/// One alert at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub at: At,
    pub event: Event,
    pub threshold: Threshold,
    /// Hostile text.
    pub service: String,
    pub cgroup: String,
    pub pid: u32,
    /// In the threshold's unit; `None` where it is not known any more.
    pub value: Option<f64>,
    pub bound: f64,
    pub figures: Figures,
    pub growth: Growth,
    /// The file that a recording is or will be in.
    pub recording: Option<PathBuf>,
    /// Why there is none.
    pub reason: Option<String>,
}

/// The correlation that is told of: the strongest that is none by chance hardly ever.
#[must_use]
pub fn telling(found: &[(With, Correlation)]) -> Option<(&'static str, Correlation)> {
    Goes::all(found)
        .into_iter()
        .filter(|goes| goes.is_told() && !goes.correlation.rests_on_few_events())
        .map(|goes| (goes.with.name(), goes.correlation))
        .max_by(|(_, one), (_, other)| one.coefficient.total_cmp(&other.coefficient))
}

/// `3d 4h`: the two largest units.
#[must_use]
pub fn span(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "never".to_owned();
    }
    let whole = Duration::try_from_secs_f64(seconds.max(0.0).round()).unwrap_or(Duration::MAX);
    let text = humantime::format_duration(whole).to_string();
    let mut words = text.split(' ');
    match (words.next(), words.next()) {
        (Some(first), Some(second)) => format!("{first} {second}"),
        _ => text,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is only shown"
)]
fn size(bytes: f64) -> String {
    figures::bytes(bytes.max(0.0).round() as u64)
}

fn shown(threshold: Threshold, value: f64) -> String {
    match threshold {
        Threshold::Rate => format!("{}/h", size(value)),
        Threshold::Rise => size(value),
        Threshold::TimeToLimit => span(value),
        Threshold::Descriptors => format!("{value:.0} descriptors"),
        Threshold::Threads => format!("{value:.0} threads"),
        Threshold::Connections => format!("{value:.0} connections"),
    }
}

impl Alert {
    /// `server (PID 4242)`, inert.
    fn who(&self) -> String {
        format!(
            "{} (PID {})",
            crate::report::escape::fit(&self.service, NAME_COLUMNS, "…"),
            self.pid
        )
    }

    /// One line without its newline; everything in it is inert.
    #[must_use]
    pub fn line(&self) -> String {
        let at = self.at.text();
        let what = self.threshold.name().replace('_', " ");
        let value = self
            .value
            .map_or_else(|| "unknown".to_owned(), |value| shown(self.threshold, value));
        let bound = shown(self.threshold, self.bound);
        let file = self
            .recording
            .as_ref()
            .map(|file| escape(&text_of(std::os::unix::ffi::OsStrExt::as_bytes(file.as_os_str()))));
        let who = self.who();
        match self.event {
            Event::Raised => {
                let beyond = if self.threshold == Threshold::TimeToLimit {
                    "within"
                } else {
                    "beyond"
                };
                let recording = file.map_or_else(String::new, |file| format!("; recording to {file}"));
                format!(
                    "{at} ALERT {who}: {what} {value}, {beyond} {bound}{}{recording}",
                    self.evidence()
                )
            }
            Event::Cleared => format!("{at} CLEAR {who}: {what} {value}, well within {bound}"),
            Event::Ended => format!("{at} ENDED {who}: its process is gone; {what} was beyond {bound}"),
            Event::Recorded => format!("{at} RECORDED {who}: {}", file.unwrap_or_default()),
            Event::NotRecorded => format!(
                "{at} NOT RECORDED {who}: {}",
                escape(self.reason.as_deref().unwrap_or("unknown"))
            ),
        }
    }

    fn evidence(&self) -> String {
        let mut text = String::new();
        if let Some(bytes) = self.figures.rss_bytes {
            text += &format!("; {} resident", figures::bytes(bytes));
        }
        let growth = &self.growth;
        if !growth.kind.is_empty() {
            let verdict = growth
                .verdict
                .map_or_else(String::new, |kind| format!("{kind}: "));
            text += &format!("; {verdict}{} for {}", growth.kind, span(growth.watched));
            if growth.rate > 0.0 && self.threshold != Threshold::Rate {
                text += &format!(", {}/h", size(growth.rate * 3600.0));
            }
        }
        if let Some((with, correlation)) = &growth.with {
            let with = if *with == "fds" { "descriptors" } else { with };
            text += &format!(", goes with {with}");
            if let Some(each) = correlation.per_unit.filter(|each| each.low > 0.0) {
                text += &format!(" ({} to {} each)", size(each.low), size(each.high));
            }
        }
        if let Some((time, bound)) = growth.time_to_limit {
            text += &format!("; {} to {}", span(time.as_secs_f64()), bound.name());
        }
        text
    }

    /// The same, for a command. Names and values are plain text, sizes bytes, times seconds; what is not known is not
    /// there.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        let mut all: Vec<(&'static str, std::ffi::OsString)> = Vec::new();
        let mut set = |name: &'static str, value: Option<String>| {
            // A variable cannot hold a NUL, nor can a name of the kernel's.
            if let Some(value) = value {
                all.push((name, value.replace('\0', "").into()));
            }
        };
        let growth = &self.growth;
        set("LEAKWATCH_ALERT_EVENT", Some(self.event.name().to_owned()));
        set(
            "LEAKWATCH_ALERT_THRESHOLD",
            Some(self.threshold.name().to_owned()),
        );
        set("LEAKWATCH_ALERT_UNIT", Some(self.threshold.unit().to_owned()));
        set(
            "LEAKWATCH_ALERT_VALUE",
            self.value
                .filter(|value| value.is_finite())
                .map(|value| format!("{value:.0}")),
        );
        set("LEAKWATCH_ALERT_BOUND", Some(format!("{:.0}", self.bound)));
        set("LEAKWATCH_ALERT_TIME", Some(self.at.text()));
        set("LEAKWATCH_ALERT_SERVICE", Some(escape(&self.service)));
        set("LEAKWATCH_ALERT_CGROUP", Some(escape(&self.cgroup)));
        set("LEAKWATCH_ALERT_PID", Some(self.pid.to_string()));
        set("LEAKWATCH_ALERT_LINE", Some(self.line()));
        let count = |value: Option<u64>| value.map(|value| value.to_string());
        set("LEAKWATCH_ALERT_RSS_BYTES", count(self.figures.rss_bytes));
        set(
            "LEAKWATCH_ALERT_ANONYMOUS_BYTES",
            count(self.figures.anonymous_and_swap()),
        );
        set("LEAKWATCH_ALERT_DESCRIPTORS", count(self.figures.descriptors));
        set("LEAKWATCH_ALERT_THREADS", count(self.figures.threads));
        set("LEAKWATCH_ALERT_CONNECTIONS", count(self.figures.connections));
        if !growth.kind.is_empty() {
            set("LEAKWATCH_ALERT_TREND", Some(growth.kind.to_owned()));
            set("LEAKWATCH_ALERT_VERDICT", growth.verdict.map(str::to_owned));
            set(
                "LEAKWATCH_ALERT_BYTES_PER_HOUR",
                Some(format!("{:.0}", growth.rate * 3600.0)),
            );
        }
        set(
            "LEAKWATCH_ALERT_GOES_WITH",
            growth.with.as_ref().map(|(with, _)| (*with).to_owned()),
        );
        set(
            "LEAKWATCH_ALERT_SECONDS_TO_LIMIT",
            growth.time_to_limit.map(|(time, _)| time.as_secs().to_string()),
        );
        if let Some(file) = &self.recording {
            all.push(("LEAKWATCH_ALERT_RECORDING", file.clone().into()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::correlate::PerUnit;

    fn alert(event: Event, threshold: Threshold) -> Alert {
        Alert {
            at: At(1_795_751_466_000),
            event,
            threshold,
            service: "ser\x1b[31mver\n".to_owned(),
            cgroup: "/system.slice/x.service".to_owned(),
            pid: 4242,
            value: Some(f64::from(120 << 20)),
            bound: f64::from(16 << 20),
            figures: Figures {
                rss_bytes: Some(700 << 20),
                anonymous_bytes: Some(600 << 20),
                ..Figures::default()
            },
            growth: Growth {
                kind: "steady growth",
                verdict: Some("leak"),
                rate: f64::from(120 << 20) / 3600.0,
                interval: (0.0, 1.0),
                watched: 2100.0,
                with: Some((
                    "connections",
                    Correlation {
                        coefficient: 0.9,
                        lag: 0.0,
                        p_value: 0.005,
                        events: 30.0,
                        per_unit: Some(PerUnit {
                            bytes: 3800.0,
                            low: 3174.0,
                            high: 4505.0,
                        }),
                        changes: 100,
                    },
                )),
                time_to_limit: Some((Duration::from_secs(6 * 3600 + 61), Bound::Cgroup)),
            },
            recording: Some("/var/lib/a b.json".into()),
            reason: None,
        }
    }

    #[test]
    fn a_line_says_what_on_whom_and_by_what_evidence() {
        assert_eq!(
            alert(Event::Raised, Threshold::Rate).line(),
            "2026-11-27T03:51:06Z ALERT ser\\x1b[31mver\\n (PID 4242): rate 120.0 MiB/h, beyond 16.0 MiB/h; \
             700.0 MiB resident; leak: steady growth for 35m, goes with connections (3.1 KiB to 4.4 KiB each); \
             6h 1m to the cgroup's limit; recording to /var/lib/a b.json"
        );
        let cleared = Alert {
            value: Some(f64::INFINITY),
            bound: 86400.0,
            ..alert(Event::Cleared, Threshold::TimeToLimit)
        };
        assert!(
            cleared.line().ends_with("time to limit never, well within 1day"),
            "{}",
            cleared.line()
        );
        for event in [Event::Ended, Event::Recorded, Event::NotRecorded] {
            let line = alert(event, Threshold::Threads).line();
            assert!(!line.contains('\n') && !line.contains('\x1b'), "{line}");
        }
    }

    #[test]
    fn the_environment_has_figures_without_units_and_nothing_that_is_unknown() {
        let environment = alert(Event::Raised, Threshold::Rate).environment();
        let value = |name: &str| {
            environment
                .iter()
                .find(|(other, _)| *other == name)
                .map(|(_, value)| value.to_str().unwrap())
        };
        assert_eq!(value("LEAKWATCH_ALERT_EVENT"), Some("raised"));
        assert_eq!(value("LEAKWATCH_ALERT_VALUE"), Some("125829120"));
        assert_eq!(value("LEAKWATCH_ALERT_BOUND"), Some("16777216"));
        assert_eq!(value("LEAKWATCH_ALERT_SERVICE"), Some("ser\\x1b[31mver\\n"));
        assert_eq!(value("LEAKWATCH_ALERT_VERDICT"), Some("leak"));
        assert_eq!(value("LEAKWATCH_ALERT_GOES_WITH"), Some("connections"));
        assert_eq!(value("LEAKWATCH_ALERT_SECONDS_TO_LIMIT"), Some("21661"));
        assert_eq!(value("LEAKWATCH_ALERT_RECORDING"), Some("/var/lib/a b.json"));
        assert_eq!(value("LEAKWATCH_ALERT_THREADS"), None);
        assert!(
            environment
                .iter()
                .all(|(name, _)| name.starts_with("LEAKWATCH_ALERT_"))
        );
    }
}
