use std::fs;

use super::*;
use crate::stats::tests::disturbed;

const MEMORY_STAT: &str = "\
anon 1\nfile 2\nkernel 99\nkernel_stack 3\npagetables 99\nsock 5\nshmem 6\nfile_mapped 7\n\
file_dirty 8\nfile_writeback 9\nanon_thp 10\ninactive_anon 11\nactive_anon 12\n\
inactive_file 13\nactive_file 14\nunevictable 15\nslab_reclaimable 16\n\
slab_unreclaimable 17\nslab 4\npgfault 18\npgmajfault 19\nworkingset_refault 20\n\
workingset_refault_anon 99\nworkingset_activate 21\nworkingset_nodereclaim 22\npgrefill 23\n\
pgscan 24\npgsteal 25\npgactivate 26\npgdeactivate 27\npglazyfree 28\npglazyfreed 29\n\
thp_fault_alloc 30\nthp_collapse_alloc 31\n";

const IO_STAT: &str = "\
8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n\
8:0 rbytes=90430464 wbytes=299008000 rios=8950 wios=1252\n\
7:0 \n";

const PRESSURE: &str = "\
some avg10=0.05 avg60=16.95 avg300=44.31 total=598968982\n\
full avg10=0.00 avg60=1.50 avg300=0.00 total=7\n";

#[test]
fn every_field_of_memory_stat_has_its_key() {
    // The golden values are the fields' own numbers in the message.
    let stat = memory_stat(MEMORY_STAT);
    let values = [
        stat.anon,
        stat.file,
        stat.kernel_stack,
        stat.slab,
        stat.sock,
        stat.shmem,
        stat.file_mapped,
        stat.file_dirty,
        stat.file_writeback,
        stat.anon_thp,
        stat.inactive_anon,
        stat.active_anon,
        stat.inactive_file,
        stat.active_file,
        stat.unevictable,
        stat.slab_reclaimable,
        stat.slab_unreclaimable,
        stat.pgfault,
        stat.pgmajfault,
        stat.workingset_refault,
        stat.workingset_activate,
        stat.workingset_nodereclaim,
        stat.pgrefill,
        stat.pgscan,
        stat.pgsteal,
        stat.pgactivate,
        stat.pgdeactivate,
        stat.pglazyfree,
        stat.pglazyfreed,
        stat.thp_fault_alloc,
        stat.thp_collapse_alloc,
    ];
    assert!(values.iter().copied().eq(1..=31), "{values:?}");
}

#[test]
fn devices_without_counters_have_zeros() {
    let entries: Vec<_> = io_entries(IO_STAT)
        .into_iter()
        .map(|e| (e.major, e.minor, e.rbytes, e.wbytes, e.rios, e.wios))
        .collect();
    assert_eq!(
        entries,
        [
            (8, 16, 1_459_200, 314_773_504, 192, 353),
            (8, 0, 90_430_464, 299_008_000, 8950, 1252),
            (7, 0, 0, 0, 0, 0),
        ]
    );
}

#[test]
fn pressure_is_read_with_its_fractions() {
    let stats = psi(PRESSURE);
    assert_eq!((stats.some.avg10, stats.some.avg60, stats.some.avg300), (0.05, 16.95, 44.31));
    assert_eq!((stats.some.total, stats.full.total, stats.full.avg60), (598_968_982, 7, 1.5));
    assert!(psi("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").full.is_none());
}

#[test]
fn disturbed_lines_are_passed_over() {
    for text in disturbed(IO_STAT) {
        let with_tail = format!("{text}\n9:9 rios=77\n");
        let last = io_entries(&with_tail).pop().unwrap();
        assert_eq!((last.major, last.rios), (9, 77), "{text:?}");
    }
    for text in disturbed(PRESSURE) {
        let with_tail = format!("{text}\nfull total=77\n");
        assert_eq!(psi(&with_tail).full.total, 77, "{text:?}");
    }
    for text in disturbed(MEMORY_STAT) {
        memory_stat(&text);
        memory_events(&text);
        cpu_stat(&text);
    }
}

#[test]
fn a_whole_directory_is_read() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        (
            "cpu.stat",
            "usage_usec 1\nuser_usec 2\nsystem_usec 3\nnice_usec 99\nnr_periods 4\n\
             nr_throttled 5\nthrottled_usec 6\nnr_bursts 8\nburst_usec 9\n",
        ),
        ("cpu.pressure", PRESSURE),
        ("memory.stat", MEMORY_STAT),
        ("memory.current", "11\n"),
        ("memory.max", "max\n"),
        ("memory.peak", "13\n"),
        ("memory.swap.current", "14\n"),
        ("memory.swap.max", "15\n"),
        ("memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n"),
        ("io.stat", IO_STAT),
        ("rdma.current", "mlx4_0 hca_handle=2 hca_object=3\n"),
        ("hugetlb.2MB.current", "21\n"),
        ("hugetlb.2MB.max", "22\n"),
        ("hugetlb.2MB.events", "max 23\n"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let metrics = read(dir.path()).unwrap();
    assert_eq!((metrics.pids.current, metrics.pids.limit), (3, u64::MAX));
    let cpu = &metrics.cpu;
    let values = [
        cpu.usage_usec,
        cpu.user_usec,
        cpu.system_usec,
        cpu.nr_periods,
        cpu.nr_throttled,
        cpu.throttled_usec,
        7,
        cpu.nr_bursts,
        cpu.burst_usec,
    ];
    assert!(values.iter().copied().eq(1..=9), "{values:?}");
    assert!(cpu.psi.is_some() && metrics.memory.psi.is_none());
    let memory = &metrics.memory;
    assert_eq!((memory.usage, memory.usage_limit, memory.max_usage), (11, u64::MAX, 13));
    assert_eq!((memory.swap_usage, memory.swap_limit, memory.swap_max_usage), (14, 15, 0));
    let events = &metrics.memory_events;
    let values =
        [events.low, events.high, events.max, events.oom, events.oom_kill, events.oom_group_kill];
    assert_eq!(values, [1, 2, 3, 4, 5, 6]);
    assert_eq!((metrics.io.usage.len(), metrics.rdma.current[0].hca_handles), (3, 2));
    if huge_page_sizes().iter().any(|size| size == "2MB") {
        let [huge] = metrics.hugetlb.as_slice() else { panic!("{:?}", metrics.hugetlb) };
        assert_eq!((huge.current, huge.max, huge.failcnt), (21, 22, 23));
    }
}

#[test]
fn what_no_controller_counts_is_there_and_zero() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = read(dir.path()).unwrap();
    assert!(metrics.pids.is_some() && metrics.cpu.is_some() && metrics.memory.is_some());
    assert!(metrics.io.is_some() && metrics.rdma.is_some());
    assert!(metrics.memory_events.is_none() && metrics.hugetlb.is_empty());
}

#[test]
fn what_adds_up_is_added() {
    let mut one = Metrics::new();
    let cpu = one.cpu.mut_or_insert_default();
    (cpu.usage_usec, cpu.user_usec, cpu.system_usec, cpu.nr_periods) = (5, 3, 2, 1);
    let memory = one.memory.mut_or_insert_default();
    (memory.usage, memory.usage_limit) = (7, 9);
    one.pids.mut_or_insert_default().current = u64::MAX;
    let mut total = Total::default();
    total.add(&one);
    total.add(&one);
    let (cpu, memory) = (&total.0.cpu, &total.0.memory);
    assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec), (10, 6, 4));
    assert_eq!((cpu.nr_periods, memory.usage, memory.usage_limit), (0, 14, 0));
    assert_eq!(total.0.pids.current, u64::MAX);
}
