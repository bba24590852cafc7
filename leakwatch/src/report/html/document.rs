//! What every page is made of around its sections: its head, the way through it, and its end.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::SENTENCE;
use super::policy::Assets;
use crate::report::text;
use crate::report::text::layout::Page;

/// A page's sections in its order, by identifier and title.
pub type Sections = &'static [(&'static str, &'static str)];

/// What makes sentences for a page.
pub fn sentences() -> Page {
    Page::new(&text::Options {
        width: SENTENCE,
        ..text::Options::default()
    })
}

/// All before the page's own content. Names in the title must be inert.
pub fn begin(assets: &Assets, title: &str, header: &Markup, sections: Sections) -> Markup {
    html! {
        (DOCTYPE)
        (PreEscaped("<html lang=\"en\">\n"))
        head {
            meta charset="utf-8";
            // Before anything that it is to hold for.
            meta http-equiv="Content-Security-Policy" content=(assets.policy());
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="referrer" content="no-referrer";
            meta name="generator" content="leakwatch";
            title { "leakwatch: " (title) }
            @for style in assets.styles { style { (PreEscaped(style)) } }
        }
        (PreEscaped("<body>\n"))
        (header)
        nav aria-label="Sections" {
            @for (id, title) in sections { a href={ "#" (id) } { (title) } " " }
        }
        (PreEscaped("<main>\n"))
    }
}

/// All after it. Scripts come last: what they work on is there then.
pub fn end(assets: &Assets, footer: &Markup) -> Markup {
    html! {
        (PreEscaped("</main>\n"))
        (footer)
        @for script in assets.scripts { script { (PreEscaped(script)) } }
        (PreEscaped("\n</body></html>\n"))
    }
}

/// The title of a section.
pub fn title_of(sections: Sections, id: &str) -> &'static str {
    sections
        .iter()
        .find(|(known, _)| *known == id)
        .map_or("", |(_, title)| title)
}

/// A section with its heading.
pub fn section(sections: Sections, id: &str, remark: &str, content: &Markup) -> Markup {
    html! {
        section id=(id) aria-labelledby={ (id) "-title" } {
            h2 id={ (id) "-title" } { (title_of(sections, id)) }
            @if !remark.is_empty() { p.remark { (remark) } }
            (content)
        }
        "\n"
    }
}
