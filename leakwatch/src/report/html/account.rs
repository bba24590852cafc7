//! The account as a bar that adds up, and as a table.

use maud::{Markup, html};

use super::cells::{name, net, percent_of};
use super::titled;
use crate::report::model::{CallSite, Reconciliation, Recording};
use crate::report::text::account as words;
use crate::report::text::layout::{Page, bytes, percent, rounded};

/// Call sites that have a part of the bar to themselves.
const SITES: usize = 5;
/// Shades of what is not attributed.
const SHADES: usize = 5;
const NAME: usize = 60;

/// One part of the account: the bar's and the table's.
struct Part {
    class: String,
    name: Markup,
    /// For the bar's tooltip; inert.
    title: String,
    bytes: i64,
}

fn closed(page: &Page, recording: &Recording, account: &Reconciliation) -> Markup {
    let sites = attributed(page, recording, account);
    let reasons = reasons(page, account);
    let growth = account.smaps_growth_bytes;
    let share = |bytes: i64| (growth > 0).then(|| percent(bytes as f64 / growth as f64));
    let verb = if growth < 0 {
        "anonymous memory shrank (smaps)"
    } else {
        "anonymous memory grew (smaps)"
    };
    // What call sites keep can be more than the growth: other memory was given back meanwhile.
    let not = if account.unattributed_bytes < 0 {
        "not attributed, net"
    } else {
        "not attributed"
    };
    let error = account.standard_error_bytes.filter(|error| *error > 0.0);
    let row = |class: &str, label: &Markup, bytes: i64, with_share: bool| {
        html! {
            tr class=(class) {
                th scope="row" { (label) }
                td { (net(bytes)) }
                td { @if with_share { (share(bytes).unwrap_or_default()) } }
            }
        }
    };
    let part = |part: &Part| {
        let label = html! { span.swatch.(part.class) {} (part.name) };
        row("part", &label, part.bytes, true)
    };
    html! {
        (bar(&sites, &reasons, growth))
        div.beside {
            table.account {
                caption.hidden { "The account" }
                thead { tr { th scope="col" { "what" } th scope="col" { "bytes" } th scope="col" { "share" } } }
                tbody {
                    (row("whole", &html! { (verb) }, growth, false))
                    (row("sum", &html! {
                        "attributed to call sites"
                        @if let Some(error) = error { span.error { " ± " (bytes(rounded(error))) } }
                    }, account.attributed_bytes, true))
                    @for site in &sites { (part(site)) }
                    (row("sum", &html! { (not) }, account.unattributed_bytes, true))
                    @for reason in &reasons { (part(reason)) }
                }
            }
            @if !account.regions.is_empty() {
                table.regions {
                    caption.hidden { "The same by region" }
                    thead { tr {
                        th scope="col" { "by region" } th scope="col" { "growth" } th scope="col" { "attributed" }
                    } }
                    tbody {
                        @for region in &account.regions {
                            tr {
                                th scope="row" { (name(&words::region(&region.region), NAME)) }
                                td { (net(region.growth_bytes)) }
                                td { (net(region.attributed_bytes)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub fn section(page: &Page, recording: &Recording) -> Markup {
    let content = match &recording.reconciliation {
        Some(account) => closed(page, recording, account),
        None => html! { p { "Not closed: smaps could not be read at both ends of the window." } },
    };
    titled("account", &words::sampling(page, recording), &content)
}

/// The first call sites and the rest of them. One part alone, where the sites' own bytes are not known or are more than
/// was attributed: then they do not add up to it.
fn attributed(page: &Page, recording: &Recording, account: &Reconciliation) -> Vec<Part> {
    let part = |class: String, label: &str, bytes: i64| Part {
        class,
        name: name(label, NAME),
        title: page.fit(label, NAME),
        bytes,
    };
    let whole = || {
        vec![part(
            "site-0".to_owned(),
            "all call sites",
            account.attributed_bytes,
        )]
    };
    let keepers: Vec<&CallSite> = recording
        .call_sites
        .iter()
        .filter(|site| !site.frames.is_empty() && site.live_bytes != Some(0))
        .collect();
    let mut left = account.attributed_bytes;
    let mut parts = Vec::new();
    for (index, site) in keepers.iter().take(SITES).enumerate() {
        let Some(live) = site.live_bytes.and_then(|live| i64::try_from(live).ok()) else {
            return whole();
        };
        left = left.saturating_sub(live);
        parts.push(part(format!("site-{index}"), &site.label, live));
    }
    if left < 0 || parts.is_empty() {
        return whole();
    }
    let others = keepers.len() - parts.len();
    if left > 0 || others > 0 {
        let label = match others {
            0 => "call sites beyond these".to_owned(),
            1 => "1 other call site".to_owned(),
            _ => format!("{others} other call sites"),
        };
        parts.push(part("site-others".to_owned(), &label, left));
    }
    parts
}

fn reasons(page: &Page, account: &Reconciliation) -> Vec<Part> {
    let mut shade = 0;
    account
        .reasons
        .iter()
        .map(|row| {
            let words = words::reason(&row.reason);
            let class = if row.bytes < 0 {
                "given-back".to_owned()
            } else {
                shade += 1;
                format!("reason-{}", (shade - 1) % SHADES)
            };
            Part {
                class,
                name: name(&words, NAME),
                title: page.fit(&words, NAME),
                bytes: row.bytes,
            }
        })
        .collect()
}

const HEIGHT: u32 = 30;

/// What was added, from the left; what was taken away, from its right end back to the left. Where both end is the growth.
fn bar(sites: &[Part], reasons: &[Part], growth: i64) -> Markup {
    let parts = || sites.iter().chain(reasons);
    let sum = |positive: bool| {
        parts()
            .filter(|part| (part.bytes > 0) == positive)
            .map(|part| part.bytes as f64)
            .sum::<f64>()
    };
    let (added, taken) = (sum(true), -sum(false));
    if added <= 0.0 {
        return html! {};
    }
    // More taken than added: the growth lies left of nothing, and only the table can tell it.
    let drawn_taken = taken > 0.0 && taken <= added;
    let mut at = 0.0;
    let mut back = added;
    let height = if drawn_taken { HEIGHT + 12 } else { HEIGHT };
    let words = |part: &Part| format!("{}: {}", part.title, bytes(part.bytes.unsigned_abs()));
    html! {
        svg.stacked width="100%" height=(height) role="img" aria-label="The account as a bar; the table below has its figures" {
            @for part in parts().filter(|part| part.bytes > 0) {
                @let from = at;
                @let () = at += part.bytes as f64;
                rect.(part.class) x=(percent_of(from / added)) width=(percent_of(part.bytes as f64 / added)) height=(HEIGHT) {
                    title { (words(part)) }
                }
            }
            @if drawn_taken {
                @for part in parts().filter(|part| part.bytes < 0) {
                    @let () = back += part.bytes as f64;
                    rect.(part.class) x=(percent_of(back / added)) y=(HEIGHT + 2) height="10"
                        width=(percent_of(-(part.bytes as f64) / added)) {
                        title { (words(part)) ", taken away" }
                    }
                }
            }
        }
        @if taken > 0.0 {
            p.remark {
                (bytes(rounded(added))) " added, less " (bytes(rounded(taken)))
                " that was given back or counted twice, makes " (net(growth)) "."
            }
        }
    }
}
