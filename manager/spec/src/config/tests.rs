use super::*;
use crate::defaults::example;

#[test]
fn a_plain_container_is_dockers() {
    let defaults = example();
    let asked = v1::ContainerOptions { command: vec!["true".into()], ..Default::default() };
    let image = hull_specs_image::ImageConfig::default();
    let options = effective(&asked, &image, &defaults).unwrap().options;
    let input = Input::new("abc", &options, &defaults, oci::User::default(), "abc").unwrap();
    let spec = config(&input).unwrap();
    assert_eq!(spec.linux.as_ref().unwrap().cgroups_path, "/hull/abc");
    assert_eq!(spec.process.as_ref().unwrap().args, ["true"]);
}
