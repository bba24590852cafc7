//! What a profile says once and refers to by number: strings, files, functions and places.

use std::collections::HashMap;

use super::profile::{Function, Label, Line, Location, Mapping, ValueType};
use crate::report::escape::escape;
use crate::report::model::SharedFrame;
use crate::report::stacks::{self, frame_name};

/// They grow as samples are added.
pub struct Tables {
    pub strings: Vec<String>,
    string_ids: HashMap<String, i64>,
    pub mappings: Vec<Mapping>,
    /// By name and build ID.
    mapping_ids: HashMap<(i64, i64), u64>,
    pub functions: Vec<Function>,
    /// By name and file.
    function_ids: HashMap<(i64, i64), u64>,
    pub locations: Vec<Location>,
    /// By mapping, address and lines.
    location_ids: HashMap<(u64, u64, Vec<Line>), u64>,
}

impl Tables {
    pub fn new(exe: Option<&str>) -> Self {
        let mut tables = Self {
            strings: vec![String::new()],
            string_ids: [(String::new(), 0)].into(),
            mappings: Vec::new(),
            mapping_ids: HashMap::new(),
            functions: Vec::new(),
            function_ids: HashMap::new(),
            locations: Vec::new(),
            location_ids: HashMap::new(),
        };
        if let Some(exe) = exe {
            // The first mapping is the program. Its build ID comes with its first frame.
            tables.mapping(exe, None);
        }
        tables
    }

    /// Inert: readers print it to terminals.
    pub fn string(&mut self, text: &str) -> i64 {
        let text = escape(text);
        if let Some(id) = self.string_ids.get(&text) {
            return *id;
        }
        let id = i64::try_from(self.strings.len()).unwrap_or(0);
        self.strings.push(text.clone());
        self.string_ids.insert(text, id);
        id
    }

    pub fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType {
            r#type: self.string(name),
            unit: self.string(unit),
        }
    }

    /// The places of a stack, innermost first.
    pub fn stack(&mut self, frames: &[SharedFrame]) -> Vec<u64> {
        if frames.is_empty() {
            let function_id = self.function(stacks::NO_STACK, None);
            return vec![self.place(0, 0, vec![Line { function_id, line: 0 }])];
        }
        // What was inlined, and the frame that it was inlined into, are one location.
        frames
            .split_inclusive(|frame| !frame.inlined)
            .map(|physical| self.location(physical))
            .collect()
    }

    pub fn label(&mut self, key: &str, text: &str) -> Label {
        Label {
            key: self.string(key),
            str: self.string(text),
        }
    }

    fn location(&mut self, physical: &[SharedFrame]) -> u64 {
        // The last is the function that is there; all have its address.
        let Some(outer) = physical.last() else { return 0 };
        let mapping = outer
            .module
            .as_deref()
            .map_or(0, |module| self.mapping(module, outer.build_id.as_deref()));
        let address = outer.offset.or(outer.address).unwrap_or_default().0;
        let lines = physical
            .iter()
            .map(|frame| Line {
                function_id: self.function(&frame_name(frame), frame.file.as_deref()),
                line: frame.line.map_or(0, i64::from),
            })
            .collect();
        if let Some(mapping) = self.at(mapping) {
            mapping.has_filenames |= physical.iter().any(|frame| frame.file.is_some());
            mapping.has_line_numbers |= physical.iter().any(|frame| frame.line.is_some());
            mapping.has_inline_frames |= physical.len() > 1;
        }
        self.place(mapping, address, lines)
    }

    fn place(&mut self, mapping_id: u64, address: u64, line: Vec<Line>) -> u64 {
        let next = self.locations.len() as u64 + 1;
        let id = *self
            .location_ids
            .entry((mapping_id, address, line.clone()))
            .or_insert(next);
        if id == next {
            self.locations.push(Location {
                id,
                mapping_id,
                address,
                line,
            });
        }
        id
    }

    fn function(&mut self, name: &str, file: Option<&str>) -> u64 {
        let key = (self.string(name), file.map_or(0, |file| self.string(file)));
        let next = self.functions.len() as u64 + 1;
        let id = *self.function_ids.entry(key).or_insert(next);
        if id == next {
            self.functions.push(Function {
                id,
                name: key.0,
                system_name: 0,
                filename: key.1,
            });
        }
        id
    }

    /// A recording has addresses as the ELF file counts them, wherever it was loaded. A mapping of everything from 0 says
    /// so: pprof takes the addresses in it as adjusted already, and finds them in a local copy of the file.
    fn mapping(&mut self, module: &str, build_id: Option<&str>) -> u64 {
        let filename = self.string(module);
        let build_id = build_id.map_or(0, |id| self.string(id));
        if let Some(id) = self.mapping_ids.get(&(filename, build_id)) {
            return *id;
        }
        // The program itself, now with a build ID.
        if build_id != 0
            && let Some(id) = self.mapping_ids.remove(&(filename, 0))
        {
            if let Some(mapping) = self.at(id) {
                mapping.build_id = build_id;
            }
            self.mapping_ids.insert((filename, build_id), id);
            return id;
        }
        let id = self.mappings.len() as u64 + 1;
        self.mapping_ids.insert((filename, build_id), id);
        self.mappings.push(Mapping {
            id,
            memory_start: 0,
            memory_limit: u64::MAX,
            file_offset: 0,
            filename,
            build_id,
            // A name for each frame, if only where its function begins: a reader need not look for others.
            has_functions: true,
            has_filenames: false,
            has_line_numbers: false,
            has_inline_frames: false,
        });
        id
    }

    fn at(&mut self, mapping: u64) -> Option<&mut Mapping> {
        let index = usize::try_from(mapping.checked_sub(1)?).ok()?;
        self.mappings.get_mut(index)
    }
}
