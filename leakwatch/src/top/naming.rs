//! Names for stacks: each distinct one once, so many at a time, so many kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::view::Named;
use crate::diagnose::culprit::{culprit, frame_label};
use crate::diagnose::rank::{GroupBy, group_key};
use crate::symbolize::{SymbolizedFrame, Symbolizer};
use crate::unwind::{Frame, Modules, Stack, StackId};

/// Stacks that are remembered with their names.
const NAMED_MOST: usize = 4096;
/// What a filter looks in, bytes of a stack's names.
const HAYSTACK_BYTES: usize = 4096;
/// A key, bytes.
const KEY_BYTES: usize = 2048;
/// The file name of a module, bytes.
const MODULE_BYTES: usize = 256;

/// Gives names, and remembers them.
pub struct Naming {
    symbolizer: Symbolizer,
    by: GroupBy,
    named: HashMap<StackId, Arc<Named>>,
}

impl Naming {
    #[must_use]
    pub fn new(by: GroupBy) -> Self {
        Self {
            symbolizer: Symbolizer::new(),
            by,
            named: HashMap::new(),
        }
    }

    /// The names of a stack, if they were made before.
    #[must_use]
    pub fn known(&self, id: StackId) -> Option<Arc<Named>> {
        self.named.get(&id).cloned()
    }

    /// Names stacks, the most urgent first, until `time` is over; one in any case. Whether all have names now.
    pub fn name<'a>(
        &mut self,
        modules: &Modules,
        stacks: impl Iterator<Item = (StackId, &'a Stack)>,
        time: Duration,
    ) -> bool {
        let began = Instant::now();
        let mut first = true;
        for (id, stack) in stacks {
            if self.named.contains_key(&id) {
                continue;
            }
            if !first && began.elapsed() >= time {
                return false;
            }
            first = false;
            let frames = self.symbolizer.symbolize(modules, stack);
            self.named.insert(id, Arc::new(named(frames, self.by)));
        }
        true
    }

    /// Makes room, keeping those that are shown.
    pub fn forget_all_but(&mut self, shown: impl Fn(StackId) -> bool) {
        if self.named.len() > NAMED_MOST {
            self.named.retain(|id, _| shown(*id));
        }
    }
}

/// A stack whose turn has not come: places instead of names.
#[must_use]
pub fn unnamed(modules: &Modules, stack: &Stack, by: GroupBy) -> Arc<Named> {
    let frames = stack.frames.iter().map(|frame| match *frame {
        Frame::Module { module, offset } => SymbolizedFrame {
            offset,
            module: modules.get(module).map(|module| module.path.clone()),
            ..SymbolizedFrame::default()
        },
        Frame::Anonymous { address } => SymbolizedFrame {
            offset: address,
            ..SymbolizedFrame::default()
        },
    });
    Arc::new(Named {
        pending: true,
        ..named(frames.collect(), by)
    })
}

/// What there is to say of a stack by its names.
#[must_use]
pub fn named(frames: Vec<SymbolizedFrame>, by: GroupBy) -> Named {
    let culprit = culprit(&frames);
    let blamed = frames.get(culprit.unwrap_or(0));
    let module = blamed.and_then(|frame| frame.module.as_deref());
    let label = match (blamed, by) {
        (None, _) => "(no stack)".to_owned(),
        (Some(_), GroupBy::Module) => module.unwrap_or("(no module)").to_owned(),
        (Some(frame), _) => frame_label(frame),
    };
    let mut haystack = String::new();
    let functions = frames.iter().filter_map(|frame| frame.function.as_deref());
    for name in [label.as_str(), module.unwrap_or_default()]
        .into_iter()
        .chain(functions)
    {
        let room = HAYSTACK_BYTES.saturating_sub(haystack.len());
        haystack.push_str(cut(name, room));
        haystack.push('\n');
        if room == 0 {
            break;
        }
    }
    Named {
        culprit,
        key: bounded_key(&group_key(&frames, by)),
        label: label.into(),
        module: file_name(module.unwrap_or_default()).into(),
        haystack: haystack.to_lowercase().into(),
        frames,
        pending: false,
    }
}

/// A long chain is known by its digest: names are as long as hostile files make them.
fn bounded_key(chain: &[String]) -> Arc<str> {
    let key = chain.join("\u{1}");
    if key.len() <= KEY_BYTES {
        return key.into();
    }
    let digest = <sha2::Sha256 as sha2::Digest>::digest(key.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.into()
}

/// What follows the last slash, cut at a bound.
#[must_use]
pub fn file_name(path: &str) -> &str {
    cut(path.rsplit('/').next().unwrap_or(path), MODULE_BYTES)
}

/// The first bytes of a text, so many at most.
fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str) -> SymbolizedFrame {
        SymbolizedFrame {
            function: Some(function.into()),
            module: Some(module.into()),
            ..SymbolizedFrame::default()
        }
    }

    #[test]
    fn a_stack_is_called_by_its_culprit_and_found_by_any_of_its_functions() {
        let frames = vec![
            frame("malloc", "/usr/lib/libc.so.6"),
            frame("Handle_Upload", "/usr/bin/server"),
            frame("main", "/usr/bin/server"),
        ];
        let one = named(frames.clone(), GroupBy::Stack);
        assert_eq!(
            (&*one.label, &*one.module, one.culprit),
            ("Handle_Upload", "server", Some(1))
        );
        assert!(one.haystack.contains("handle_upload") && one.haystack.contains("\nmalloc"));
        let mut other = frames.clone();
        other[0] = frame("calloc", "/usr/lib/libc.so.6");
        assert_eq!(named(other.clone(), GroupBy::Stack).key, one.key);
        other[2] = frame("other_main", "/usr/bin/server");
        assert_ne!(named(other.clone(), GroupBy::Stack).key, one.key);
        assert_eq!(
            named(other, GroupBy::Function).key,
            named(frames, GroupBy::Function).key
        );
        assert_eq!(&*named(Vec::new(), GroupBy::Stack).label, "(no stack)");
    }

    #[test]
    fn names_are_bounded() {
        let long = "é".repeat(100_000);
        let frames = vec![frame(&long, &format!("/{long}")); 50];
        let named = named(frames, GroupBy::Stack);
        assert!(named.module.len() <= MODULE_BYTES);
        assert!(named.key.len() <= KEY_BYTES && named.haystack.len() <= 2 * HAYSTACK_BYTES);
        assert!(file_name("/a/é").ends_with('é') && file_name("").is_empty());
    }

    #[test]
    fn each_stack_is_named_once_and_one_at_least_each_time() {
        let mut naming = Naming::new(GroupBy::Stack);
        let stack = Stack {
            frames: vec![Frame::Anonymous { address: 0x1000 }],
            ending: crate::unwind::Ending::Root,
        };
        let stacks = [(StackId(1), &stack), (StackId(2), &stack), (StackId(3), &stack)];
        let modules = Modules::default();
        assert!(!naming.name(&modules, stacks.into_iter(), Duration::ZERO));
        assert!(naming.known(StackId(1)).is_some() && naming.known(StackId(2)).is_none());
        assert!(naming.name(&modules, stacks.into_iter(), Duration::from_secs(5)));
        assert_eq!(&*naming.known(StackId(3)).unwrap().label, "0x1000");
        assert!(unnamed(&modules, &stack, GroupBy::Stack).pending);
    }
}
