//! A call site's growth: a small curve that needs no script, and its points for the large one.

use maud::{Markup, html};

use super::cells::percent_of;
use crate::report::model::SitePoint;

/// Points of a curve. A recording has 32; a made-up file may have any number.
const POINTS: usize = 256;

/// At most [`POINTS`], with the last.
fn thinned(series: &[SitePoint]) -> impl Iterator<Item = &SitePoint> {
    let step = series.len().div_ceil(POINTS).max(1);
    let last = series.len().saturating_sub(1);
    series
        .iter()
        .enumerate()
        .filter(move |(index, _)| (last - index).is_multiple_of(step))
        .map(|(_, point)| point)
}

/// The curve, as lines between its points; within `window` seconds.
pub fn small(series: &[SitePoint], window: f64) -> Markup {
    let most = series.iter().map(|point| point.held_bytes).max().unwrap_or(0);
    if most == 0 || window <= 0.0 {
        return html! {};
    }
    let points: Vec<(f64, f64)> = std::iter::once((0.0, 0.0))
        .chain(thinned(series).map(|point| (point.t / window, point.held_bytes as f64 / most as f64)))
        .collect();
    html! {
        svg.curve width="100%" height="22" aria-hidden="true" {
            @for pair in points.windows(2) {
                @if let [(from, low), (to, high)] = pair {
                    line x1=(percent_of(*from)) y1=(percent_of(0.95 - low * 0.9))
                        x2=(percent_of(*to)) y2=(percent_of(0.95 - high * 0.9)) {}
                }
            }
        }
    }
}

/// Where the script draws the large one, with its points: seconds and bytes.
pub fn large(series: &[SitePoint]) -> Markup {
    let times: Vec<String> = thinned(series).map(|point| point.t.to_string()).collect();
    let sizes: Vec<String> = thinned(series)
        .map(|point| point.held_bytes.to_string())
        .collect();
    html! {
        div.large-curve data-t=(times.join(" ")) data-held=(sizes.join(" ")) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(points: u64) -> Vec<SitePoint> {
        (1..=points)
            .map(|t| SitePoint {
                t: t as f64,
                held_bytes: t * 4096,
            })
            .collect()
    }

    #[test]
    fn a_long_series_is_thinned_and_keeps_its_end() {
        for points in [1, 2, 255, 256, 257, 3600] {
            let series = series(points);
            let kept: Vec<_> = thinned(&series).collect();
            assert!(kept.len() <= POINTS, "{}", kept.len());
            assert_eq!(kept.last().unwrap().held_bytes, points * 4096);
        }
        assert_eq!(thinned(&[]).count(), 0);
    }

    #[test]
    fn figures_that_no_window_has_are_drawn_within() {
        let mut series = series(3);
        series[1].t = 1e300;
        series[2].held_bytes = u64::MAX;
        let svg = small(&series, 2.0).into_string();
        assert!(
            svg.contains("100.000%") && !svg.contains("NaN") && !svg.contains("inf"),
            "{svg}"
        );
        assert!(small(&series, 0.0).into_string().is_empty());
    }
}
