//! The compiled object that travels inside the executable, and whether it is ours.

use std::borrow::Cow;

use object::{Architecture, Object as _, ObjectSection as _, ObjectSymbol as _};

use super::{ATTACH_POINTS, ProbeError, allocs, faults};

static EMBEDDED: &[u8] = aya::include_bytes_aligned!("../../bpf/leakwatch.bpf.o");

/// The object's bytes, after a look at whether they can be what they should. An empty or foreign file in its place
/// would otherwise end in a message of the ELF parser or of the verifier.
///
/// `LEAKWATCH_BPF_OBJECT` names another file, for work on the programs themselves.
pub(super) fn checked() -> Result<Cow<'static, [u8]>, ProbeError> {
    let bytes = match std::env::var_os("LEAKWATCH_BPF_OBJECT") {
        Some(path) => Cow::Owned(std::fs::read(&path).map_err(|error| {
            ProbeError::Object(format!("cannot read {}: {error}", path.to_string_lossy()))
        })?),
        None => Cow::Borrowed(EMBEDDED),
    };
    check(&bytes).map_err(ProbeError::Object)?;
    Ok(bytes)
}

fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    let file = object::File::parse(bytes).map_err(|error| format!("it is no ELF object ({error})"))?;
    if file.architecture() != Architecture::Bpf {
        return Err(format!("it is for {:?}, not for BPF", file.architecture()));
    }
    for section in ["license", ".BTF", ".rodata", "maps"] {
        if !file
            .sections()
            .any(|found| found.name().is_ok_and(|name| name == section))
        {
            return Err(format!("it has no section {section}"));
        }
    }
    let tracepoints = ATTACH_POINTS.iter().map(|point| point.program);
    let others = [faults::PROGRAM, faults::TRACEPOINT.program];
    for program in tracepoints.chain(others).chain(allocs::PROGRAMS) {
        if !file
            .symbols()
            .any(|symbol| symbol.name().is_ok_and(|name| name == program))
        {
            return Err(format!("it has no program {program}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_is_ours() {
        check(EMBEDDED).expect("committed object");
    }

    #[test]
    fn empty_foreign_and_cut_objects_are_refused() {
        assert_eq!(check(&[]), Err("it is empty".to_owned()));
        assert!(check(b"not an object").is_err_and(|text| text.contains("no ELF object")));
        let own = std::fs::read("/proc/self/exe").expect("own executable");
        assert!(check(&own).is_err_and(|text| text.contains("not for BPF")));
        assert!(check(&EMBEDDED[..EMBEDDED.len() / 2]).is_err());
    }
}
