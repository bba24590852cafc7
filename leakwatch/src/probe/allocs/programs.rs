//! The programs of the allocator's functions, loaded apart from the others: the kernel wants to know at loading how a
//! program is to be attached, and aya loads for perf events only.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::Object;

use super::super::bpf_call::{self, AttachType};
use super::super::{ProbeError, object};

/// The maps of the loaded object, by name: the programs that are loaded later share them.
pub(in crate::probe) struct Maps(Vec<(String, OwnedFd)>);

impl Maps {
    /// Descriptors of their own: aya's go elsewhere.
    pub fn of(ebpf: &Ebpf) -> Result<Self, ProbeError> {
        let mut maps = Vec::new();
        for (name, map) in ebpf.maps() {
            let Some(data) = data(map) else { continue };
            let descriptor = data
                .fd()
                .as_fd()
                .try_clone_to_owned()
                .map_err(|error| ProbeError::Map {
                    map: "ALLOC_CALLS",
                    reason: format!("cannot duplicate the descriptor of {name}: {error}"),
                })?;
            maps.push((name.to_owned(), descriptor));
        }
        Ok(Self(maps))
    }

    fn descriptor(&self, name: &str) -> Option<RawFd> {
        self.0
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, descriptor)| descriptor.as_raw_fd())
    }
}

/// Of the kinds that the object has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::PerCpuArray(data) | Map::HashMap(data) | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

/// Loads one program of the object.
pub(super) fn load(maps: &Maps, name: &'static str, attach_type: AttachType) -> Result<OwnedFd, ProbeError> {
    let bytes = object::checked()?;
    let broken = |what: String| ProbeError::Object(what);
    let mut object = Object::parse(&bytes).map_err(|error| broken(error.to_string()))?;
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let own: Vec<_> = object
        .maps
        .iter()
        .filter_map(|(name, map)| Some((name.clone(), maps.descriptor(name)?, map.clone())))
        .collect();
    object
        .relocate_maps(
            own.iter()
                .map(|(name, descriptor, map)| (name.as_str(), *descriptor, map)),
            &text,
        )
        .and_then(|()| object.relocate_calls(&text))
        .map_err(|error| broken(error.to_string()))?;
    let program = object
        .programs
        .get(name)
        .and_then(|program| object.functions.get(&program.function_key()))
        .ok_or_else(|| broken(format!("it has no program {name}")))?;
    let instructions = &program.instructions;
    // SAFETY: an instruction is eight bytes of plain integers without padding, and the slice is as long as the list.
    let bytes = unsafe {
        std::slice::from_raw_parts(
            instructions.as_ptr().cast::<u8>(),
            size_of_val(instructions.as_slice()),
        )
    };
    bpf_call::load(name, bytes, &object.license, attach_type).map_err(|(error, log)| {
        if error.kind() == std::io::ErrorKind::PermissionDenied && log.is_empty() {
            ProbeError::NotPermitted
        } else {
            ProbeError::Load(format!("{name}: {error}; {log}"))
        }
    })
}
