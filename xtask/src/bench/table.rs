//! The table, as Markdown that reads well as plain text too.

use std::fmt::Write as _;

use super::peers::Peer;
use super::ratio::{Spread, median};
use super::rounds::{Outcome, Pass, Plan};
use super::tracers::Tracer;
use super::workloads::{Measure, Told};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Line {
    pub name: &'static str,
    /// The median of the untraced windows, in `unit`.
    pub untraced: Option<f64>,
    pub unit: &'static str,
    /// One for each tracer.
    pub cells: Vec<Cell>,
    pub own: Own,
}

/// What is told of leakwatch beside the slowdown. Nothing where it is not among the tracers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Own {
    /// Its processor time, as a part of one CPU: the mean, since the kernel counts it in hundredths of a second.
    pub cpu: Option<f64>,
    /// The medians of what its recordings say.
    pub sampling_rate: Option<f64>,
    pub coverage: Option<f64>,
}

/// What one tracer did to one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    Slowdown(Spread),
    /// In the line's unit.
    Measured(Spread),
    NoFigure,
    NotInstalled,
    Failed,
}

/// The lines of one measurement; an outcome for each tracer.
pub fn lines(measure: &Measure, tracers: &[Tracer], outcomes: &[Outcome]) -> Vec<Line> {
    let own = tracers
        .iter()
        .zip(outcomes)
        .find_map(|(tracer, outcome)| match (tracer, outcome) {
            (Tracer::Leakwatch(_), Outcome::Passes(passes)) => Some(own(passes, measure.grows)),
            _ => None,
        });
    let figures = measure.figures.iter().enumerate();
    figures
        .map(|(index, figure)| Line {
            name: figure.name,
            untraced: median(&values(outcomes.iter().flat_map(passes), |pass| {
                pass.untraced.get(index).copied().flatten()
            })),
            unit: figure.unit,
            cells: outcomes
                .iter()
                .map(|outcome| cell(outcome, index, figure.told))
                .collect(),
            own: own.unwrap_or_default(),
        })
        .collect()
}

fn passes(outcome: &Outcome) -> &[Pass] {
    match outcome {
        Outcome::Passes(passes) => passes,
        Outcome::Missing | Outcome::Failed(_) => &[],
    }
}

fn values<'a>(passes: impl IntoIterator<Item = &'a Pass>, read: impl Fn(&Pass) -> Option<f64>) -> Vec<f64> {
    passes.into_iter().filter_map(read).collect()
}

fn own(passes: &[Pass], grows: bool) -> Own {
    let cpu: f64 = passes.iter().map(|pass| pass.cpu).sum();
    Own {
        cpu: (!passes.is_empty()).then(|| cpu / passes.len() as f64),
        sampling_rate: median(&values(passes, |pass| pass.account.sampling_rate)),
        coverage: median(&values(passes, |pass| pass.account.coverage.filter(|_| grows))),
    }
}

fn cell(outcome: &Outcome, figure: usize, told: Told) -> Cell {
    let of = |read: fn(&Pass) -> &[Option<f64>]| {
        let value = move |pass: &Pass| read(pass).get(figure).copied().flatten();
        Spread::of(&values(passes(outcome), value))
    };
    match (outcome, told) {
        (Outcome::Missing, _) => Cell::NotInstalled,
        (Outcome::Failed(_), _) => Cell::Failed,
        (Outcome::Passes(_), Told::AsSlowdown) => {
            of(|pass| &pass.slowdowns).map_or(Cell::NoFigure, Cell::Slowdown)
        }
        (Outcome::Passes(_), Told::AsMeasured) => {
            of(|pass| &pass.traced).map_or(Cell::NoFigure, Cell::Measured)
        }
    }
}

