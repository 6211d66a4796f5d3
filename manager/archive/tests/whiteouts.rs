//! Whiteouts act on the layers below, whatever the order of entries.

#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod support;

use std::fs;

use hull_manager_archive::Whiteouts;
use support::*;

/// All orders of a few entries.
fn orders(entries: &[Forged]) -> Vec<Vec<Forged>> {
    if entries.len() < 2 {
        return vec![entries.to_vec()];
    }
    let mut all = Vec::new();
    for first in 0..entries.len() {
        let mut rest = entries.to_vec();
        let one = rest.remove(first);
        for mut order in orders(&rest) {
            order.insert(0, one.clone());
            all.push(order);
        }
    }
    all
}

/// The lower layer that [`Whiteouts::Remove`] finds.
fn lower(place: &Place) {
    fs::create_dir_all(place.target().join("d/sub")).unwrap();
    fs::write(place.target().join("d/low"), "low").unwrap();
    fs::write(place.target().join("d/sub/low"), "low").unwrap();
    fs::write(place.target().join("f"), "low").unwrap();
    for name in ["d/low", "d/sub/low", "f"] {
        let file = fs::File::open(place.target().join(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
}

#[test]
fn a_whiteout_and_what_this_layer_has_there_mean_the_same_in_every_order() {
    let sets = [
        vec![file(".wh.d", ""), directory("d"), file("d/new", "new")],
        vec![
            file("d/.wh..wh..opq", ""),
            directory("d"),
            file("d/new", "new"),
            file("d/sub/new", "new"),
        ],
        vec![file(".wh.f", ""), file("f", "new")],
        vec![file("d/.wh.low", ""), file("d/sub/.wh.low", ""), file("d/low", "new")],
        vec![file(".wh.d", ""), file("d/sub/new", "new")],
        vec![
            file(".wh.d", ""),
            file("d/.wh..wh..opq", ""),
            file("d/sub/new", "new"),
            file("d/.wh.sub", ""),
        ],
    ];
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Remove] {
        for set in &sets {
            let mut trees = orders(set).into_iter().map(|order| {
                let names: Vec<_> =
                    order.iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()).collect();
                let place = Place::new();
                if whiteouts == Whiteouts::Remove {
                    lower(&place);
                }
                place.apply(&archive(&order), whiteouts).unwrap();
                (names, place.tree())
            });
            let (first_order, first) = trees.next().unwrap();
            for (order, tree) in trees {
                assert_eq!(tree, first, "{whiteouts:?}: {order:?} against {first_order:?}");
            }
        }
    }
}

#[test]
fn the_overlay_form_is_the_kernels() {
    let place = Place::new();
    let entries = [
        file("gone/.wh.name", ""),
        directory("opaque"),
        file("opaque/.wh..wh..opq", ""),
        file(".wh..wh.plnk", ""),
    ];
    place.apply(&archive(&entries), Whiteouts::Overlay).unwrap();
    let tree = place.tree();
    assert_eq!(tree["gone/name"].split(' ').take(3).collect::<Vec<_>>(), ["device", "c", "0:0"]);
    assert!(tree["opaque"].starts_with("directory, opaque"), "{tree:?}");
    assert_eq!(tree.len(), 4, "{tree:?}");
}

#[test]
fn removing_leaves_what_this_archive_has_put_there() {
    let place = Place::new();
    lower(&place);
    let entries =
        [file("d/sub/new", "new"), file(".wh.d", ""), file(".wh.f", ""), file(".wh.no", "")];
    place.apply(&archive(&entries), Whiteouts::Remove).unwrap();
    let names: Vec<_> = place.tree().into_keys().collect();
    assert_eq!(names, ["", "d", "d/sub", "d/sub/new"]);
}

#[test]
fn kept_names_are_names() {
    let place = Place::new();
    place
        .apply(&archive(&[file(".wh.f", "x"), file("d/.wh..wh..opq", "y")]), Whiteouts::Keep)
        .unwrap();
    assert!(
        place.target().join(".wh.f").exists() && place.target().join("d/.wh..wh..opq").exists()
    );
}
