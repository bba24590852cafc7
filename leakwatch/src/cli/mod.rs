//! The command line: what is typed ([`args`]), what is meant ([`resolve`]), and what is done about it.

pub mod args;
pub mod exit;
pub mod printable;
pub mod resolve;

mod diff_args;
mod outputs;
mod progress;
mod shell;
mod shell_args;
mod top_args;
mod values;
mod watch_args;
mod watch_config;
mod watching_args;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;

use args::Arguments;
use exit::ExitStatus;
use outputs::Outputs;
use printable::printable;
use progress::ProgressLine;
use resolve::{Command, Output, Selector, Window};

use crate::history::read::History;
use crate::report::build;
use crate::report::model::Recording;
use crate::target::privileges::Privileges;
use crate::target::{Candidate, Target, TargetError};
use crate::{demo, doctor, heap, scan, session, top, watch};

/// Parses the arguments, runs the command, turns its outcome into an exit status.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return answer(&error).into(),
    };
    let outcome = Command::resolve(arguments)
        .map_err(anyhow::Error::from)
        .and_then(run);
    match outcome {
        Ok(status) => status.into(),
        Err(error) if exit::is_broken_pipe(&error) => ExitStatus::Done.into(),
        Err(error) => {
            complain(&error);
            exit::status_of(&error).into()
        }
    }
}

/// Help and version go to stdout; a wrong command line is one line on stderr.
fn answer(error: &clap::Error) -> ExitStatus {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that went away is no error.
            let _ = error.print();
            ExitStatus::Done
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitStatus::Usage
        }
        _ => {
            let line = exit::usage_line(&error.render().to_string());
            let _ = writeln!(std::io::stderr(), "{line}");
            ExitStatus::Usage
        }
    }
}

fn complain(error: &anyhow::Error) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{}", exit::line_of(error));
    if let Some(TargetError::Ambiguous { candidates, more, .. }) = error.downcast_ref() {
        let _ = stderr.write_all(candidate_table(candidates, *more).as_bytes());
    }
}

fn run(command: Command) -> anyhow::Result<ExitStatus> {
    match command {
        Command::Record {
            selector,
            window,
            fail_on_leak,
            output,
        } => {
            let prepared = prepare(output)?;
            let recording = record(open(selector)?, window, &prepared)?;
            let kind = recording.verdict.as_ref().map(|verdict| verdict.kind.as_str());
            Ok(if fail_on_leak {
                ExitStatus::of_verdict(kind)
            } else {
                ExitStatus::Done
            })
        }
        Command::Top {
            selector,
            window,
            output,
        } => {
            let theme = outputs::theme_of_terminal()?;
            let prepared = prepare(output)?;
            let finished = top::run(&window.of(open(selector)?), theme)?;
            outputs::deliver_live(&prepared, &finished)?;
            Ok(ExitStatus::Done)
        }
        Command::Heap {
            selector,
            force,
            output,
        } => {
            let outputs = Outputs::check(output.files, output.shown)?;
            outputs.deliver(&heap::picture(&open(selector)?, force)?)?;
            Ok(ExitStatus::Done)
        }
        Command::Report { file, output } => {
            let outputs = Outputs::check(output.files, output.shown)?;
            outputs.deliver(&outputs::read_recording(&file)?)?;
            Ok(ExitStatus::Done)
        }
        Command::Diff {
            before,
            after,
            output,
        } => {
            let outputs = Outputs::check(output.files, output.shown)?;
            let before = outputs::read_recording(&before)?;
            let after = outputs::read_recording(&after)?;
            outputs.deliver(&build::diff::diff(&before, &after)?)?;
            Ok(ExitStatus::Done)
        }
        Command::Watch {
            options,
            fail_on_alert,
        } => {
            let outcome = watch::watch(*options)?;
            Ok(if fail_on_alert && outcome.alerts > 0 {
                ExitStatus::Found
            } else {
                ExitStatus::Done
            })
        }
        Command::History { file, wanted, output } => {
            let outputs = Outputs::check(output.files, output.shown)?;
            let history = History::open(&file)?;
            outputs.deliver(&build::history::build(&history, &wanted)?)?;
            Ok(ExitStatus::Done)
        }
        Command::Scan {
            duration,
            proc_root,
            output,
        } => {
            let outputs = Outputs::check(output.files, output.shown)?;
            outputs.deliver(&scan::scan(&proc_root, duration, output.shown.top)?)?;
            Ok(ExitStatus::Done)
        }
        Command::Doctor { pid } => {
            let findings = doctor::examine(pid);
            outputs::print(&doctor::render(&findings))?;
            Ok(if doctor::can_record(&findings) {
                ExitStatus::Done
            } else {
                ExitStatus::Error
            })
        }
        Command::Demo { window, output } => {
            let prepared = prepare(output)?;
            let service = demo::Service::start()?;
            let target = Target::open(service.pid())?;
            record(target, window, &prepared)?;
            let truth = service.stop()?;
            let _ = writeln!(
                std::io::stderr(),
                "leakwatch: by its own count the service's handle_upload has leaked {:.1} MiB since it was ready",
                truth.leaked_mib()
            );
            Ok(ExitStatus::Done)
        }
        Command::DemoService => {
            demo::service::run()?;
            Ok(ExitStatus::Done)
        }
        Command::Completions { shell } => {
            outputs::print_bytes(&shell::completions(shell))?;
            Ok(ExitStatus::Done)
        }
        Command::Man { command, folder } => {
            match folder {
                Some(folder) => shell::write_pages(&folder)?,
                None => outputs::print_bytes(&shell::page(command.as_deref())?)?,
            }
            Ok(ExitStatus::Done)
        }
    }
}

fn open(selector: Selector) -> Result<Target, TargetError> {
    match selector {
        Selector::Pid(pid) => Target::open(pid),
        Selector::Name(name) => Target::by_name(&name),
    }
}

/// Everything that can be found wrong before a process is touched.
fn prepare(output: Output) -> anyhow::Result<Outputs<Recording>> {
    let outputs = Outputs::check(output.files, output.shown)?;
    if let Some(obstacle) = Privileges::own().obstacle() {
        anyhow::bail!("{obstacle}; `leakwatch doctor` tells more");
    }
    Ok(outputs)
}

fn record(target: Target, window: Window, outputs: &Outputs<Recording>) -> anyhow::Result<Recording> {
    let mut progress = ProgressLine::new(window.duration);
    let recording = session::record(&window.of(target), &mut progress)?;
    drop(progress);
    outputs.deliver(&recording)?;
    Ok(recording)
}

/// Processes of one name, one a line.
fn candidate_table(candidates: &[Candidate], more: usize) -> String {
    let mut table = format!("{:>9} {:>7} {:>10}  {}\n", "PID", "UID", "AGE", "COMMAND");
    for candidate in candidates {
        let uid = candidate
            .uid
            .map_or_else(|| "?".to_owned(), |uid| uid.to_string());
        let age = candidate.age_seconds.map_or_else(|| "?".to_owned(), age);
        let mut command = printable(&candidate.cmdline);
        if let Some((cut, _)) = command.char_indices().nth(100) {
            command.truncate(cut);
            command.push('…');
        }
        table.push_str(&format!("{:>9} {uid:>7} {age:>10}  {command}\n", candidate.pid));
    }
    if more > 0 {
        table.push_str(&format!("          and {more} more\n"));
    }
    table
}

/// The two largest units: `3d 4h`.
fn age(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let mut words = text.split(' ');
    match (words.next(), words.next()) {
        (Some(first), Some(second)) => format!("{first} {second}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests;
