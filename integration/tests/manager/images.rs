//! Images: from and to archives, by name, and made of containers.

use std::path::Path;

use hull_integration::engine::{
    Engine, Hull, Registry, Site, busybox_archive, command, debian_archive, oci_layout, reference,
};
use hull_integration::{NotRun, not_run, tests};

tests![
    an_import_runs,
    changes_of_an_import_are_in_effect,
    tags_name_the_same_image,
    an_image_in_use_is_not_removed,
    save_and_load_give_the_same_image,
    several_images_in_one_archive,
    an_oci_archive_is_loaded,
    commit_makes_an_image_of_a_container,
    commit_with_changes,
    export_is_the_root,
    diff_shows_what_changed,
    what_every_root_gets_is_no_change,
    copies_go_both_ways,
    history_tells_the_steps,
    images_are_listed_and_filtered,
    prune_removes_what_has_no_name,
    bad_archives_are_refused,
    a_debian_runs,
    ids_are_docker_s,
    images_of_umoci_are_loaded_and_pulled,
    umoci_unpacks_what_is_pushed,
    hosts_toml_says_where_a_registry_is,
    a_root_is_imported_from_a_url,
    containers_are_found_by_patterns_of_names,
];

fn an_import_runs() {
    let engine = Engine::start();
    let id = engine.run(&["import", busybox_archive(), "other:1"]).ok().text().to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    engine
        .run(&["run", "--rm", "--network", "none", "other:1", "echo", "hello"])
        .ok()
        .says("hello");
}

fn changes_of_an_import_are_in_effect() {
    let engine = Engine::start();
    let changes = [
        "ENV A=1 B=2",
        "CMD [\"sh\", \"-c\", \"echo $A$B $(pwd) $(id -u)\"]",
        "WORKDIR /tmp",
        "USER user",
        "LABEL x=y",
        "EXPOSE 80",
        "VOLUME /data",
    ];
    let mut words = vec!["import"];
    for change in &changes {
        words.extend(["--change", change]);
    }
    words.extend(["--message", "made", busybox_archive(), "changed"]);
    engine.run(&words).ok();
    engine.run(&["run", "--rm", "--network", "none", "changed"]).ok().says("12 /tmp 1000");
    assert_eq!(
        engine.inspect("changed", "{{.Config.Labels.x}} {{.Config.User}} {{.Comment}}"),
        "y user made"
    );
    engine.run(&["import", "--change", "NONSENSE x", busybox_archive(), "bad"]).exits(1);
}

fn tags_name_the_same_image() {
    let engine = Engine::start();
    engine.run(&["tag", "busybox", "localhost:5000/a/b:1"]).ok();
    assert_eq!(
        engine.inspect("localhost:5000/a/b:1", "{{.Id}}"),
        engine.inspect("busybox", "{{.Id}}")
    );
    engine.run(&["rmi", "busybox"]).ok().says("Untagged: busybox:latest");
    engine.run(&["run", "--rm", "--network", "none", "localhost:5000/a/b:1", "true"]).ok();
    engine.run(&["tag", "no", "x"]).exits(1).stderr_says("No such image: no");
    engine
        .run(&["tag", "localhost:5000/a/b:1", "UPPER"])
        .exits(1)
        .stderr_says("repository name must be lowercase");
}

fn an_image_in_use_is_not_removed() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    let refusal = engine.run(&["rmi", "busybox"]).exits(1);
    refusal.stderr_says("conflict: unable to");
    engine.run(&["rm", "-f", "one"]).ok();
    engine.run(&["rmi", "busybox"]).ok();
    engine.run(&["images", "-q"]).ok().says("");
}