/// How many threads want to run, the mean of the last minute: on a machine that is busy with other things the table
/// has noise.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Where it was measured, and with which versions of the peers: the start of a line.
pub fn machine(tracers: &[Tracer], load: &str) -> String {
    let system = rustix::system::uname();
    let mut text = format!(
        "{} {} {}, {}, load {load} before",
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        system.machine().to_string_lossy(),
        processors(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    );
    for version in tracers.iter().filter_map(Tracer::peer).filter_map(Peer::version) {
        let _ = write!(text, ", {version}");
    }
    text
}

/// One line that says where and how it was measured.
pub fn head(plan: &Plan, tracers: &[Tracer], load: &str) -> String {
    let mut text = machine(tracers, load);
    let _ = write!(
        text,
        ". Times slower than the same program untraced: median (lowest to highest) of {} {} of {:.1} s.{}",
        plan.rounds,
        if plan.rounds == 1 { "window" } else { "windows" },
        plan.window.as_secs_f64(),
        if tracers.iter().all(|tracer| tracer.peer().is_none()) {
            ""
        } else {
            " bpftrace counts each fault; perf takes some 4,000 a second."
        }
    );
    text
}

/// The number of CPUs, and their name where `/proc/cpuinfo` has one (it has not on aarch64).
fn processors(cpuinfo: &str) -> String {
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let count = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let name = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(value);
    let cpus = format!("{count} {}", if count == 1 { "CPU" } else { "CPUs" });
    name.map_or_else(|| cpus.clone(), |name| format!("{cpus} ({name})"))
}

/// The table itself. `tracers` head its columns; leakwatch's own columns are left out where no line has them.
pub fn markdown(tracers: &[&str], lines: &[Line]) -> String {
    let with_own = lines.iter().any(|line| line.own != Own::default());
    let mut rows = vec![
        [&["workload", "untraced"], tracers]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect(),
    ];
    if with_own {
        rows.iter_mut().for_each(|row: &mut Vec<String>| {
            row.extend(["leakwatch's CPU", "sampling rate", "coverage"].map(str::to_owned));
        });
    }
    for line in lines {
        let untraced = line
            .untraced
            .map_or_else(unknown, |value| format!("{} {}", figure(value), line.unit));
        let mut row = vec![line.name.to_owned(), untraced];
        row.extend(line.cells.iter().map(|cell| shown(cell, line.unit)));
        if with_own {
            row.push(
                line.own
                    .cpu
                    .map_or_else(unknown, |part| format!("{:.1} %", part * 100.0)),
            );
            row.push(line.own.sampling_rate.map_or_else(unknown, sampling_rate));
            row.push(
                line.own
                    .coverage
                    .map_or_else(unknown, |part| format!("{part:.2}")),
            );
        }
        rows.push(row);
    }
    aligned(&rows)
}

fn unknown() -> String {
    "-".to_owned()
}

fn shown(cell: &Cell, unit: &str) -> String {
    match cell {
        Cell::Slowdown(Spread {
            median,
            lowest,
            highest,
        }) => format!("{median:.2} ({lowest:.2} to {highest:.2})"),
        Cell::Measured(Spread {
            median,
            lowest,
            highest,
        }) => format!(
            "{} {unit} ({} to {})",
            figure(*median),
            figure(*lowest),
            figure(*highest)
        ),
        Cell::NoFigure => unknown(),
        Cell::NotInstalled => "not installed".to_owned(),
        Cell::Failed => "failed".to_owned(),
    }
}

/// It only ever halves, so that a fraction says more than a decimal.
fn sampling_rate(rate: f64) -> String {
    if rate <= 0.0 || rate >= 1.0 {
        return format!("{rate:.0}");
    }
    let each = 1.0 / rate;
    format!(
        "1/{}",
        if each < 10.0 && each.fract() > 0.05 {
            format!("{each:.1}")
        } else {
            format!("{each:.0}")
        }
    )
}

/// A number of things, as [`figure`] but without parts of one.
pub fn count(value: f64) -> String {
    figure(value.round()).trim_end_matches(".0").to_owned()
}

/// Three digits that count, and thousands apart.
pub fn figure(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let unit = 10f64.powf(value.log10().floor() - 2.0);
    let digits = format!("{:.0}", (value / unit).round() * unit);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Which cells say more of the machine than of the tracer: their windows differ by more than a factor of two.
pub fn doubts(tracers: &[&str], lines: &[Line]) -> Vec<String> {
    let mut doubts = Vec::new();
    for line in lines {
        for (tracer, cell) in tracers.iter().zip(&line.cells) {
            if let Cell::Slowdown(spread) = cell
                && spread.highest > 2.0 * spread.lowest
            {
                doubts.push(format!("{}, {tracer}", line.name));
            }
        }
    }
    doubts
}

/// Columns of one width: names to the left, all else to the right.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
        })
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column == 0 {
                write!(text, "| {cell:<width$} ")
            } else {
                write!(text, "| {cell:>width$} ")
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let dashes = "-".repeat(width + 1);
                let _ = if column == 0 {
                    write!(text, "|{dashes}-")
                } else {
                    write!(text, "|{dashes}:")
                };
            }
            text.push_str("|\n");
        }
    }
    text
}

