//! What watching births adds to the report: what became of a call site's blocks, who extended the heap, what nobody is
//! known for, and how births were watched.

use super::Options;
use super::layout::{DIM, PLAIN, Page, bytes, count, exact_bytes, percent, seconds};
use crate::report::model::{Allocations, CallSite, Recording, SiteAllocations, SiteClass};

/// Rows of each list, unless all are asked for.
const ROWS: usize = 3;
/// Growth that nobody is known for is worth a word from here on: bytes, or a part of the whole growth.
const UNNAMED_BYTES: i64 = 256 << 10;
const UNNAMED_SHARE: f64 = 0.01;
const REASON: usize = 400;

/// What became of the blocks of a call site, a sentence or two.
pub fn of_site(page: &Page, site: &CallSite, verbose: bool) -> Option<String> {
    let blocks = site.allocations.as_ref()?;
    if blocks.survived == 0 && site.evidence != "survivors" {
        return None;
    }
    if blocks.survived == 0 && blocks.blocks == 0 {
        if blocks.followed == 0 {
            return None;
        }
        return Some(format!(
            "none of {} followed births survived",
            count(blocks.followed)
        ));
    }
    let mut text = format!(
        "{} {} added and in use; {} of {} followed births survived",
        count(blocks.blocks),
        if blocks.blocks == 1 { "block" } else { "blocks" },
        count(blocks.survived),
        count(blocks.followed)
    );
    if let Some(age) = blocks.oldest_age_seconds.filter(|_| blocks.survived > 0) {
        text.push_str(&format!(", the oldest {}", seconds(age)));
    }
    for (some, what) in [
        (blocks.young, "no older than others that died"),
        (blocks.doubtful, "may be other blocks by now"),
    ] {
        if some > 0 {
            text.push_str(&format!("; {} {what}", count(some)));
        }
    }
    let sizes = sizes(page, blocks, if verbose { usize::MAX } else { ROWS });
    if !sizes.is_empty() {
        text.push_str(&format!(". Sizes: {sizes}"));
    }
    Some(text)
}

fn sizes(page: &Page, blocks: &SiteAllocations, most: usize) -> String {
    let name = |class: &SiteClass| {
        let of = class
            .type_name
            .as_ref()
            .map(|name| format!(" ({})", page.fit(name, 40)))
            .unwrap_or_default();
        let mapped = if class.mapped { " [mapped]" } else { "" };
        format!(
            "{} x {}{of}{mapped}",
            count(class.blocks),
            exact_bytes(class.bytes)
        )
    };
    let with_blocks = || blocks.classes.iter().filter(|class| class.blocks > 0);
    let mut sizes: Vec<String> = with_blocks().take(most).map(name).collect();
    let more = with_blocks().count().saturating_sub(sizes.len());
    if more > 0 {
        sizes.push(format!("{} and {more} more", page.ellipsis()));
    }
    sizes.join(", ")
}

/// After the call sites: who extended the heap, what nobody is known for, how births were watched.
pub fn section(page: &mut Page, recording: &Recording, options: &Options) {
    if let Some(why) = &recording.allocations_not_watched {
        let how = if recording.allocations.is_some() {
            "not watched"
        } else {
            "not watched, so that pages and mappings are all the evidence there is"
        };
        page.heading("BIRTHS OF BLOCKS", "");
        page.paragraph(2, &format!("{how}: {}.", page.fit(why, REASON)), PLAIN);
    }
    let Some(births) = &recording.allocations else {
        return;
    };
    extenders(page, recording, options);
    if births.tell {
        unnamed(page, recording, births, options);
    }
    if recording.allocations_not_watched.is_none() {
        page.heading("BIRTHS OF BLOCKS", "");
    }
    if !births.tell {
        page.paragraph(2, &too_little(births), PLAIN);
    }
    page.paragraph(2, &how(births), DIM);
}

