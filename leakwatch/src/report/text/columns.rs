//! The figures of the ranked call sites: which columns stand, by what was measured and by what fits.

use super::layout::{Page, UNKNOWN, bytes, known, left, per_second, percent, right, rounded, whole_percent};
use crate::report::model::CallSite;

/// From here on address space and events have room, and from here on everything.
const WIDE: usize = 120;
const WIDEST: usize = 140;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Rank,
    Live,
    Error,
    Touched,
    Kept,
    Held,
    Committed,
    Share,
    Rate,
    Events,
    Evidence,
}

/// From left to right; the ways that the memory came by stand last and take what is left.
const ORDER: [Column; 11] = [
    Column::Rank,
    Column::Live,
    Column::Error,
    Column::Touched,
    Column::Kept,
    Column::Held,
    Column::Committed,
    Column::Share,
    Column::Rate,
    Column::Events,
    Column::Evidence,
];

/// The columns of one table.
pub struct Columns {
    shown: Vec<Column>,
}

impl Columns {
    /// For these rows. Where there is little room a column stands only if it tells something: address space says less
    /// than touched pages, unless live bytes are unknown and it is what ranks the row.
    pub fn of(page: &Page, sites: &[&CallSite]) -> Self {
        let wide = page.width >= WIDE;
        let any = |is: fn(&CallSite) -> bool| sites.iter().any(|site| is(site));
        let live_unknown = any(|site| site.live_bytes.is_none());
        let touched = any(|site| site.touched_bytes.is_some());
        let shown = |column: &Column| match column {
            Column::Rank | Column::Live | Column::Share | Column::Rate => true,
            Column::Error => any(is_sampled),
            Column::Touched => touched && (wide || !live_unknown),
            Column::Kept => touched,
            Column::Held => wide || live_unknown || !touched,
            Column::Events => wide || !touched,
            Column::Committed | Column::Evidence => page.width >= WIDEST,
        };
        Self {
            shown: ORDER.into_iter().filter(shown).collect(),
        }
    }

    /// The address space of the rows is shown.
    pub fn has_address_space(&self) -> bool {
        self.shown.contains(&Column::Held)
    }

    /// Each row says what it rests on.
    pub fn has_evidence(&self) -> bool {
        self.shown.contains(&Column::Evidence)
    }

    pub fn head(&self, page: &Page) -> String {
        let mut line = String::new();
        for column in &self.shown {
            line.push_str(&column.fill(page, column.title(page)));
        }
        format!("{line}  via")
    }

    pub fn row(&self, page: &Page, site: &CallSite) -> String {
        let mut line = String::new();
        for column in &self.shown {
            line.push_str(&column.fill(page, column.cell(page, site)));
        }
        let room = page
            .width
            .saturating_sub(unicode_width::UnicodeWidthStr::width(&*line) + 2);
        format!("{line}  {}", vias(page, site, room))
    }
}

/// The figure is an estimate.
pub fn is_sampled(site: &CallSite) -> bool {
    site.standard_error_bytes.is_some_and(|error| error > 0.0)
}

/// Address space, marked where a part of it is estimated.
pub fn space(site: &CallSite, figure: Option<u64>) -> String {
    match figure {
        Some(figure) if site.estimated => format!("~{}", bytes(figure)),
        figure => known(figure),
    }
}

impl Column {
    fn title(self, page: &Page) -> String {
        match self {
            Self::Rank => "#",
            Self::Live => "live",
            Self::Error => page.plus_minus(),
            Self::Touched => "touched",
            Self::Kept => "kept",
            Self::Held => "held",
            Self::Committed => "committed",
            Self::Share => "share",
            Self::Rate => "rate",
            Self::Events => "events",
            Self::Evidence => "evidence",
        }
        .to_owned()
    }

    fn cell(self, page: &Page, site: &CallSite) -> String {
        let or_unknown = |figure: Option<String>| figure.unwrap_or_else(|| UNKNOWN.to_owned());
        match self {
            Self::Rank => site.rank.to_string(),
            Self::Live => known(site.live_bytes),
            Self::Error if !is_sampled(site) => String::new(),
            Self::Error => site
                .standard_error_bytes
                .map(|error| format!("{} {}", page.plus_minus(), bytes(rounded(error))))
                .unwrap_or_default(),
            Self::Touched => known(site.touched_bytes),
            Self::Kept => or_unknown(site.retention.map(whole_percent)),
            Self::Held => space(site, site.held_bytes),
            Self::Committed => space(site, site.committed_bytes),
            Self::Share => or_unknown(site.share.map(percent)),
            Self::Rate => or_unknown(site.rate_bytes_per_second.map(per_second)),
            Self::Events => site.events.to_string(),
            Self::Evidence => page.fit(&site.evidence, 9),
        }
    }

    /// Filled up to the column's width. A blank at least parts it from its neighbour: the greatest figure of a unit,
    /// `1023.9 MiB`, has ten characters.
    fn fill(self, page: &Page, text: String) -> String {
        match self {
            Self::Rank => right(&text, 4),
            Self::Kept => right(&text, 7),
            Self::Share => right(&text, 8),
            Self::Rate => right(&text, 14),
            Self::Events => right(&text, 9),
            Self::Live | Self::Touched => right(&text, 11),
            Self::Held | Self::Committed => right(&text, 12),
            // It belongs to the figure on its left.
            Self::Error => left(&format!(" {text}"), 12 + page.plus_minus().chars().count()),
            Self::Evidence => left(&format!("  {text}"), 11),
        }
    }
}

/// Every way, else the main one and how many more.
fn vias(page: &Page, site: &CallSite, room: usize) -> String {
    let all = if site.vias.is_empty() {
        site.via.clone()
    } else {
        site.vias.join(", ")
    };
    if unicode_width::UnicodeWidthStr::width(&*all) <= room || site.vias.len() < 2 {
        return page.fit(&all, room);
    }
    page.fit(&format!("{} +{}", site.via, site.vias.len() - 1), room)
}
