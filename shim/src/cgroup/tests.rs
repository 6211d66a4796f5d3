use super::*;

fn mount(kind: &str, root: &str, point: &str, super_options: &str) -> Mount {
    Mount {
        root: root.into(),
        point: point.into(),
        kind: kind.into(),
        super_options: super_options.into(),
    }
}

fn hybrid() -> Vec<Mount> {
    vec![
        mount("cgroup2", "/", "/sys/fs/cgroup/unified", "rw,nsdelegate"),
        mount("cgroup", "/", "/sys/fs/cgroup/cpu,cpuacct", "rw,cpu,cpuacct"),
        mount("cgroup", "/", "/sys/fs/cgroup/memory", "rw,memory"),
        mount("cgroup", "/", "/sys/fs/cgroup/systemd", "rw,xattr,name=systemd"),
    ]
}

#[test]
fn controllers_mounted_together_share_a_directory() {
    let text = "5:name=systemd:/c\n4:memory:/a/c\n3:pids:/c\n2:cpu,cpuacct:/a:b/c\n0::/c\n";
    let cgroup = locate(text, &hybrid()).unwrap();
    for (controller, dir) in [
        ("cpu", Some("/sys/fs/cgroup/cpu,cpuacct/a:b/c")),
        ("cpuacct", Some("/sys/fs/cgroup/cpu,cpuacct/a:b/c")),
        ("memory", Some("/sys/fs/cgroup/memory/a/c")),
        ("pids", None),
    ] {
        assert_eq!(cgroup.dir(controller), dir.map(Path::new), "{controller}");
    }
}

#[test]
fn without_a_v1_controller_the_unified_hierarchy_holds_all() {
    let mounts = [mount("cgroup2", "/", "/sys/fs/cgroup", "rw")];
    let cgroup = locate("1:name=systemd:/x\n0::/a/c\n", &mounts).unwrap();
    assert_eq!(cgroup, Cgroup::V2("/sys/fs/cgroup/a/c".into()));
    assert_eq!(locate("0::/\n", &mounts).unwrap(), Cgroup::V2("/sys/fs/cgroup".into()));
}

#[test]
fn a_mount_that_shows_a_part_is_followed_from_there() {
    let mounts = [
        mount("cgroup", "/elsewhere", "/mnt", "rw,memory"),
        mount("cgroup", "/pod", "/sys/fs/cgroup/memory", "rw,memory"),
    ];
    let cgroup = locate("4:memory:/pod/c\n", &mounts).unwrap();
    assert_eq!(cgroup.dir("memory"), Some(Path::new("/sys/fs/cgroup/memory/c")));
    for outside in ["4:memory:/podium/c", "4:memory:/../pod", "0::/pod/c", ""] {
        assert!(locate(outside, &mounts).is_err(), "{outside}");
    }
}

#[test]
fn a_malformed_membership_is_an_error_of_one_sentence() {
    let error = locate("4:memory\n", &hybrid()).unwrap_err();
    assert_eq!(error.to_string(), "a line without two colons: \"4:memory\"");
}

#[test]
fn this_process_has_metrics_of_the_hosts_type() {
    let cgroup = Cgroup::of(std::process::id().cast_signed()).unwrap();
    let any = cgroup.metrics().unwrap();
    match cgroup {
        Cgroup::V1(_) => {
            use containerd_shim_protos::cgroups::metrics::Metrics;
            assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
            let metrics = Metrics::parse_from_bytes(&any.value).unwrap();
            if cgroup.dir("cpuacct").is_some() {
                assert!(metrics.cpu.usage.total > 0);
            }
            if cgroup.dir("memory").is_some() {
                assert!(metrics.memory.usage.limit > 0);
                assert!(cgroup.peak_memory() > Some(0));
            }
        }
        Cgroup::V2(_) => {
            use containerd_shim_protos::cgroups_v2::metrics::Metrics;
            assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
            assert!(Metrics::parse_from_bytes(&any.value).unwrap().cpu.usage_usec > 0);
        }
    }
}

#[test]
fn a_removed_cgroup_has_no_counts_and_is_no_error() {
    let gone = PathBuf::from("/sys/fs/cgroup/hull-shim-never-made");
    for cgroup in
        [Cgroup::V1(COUNTING.map(|name| (name, gone.clone())).to_vec()), Cgroup::V2(gone.clone())]
    {
        cgroup.metrics().unwrap();
        assert_eq!(cgroup.peak_memory(), None);
    }
}