pub fn too_little(births: &Allocations) -> String {
    format!(
        "Too little was seen to say whose blocks the {} are that the heap gained, so that its call sites rest on pages: they \
         name who extended the heap, and beside others that allocate that may be a bystander. A longer window or a larger \
         --allocs-budget sees more.",
        bytes(births.unnamed_bytes.unsigned_abs())
    )
}

pub const EXTENDERS: &str = "These were the first to touch pages that the heap gained. Whose blocks lie there now the call sites tell.";

fn extenders(page: &mut Page, recording: &Recording, options: &Options) {
    let mut sites: Vec<(&CallSite, u64)> = recording
        .call_sites
        .iter()
        .filter_map(|site| Some((site, site.extended_bytes.filter(|bytes| *bytes > 0)?)))
        .collect();
    if sites.is_empty() {
        return;
    }
    sites.sort_by_key(|(_, extended)| std::cmp::Reverse(*extended));
    page.heading("WHO EXTENDED THE HEAP", "");
    page.paragraph(2, EXTENDERS, DIM);
    let rows = if options.verbose {
        options.top.max(ROWS)
    } else {
        ROWS
    };
    for (site, extended) in sites.iter().take(rows) {
        let label = page.fit(&site.label, page.width.saturating_sub(20));
        page.line(&format!("  {:>11}  {label}", bytes(*extended)));
    }
    if sites.len() > rows {
        page.line(&format!("  {} and {} more", page.ellipsis(), sites.len() - rows));
    }
}

/// Whether the growth that nobody is known for matters beside the whole.
pub fn unnamed_is_worth_a_word(recording: &Recording, births: &Allocations) -> bool {
    let growth = recording
        .reconciliation
        .as_ref()
        .map_or(0, |account| account.smaps_growth_bytes);
    let share = births.unnamed_bytes as f64 / growth.max(1) as f64;
    births.unnamed_bytes >= UNNAMED_BYTES || share >= UNNAMED_SHARE && births.unnamed_bytes >= 4096
}

pub fn unnamed_growth(births: &Allocations) -> String {
    format!(
        "{} of the growth are blocks of which no birth was seen. A longer window or a larger --allocs-budget sees more.",
        bytes(births.unnamed_bytes.unsigned_abs())
    )
}

fn unnamed(page: &mut Page, recording: &Recording, births: &Allocations, options: &Options) {
    if !unnamed_is_worth_a_word(recording, births) {
        return;
    }
    page.heading("UNNAMED GROWTH", "");
    page.paragraph(2, &unnamed_growth(births), PLAIN);
    let rows = if options.verbose { usize::MAX } else { ROWS };
    for class in births.unnamed.iter().take(rows) {
        let of = class
            .type_name
            .as_ref()
            .map(|name| format!("  {}", page.fit(name, page.width.saturating_sub(50))))
            .unwrap_or_default();
        page.line(&format!(
            "  {:>11}  {} blocks of up to {}{of}",
            bytes(class.growth_bytes.unsigned_abs()),
            class.growth_count,
            exact_bytes(class.bytes)
        ));
    }
    let more = births.unnamed.len().saturating_sub(rows);
    if more > 0 {
        page.line(&format!("  {} and {more} more sizes", page.ellipsis()));
    }
}

