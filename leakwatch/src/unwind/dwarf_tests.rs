//! Stacks through code whose frames neither stack nor frame pointer tells: live ones, and hand-made ones.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gimli::{Register, UnwindContext};
use leakwatch_ebpf::wire::flags;

use super::dwarf::Dwarf;
use super::elf::{Section, UnwindSections};
use super::live_tests::{
    SLEEP, Target, assert_in_order, compiled_from, functions, named, sleeping_stacks, time,
};
use super::registers::{Aarch64, General, Host, Machine, X86_64};
use super::vet::vet;
use super::walk::{Code, FRAMES_MAX, Walked, walk};
use super::*;
use crate::symbolize::Symbolizer;

/// One thread, asleep within `realigned`, which finds its frame by what `r10` was when it was entered.
const REALIGNED: &str = r#"
#include <alloca.h>
#include <time.h>
volatile int depth;
__attribute__((noinline)) int nap(char *p) {
    struct timespec t = {1000, 0};
    p[0] = 1;
    return nanosleep(&t, 0) + depth;
}
__attribute__((noinline)) int realigned(int n, ...) {
    __attribute__((aligned(64))) volatile char room[128];
    char *more = alloca(n);
    room[n] = 1;
    return nap(more) + room[n];
}
__attribute__((noinline)) int caller(int n) {
    volatile long room[40];
    room[n] = n;
    return realigned(n + 1) + (int)room[n];
}
int main(void) { return caller(9) + depth; }
"#;

#[test]
fn a_realigned_stack() {
    let directory = tempfile::tempdir().unwrap();
    for (name, arguments) in [("plain", &[][..]), ("framed", &["-fno-omit-frame-pointer"])] {
        let program = compiled_from(REALIGNED, directory.path(), name, arguments);
        if cfg!(target_arch = "x86_64") {
            let image = elf::read(&fs::read(&program).unwrap()[..], Host::ELF).unwrap();
            assert!(!image.unwind.unwrap().vetted.intricate.is_empty());
        }
        let target = Target::spawn(&mut Command::new(&program));
        let (unwinder, ids) = sleeping_stacks(&target, 1, &SLEEP);
        let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
        let names = functions(&frames);
        let start = names.iter().position(|it| *it == "nap").unwrap();
        assert_eq!(
            names[start..start + 4],
            ["nap", "realigned", "caller", "main"],
            "{names:?}"
        );
    }
}

/// Run with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn time_per_doubtful_stack() {
    let directory = tempfile::tempdir().unwrap();
    time(
        &compiled_from(REALIGNED, directory.path(), "realigned", &[]),
        1,
        100_000,
    );
}

/// A trap in the very first instruction of `trapped`: what lies one byte before it is another function's.
const HANDLER: &str = r#"
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <time.h>
volatile int depth;
static void handler(int number) { struct timespec t = {1000, 0}; depth = nanosleep(&t, 0); }
__attribute__((naked, noinline)) void trapped(void) {
#ifdef __x86_64__
    __asm__("ud2");
#else
    __asm__("udf #0");
#endif
}
__attribute__((noinline)) int caller(int n) { volatile long room[40]; room[n] = n; trapped(); return (int)room[n]; }
int main(int count, char **arguments) {
    struct sigaction action = {.sa_handler = handler};
    if (count > 1) {
        stack_t other = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
        sigaltstack(&other, 0);
        action.sa_flags = SA_ONSTACK;
    }
    sigaction(SIGILL, &action, 0);
    return caller(9) + depth;
}
"#;

