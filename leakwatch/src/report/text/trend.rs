//! How memory went over the window, and what it went with.

use super::layout::{PLAIN, Page, per_second, reckoned_range, seconds};
use crate::diagnose::verdict::facts::CHANCE_MOST;
use crate::report::model::{Correlation, MemoryTrend, Recording};

/// In recordings from before chances were corrected for how many counts were tried.
const CHANCE_MOST_OF_ONE: f64 = 0.02;

/// A correlation with a greater chance to be none is not told. A minute of samples cannot make it less than 0.014 for one
/// count, nor less than 0.042 for three.
pub fn is_told(correlation: &Correlation) -> bool {
    match correlation.p_value_corrected {
        Some(chance) => chance <= CHANCE_MOST,
        None => correlation
            .p_value
            .is_some_and(|chance| chance <= CHANCE_MOST_OF_ONE),
    }
}

/// After the account: nothing, where there were no samples.
pub fn section(page: &mut Page, recording: &Recording) {
    let Some(trend) = &recording.trend else { return };
    page.heading("TREND", "");
    page.paragraph(2, &of_memory(page, trend), PLAIN);
    let with = recording.correlations.iter().flatten();
    for correlation in with.filter(|it| is_told(it)) {
        page.paragraph(2, &goes_with(page, correlation), PLAIN);
    }
}

pub fn of_memory(page: &Page, trend: &MemoryTrend) -> String {
    let samples = format!(
        "{} sample{}",
        trend.samples,
        if trend.samples == 1 { "" } else { "s" }
    );
    let longer = trend.watch_longer_seconds.map(seconds);
    if trend.kind == "unknown" {
        let longer = longer.map_or_else(String::new, |longer| format!("; about {longer} more would tell"));
        return format!("How anonymous memory goes cannot be told from {samples} yet{longer}.");
    }
    let rate = match (
        trend.slope_bytes_per_second,
        trend.slope_low_bytes_per_second,
        trend.slope_high_bytes_per_second,
    ) {
        (Some(slope), Some(low), Some(high)) => {
            format!(
                ", {} ({} to {})",
                per_second(slope),
                per_second(low),
                per_second(high)
            )
        }
        _ => String::new(),
    };
    let longer = longer.map_or_else(String::new, |longer| {
        format!(" Another {longer} would tell more.")
    });
    format!(
        "Anonymous memory: {}{rate}, by {samples}.{longer}",
        page.fit(&trend.kind, 40)
    )
}

pub fn goes_with(page: &Page, correlation: &Correlation) -> String {
    let name = match correlation.with.as_str() {
        "fds" => "open descriptors".to_owned(),
        other => page.fit(other, 40),
    };
    let each = match (correlation.bytes_per_unit_low, correlation.bytes_per_unit_high) {
        (Some(low), Some(high)) => format!(": {} each", reckoned_range(low, high)),
        _ => String::new(),
    };
    let lag = correlation
        .lag_seconds
        .filter(|lag| *lag > 0.0)
        .map_or_else(String::new, |lag| format!(", {} later", seconds(lag)));
    let chance = correlation
        .p_value_corrected
        .or(correlation.p_value)
        .map_or_else(String::new, |chance| format!(" (p {chance:.3})"));
    let few = if correlation.few_events {
        "; few events say so, and it may be chance"
    } else {
        ""
    };
    format!("It goes with {name}{each}{lag}{chance}{few}.")
}

#[cfg(test)]
mod tests {
    use super::super::render;
    use super::super::tests::at;
    use super::*;
    use crate::report::sample;

    fn text(trend: MemoryTrend, correlations: Vec<Correlation>) -> String {
        let mut recording = sample::full();
        recording.trend = Some(trend);
        recording.correlations = Some(correlations);
        let text = render(&recording, &at(100));
        let from = text.find("TREND").unwrap();
        text[from..]
            .lines()
            .take_while(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn growth_and_what_it_goes_with() {
        let trend = MemoryTrend {
            kind: "steady growth".into(),
            slope_bytes_per_second: Some(2_200_000.0),
            slope_low_bytes_per_second: Some(-1000.0),
            slope_high_bytes_per_second: Some(2_400_000.0),
            p_value: Some(0.0),
            samples: 60,
            watch_longer_seconds: None,
        };
        let with = |name: &str, chance| Correlation {
            with: name.into(),
            p_value: Some(chance / 3.0),
            p_value_corrected: (name != "fds").then_some(chance),
            // Of one the sign is not known.
            bytes_per_unit_low: Some(if name == "fds" { -2048.0 } else { 3174.0 }),
            bytes_per_unit_high: Some(4505.0),
            lag_seconds: Some(2.0),
            few_events: name == "fds",
            ..Correlation::default()
        };
        let correlations = vec![
            with("connections", 0.042),
            with("fds", 0.03),
            with("threads", 0.06),
        ];
        assert_eq!(
            text(trend, correlations),
            "TREND\n  Anonymous memory: steady growth, 2.1 MiB/s (-1000 B/s to 2.3 MiB/s), by 60 samples.\n  \
             It goes with connections: 3.1 KiB to 4.4 KiB each, 2.0 s later (p 0.042).\n  \
             It goes with open descriptors: -2.0 KiB to 4.4 KiB each, 2.0 s later (p 0.010); few events say so,\n  \
             and it may be chance."
        );
    }

    #[test]
    fn what_cannot_be_told_yet() {
        let trend = MemoryTrend {
            kind: "unknown".into(),
            samples: 1,
            watch_longer_seconds: Some(40.0),
            ..MemoryTrend::default()
        };
        assert_eq!(
            text(trend, Vec::new()),
            "TREND\n  How anonymous memory goes cannot be told from 1 sample yet; about 40.0 s more would tell."
        );
    }

    #[test]
    fn without_samples_it_is_not_there() {
        assert!(!render(&sample::full(), &at(100)).contains("TREND"));
    }
}
