use super::*;

#[test]
fn numbers_are_read_as_the_kernel_writes_them() {
    let dir = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("4096\n", Some(4096)),
        ("max\n", Some(u64::MAX)),
        ("-5\n", Some(0)),
        ("18446744073709551615\n", Some(u64::MAX)),
        ("18446744073709551616\n", None),
        ("", None),
        ("4 5\n", None),
    ] {
        fs::write(dir.path().join("file"), text).unwrap();
        assert_eq!(number(dir.path(), "file").ok().flatten(), expected, "{text:?}");
    }
    assert_eq!(number(dir.path(), "absent").unwrap(), None);
    let error = number(dir.path(), "file").unwrap_err().to_string();
    assert!(error.ends_with("file holds \"4 5\\n\", not a number"), "{error}");
}

#[test]
fn no_more_than_the_limit_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
    assert_eq!(text(&path).unwrap().unwrap().len() as u64, LIMIT_BYTES);
}

#[test]
fn keys_are_whole_words() {
    let keyed = Keyed("rss_huge 1\nrss 2\ntotal_rss 3\nodd\nword x\nnegative -4\n");
    for (key, value) in
        [("rss", 2), ("rss_huge", 1), ("odd", 0), ("word", 0), ("negative", 0), ("absent", 0)]
    {
        assert_eq!(keyed.get(key), value, "{key}");
    }
}

#[test]
fn rdma_lines_are_read_in_any_order() {
    let text = "mlx4_0 hca_handle=2 hca_object=max\nocrdma1 hca_object=7 hca_handle=x\n\n";
    assert_eq!(
        rdma(text).collect::<Vec<_>>(),
        [
            Rdma { device: "mlx4_0", handles: 2, objects: u32::MAX },
            Rdma { device: "ocrdma1", handles: 0, objects: 7 },
        ]
    );
}

#[test]
fn huge_page_sizes_are_named_as_the_files_are() {
    for (name, size) in [
        ("hugepages-2048kB", Some("2MB")),
        ("hugepages-1048576kB", Some("1GB")),
        ("hugepages-64kB", Some("64KB")),
        ("hugepages-16777216kB", Some("16GB")),
        ("hugepages-kB", None),
        ("hugepages-2048", None),
        ("other", None),
    ] {
        assert_eq!(huge_page_size(name).as_deref(), size, "{name}");
    }
}

/// Texts near the kernel's: golden lines with bytes changed, taken away and doubled, by a
/// generator with a fixed seed (xorshift), so that a failure can be repeated.
pub(super) fn disturbed(golden: &str) -> impl Iterator<Item = String> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    let golden = golden.as_bytes().to_vec();
    (0..2000).map(move |_| {
        let mut bytes = golden.clone();
        for _ in 0..=random(8) {
            let at = random(bytes.len());
            match random(4) {
                0 if !bytes.is_empty() => bytes[at] = b" \n:=-+./9x\0\xff"[random(12)],
                1 => bytes.truncate(at),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                _ => bytes.insert(at, b" \n:=m0"[random(6)]),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[test]
fn no_text_makes_a_parser_fail() {
    for text in disturbed("mlx4_0 hca_handle=2 hca_object=max\nrss 5\n") {
        // What was left whole is still found: passing over one line does not end the reading.
        assert!(rdma(&text).all(|entry| !entry.device.is_empty()), "{text:?}");
        let with_tail = format!("{text}\nlast_key 77\n");
        assert_eq!(Keyed(&with_tail).get("last_key"), 77, "{text:?}");
        huge_page_size(&text);
    }
}
