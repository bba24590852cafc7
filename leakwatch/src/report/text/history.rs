//! A history, and a look at all processes, as text.

use super::Options;
use super::layout::{
    DIM, PLAIN, Page, STRONG, UNKNOWN, count, known, left, reckoned, right, seconds, signed, signed_count,
};
use super::trend::is_told;
use crate::report::model::MemoryTrend;
use crate::report::model::history::{HistoryReport, HistoryService, ScanReport, ScanRow};

/// Columns of one figure.
const FIGURE: usize = 11;
/// From so many columns on a scan tells counts too.
const WIDE: usize = 100;
/// Alerts that are shown of all services.
const ALERTS: usize = 10;

/// Everything of a history.
pub fn history(page: &mut Page, report: &HistoryReport, options: &Options) {
    if report.services.is_empty() {
        page.paragraph(0, "There is no sample of any such service in it.", STRONG);
        return;
    }
    let head: String = ["samples", "runs", "rss", "anonymous", "gained"]
        .iter()
        .map(|name| right(name, FIGURE))
        .collect();
    page.line(&page.paint(DIM, &format!("{head}  service")));
    let shown = report.services.len().min(options.top);
    for service in report.services.iter().take(shown) {
        let figures = [
            count(service.samples),
            count(service.runs.len() as u64),
            known(service.rss_bytes),
            known(service.anonymous_bytes),
            signed(service.gain_bytes),
        ];
        let figures: String = figures.iter().map(|figure| right(figure, FIGURE)).collect();
        let room = page.width.saturating_sub(5 * FIGURE + 2);
        let name = page.fit(&title(service), room);
        page.line(&format!("{figures}  {name}"));
        page.paragraph(7, &about(page, service), PLAIN);
        if options.verbose {
            runs(page, service);
        }
    }
    let more = report.services.len().saturating_sub(shown) as u64 + report.services_left_out;
    if more > 0 {
        page.paragraph(2, &format!("and {} more, which gained less", count(more)), DIM);
    }
    alerts(page, report, options);
}

fn title(service: &HistoryService) -> String {
    let number = if service.replica == 0 {
        String::new()
    } else {
        format!("#{}", service.replica)
    };
    format!("{}{number}", service.name)
}

fn about(page: &Page, service: &HistoryService) -> String {
    let verdict = service.verdict.as_ref().map_or_else(String::new, |verdict| {
        format!("{} Trend: ", page.fit(&verdict.summary, 400))
    });
    let trend = service.trend.as_ref().map_or_else(
        || "no figures of its memory".to_owned(),
        |trend| of_trend(page, trend),
    );
    let mut text = verdict + &trend;
    if let (Some(least), Some(most)) = (service.anonymous_least_bytes, service.anonymous_most_bytes) {
        text += &format!("; {} to {} in this run", known(Some(least)), known(Some(most)));
    }
    for with in service
        .correlations
        .iter()
        .filter(|it| is_told(it) && !it.few_events)
    {
        text += &format!("; goes with {}", page.fit(&with.with, 20));
        if let (Some(low), Some(high)) = (with.bytes_per_unit_low, with.bytes_per_unit_high) {
            text += &format!(" ({} to {} each)", reckoned(low), reckoned(high));
        }
    }
    if service.alerts_raised > 0 {
        let s = if service.alerts_raised == 1 { "" } else { "s" };
        text += &format!("; {} alert{s}", service.alerts_raised);
    }
    let cgroup = if service.cgroup.len() > 1 {
        format!("; in {}", page.fit(&service.cgroup, 200))
    } else {
        String::new()
    };
    format!(
        "{text}; {} to {}{cgroup}.",
        page.fit(&service.first_at, 30),
        page.fit(&service.last_at, 30)
    )
}

fn of_trend(page: &Page, trend: &MemoryTrend) -> String {
    if trend.kind == "unknown" {
        let longer = trend.watch_longer_seconds.map_or_else(String::new, |longer| {
            format!(", about {} more would tell", seconds(longer))
        });
        return format!("trend not known yet{longer}");
    }
    let kind = page.fit(&trend.kind, 40);
    let hour = |rate: f64| format!("{}/h", reckoned(rate * 3600.0));
    match (
        trend.slope_bytes_per_second,
        trend.slope_low_bytes_per_second,
        trend.slope_high_bytes_per_second,
    ) {
        (Some(slope), Some(low), Some(high)) => {
            format!("{kind}, {} ({} to {})", hour(slope), hour(low), hour(high))
        }
        _ => kind,
    }
}

