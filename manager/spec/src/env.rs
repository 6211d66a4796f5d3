//! Environments: lists of `KEY=VALUE`.

use crate::error::{Result, must};

/// Where programs are looked for unless somebody says otherwise.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The most bytes of an environment; execve(2) takes two megabytes of arguments and environment.
const MAX_BYTES: usize = 1 << 20;

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// Each entry has a name, and is one string to the kernel.
pub(crate) fn check(env: &[String]) -> Result<()> {
    must!(env.iter().map(String::len).sum::<usize>() <= MAX_BYTES, "the environment is too large");
    for entry in env {
        must!(!key(entry).is_empty(), "invalid environment variable: {entry}");
        must!(!entry.contains('\0'), "invalid environment variable: {entry:?}");
    }
    Ok(())
}

/// What was asked for, and what the image has besides.
pub(crate) fn merge(asked: &[String], image: &[String]) -> Vec<String> {
    let missing = image.iter().filter(|entry| !asked.iter().any(|other| key(other) == key(entry)));
    asked.iter().chain(missing).cloned().collect()
}

/// `base` with `changes`: a later value takes the earlier's place, a name alone removes it.
pub(crate) fn replace(mut base: Vec<String>, changes: &[String]) -> Vec<String> {
    for change in changes {
        let place = base.iter().position(|entry| key(entry) == key(change));
        match (change.contains('='), place) {
            (true, Some(at)) => base[at].clone_from(change),
            (true, None) => base.push(change.clone()),
            (false, Some(at)) => drop(base.remove(at)),
            (false, None) => {}
        }
    }
    base
}

/// The environment of a container's process. `HOME` is the runtime's, from the image's passwd.
pub(crate) fn of_process(effective: &[String], hostname: &str, tty: bool) -> Vec<String> {
    let mut base = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        base.push("TERM=xterm".to_owned());
    }
    replace(base, effective)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn what_was_asked_for_hides_the_images() {
        assert_eq!(merge(&words("A=1 B"), &words("A=2 B=3 C=4")), words("A=1 B C=4"));
        assert_eq!(merge(&[], &words("A=2")), words("A=2"));
    }

    #[test]
    fn defaults_are_replaced_in_their_place_and_a_name_alone_removes() {
        for (env, tty, whole) in [
            ("", false, format!("{PATH} HOSTNAME=h")),
            ("", true, format!("{PATH} HOSTNAME=h TERM=xterm")),
            ("TERM=vt100 PATH=/bin A=1", true, "PATH=/bin HOSTNAME=h TERM=vt100 A=1".to_owned()),
            ("HOSTNAME PATH X", false, String::new()),
            ("A=1 A=2", false, format!("{PATH} HOSTNAME=h A=2")),
        ] {
            assert_eq!(of_process(&words(env), "h", tty), words(&whole), "{env}");
        }
    }

    #[test]
    fn an_entry_without_a_name_is_refused() {
        for bad in ["", "=", "=x", "A=\0"] {
            assert!(check(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
        check(&["A=line\nline".to_owned(), "B".to_owned()]).unwrap();
    }
}
