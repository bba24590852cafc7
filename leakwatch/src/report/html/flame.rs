//! A flame graph: drawn by inferno, shown without its own script and styles, which are for a file of its own.
//! `assets/flame.js` zooms and searches it.

use std::io;

use maud::{Markup, PreEscaped, html};

/// What the figures of a graph are.
pub struct Figures {
    /// Behind a size.
    unit: &'static str,
    /// The colours tell what changed, and so do the titles.
    differences: bool,
}

pub const SIZES: Figures = Figures {
    unit: "",
    differences: false,
};

pub const DIFFERENCES: Figures = Figures {
    unit: "/h",
    differences: true,
};

/// What `drawn`, a file of a flame graph, is as a part of a page; `None` where it has no frames.
pub fn embedded(drawn: Vec<u8>, figures: &Figures) -> io::Result<Option<Markup>> {
    let drawn = String::from_utf8(drawn).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(frames(&drawn).map(|frames| graph(&frames, figures)))
}

/// The drawing within the file, and from where to where it reaches.
struct Frames<'a> {
    inside: &'a str,
    total: u64,
    top: u32,
    bottom: u32,
}

/// What inferno put into the element that has all frames. Names in it cannot be mistaken for it: `<` is escaped there.
fn frames(svg: &str) -> Option<Frames<'_>> {
    let (_, from) = svg.split_once("<svg id=\"frames\"")?;
    let (attributes, rest) = from.split_once('>')?;
    let (inside, _) = rest
        .rsplit_once("</svg>")
        .and_then(|(rest, _)| rest.rsplit_once("</svg>"))?;
    let total = attribute(attributes, "total_samples")?.parse().ok()?;
    let tops = || {
        inside
            .split("<rect ")
            .skip(1)
            .filter_map(|rect| attribute(rect, "y")?.parse::<u32>().ok())
    };
    Some(Frames {
        inside,
        total,
        top: tops().min()?,
        bottom: tops().max()?,
    })
}

/// The value of an attribute in the tag that the text begins within.
fn attribute<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let tag = text.split('>').next()?;
    let (_, value) = tag.split_once(&format!("{name}=\""))?;
    value.split('"').next()
}

/// Of one row of frames, as inferno draws it.
const ROW: u32 = 16;

fn graph(frames: &Frames<'_>, figures: &Figures) -> Markup {
    let height = (frames.bottom - frames.top).saturating_add(ROW);
    html! {
        div.flame-tools {
            label for="flame-search" { "Search " }
            input id="flame-search" type="search" autocomplete="off" spellcheck="false" placeholder="function or module" maxlength="200";
            button id="flame-reset" type="button" disabled { "Reset zoom" }
            output id="flame-matched" for="flame-search" {}
        }
        div.flame-frame {
            svg.flames.differences[figures.differences] id="flame-graph" width="100%" height=(height) role="group" aria-roledescription="flame graph"
                aria-label="Flame graph: arrow keys go from frame to frame, Enter zooms, Escape resets" {
                svg id="frames" x="0" y=(-i64::from(frames.top)) width="100%" overflow="visible" data-total=(frames.total)
                    data-unit=(figures.unit) {
                    // Escaped by inferno's writer of XML.
                    (PreEscaped(frames.inside))
                }
            }
        }
        p id="flame-details" aria-live="polite" { "\u{a0}" }
    }
}
