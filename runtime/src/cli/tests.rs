//! The command line as a whole: from words to requests, for every option of the table and
//! for the very words that callers of runc send.

use std::path::PathBuf;

use super::{
    table::{COMMANDS, GLOBAL, Opt, Takes},
    *,
};

/// What the words mean, or the first error.
fn lowered(words: &[&str]) -> Result<(request::Global, lower::LogOptions, Action)> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let mut parsed = Parsed::default();
    parse::parse(&words, &mut parsed)?;
    let global = lower::global(&parsed.global, || Ok(PathBuf::from("/default")))?;
    Ok((global, lower::log_options(&parsed.global)?, lower::action(&parsed)?))
}

fn action(words: &[&str]) -> Action {
    lowered(words).unwrap().2
}

fn error(words: &[&str]) -> String {
    log::sentence(&lowered(words).unwrap_err())
}

macro_rules! expect {
    ($words:expr, $variant:ident) => {
        match action($words) {
            Action::$variant(request) => request,
            other => panic!("{other:?}"),
        }
    };
}

fn path(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text))
}

/// A value that the option takes and that is not its default.
fn sample(option: &Opt) -> Vec<String> {
    let value = match (option.name, option.takes) {
        (_, Takes::Nothing) => return vec![format!("--{}", option.name)],
        (_, Takes::OneOf(_, words)) => {
            words.iter().find(|word| Some(**word) != option.default).unwrap()
        }
        ("interval", _) => "7m",
        ("page-server", _) => "host:27",
        ("user", _) => "5:6",
        (_, Takes::Directory(_)) => "/usr",
        (_, Takes::File(_)) => "/usr/f",
        // A number is a size, a name and a list of processors as well.
        (_, Takes::Text(_) | Takes::Whole(_)) => "7",
    };
    vec![format!("--{}", option.name), value.to_owned()]
}

/// The fewest words that make a valid line of the command.
fn minimal(command: &table::Command) -> Vec<&'static str> {
    match command.name {
        "exec" => vec!["exec", "c", "true"],
        "completion" => vec!["completion", "bash"],
        name => [name, "c"][..=command.min_args].to_vec(),
    }
}

#[test]
fn no_option_is_parsed_and_ignored() {
    for command in COMMANDS {
        let plain = minimal(command);
        let without = format!("{:?}", action(&plain));
        for option in command.options {
            let given = sample(option);
            let mut words = vec![plain[0]];
            words.extend(given.iter().map(String::as_str));
            words.extend(&plain[1..]);
            assert_ne!(format!("{:?}", action(&words)), without, "{words:?}");
        }
    }
    let line = |words: &[&str]| {
        let (global, log, _) = lowered(words).unwrap();
        format!("{global:?} {log:?}")
    };
    for option in GLOBAL {
        let given = sample(option);
        let mut words: Vec<_> = given.iter().map(String::as_str).collect();
        words.push("list");
        assert_ne!(line(&words), line(&["list"]), "{words:?}");
    }
}

#[test]
fn every_letter_means_its_option() {
    for command in COMMANDS {
        let plain = minimal(command);
        for option in command.options {
            let Some(letter) = option.letter else { continue };
            let long = sample(option);
            let meaning = |name: String| {
                let mut words = vec![plain[0], name.as_str()];
                words.extend(long[1..].iter().map(String::as_str));
                words.extend(&plain[1..]);
                format!("{:?}", action(&words))
            };
            let spellings =
                [format!("-{letter}"), format!("--{letter}"), format!("-{}", option.name)];
            for spelling in spellings {
                assert_eq!(meaning(spelling.clone()), meaning(long[0].clone()), "{spelling}");
            }
        }
    }
}

#[test]
fn names_and_letters_are_unique() {
    let unique = |options: &[Opt]| {
        let mut names: Vec<_> = options.iter().map(|option| option.name).collect();
        names.extend(options.iter().filter_map(|option| option.letter));
        names.extend(["h", "help"]);
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
    };
    unique(GLOBAL);
    COMMANDS.iter().for_each(|command| unique(command.options));
}

