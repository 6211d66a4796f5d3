//! Volumes: named, anonymous, shared, filled from the image.

use hull_integration::engine::{Engine, busybox_archive};
use hull_integration::tests;

tests![
    a_volume_outlives_its_containers,
    two_containers_share_a_volume,
    an_empty_volume_gets_the_images_content,
    an_anonymous_volume_goes_with_its_container,
    a_volume_of_the_image,
    a_volume_in_use_is_not_removed,
    volumes_from_another_container,
    volumes_are_listed_filtered_and_pruned,
    a_volume_can_be_read_only,
    copies_see_what_is_mounted_and_do_not_replace_it,
    a_mounted_file_is_copied_before_the_first_start,
    names_are_checked,
];

fn a_volume_outlives_its_containers() {
    let engine = Engine::start();
    engine.run(&["volume", "create", "data"]).ok().says("data");
    engine.shell(&["-v", "data:/d"], "echo kept > /d/file").ok();
    engine
        .shell(&["--mount", "type=volume,source=data,target=/e"], "cat /e/file")
        .ok()
        .says("kept");
    let mountpoint = engine
        .run(&["volume", "inspect", "--format", "{{.Mountpoint}}", "data"])
        .ok()
        .text()
        .to_owned();
    assert_eq!(
        std::fs::read_to_string(format!("{mountpoint}/file")).expect("it is there"),
        "kept\n"
    );
    engine.run(&["volume", "rm", "data"]).ok().says("data");
    engine.run(&["volume", "inspect", "data"]).exits(1).stderr_says("o such volume");
}

fn two_containers_share_a_volume() {
    let engine = Engine::start();
    engine.sleeper("one", &["-v", "data:/d"]);
    engine.sleeper("two", &["-v", "data:/d"]);
    engine.run(&["exec", "one", "sh", "-c", "echo shared > /d/file"]).ok();
    engine.run(&["exec", "two", "cat", "/d/file"]).ok().says("shared");
    engine.run(&["rm", "-f", "one", "two"]).ok();
    engine.run(&["volume", "ls", "-q"]).ok().says("data");
    engine.run(&["volume", "rm", "data"]).ok();
}

fn an_empty_volume_gets_the_images_content() {
    let engine = Engine::start();
    engine.shell(&["-v", "data:/etc"], "ls /etc/passwd; rm /etc/group").ok().says("/etc/passwd");
    // A volume that has something is left alone.
    engine.shell(&["-v", "data:/etc"], "ls /etc | grep -c group").exits(1).says("0");
    engine
        .shell(
            &["--mount", "type=volume,source=empty,target=/etc,volume-nocopy"],
            "ls /etc | grep -c passwd",
        )
        .exits(1)
        .says("0");
    engine.shell(&["-v", "owner:/var/tmp"], "stat -c %a /var/tmp").ok().says("1777");
    engine.run(&["volume", "rm", "data", "empty", "owner"]).ok();
}

fn an_anonymous_volume_goes_with_its_container() {
    let engine = Engine::start();
    engine.shell(&["-v", "/d"], "touch /d/file").ok();
    engine.run(&["volume", "ls", "-q"]).ok().says("");
    engine.run(&["create", "--name", "one", "-v", "/d", "busybox", "true"]).ok();
    engine.run(&["rm", "one"]).ok();
    assert_eq!(engine.run(&["volume", "ls", "-q"]).ok().lines().len(), 1);
    engine.run(&["volume", "prune", "--force"]).ok();
    engine.run(&["volume", "ls", "-q"]).ok().says("");
    engine.run(&["create", "--name", "two", "-v", "/d", "busybox", "true"]).ok();
    engine.run(&["rm", "-v", "two"]).ok();
    engine.run(&["volume", "ls", "-q"]).ok().says("");
}

fn a_volume_of_the_image() {
    let engine = Engine::start();
    engine.run(&["import", "--change", "VOLUME /home", busybox_archive(), "with"]).ok();
    engine
        .run(&[
            "run",
            "--name",
            "one",
            "--network",
            "none",
            "with",
            "sh",
            "-c",
            "grep -c ' /home ' /proc/mounts",
        ])
        .ok()
        .says("1");
    assert_eq!(
        engine.inspect("one", "{{(index .Mounts 0).Destination}} {{(index .Mounts 0).Type}}"),
        "/home volume"
    );
    engine.run(&["rm", "-v", "one"]).ok();
    engine.run(&["volume", "ls", "-q"]).ok().says("");
}

fn a_volume_in_use_is_not_removed() {
    let engine = Engine::start();
    engine.run(&["create", "--name", "one", "-v", "data:/d", "busybox", "true"]).ok();
    engine.run(&["volume", "rm", "data"]).exits(1).stderr_says("volume is in use");
    engine.run(&["rm", "one"]).ok();
    engine.run(&["volume", "rm", "data"]).ok();
    engine.run(&["volume", "rm", "data"]).exits(1).stderr_says("o such volume");
    engine.run(&["volume", "rm", "--force", "data"]).ok();
}

