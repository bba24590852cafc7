//! Names and figures as they stand in the page.

use maud::{Markup, html};

use crate::report::escape::fit;
use crate::report::text::diff::with_sign;
use crate::report::text::layout::{UNKNOWN, amount, bytes, per_second, reckoned, signed};

/// Columns of a name that is shown cut: what its tooltip shows at most.
const WHOLE: usize = 500;

/// Text of the target: inert, cut in the middle to so many columns, with more of it in a tooltip where it was cut.
pub fn name(text: &str, columns: usize) -> Markup {
    let shown = fit(text, columns, "…");
    let whole = fit(text, WHOLE, "…");
    html! {
        @if shown == whole { bdi { (shown) } }
        @else { bdi title=(whole) { (shown) } }
    }
}

/// `700.0 MiB`, to the byte in the tooltip and in `data-bytes`.
pub fn size(size: u64) -> Markup {
    html! { span data-bytes=(size) title={ (size) " bytes" } { (bytes(size)) } }
}

pub fn known(figure: Option<u64>) -> Markup {
    html! {
        @match figure {
            Some(figure) => (size(figure)),
            None => (UNKNOWN),
        }
    }
}

/// With a sign only where it is negative.
pub fn net(change: i64) -> Markup {
    html! { span data-bytes=(change) title={ (change) " bytes" } { (amount(change)) } }
}

/// With its sign; what did not change is shown as such.
pub fn change(change: i64) -> Markup {
    html! {
        span data-bytes=(change) title={ (change) " bytes" } {
            @if change == 0 { (UNKNOWN) } @else { (signed(change)) }
        }
    }
}

/// `2.1 MiB/s`, with its exact figure in `data-rate`.
pub fn rate(rate: f64) -> Markup {
    html! { span data-rate=(rate) title={ (rate) " bytes per second" } { (per_second(rate)) } }
}

/// The same of a change: with its sign.
pub fn rate_change(change: f64) -> Markup {
    html! { span data-rate=(change) title={ (change) " bytes per second" } { (with_sign(change)) } }
}

/// Of bytes per second, what they are in an hour.
pub fn hourly(rate: f64, is_change: bool) -> Markup {
    let hourly = rate * 3600.0;
    let shown = reckoned(hourly);
    let sign = if is_change && rate > 0.0 && !shown.starts_with("0 ") {
        "+"
    } else {
        ""
    };
    html! { span data-rate=(rate) title={ (hourly) " bytes per hour" } { (sign) (shown) "/h" } }
}

/// When something began, as RFC 3339, without the parts of a second: they say nothing to a reader. Inert.
pub fn moment(at: &str) -> String {
    match at.split_once('.') {
        Some((whole, _)) => fit(&format!("{whole}Z"), 40, "…"),
        None => fit(at, 40, "…"),
    }
}

/// A bar of a part, 0 to 1. It says nothing that the figure beside it does not.
pub fn bar(part: f64) -> Markup {
    html! {
        svg.part width="100%" height="6" aria-hidden="true" {
            rect width=(percent_of(part)) height="6" {}
        }
    }
}

/// A part of the width, for an attribute.
pub fn percent_of(part: f64) -> String {
    let part = if part.is_finite() {
        part.clamp(0.0, 1.0)
    } else {
        0.0
    };
    format!("{:.3}%", part * 100.0)
}

/// `and 12 more: …`, where rows were left out.
pub fn more(left_out: usize, what: &str, sums: &Markup) -> Markup {
    html! {
        @if left_out > 0 { p.more { "… and " (left_out) " more " (what) (sums) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_bytes() {
        assert_eq!(
            size(1536).into_string(),
            r#"<span data-bytes="1536" title="1536 bytes">1.5 KiB</span>"#
        );
        assert!(change(i64::MIN).into_string().contains("-8.0 EiB"));
        assert_eq!(known(None).into_string(), "-");
    }

    #[test]
    fn parts_of_no_number_are_none() {
        assert_eq!(
            [f64::NAN, -1.0, 2.0, 0.5].map(percent_of),
            ["0.000%", "0.000%", "100.000%", "50.000%"]
        );
    }

    #[test]
    fn names_are_inert_and_bounded() {
        let shown = name(&"<b>\x1b[1m\"".repeat(9000), 40).into_string();
        assert!(shown.len() < 4000, "{}", shown.len());
        assert!(!shown.contains("<b>") && !shown.contains('\x1b'), "{shown}");
    }
}
