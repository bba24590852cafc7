//! `cargo xtask bench`: what a tracer costs the traced program, as a ratio to the same program untraced.
//!
//! One process of each workload runs through all of its rounds. A traced window stands between two untraced ones and
//! is compared with their mean: machines drift, and a ratio of neighbours drifts little. Attaching is not in a window.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::run;

mod births;
mod census;
mod counters;
mod filter;
mod html;
mod peers;
mod priority;
mod processor_time;
mod programs;
mod ratio;
mod recording;
mod redis;
mod rounds;
mod table;
mod tracers;
mod watch;
mod workloads;
mod yardstick;

use peers::Peer;
use priority::Raised;
use rounds::Plan;
use table::Line;
use tracers::Tracer;
use workloads::Measure;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Short windows: to see that it works, not to measure.
    #[arg(long)]
    quick: bool,

    /// One workload only.
    #[arg(long, value_name = "NAME")]
    only: Option<Workload>,

    /// Of the recordings with births these only; can be given several times.
    #[arg(long, value_name = "PART")]
    births: Vec<births::PartName>,

    /// How often each workload is measured with each tracer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// leakwatch alone, without its peers.
    #[arg(long)]
    no_peers: bool,

    /// In place of the release build this program, for instance the static one of `cargo xtask dist`.
    #[arg(long, value_name = "PATH")]
    leakwatch: Option<PathBuf>,

    /// Instead: what the fault event costs that lets no page through, on the fault storm.
    #[arg(long, conflicts_with_all = ["only", "no_peers", "leakwatch"])]
    filter: bool,
}

/// What `--only` chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// A C++ server: its throughput at full speed, its latency at a fixed rate.
    Server,
    /// One thread touches fresh pages as fast as it can.
    FaultStorm,
    /// One thread maps, touches and unmaps 16 pages as fast as it can.
    MappingStorm,
    /// One thread mallocs and frees small blocks as fast as it can.
    MallocStorm,
    /// The same beside a heap of half a GiB, which is read again and again.
    Census,
    /// Another process than the target.
    Bystander,
    /// Whole recordings with births, beside tools that watch every malloc and free. Has tables of its own.
    Births,
    /// Whether their budget holds over rates of malloc. Has a table of its own.
    BirthsBudget,
    /// `leakwatch watch` with ten thousand processes. Has a table of its own.
    Watch,
    /// The HTML report of a hundred thousand stacks. Has a table of its own.
    Html,
}

const FULL: Plan = Plan {
    rounds: 4,
    window: Duration::from_millis(1200),
    settle: Duration::from_millis(250),
};
const QUICK: Plan = Plan {
    rounds: 1,
    window: Duration::from_millis(400),
    settle: Duration::from_millis(100),
};

