//! Names of real programs, and of files made to deceive.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::diagnose::culprit::{culprit, frame_label};
use crate::sampler::maps::Mapping;
use crate::unwind::live_tests::{SLEEP, Target, compiled, functions, named, sleeping_stacks};
use crate::unwind::{Ending, Unwinder};

const CPP: &str = r#"
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>
struct Store {
    std::vector<std::string> kept;
    __attribute__((noinline)) void keep(const std::string &text) {
        kept.push_back(text);
        sleep(1000);
        kept.pop_back();
    }
};
template <class T> __attribute__((noinline)) long handle(T number) {
    Store store;
    store.keep(std::string(100, 'x'));
    return long(number) + long(store.kept.size());
}
int main() { std::thread([] { handle<long>(3); }).join(); }
"#;

const RUST: &str = r#"
use std::collections::HashMap;
#[inline(never)]
fn remember(map: &mut HashMap<u64, Vec<u8>>, key: u64) {
    map.insert(key, vec![1; 100]);
    std::thread::sleep(std::time::Duration::from_secs(1000));
    map.remove(&key);
}
#[inline(never)]
fn serve() {
    let mut map = HashMap::new();
    remember(&mut map, 3);
    println!("{}", map.len());
}
fn main() {
    std::thread::spawn(|| serve()).join().unwrap();
}
"#;

fn built(directory: &Path, source: &str, text: &str, compiler: &[&str]) -> PathBuf {
    let source = directory.join(source);
    fs::write(&source, text).unwrap();
    let program = source.with_extension("");
    let run = |arguments: &[&str]| {
        assert!(
            Command::new(arguments[0])
                .args(&arguments[1..])
                .current_dir(directory)
                .status()
                .unwrap()
                .success()
        );
    };
    run(&[
        compiler,
        &["-o", program.to_str().unwrap(), source.to_str().unwrap()],
    ]
    .concat());
    program
}

/// Moves the debug information to `NAME.debug`, linked by name and build ID.
fn split(program: &Path) -> PathBuf {
    let debug = program.with_extension("debug");
    let link = format!("--add-gnu-debuglink={}", debug.display());
    let [program, debug_name] = [program, &debug].map(|path| path.to_str().unwrap());
    for arguments in [
        &["objcopy", "--only-keep-debug", program, debug_name][..],
        &["strip", program],
        &["objcopy", &link, program],
    ] {
        assert!(
            Command::new(arguments[0])
                .args(&arguments[1..])
                .status()
                .unwrap()
                .success()
        );
    }
    debug
}

#[test]
fn cpp_with_its_debug_file_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let program = built(
        directory.path(),
        "server.cc",
        CPP,
        &["c++", "-O2", "-g", "-pthread"],
    );
    let debug = split(&program);
    let target = Target::spawn(&mut Command::new(&program));
    let (unwinder, ids) = sleeping_stacks(&target, 1, &SLEEP);
    let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
    let keep = &frames[culprit(&frames).unwrap()];
    assert!(
        frame_label(keep).starts_with("Store::keep("),
        "{:?}",
        functions(&frames)
    );
    assert!(keep.file.as_deref().unwrap().ends_with("server.cc"));
    assert_eq!(keep.line, Some(10));
    assert!(
        functions(&frames).contains(&"handle<long>(long)"),
        "{:?}",
        functions(&frames)
    );
    assert_eq!(keep.module.as_deref(), program.to_str());

    // A FIFO of that name would never open, and another program's debug file would give wrong names.
    fs::remove_file(&debug).unwrap();
    assert!(Command::new("mkfifo").arg(&debug).status().unwrap().success());
    let unnamed = |unwinder: &Unwinder| {
        let frames = named(unwinder, &mut Symbolizer::new(), ids[0]);
        frames
            .iter()
            .filter(|it| it.module.as_deref() == program.to_str())
            .all(|it| it.function.is_none())
    };
    assert!(unnamed(&unwinder));
    fs::remove_file(&debug).unwrap();
    fs::create_dir(directory.path().join("other")).unwrap();
    let other = built(
        &directory.path().join("other"),
        "server.cc",
        &CPP.replace("100", "101"),
        &["c++", "-O2", "-g", "-pthread"],
    );
    fs::copy(other, &debug).unwrap();
    assert!(unnamed(&unwinder));
}

#[test]
fn rust_without_hashes() {
    let directory = tempfile::tempdir().unwrap();
    let program = built(directory.path(), "service.rs", RUST, &["rustc", "-O", "-g"]);
    let target = Target::spawn(&mut Command::new(&program));
    let (unwinder, ids) = sleeping_stacks(&target, 1, &SLEEP);
    let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
    assert_eq!(
        frame_label(&frames[culprit(&frames).unwrap()]),
        "service::remember",
        "{:?}",
        functions(&frames)
    );
    assert!(
        functions(&frames).contains(&"service::serve"),
        "{:?}",
        functions(&frames)
    );
}

