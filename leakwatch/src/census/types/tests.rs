//! Type information, true and forged, in a memory of the test's own.

use std::io;

use proptest::prelude::*;

use super::ranges::Ranges;
use super::*;
use crate::census::memory::fake::Pieces;

impl Memory for &Pieces {
    fn read(&self, address: u64, into: &mut [u8]) -> io::Result<usize> {
        (**self).read(address, into)
    }
}

const NAMES: u64 = 0x1_0000;
const CODE: u64 = 0x1_1000;
const DATA: u64 = 0x1_2000;
const CONSTANTS: u64 = 0x1_3000;
const VARIABLES: u64 = 0x1_4000;
const HEAP: u64 = 0x2_0000;

/// Where objects of `Session` point.
const SESSION: u64 = CONSTANTS + 0x410;
const SESSION_INFORMATION: u64 = CONSTANTS + 0x300;
const SESSION_NAME: u64 = NAMES + 0x200;
const KIND: u64 = CONSTANTS + 0x210;
const KIND_NAME: u64 = NAMES + 0x100;

fn mapping(start: u64, flags: &str, offset: u64, inode: u64) -> Mapping {
    let line = format!(
        "{start:x}-{:x} {flags} {offset:x} 00:01 {inode} /lib/a.so",
        start + 0x1000
    );
    crate::sampler::maps::parse_line(line.as_bytes()).unwrap()
}

fn mappings() -> Vec<Mapping> {
    vec![
        mapping(NAMES, "r--p", 0, 7),
        mapping(CODE, "r-xp", 0x1000, 7),
        mapping(DATA, "r--p", 0x2000, 7),
        mapping(CONSTANTS, "r--p", 0x3000, 7),
        mapping(VARIABLES, "rw-p", 0x4000, 7),
        mapping(HEAP, "rw-p", 0, 0),
    ]
}

fn put_text(memory: &mut Pieces, address: u64, text: &[u8]) {
    let mut bytes = text.to_vec();
    bytes.resize(text.len().next_multiple_of(8), 0);
    for (at, word) in (address..).step_by(8).zip(bytes.as_chunks::<8>().0) {
        memory.put(at, &[u64::from_ne_bytes(*word)]);
    }
}

/// `Session` with a base, as a compiler lays it out.
fn session() -> Pieces {
    let mut memory = Pieces::default();
    for start in [NAMES, CODE, DATA, CONSTANTS, VARIABLES, HEAP] {
        memory.add(start, 0x1000);
    }
    put_text(&mut memory, KIND_NAME, b"N10__cxxabiv120__si_class_type_infoE\0");
    memory.put(CONSTANTS + 0x100, &[KIND, KIND_NAME, 0]);
    memory.put(KIND - 16, &[0, CONSTANTS + 0x100, CODE]);
    put_text(&mut memory, SESSION_NAME, b"7Session\0");
    memory.put(SESSION_INFORMATION, &[KIND, SESSION_NAME, SESSION_INFORMATION]);
    memory.put(
        SESSION - 16,
        &[0, SESSION_INFORMATION, CODE + 0x100, CODE + 0x200],
    );
    memory
}

fn name_of(memory: &Pieces, address: u64) -> Option<TypeName> {
    TypeNames::new(memory, &mappings(), &ProcRoot::new("/nonexistent"), 1).name(address)
}

#[test]
fn a_class_is_named_by_its_information() {
    let told = name_of(&session(), SESSION).unwrap();
    assert_eq!(told.name, "Session");
    assert_eq!(told.told_by, ToldBy::Rtti);

    let mut local = session();
    put_text(&mut local, SESSION_NAME, b"*N12_GLOBAL__N_13JobE\0");
    assert_eq!(
        name_of(&local, SESSION).unwrap().name,
        "(anonymous namespace)::Job"
    );
}