/// Builds everything, measures, and prints Markdown tables to stdout; all else goes to stderr.
///
/// # Errors
/// Without root or a C compiler, and when a program or leakwatch fails. A peer that is missing or fails is told of in
/// the table instead.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "leakwatch and its peers need root: `sudo -E env PATH=\"$PATH\" cargo xtask bench`"
    );
    ensure!(
        arguments.births.is_empty() || chosen(arguments, Workload::Births),
        "--births chooses parts of `--only births`; beside another workload it says nothing"
    );
    // Before the builds and the bench itself add to it.
    let load = table::load();
    let mut plan = if arguments.quick { QUICK } else { FULL };
    if let Some(rounds) = arguments.rounds {
        plan.rounds = rounds;
    }
    if arguments.filter {
        let example = filter::build()?;
        let _raised = Raised::now();
        return filter::run(&example, &plan, &load);
    }

    let leakwatch = if let Some(program) = &arguments.leakwatch {
        program.clone()
    } else {
        run::run(&mut run::cargo(&["build", "--release", "--package", "leakwatch"]))?;
        run::target_directory()?.join("release/leakwatch")
    };
    let chosen = |workload| chosen(arguments, workload);
    let of_pages = Workload::value_variants().iter().filter(|workload| {
        !matches!(
            workload,
            Workload::Births | Workload::BirthsBudget | Workload::Watch | Workload::Html
        ) && chosen(**workload)
    });
    let of_pages: Vec<Workload> = of_pages.copied().collect();
    let peers = |peers: &[Peer]| tracers(if arguments.no_peers { &[] } else { peers });
    if !of_pages.is_empty() {
        let mut tracers = vec![Tracer::Leakwatch(leakwatch.clone())];
        tracers.extend(peers(&Peer::OF_PAGES));
        let _raised = Raised::now();
        measure_pages(&of_pages, &leakwatch, &tracers, &plan, &load)?;
    }
    if chosen(Workload::Births) {
        let peers = peers(&Peer::OF_BIRTHS);
        let chosen = births::Chosen {
            parts: &arguments.births,
            quick: arguments.quick,
            rounds: arguments.rounds,
        };
        births::run(&leakwatch, &peers, &chosen, &load)?;
    }
    if chosen(Workload::BirthsBudget) {
        births::budget(&leakwatch, arguments.quick, arguments.rounds)?;
    }
    if chosen(Workload::Watch) {
        watch::run(&leakwatch, arguments.quick, &load)?;
    }
    if chosen(Workload::Html) {
        html::run(&leakwatch, arguments.quick, &load)?;
    }
    Ok(())
}

fn chosen(arguments: &Arguments, workload: Workload) -> bool {
    arguments.only.is_none_or(|only| only == workload)
}

/// Windows while leakwatch or a peer is attached: what page events cost.
fn measure_pages(
    workloads: &[Workload],
    leakwatch: &Path,
    tracers: &[Tracer],
    plan: &Plan,
    load: &str,
) -> Result<()> {
    let mut lines = Vec::new();
    for workload in workloads {
        lines.extend(lines_of(*workload, leakwatch, tracers, plan)?);
    }
    let names: Vec<&str> = tracers.iter().map(Tracer::name).collect();
    for doubt in table::doubts(&names, &lines) {
        eprintln!("noise: {doubt}: windows differ by more than two times; try again on a quiet machine");
    }
    table::print(
        &table::head(plan, tracers, load),
        &table::markdown(&names, &lines),
    );
    Ok(())
}

fn tracers(peers: &[Peer]) -> Vec<Tracer> {
    let tracer = |peer: &Peer| match peer.missing() {
        Some(missing) => {
            eprintln!("{missing}");
            Tracer::Missing(*peer)
        }
        None => Tracer::Peer(*peer),
    };
    peers.iter().map(tracer).collect()
}

fn lines_of(workload: Workload, leakwatch: &Path, tracers: &[Tracer], plan: &Plan) -> Result<Vec<Line>> {
    let measure = |measure: &Measure| -> Result<Vec<Line>> {
        run::heading(measure.title);
        let mut subject = measure.start()?;
        let outcomes = rounds::run(&mut subject, measure, tracers, plan)?;
        Ok(table::lines(measure, tracers, &outcomes))
    };
    match workload {
        Workload::Server => {
            let mut lines = measure(&workloads::server_at_full_speed())?;
            let full = lines.first().and_then(|line| line.untraced).unwrap_or(0.0);
            lines.extend(measure(&workloads::server_at_rate(full))?);
            Ok(lines)
        }
        Workload::FaultStorm => measure(&workloads::fault_storm()),
        Workload::MappingStorm => measure(&workloads::mapping_storm()),
        Workload::MallocStorm => measure(&workloads::malloc_storm()),
        Workload::Census => census::lines(leakwatch, tracers.len(), plan),
        Workload::Bystander => measure(&workloads::bystander()),
        // They have tables of their own.
        Workload::Births | Workload::BirthsBudget | Workload::Watch | Workload::Html => Ok(Vec::new()),
    }
}
