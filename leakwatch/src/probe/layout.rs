//! Where the kernel keeps what the programs read: from BTF and from the tracepoints' `format` files, never assumed.

use std::path::Path;

use btf_rs::{Btf, Type};
use leakwatch_ebpf::wire::{ARGUMENTS, SYSCALLS, Settings, Syscall};

use super::{ProbeError, ProbeOptions, faults};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The settings in the form that the loader takes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Loaded(pub Settings);

// SAFETY: Settings is repr(C), made of u32 alone, without padding bytes (its size is asserted where it is defined).
unsafe impl aya::Pod for Loaded {}

/// The six arguments of each call, in the tracepoint's own names, shortest first; unused ones are not looked up.
const ENTER: [(Syscall, &str, &[&str]); SYSCALLS] = [
    (
        Syscall::Mmap,
        "mmap",
        &["addr", "len", "prot", "flags", "fd", "off"],
    ),
    (Syscall::Munmap, "munmap", &["addr", "len"]),
    (
        Syscall::Mremap,
        "mremap",
        &["addr", "old_len", "new_len", "flags", "new_addr"],
    ),
    (Syscall::Brk, "brk", &["brk"]),
    (Syscall::Mprotect, "mprotect", &["start", "len", "prot"]),
    (Syscall::Madvise, "madvise", &["start", "len_in", "behavior"]),
];

/// Fills the settings in for this kernel and this machine.
pub(super) fn settings(tracefs: &Path, options: &ProbeOptions) -> Result<Settings, ProbeError> {
    let mut settings = Settings {
        stack_bytes: options.stack_bytes,
        // A quarter: what then still fits is more than a timer's period brings at the highest rate measured.
        wake_bytes: options.ring_bytes / 4,
        page_shift: rustix::param::page_size().trailing_zeros(),
        ..machine()
    };
    let layout = Layout::read()?;
    let task = layout.structure("task_struct")?;
    settings.task_mm = task.offset(&["mm"])?;
    settings.task_tls = task.offset(TLS_BASE)?;
    settings.task_pid = task.offset(&["pid"])?;
    settings.task_tgid = task.offset(&["tgid"])?;
    let memory = layout.structure("mm_struct")?;
    settings.mm_brk = memory.offset(&["brk"])?;
    settings.mm_start_stack = memory.offset(&["start_stack"])?;

    for (syscall, name, arguments) in ENTER {
        let enter = Format::read(tracefs, "syscalls", &format!("sys_enter_{name}"))?;
        let exit = Format::read(tracefs, "syscalls", &format!("sys_exit_{name}"))?;
        let mut offsets = [0; ARGUMENTS];
        for (offset, argument) in offsets.iter_mut().zip(arguments) {
            *offset = enter.offset(argument)?;
        }
        if let Some(slot) = settings.enter.get_mut(syscall as usize) {
            *slot = offsets;
        }
        if let Some(slot) = settings.exit_return.get_mut(syscall as usize) {
            *slot = exit.offset("ret")?;
        }
    }
    settings.exit_group_dead = Format::read(tracefs, "sched", "sched_process_exit")?
        .offset("group_dead")
        .unwrap_or(0);
    // Not there on every architecture, and needed only in place of the page-fault event.
    let faults = faults::TRACEPOINT;
    settings.fault_address = Format::read(tracefs, faults.category, faults.name)
        .and_then(|format| format.offset("address"))
        .unwrap_or(0);
    Ok(settings)
}

/// What the system call ABI fixes: `struct pt_regs` as the kernel saves it.
#[cfg(target_arch = "x86_64")]
fn machine() -> Settings {
    Settings {
        registers_bytes: 168,
        stack_pointer_offset: 152,
        // rdi, rsi, rdx, r10, r8, r9: the kernel leaves them as they were.
        register_arguments: [112, 104, 96, 56, 72, 64],
        function_arguments: [112, 104, 96],
        function_result: 80,
        instruction_pointer_offset: 128,
        link_register_offset: leakwatch_ebpf::wire::RETURN_ON_STACK,
        ..Settings::ZERO
    }
}

#[cfg(target_arch = "x86_64")]
const TLS_BASE: &[&str] = &["thread", "fsbase"];

/// aarch64: `user_pt_regs` (x0 to x30, sp, pc, pstate) and then `orig_x0`, since x0 is overwritten by the result.
#[cfg(target_arch = "aarch64")]
fn machine() -> Settings {
    Settings {
        registers_bytes: 272,
        stack_pointer_offset: 248,
        register_arguments: [272, 8, 16, 24, 32, 40],
        function_arguments: [0, 8, 16],
        function_result: 0,
        instruction_pointer_offset: 256,
        link_register_offset: 240,
        ..Settings::ZERO
    }
}

#[cfg(target_arch = "aarch64")]
const TLS_BASE: &[&str] = &["thread", "uw", "tp_value"];

/// The kernel's own types.
struct Layout(Btf);

impl Layout {
    fn read() -> Result<Self, ProbeError> {
        Btf::from_file_with_backend(VMLINUX, btf_rs::Backend::Mmap)
            // Some kernels do not let sysfs files be mapped.
            .or_else(|_| Btf::from_file(VMLINUX))
            .map(Self)
            .map_err(|error| ProbeError::Btf {
                path: VMLINUX,
                reason: error.to_string(),
            })
    }

