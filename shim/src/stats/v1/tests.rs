use std::{collections::BTreeSet, fs};

use super::*;
use crate::stats::tests::disturbed;

const MEMORY_STAT: &str = "\
cache 1\nrss 2\nrss_huge 3\nshmem 99\nmapped_file 4\ndirty 5\nwriteback 6\n\
workingset_refault_anon 99\nswap 99\npgpgin 7\npgpgout 8\npgfault 9\npgmajfault 10\n\
inactive_anon 11\nactive_anon 12\ninactive_file 13\nactive_file 14\nunevictable 15\n\
hierarchical_memory_limit 9223372036854771712\nhierarchical_memsw_limit 17\n\
total_cache 18\ntotal_rss 19\ntotal_rss_huge 20\ntotal_shmem 99\ntotal_mapped_file 21\n\
total_dirty 22\ntotal_writeback 23\ntotal_pgpgin 24\ntotal_pgpgout 25\ntotal_pgfault 26\n\
total_pgmajfault 27\ntotal_inactive_anon 28\ntotal_active_anon 29\ntotal_inactive_file 30\n\
total_active_file 31\ntotal_unevictable 32\n";

const PARTITIONS: &str = "\
major minor  #blocks  name\n\n   8        0  268435456 sda\n 254        1      1024 vda1\n";

const SERVICED: &str = "\
8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n254:1 5\n7:1 Read 0\nTotal 35\n";

#[test]
fn every_field_of_memory_stat_has_its_key() {
    // The golden values are the fields' own numbers in the message.
    let stat = memory_stat(MEMORY_STAT);
    assert_eq!(stat.hierarchical_memory_limit, 9_223_372_036_854_771_712);
    let values = [
        stat.cache,
        stat.rss,
        stat.rss_huge,
        stat.mapped_file,
        stat.dirty,
        stat.writeback,
        stat.pg_pg_in,
        stat.pg_pg_out,
        stat.pg_fault,
        stat.pg_maj_fault,
        stat.inactive_anon,
        stat.active_anon,
        stat.inactive_file,
        stat.active_file,
        stat.unevictable,
        16,
        stat.hierarchical_swap_limit,
        stat.total_cache,
        stat.total_rss,
        stat.total_rss_huge,
        stat.total_mapped_file,
        stat.total_dirty,
        stat.total_writeback,
        stat.total_pg_pg_in,
        stat.total_pg_pg_out,
        stat.total_pg_fault,
        stat.total_pg_maj_fault,
        stat.total_inactive_anon,
        stat.total_active_anon,
        stat.total_inactive_file,
        stat.total_active_file,
        stat.total_unevictable,
    ];
    assert!(values.iter().copied().eq(1..=32), "{values:?}");
}

#[test]
fn lines_of_block_devices_get_their_names() {
    let entries: Vec<_> = blkio_entries(SERVICED, PARTITIONS)
        .into_iter()
        .map(|e| (e.device, e.major, e.minor, e.op, e.value))
        .collect();
    let entry = |device: &str, major, minor, op: &str, value| {
        (device.to_owned(), major, minor, op.to_owned(), value)
    };
    assert_eq!(
        entries,
        [
            entry("/dev/sda", 8, 0, "Read", 10),
            entry("/dev/sda", 8, 0, "Write", 20),
            entry("/dev/sda", 8, 0, "Total", 30),
            entry("/dev/vda1", 254, 1, "", 5),
            entry("", 7, 1, "Read", 0),
        ]
    );
}

