//! Everything that was dropped, cut or estimated, by name.

use std::collections::BTreeMap;

use leakwatch_ebpf::wire::Counter;

use super::facts::Facts;
use super::state::State;
use crate::ledger::Losses as LedgerLosses;
use crate::ledger::pages::PageLosses;
use crate::probe::Counts;
use crate::report::build;
use crate::report::model::Losses;
use crate::symbolize::{Symbolizer, Unnamed};
use crate::unwind::Truncation;

/// Gathers the counters of every stage.
pub(super) fn losses(
    state: &State,
    counts: Option<&Counts>,
    facts: &Facts,
    symbolizer: &Symbolizer,
    bursts_cut: u64,
) -> Losses {
    let unwinding = state.unwinder.losses();
    let mut counters: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |name: &str, count: u64| {
        if count > 0 {
            let sum = counters.entry(name.to_owned()).or_default();
            *sum = sum.saturating_add(count);
        }
    };
    if let Some(counts) = counts {
        for (name, counter) in [
            ("lost_acquiring_events", Counter::LostAcquires),
            ("lost_releasing_events", Counter::LostReleases),
            ("lost_process_events", Counter::LostLifecycle),
            ("stacks_capped", Counter::StacksCapped),
            ("stacks_with_unreadable_pages", Counter::StacksUnreadable),
            ("events_without_registers", Counter::RegistersMissing),
            ("brk_calls_unpaired", Counter::BrkUnpaired),
            ("children_over_limit", Counter::TargetsFull),
            ("events_without_scratch", Counter::NoScratch),
            ("lost_fault_events", Counter::LostFaults),
            ("lost_births", Counter::LostAllocs),
            ("births_unpaired", Counter::AllocUnmatched),
            ("births_without_return", Counter::AllocReturnsMissed),
            ("births_over_thread_limit", Counter::AllocThreadsOver),
            ("births_on_other_stacks", Counter::AllocOffStack),
        ] {
            add(name, counts.get(counter));
        }
    }
    for outcome in state.heaps.values().filter_map(|heap| heap.outcome.as_ref()) {
        add("births_out_of_sample", outcome.losses.out_of_sample);
        add("births_evicted", outcome.losses.evicted);
        add("births_with_unknown_fate", outcome.unknown);
    }
    add("bursts_cut", bursts_cut);
    let not_watched = state.children_not_watched.values().sum();
    add("children_whose_births_were_not_watched", not_watched);
    add("children_not_sampled", state.children_not_sampled);
    add("samples_not_taken", state.samples.failed());
    for (part, count) in state.samples.left_out() {
        add(&format!("samples_without_{part}"), *count);
    }
    add("events_of_unwatched_processes", state.stray_events);
    add("exited_children_forgotten", state.forgotten_children);
    add("stacks_over_limit", unwinding.stacks_over_cap);
    add("stacks_of_unknown_processes", unwinding.unknown_process);
    add("unwinder_panics", unwinding.panics);
    for (error, count) in &unwinding.modules_unreadable {
        add(&format!("modules_without_unwind_information: {error}"), *count);
    }
    for (reason, count) in symbolizer.unnamed() {
        // Stripped code and JIT code have no names to lose: module and offset, or the address, is all there ever was.
        if !matches!(reason, Unnamed::NoSymbol | Unnamed::NoModule) {
            add(&format!("frames_without_name: {reason}"), *count);
        }
    }
    add("huge_page_lookups_dropped", facts.huge_lookups_dropped);
    let censuses = state
        .heaps
        .values()
        .flat_map(|heap| [&heap.censuses.start, &heap.censuses.end]);
    for (name, count) in censuses.flatten().flat_map(build::heap::losses) {
        add(&name, count);
    }
    add("thinned_bytes_without_site", facts.unshared_bytes);
    for pages in &facts.page_losses {
        // Faults on pages that were there before, or that came before the window, are no loss.
        let PageLosses {
            known_pages: _,
            early: _,
            over_site_limit,
            moves_dropped,
        } = pages;
        add("faults_over_site_limit", *over_site_limit);
        add("page_moves_dropped", *moves_dropped);
    }
    for ledger in &facts.ledger_losses {
        for (name, count) in of_ledger(ledger) {
            add(name, count);
        }
    }
    let without = unwinding
        .truncated
        .get(&Truncation::NoRegisters)
        .copied()
        .unwrap_or(0);
    Losses {
        events: counts.map(Counts::lost),
        stacks: Some(without),
        truncated_stacks: unwinding
            .truncated
            .iter()
            .map(|(reason, count)| (truncation(*reason).to_owned(), *count))
            .collect(),
        samples: state
            .sampling
            .as_ref()
            .and(counts)
            .map(|counts| counts.get(Counter::LostFaults)),
        counters,
    }
}

const fn truncation(reason: Truncation) -> &'static str {
    match reason {
        Truncation::SnapshotCapped => "snapshot_capped",
        Truncation::SnapshotUnreadable => "snapshot_unreadable",
        Truncation::NoUnwindInformation => "no_unwind_information",
        Truncation::ModuleUnreadable => "module_unreadable",
        Truncation::TooDeep => "too_deep",
        Truncation::NoRegisters => "no_registers",
    }
}

fn of_ledger(losses: &LedgerLosses) -> [(&'static str, u64); 12] {
    let LedgerLosses {
        ignored_changes,
        stackless_acquisitions,
        stackless_bytes,
        acquisitions_over_site_limit,
        protected_unknown_bytes,
        remaps_without_start,
        failures_without_start,
        uncertain_restores,
        pending_dropped,
        coarsened_bytes,
        forgotten_bytes,
        repaired,
    } = losses;
    // A failed munmap of nothing is common and harmless, and both of its events are refused alike. And what a check
    // leaves out because it changed meanwhile is what events tell best.
    let _ = (ignored_changes, failures_without_start, repaired.skipped_bytes);
    [
        ("stackless_acquisitions", *stackless_acquisitions),
        ("stackless_bytes", *stackless_bytes),
        ("acquisitions_over_site_limit", *acquisitions_over_site_limit),
        ("protected_unknown_bytes", *protected_unknown_bytes),
        ("remaps_without_start", *remaps_without_start),
        ("uncertain_restores", *uncertain_restores),
        ("pending_calls_dropped", *pending_dropped),
        ("coarsened_bytes", *coarsened_bytes),
        ("forgotten_bytes", *forgotten_bytes),
        ("repaired_appeared_bytes", repaired.appeared_bytes),
        ("repaired_vanished_bytes", repaired.vanished_bytes),
        ("repaired_protection_bytes", repaired.changed_bytes),
    ]
}