    /// The types of this name, which are looked for among all of the kernel's: a few milliseconds.
    fn structure(&self, name: &'static str) -> Result<Structure<'_>, ProbeError> {
        let found = self.0.resolve_types_by_name(name).ok();
        let types = found
            .filter(|types| !types.is_empty())
            .ok_or_else(|| unknown(name))?;
        Ok(Structure {
            layout: self,
            name,
            types,
        })
    }

    fn member(&self, within: &Type, path: &[&str], depth: u32) -> Option<u32> {
        let (Type::Struct(structure) | Type::Union(structure)) = within else {
            return None;
        };
        // Types nest a few levels; a file that says otherwise is no kernel's.
        if depth > 16 {
            return None;
        }
        let (first, rest) = path.split_first()?;
        for member in &structure.members {
            let at = member.bit_offset() / 8;
            let name = self.0.resolve_name(member).unwrap_or_default();
            let path_inside = if name == *first && rest.is_empty() {
                return Some(at);
            } else if name == *first {
                rest
            } else if name.is_empty() {
                path
            } else {
                continue;
            };
            let inner = self.0.resolve_chained_type(member).ok()?;
            if let Some(offset) = self.member(&inner, path_inside, depth + 1) {
                return Some(at + offset);
            }
        }
        None
    }
}

fn unknown(what: &str) -> ProbeError {
    ProbeError::Btf {
        path: VMLINUX,
        reason: format!("it does not describe {what}"),
    }
}

/// One of the kernel's structures.
struct Structure<'a> {
    layout: &'a Layout,
    name: &'static str,
    types: Vec<Type>,
}

impl Structure<'_> {
    /// Offset in bytes of a member, named by its path through nested structs; anonymous ones are looked through.
    fn offset(&self, path: &[&str]) -> Result<u32, ProbeError> {
        self.types
            .iter()
            .find_map(|found| self.layout.member(found, path, 0))
            .ok_or_else(|| unknown(&format!("{}.{}", self.name, path.join("."))))
    }
}

/// A tracepoint's `format` file. Some vendor kernels have extra fields before the arguments, so nothing is assumed.
struct Format {
    name: String,
    text: String,
}

impl Format {
    fn read(tracefs: &Path, category: &str, name: &str) -> Result<Self, ProbeError> {
        let path = tracefs.join("events").join(category).join(name).join("format");
        let text = std::fs::read_to_string(&path).map_err(|error| {
            ProbeError::Tracefs(super::tracefs::TracefsError::Unreadable {
                path: path.clone(),
                error,
            })
        })?;
        Ok(Self {
            name: format!("{category}:{name}"),
            text,
        })
    }

    /// Offset in bytes of a field.
    fn offset(&self, field: &'static str) -> Result<u32, ProbeError> {
        offset_in(&self.text, field).ok_or_else(|| ProbeError::Format {
            format: self.name.clone(),
            field,
        })
    }
}

/// Looks for `field:TYPE NAME;\toffset:N;` with this name (an array's has `[N]` behind it).
fn offset_in(format: &str, field: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let declaration = line.trim().strip_prefix("field:")?;
        let (declaration, rest) = declaration.split_once(';')?;
        let name = declaration.rsplit([' ', '*']).next()?;
        let name = name.split('[').next()?;
        if name != field {
            return None;
        }
        let (_, offset) = rest.split_once("offset:")?;
        offset.split(';').next()?.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MMAP: &str = "name: sys_enter_mmap
ID: 174
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;
\tfield:unsigned long addr;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned long len;\toffset:24;\tsize:8;\tsigned:0;

print fmt: \"addr: 0x%08lx\", ((unsigned long)(REC->addr))
";

    #[test]
    fn offsets_come_from_the_format() {
        assert_eq!(offset_in(MMAP, "addr"), Some(16));
        assert_eq!(offset_in(MMAP, "len"), Some(24));
        assert_eq!(offset_in(MMAP, "prot"), None);
        // A vendor kernel with a wider common header.
        let shifted = MMAP
            .replace("offset:16", "offset:24")
            .replace("unsigned long addr", "const char * addr");
        assert_eq!(offset_in(&shifted, "addr"), Some(24));
        let array = "\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;";
        assert_eq!(offset_in(array, "comm"), Some(8));
    }

    #[test]
    fn this_kernels_structures_are_found() {
        let Ok(layout) = Layout::read() else {
            eprintln!("no BTF here");
            return;
        };
        let task = layout.structure("task_struct").expect("task_struct");
        let mm = task.offset(&["mm"]).expect("mm");
        let tls = task.offset(TLS_BASE).expect("TLS base");
        let memory = layout.structure("mm_struct").expect("mm_struct");
        let brk = memory.offset(&["brk"]).expect("inside an anonymous struct");
        let start_brk = memory.offset(&["start_brk"]).expect("its neighbour");
        assert!(mm > 0 && tls > 0);
        assert_eq!(brk, start_brk + 8, "neighbours since Linux 2.6");
        let refused = memory
            .offset(&["no_such_member"])
            .expect_err("no member")
            .to_string();
        assert!(refused.contains("mm_struct.no_such_member"), "{refused}");
        assert!(layout.structure("no_such_structure").is_err());
    }
}