fn save_and_load_give_the_same_image() {
    let engine = Engine::start();
    let id = engine.inspect("busybox", "{{.Id}}");
    let file = engine.site().path("saved.tar");
    engine.run(&["save", "-o", &file, "busybox"]).ok();
    engine.run(&["rmi", "busybox"]).ok();
    engine.run(&["load", "-i", &file]).ok().says("Loaded image: busybox:latest");
    assert_eq!(engine.inspect("busybox", "{{.Id}}"), id);
    engine.shell(&[], "echo works").ok().says("works");
    // And through a pipe, compressed.
    let line = format!("gzip -c {file} | {}", engine.words(&["load"]).join(" "));
    command(&["/bin/sh", "-c", &line]).run().ok().says("Loaded image: busybox:latest");
}

fn several_images_in_one_archive() {
    let engine = Engine::start();
    engine.run(&["tag", "busybox", "one:1"]).ok();
    engine.run(&["import", "--change", "ENV X=1", busybox_archive(), "two:2"]).ok();
    let file = engine.site().path("saved.tar");
    engine.run(&["save", "-o", &file, "one:1", "two:2"]).ok();
    engine.run(&["rmi", "one:1", "two:2", "busybox"]).ok();
    let loaded = engine.run(&["load", "-i", &file]).ok();
    for name in ["one:1", "two:2"] {
        assert!(
            loaded.text().contains(&format!("Loaded image: {name}")),
            "{}",
            loaded.transcript()
        );
        engine.run(&["run", "--rm", "--network", "none", name, "true"]).ok();
    }
}

fn an_oci_archive_is_loaded() {
    if reference() {
        not_run(NotRun::PeerLacks("docker 20.10: it is from before OCI archives".into()));
    }
    let engine = Engine::start();
    let loaded = engine.run(&["load", "-i", oci_layout()]).ok();
    assert!(loaded.text().contains("localhost/busybox:latest"), "{}", loaded.transcript());
    engine
        .run(&["run", "--rm", "--network", "none", "localhost/busybox", "echo", "hello"])
        .ok()
        .says("hello");
}

fn commit_makes_an_image_of_a_container() {
    let engine = Engine::start();
    engine
        .run(&[
            "run",
            "--name",
            "one",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "echo made > /made; rm /etc/group; mkdir /d; chown 5:6 /d",
        ])
        .ok();
    let id = engine
        .run(&["commit", "-a", "me", "-m", "why", "one", "committed:1"])
        .ok()
        .text()
        .to_owned();
    assert!(id.starts_with("sha256:"), "{id}");
    // Docker links /etc/mtab in each container.
    let look = "cat /made; ls /etc | grep -v mtab; stat -c %u:%g /d";
    engine
        .run(&["run", "--rm", "--network", "none", "committed:1", "sh", "-c", look])
        .ok()
        .says("made\nhostname\nhosts\npasswd\nresolv.conf\n5:6");
    assert_eq!(engine.inspect("committed:1", "{{.Author}} {{.Comment}}"), "me why");
    assert_eq!(engine.inspect("committed:1", "{{len .RootFS.Layers}}"), "2");
}

fn commit_with_changes() {
    let engine = Engine::start();
    engine.sleeper("one", &["-e", "A=1"]);
    engine
        .run(&["commit", "-c", "CMD [\"sh\",\"-c\",\"echo $A $B\"]", "-c", "ENV B=2", "one", "c"])
        .ok();
    engine.run(&["run", "--rm", "--network", "none", "c"]).ok().says("1 2");
}

fn export_is_the_root() {
    let engine = Engine::start();
    engine.run(&["run", "--name", "one", "--network", "none", "busybox", "touch", "/made"]).ok();
    let file = engine.site().path("root.tar");
    engine.run(&["export", "-o", &file, "one"]).ok();
    let listed = command(&["tar", "-tf", &file]).run().ok();
    assert!(
        listed.lines().contains(&"made") && listed.lines().contains(&"bin/busybox"),
        "{}",
        listed.transcript()
    );
    engine.run(&["import", &file, "again"]).ok();
    engine.run(&["run", "--rm", "--network", "none", "again", "test", "-e", "/made"]).ok();
}

