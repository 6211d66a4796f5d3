use hull_specs_image::ImageConfig;

use super::*;
use crate::defaults::example;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn image(set: impl FnOnce(&mut hull_specs_image::config::ContainerConfig)) -> ImageConfig {
    let mut image = ImageConfig::default();
    image.config.cmd = words("sh");
    set(&mut image.config);
    image
}

fn of(set: impl FnOnce(&mut v1::ContainerOptions), image: &ImageConfig) -> Result<Effective> {
    let mut asked = v1::ContainerOptions::default();
    set(&mut asked);
    effective(&asked, image, &example())
}

#[test]
fn entrypoint_and_command_are_merged_as_docker_does() {
    let cases = [
        // asked entrypoint, asked command, image's entrypoint, image's command, what runs
        (None, "", "", "sh", "sh"),
        (None, "ls -l", "", "sh", "ls -l"),
        (None, "", "entry", "sh", "entry sh"),
        (None, "ls", "entry", "sh", "entry ls"),
        (Some("mine"), "", "entry", "sh", "mine"),
        (Some("mine"), "ls", "entry", "sh", "mine ls"),
        (Some(""), "ls", "entry", "sh", "ls"),
    ];
    for (entrypoint, command, image_entrypoint, image_command, runs) in cases {
        let image = image(|c| {
            c.entrypoint = words(image_entrypoint);
            c.cmd = words(image_command);
        });
        let found = of(
            |o| {
                o.entrypoint = entrypoint.map(|text| v1::Words { words: words(text) });
                o.command = words(command);
            },
            &image,
        )
        .unwrap();
        assert_eq!(args(&found.options), words(runs), "{entrypoint:?} {command}");
    }
    let empty =
        |words: Vec<String>| of(|o| o.entrypoint = Some(v1::Words { words }), &image(|_| {}));
    for given in [vec![], vec![String::new()]] {
        assert_eq!(empty(given).unwrap_err().to_string(), "no command specified");
    }
}

#[test]
fn the_image_gives_what_was_not_asked_for() {
    let image = image(|c| {
        c.user = "app".into();
        c.working_dir = "/srv/".into();
        c.env = words("A=1 B=2");
        c.labels = [("a".into(), "image".into()), ("b".into(), "image".into())].into();
        c.stop_signal = "SIGINT".into();
        c.exposed_ports = [("80/tcp".into(), serde_json::json!({}))].into();
        c.volumes = [("/data".into(), serde_json::json!({}))].into();
    });
    let found = of(
        |o| {
            o.env = words("B=3");
            o.labels = [("b".to_owned(), "asked".to_owned())].into();
            o.expose = words("53/udp");
        },
        &image,
    )
    .unwrap()
    .options;
    assert_eq!((found.user.as_str(), found.working_dir.as_str()), ("app", "/srv"));
    assert_eq!(found.env, words("B=3 A=1"));
    assert_eq!((found.labels["a"].as_str(), found.labels["b"].as_str()), ("image", "asked"));
    assert_eq!(found.stop_signal, "SIGINT");
    assert_eq!(found.expose, words("53/udp 80/tcp"));
    assert!(mounts::is_anonymous(&found.mounts[0]) && found.mounts[0].target == "/data");
}

#[test]
fn the_manager_gives_the_rest() {
    let found = of(|_| {}, &image(|_| {})).unwrap().options;
    assert_eq!((found.runtime.as_str(), found.network_mode.as_str()), ("hull", "default"));
    assert_eq!((found.ipc_mode.as_str(), found.cgroupns_mode.as_str()), ("private", "private"));
    assert_eq!((found.shm_size_bytes, found.init), (64 << 20, Some(false)));
    assert_eq!(found.log.unwrap().driver, "json-file");
    let mut defaults = example();
    defaults.host.cgroup_v2 = false;
    let found = effective(&v1::ContainerOptions::default(), &image(|_| {}), &defaults).unwrap();
    assert_eq!(found.options.cgroupns_mode, "host");
}