#[test]
#[cfg(target_arch = "x86_64")]
fn through_a_signal_handler() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_from(HANDLER, directory.path(), "handler", &[]);
    let target = Target::spawn(&mut Command::new(&program));
    let (unwinder, ids) = sleeping_stacks(&target, 1, &SLEEP);
    let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
    let names = functions(&frames);
    assert_in_order(&names, &["handler", "trapped", "caller", "main", "_start"]);
    drop(target);

    // The handler's own stack holds what was interrupted, and not the stack of that.
    let target = Target::spawn(Command::new(&program).arg("aside"));
    let (unwinder, ids) = sleeping_stacks(&target, 1, &SLEEP);
    let stack = unwinder.stack(ids[0]).unwrap();
    assert_eq!(stack.ending, Ending::Truncated(Truncation::SnapshotUnreadable));
    let frames = Symbolizer::new().symbolize(unwinder.modules(), stack);
    assert_eq!(functions(&frames).last(), Some(&"trapped"), "{frames:#?}");
}

/// The loader resolves a call of an indirect function by calling `pick`, which sleeps.
const PICKED: &str = r#"
#include <time.h>
static int real(int n) { return n; }
__attribute__((noinline)) static void nap(void) { struct timespec t = {1000, 0}; nanosleep(&t, 0); }
static int (*pick(void))(int) { nap(); return real; }
int picked(int) __attribute__((ifunc("pick")));
"#;
const PICKS: &str = r"
int picked(int);
volatile int depth;
__attribute__((noinline)) int caller(int n) { volatile long room[40]; room[n] = n; return picked(n) + (int)room[n]; }
int main(void) { return caller(9) + depth; }
";

fn lazily_bound(directory: &Path, name: &str, arguments: &[&str]) -> std::path::PathBuf {
    let library = compiled_from(PICKED, directory, "libpicked.so", &["-shared", "-fPIC"]);
    let rpath = format!("-Wl,-rpath,{}", directory.display());
    let mut all = vec![library.to_str().unwrap(), &rpath, "-Wl,-z,lazy"];
    all.extend(arguments);
    compiled_from(PICKS, directory, name, &all)
}

#[test]
#[cfg(target_arch = "x86_64")]
fn within_the_resolver_of_lazy_calls() {
    let directory = tempfile::tempdir().unwrap();
    // With frame pointers the resolver's own frame is left by its caller's frame pointer, unless it is looked into.
    for (name, arguments) in [("plain", &[][..]), ("framed", &["-fno-omit-frame-pointer"])] {
        let program = lazily_bound(directory.path(), name, arguments);
        let target = Target::spawn(&mut Command::new(&program));
        let (unwinder, ids) = sleeping_stacks(&target, 1, &SLEEP);
        let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
        assert_in_order(&functions(&frames), &["pick", "caller", "main", "_start"]);
        assert!(
            frames
                .iter()
                .any(|it| it.module.as_deref().is_some_and(|it| it.contains("ld-linux"))),
            "{frames:#?}"
        );
        assert_eq!(unwinder.losses().panics, 0);
    }
}

const STACK: u64 = 0x7fff_0000;

/// A file with one CIE, whose instructions are `common`, and entries of 0x100 bytes of code each: where it starts, and
/// its instructions.
fn sections<M: Machine>(common: &[u8], entries: &[(u64, &[u8])]) -> UnwindSections {
    let mut bytes = Vec::new();
    let mut put = |content: &[u8]| {
        bytes.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        bytes.extend(content);
        bytes.len()
    };
    // id 0, version 1, "zR", code 1, data -8, return register, augmentation 1 byte: absptr.
    let link = u8::try_from(M::FOLLOWED.return_address.0).unwrap();
    let mut end = put(&[&[0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, link, 1, 0][..], common].concat());
    for (start, instructions) in entries {
        let back = u32::try_from(end + 4).unwrap().to_le_bytes();
        end = put(&[
            &back[..],
            &start.to_le_bytes(),
            &0x100_u64.to_le_bytes(),
            &[0],
            instructions,
        ]
        .concat());
    }
    bytes.extend([0; 4]);
    let mut sections = UnwindSections {
        eh_frame: Some(Section {
            addresses: 0x2000..0x2000 + bytes.len() as u64,
            bytes: bytes.into(),
        }),
        ..UnwindSections::default()
    };
    sections.vetted = vet(&sections, M::FOLLOWED, &mut Vec::new()).unwrap();
    sections
}