fn diff_shows_what_changed() {
    let engine = Engine::start();
    engine
        .run(&[
            "run",
            "--name",
            "one",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "echo x > /added; echo y >> /etc/passwd; rm /etc/group",
        ])
        .ok();
    let diff = engine.run(&["diff", "one"]).ok();
    let mut lines = diff.lines();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["A /added", "C /etc", "C /etc/passwd", "D /etc/group"],
        "{}",
        diff.transcript()
    );
}

/// Docker's init layer.
fn what_every_root_gets_is_no_change() {
    let engine = Engine::start();
    let site = engine.site();
    let script = "readlink /etc/mtab; test -e /.dockerenv && echo marked; echo x > /made";
    engine
        .run(&["run", "--name", "one", "--network", "none", "busybox", "sh", "-c", script])
        .ok()
        .says("/proc/mounts\nmarked");
    engine.run(&["diff", "one"]).ok().says("A /made");
    engine.run(&["commit", "one", "made"]).ok();
    let file = site.path("made.tar");
    engine.run(&["save", "-o", &file, "made"]).ok();
    let manifest = command(&["tar", "-xOf", &file, "manifest.json"]).run().ok().json();
    let layers = manifest[0]["Layers"].as_array().expect("it lists layers").clone();
    let top = layers.last().and_then(|layer| layer.as_str()).expect("there are two");
    let layers = site.make("layers");
    command(&["tar", "-xf", &file, "-C", &layers, top]).run().ok();
    command(&["tar", "-tf", &format!("{layers}/{top}")]).run().ok().says("made");
    // Of an image that has nothing at all.
    let nothing = site.path("nothing.tar");
    command(&["tar", "-cf", &nothing, "-T", "/dev/null"]).run().ok();
    engine.run(&["import", &nothing, "nothing"]).ok();
    engine.run(&["create", "--name", "bare", "nothing", "/x"]).ok();
    engine.run(&["diff", "bare"]).ok().says("");
    let exported = site.path("bare.tar");
    engine.run(&["export", "-o", &exported, "bare"]).ok();
    let listed = command(&["tar", "-tf", &exported]).run().ok();
    let mut names = listed.lines();
    names.sort_unstable();
    let expected = [
        ".dockerenv",
        "dev/",
        "dev/console",
        "dev/pts/",
        "dev/shm/",
        "etc/",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
        "proc/",
        "sys/",
    ];
    assert_eq!(names, expected);
    // What the container itself makes of it is one.
    let script = "rm /etc/mtab; echo own > /etc/mtab";
    engine.run(&["run", "--name", "two", "--network", "none", "busybox", "sh", "-c", script]).ok();
    let diff = engine.run(&["diff", "two"]).ok();
    assert!(diff.lines().iter().any(|line| line.ends_with(" /etc/mtab")), "{}", diff.text());
}

fn copies_go_both_ways() {
    let engine = Engine::start();
    engine.sleeper("one", &[]);
    let site = engine.site();
    let file = site.write("file", "text\n");
    engine.run(&["cp", &file, "one:/tmp/"]).ok();
    engine.run(&["cp", &file, "one:/tmp/renamed"]).ok();
    engine.run(&["exec", "one", "cat", "/tmp/file", "/tmp/renamed"]).ok().says("text\ntext");
    engine
        .run(&["exec", "one", "sh", "-c", "mkdir -p /d/e; echo deep > /d/e/f; ln -s e/f /d/link"])
        .ok();
    let back = site.path("back");
    engine.run(&["cp", "one:/d", &back]).ok();
    assert_eq!(std::fs::read_to_string(format!("{back}/e/f")).expect("it was copied"), "deep\n");
    assert_eq!(
        std::fs::read_link(format!("{back}/link")).expect("it is a link").to_str(),
        Some("e/f")
    );
    let directory = site.make("into");
    engine.run(&["cp", &format!("{back}/."), "one:/tmp/copied"]).ok();
    engine.run(&["exec", "one", "cat", "/tmp/copied/e/f"]).ok().says("deep");
    let line =
        format!("{} | tar -xf - -C {directory}", engine.words(&["cp", "one:/d/e", "-"]).join(" "));
    command(&["/bin/sh", "-c", &line]).run().ok();
    assert_eq!(
        std::fs::read_to_string(format!("{directory}/e/f")).expect("it was copied"),
        "deep\n"
    );
    // The words of docker since 23.
    let words = if reference() {
        "No such container:path: one:/none"
    } else {
        "ould not find the file /none in container one"
    };
    engine.run(&["cp", "one:/none", &directory]).exits(1).stderr_says(words);
    engine.run(&["stop", "-t", "20", "one"]).ok();
    engine.run(&["cp", "one:/tmp/file", &format!("{directory}/stopped")]).ok();
    assert_eq!(
        std::fs::read_to_string(format!("{directory}/stopped")).expect("it was copied"),
        "text\n"
    );
}