#[test]
fn every_link_of_the_proof_is_needed() {
    type Breaks<'a> = (&'a str, &'a dyn Fn(&mut Pieces));
    let broken: &[Breaks] = &[
        ("of a base that is not the first", &|it| {
            it.put(SESSION - 16, &[(-16_i64).cast_unsigned()])
        }),
        ("no information", &|it| it.put(SESSION - 8, &[0])),
        ("information nowhere", &|it| it.put(SESSION - 8, &[0xdead_0000])),
        ("odd information", &|it| {
            it.put(SESSION - 8, &[SESSION_INFORMATION + 1])
        }),
        ("information at the end", &|it| {
            it.put(SESSION - 8, &[CONSTANTS + 0xff8])
        }),
        ("no function", &|it| it.put(SESSION, &[KIND])),
        ("of no kind", &|it| it.put(SESSION_INFORMATION, &[0])),
        ("of its own kind", &|it| {
            it.put(SESSION_INFORMATION, &[SESSION_INFORMATION])
        }),
        ("of its own vtable's kind", &|it| {
            it.put(SESSION_INFORMATION, &[SESSION])
        }),
        ("of a kind at address 8", &|it| it.put(SESSION_INFORMATION, &[8])),
        ("of a kind at the last address", &|it| {
            it.put(SESSION_INFORMATION, &[u64::MAX - 7])
        }),
        ("a kind that is a base of another", &|it| it.put(KIND - 16, &[8])),
        ("a kind without information", &|it| it.put(KIND - 8, &[0])),
        ("a kind that is its own information", &|it| {
            it.put(KIND - 8, &[KIND])
        }),
        ("information on a pointer", &|it| {
            put_text(it, KIND_NAME, b"N10__cxxabiv119__pointer_type_infoE\0\0\0\0")
        }),
        ("a kind of a longer name", &|it| {
            put_text(it, KIND_NAME, b"N10__cxxabiv120__si_class_type_infoEx\0")
        }),
        ("no name", &|it| it.put(SESSION_INFORMATION + 8, &[0])),
        ("an empty name", &|it| it.put(SESSION_NAME, &[0])),
        ("a name of another type", &|it| put_text(it, SESSION_NAME, b"i\0")),
        ("a name in plain words", &|it| {
            put_text(it, SESSION_NAME, b"Session\0")
        }),
        ("a name with an escape", &|it| {
            put_text(it, SESSION_NAME, b"7Se\x1b[1mn\0")
        }),
        ("a name of no text", &|it| {
            put_text(it, SESSION_NAME, b"7S\xff\xffsion\0")
        }),
        ("a name in the heap", &|it| {
            put_text(it, HEAP, b"7Session\0");
            it.put(SESSION_INFORMATION + 8, &[HEAP]);
        }),
        ("a name among the variables", &|it| {
            put_text(it, VARIABLES, b"7Session\0");
            it.put(SESSION_INFORMATION + 8, &[VARIABLES]);
        }),
        ("information in the heap", &|it| {
            it.put(HEAP + 0x300, &[KIND, SESSION_NAME]);
            it.put(SESSION - 8, &[HEAP + 0x300]);
        }),
        ("a name without an end", &|it| {
            put_text(it, NAMES + 0xff0, b"7Sessionxxxxxxxx");
            put_text(it, CODE, b"yyyyyyyy\0");
            it.put(SESSION_INFORMATION + 8, &[NAMES + 0xff0]);
        }),
    ];
    for (what, breaks) in broken {
        let mut memory = session();
        breaks(&mut memory);
        assert_eq!(name_of(&memory, SESSION), None, "{what}");
    }
}

#[test]
fn only_where_objects_point() {
    let memory = session();
    for address in [
        0,
        8,
        SESSION - 16,
        SESSION - 8,
        SESSION + 1,
        SESSION + 8,
        SESSION_INFORMATION,
        CONSTANTS,
        CODE,
        NAMES,
        VARIABLES,
        HEAP,
        VARIABLES + 0x1000,
        u64::MAX,
        u64::MAX - 7,
    ] {
        assert_eq!(name_of(&memory, address), None, "{address:#x}");
    }
}

/// Type information on `Session*` is `kind, name, flags 0, information on Session`: whatever follows has before it what
/// a vtable has.
#[test]
fn what_follows_information_on_a_pointer_is_no_object() {
    let mut memory = session();
    let pointer = CONSTANTS + 0x800;
    memory.put(pointer, &[KIND, NAMES, 0, SESSION_INFORMATION]);
    memory.put(pointer + 32, &[KIND, SESSION_NAME]);
    assert_eq!(name_of(&memory, pointer + 32), None);
}

/// Without RELRO all but the names is writable, and the last page of the file's segments is mapped twice.
#[test]
fn constants_among_the_variables_need_the_same_proof() {
    let mut memory = session();
    memory.put(VARIABLES + 0x300, &[KIND, SESSION_NAME]);
    memory.put(VARIABLES + 0x400, &[0, VARIABLES + 0x300, CODE]);
    assert_eq!(name_of(&memory, VARIABLES + 0x410), None);
    let mut mappings = mappings();
    mappings[4].offset = 0x3000;
    let named = |memory: &Pieces| {
        TypeNames::new(memory, &mappings, &ProcRoot::new("/nonexistent"), 1).name(VARIABLES + 0x410)
    };
    assert_eq!(named(&memory).unwrap().name, "Session");
    memory.put(VARIABLES + 0x410, &[1]);
    assert_eq!(named(&memory), None);
}