/// Walks by the full rules; file addresses are code addresses, and code is what lies below 1 MiB.
fn walked<M: Machine>(
    sections: &UnwindSections,
    pc: u64,
    registers: &[(Register, u64)],
    words: &[u64],
    flags: u16,
) -> (Vec<u64>, Ending) {
    let mut general = General::default();
    general.set(M::FOLLOWED.stack_pointer, Some(STACK));
    for (register, value) in registers {
        general.set(*register, Some(*value));
    }
    let stack: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let snapshot = Snapshot {
        registers: &[],
        stack_pointer: STACK,
        stack: &stack,
        flags,
    };
    let code = |address| {
        if address < 1 << 20 {
            Code::Known
        } else {
            Code::NotCode
        }
    };
    let mut context = UnwindContext::new();
    let mut frames = Vec::new();
    let way = Dwarf::<M, _>::new(
        &mut context,
        |address| Some((sections, address)),
        general,
        1 << 20,
    );
    let Walked { ending, .. } = walk(
        way,
        &snapshot,
        pc,
        code,
        |_| false,
        |_| false,
        |it| frames.push(it),
    );
    (frames, ending)
}

// DW_CFA_def_cfa, DW_CFA_offset of the return address at cfa-8.
const X86_CIE: [u8; 5] = [0x0c, 7, 8, 0x90, 1];
// DW_CFA_undefined of the return address.
const X86_ROOT: [u8; 2] = [0x07, 16];

#[test]
fn a_register_is_followed_through_the_callee_that_saved_it() {
    let sections = sections::<X86_64>(
        &X86_CIE,
        &[
            // push %rbx: def_cfa_offset 16, rbx at cfa-16.
            (0x1000, &[0x0e, 16, 0x83, 2]),
            // The resolver's: def_cfa rbx 24.
            (0x1100, &[0x0c, 3, 24]),
            (0x1200, &X86_ROOT),
        ],
    );
    //            rbx         return  …   rbx->             return
    let words = [STACK + 32, 0x1150, 0, 0, 0x1111, 0x2222, 0x1250, 0];
    let (frames, ending) = walked::<X86_64>(&sections, 0x1050, &[(gimli::X86_64::RBX, 7)], &words, 0);
    assert_eq!(frames, [0x1050, 0x114f, 0x124f]);
    assert_eq!(ending, Ending::Root);

    // A register that no callee gives back is not known any more: r10 after a call.
    let by_r10 = self::sections::<X86_64>(
        &X86_CIE,
        &[(0x1000, &[]), (0x1100, &[0x0c, 10, 24]), (0x1200, &X86_ROOT)],
    );
    let words = [0x1150, 0, 0x1111, 0x2222, 0x1250, 0];
    let r10 = [(gimli::X86_64::R10, STACK + 16)];
    let (frames, ending) = walked::<X86_64>(&by_r10, 0x1050, &r10, &words, 0);
    assert_eq!(frames, [0x1050, 0x114f]);
    assert_eq!(ending, Ending::Truncated(Truncation::NoUnwindInformation));
    // In the innermost frame it is.
    let (frames, ending) = walked::<X86_64>(&by_r10, 0x1150, &r10, &words, 0);
    assert_eq!(frames, [0x1150, 0x124f]);
    assert_eq!(ending, Ending::Root);
}

#[test]
fn memory_outside_the_snapshot_says_how_it_is_missing() {
    // def_cfa_expression: breg6 0, deref.
    let sections = sections::<X86_64>(
        &X86_CIE,
        &[(0x1000, &[0x0f, 3, 0x76, 0, 0x06]), (0x1200, &X86_ROOT)],
    );
    let words = [0x1111, STACK + 32, 0, 0x1250, 0];
    let at =
        |frame, flags| walked::<X86_64>(&sections, 0x1050, &[(gimli::X86_64::RBP, frame)], &words, flags);
    assert_eq!(at(STACK + 8, 0), (vec![0x1050, 0x124f], Ending::Root));
    for (bits, reason) in [
        (flags::STACK_CAPPED, Truncation::SnapshotCapped),
        (flags::STACK_UNREADABLE, Truncation::SnapshotUnreadable),
        (flags::STACK_WHOLE, Truncation::NoUnwindInformation),
    ] {
        let cut = (vec![0x1050], Ending::Truncated(reason));
        assert_eq!(at(STACK + 40, bits), cut);
    }
    // A register that leads elsewhere is no short snapshot.
    let lost = (vec![0x1050], Ending::Truncated(Truncation::NoUnwindInformation));
    assert_eq!(at(0x10, flags::STACK_CAPPED), lost);
}