#[test]
fn what_is_in_effect_does_not_change_when_it_is_asked_for_again() {
    let image = image(|c| {
        c.entrypoint = words("entry");
        c.env = words("A=1");
        c.volumes = [("/data".into(), serde_json::json!({}))].into();
        c.exposed_ports = [("80/tcp".into(), serde_json::json!({}))].into();
    });
    let once = of(
        |o| {
            o.cap_add = words("net_admin");
            o.resources = Some(v1::Resources { memory_bytes: 8 << 20, ..Default::default() });
        },
        &image,
    )
    .unwrap();
    let twice = effective(&once.options, &image, &example()).unwrap();
    assert_eq!(once.options, twice.options);
}

#[test]
fn what_makes_no_sense_is_refused_in_dockers_words() {
    type Set = fn(&mut v1::ContainerOptions);
    let cases: [(Set, &str); 21] = [
        (
            |o| o.working_dir = "a".into(),
            "the working directory 'a' is invalid, it needs to be an absolute path",
        ),
        (|o| o.env = words("=x"), "invalid environment variable: =x"),
        (|o| o.stop_signal = "FOO".into(), "invalid signal: FOO"),
        (|o| o.user = "a\nb".into(), "invalid user: \"a\\nb\""),
        (|o| o.user = "4294967296".into(), "uids and gids must be in range 0-2147483647"),
        (|o| o.runtime = "x".into(), "unknown or invalid runtime name: x"),
        (
            |o| {
                o.auto_remove = true;
                o.restart = Some(v1::RestartPolicy { name: Name::Always.into(), max_retries: 0 })
            },
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            |o| o.restart = Some(v1::RestartPolicy { name: Name::Always.into(), max_retries: 1 }),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            |o| o.restart = Some(v1::RestartPolicy { name: 9, max_retries: 0 }),
            "invalid restart policy: unknown policy '9'",
        ),
        (|o| o.cap_add = words("foo"), "invalid CapAdd: unknown capability: \"CAP_FOO\""),
        (|o| o.security_options = words("x"), "invalid --security-opt 1: \"x\""),
        (
            |o| o.oom_score_adj = Some(1001),
            "Invalid value 1001, range for oom score adj is [-1000, 1000]",
        ),
        (
            |o| drop(o.annotations.insert(String::new(), "x".into())),
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        (|o| o.ipc_mode = "x".into(), "invalid IPC mode: x"),
        (|o| drop(o.sysctls.insert("vm.x".into(), "1".into())), "sysctl 'vm.x' is not allowed"),
        (|o| o.volumes_from = words(":ro"), "volumes-from specification cannot be an empty string"),
        (|o| o.device_cgroup_rules = words("x"), "invalid device cgroup rule format: 'x'"),
        (
            |o| o.cgroup_parent = "/a/../../b".into(),
            "invalid cgroup-parent: /a/../../b leaves its directory",
        ),
        (|o| o.expose = words("80/http"), "invalid port specification: \"80/http\""),
        (|o| o.cdi_devices = words("gpu"), "unresolvable CDI devices gpu"),
        (
            |o| o.resources = Some(v1::Resources { memory_bytes: 1, ..Default::default() }),
            "Minimum memory limit allowed is 6MB",
        ),
    ];
    for (set, text) in cases {
        assert_eq!(of(set, &image(|_| {})).unwrap_err().to_string(), text);
    }
}

#[test]
fn systemd_wants_slices() {
    let defaults = Defaults { systemd_cgroups: true, ..example() };
    let with = |parent: &str| {
        let asked = v1::ContainerOptions { cgroup_parent: parent.into(), ..Default::default() };
        effective(&asked, &image(|_| {}), &defaults)
    };
    assert!(with("a.slice").is_ok() && with("").is_ok());
    assert!(with("/a").is_err() && with(".slice").is_err());
}
