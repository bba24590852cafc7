//! Growth per mapping and per library.

use super::Options;
use super::layout::{DIM, PLAIN, Page, UNKNOWN, left, right, signed};
use crate::report::model::Recording;

/// Columns of one figure.
const FIGURE: usize = 12;

/// One line of either table, the sizes in the order of the heading.
struct Row<'a> {
    figures: [i64; 4],
    wide: [i64; 2],
    what: &'a str,
    name: String,
}

pub fn section(page: &mut Page, recording: &Recording, options: &Options) {
    page.heading("MAPPINGS", "what grew, from smaps");
    let (Some(mappings), Some(libraries)) = (&recording.mappings, &recording.libraries) else {
        page.paragraph(
            2,
            "not read: full smaps would have cost the target more than 1 % of the window, or it was gone",
            PLAIN,
        );
        return;
    };
    let rows: Vec<Row<'_>> = mappings
        .iter()
        .map(|row| Row {
            figures: [
                row.anonymous_growth_bytes,
                row.swap_growth_bytes,
                row.rss_growth_bytes,
                row.size_growth_bytes,
            ],
            wide: [row.pss_growth_bytes, row.private_dirty_growth_bytes],
            what: &row.fate,
            name: row.path.clone().unwrap_or_else(|| format!("[{}]", row.region)),
        })
        .collect();
    table(page, "mapping", &rows, options);
    let counts: Vec<String> = libraries.iter().map(|row| row.mappings.to_string()).collect();
    let rows: Vec<Row<'_>> = libraries
        .iter()
        .zip(&counts)
        .map(|(row, count)| Row {
            figures: [
                row.anonymous_growth_bytes,
                row.swap_growth_bytes,
                row.rss_growth_bytes,
                row.size_growth_bytes,
            ],
            wide: [row.pss_growth_bytes, row.private_dirty_growth_bytes],
            what: count,
            name: row.name.clone(),
        })
        .collect();
    table(page, "library", &rows, options);
}

fn table(page: &mut Page, title: &str, rows: &[Row<'_>], options: &Options) {
    if rows.is_empty() {
        page.paragraph(2, &format!("no {title} changed"), PLAIN);
        return;
    }
    // Pss and Private_Dirty say little more than Anonymous, so they are shown where there is room.
    let wide = page.width >= 120;
    let what = if title == "mapping" { "" } else { "count" };
    let names = ["anonymous", "swap", "rss", "size"];
    let mut head: String = names.iter().map(|name| right(name, FIGURE)).collect();
    if wide {
        head.extend(["pss", "private dirty"].map(|name| right(name, FIGURE + 2)));
    }
    page.line(&page.paint(DIM, &format!("{head}  {} {title}", left(what, 6))));
    let shown = rows.len().min(options.top);
    for row in rows.iter().take(shown) {
        let figure = |value: i64| {
            if value == 0 {
                UNKNOWN.to_owned()
            } else {
                signed(value)
            }
        };
        let mut line: String = row
            .figures
            .iter()
            .map(|value| right(&figure(*value), FIGURE))
            .collect();
        if wide {
            line.extend(row.wide.iter().map(|value| right(&figure(*value), FIGURE + 2)));
        }
        let taken = FIGURE * 4 + if wide { 2 * (FIGURE + 2) } else { 0 } + 9;
        let name = page.fit(&row.name, page.width.saturating_sub(taken).max(3));
        let what = page.fit(row.what, 6);
        page.line(&format!("{line}  {} {name}", left(&what, 6)));
    }
    if rows.len() > shown {
        page.paragraph(
            2,
            &format!("{} and {} more", page.ellipsis(), rows.len() - shown),
            PLAIN,
        );
    }
}