#[test]
fn aarch64_follows_saved_registers_and_strips_signatures() {
    // def_cfa sp 0
    let sections = sections::<Aarch64>(
        &[0x0c, 31, 0],
        &[
            // A leaf that saved x19: def_cfa_offset 16, x19 at cfa-16; the return address is in x30.
            (0x1000, &[0x0e, 16, 0x80 | 19, 2]),
            // negate_ra_state; def_cfa x19 32, x30 at cfa-8, x29 at cfa-16.
            (0x1100, &[0x2d, 0x0c, 19, 32, 0x80 | 30, 1, 0x80 | 29, 2]),
            // undefined x30
            (0x1200, &[0x07, 30]),
        ],
    );
    //            x19          …       x19->            x29  x30, signed
    let words = [STACK + 24, 0, 0x33, 0x1111, 0x2222, 0, 0x00b5_0000_0000_1250, 0];
    let link = [(gimli::AArch64::X30, 0x1150)];
    let (frames, ending) = walked::<Aarch64>(&sections, 0x1050, &link, &words, 0);
    assert_eq!(frames, [0x1050, 0x114f, 0x124f]);
    assert_eq!(ending, Ending::Root);
}

#[test]
fn code_without_an_entry_goes_by_the_frame_pointer() {
    let sections = sections::<X86_64>(&X86_CIE, &[(0x1000, &[0x0c, 3, 24]), (0x1200, &X86_ROOT)]);
    //           rbx->           return  rbp->        return
    let words = [0, 0x1111, 0x9051, STACK + 999, 0x1250, 0];
    let registers = [(gimli::X86_64::RBX, STACK), (gimli::X86_64::RBP, STACK + 24)];
    let (frames, ending) = walked::<X86_64>(&sections, 0x1050, &registers, &words, 0);
    assert_eq!(frames, [0x1050, 0x9050, 0x124f]);
    assert_eq!(ending, Ending::Root);
}

#[test]
fn damaged_rules_end() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled_from(REALIGNED, directory.path(), "victim", &[]);
    let image = elf::read(&fs::read(program).unwrap()[..], Host::ELF).unwrap();
    let whole = image.unwind.unwrap();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let (mut ended, mut panicked) = (0, 0);
    for _ in 0..4000 {
        let mut sections = whole.clone();
        let section = sections.eh_frame.as_mut().unwrap();
        let mut bytes = section.bytes.to_vec();
        for _ in 0..random(6) {
            let at = usize::try_from(random(bytes.len() as u64)).unwrap();
            bytes[at] = random(256).to_le_bytes()[0];
        }
        section.bytes = Arc::from(bytes);
        let words: Vec<u64> = (0..512)
            .map(|_| [STACK + random(512) * 8, 0x1000 + random(0x400)][usize::from(random(2) == 0)])
            .collect();
        let registers: Vec<_> = (0..17_u16)
            .map(|register| (Register(register), STACK + random(512) * 8))
            .collect();
        let pc = 0x1000 + random(0x400);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            walked::<Host>(&sections, pc, &registers, &words, 0)
        }));
        match outcome {
            Ok((frames, _)) => {
                assert!(frames.len() <= FRAMES_MAX);
                ended += usize::from(frames.len() > 1);
            }
            Err(_) => panicked += 1,
        }
    }
    // Sums over hostile numbers may overflow in gimli, which the unwinder catches.
    assert!(ended > 1000 && panicked < 100, "{ended} {panicked}");
}
