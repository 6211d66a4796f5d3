use super::*;

fn compressed(form: Compression, content: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(form, Vec::new()).unwrap();
    compressor.write_all(content).unwrap();
    compressor.finish().unwrap()
}

fn plain(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    Decompressor::new(content)?.read_to_end(&mut plain)?;
    Ok(plain)
}

fn sample(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..length)
        .map(|n| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if n % 3 == 0 { (state >> 24) as u8 } else { b'a' }
        })
        .collect()
}

const FORMS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

#[test]
fn what_is_compressed_is_found_again_and_recognised() {
    for form in FORMS {
        for length in [0, 1, 511, 300_000] {
            let content = sample(length);
            let bytes = compressed(form, &content);
            assert_eq!(bytes, compressed(form, &content), "the same content, the same bytes");
            assert_eq!(detect(&bytes), form);
            assert_eq!(plain(&bytes).unwrap(), content);
        }
    }
}

#[test]
fn members_and_frames_follow_each_other() {
    for form in [Compression::Gzip, Compression::Zstd] {
        let bytes = [compressed(form, b"one"), compressed(form, b""), compressed(form, b"two")];
        assert_eq!(plain(&bytes.concat()).unwrap(), b"onetwo");
    }
}

#[test]
fn what_is_cut_changed_or_followed_by_something_is_refused() {
    for form in [Compression::Gzip, Compression::Zstd] {
        let bytes = compressed(form, &sample(5000));
        for length in 5..bytes.len() {
            let error = plain(&bytes[..length]).expect_err("it is cut");
            assert!(error.get_ref().is_some_and(|e| e.is::<Refused>()), "{length}: {error}");
        }
        for garbage in [&b"\0"[..], b"garbage", &[0; 512], b"\x1f\x8b"] {
            let error = plain(&[&bytes[..], garbage].concat()).expect_err("something follows");
            if form == Compression::Gzip && garbage != b"\x1f\x8b" {
                assert!(error.to_string().contains("something follows"), "{garbage:?}: {error}");
            }
        }
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 0x10;
        assert!(plain(&changed).is_err());
    }
}

#[test]
fn headers_with_all_fields_are_read_and_those_without_end_are_not() {
    let bytes = compressed(Compression::Gzip, b"x");
    let rest = &bytes[10..];
    let full =
        [&[0x1f, 0x8b, 8, 0x1f, 0, 0, 0, 0, 0, 3][..], b"\x02\0ab", b"name\0", b"note\0", b"cc"];
    assert_eq!(plain(&[&full.concat()[..], rest].concat()).unwrap(), b"x");
    let endless = [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3][..], &vec![b'n'; 100_000]].concat();
    assert!(plain(&endless).is_err());
}
