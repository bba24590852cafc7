//! A history: a line for each point of each service.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::field;
use crate::history::figures::METRICS;
use crate::report::model::history::{HistoryReport, HistoryService};

/// Writes a head and a line for each point. Of each metric the least, the mean and the most; what is absent is empty.
pub fn write(report: &HistoryReport, to: &mut dyn Write) -> io::Result<()> {
    let mut line = String::from("service,cgroup,replica,pid,at_seconds,samples");
    for metric in &METRICS {
        let name = metric.name;
        let _ = write!(line, ",{name}_least,{name}_mean,{name}_most");
    }
    line.push_str("\r\n");
    to.write_all(line.as_bytes())?;
    for service in &report.services {
        of_service(service, &mut line, to)?;
    }
    Ok(())
}

fn of_service(service: &HistoryService, line: &mut String, to: &mut dyn Write) -> io::Result<()> {
    let points = &service.points;
    let who = format!(
        "{},{},{}",
        field(&service.name),
        field(&service.cgroup),
        service.replica
    );
    let columns: Vec<_> = METRICS
        .iter()
        .map(|metric| points.metrics.get(metric.name))
        .collect();
    for (index, at) in points.at_seconds.iter().enumerate() {
        line.clear();
        let run = points.run.get(index).and_then(|run| usize::try_from(*run).ok());
        let pid = run
            .and_then(|run| service.runs.get(run))
            .map_or_else(String::new, |run| run.pid.to_string());
        let samples = points.samples.get(index).copied().unwrap_or(0);
        let _ = write!(line, "{who},{pid},{at:.3},{samples}");
        for column in &columns {
            let parts = column.map(|column| [&column.least, &column.mean, &column.most]);
            for part in 0..3 {
                line.push(',');
                let value = parts
                    .and_then(|parts| parts.get(part).copied())
                    .and_then(|values| values.get(index).copied().flatten());
                if let Some(value) = value {
                    let _ = write!(line, "{value}");
                }
            }
        }
        line.push_str("\r\n");
        to.write_all(line.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Tool;
    use crate::report::model::history::{HistoryColumn, HistoryPoints, HistoryRun};

    #[test]
    fn a_line_for_each_point_and_hostile_names_in_quotes() {
        let column = HistoryColumn {
            least: vec![Some(1), None],
            mean: vec![Some(2), None],
            most: vec![Some(3), None],
        };
        let report = HistoryReport {
            schema_version: 1,
            tool: Tool {
                name: "leakwatch".to_owned(),
                version: "0".to_owned(),
            },
            services: vec![HistoryService {
                name: "a\",\n=x".to_owned(),
                cgroup: "=cmd()".to_owned(),
                runs: vec![HistoryRun {
                    pid: 7,
                    ..HistoryRun::default()
                }],
                points: HistoryPoints {
                    at_seconds: vec![10.5, 11.0],
                    run: vec![0, 9],
                    samples: vec![1, 2],
                    metrics: [("rss_bytes".to_owned(), column)].into(),
                },
                ..HistoryService::default()
            }],
            services_left_out: 0,
            alerts: Vec::new(),
        };
        let mut out = Vec::new();
        write(&report, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.split("\r\n").collect();
        let commas = 3 * METRICS.len() + 5;
        assert_eq!(lines[0].matches(',').count(), commas);
        assert!(
            lines[1].starts_with("\"a\"\",\\n=x\",'=cmd(),0,7,10.500,1,1,2,3,,"),
            "{}",
            lines[1]
        );
        assert!(
            lines[2].starts_with("\"a\"\",\\n=x\",'=cmd(),0,,11.000,2,,,,"),
            "{}",
            lines[2]
        );
        assert_eq!(lines[2].matches(',').count(), commas + 1, "one is in the name");
        assert_eq!(lines[3..], [""]);
    }
}
