//! What attaching, detaching and a hit cost on this machine, in figures to read: no test, for times are no truth.

use super::bursts::{code_in, code_of};
use super::*;

/// Nanoseconds of this thread's processor time for a block taken and given back, at best.
fn own_mallocs() -> f64 {
    const CALLS: u32 = 100_000;
    let once = || {
        let before = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        for size in 0..CALLS {
            drop(std::hint::black_box(Vec::<u8>::with_capacity(
                16 + (size % 512) as usize,
            )));
        }
        let after = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let took = Duration::try_from(after).unwrap() - Duration::try_from(before).unwrap();
        took.as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..20).map(|_| once()).fold(f64::MAX, f64::min)
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let _alone = alone();
    let measured = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() - 1])
    };
    for method in methods() {
        let mut probe = probe();
        probe.load_allocs_by(method).unwrap();
        let cost = probe.calibrate_allocs().unwrap();
        {
            let child = calibrate::Child::fork().unwrap();
            let own = calibrate::own_entry_points().unwrap();
            let free = child.median(b'e', || {}).unwrap();
            let links = probe.attach_allocs(child.pid, &own).unwrap();
            eprintln!(
                "free {free:?}, between bursts {:?}",
                child.median(b'e', || {}).unwrap()
            );
            probe
                .begin_burst(&BurstLimits {
                    threshold: 0,
                    ..all(&own)
                })
                .unwrap();
            eprintln!("unsampled {:?}", child.median(b'e', || {}).unwrap());
            drop(links);
        }
        let mut maker = Maker::start("storm", &[]);
        let points = maker.points();
        let code = code_of(&points);
        // As a burst is: put in, begun, ended, taken out.
        let (mut attach, mut detach, mut clean) = (Vec::new(), Vec::new(), Vec::new());
        let (mut idle_before, mut idle_after) = (Vec::new(), Vec::new());
        let idle = |probe: &Probe| probe.counts().unwrap().get(Counter::AllocIdle) as f64;
        let holders = probe.hold_allocs(maker.pid(), &points).unwrap();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(100));
            let began = idle(&probe);
            let before = Instant::now();
            let links = holders.attach().unwrap();
            attach.push(before.elapsed().as_secs_f64() * 1e3);
            probe
                .begin_burst(&BurstLimits {
                    threshold: 0,
                    ..all(&points)
                })
                .unwrap();
            idle_before.push(idle(&probe) - began);
            std::thread::sleep(Duration::from_millis(3));
            probe.end_burst().unwrap();
            let ended = idle(&probe);
            let before = Instant::now();
            let detaching = std::thread::spawn(move || drop(links));
            while code_in(maker.pid(), &points) != code {}
            clean.push(before.elapsed().as_secs_f64() * 1e3);
            detaching.join().unwrap();
            detach.push(before.elapsed().as_secs_f64() * 1e3);
            idle_after.push(idle(&probe) - ended);
        }
        eprintln!(
            "{method:?}: {cost:?}; median, most: attach ms {:.1?}, text clean {:.1?}, detached {:.1?}; idle hits before {:?}, after {:?}",
            measured(&mut attach),
            measured(&mut clean),
            measured(&mut detach),
            measured(&mut idle_before),
            measured(&mut idle_after),
        );
        let alone = own_mallocs();
        probe
            .begin_burst(&BurstLimits {
                threshold: 0,
                ..all(&points)
            })
            .unwrap();
        let links = probe.attach_allocs(maker.pid(), &points).unwrap();
        eprintln!(
            "malloc and free elsewhere, ns: {alone:.1}, with probes {:.1}",
            own_mallocs()
        );
        drop(links);
        maker.go();
        eprintln!("storm: {} calls", maker.line());
    }
}
