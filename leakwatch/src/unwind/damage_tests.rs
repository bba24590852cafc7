//! Files that are damaged or made to harm: refused, or unwound to nonsense within bounds.

use std::fs;

use leakwatch_ebpf::wire::{REGISTERS_BYTES, flags};

use super::live_tests::compiled;
use super::*;

#[test]
fn damaged_files_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let program = compiled(directory.path(), "victim", &[]);
    let whole = fs::read(program).unwrap();
    let machine = <registers::Host as registers::Machine>::ELF;
    assert!(elf::read(&whole[..], machine).unwrap().unwind.is_ok());
    let mut refused = 0;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let mut process = Fuzzed::new();
    for round in 0..6000 {
        let mut bytes = whole.clone();
        if round % 3 == 0 {
            bytes.truncate(random(bytes.len()));
        }
        for _ in 0..random(12) {
            // Half of them in the headers, where they matter most.
            let within = if random(2) == 0 { 0x400 } else { bytes.len() };
            let at = random(within.min(bytes.len()).max(1));
            let value = [0, 0xff, 0x7f, 0x80, 1][random(5)];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if random(2) == 0 {
                    value
                } else {
                    *byte ^ (1 << random(8))
                };
            }
        }
        match elf::read(&bytes[..], machine) {
            Ok(image) => process.unwind(&image, &mut random),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100, "{refused}");
    assert!(process.walked > 100, "{}", process.walked);
}

/// Unwinds through damaged unwind information, which may give nonsense but neither panic past its guard nor hang.
struct Fuzzed {
    walked: usize,
}

impl Fuzzed {
    fn new() -> Self {
        Self { walked: 0 }
    }

    fn unwind(&mut self, image: &elf::Image, random: &mut impl FnMut(usize) -> usize) {
        let base = 0x5555_0000_0000_u64;
        let mut unwinder = Unwinder::new();
        unwinder.adopt(1, image.clone(), base..base + 0x4000);
        let stack: Vec<u8> = (0..512_u64)
            .flat_map(|_| (base + random(0x4000) as u64).to_le_bytes())
            .collect();
        for _ in 0..4 {
            let mut registers = vec![0; REGISTERS_BYTES];
            let [pc_word, sp_word] = if cfg!(target_arch = "x86_64") {
                [16, 19]
            } else {
                [32, 31]
            };
            registers[pc_word * 8..][..8].copy_from_slice(&(base + random(0x4000) as u64).to_le_bytes());
            registers[sp_word * 8..][..8].copy_from_slice(&0x7fff_0000_u64.to_le_bytes());
            let snapshot = Snapshot {
                registers: &registers,
                stack_pointer: 0x7fff_0000,
                stack: &stack,
                flags: flags::STACK_CAPPED,
            };
            let id = unwinder.unwind(1, &snapshot);
            assert!(unwinder.stack(id).unwrap().frames.len() <= walk::FRAMES_MAX);
            self.walked += 1;
        }
    }
}
