use super::*;

fn id(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Images: name, references, parent.
fn graph(images: &[(&str, &[&str], Option<&str>)], users: &[(&str, bool)]) -> Graph {
    let mut graph = Graph::default();
    for (name, references, parent) in images {
        let references = references.iter().map(|text| reference(text)).collect();
        graph.images.insert(id(name), Node { references, parent: parent.map(id) });
    }
    for (image, running) in users {
        let container = "c0ffee".repeat(10);
        graph.users.push(User { image: id(image), container, running: *running });
    }
    graph
}

fn named(graph: &Graph, text: &str) -> Named {
    if let Some(name) = text.strip_prefix('#') {
        return Named::Id(id(name));
    }
    let reference = reference(text);
    let found = graph.images.iter().find(|(_, node)| node.references.contains(&reference));
    Named::Reference(reference, *found.unwrap().0)
}

/// The steps as text, or the sentence.
fn check(
    images: &[(&str, &[&str], Option<&str>)],
    users: &[(&str, bool)],
    what: &str,
    force: bool,
) -> String {
    let mut graph = graph(images, users);
    let named = named(&graph, what);
    match graph.remove(&named, what, force, true) {
        Ok(steps) => steps
            .iter()
            .map(|step| match step {
                Step::Untag(reference, _) => format!("-{}", reference.familiar()),
                Step::Delete(gone) => {
                    let name = images.iter().find(|(name, ..)| id(name) == *gone).unwrap().0;
                    format!("!{name}")
                }
            })
            .collect::<Vec<_>>()
            .join(" "),
        Err(error) => error.message().to_owned(),
    }
}

#[test]
fn a_name_is_untagged_and_the_last_one_deletes() {
    let one: &[(&str, &[&str], _)] = &[("i", &["a:1"], None)];
    assert_eq!(check(one, &[], "a:1", false), "-a:1 !i");
    let two: &[(&str, &[&str], _)] = &[("i", &["a:1", "b:1"], None)];
    assert_eq!(check(two, &[], "a:1", false), "-a:1");
    // With the last tag of a repository its digests go.
    let digest = format!("a@{}", id("m"));
    let with: &[(&str, &[&str], _)] = &[("i", &["a:1", &digest], None)];
    assert_eq!(check(with, &[], "a:1", false), format!("-a:1 -{digest} !i"));
    let with: &[(&str, &[&str], _)] = &[("i", &["a:1", "a:2", &digest], None)];
    assert_eq!(check(with, &[], "a:1", false), "-a:1");
}

#[test]
fn an_id_is_deleted_with_its_references_if_they_are_of_one_repository() {
    let digest = format!("a@{}", id("m"));
    let one: &[(&str, &[&str], _)] = &[("i", &["a:1", &digest], None)];
    assert_eq!(check(one, &[], "#i", false), format!("-a:1 -{digest} !i"));
    let two: &[(&str, &[&str], _)] = &[("i", &["a:1", "b:1"], None)];
    assert_eq!(
        check(two, &[], "#i", false),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            id("i").short()
        )
    );
    assert_eq!(check(two, &[], "#i", true), "-a:1 -b:1 !i");
}

#[test]
fn containers_are_in_the_way() {
    let one: &[(&str, &[&str], _)] = &[("i", &["a:1"], None)];
    let short = id("i").short();
    assert_eq!(
        check(one, &[("i", false)], "a:1", false),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container c0ffeec0ffee is using its referenced image {short}"
        )
    );
    assert_eq!(check(one, &[("i", false)], "a:1", true), "-a:1 !i");
    assert_eq!(
        check(one, &[("i", false)], "#i", false),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container c0ffeec0ffee"
        )
    );
    assert_eq!(
        check(one, &[("i", true)], "#i", true),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container c0ffeec0ffee"
        )
    );
    // The name goes, the image of the running container stays.
    assert_eq!(check(one, &[("i", true)], "a:1", true), "-a:1");
    let two: &[(&str, &[&str], _)] = &[("i", &["a:1", "b:1"], None)];
    assert_eq!(check(two, &[("i", true)], "a:1", false), "-a:1");
}

#[test]
fn children_are_in_the_way_and_parents_without_a_name_go_along() {
    let family: &[(&str, &[&str], _)] =
        &[("p", &["p:1"], None), ("m", &[], Some("p")), ("c", &["c:1"], Some("m"))];
    assert_eq!(
        check(family, &[], "#p", true),
        format!(
            "conflict: unable to delete {} (cannot be forced) - image has dependent child images",
            id("p").short()
        )
    );
    assert_eq!(check(family, &[], "p:1", false), "-p:1");
    assert_eq!(check(family, &[], "c:1", false), "-c:1 !c !m");
    assert_eq!(check(family, &[("m", false)], "c:1", false), "-c:1 !c");
    let mut graph = graph(family, &[]);
    let child = named(&graph, "c:1");
    assert_eq!(graph.remove(&child, "c:1", false, false).unwrap().len(), 2);
    assert!(graph.images.contains_key(&id("m")));
}

/// Whatever is removed in whatever order: what runs keeps its image, no child loses its parent,
/// and the graph is what the steps say.
#[test]
fn no_order_of_removals_takes_what_is_in_use() {
    let mut seed = 1_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..500 {
        let names = ["i0", "i1", "i2", "i3", "i4", "i5"];
        let mut graph = Graph::default();
        for (number, name) in names.iter().enumerate() {
            let parent = (number > 0 && random(2) == 0)
                .then(|| id(names[usize::try_from(random(number as u64)).unwrap()]));
            let references =
                (0..random(4)).map(|tag| reference(&format!("r{}:{number}{tag}", random(2))));
            graph.images.insert(id(name), Node { references: references.collect(), parent });
        }
        for name in names.iter().filter(|_| random(3) == 0).collect::<Vec<_>>() {
            let (container, running) = ("c".repeat(64), random(2) == 0);
            graph.users.push(User { image: id(name), container, running });
        }
        for _ in 0..20 {
            let all: Vec<Digest> = graph.images.keys().copied().collect();
            let Some(target) = all.get(usize::try_from(random(6)).unwrap()) else { continue };
            let references = graph.references(target).to_vec();
            let what = match references.first() {
                Some(reference) if random(2) == 0 => Named::Reference(reference.clone(), *target),
                _ => Named::Id(*target),
            };
            let before = graph.clone();
            let Ok(steps) = graph.remove(&what, "x", random(2) == 0, random(2) == 0) else {
                assert_eq!(graph.images.len(), before.images.len());
                continue;
            };
            let mut replayed = before;
            for step in &steps {
                match step {
                    Step::Untag(reference, image) => {
                        let node = replayed.images.get_mut(image).unwrap();
                        let count = node.references.len();
                        node.references.retain(|other| other != reference);
                        assert!(node.references.len() < count);
                    }
                    Step::Delete(image) => {
                        assert!(replayed.images.remove(image).unwrap().references.is_empty());
                    }
                }
            }
            assert!(replayed.images.keys().eq(graph.images.keys()));
            for user in graph.users.iter().filter(|user| user.running) {
                assert!(graph.images.contains_key(&user.image));
            }
            for parent in graph.images.values().filter_map(|node| node.parent) {
                assert!(graph.images.contains_key(&parent));
            }
        }
    }
}
