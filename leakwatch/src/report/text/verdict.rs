//! The verdict: what it is, how sure, what it rests on, what could be done, and how far it is to the limit.

use super::layout::{DIM, PLAIN, Page, STRONG, bytes, duration, per_second, whole_percent};
use crate::report::model::{Limit, Verdict};

/// Columns of a sentence that may hold names of the target.
const SENTENCE_MOST: usize = 400;

/// Right after the headline; nothing, where nothing was judged.
pub fn section(page: &mut Page, verdict: Option<&Verdict>) {
    let Some(verdict) = verdict else { return };
    page.paragraph(0, &page.fit(&verdict.summary, SENTENCE_MOST), STRONG);
    if let Some(confidence) = verdict.confidence {
        page.paragraph(2, &sure(page, verdict, confidence), DIM);
    }
    if let Some(limit) = &verdict.limit {
        page.paragraph(2, &reached(limit), PLAIN);
    }
    for sentence in &verdict.evidence {
        item(page, "-", sentence);
    }
    for suggestion in &verdict.suggestions {
        item(page, ">", suggestion);
    }
}

fn item(page: &mut Page, mark: &str, sentence: &str) {
    let sentence = page.fit(sentence, SENTENCE_MOST);
    page.item(2, mark, &sentence);
}

/// How sure it is, and what that is made of.
pub fn sure(page: &Page, verdict: &Verdict, confidence: f64) -> String {
    let parts: Vec<String> = verdict
        .factors
        .iter()
        .map(|factor| format!("{} {}", page.fit(&factor.what, 60), whole_percent(factor.chance)))
        .collect();
    let parts = if parts.is_empty() {
        String::new()
    } else {
        format!(": {}", parts.join(", "))
    };
    format!("Confidence {}{parts}.", whole_percent(confidence))
}

/// When memory is full.
pub fn reached(limit: &Limit) -> String {
    let of = match limit.of.as_str() {
        "cgroup" => "the cgroup's limit",
        _ => "the host's RAM",
    };
    let when = limit.seconds.map_or_else(
        || "is not reached".to_owned(),
        |seconds| format!("is full in {}", duration(seconds)),
    );
    format!(
        "At {} {of} of {} ({} left) {when}.",
        per_second(limit.rate_bytes_per_second),
        bytes(limit.limit_bytes),
        bytes(limit.left_bytes)
    )
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::super::render;
    use super::super::tests::at;
    use crate::report::model::Verdict;
    use crate::report::sample;

    fn text(width: usize, change: impl Fn(&mut Verdict)) -> String {
        let mut recording = sample::full();
        change(recording.verdict.as_mut().unwrap());
        let text = render(&recording, &at(width));
        let (from, to) = (text.find("Leak:").unwrap(), text.find("\nNote:").unwrap());
        text[from..to].to_owned()
    }

    #[test]
    fn at_80_columns() {
        let text = text(80, |_| {});
        insta::assert_snapshot!("verdict_80", text);
        assert!(text.lines().all(|line| line.width() <= 80), "{text}");
    }

    #[test]
    fn what_is_not_there_is_not_told() {
        let text = text(80, |verdict| {
            verdict.confidence = None;
            verdict.limit = None;
            verdict.evidence.clear();
            verdict.suggestions.clear();
        });
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn names_in_sentences_are_inert() {
        let text = text(80, |verdict| {
            verdict.evidence = vec!["\x1b[31mred\x07 keeps it.".to_owned()];
        });
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
    }
}
