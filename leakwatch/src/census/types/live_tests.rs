//! Objects of a real program, however it was built.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::{ToldBy, TypeName, TypeNames, constant_ranges};
use crate::census::memory::{Memory, ProcessMemory};
use crate::sampler::maps::Mapping;
use crate::sampler::{ProcRoot, maps};

/// Makes a block of each kind on its heap, prints `label address` of each and waits.
const OBJECTS: &str = r#"
#include <cstdio>
#include <list>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <typeinfo>
#include <unistd.h>
#include <vector>

struct Session { virtual ~Session() {} virtual void touch() {} char state[528]; };
struct Premium : Session { void touch() override {} long until; };
struct Reader { virtual ~Reader() {} long in; };
struct Writer { virtual ~Writer() {} long out; };
struct Both : Reader, Writer { long both; };
struct Base { virtual ~Base() {} long base; };
struct Left : virtual Base { long left; };
struct Right : virtual Base { long right; };
struct Diamond : Left, Right { long diamond; };
struct Plain { long plain; };
struct Bare : virtual Plain { long bare; };
template <class T, int N> struct Cache { virtual ~Cache() {} T *entries[N]; };
namespace { struct Job { virtual ~Job() {} long job; }; }
namespace store { namespace { struct Row : Session {}; } struct Table : Reader {}; }
struct Pair { Session first; int second; };

static void run() {}
struct operations { int kind; const char *name; void (*run)(); };
extern const operations file_ops;
const operations file_ops = {1, "file", run};
extern const char *const words[];
const char *const words[] = {"one", "two"};
extern const char message[];
const char message[] = "a message of more than sixteen bytes";
struct Handle { const void *first; long second; };

static void say(const char *label, const void *block) { printf("%s %p\n", label, block); }
static void starting_with(const char *label, const void *first) { say(label, new Handle{first, 1}); }

int main() {
    say("session", new Session);
    say("counted array", (char *)new Session[3] - sizeof(size_t));
    auto *sessions = new std::vector<Session>(3);
    say("vector", sessions->data());
    say("premium", new Premium);
    Both *both = new Both;
    say("both", both);
    say("its second base", static_cast<Writer *>(both));
    say("diamond", new Diamond);
    say("bare", new Bare);
    say("cache", new Cache<Session, 16>);
    say("job", new Job);
    say("row", new store::Row);
    say("table", new store::Table);
    say("pair", new Pair);
    struct Local { virtual ~Local() {} } *local = new Local;
    say("local", local);
    auto *shared = new std::shared_ptr<Session>(std::make_shared<Session>());
    say("shared", (char *)shared->get() - 16);
    auto *counted = new std::shared_ptr<Session>(new Session);
    say("its pointer", counted);
    say("stream", new std::stringstream("x"));

    auto *text = new std::string(200, 'x');
    say("string", text);
    say("text", text->data());
    auto *numbers = new std::vector<int>(100, 7);
    say("numbers", numbers->data());
    auto *pointers = new std::vector<Session *>(10, new Session);
    say("pointers", pointers->data());
    auto *map = new std::map<int, Session>;
    (*map)[1];
    say("map node", (char *)&*map->begin() - 32);
    auto *list = new std::list<Session>(1);
    say("list node", (char *)&list->front() - 16);

    starting_with("operations", &file_ops);
    starting_with("inside operations", &file_ops.name);
    starting_with("words", words);
    starting_with("message", message);
    starting_with("function", (void *)run);
    starting_with("library function", (void *)puts);
    starting_with("variable", (void *)&stdout);
    starting_with("second function", *(void ***)new Session + 1);
#ifdef __GXX_RTTI
    starting_with("information", &typeid(Session));
    starting_with("on a pointer", &typeid(Session *));
    starting_with("after that on a pointer", (char *)&typeid(Session *) + 32);
    starting_with("information of the library", &typeid(std::string));
#endif
    printf("\n");
    fflush(stdout);
    char c;
    return read(0, &c, 1) < 0;
}
"#;

struct Program {
    child: Child,
    /// By label: the first word of a block.
    blocks: BTreeMap<String, u64>,
    mappings: Vec<Mapping>,
}

impl Program {
    /// `None`, with a word why, where this cannot be tested.
    fn start(flags: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let (source, program) = (
            directory.path().join("objects.cpp"),
            directory.path().join("objects"),
        );
        std::fs::write(&source, OBJECTS).unwrap();
        let compiled = Command::new("c++")
            .args(["-std=c++17", "-O1", "-w", "-o"])
            .args([&program, &source])
            .args(flags)
            .status()
            .unwrap();
        assert!(compiled.success(), "{flags:?}");
        Self::of(&program)
        // The file is gone by now: what is mapped is what counts.
    }

    fn of(program: &Path) -> Option<Self> {
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let memory = ProcessMemory::of(child.id());
        let mut blocks = BTreeMap::new();
        let output = BufReader::new(child.stdout.as_mut().unwrap());
        for line in output
            .lines()
            .map(Result::unwrap)
            .take_while(|line| !line.is_empty())
        {
            let (label, address) = line.rsplit_once(" 0x").unwrap();
            let address = u64::from_str_radix(address, 16).unwrap();
            match memory.word(address) {
                Ok(word) => blocks.insert(label.to_owned(), word),
                Err(error) => {
                    eprintln!("SKIPPED: memory of a child cannot be read: {error}");
                    let _ = (child.kill(), child.wait());
                    return None;
                }
            };
        }
        let mappings = maps::read(&ProcRoot::default(), child.id()).unwrap().mappings;
        Some(Self {
            child,
            blocks,
            mappings,
        })
    }

