//! Who was watched, and the verdict: what it is, how sure, what it rests on and what could be done.

use maud::{Markup, html};

use super::SENTENCE;
use super::cells::{self, bar};
use crate::report::escape::fit;
use crate::report::model::{Recording, Verdict};
use crate::report::text;
use crate::report::text::layout::{Page, duration, per_second, percent};

/// What a kind means to whoever is on call: the colour of its badge.
const KINDS: &[(&str, &str)] = &[
    ("leak", "bad"),
    ("growth", "warn"),
    ("retention", "warn"),
    ("churn", "warn"),
    ("plateau", "good"),
    ("flat", "good"),
];

pub fn header(page: &Page, recording: &Recording) -> Markup {
    let started = cells::moment(&recording.window.started_at);
    html! {
        header {
            p.brand { "leakwatch" }
            p.about { (text::about(page, recording)) " From " (started) "." }
        }
    }
}

pub fn verdict(page: &Page, recording: &Recording) -> Markup {
    let headline = text::headline(page, recording);
    html! {
        section.verdict id="verdict" {
            @match &recording.verdict {
                Some(verdict) => {
                    (badge(&verdict.kind))
                    h1 { (page.fit(&verdict.summary, SENTENCE)) }
                    p.headline { (headline) }
                }
                None => h1 { (headline) },
            }
            (tiles(recording))
            @if let Some(verdict) = &recording.verdict { (grounds(page, verdict)) }
        }
        "\n"
    }
}

/// A kind of verdict.
pub fn badge(kind: &str) -> Markup {
    let class = KINDS
        .iter()
        .find(|(known, _)| *known == kind)
        .map_or("unsure", |(_, class)| class);
    html! { p.badge.(class) { (fit(kind, 20, "…")) } }
}

/// The figures that are asked for first.
fn tiles(recording: &Recording) -> Markup {
    let account = recording.reconciliation.as_ref();
    let growth = account
        .map(|account| account.smaps_growth_bytes)
        .or(recording.growth.anonymous_bytes);
    let rate = recording
        .trend
        .as_ref()
        .and_then(|trend| trend.slope_bytes_per_second);
    let limit = recording
        .verdict
        .as_ref()
        .and_then(|verdict| verdict.limit.as_ref());
    html! {
        dl.tiles {
            @if let Some(growth) = growth {
                div { dt { "anonymous memory" } dd { (cells::change(growth)) } }
            }
            @if let Some(rate) = rate { div { dt { "its trend" } dd { (per_second(rate)) } } }
            @if let Some(account) = account {
                div { dt { "held by call sites" } dd { (cells::net(account.attributed_bytes)) } }
                @if let Some(coverage) = account.coverage {
                    div { dt { "of the growth explained" } dd { (percent(coverage)) } }
                }
            }
            @if let Some(seconds) = limit.and_then(|limit| limit.seconds) {
                div { dt { "until the limit" } dd { (duration(seconds)) } }
            }
        }
    }
}

fn grounds(page: &Page, verdict: &Verdict) -> Markup {
    html! {
        div.grounds {
            div {
                @if !verdict.evidence.is_empty() {
                    h2 { "Evidence" }
                    ul { @for sentence in &verdict.evidence { li { (page.fit(sentence, SENTENCE)) } } }
                }
            }
            div {
                @if !verdict.suggestions.is_empty() {
                    h2 { "What could be done" }
                    ul { @for sentence in &verdict.suggestions { li { (page.fit(sentence, SENTENCE)) } } }
                }
                @if let Some(limit) = &verdict.limit { p { (text::verdict::reached(limit)) } }
            }
        }
        @if let Some(confidence) = verdict.confidence {
            div.confidence {
                (bar(confidence))
                p { (text::verdict::sure(page, verdict, confidence)) }
                @if let Some(rule) = &verdict.rule { p.remark { "Rule: " (page.fit(rule, SENTENCE)) } }
            }
        }
    }
}