#[test]
fn containerd_s_words_are_understood() {
    const ROOT: &[&str] = &[
        "--root",
        "/run/containerd/runc/k8s.io",
        "--debug",
        "--log",
        "/b/log.json",
        "--log-format",
        "json",
        "--systemd-cgroup",
        "--rootless=false",
    ];
    let with = |words: &[&'static str]| [ROOT, words].concat();

    let create = with(&[
        "create",
        "--bundle",
        "/b",
        "--pid-file",
        "/b/init.pid",
        "--console-socket",
        "/t/pty.sock",
        "--pidfd-socket",
        "/t/pidfd.sock",
        "--no-pivot",
        "--no-new-keyring",
        "--preserve-fds",
        "2",
        "web",
    ]);
    let (global, log, action) = lowered(&create).unwrap();
    assert_eq!(global.root, PathBuf::from("/run/containerd/runc/k8s.io"));
    assert!(global.systemd_cgroup);
    assert_eq!(global.rootless, Some(false));
    let expected =
        lower::LogOptions { file: path("/b/log.json"), format: log::Format::Json, debug: true };
    assert_eq!(log, expected);
    let Action::Create(create) = action else { panic!("{action:?}") };
    assert_eq!((create.id.as_str(), create.bundle.to_str()), ("web", Some("/b")));
    assert!(create.no_pivot && create.no_new_keyring);
    assert_eq!(create.attachment.pid_file, path("/b/init.pid"));
    assert_eq!(create.attachment.console_socket, path("/t/pty.sock"));
    assert_eq!(create.attachment.pidfd_socket, path("/t/pidfd.sock"));
    assert_eq!(create.attachment.preserve_fds, 2);

    let exec = expect!(
        &with(&[
            "exec",
            "--process",
            "/t/runc-process1",
            "--console-socket",
            "/t/pty.sock",
            "--detach",
            "--pid-file",
            "/b/exec.pid",
            "web",
        ]),
        Exec
    );
    assert!(
        matches!(exec.process, request::ExecProcess::File(file) if file == Path::new("/t/runc-process1"))
    );
    assert!(exec.attachment.detach);
    assert_eq!(exec.attachment.pid_file, path("/b/exec.pid"));

    let kill = expect!(&with(&["kill", "--all", "web", "9"]), Kill);
    assert_eq!((kill.signal, kill.all), (9, true));
    let kill = expect!(&with(&["kill", "web", "15"]), Kill);
    assert_eq!((kill.signal, kill.all), (15, false));
    assert!(expect!(&with(&["delete", "--force", "web"]), Delete).force);
    assert_eq!(expect!(&with(&["start", "web"]), Start).as_str(), "web");
    assert_eq!(expect!(&with(&["state", "web"]), State).as_str(), "web");
    assert_eq!(expect!(&with(&["pause", "web"]), Pause).as_str(), "web");
    assert_eq!(expect!(&with(&["resume", "web"]), Resume).as_str(), "web");
    let list = self::action(&with(&["list", "--format=json"]));
    assert!(matches!(list, Action::List { format: Listing::Json, quiet: false }));
    let ps = self::action(&with(&["ps", "--format", "json", "web"]));
    assert!(matches!(ps, Action::Ps { format: Listing::Json, .. }));
    let ps = self::action(&with(&["ps", "--format", "table", "web", "-o", "pid,cmd"]));
    assert!(matches!(ps, Action::Ps { options, .. } if options == ["-o", "pid,cmd"]));
    let update = self::action(&with(&["update", "--resources=-", "web"]));
    assert!(matches!(update, Action::Update { file, .. } if file == path("-")));
    let events = expect!(&with(&["events", "--stats", "web"]), Events);
    assert!(events.once);
    let events = expect!(&with(&["events", "--interval=60s", "web"]), Events);
    assert_eq!((events.once, events.interval_ms), (false, 60_000));

    let checkpoint = expect!(
        &with(&[
            "checkpoint",
            "--image-path",
            "/i",
            "--work-path",
            "/w",
            "--parent-path",
            "../p",
            "--tcp-established",
            "--ext-unix-sk",
            "--shell-job",
            "--page-server",
            "127.0.0.1:99",
            "--file-locks",
            "--manage-cgroups-mode",
            "soft",
            "--empty-ns",
            "network",
            "--lazy-pages",
            "--status-fd",
            "3",
            "--leave-running",
            "web",
        ]),
        Checkpoint
    );
    assert_eq!(checkpoint.criu.image_path, PathBuf::from("/i"));
    assert_eq!(checkpoint.criu.status_fd, Some(3));
    assert_eq!(checkpoint.criu.empty_ns, ["network"]);
    assert_eq!(checkpoint.page_server.as_deref(), Some("127.0.0.1:99"));
    assert!(checkpoint.leave_running && checkpoint.criu.file_locks && !checkpoint.pre_dump);

    let restore = expect!(
        &with(&[
            "restore",
            "--image-path",
            "/i",
            "--work-path",
            "/w",
            "--detach",
            "--pid-file",
            "/b/p",
            "--no-pivot",
            "-no-subreaper",
            "--bundle",
            "/b",
            "web",
        ]),
        Restore
    );
    assert!(restore.run.no_subreaper && restore.run.create.attachment.detach);
    assert!(restore.run.create.no_pivot);
}

#[test]
fn conmon_s_words_are_understood() {
    let create = expect!(
        &[
            "--systemd-cgroup",
            "--log-format=json",
            "--log",
            "/c/oci-log",
            "create",
            "--bundle",
            "/c/userdata",
            "--pid-file",
            "/run/c/pidfile",
            "--no-pivot",
            "--no-new-keyring",
            "--console-socket",
            "/tmp/conmon-term.X",
            "f00d",
        ],
        Create
    );
    assert_eq!(create.attachment.console_socket, path("/tmp/conmon-term.X"));
    // conmon says --tty beside --process; the file decides.
    let exec = expect!(
        &[
            "exec",
            "--pid-file",
            "/c/exec_pid",
            "--process",
            "/c/exec-process-1",
            "--detach",
            "--tty",
            "--console-socket",
            "/tmp/conmon-term.X",
            "f00d",
        ],
        Exec
    );
    assert!(matches!(exec.process, request::ExecProcess::File(_)));
    let restore = expect!(
        &[
            "restore",
            "--bundle",
            "/c/userdata",
            "--pid-file",
            "/run/c/pidfile",
            "--detach",
            "--image-path",
            "/c/checkpoint",
            "--work-path",
            "/c/userdata",
            "--tcp-established",
            "f00d",
        ],
        Restore
    );
    assert!(restore.criu.tcp_established);
    assert_eq!(restore.run.create.attachment.pid_file, path("/run/c/pidfile"));
}

#[test]
fn podman_s_and_cri_o_s_words_are_understood() {
    assert_eq!(expect!(&["kill", "--all", "f00d", "15"], Kill).signal, 15);
    let kill = expect!(&["--root", "/run/runc", "kill", "-a", "f00d", "KILL"], Kill);
    assert_eq!((kill.signal, kill.all), (9, true));
    assert!(expect!(&["delete", "--force", "f00d"], Delete).force);
    let update = action(&["update", "--resources", "-", "f00d"]);
    assert!(matches!(update, Action::Update { file, .. } if file == path("-")));
    // podman asks like this whether pods can be restored, and looks for these words.
    let asked = error(&["restore", "--lsm-mount-context"]);
    assert_eq!(asked, "flag needs an argument: --lsm-mount-context");
    // Both ask like this whether containers can be saved, and look at the exit code.
    let words = ["checkpoint", "--help"].map(OsString::from);
    let mut parsed = Parsed::default();
    parse::parse(&words, &mut parsed).unwrap();
    assert!(parsed.help);
}

#[test]
fn exec_hands_on_the_command_untouched() {
    let changes = |words: &[&str]| match expect!(words, Exec).process {
        request::ExecProcess::Changed(changes) => *changes,
        file => panic!("{file:?}"),
    };
    let given = changes(&[
        "exec",
        "-t",
        "-e",
        "A=b,c",
        "--env=D=",
        "-u",
        "1000:100",
        "-g",
        "5",
        "-g=6",
        "--cwd",
        "/w",
        "-c",
        "CAP_KILL",
        "--no-new-privs=false",
        "c",
        "ls",
        "-t",
        "--help",
        "--",
        "x",
    ]);
    assert_eq!(given.args, ["ls", "-t", "--help", "--", "x"]);
    assert_eq!(given.env, ["A=b,c", "D="]);
    assert_eq!(given.user, Some((1000, Some(100))));
    assert_eq!(given.additional_gids, [5, 6]);
    assert_eq!(given.cwd.as_deref(), Some("/w"));
    assert_eq!(given.capabilities, ["CAP_KILL"]);
    assert_eq!(given.no_new_privileges, Some(false));
    assert!(given.terminal);

    let plain = changes(&["exec", "c", "--", "ls"]);
    assert_eq!(plain.args, ["ls"]);
    assert_eq!(plain.no_new_privileges, None);
    assert_eq!(changes(&["exec", "--", "c", "ls", "--"]).args, ["ls", "--"]);
    assert_eq!(changes(&["exec", "c", "--", "--", "ls"]).args, ["--", "ls"]);
    assert_eq!(changes(&["exec", "-u", "7", "c", "id"]).user, Some((7, None)));
    let exec = expect!(&["exec", "--cgroup", "cpu,memory:sub", "--cgroup=pids:x", "c", "sh"], Exec);
    assert_eq!(exec.cgroups, ["cpu,memory:sub", "pids:x"]);
}

#[test]
fn options_come_in_any_place_and_the_last_one_counts() {
    let delete = expect!(&["delete", "c", "--force"], Delete);
    assert!(delete.force);
    assert!(!expect!(&["delete", "--force", "-f=false", "c"], Delete).force);
    assert!(expect!(&["delete", "-force=T", "c"], Delete).force);
    let run = expect!(&["run", "-b", "/a", "c", "--bundle=/usr//lib/", "-d"], Run);
    assert_eq!(run.create.bundle, PathBuf::from("/usr/lib"));
    assert_eq!(expect!(&["delete", "--", "c"], Delete).id.as_str(), "c");
    assert_eq!(expect!(&["delete", "--", "-f"], Delete).id.as_str(), "-f");
    let (global, ..) = lowered(&["state", "c", "--root", "/r", "--debug"]).unwrap();
    assert_eq!(global.root, PathBuf::from("/r"));
    let (global, .., action) = lowered(&["spec", "--rootless", "--bundle", "/usr"]).unwrap();
    assert_eq!(global.rootless, None);
    assert!(matches!(action, Action::Spec { rootless: true, .. }));
}

#[test]
fn empty_values_mean_nothing() {
    let create =
        expect!(&["create", "--console-socket", "", "--pid-file=", "-b", "/", "c"], Create);
    assert_eq!((create.attachment.console_socket, create.attachment.pid_file), (None, None));
    assert_eq!(expect!(&["kill", "c", ""], Kill).signal, libc::SIGTERM);
}

#[test]
fn relative_paths_are_relative_to_the_caller() {
    let here = env::current_dir().unwrap();
    let create = expect!(&["create", "--pid-file", "x/../y", "c"], Create);
    assert_eq!(create.bundle, here);
    assert_eq!(create.attachment.pid_file, Some(here.join("y")));
    let create = expect!(&["create", "-b", "src/../src", "c"], Create);
    assert_eq!(create.bundle, here.join("src").canonicalize().unwrap());
    let checkpoint = expect!(&["checkpoint", "c"], Checkpoint);
    assert_eq!(checkpoint.criu.image_path, here.join("checkpoint"));
    assert_eq!(lowered(&["--root", "r/./s", "list"]).unwrap().0.root, here.join("r/s"));
    assert_eq!(lowered(&["list"]).unwrap().0.root, PathBuf::from("/default"));
}

#[test]
fn mistakes_are_named_as_runc_names_them() {
    for (words, message) in [
        (&["nope"][..], "unknown command \"nope\""),
        (&["--nope", "list"], "flag provided but not defined: -nope"),
        (&["list", "-nope=1"], "flag provided but not defined: -nope"),
        (&["list", "-version"], "flag provided but not defined: -version"),
        (&["exec", "-it", "c", "sh"], "flag provided but not defined: -it"),
        (&["create", "c", "--bundle"], "flag needs an argument: --bundle"),
        (&["create"], "hull-runtime: \"create\" requires exactly 1 argument(s)"),
        (&["state", "a", "b"], "hull-runtime: \"state\" requires exactly 1 argument(s)"),
        (&["list", "x"], "hull-runtime: \"list\" requires exactly 0 argument(s)"),
        (&["exec"], "hull-runtime: \"exec\" requires a minimum of 1 argument(s)"),
        (&["kill", "c", "9", "x"], "hull-runtime: \"kill\" requires a maximum of 2 argument(s)"),
        (&["exec", "c"], "exec args cannot be empty"),
        (&["state", ""], "container id cannot be empty"),
        (&["kill", "c", "-9"], "unknown signal \"-9\""),
        (&["kill", "c", "FOO"], "unknown signal \"FOO\""),
        (
            &["delete", "--force=maybe", "c"],
            "invalid boolean value \"maybe\" for flag -force: not true or false",
        ),
        (
            &["create", "--preserve-fds", "x", "c"],
            "invalid value \"x\" for flag -preserve-fds: not a whole number",
        ),
        (&["create", "--preserve-fds=-1", "c"], "invalid value \"-1\" for flag -preserve-fds"),
        (
            &["--rootless", "maybe", "list"],
            "invalid value \"maybe\" for flag -rootless: not true, false or auto",
        ),
        (&["--log-format", "xml", "list"], "invalid log-format: xml"),
        (&["--root", "/a/..", "list"], "the root directory must not be /"),
        (&["--root=", "list"], "the root directory is not named"),
        (&["list", "-f", "xml"], "invalid format option"),
        (&["ps", "-f", "xml", "c"], "invalid format option"),
        (&["exec", "-u", "root", "c", "sh"], "bad uid: \"root\" is not a number"),
        (&["exec", "-u", "0:wheel", "c", "sh"], "bad gid: \"wheel\" is not a number"),
        (&["exec", "-g", "-5", "c", "sh"], "additional-gids must be a positive number -5"),
        (&["events", "--interval", "0", "c"], "duration interval must be greater than 0"),
        (
            &["events", "--interval", "5", "c"],
            "invalid value \"5\" for flag -interval: not a duration",
        ),
        (
            &["events", "--interval", "-5s", "c"],
            "invalid value \"-5s\" for flag -interval: not a duration",
        ),
        (&["update", "--memory", "1x", "c"], "invalid value for memory: invalid suffix: 'x'"),
        (
            &["update", "--cpu-share", "-1", "c"],
            "invalid value for cpu-share: \"-1\" is not a number",
        ),
        (&["checkpoint", "--parent-path", "/p", "c"], "--parent-path must be relative"),
        (&["checkpoint", "--empty-ns", "pid", "c"], "namespace \"pid\" is not supported"),
        (
            &["checkpoint", "--page-server", "x", "c"],
            "use --page-server ADDRESS:PORT to specify page server",
        ),
        (&["checkpoint", "--page-server", "x:y", "c"], "invalid port number \"y\""),
        (
            &["restore", "--manage-cgroups-mode", "x", "c"],
            "invalid manage-cgroups-mode \"x\": not soft, full, strict or ignore",
        ),
        (&["create", "-b", "no/such", "c"], "find bundle no/such: no such file or directory"),
    ] {
        assert_eq!(error(words), message, "{words:?}");
    }
    assert!(error(&["state", "../x"]).starts_with("invalid container ID format: \"../x\""));
}

#[test]
fn a_mistake_leaves_the_log_of_the_options_before_it() {
    let words = ["--log", "/l", "--log-format=json", "create", "--nope"].map(OsString::from);
    let mut parsed = Parsed::default();
    parse::parse(&words, &mut parsed).unwrap_err();
    let log = lower::log_options(&parsed.global).unwrap();
    assert_eq!((log.file, log.format), (path("/l"), log::Format::Json));
}

#[test]
fn update_changes_what_is_given_and_nothing_else() {
    let resources = |words: &[&str]| match action(words) {
        Action::Update { request, .. } => serde_json::to_value(request.resources).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(resources(&["update", "c"]), serde_json::json!({}));
    assert_eq!(
        resources(&[
            "update",
            "--memory",
            "64m",
            "--memory-swap=-1",
            "--cpu-quota",
            "-1",
            "--cpu-share",
            "512",
            "--cpuset-cpus",
            "0-1",
            "--pids-limit",
            "0",
            "--blkio-weight",
            "100",
            "c",
        ]),
        serde_json::json!({
            "memory": {"limit": 64 << 20, "swap": -1},
            "cpu": {"quota": -1, "shares": 512, "cpus": "0-1"},
            "pids": {"limit": 0},
            "blockIO": {"weight": 100},
        })
    );
}

#[test]
fn durations_are_go_s() {
    let interval = |text: &str| expect!(&["events", "--interval", text, "c"], Events).interval_ms;
    for (text, ms) in [
        ("5s", 5000),
        ("1m30s", 90_000),
        ("1.5h", 5_400_000),
        ("500ms", 500),
        ("1us", 1),
        (".5s", 500),
    ] {
        assert_eq!(interval(text), ms, "{text}");
    }
}

#[test]
fn too_long_or_malformed_resources_are_refused() {
    let long = io::repeat(b' ');
    assert_eq!(read_bounded(long).unwrap_err().to_string(), "more than 16777216 bytes");
    let file = tempfile::NamedTempFile::new().unwrap();
    let read = |text: &str| {
        std::fs::write(file.path(), text).unwrap();
        read_resources(file.path())
    };
    assert_eq!(read("{\"pids\":{\"limit\":5}}\n").unwrap().pids.unwrap().limit, Some(5));
    assert_eq!(read("null").unwrap(), oci::Resources::default());
    assert!(read("{\"pids\":").is_err());
    assert!(read("").is_err());
    let missing = read_resources(Path::new("/no/such/file")).unwrap_err();
    assert_eq!(log::sentence(&missing), "open /no/such/file: no such file or directory");
}

#[test]
fn whatever_is_derived_from_the_table_shows_all_of_it() {
    let scripts = ["bash", "zsh", "fish"].map(|shell| completion::script(shell).unwrap());
    let program = [help::of(None), man::page(None).replace("\\-", "-")];
    for command in COMMANDS {
        let texts = [help::of(Some(command)), man::page(Some(command)).replace("\\-", "-")];
        for text in &texts {
            assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        }
        for text in program.iter().chain(&scripts) {
            assert!(text.contains(command.name), "{}", command.name);
        }
        for option in command.options {
            let name = format!("--{}", option.name);
            let listed = texts.iter().filter(|text| text.contains(&name)).count();
            assert_eq!(listed, if option.hidden { 0 } else { 2 }, "{name}");
            if !option.hidden {
                let fish = format!("-l {}", option.name);
                assert!(scripts.iter().all(|s| s.contains(&name) || s.contains(&fish)), "{name}");
            }
        }
    }
    for option in GLOBAL {
        let name = format!("--{}", option.name);
        assert!(program.iter().all(|text| text.contains(&name)), "{name}");
    }
    assert!(completion::script("tcsh").is_err());
}

#[test]
fn help_fits_a_terminal() {
    for command in std::iter::once(None).chain(COMMANDS.iter().map(Some)) {
        for line in help::of(command).lines() {
            assert!(line.chars().count() <= 96, "{line}");
        }
    }
}

#[test]
fn bash_takes_its_script_and_completes() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("hull-runtime");
    std::fs::write(&script, completion::script("bash").unwrap()).unwrap();
    let complete = |words: &str, at: usize| {
        let program = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={at}; _hull_runtime; echo ${{COMPREPLY[@]}}",
            script.display()
        );
        let output = std::process::Command::new("bash").args(["-c", &program]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("hull-runtime cr", 1), "create");
    assert_eq!(complete("hull-runtime --log-format j", 2), "json");
    assert_eq!(complete("hull-runtime --root /r --log f exec --det", 6), "--detach");
    assert_eq!(complete("hull-runtime list -f t", 3), "table");
    assert_eq!(complete("hull-runtime completion b", 2), "bash");
    assert_eq!(complete("hull-runtime kill --al", 2), "");
}

#[test]
fn no_words_make_it_panic() {
    let mut vocabulary: Vec<OsString> = COMMANDS.iter().map(|c| c.name.into()).collect();
    for option in COMMANDS.iter().flat_map(|command| command.options).chain(GLOBAL) {
        vocabulary.push(format!("--{}", option.name).into());
        vocabulary.push(format!("-{}=1", option.name).into());
    }
    let odd = ["", "-", "--", "---", "-=", "--=", "-1", "=", "c", "\0", "é", "-é", "1:", ":", "-h"];
    vocabulary.extend(odd.map(OsString::from));
    vocabulary.extend(
        [&b"\xff"[..], b"--\xff=\xfe", b"-b\xff"]
            .map(|bytes| std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())),
    );
    // A linear congruential generator: the same lines every time.
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let mut understood = 0;
    for _ in 0..20_000 {
        let mut words: Vec<OsString> = vec![COMMANDS[next(COMMANDS.len())].name.into()];
        words.extend((0..next(5)).map(|_| vocabulary[next(vocabulary.len())].clone()));
        let mut parsed = Parsed::default();
        if parse::parse(&words, &mut parsed).is_ok() && lower::action(&parsed).is_ok() {
            understood += 1;
        }
    }
    assert!(understood > 500, "only {understood} lines made sense");
}
