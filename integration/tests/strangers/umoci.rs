//! A bundle that umoci made, run by the runtime without an engine.

use hull_integration::engine::{Site, command, oci_layout, runtime_path};
use hull_integration::tests;

tests![a_bundle_unpacked_by_umoci_runs,];

fn a_bundle_unpacked_by_umoci_runs() {
    let site = Site::new();
    let (layout, bundle) = (site.path("layout"), site.path("bundle"));
    let source = format!("oci-archive:{}:localhost/busybox:latest", oci_layout());
    let target = format!("oci:{layout}:latest");
    command(&["skopeo", "--insecure-policy", "copy", &source, &target]).run().ok();
    let image = format!("{layout}:latest");
    command(&["umoci", "unpack", "--image", &image, &bundle]).run().ok();
    // umoci asks for a terminal and for a shell.
    let path = format!("{bundle}/config.json");
    let text = std::fs::read_to_string(&path).expect("umoci wrote it");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("umoci writes JSON");
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["sh", "-c", "echo unpacked; id -u; exit 3"]);
    config["linux"]["cgroupsPath"] = format!("{}/one", site.cgroup()).into();
    std::fs::write(&path, config.to_string()).expect("it is ours");
    let root = site.path("runtime");
    command(&[runtime_path(), "--root", &root, "run", "--bundle", &bundle, "one"])
        .run()
        .exits(3)
        .says("unpacked\n0");
    site.end();
}