fn volumes_from_another_container() {
    let engine = Engine::start();
    engine.sleeper("one", &["-v", "data:/d"]);
    engine.run(&["exec", "one", "sh", "-c", "echo there > /d/file"]).ok();
    engine.shell(&["--volumes-from", "one"], "cat /d/file").ok().says("there");
    engine.shell(&["--volumes-from", "one:ro"], "touch /d/x").exits(1).stderr_says("Read-only");
    engine
        .shell(&["--volumes-from", "none"], "true")
        .exits(125)
        .stderr_says("No such container: none");
    engine.run(&["rm", "-f", "one"]).ok();
    engine.run(&["volume", "rm", "data"]).ok();
}

fn volumes_are_listed_filtered_and_pruned() {
    let engine = Engine::start();
    engine.run(&["volume", "create", "--label", "a=1", "one"]).ok();
    engine.run(&["volume", "create", "two"]).ok();
    engine.run(&["create", "--name", "user", "-v", "two:/d", "busybox", "true"]).ok();
    engine.run(&["volume", "ls", "-q", "--filter", "label=a=1"]).ok().says("one");
    engine.run(&["volume", "ls", "-q", "--filter", "dangling=true"]).ok().says("one");
    engine.run(&["volume", "ls", "-q", "--filter", "name=tw"]).ok().says("two");
    let table = engine.run(&["volume", "ls"]).ok();
    assert!(
        table.lines()[0].split_whitespace().eq(["DRIVER", "VOLUME", "NAME"]),
        "{}",
        table.transcript()
    );
    engine.run(&["rm", "user"]).ok();
    engine.run(&["volume", "rm", "one", "two"]).ok();
}

fn a_volume_can_be_read_only() {
    let engine = Engine::start();
    engine.shell(&["-v", "data:/d:ro"], "touch /d/x").exits(1).stderr_says("Read-only");
    engine.run(&["volume", "rm", "data"]).ok();
}

fn copies_see_what_is_mounted_and_do_not_replace_it() {
    let engine = Engine::start();
    let site = engine.site();
    let bound = format!("{}:/etc/bound", site.write("bound", "bound\n"));
    let inner = format!("{}:/d/inner", site.write("inner", "inner\n"));
    let over = format!("{}:/over", site.make("over"));
    engine.sleeper("one", &["-v", &bound, "-v", "data:/d", "-v", &inner, "-v", &over]);
    let files = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/bound", "/d/inner"];
    let show = [&["exec", "one", "cat"][..], &files].concat();
    let before = engine.run(&show).ok().text().to_owned();
    assert!(before.ends_with("bound\ninner"), "{before}");
    let script = "grep -cE ' (/etc/(hosts|hostname|resolv.conf|bound)|/d|/d/inner|/over) ' \
        /proc/self/mountinfo";
    let mounted = || engine.run(&["exec", "one", "sh", "-c", script]).ok().says("7");
    mounted();
    let own = site.make("own");
    let file = site.write("own/hosts", "own\n");
    for path in files {
        let target = format!("one:{path}");
        engine.run(&["cp", &file, &target]).exits(1).stderr_says("device or resource busy");
    }
    engine
        .run(&["cp", &format!("{own}/."), "one:/etc"])
        .exits(1)
        .stderr_says("device or resource busy");
    mounted();
    assert_eq!(engine.run(&show).ok().text(), before);
    let back = site.make("back");
    for path in files {
        engine.run(&["cp", &format!("one:{path}"), &back]).ok();
    }
    engine.run(&["cp", "one:/etc", &back]).ok();
    engine.run(&["cp", "one:/d", &back]).ok();
    let read = |name: &str| std::fs::read_to_string(format!("{back}/{name}")).expect("it is there");
    let names = ["hosts", "hostname", "resolv.conf", "bound"];
    let alone: String = names.map(read).concat();
    assert_eq!(format!("{alone}{}", read("inner")).trim_end(), before);
    let within: String = names.map(|name| read(&format!("etc/{name}"))).concat();
    assert_eq!(format!("{within}{}", read("d/inner")).trim_end(), before);
    // What is put beneath a mount from above it goes there.
    let tree = site.make("tree/over");
    site.write("tree/over/made", "made\n");
    engine.run(&["cp", &format!("{tree}/../."), "one:/"]).ok();
    engine.run(&["exec", "one", "cat", "/over/made"]).ok().says("made");
    mounted();
}

fn names_are_checked() {
    let engine = Engine::start();
    engine.run(&["volume", "create", "a/b"]).exits(1);
    engine.run(&["volume", "create", "-d", "nonsense", "x"]).exits(1);
    engine.run(&["volume", "ls", "-q"]).ok().says("");
}

fn a_mounted_file_is_copied_before_the_first_start() {
    let engine = Engine::start();
    let site = engine.site();
    let file = site.write("file", "of the host\n");
    let mount = format!("{file}:/etc/here");
    engine.run(&["create", "--name", "one", "-v", &mount, "busybox", "true"]).ok();
    let copied = site.path("copied");
    engine.run(&["cp", "one:/etc/here", &copied]).ok();
    assert_eq!(std::fs::read_to_string(copied).expect("it was copied"), "of the host\n");
    let listed = engine.run(&["cp", "one:/etc/here", "-"]).ok();
    assert!(listed.text().starts_with("here\0"), "the name is the container's");
}
