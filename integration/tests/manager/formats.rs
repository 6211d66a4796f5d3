//! What scripts read: the documents of `inspect`, templates, tables, events.

use hull_integration::engine::Engine;
use hull_integration::tests;
use serde_json::json;

tests![
    inspect_tells_how_mounts_were_asked_for,
    inspect_tells_what_is_closed,
    templates_do_what_gos_do,
    lists_have_the_fields_of_docker,
    the_engine_is_described_in_dockers_fields,
    events_are_filtered_by_several_keys,
];

fn json(engine: &Engine, name: &str, field: &str) -> serde_json::Value {
    let format = format!("{{{{json {field}}}}}");
    serde_json::from_str(&engine.inspect(name, &format)).expect("it is JSON")
}

fn inspect_tells_how_mounts_were_asked_for() {
    let engine = Engine::start();
    let directory = engine.site().make("shown");
    let bind = format!("{directory}:/b:ro");
    let other = format!("type=bind,src={directory},dst=/c,readonly,bind-propagation=rslave");
    let words = ["create", "--name", "one", "--network", "none", "-v", "data:/v", "-v", &bind]
        .into_iter()
        .chain(["-v", "/anonymous", "--tmpfs", "/t:size=1m", "--tmpfs", "/u", "--mount", &other])
        .chain(["--mount", "type=tmpfs,dst=/w,tmpfs-size=1m,tmpfs-mode=700"])
        .chain(["--mount", "type=volume,src=data,dst=/d", "busybox", "true"]);
    engine.run(&words.collect::<Vec<_>>()).ok();
    let mut binds: Vec<String> =
        serde_json::from_value(json(&engine, "one", ".HostConfig.Binds")).expect("a list of texts");
    binds.sort();
    assert_eq!(binds, [bind, "data:/v".to_owned()]);
    assert_eq!(
        json(&engine, "one", ".HostConfig.Mounts"),
        json!([
            {"Type": "bind", "Source": directory, "Target": "/c", "ReadOnly": true,
             "BindOptions": {"Propagation": "rslave"}},
            {"Type": "tmpfs", "Target": "/w", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 448}},
            {"Type": "volume", "Source": "data", "Target": "/d"},
        ])
    );
    assert_eq!(json(&engine, "one", ".HostConfig.Tmpfs"), json!({"/t": "size=1m", "/u": ""}));
    assert_eq!(json(&engine, "one", ".Config.Volumes"), json!({"/anonymous": {}}));
    let format =
        "{{range .Mounts}}{{.Type}} {{.Destination}} <{{.Mode}}> {{.RW}} {{.Propagation}}|{{end}}";
    let points = engine.inspect("one", format);
    let mut points: Vec<_> = points.split_terminator('|').map(str::trim).collect();
    points.sort_unstable();
    assert_eq!(
        points,
        [
            "bind /b <ro> false rprivate",
            "bind /c <> false rslave",
            "tmpfs /w <> true",
            "volume /anonymous <> true",
            "volume /d <z> true",
            "volume /v <z> true",
        ]
    );
}

fn inspect_tells_what_is_closed() {
    let engine = Engine::start();
    let create = |name: &str, options: &[&str]| {
        let words = [&["create", "--name", name], options, &["busybox", "true"]].concat();
        engine.run(&words).ok();
    };
    create("plain", &["--security-opt", "no-new-privileges"]);
    let masked = json(&engine, "plain", ".HostConfig.MaskedPaths");
    let masked = masked.as_array().expect("a list");
    assert!(masked.contains(&json!("/proc/kcore")), "{masked:?}");
    let closed = json(&engine, "plain", ".HostConfig.ReadonlyPaths");
    assert!(closed.as_array().expect("a list").contains(&json!("/proc/sys")));
    assert_eq!(json(&engine, "plain", ".HostConfig.SecurityOpt"), json!(["no-new-privileges"]));
    create(
        "open",
        &["--security-opt", "systempaths=unconfined", "--security-opt", "apparmor=unconfined"],
    );
    assert_eq!(json(&engine, "open", ".HostConfig.MaskedPaths"), json!([]));
    assert_eq!(json(&engine, "open", ".HostConfig.SecurityOpt"), json!(["apparmor=unconfined"]));
    assert_eq!(json(&engine, "open", ".AppArmorProfile"), json!("unconfined"));
    create("privileged", &["--privileged"]);
    assert_eq!(json(&engine, "privileged", ".HostConfig.MaskedPaths"), json!(null));
    assert_eq!(json(&engine, "privileged", ".HostConfig.SecurityOpt"), json!(["label=disable"]));
}