/// A table with a list below it of what its cells have no room for.
pub fn with_notes(mut table: String, notes: &[String]) -> String {
    for (index, note) in notes.iter().enumerate() {
        let _ = writeln!(table, "{}- {note}", if index == 0 { "\n" } else { "" });
    }
    table
}

/// To stdout, where nothing else goes.
#[expect(clippy::print_stdout, reason = "the table is what the command is for")]
pub fn print(head: &str, table: &str) {
    print!("{head}\n\n{table}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64, lowest: f64, highest: f64) -> Cell {
        Cell::Slowdown(Spread {
            median,
            lowest,
            highest,
        })
    }

    #[test]
    fn the_table_is_markdown_in_columns() {
        let line = Line {
            name: "fault storm",
            untraced: Some(412_345.0),
            unit: "pages/s",
            cells: vec![
                spread(1.034, 1.0, 1.1),
                spread(2.5, 2.25, 3.0),
                Cell::NotInstalled,
            ],
            own: Own {
                cpu: Some(0.0712),
                sampling_rate: Some(1.0 / 64.0),
                coverage: None,
            },
        };
        let other = Line {
            name: "x",
            untraced: None,
            cells: vec![Cell::NoFigure, Cell::Failed, Cell::NotInstalled],
            own: Own::default(),
            ..line.clone()
        };
        let text = markdown(&["leakwatch", "bpftrace", "perf record"], &[line, other]);
        assert_eq!(
            text,
            "\
| workload    |        untraced |           leakwatch |            bpftrace |   perf record | leakwatch's CPU | sampling rate | coverage |
|-------------|----------------:|--------------------:|--------------------:|--------------:|----------------:|--------------:|---------:|
| fault storm | 412,000 pages/s | 1.03 (1.00 to 1.10) | 2.50 (2.25 to 3.00) | not installed |           7.1 % |          1/64 |        - |
| x           |               - |                   - |              failed | not installed |               - |             - |        - |
"
        );
    }

    #[test]
    fn windows_that_differ_too_much_are_doubted() {
        let line = Line {
            name: "p99",
            untraced: None,
            unit: "µs",
            cells: vec![spread(1.0, 0.7, 1.3), spread(1.0, 0.5, 1.1), Cell::Failed],
            own: Own::default(),
        };
        assert_eq!(doubts(&["a", "b", "c"], &[line]), ["p99, b"]);
    }

    #[test]
    fn what_is_told_as_measured_has_its_unit() {
        let stall = Cell::Measured(Spread {
            median: 8.25,
            lowest: 7.0,
            highest: 1234.0,
        });
        assert_eq!(shown(&stall, "ms"), "8.2 ms (7.0 to 1,230)");
    }

    #[test]
    fn notes_are_a_list_apart() {
        let notes = ["a: b".to_owned(), "c: d".to_owned()];
        assert_eq!(
            with_notes("| x |\n".to_owned(), &notes),
            "| x |\n\n- a: b\n- c: d\n"
        );
        assert_eq!(with_notes("| x |\n".to_owned(), &[]), "| x |\n");
    }

    #[test]
    fn own_columns_are_left_out_where_nobody_has_them() {
        let line = Line {
            name: "x",
            untraced: Some(1.0),
            unit: "s",
            cells: vec![Cell::NoFigure],
            own: Own::default(),
        };
        assert!(!markdown(&["y"], &[line]).contains("coverage"));
    }

    #[test]
    fn figures_have_three_digits_and_thousands_apart() {
        assert_eq!(figure(7.25), "7.2");
        assert_eq!(figure(113.4), "113");
        assert_eq!(figure(24_926_835.2), "24,900,000");
        assert_eq!(figure(999.6), "1,000");
        assert_eq!(count(2.5), "3");
        assert_eq!(count(40.0), "40");
        assert_eq!(count(4321.0), "4,320");
    }

    #[test]
    fn sampling_rates_are_fractions() {
        assert_eq!(sampling_rate(1.0), "1");
        assert_eq!(sampling_rate(0.25), "1/4");
        assert_eq!(sampling_rate(1.0 / 256.0), "1/256");
        assert_eq!(sampling_rate(0.75), "1/1.3");
    }

    #[test]
    fn processors_are_counted_and_named() {
        assert_eq!(
            processors("processor\t: 0\nmodel name\t: X y\n\nprocessor\t: 1\nmodel name\t: X y\n"),
            "2 CPUs (X y)"
        );
        assert_eq!(processors("processor : 0\n"), "1 CPU");
    }
}