fn runs(page: &mut Page, service: &HistoryService) {
    for run in &service.runs {
        let end = match (&run.ended_at, &run.ending) {
            (Some(at), Some(ending)) => format!(", ended {} ({})", page.fit(at, 30), page.fit(ending, 60)),
            (Some(at), None) => format!(", ended {}", page.fit(at, 30)),
            _ => String::new(),
        };
        let baseline = run
            .baseline_bytes
            .map_or_else(String::new, |bytes| format!(", baseline {}", known(Some(bytes))));
        let line = format!(
            "PID {} from {}{end}{baseline}",
            run.pid,
            page.fit(&run.first_at, 30)
        );
        page.paragraph(9, &line, DIM);
    }
}

fn alerts(page: &mut Page, report: &HistoryReport, options: &Options) {
    if report.alerts.is_empty() {
        return;
    }
    page.heading("ALERTS", "the latest last");
    let shown = if options.verbose {
        report.alerts.len()
    } else {
        ALERTS.min(report.alerts.len())
    };
    let before = report.alerts.len() - shown;
    if before > 0 {
        page.paragraph(2, &format!("{before} before these: -v shows them"), DIM);
    }
    for alert in report.alerts.iter().skip(before) {
        let line = page.fit(&alert.line, 600);
        page.paragraph(2, &line, PLAIN);
    }
}

