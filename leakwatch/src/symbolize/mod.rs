//! From (module, offset) to names, when the report is made. The only stage that imports blazesym.

mod names;
mod sources;

#[cfg(test)]
mod live_tests;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized};

use crate::unwind::{Frame, Functions, ModuleId, Modules, Stack};
use sources::Source;

/// A frame with whatever is known of it. Strings come from untrusted files: they are escaped where they are shown,
/// not here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymbolizedFrame {
    /// ELF virtual address in the module, or the absolute address where there is no module.
    pub offset: u64,
    /// Path of the module as the target names it; `[vdso]` for the vDSO; `None` for anonymous code.
    pub module: Option<Arc<str>>,
    /// Build ID, lower-case hex.
    pub build_id: Option<Arc<str>>,
    /// Demangled; `None` where no symbol is known.
    pub function: Option<Arc<str>>,
    /// Where no symbol is known, the first address of the function, counted as `offset` is; `None` where the module's
    /// unwind information does not tell.
    pub function_start: Option<u64>,
    pub file: Option<Arc<str>>,
    pub line: Option<u32>,
    /// This frame was inlined into the next one (the same offset).
    pub inlined: bool,
}

impl SymbolizedFrame {
    /// The address that stands for a frame without a name: where its function begins, so that all calls in it are one;
    /// else the frame's own.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.function_start.unwrap_or(self.offset)
    }
}

/// Why a frame has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Unnamed {
    #[error("code outside every file")]
    NoModule,
    #[error("the module's file is not open")]
    NoFile,
    #[error("the module's file has changed since it was seen")]
    FileChanged,
    #[error("no symbol covers the address (stripped?)")]
    NoSymbol,
    #[error("the symbols could not be read")]
    Damaged,
}

/// Names that are remembered; further ones are looked up each time.
const CACHED_MAX: usize = 1 << 20;

/// Gives names to frames; remembers them. Not `Send`: create it where the report is made.
pub struct Symbolizer {
    blazesym: blazesym::symbolize::Symbolizer,
    sources: HashMap<ModuleId, Result<Vec<Source>, Unnamed>>,
    /// Of the modules with unnamed frames.
    functions: HashMap<ModuleId, Functions>,
    /// A physical frame's names, innermost inlined one first.
    cache: HashMap<(ModuleId, u64), Arc<[SymbolizedFrame]>>,
    unnamed: BTreeMap<Unnamed, u64>,
}

impl Default for Symbolizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbolizer {
    #[must_use]
    pub fn new() -> Self {
        Self {
            blazesym: blazesym(),
            sources: HashMap::new(),
            functions: HashMap::new(),
            cache: HashMap::new(),
            unnamed: BTreeMap::new(),
        }
    }

    /// The frames of a stack, innermost first; functions that were inlined stand before the one they were inlined
    /// into.
    pub fn symbolize(&mut self, modules: &Modules, stack: &Stack) -> Vec<SymbolizedFrame> {
        let mut frames = Vec::with_capacity(stack.frames.len());
        for frame in &stack.frames {
            match *frame {
                Frame::Module { module, offset } => {
                    frames.extend_from_slice(&self.names(modules, module, offset));
                }
                Frame::Anonymous { address } => {
                    *self.unnamed.entry(Unnamed::NoModule).or_default() += 1;
                    frames.push(SymbolizedFrame {
                        offset: address,
                        ..SymbolizedFrame::default()
                    });
                }
            }
        }
        frames
    }

    /// Distinct frames without a name, by reason (code outside every file: each time it was met).
    #[must_use]
    pub fn unnamed(&self) -> &BTreeMap<Unnamed, u64> {
        &self.unnamed
    }

    fn names(&mut self, modules: &Modules, id: ModuleId, offset: u64) -> Arc<[SymbolizedFrame]> {
        if let Some(known) = self.cache.get(&(id, offset)) {
            return known.clone();
        }
        let module = modules.get(id);
        let bare = SymbolizedFrame {
            offset,
            module: module.map(|it| it.path.clone()),
            build_id: module.and_then(|it| it.build_id.clone()),
            ..SymbolizedFrame::default()
        };
        let sources = self
            .sources
            .entry(id)
            .or_insert_with(|| module.map_or(Err(Unnamed::NoFile), sources::of_module));
        let named = match sources {
            Ok(sources) => ask(&mut self.blazesym, sources, offset, &bare),
            Err(reason) => Err(*reason),
        };
        let mut frames = named.unwrap_or_else(|reason| {
            *self.unnamed.entry(reason).or_default() += 1;
            vec![bare]
        });
        for unnamed in frames.iter_mut().filter(|frame| frame.function.is_none()) {
            let functions = self
                .functions
                .entry(id)
                .or_insert_with(|| module.map(Functions::of).unwrap_or_default());
            unnamed.function_start = functions.start_of(offset);
        }
        let frames: Arc<[SymbolizedFrame]> = frames.into();
        if self.cache.len() < CACHED_MAX {
            self.cache.insert((id, offset), frames.clone());
        }
        frames
    }
}

fn blazesym() -> blazesym::symbolize::Symbolizer {
    blazesym::symbolize::Symbolizer::builder()
        // The files are open and checked; their paths are those of descriptors.
        .enable_auto_reload(false)
        // Done here, within bounds.
        .enable_demangling(false)
        .build()
}

/// Asks one source after the other. One that cannot be read, or makes its reader panic, is not asked again.
fn ask(
    blazesym: &mut blazesym::symbolize::Symbolizer,
    sources: &mut Vec<Source>,
    offset: u64,
    bare: &SymbolizedFrame,
) -> Result<Vec<SymbolizedFrame>, Unnamed> {
    let mut reason = Unnamed::NoSymbol;
    let mut index = 0;
    while let Some(source) = sources.get(index) {
        if !source.unchanged() {
            reason = Unnamed::FileChanged;
            sources.remove(index);
            continue;
        }
        // Hostile debug information must not take the report down.
        let answer = catch_unwind(AssertUnwindSafe(|| {
            match blazesym.symbolize_single(&source.elf, Input::VirtOffset(offset)) {
                Ok(Symbolized::Sym(symbol)) => Ok(Some(frames(&symbol, bare))),
                Ok(Symbolized::Unknown(_)) => Ok(None),
                Err(_) => Err(()),
            }
        }));
        match answer {
            Ok(Ok(Some(frames))) => return Ok(frames),
            Ok(Ok(None)) => index += 1,
            Ok(Err(())) => {
                reason = Unnamed::Damaged;
                sources.remove(index);
            }
            Err(_) => {
                reason = Unnamed::Damaged;
                sources.remove(index);
                // Its caches may be half-made.
                *blazesym = self::blazesym();
            }
        }
    }
    Err(reason)
}

/// blazesym gives the function and then what was inlined, outermost first, each with the line that is executing in
/// it; a report reads the other way round.
fn frames(symbol: &Sym<'_>, bare: &SymbolizedFrame) -> Vec<SymbolizedFrame> {
    let with = |name: &str, code: Option<&CodeInfo<'_>>, inlined| SymbolizedFrame {
        function: Some(names::demangled(name)).filter(|name| !name.is_empty()),
        file: code.map(|code| names::bounded(&code.to_path().to_string_lossy())),
        line: code.and_then(|code| code.line),
        inlined,
        ..bare.clone()
    };
    let inlined = symbol
        .inlined
        .iter()
        .rev()
        .map(|it| with(&it.name, it.code_info.as_ref(), true));
    inlined
        .chain([with(&symbol.name, symbol.code_info.as_deref(), false)])
        .collect()
}