#[test]
fn kinds_are_proven_once() {
    let memory = session();
    let mappings = mappings();
    let mut names = TypeNames::new(&memory, &mappings, &ProcRoot::new("/nonexistent"), 1);
    assert_eq!(names.module(SESSION).as_deref(), Some("/lib/a.so"));
    assert_eq!(names.module(HEAP), None);
    let mut reads = || {
        let before = memory.reads.get();
        assert!(names.name(SESSION).is_some());
        memory.reads.get() - before
    };
    assert_eq!((reads(), reads()), (6, 3));
}

#[test]
fn ranges_are_of_files_with_code() {
    assert_eq!(
        constant_ranges(&mappings()),
        [NAMES..NAMES + 0x1000, DATA..CONSTANTS + 0x1000]
    );
    // `DATA` would be the read-only data of a module without RELRO just as well.
    let mut without_relro = mappings();
    without_relro.remove(3);
    without_relro[3].offset = 0x3000;
    without_relro[3].range = CONSTANTS..VARIABLES;
    assert_eq!(
        constant_ranges(&without_relro),
        [NAMES..NAMES + 0x1000, DATA..VARIABLES]
    );
    // Beside the code of an old linker there is nothing else.
    let old = [
        mapping(CODE, "r-xp", 0, 7),
        mapping(DATA, "r--p", 0x1000, 7),
        mapping(CONSTANTS, "rw-p", 0x2000, 7),
    ];
    assert_eq!(constant_ranges(&old), vec![CODE..CONSTANTS; 1]);
    let font = Mapping {
        inode: 8,
        ..mapping(HEAP, "r--p", 0, 8)
    };
    let of = |mappings: &[Mapping]| constant_ranges(mappings);
    assert_eq!(of(&[font]), []);
    assert_eq!(
        of(&[mapping(CODE, "r-xs", 0, 7), mapping(HEAP, "r--s", 0, 7)]),
        []
    );
    // Old linkers: code and constants in one mapping.
    assert_eq!(of(&[mapping(CODE, "r-xp", 0, 7)]), vec![CODE..DATA; 1]);
    assert_eq!(of(&[mapping(CODE, "r-xp", 0, 0)]), []);
    assert_eq!(of(&[]), []);
}

#[test]
fn room_in_ranges() {
    let places = Places::of(&mappings());
    let room = |address| places.constant.room(address);
    assert_eq!(
        (room(NAMES), room(NAMES + 0xfff), room(NAMES + 0x1000)),
        (0x1000, 1, 0)
    );
    assert_eq!((room(0), room(u64::MAX), room(CONSTANTS)), (0, 0, 0x1000));
    assert!(places.constant.hold(CONSTANTS, 0x1000) && !places.constant.hold(CONSTANTS, 0x1001));
    assert_eq!(Ranges::default().room(1), 0);
}

proptest! {
    /// Constants that point at each other in any way: no panic, no endless chain, and no name but a true one.
    #[test]
    fn any_constants(words in proptest::collection::vec((0_u64..512, 0_usize..12, 0_u64..512), 0..300)) {
        let mut memory = session();
        for (at, what, offset) in &words {
            let offset = offset * 8;
            let word = match what {
                0 => 0,
                1 => KIND,
                2 => SESSION_NAME,
                3 => SESSION_INFORMATION,
                4 => CODE + offset,
                5 => KIND_NAME,
                6 => HEAP + offset,
                7 => u64::MAX - offset,
                8 => NAMES + offset,
                _ => CONSTANTS + offset,
            };
            memory.put(CONSTANTS + at * 8, &[word]);
        }
        let mappings = mappings();
        let mut names = TypeNames::new(&memory, &mappings, &ProcRoot::new("/nonexistent"), 1);
        for address in (CONSTANTS..CONSTANTS + 0x1000).step_by(8) {
            let before = memory.reads.get();
            if let Some(told) = names.name(address) {
                prop_assert!(told.name == "Session" || told.name.starts_with("__cxxabiv1::"), "{}", told.name);
            }
            prop_assert!(memory.reads.get() - before <= 8);
        }
    }
}