#[test]
fn functions_of_a_stripped_program_by_their_start() {
    use object::{Object as _, ObjectSymbol as _};
    let directory = tempfile::tempdir().unwrap();
    let program = compiled(directory.path(), "sleepers", &[]);
    let whole = fs::read(&program).unwrap();
    let file = object::File::parse(&whole[..]).unwrap();
    let start = |name: &str| file.symbol_by_name(name).unwrap().address();
    assert!(Command::new("strip").arg(&program).status().unwrap().success());
    let target = Target::spawn(&mut Command::new(&program));
    let (unwinder, ids) = sleeping_stacks(&target, 4, &SLEEP);
    let frames = named(&unwinder, &mut Symbolizer::new(), ids[0]);
    let own: Vec<_> = frames
        .iter()
        .filter(|it| it.module.as_deref() == program.to_str())
        .collect();
    let starts: Vec<_> = own.iter().filter_map(|it| it.function_start).collect();
    assert_eq!(
        starts,
        ["deepest", "middle", "outermost", "worker"].map(start),
        "{own:#x?}"
    );
    assert!(
        own.iter()
            .all(|it| it.function.is_none() && it.offset > it.place())
    );
    assert_eq!(frame_label(own[0]), format!("sleepers+{:#x}", start("deepest")));
    // libc's have names.
    assert!(
        frames
            .iter()
            .all(|it| it.function.is_none() || it.function_start.is_none())
    );
}

/// An unwinder that knows this file as a module, and the module's number; the file is not running anywhere.
fn adopt(path: &Path) -> (Unwinder, ModuleId) {
    let metadata = fs::metadata(path).unwrap();
    let mapping = Mapping {
        range: 0x1000..0x2000,
        readable: true,
        writable: false,
        executable: true,
        shared: false,
        offset: 0x1000,
        device: (libc::major(metadata.dev()), libc::minor(metadata.dev())),
        inode: metadata.ino(),
        path: Some(path.into()),
    };
    let mut unwinder = Unwinder::new();
    unwinder.refresh(std::process::id(), &[mapping]);
    let id = unwinder.modules().iter().next().unwrap().0;
    (unwinder, id)
}

fn at(module: ModuleId, offset: u64) -> Stack {
    Stack {
        frames: vec![Frame::Module { module, offset }],
        ending: Ending::Root,
    }
}

#[test]
fn a_file_that_shrank_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let program = built(
        directory.path(),
        "tiny.c",
        "int main(void) { return 0; }",
        &["cc", "-g"],
    );
    let (unwinder, id) = adopt(&program);
    let mut symbolizer = Symbolizer::new();
    fs::OpenOptions::new()
        .write(true)
        .open(&program)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let frames = symbolizer.symbolize(unwinder.modules(), &at(id, 0x1130));
    assert_eq!(frames[0].function, None);
    // Its unwind information was read before.
    let start = frames[0].function_start.unwrap();
    assert!((0x1000..=0x1130).contains(&start), "{start:#x}");
    assert_eq!(frame_label(&frames[0]), format!("tiny+{start:#x}"));
    assert_eq!(symbolizer.unnamed().get(&Unnamed::FileChanged), Some(&1));
    let anonymous = Stack {
        frames: vec![Frame::Anonymous { address: 0x7777 }],
        ending: Ending::Root,
    };
    assert_eq!(
        frame_label(&symbolizer.symbolize(unwinder.modules(), &anonymous)[0]),
        "0x7777"
    );
}

#[test]
fn damaged_debug_information_takes_nothing_down() {
    let directory = tempfile::tempdir().unwrap();
    let program = built(
        directory.path(),
        "victim.c",
        "static int f(int x) { return x * 2; }\nint main(int c, char **v) { return f(c) + !v; }",
        &["cc", "-g", "-O1"],
    );
    let whole = fs::read(&program).unwrap();
    // Behind the loaded segments: debug sections, symbols, section headers.
    let debug = 0x3000;
    assert!(whole.len() > debug + 0x400);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let (mut named, mut unnamed) = (0, 0);
    for round in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random(20) {
            let place = debug + random(bytes.len() - debug);
            bytes[place] = if random(2) == 0 {
                0xff
            } else {
                bytes[place] ^ (1 << random(8))
            };
        }
        let copy = directory.path().join(format!("copy{round}"));
        fs::write(&copy, bytes).unwrap();
        let (unwinder, id) = adopt(&copy);
        let mut symbolizer = Symbolizer::new();
        for offset in (0x1000..0x1200).step_by(16) {
            for frame in symbolizer.symbolize(unwinder.modules(), &at(id, offset)) {
                match frame.function {
                    Some(name) => {
                        named += 1;
                        assert!(name.len() <= names::NAME_BYTES_MAX + 3);
                    }
                    None => unnamed += 1,
                }
            }
        }
        fs::remove_file(copy).unwrap();
    }
    assert!(named > 100 && unnamed > 100, "{named} {unnamed}");
}