fn templates_do_what_gos_do() {
    let engine = Engine::start();
    engine.run(&["create", "--name", "one", "--label", "a=<b>", "busybox", "sh", "-c", "x"]).ok();
    for (template, text) in [
        ("{{define \"x\"}}<{{.}}>{{end}}{{template \"x\" .Name}}", "</one>"),
        ("{{range .Config.Cmd}}{{if eq . \"-c\"}}{{continue}}{{end}}{{.}}{{end}}", "shx"),
        (
            "{{print 1 2}}{{print \"a\" \"b\"}} {{printf \"%05d|%-3s|%q\" 42 \"a\" .Name}}",
            "1 2ab 00042|a  |\"/one\"",
        ),
        (
            "{{json .Config.Labels}} {{.Config.Labels.none}} {{'a'}} {{slice .Name 1 3}}",
            "{\"a\":\"<b>\"} <no value> 97 on",
        ),
        (
            "{{.HostConfig.RestartPolicy}} {{.HostConfig.PidsLimit}} {{.HostConfig.Binds}}",
            "{no 0} <nil> []",
        ),
    ] {
        assert_eq!(engine.inspect("one", template), text, "{template}");
    }
    for (template, code, words) in [
        (
            "{{.Nosuch}}",
            1,
            "template: :1:2: executing \"\" at <.Nosuch>: map has no entry for key \"Nosuch\"",
        ),
        ("{{eq 1 1.0}}", 1, "error calling eq: incompatible types for comparison"),
        ("{{.Name", 64, "template parsing error: template: :1: unclosed action"),
        ("{{foo}}", 64, "template parsing error: template: :1: function \"foo\" not defined"),
    ] {
        engine.run(&["inspect", "--format", template, "one"]).exits(code).stderr_says(words);
    }
}

fn lists_have_the_fields_of_docker() {
    let engine = Engine::start();
    engine.run(&["volume", "create", "--label", "a.some-key=b", "data"]).ok();
    let volumes = |format: &str| engine.run(&["volume", "ls", "--format", format]).ok();
    volumes("{{.Name}}:{{.Label \"a.some-key\"}}").says("data:b");
    let table = volumes("table {{.Name}}\\t{{.Label \"a.some-key\"}}");
    assert_eq!(table.lines(), ["VOLUME NAME   some key", "data          b"]);
    let words = ["create", "--name", "one", "--network", "none", "--tmpfs", "/t", "-v", "data:/d"];
    engine.run(&[&words[..], &["busybox", "sh", "-c", "echo 'a b'"]].concat()).ok();
    let ps = |words: &[&str]| engine.run(&[&["ps", "-a"], words].concat()).ok();
    ps(&["--no-trunc", "--format", "{{.Command}}"]).says("\"sh -c 'echo 'a b''\"");
    ps(&["--format", "{{.Command}} {{.Mounts}} {{.Networks}}"])
        .says("\"sh -c 'echo 'a b''\" data none");
    let whole = engine.run(&["system", "df", "-v", "--format", "{{json .}}"]).ok().json();
    for (list, name, value) in [
        ("/Volumes/0", "Links", "1"),
        ("/Containers/0", "Names", "one"),
        ("/Images/0", "Repository", "busybox"),
    ] {
        assert_eq!(
            whole.pointer(list).and_then(|row| row.get(name)),
            Some(&json!(value)),
            "{list}"
        );
    }
    let format = "{{range .Volumes}}{{.Name}} {{.Links}}{{end}}";
    engine.run(&["system", "df", "-v", "--format", format]).ok().says("data 1");
}

fn the_engine_is_described_in_dockers_fields() {
    let engine = Engine::start();
    for (words, text) in [
        (["info", "{{.IndexServerAddress}}"], "https://index.docker.io/v1/"),
        (["info", "{{.Swarm.LocalNodeState}} {{.ExperimentalBuild}}"], "inactive false"),
        (["info", "{{index (index .DriverStatus 0) 0}}"], "Backing Filesystem"),
        (["info", "{{slice .SystemTime 0 2}}"], "20"),
        (["version", "{{if .Server.APIVersion}}{{.Server.Os}}{{end}}"], "linux"),
        (["version", "{{if eq .Client.APIVersion .Server.APIVersion}}same{{end}}"], "same"),
    ] {
        let [command, format] = words;
        engine.run(&[command, "--format", format]).ok().says(text);
    }
    engine.run(&["info", "--format", "{{.Nosuch"]).exits(64);
}

fn events_are_filtered_by_several_keys() {
    let engine = Engine::start();
    engine.run(&["tag", "busybox", "other:1"]).ok();
    engine
        .run(&["create", "--name", "one", "--label", "a=1", "--network", "none", "busybox"])
        .exits(1);
    engine.run(&["create", "--name", "one", "--label", "a=1", "busybox", "true"]).ok();
    engine.run(&["create", "--name", "two", "--label", "a=2", "other:1", "true"]).ok();
    engine.run(&["rm", "two"]).ok();
    let events = |filters: &[&str]| {
        let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.none}}";
        let mut words = vec!["events", "--since", "1h", "--until", "0s", "--format", format];
        words.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
        let said = engine.run(&words).ok();
        said.lines().iter().map(|line| line.replace(" <no value>", "")).collect::<Vec<_>>()
    };
    let created = ["container create one", "container create two"];
    assert_eq!(events(&["type=container", "event=create"]), created);
    assert_eq!(events(&["scope=local", "type=container", "event=create", "label=a"]), created);
    assert_eq!(events(&["scope=swarm"]), [""; 0]);
    assert_eq!(
        events(&["label=a=2", "event=create", "event=destroy"]),
        ["container create two", "container destroy two"]
    );
    assert_eq!(
        events(&["image=other", "type=container", "event=destroy"]),
        ["container destroy two"]
    );
    assert_eq!(events(&["container=one", "event=destroy"]), [""; 0]);
}