fn history_tells_the_steps() {
    let engine = Engine::start();
    engine.run(&["run", "--name", "one", "--network", "none", "busybox", "touch", "/made"]).ok();
    engine.run(&["commit", "-m", "second", "one", "two"]).ok();
    let history = engine.run(&["history", "--format", "{{.Comment}}", "two"]).ok();
    let lines = history.lines();
    assert_eq!((lines.len(), lines[0]), (2, "second"), "{}", history.transcript());
}

fn images_are_listed_and_filtered() {
    let engine = Engine::start();
    engine.run(&["tag", "busybox", "other:1"]).ok();
    let all = engine.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    let mut names = all.lines();
    names.sort_unstable();
    assert_eq!(names, ["busybox:latest", "other:1"]);
    engine.run(&["images", "-q", "other"]).ok();
    engine
        .run(&["images", "--filter", "reference=oth*", "--format", "{{.Repository}}"])
        .ok()
        .says("other");
    let table = engine.run(&["images"]).ok();
    assert!(
        table.lines()[0].split_whitespace().eq([
            "REPOSITORY",
            "TAG",
            "IMAGE",
            "ID",
            "CREATED",
            "SIZE"
        ]),
        "{}",
        table.transcript()
    );
    engine.run(&["images", "--filter", "nonsense=1"]).exits(1);
}

fn prune_removes_what_has_no_name() {
    let engine = Engine::start();
    engine.run(&["import", "--change", "ENV X=1", busybox_archive(), "one"]).ok();
    engine.run(&["import", "--change", "ENV X=2", busybox_archive(), "one"]).ok();
    assert_eq!(engine.run(&["images", "-q", "--filter", "dangling=true"]).ok().lines().len(), 1);
    engine.run(&["image", "prune", "--force"]).ok();
    engine.run(&["images", "-q", "--filter", "dangling=true"]).ok().says("");
    engine.run(&["run", "--rm", "--network", "none", "one", "true"]).ok();
}

fn bad_archives_are_refused() {
    let engine = Engine::start();
    let site = engine.site();
    let text = site.write("text", "this is no archive\n");
    engine.run(&["load", "-i", &text]).exits(1);
    engine.run(&["load", "-i", &site.path("missing")]).exits(1);
    let cut = site.path("cut.tar");
    std::fs::write(&cut, &std::fs::read(busybox_archive()).expect("it is there")[..100_000])
        .expect("the site is writable");
    engine.run(&["import", &cut, "cut"]).exits(1);
    engine.run(&["images", "-q", "cut"]).ok().says("");
}

fn a_debian_runs() {
    let engine = Engine::start();
    engine.run(&["import", debian_archive(), "debian"]).ok();
    let script = "dpkg --get-selections | grep -q '^bash' && id -un && perl -e 'print 6*7'";
    engine
        .run(&["run", "--rm", "--network", "none", "debian", "bash", "-c", script])
        .ok()
        .says("root\n42");
}

