//! Mount options as containerd's snapshotters write them (fstab's words). Pure.

use anyhow::{Result, bail};
use hull_runtime_sys::{
    loop_device,
    mount::{Attributes, Classic},
};

use super::id_map::{self, IdMap};

/// One mount's options, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Show what is mounted elsewhere, with all mounts beneath it if `recursive`.
    pub(super) bind: bool,
    pub(super) recursive: bool,
    pub(super) how: Classic,
    /// The source is a file that a loop device shall show.
    pub(super) loop_device: Option<loop_device::Mode>,
    /// Words for the file system.
    pub(super) data: Vec<String>,
    /// The ids that the files shall have.
    pub(super) id_map: IdMap,
}

/// Reads options in order: of contradicting words the later one holds. A word that is not
/// known is the file system's.
///
/// # Errors
/// Options that ask for what is not done here.
pub(super) fn parse(words: &[String]) -> Result<Options> {
    let mut options = Options::default();
    for word in words {
        let how = &mut options.how;
        let set = |how: &mut Classic, flag| how.attributes = how.attributes | flag;
        let clear = |how: &mut Classic, flag| how.attributes = how.attributes.without(flag);
        match word.as_str() {
            // The kernel's default is relatime, and nothing changes it but the other modes.
            "" | "defaults" | "relatime" | "norelatime" => {}
            "async" => how.synchronous = false,
            "atime" => clear(how, Attributes::NO_ACCESS_TIME),
            "bind" => options.bind = true,
            "dev" => clear(how, Attributes::NO_DEV),
            "diratime" => clear(how, Attributes::NO_DIR_ACCESS_TIME),
            "dirsync" => how.synchronous_directories = true,
            "exec" => clear(how, Attributes::NO_EXEC),
            "loop" => options.loop_device = Some(loop_device::Mode::default()),
            "mand" => how.mandatory_locks = true,
            "noatime" => set(how, Attributes::NO_ACCESS_TIME),
            "nodev" => set(how, Attributes::NO_DEV),
            "nodiratime" => set(how, Attributes::NO_DIR_ACCESS_TIME),
            "noexec" => set(how, Attributes::NO_EXEC),
            "nomand" => how.mandatory_locks = false,
            "nostrictatime" => clear(how, Attributes::STRICT_ACCESS_TIME),
            "nosuid" => set(how, Attributes::NO_SUID),
            "rbind" => (options.bind, options.recursive) = (true, true),
            "ro" => set(how, Attributes::READ_ONLY),
            "rw" => clear(how, Attributes::READ_ONLY),
            "strictatime" => set(how, Attributes::STRICT_ACCESS_TIME),
            "suid" => clear(how, Attributes::NO_SUID),
            "sync" => how.synchronous = true,
            "remount" => bail!("a root file system cannot be mounted with the option remount"),
            word if word.starts_with("X-containerd.") => {
                bail!("internal mount option {word:?} was not consumed by the mount manager")
            }
            word => match word.split_once('=') {
                Some(("uidmap", map)) => options.id_map.uids = id_map::lines(map)?,
                Some(("gidmap", map)) => options.id_map.gids = id_map::lines(map)?,
                _ => options.data.push(word.to_owned()),
            },
        }
    }
    // One field of the kernel's holds both; the strict mode wins in mount(2).
    if options.how.attributes.contains(Attributes::STRICT_ACCESS_TIME) {
        options.how.attributes = options.how.attributes.without(Attributes::NO_ACCESS_TIME);
    }
    if options.id_map.uids.is_empty() != options.id_map.gids.is_empty() {
        bail!("an id-mapped root file system needs both uidmap and gidmap");
    }
    if let Some(mode) = &mut options.loop_device {
        mode.read_only = options.how.attributes.contains(Attributes::READ_ONLY);
        // Without a loop device it is a word like others.
        let words = options.data.len();
        options.data.retain(|word| word != "direct-io");
        mode.direct = options.data.len() < words;
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Options {
        parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn words_become_flags_and_the_rest_is_data() {
        let attributes = |attributes| Classic { attributes, ..Classic::default() };
        let with = |how| Options { how, ..Options::default() };
        let no_atime = Attributes::NO_ACCESS_TIME;
        let looped = |read_only, direct| Options {
            loop_device: Some(loop_device::Mode { read_only, direct }),
            ..Options::default()
        };
        for (words, expected) in [
            ("", Options::default()),
            ("defaults relatime norelatime", Options::default()),
            ("bind", Options { bind: true, ..Options::default() }),
            ("rbind rw", Options { bind: true, recursive: true, ..Options::default() }),
            ("ro", with(attributes(Attributes::READ_ONLY))),
            ("ro rw", Options::default()),
            ("rw ro", with(attributes(Attributes::READ_ONLY))),
            ("nosuid nodev noexec suid dev exec", Options::default()),
            ("nosuid nodev", with(attributes(Attributes::NO_SUID | Attributes::NO_DEV))),
            ("noexec nodiratime", {
                with(attributes(Attributes::NO_EXEC | Attributes::NO_DIR_ACCESS_TIME))
            }),
            ("noatime", with(attributes(no_atime))),
            ("noatime atime nodiratime diratime", Options::default()),
            ("noatime strictatime", with(attributes(Attributes::STRICT_ACCESS_TIME))),
            ("strictatime nostrictatime noatime", with(attributes(no_atime))),
            ("sync dirsync mand", {
                with(Classic {
                    synchronous: true,
                    synchronous_directories: true,
                    mandatory_locks: true,
                    ..Classic::default()
                })
            }),
            ("sync async mand nomand", Options::default()),
            ("loop", looped(false, false)),
            ("loop direct-io", looped(false, true)),
            ("direct-io", Options { data: vec!["direct-io".into()], ..Options::default() }),
            ("ro loop", Options { loop_device: looped(true, false).loop_device, ..read("ro") }),
            ("index=off ro lowerdir=/a:/b", {
                let data = vec!["index=off".to_owned(), "lowerdir=/a:/b".to_owned()];
                Options { data, ..with(attributes(Attributes::READ_ONLY)) }
            }),
            ("RO nosuidx", {
                Options { data: vec!["RO".into(), "nosuidx".into()], ..Options::default() }
            }),
        ] {
            assert_eq!(read(words), expected, "{words}");
        }
    }

    #[test]
    fn what_is_not_done_is_said() {
        for (word, text) in [
            (
                "X-containerd.mkdir.path=/x",
                "internal mount option \"X-containerd.mkdir.path=/x\" was not consumed by the \
                 mount manager",
            ),
            ("uidmap=0:1:2", "an id-mapped root file system needs both uidmap and gidmap"),
            ("gidmap=0:1:x", "\"0:1:x\" is no map of ids: CONTAINER:HOST:SIZE"),
            ("remount", "a root file system cannot be mounted with the option remount"),
        ] {
            assert_eq!(parse(&[word.to_owned()]).unwrap_err().to_string(), text);
        }
    }
}