/// Everything of a scan.
pub fn scan(page: &mut Page, report: &ScanReport, options: &Options) {
    let about = format!(
        "{} processes in {}: anonymous memory {} in all, {} started, {} exited, {} not readable.",
        count(report.processes),
        seconds(report.seconds),
        signed(report.anonymous_growth_bytes),
        report.started,
        report.exited,
        report.unreadable
    );
    page.paragraph(0, &about, STRONG);
    let growing: Vec<&ScanRow> = report
        .rows
        .iter()
        .filter(|row| row.anonymous_growth_bytes > 0)
        .take(options.top)
        .collect();
    if growing.is_empty() {
        page.paragraph(0, "None of them grew.", PLAIN);
        return;
    }
    // Names need room: on a narrow page the counts are left out.
    let columns = if page.width < WIDE { 4 } else { 6 };
    let head: String = ["grew", "an hour", "anonymous", "rss", "threads", "fds"]
        .iter()
        .take(columns)
        .map(|name| right(name, FIGURE))
        .collect();
    page.line(&page.paint(DIM, &format!("{head}  {} name", left("PID", 8))));
    for row in growing {
        #[expect(clippy::cast_precision_loss, reason = "a size in memory")]
        let hour = row.anonymous_growth_bytes as f64 / report.seconds.max(0.001) * 3600.0;
        let change = |count_now: Option<u64>, growth: Option<i64>| match (count_now, growth) {
            (Some(now), Some(growth)) if growth != 0 => format!("{} {}", count(now), signed_count(growth)),
            (Some(now), _) => count(now),
            _ => UNKNOWN.to_owned(),
        };
        let figures = [
            signed(row.anonymous_growth_bytes),
            if row.started {
                "new".to_owned()
            } else {
                reckoned(hour)
            },
            known(row.anonymous_bytes),
            known(row.rss_bytes),
            change(row.threads, row.threads_growth),
            change(row.descriptors, row.descriptors_growth),
        ];
        let figures: String = figures
            .iter()
            .take(columns)
            .map(|figure| right(figure, FIGURE))
            .collect();
        let room = page.width.saturating_sub(columns * FIGURE + 11);
        let name = page.fit(&row.name, room);
        page.line(&format!("{figures}  {} {name}", left(&row.pid.to_string(), 8)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{render_history, render_scan};
    use super::*;
    use crate::report::model::history::{HistoryAlert, HistoryRun};
    use crate::report::model::{Correlation, Tool, Verdict};

    fn tool() -> Tool {
        Tool {
            name: "leakwatch".to_owned(),
            version: "0.1.0".to_owned(),
        }
    }

    fn report() -> HistoryReport {
        let at = |hour: u32| format!("2026-11-27T{hour:02}:00:00Z");
        HistoryReport {
            schema_version: 1,
            tool: tool(),
            services: vec![HistoryService {
                name: "ser\x1b[2Jver".to_owned(),
                cgroup: "/system.slice/x.service".to_owned(),
                replica: 1,
                runs: vec![
                    HistoryRun {
                        pid: 4242,
                        first_at: at(1),
                        ended_at: Some(at(2)),
                        ending: Some("it exited".to_owned()),
                        baseline_bytes: Some(40 << 20),
                    },
                    HistoryRun {
                        pid: 4343,
                        first_at: at(2),
                        ..HistoryRun::default()
                    },
                ],
                samples: 1234,
                first_at: at(1),
                last_at: at(9),
                rss_bytes: Some(90 << 20),
                anonymous_bytes: Some(80 << 20),
                anonymous_least_bytes: Some(30 << 20),
                anonymous_most_bytes: Some(81 << 20),
                gain_bytes: 50 << 20,
                trend: Some(MemoryTrend {
                    kind: "steady growth".to_owned(),
                    slope_bytes_per_second: Some(2000.0),
                    slope_low_bytes_per_second: Some(1900.0),
                    slope_high_bytes_per_second: Some(2100.0),
                    samples: 400,
                    ..MemoryTrend::default()
                }),
                correlations: vec![Correlation {
                    with: "connections".to_owned(),
                    p_value: Some(0.005),
                    bytes_per_unit_low: Some(3000.0),
                    bytes_per_unit_high: Some(4000.0),
                    ..Correlation::default()
                }],
                verdict: Some(Verdict {
                    kind: "leak".to_owned(),
                    summary: "Leak: anonymous memory grew by 50.0 MiB, and the growth is steady.".to_owned(),
                    ..Verdict::default()
                }),
                alerts_raised: 1,
                ..HistoryService::default()
            }],
            services_left_out: 3,
            alerts: vec![HistoryAlert {
                line: "2026-11-27T03:00:00Z ALERT x\u{202e} (PID 4343): rate 120.0 MiB/h".to_owned(),
                ..HistoryAlert::default()
            }],
        }
    }

    #[test]
    fn a_history_at_80_columns() {
        let options = |verbose| Options {
            width: 80,
            verbose,
            ..Options::default()
        };
        insta::assert_snapshot!("history_80", render_history(&report(), &options(false)));
        insta::assert_snapshot!("history_80_verbose", render_history(&report(), &options(true)));
        let empty = HistoryReport {
            services: Vec::new(),
            ..report()
        };
        assert!(render_history(&empty, &options(false)).contains("no sample"));
    }

    #[test]
    fn a_scan_at_100_columns() {
        let row = |pid, growth| ScanRow {
            pid,
            name: "a\nname\x1b[2J".to_owned(),
            rss_bytes: Some(90 << 20),
            anonymous_bytes: Some(80 << 20),
            anonymous_growth_bytes: growth,
            threads: Some(9),
            threads_growth: Some(2),
            descriptors: Some(100),
            descriptors_growth: Some(0),
            ..ScanRow::default()
        };
        let report = ScanReport {
            schema_version: 1,
            tool: tool(),
            taken_at: String::new(),
            seconds: 10.0,
            processes: 3000,
            started: 1,
            exited: 2,
            unreadable: 0,
            anonymous_growth_bytes: 5 << 20,
            processor_seconds: 0.1,
            rows: vec![
                row(4242, 6 << 20),
                ScanRow {
                    started: true,
                    ..row(4_194_304, 4096)
                },
                row(9, -5),
            ],
        };
        insta::assert_snapshot!("scan_100", render_scan(&report, &Options::default()));
        let narrow = Options {
            width: 80,
            ..Options::default()
        };
        insta::assert_snapshot!("scan_80", render_scan(&report, &narrow));
        let none = ScanReport {
            rows: Vec::new(),
            ..report
        };
        assert!(render_scan(&none, &Options::default()).contains("None of them grew."));
    }
}