#[test]
fn disturbed_lines_are_passed_over() {
    for text in disturbed(SERVICED) {
        let with_tail = format!("{text}\n8:0 Sync 77\n");
        let last = blkio_entries(&with_tail, PARTITIONS).pop().unwrap();
        assert_eq!((last.op.as_str(), last.value), ("Sync", 77), "{text:?}");
    }
    for text in disturbed(PARTITIONS) {
        device_name(&text, 8, 0);
        let with_tail = format!("{text}\n 9 9 1 md9\n");
        let name = device_name(&with_tail, 9, 9);
        assert!(name.is_some_and(|name| name.starts_with("/dev/")), "{text:?}");
    }
    for text in disturbed(MEMORY_STAT) {
        memory_stat(&text);
        throttling(&text);
    }
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

#[test]
fn all_controllers_of_one_directory_are_read() {
    let dir = directory(&[
        ("cpu.stat", "nr_periods 5\nnr_throttled 4\nthrottled_time 3\n"),
        ("cpuacct.usage", "1000\n"),
        ("cpuacct.stat", "user 2\nsystem 1\n"),
        ("cpuacct.usage_percpu", "600 400 \n"),
        ("memory.stat", MEMORY_STAT),
        ("memory.oom_control", "oom_kill_disable 1\nunder_oom 2\noom_kill 3\n"),
        ("memory.usage_in_bytes", "11\n"),
        ("memory.max_usage_in_bytes", "12\n"),
        ("memory.failcnt", "13\n"),
        ("memory.limit_in_bytes", "14\n"),
        ("memory.kmem.usage_in_bytes", "15\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        ("blkio.throttle.io_serviced", SERVICED),
        ("blkio.throttle.io_service_bytes", "8:0 Read 512\nTotal 512\n"),
        ("rdma.current", "mlx4_0 hca_handle=2 hca_object=3\n"),
        ("rdma.max", "mlx4_0 hca_handle=max hca_object=max\n"),
        ("hugetlb.2MB.usage_in_bytes", "1\n"),
        ("hugetlb.2MB.max_usage_in_bytes", "2\n"),
        ("hugetlb.2MB.failcnt", "3\n"),
    ]);
    let metrics = read(|_| Some(dir.path())).unwrap();
    let cpu = &metrics.cpu;
    assert_eq!((cpu.usage.total, cpu.usage.user, cpu.usage.kernel), (1000, 20_000_000, 10_000_000));
    assert_eq!(cpu.usage.per_cpu, [600, 400]);
    let throttling = &cpu.throttling;
    assert_eq!(
        (throttling.periods, throttling.throttled_periods, throttling.throttled_time),
        (5, 4, 3)
    );
    let usage = &metrics.memory.usage;
    assert_eq!((usage.usage, usage.max, usage.failcnt, usage.limit), (11, 12, 13, 14));
    assert_eq!(metrics.memory.kernel.usage, 15, "also where swap is not counted");
    assert_eq!(metrics.memory.swap.as_ref().map(|swap| swap.usage), Some(0));
    let control = &metrics.memory_oom_control;
    assert_eq!((control.oom_kill_disable, control.under_oom, control.oom_kill), (1, 2, 3));
    assert_eq!((metrics.pids.current, metrics.pids.limit), (3, 0));
    assert_eq!(metrics.blkio.io_serviced_recursive.len(), 5);
    assert_eq!(metrics.blkio.io_service_bytes_recursive[0].value, 512);
    assert_eq!(metrics.rdma.current[0].hca_objects, 3);
    assert_eq!(metrics.rdma.limit[0].hca_handles, u32::MAX);
    if huge_page_sizes().iter().any(|size| size == "2MB") {
        let [huge] = metrics.hugetlb.as_slice() else { panic!("{:?}", metrics.hugetlb) };
        assert_eq!((huge.usage, huge.max, huge.failcnt, huge.pagesize.as_str()), (1, 2, 3, "2MB"));
    }
}

#[test]
fn only_the_controllers_that_there_are_are_asked() {
    let asked = std::cell::RefCell::new(BTreeSet::new());
    let metrics = read(|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    })
    .unwrap();
    let known = ["blkio", "cpu", "cpuacct", "hugetlb", "memory", "pids", "rdma"];
    assert!(asked.borrow().iter().eq(known.iter()));
    // containerd's clients look into the processor's counters without asking.
    assert!(metrics.cpu.usage.is_some() && metrics.cpu.throttling.is_some());
    assert!(metrics.memory.is_none() && metrics.pids.is_none() && metrics.blkio.is_none());
}

#[test]
fn a_scheduler_that_counts_goes_before_throttling() {
    let dir = directory(&[
        ("blkio.io_serviced_recursive", "8:0 Read 1\nTotal 1\n"),
        ("blkio.throttle.io_serviced", SERVICED),
        ("blkio.throttle.io_service_bytes", SERVICED),
    ]);
    let stat = blkio(dir.path()).unwrap();
    assert_eq!(stat.io_serviced_recursive.len(), 1);
    assert!(stat.io_service_bytes_recursive.is_empty());
}

#[test]
fn what_adds_up_is_added_and_what_is_not_counted_stays_away() {
    let mut one = Metrics::new();
    let usage = one.cpu.mut_or_insert_default().usage.mut_or_insert_default();
    (usage.total, usage.kernel, usage.user) = (5, 2, 3);
    let mut total = Total::default();
    total.add(&one);
    assert!(total.0.memory.is_none() && total.0.pids.is_none());
    let memory = one.memory.mut_or_insert_default().usage.mut_or_insert_default();
    (memory.usage, memory.limit) = (7, 9);
    one.pids.mut_or_insert_default().current = u64::MAX;
    total.add(&one);
    total.add(&one);
    let usage = &total.0.cpu.usage;
    assert_eq!((usage.total, usage.kernel, usage.user), (15, 6, 9));
    assert_eq!((total.0.memory.usage.usage, total.0.memory.usage.limit), (14, 0));
    assert_eq!(total.0.pids.current, u64::MAX);
}
