//! The answer on one screen: the verdict, who holds what grew, whether the account adds up, and what was lost. Everything
//! else is a `-v` away.

use unicode_width::UnicodeWidthStr as _;

use super::account::reason;
use super::layout::{
    BLAMED, DIM, PLAIN, Page, STRONG, amount, bytes, per_second, percent, right, rounded, seconds,
    whole_percent,
};
use super::sites::{base, source, weight};
use super::{Options, arenas, columns, headline, tail, verdict};
use crate::report::model::{CallSite, EndedBy, Recording, Verdict};
use crate::report::stacks::frame_name;

/// Columns of a sentence that may hold names of the target.
const SENTENCE_MOST: usize = 400;
/// Call sites and reasons with less than this part are summed.
const SHARE_LEAST: f64 = 0.01;
/// Columns before the name of a call site: its figures.
const FIGURES: usize = 37;

pub fn summary(page: &mut Page, recording: &Recording, options: &Options) {
    if let Some(verdict) = &recording.verdict {
        judged(page, verdict);
    }
    page.paragraph(
        0,
        &headline(page, recording),
        if recording.verdict.is_some() {
            PLAIN
        } else {
            STRONG
        },
    );
    if let Some(verdict) = &recording.verdict {
        if let Some(limit) = &verdict.limit {
            page.paragraph(0, &verdict::reached(limit), PLAIN);
        }
        if let Some(longer) = verdict
            .watch_longer_seconds
            .filter(|_| verdict.confidence.is_none())
        {
            let longer = super::layout::duration(longer);
            page.paragraph(
                0,
                &format!("A window that is longer by {longer} would tell more."),
                PLAIN,
            );
        }
        for suggestion in &verdict.suggestions {
            page.item(0, ">", &page.fit(suggestion, SENTENCE_MOST));
        }
    }
    for note in &recording.notes {
        page.paragraph(0, &format!("Note: {}", page.fit(note, SENTENCE_MOST)), PLAIN);
    }
    sites(page, recording, options);
    page.line("");
    page.paragraph(0, &account(page, recording), PLAIN);
    page.paragraph(0, &losses(page, recording), PLAIN);
    page.paragraph(0, &about(page, recording), DIM);
}

fn judged(page: &mut Page, verdict: &Verdict) {
    let sure = verdict.confidence.map_or_else(String::new, |sure| {
        format!(" Confidence {}.", whole_percent(sure))
    });
    let summary = page.fit(&verdict.summary, SENTENCE_MOST);
    page.paragraph(0, &format!("{summary}{sure}"), STRONG);
}

fn sites(page: &mut Page, recording: &Recording, options: &Options) {
    let keepers: Vec<&CallSite> = recording
        .call_sites
        .iter()
        .filter(|site| weight(site) > 0)
        .collect();
    if keepers.is_empty() {
        // The headline says so.
        return;
    }
    page.line("");
    let told = |site: &CallSite| {
        weight(site) >= options.min_bytes && site.share.is_none_or(|share| share >= SHARE_LEAST)
    };
    let shown: Vec<&CallSite> = keepers
        .iter()
        .copied()
        .enumerate()
        // The first is told of in any case.
        .filter(|(index, site)| *index == 0 || told(site))
        .map(|(_, site)| site)
        .take(options.top)
        .collect();
    let head = format!(
        "{}{}{}{}  call site",
        right("#", 2),
        right("keeps", 11),
        right("share", 8),
        right("rate", 14)
    );
    page.line(&page.paint(DIM, &head));
    for site in &shown {
        one(page, site);
    }
    let rest = keepers.len() - shown.len();
    if rest > 0 {
        let all = keepers
            .iter()
            .fold(0, |sum: u64, site| sum.saturating_add(weight(site)));
        let of_shown = shown
            .iter()
            .fold(0, |sum: u64, site| sum.saturating_add(weight(site)));
        let left = bytes(all.saturating_sub(of_shown));
        page.paragraph(
            3,
            &format!("{} and {rest} more with {left}", page.ellipsis()),
            DIM,
        );
    }
}

/// Two lines: the figures and the name, then where it is, who called it, and what it rests on.
fn one(page: &mut Page, site: &CallSite) {
    let figures = format!(
        "{}{}{}{}  ",
        right(&site.rank.to_string(), 2),
        right(&bytes(weight(site)), 11),
        right(&site.share.map_or_else(|| "-".to_owned(), percent), 8),
        right(
            &site
                .rate_bytes_per_second
                .map_or_else(|| "-".to_owned(), per_second),
            14
        ),
    );
    let label = page.fit(&site.label, page.width.saturating_sub(FIGURES));
    page.line(&format!("{figures}{}", page.paint(BLAMED, &label)));

    let blocks = site
        .allocations
        .as_ref()
        .filter(|blocks| site.evidence == "survivors" && blocks.followed > 0);
    let kept = match blocks {
        Some(blocks) => Some(format!("{}/{} survived", blocks.survived, blocks.followed)),
        None => site.retention.map(|kept| format!("{} kept", whole_percent(kept))),
    };
    let error = site
        .standard_error_bytes
        .filter(|_| columns::is_sampled(site))
        .map(|error| format!("{} {}", page.plus_minus(), bytes(rounded(error))));
    let rests: Vec<String> = [Some(page.fit(&site.evidence, 12)), error, kept]
        .into_iter()
        .flatten()
        .collect();
    let rests = format!("  [{}]", rests.join(", "));
    let room = page.width.saturating_sub(3 + rests.width());
    let line = format!("   {}{rests}", page.fit(&path(page, site, room), room));
    page.line(&page.paint(DIM, &line));
}