    /// What each block is, as far as it has a name.
    fn names(&self) -> BTreeMap<&str, TypeName> {
        let memory = ProcessMemory::of(self.child.id());
        let mut names = TypeNames::new(memory, &self.mappings, &ProcRoot::default(), self.child.id());
        let ranges = constant_ranges(&self.mappings);
        let named: BTreeMap<&str, TypeName> = self
            .blocks
            .iter()
            .filter_map(|(label, word)| Some((&**label, names.name(*word)?)))
            .collect();
        for label in named.keys() {
            let module = names.module(self.blocks[*label]).unwrap();
            let library = *label == STREAM.0 && module.contains("libstdc++");
            assert!(library || module.ends_with("/objects"), "{label} in {module}");
            assert!(
                ranges.iter().any(|range| range.contains(&self.blocks[*label])),
                "{label}"
            );
        }
        named
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.stdin.take().map(|mut stdin| stdin.write_all(b"x"));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of the program's own classes.
const CLASSES: &[(&str, &str)] = &[
    ("session", "Session"),
    ("premium", "Premium"),
    ("both", "Both"),
    ("diamond", "Diamond"),
    ("cache", "Cache<Session, 16>"),
    ("job", "(anonymous namespace)::Job"),
    ("row", "store::(anonymous namespace)::Row"),
    ("table", "store::Table"),
    // What begins with one.
    ("pair", "Session"),
    ("vector", "Session"),
    ("local", "main::Local"),
    (
        "shared",
        "std::_Sp_counted_ptr_inplace<Session, std::allocator<void>, (__gnu_cxx::_Lock_policy)2>",
    ),
];
const STREAM: (&str, &str) = (
    "stream",
    "std::__cxx11::basic_stringstream<char, std::char_traits<char>, std::allocator<char> >",
);
/// A class without functions.
const BARE: (&str, &str) = ("bare", "Bare");
const OPERATIONS: (&str, &str) = ("operations", "file_ops");

#[track_caller]
fn assert_names(flags: &[&str], expected: &[(&[(&'static str, &'static str)], ToldBy)]) {
    let Some(program) = Program::start(flags) else {
        return;
    };
    let names = program.names();
    let told: BTreeMap<&str, (&str, ToldBy)> = names
        .iter()
        .map(|(label, it)| (*label, (&*it.name, it.told_by)))
        .collect();
    let expected: BTreeMap<&str, (&str, ToldBy)> = expected
        .iter()
        .flat_map(|(names, by)| names.iter().map(|(label, name)| (*label, (*name, *by))))
        .collect();
    assert_eq!(told, expected, "{flags:?}");
}

use ToldBy::{ConstantSymbol, Rtti, VtableSymbol};

#[test]
fn as_a_distribution_builds() {
    let all: &[(&[_], _)] = &[
        (CLASSES, Rtti),
        (&[STREAM], Rtti),
        (&[BARE], VtableSymbol),
        (&[OPERATIONS], ConstantSymbol),
    ];
    assert_names(&["-g"], all);
    // `.data.rel.ro` is writable here; read-only data lies beside the code there.
    assert_names(&["-Wl,-z,norelro"], all);
    assert_names(&["-Wl,-z,noseparate-code"], all);
}

#[test]
fn stripped() {
    assert_names(&["-s"], &[(CLASSES, Rtti), (&[STREAM], Rtti)]);
    assert_names(&["-s", "-static"], &[(CLASSES, Rtti), (&[STREAM], Rtti)]);
}

#[test]
fn without_type_information() {
    assert_names(
        &["-fno-rtti"],
        &[
            (CLASSES, VtableSymbol),
            // It is the library's.
            (&[STREAM], Rtti),
            (&[BARE], VtableSymbol),
            (&[OPERATIONS], ConstantSymbol),
        ],
    );
    assert_names(&["-fno-rtti", "-s"], &[(&[STREAM], Rtti)]);
}

#[test]
fn at_fixed_addresses() {
    // Constants need no relocation: they are in `.rodata`, and a table of functions there is not told from others.
    let all: &[(&[_], _)] = &[(CLASSES, Rtti), (&[STREAM], Rtti), (&[BARE], VtableSymbol)];
    assert_names(&["-no-pie", "-fno-pie"], all);
    assert_names(&["-static", "-no-pie", "-fno-pie"], all);
    assert_names(
        &["-static-pie"],
        &[all[0], all[1], all[2], (&[OPERATIONS], ConstantSymbol)],
    );
}

/// Run with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn time_of_names() {
    for flags in [&[][..], &["-s"], &["-fno-rtti"]] {
        let program = Program::start(flags).unwrap();
        let memory = ProcessMemory::of(program.child.id());
        let started = Instant::now();
        let mut names = TypeNames::new(
            memory,
            &program.mappings,
            &ProcRoot::default(),
            program.child.id(),
        );
        println!("{flags:?}: made in {:?}", started.elapsed());
        for label in [
            "session",
            "premium",
            "shared",
            "stream",
            "operations",
            "message",
            "variable",
            "function",
        ] {
            let word = program.blocks[label];
            let started = Instant::now();
            let first = names.name(word);
            let took = started.elapsed();
            let started = Instant::now();
            for _ in 0..1000 {
                std::hint::black_box(names.name(word));
            }
            println!(
                "  {label}: {took:?}, then {:?} a name: {:?}",
                started.elapsed() / 1000,
                first.map(|it| it.name)
            );
        }
        println!("  {} symbols held", names.modules.symbols_held());
    }
}
