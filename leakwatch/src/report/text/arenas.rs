//! What is told of a row that is of an allocator's arenas, and so names nobody.

use unicode_width::UnicodeWidthStr as _;

use super::layout::{Page, bytes, whole_percent};
use super::sites::weight;
use crate::report::model::{Arenas, CallSite};

/// Columns of a name.
const NAME: usize = 40;

/// Who touched them first, in so many columns.
pub fn touchers(page: &Page, site: &CallSite, arenas: &Arenas, room: usize) -> String {
    let all = weight(site).max(1);
    let mut text = String::new();
    for toucher in &arenas.first_touched_by {
        let lead = if text.is_empty() {
            "first touched by "
        } else {
            ", "
        };
        let share = whole_percent(toucher.live_bytes as f64 / all as f64);
        // The first is told of however long its name is.
        let most = if text.is_empty() {
            room.saturating_sub(lead.width() + 1 + share.width()).min(NAME)
        } else {
            NAME
        };
        let one = format!("{lead}{} {share}", page.fit(&toucher.name, most));
        if text.width() + one.width() > room {
            break;
        }
        text.push_str(&one);
    }
    text
}

/// What the row is and is not, and who touched them first.
pub fn of_site(page: &Page, site: &CallSite) -> Option<String> {
    let arenas = site.arenas.as_ref()?;
    let of = match arenas.allocator.as_str() {
        "pymalloc" => {
            "Python's objects of up to 512 bytes lie there, those of many call sites in one page: whose they are that are \
             kept is not told (tracemalloc does, where the service may be slowed)"
        }
        _ => "Blocks of many call sites lie in one page: whose they are that are kept is not told",
    };
    let touchers: Vec<String> = arenas
        .first_touched_by
        .iter()
        .map(|toucher| {
            format!(
                "{} ({})",
                page.fit(&toucher.name, NAME),
                bytes(toucher.live_bytes)
            )
        })
        .collect();
    Some(if touchers.is_empty() {
        of.to_owned()
    } else {
        format!("{of}. First touched by {}", touchers.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::at;
    use super::super::{Options, render};
    use crate::report::sample;

    #[test]
    fn a_long_name_is_cut_and_not_left_out() {
        let mut recording = sample::arenas();
        let arenas = recording.call_sites[0].arenas.as_mut().unwrap();
        arenas.first_touched_by[0].name = "_json.cpython-311-x86_64-linux-gnu.so+0x7ba0".to_owned();
        let brief = Options {
            brief: true,
            ..at(80)
        };
        let text = render(&recording, &brief);
        assert!(text.contains("first touched by _json"), "{text}");
        assert!(text.contains(" 55 %  [pages"), "{text}");
    }

    #[test]
    fn a_row_of_arenas_names_nobody_and_says_so() {
        let recording = sample::arenas();
        for width in [80, 200] {
            let brief = render(
                &recording,
                &Options {
                    brief: true,
                    ..at(width)
                },
            );
            assert!(brief.contains("  pymalloc arenas\n"), "{brief}");
            assert!(
                brief.contains("first touched by pattern_new_match 55 %"),
                "{brief}"
            );
            assert!(brief.contains("[pages, "), "{brief}");
            let long = render(&recording, &at(width));
            assert!(long.contains("is not told"), "{long}");
            // The stack of one who touched a page is nobody's to look at.
            assert!(!long.contains("_sre_SRE_Pattern_match"), "{long}");
            let whole = render(
                &recording,
                &Options {
                    verbose: true,
                    ..at(width)
                },
            );
            assert!(whole.contains("_sre_SRE_Pattern_match"), "{whole}");
        }
    }
}