/// Where the culprit is, and its callers as far as there is room; of arenas who touched them.
fn path(page: &Page, site: &CallSite, room: usize) -> String {
    if let Some(pool) = &site.arenas {
        return arenas::touchers(page, site, pool, room);
    }
    let culprit = site.culprit.as_ref();
    let mut path = culprit
        .map(|culprit| source(culprit.file.as_deref(), culprit.line))
        .unwrap_or_default();
    if path.is_empty() {
        let module = culprit.and_then(|culprit| culprit.module.as_deref());
        path = module.map(base).unwrap_or_default().to_owned();
    }
    if site.frames.is_empty() {
        return if path.is_empty() {
            "no stack".to_owned()
        } else {
            path
        };
    }
    let blamed = culprit.and_then(|culprit| culprit.frame).unwrap_or(0);
    for (index, frame) in site.frames.iter().skip(blamed + 1).enumerate() {
        let left = room.saturating_sub(path.width() + 3);
        // The nearest caller is told of however long its name is, the others while there is room.
        let most = if index == 0 { left.min(40) } else { 40 };
        let caller = page.fit(&frame_name(frame), most);
        if caller.width() > left || left < 8 {
            return format!("{path} < {}", page.ellipsis());
        }
        path.push_str(" < ");
        path.push_str(&caller);
    }
    path
}

/// What the kernel counts, and where it went.
fn account(page: &Page, recording: &Recording) -> String {
    let Some(account) = &recording.reconciliation else {
        return "The account is not closed: smaps could not be read at both ends of the window.".to_owned();
    };
    let growth = account.smaps_growth_bytes;
    let share = |part: i64| {
        if growth > 0 {
            format!(" ({})", percent(part as f64 / growth as f64))
        } else {
            String::new()
        }
    };
    let mut parts = vec![format!(
        "call sites {}{}",
        amount(account.attributed_bytes),
        share(account.attributed_bytes)
    )];
    let least = (growth.unsigned_abs() as f64 * SHARE_LEAST).max(1.0);
    let mut small = 0_i64;
    for row in &account.reasons {
        if row.bytes.unsigned_abs() as f64 >= least {
            parts.push(format!(
                "{} {}{}",
                page.fit(&reason(&row.reason), 60),
                amount(row.bytes),
                share(row.bytes)
            ));
        } else {
            small = small.saturating_add(row.bytes);
        }
    }
    if small != 0 {
        parts.push(format!("the rest {}", amount(small)));
    }
    format!("Account: {} by smaps = {}.", amount(growth), parts.join(" + "))
}

fn losses(page: &Page, recording: &Recording) -> String {
    let counted = recording.losses.events.is_some();
    let lost = tail::lost(page, &recording.losses, counted);
    format!("Lost: {}.", lost.join("; "))
}

fn about(page: &Page, recording: &Recording) -> String {
    let window = &recording.window;
    let ended = match window.ended_by {
        EndedBy::Deadline => "",
        EndedBy::Interrupt => " (ended by an interrupt)",
        EndedBy::TargetExit => " (ended by its exit)",
        EndedBy::TargetExec => " (ended when it ran another program)",
    };
    let own = recording.cost.cpu_seconds.map_or_else(String::new, |own| {
        format!(", which took {} of own processor time", seconds(own))
    });
    format!(
        "{}, PID {}, watched for {}{ended}{own}. -v tells what it rests on, and the heap; -vv whole stacks.",
        page.fit(&recording.target.comm, 32),
        recording.target.pid,
        seconds(window.duration_seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, inert};
    use super::super::{Options, render};
    use crate::report::sample;

    fn brief(width: usize) -> Options {
        Options {
            brief: true,
            ..at(width)
        }
    }

    #[test]
    fn one_screen_at_80_and_at_200_columns() {
        let text = render(&sample::full(), &brief(80));
        assert!(text.lines().count() <= 40, "{text}");
        insta::assert_snapshot!("summary_80", text);
        insta::assert_snapshot!("summary_200", render(&sample::sampled(), &brief(200)));
        insta::assert_snapshot!("summary_empty", render(&sample::empty(), &brief(80)));
    }

    #[test]
    fn the_verdict_comes_first_and_losses_are_told() {
        let mut recording = sample::full();
        recording.losses.events = Some(7);
        let text = render(&recording, &brief(80));
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("Leak:"), "{first}");
        assert!(text.contains("7 events lost"), "{text}");
        // The account adds up, as far as it is told.
        assert!(text.contains("Account: "), "{text}");
    }

    #[test]
    fn survivors_tell_how_many_of_their_births_stayed() {
        let recording = sample::survivors();
        let site = recording
            .call_sites
            .iter()
            .find(|site| site.evidence == "survivors")
            .unwrap();
        let blocks = site.allocations.as_ref().unwrap();
        let told = format!("{}/{} survived]", blocks.survived, blocks.followed);
        let text = render(&recording, &brief(80));
        assert!(text.contains(&told), "no {told}\n{text}");
    }

    #[test]
    fn hostile_names_do_nothing() {
        for width in [80, 120, 200] {
            inert(&render(&sample::hostile(), &brief(width)), width);
        }
    }
}