/// What one saves, the other loads, and it is the same image.
fn ids_are_docker_s() {
    if reference() {
        not_run(NotRun::PeerLacks("docker: it is compared with itself".into()));
    }
    let (hull, docker) = (Hull::start(), hull_integration::engine::Docker::start());
    let file = hull.site().path("saved.tar");
    hull.run(&["run", "--name", "one", "--network", "none", "busybox", "touch", "/made"]).ok();
    hull.run(&["commit", "one", "made:1"]).ok();
    hull.run(&["save", "-o", &file, "made:1"]).ok();
    docker.run(&["load", "-i", &file]).ok().says("Loaded image: made:1");
    let id = |output: hull_integration::Output| output.ok().text().to_owned();
    let format = ["inspect", "--format", "{{.Id}}"];
    assert_eq!(
        id(hull.run(&[&format[..], &["made:1"]].concat())),
        id(docker.run(&[&format[..], &["made:1"]].concat()))
    );
    let other = docker.site().path("saved.tar");
    docker.run(&["save", "-o", &other, "busybox"]).ok();
    hull.run(&["rm", "one"]).ok();
    hull.run(&["rmi", "busybox"]).ok();
    hull.run(&["load", "-i", &other]).ok();
    assert_eq!(
        id(hull.run(&[&format[..], &["busybox"]].concat())),
        id(docker.run(&[&format[..], &["busybox"]].concat()))
    );
}

/// A layout of umoci's own, with one image of the tag `made`.
fn made_by_umoci(site: &Site) -> String {
    let layout = site.path("layout");
    let image = format!("{layout}:made");
    let command = |words: &[&str]| drop(command(words).run().ok());
    command(&["umoci", "init", "--layout", &layout]);
    command(&["umoci", "new", "--image", &image]);
    command(&["umoci", "raw", "add-layer", "--image", &image, busybox_archive()]);
    let root = site.make("upper/etc");
    std::fs::write(format!("{root}/made"), "by umoci\n").expect("the site is writable");
    command(&["umoci", "insert", "--image", &image, &root, "/etc"]);
    command(&["umoci", "insert", "--image", &image, "--whiteout", "/etc/group"]);
    let look = ["--config.cmd", "cat", "--config.cmd", "/etc/made"];
    command(&[&["umoci", "config", "--image", &image], &look[..]].concat());
    layout
}

fn copy(words: &[&str]) {
    command(&[&["skopeo", "--insecure-policy", "copy"], words].concat()).run().ok();
}

fn images_of_umoci_are_loaded_and_pulled() {
    let engine = Engine::start();
    let site = engine.site();
    let registry = Registry::start(Path::new(&site.make("registry")));
    let layout = made_by_umoci(site);
    let name = format!("{}/umoci:1", registry.address);
    let target = format!("docker://{name}");
    copy(&["--dest-tls-verify=false", &format!("oci:{layout}:made"), &target]);
    engine.run(&["pull", &name]).ok();
    let ran = |image: &str| {
        engine.run(&["run", "--rm", "--network", "none", image]).ok().says("by umoci");
        let gone = ["run", "--rm", "--network", "none", image, "test", "!", "-e", "/etc/group"];
        engine.run(&gone).ok();
    };
    ran(&name);
    let id = engine.inspect(&name, "{{.Id}}");
    if reference() {
        return;
    }
    // The layout itself: its name is a tag alone, which is no image's name.
    engine.run(&["rmi", &name]).ok();
    let archive = site.path("layout.tar");
    command(&["tar", "-C", &layout, "-cf", &archive, "."]).run().ok();
    engine.run(&["load", "-i", &archive]).ok().says(&format!("Loaded image ID: {id}"));
    ran(&id);
}