/// How births were watched, and what that cost.
pub fn how(births: &Allocations) -> String {
    let bursts = if births.bursts == 1 { "burst" } else { "bursts" };
    let mut text = format!(
        "Watched in {} {bursts}, {} in all: {} births seen",
        births.bursts,
        seconds(births.watched_seconds),
        count(births.births)
    );
    if births.sampling_rate < 1.0 {
        text.push_str(&format!(" of {} of the blocks", percent(births.sampling_rate)));
    }
    text.push_str(&format!(
        ", {} followed over {} {}.",
        count(births.followed),
        births.checks,
        if births.checks == 1 { "check" } else { "checks" }
    ));
    let cost = format!("{:.3} s", births.cost_seconds);
    text.push_str(&format!(" It cost the target about {cost} of processor time"));
    let withheld = births.withheld_seconds.filter(|seconds| *seconds >= 0.0005);
    if let Some(seconds) = withheld {
        text.push_str(&format!(", and kept it from using another {seconds:.3} s"));
    }
    let all = births.cost_seconds + withheld.unwrap_or(0.0);
    let part = births.target_cpu_seconds.filter(|used| *used > 0.0);
    let part = part.map(|used| format!("{} of what it used", percent(all / used)));
    let budget = births
        .budget_seconds
        .map(|budget| format!("the budget was {budget:.3} s"));
    let of = [part, budget]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ");
    if !of.is_empty() {
        text.push_str(&format!(" ({of})"));
    }
    text.push('.');
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::super::{Options, render};
    use super::how;
    use crate::report::sample;

    fn births(text: &str) -> String {
        let from = text.find("WHO EXTENDED").unwrap();
        let until = text.find("MAPPINGS").unwrap_or(text.len());
        text[from..until].to_owned()
    }

    #[test]
    fn at_80_columns() {
        let text = render(&sample::survivors(), &at(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!("births_80", births(&text));
        let site = text.lines().skip_while(|line| !line.contains("12034 blocks"));
        insta::assert_snapshot!("births_site_80", site.take(4).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn at_200_columns_verbose() {
        let options = Options {
            verbose: true,
            ..at(200)
        };
        insta::assert_snapshot!("births_200", births(&render(&sample::survivors(), &options)));
    }

    #[test]
    fn why_births_were_not_watched() {
        let mut recording = sample::full();
        recording.allocations_not_watched =
            Some("the heap of this allocator cannot be read: jemalloc".into());
        let text = render(&recording, &at(100));
        assert!(
            text.contains("pages and mappings are all the evidence there is: the heap of this allocator"),
            "{text}"
        );
    }

    #[test]
    fn what_births_cost_is_told_beside_what_is_known_of_it() {
        let cost = |used, withheld, budget| {
            let mut births = sample::survivors().allocations.unwrap();
            (
                births.cost_seconds,
                births.withheld_seconds,
                births.target_cpu_seconds,
                births.budget_seconds,
            ) = (0.25, withheld, used, budget);
            let text = how(&births);
            text[text.find("It cost").unwrap()..].to_owned()
        };
        let plain = "It cost the target about 0.250 s of processor time";
        assert_eq!(cost(None, None, None), format!("{plain}."));
        assert_eq!(cost(None, Some(0.0), None), format!("{plain}."));
        assert_eq!(
            cost(Some(5.0), None, None),
            format!("{plain} (5.0 % of what it used).")
        );
        assert_eq!(
            cost(None, None, Some(0.3)),
            format!("{plain} (the budget was 0.300 s).")
        );
        assert_eq!(
            cost(Some(5.0), Some(0.05), Some(0.3)),
            format!(
                "{plain}, and kept it from using another 0.050 s (6.0 % of what it used; the budget was 0.300 s)."
            )
        );
    }

    #[test]
    fn where_births_do_not_tell_it_is_said_what_does() {
        let mut recording = sample::survivors();
        if let Some(births) = &mut recording.allocations {
            births.tell = false;
        }
        let text = render(&recording, &at(200));
        assert!(
            text.contains(
                "whose blocks the 600.0 KiB are that the heap gained, so that its call sites rest on pages"
            ),
            "{text}"
        );
        assert!(!text.contains("UNNAMED GROWTH"), "{text}");
    }

    #[test]
    fn a_little_that_is_unnamed_is_not_worth_a_word() {
        let mut recording = sample::survivors();
        if let Some(births) = &mut recording.allocations {
            births.unnamed_bytes = 2000;
        }
        assert!(!render(&recording, &at(100)).contains("UNNAMED"));
    }
}
