//! The account that closes: the kernel's growth, what is attributed, the rest by reason.

use super::layout::{DIM, PLAIN, Page, STRONG, amount, bytes, left, percent, right, rounded};
use crate::report::model::Recording;

/// What the words of the recording mean, for a reader.
const REASONS: &[(&str, &str)] = &[
    ("stack_growth", "stack grown by the kernel"),
    (
        "touched_in_memory_from_before_attach",
        "touched in memory mapped before the attach",
    ),
    ("released_from_before_attach", "given back from before the attach"),
    ("no_stack", "gained without a known stack"),
    ("unseen", "gained unseen (lost events)"),
    ("between_readings", "changed while the sizes were being read"),
    ("huge_pages", "added by huge pages without a fault"),
    ("sampling_error", "sampling error of the estimate"),
    ("touched_by_others", "came without a fault (io_uring, ptrace...)"),
    ("freed_lazily", "freed (MADV_FREE), not yet taken back"),
    ("lost_faults", "touched, but the fault was lost"),
    ("unnamed_growth", "blocks in use whose birth was not seen"),
    ("freed_blocks_from_before", "blocks from before the window, freed"),
    ("kept_free_in_heap", "free, but kept by the allocator"),
    (
        "gained_before_heap_was_read",
        "gained by a child before its heap was read",
    ),
];

const REGIONS: &[(&str, &str)] = &[
    ("heap", "heap"),
    ("anonymous", "anonymous mappings"),
    ("arena", "thread arenas"),
    ("stack", "stacks"),
    ("file", "written file-private pages"),
    ("shared", "shared"),
    ("other", "other"),
];

/// What a reason is called.
pub fn reason(word: &str) -> String {
    phrase(REASONS, word)
}

/// What a region is called.
pub fn region(word: &str) -> String {
    phrase(REGIONS, word)
}

fn phrase(table: &[(&str, &str)], word: &str) -> String {
    table
        .iter()
        .find(|(known, _)| *known == word)
        .map_or_else(|| word.replace('_', " "), |(_, phrase)| (*phrase).to_owned())
}

/// `1 page in 64 was sampled`, where not every page was.
pub fn sampling(page: &Page, recording: &Recording) -> String {
    let Some(rate) = recording
        .cost
        .sampling_rate
        .filter(|rate| *rate > 0.0 && *rate < 1.0)
    else {
        return String::new();
    };
    let one_in = rounded(1.0 / rate);
    let sampled = if one_in < 2 {
        format!("{} of the pages were sampled", percent(rate))
    } else {
        format!("1 page in {one_in} was sampled")
    };
    format!("{sampled}; {} is one standard error", page.plus_minus())
}

/// Columns of the labels.
const LABEL: usize = 48;

pub fn section(page: &mut Page, recording: &Recording) {
    let remark = sampling(page, recording);
    page.heading("ACCOUNT", &remark);
    let Some(account) = &recording.reconciliation else {
        page.paragraph(
            2,
            "Not closed: smaps could not be read at both ends of the window.",
            PLAIN,
        );
        return;
    };
    let growth = account.smaps_growth_bytes;
    let share = |bytes: i64| {
        if growth > 0 {
            percent(bytes as f64 / growth as f64)
        } else {
            String::new()
        }
    };
    let mut attributed = "attributed to call sites".to_owned();
    if let Some(error) = account.standard_error_bytes.filter(|error| *error > 0.0) {
        attributed.push_str(&format!(", {} {}", page.plus_minus(), bytes(rounded(error))));
    }
    let mut row = |indent: usize, label: &str, bytes: i64, style, with_share: bool| {
        let label = page.fit(label, LABEL - indent);
        let label = format!(
            "{}{}",
            " ".repeat(indent),
            page.paint(style, &left(&label, LABEL - indent))
        );
        let share = if with_share {
            right(&share(bytes), 10)
        } else {
            String::new()
        };
        page.line(&format!("{label}{}{share}", right(&amount(bytes), 11)));
    };
    let verb = if growth < 0 {
        "anonymous memory shrank (smaps)"
    } else {
        "anonymous memory grew (smaps)"
    };
    row(2, verb, growth, STRONG, false);
    row(4, &attributed, account.attributed_bytes, PLAIN, true);
    // What call sites keep can be more than the growth: other memory was given back meanwhile.
    let not = if account.unattributed_bytes < 0 {
        "not attributed, net"
    } else {
        "not attributed"
    };
    row(4, not, account.unattributed_bytes, PLAIN, true);
    for reason in &account.reasons {
        row(6, &self::reason(&reason.reason), reason.bytes, DIM, true);
    }
    if account.regions.is_empty() {
        return;
    }
    let heading = format!(
        "  {}{}{}",
        left("by region", LABEL - 2),
        right("growth", 11),
        right("attributed", 13)
    );
    page.line(&page.paint(DIM, &heading));
    for region in &account.regions {
        let label = page.fit(&self::region(&region.region), LABEL - 4);
        page.line(&format!(
            "    {}{}{}",
            left(&label, LABEL - 4),
            right(&amount(region.growth_bytes), 11),
            right(&amount(region.attributed_bytes), 13)
        ));
    }
}