fn umoci_unpacks_what_is_pushed() {
    let engine = Engine::start();
    let site = engine.site();
    let registry = Registry::start(Path::new(&site.make("registry")));
    let name = format!("{}/ours:1", registry.address);
    let script = "echo made > /made; rm /etc/group; ln -s made /link; chown 5:6 /made";
    engine.run(&["run", "--name", "one", "--network", "none", "busybox", "sh", "-c", script]).ok();
    engine.run(&["commit", "-c", "ENV A=1", "one", &name]).ok();
    engine.run(&["push", &name]).ok();
    let layout = site.path("layout");
    copy(&["--src-tls-verify=false", &format!("docker://{name}"), &format!("oci:{layout}:1")]);
    let bundle = site.path("bundle");
    command(&["umoci", "unpack", "--image", &format!("{layout}:1"), &bundle]).run().ok();
    let root = format!("{bundle}/rootfs");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).ok();
    assert_eq!(read("made").as_deref(), Some("made\n"));
    assert_eq!(read("link").as_deref(), Some("made\n"));
    assert_eq!(read("etc/group"), None);
    command(&["stat", "-c", "%u:%g", &format!("{root}/made")]).run().ok().says("5:6");
    let config = std::fs::read_to_string(format!("{bundle}/config.json")).expect("umoci made it");
    assert!(config.contains("\"A=1\""), "{config}");
}

fn a_root_is_imported_from_a_url() {
    let engine = Engine::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/root.tar", listener.local_addr().expect("it is bound"));
    let server = std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        let (stream, _) = listener.accept().expect("it listens");
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let first = lines.next().expect("a request begins so");
        while lines.next().is_some_and(|line| !line.is_empty()) {}
        let body = std::fs::read(busybox_archive()).expect("it is there");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        (&stream).write_all(&[head.as_bytes(), &body].concat()).expect("somebody reads");
        first
    });
    engine.run(&["import", &url, "fetched"]).ok();
    assert!(server.join().expect("it served").starts_with("GET /root.tar HTTP/1.1"));
    let words = ["run", "--rm", "--network", "none", "fetched", "echo", "hello"];
    engine.run(&words).ok().says("hello");
    assert_eq!(engine.inspect("fetched", "{{.Comment}}"), format!("Imported from {url}"));
}

fn containers_are_found_by_patterns_of_names() {
    let engine = Engine::start();
    for name in ["web-1", "web-22", "db"] {
        engine.run(&["create", "--name", name, "--network", "none", "busybox", "true"]).ok();
    }
    for (pattern, names) in [
        ("web", &["web-1", "web-22"][..]),
        ("^web-[0-9]$", &["web-1"]),
        ("^/db$", &["db"]),
        ("(1|db)$", &["db", "web-1"]),
        ("WEB", &[]),
        ("(?i)WEB-2+", &["web-22"]),
    ] {
        let filter = format!("name={pattern}");
        let found = engine.run(&["ps", "-a", "--format", "{{.Names}}", "--filter", &filter]).ok();
        let mut found = found.lines();
        found.sort_unstable();
        assert_eq!(found, names, "{pattern}");
    }
}

fn hosts_toml_says_where_a_registry_is() {
    if reference() {
        not_run(NotRun::PeerLacks("docker 20.10: it knows no hosts.toml".into()));
    }
    let words = tempfile::tempdir().expect("the temporary directory is writable");
    let directory = words.path().to_str().expect("the path is text");
    let hull = Hull::start_empty(&["--registry-config-dir", directory]);
    hull.run(&["import", busybox_archive(), "busybox"]).ok();
    let registry = Registry::start(Path::new(&hull.site().make("registry")));
    let place = words.path().join("nowhere.test");
    std::fs::create_dir(&place).expect("the directory is ours");
    std::fs::write(place.join("hosts.toml"), format!("server = \"http://{}\"\n", registry.address))
        .expect("the directory is ours");
    hull.run(&["tag", "busybox", "nowhere.test/a:1"]).ok();
    hull.run(&["push", "nowhere.test/a:1"]).ok();
    hull.run(&["rmi", "nowhere.test/a:1", "busybox"]).ok();
    hull.run(&["run", "--rm", "--network", "none", "nowhere.test/a:1", "true"]).ok();
}
