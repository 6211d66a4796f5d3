//! Mount options: the words of config.json (config.md, "Linux mount options") as flags.
//!
//! A word that is not in the table is a parameter of the file system. Nothing is judged
//! here; [`super::plan()`] refuses what contradicts itself.

use std::ops::BitOr;

use hull_runtime_sys::mount::{Attributes, Propagation};

/// The options that apply to one mount, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags(u32);

impl Flags {
    #[cfg(test)]
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const READ_ONLY: Self = Self(1);
    pub(crate) const NO_SUID: Self = Self(1 << 1);
    pub(crate) const NO_DEV: Self = Self(1 << 2);
    pub(crate) const NO_EXEC: Self = Self(1 << 3);
    pub(crate) const NO_SYMLINKS: Self = Self(1 << 4);
    pub(crate) const NO_ATIME: Self = Self(1 << 5);
    pub(crate) const NO_DIR_ATIME: Self = Self(1 << 6);
    pub(crate) const RELATIVE_ATIME: Self = Self(1 << 7);
    pub(crate) const STRICT_ATIME: Self = Self(1 << 8);
    pub(crate) const SYNCHRONOUS: Self = Self(1 << 9);
    pub(crate) const SYNCHRONOUS_DIRECTORIES: Self = Self(1 << 10);
    pub(crate) const MANDATORY_LOCKS: Self = Self(1 << 11);
    pub(crate) const LAZY_TIME: Self = Self(1 << 12);
    pub(crate) const INODE_VERSION: Self = Self(1 << 13);
    pub(crate) const SILENT: Self = Self(1 << 14);
    pub(crate) const BIND: Self = Self(1 << 15);
    pub(crate) const RECURSIVE: Self = Self(1 << 16);
    pub(crate) const REMOUNT: Self = Self(1 << 17);

    /// How access times are kept.
    pub(crate) const ATIME: Self = Self(
        Self::NO_ATIME.0 | Self::NO_DIR_ATIME.0 | Self::RELATIVE_ATIME.0 | Self::STRICT_ATIME.0,
    );
    /// Flags of a file system rather than of a mount of it.
    pub(crate) const FILE_SYSTEM: Self = Self(
        Self::SYNCHRONOUS.0
            | Self::SYNCHRONOUS_DIRECTORIES.0
            | Self::MANDATORY_LOCKS.0
            | Self::LAZY_TIME.0
            | Self::INODE_VERSION.0,
    );
    /// What to do, rather than how the mount shall be.
    pub(crate) const ACTION: Self = Self(Self::BIND.0 | Self::RECURSIVE.0 | Self::REMOUNT.0);

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any of `other` is here.
    pub(crate) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Both, as `|`, which constants cannot use.
    pub(crate) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The flags that the kernel keeps for a mount. Of contradicting access-time modes
    /// the strictest wins, as in mount(2).
    pub(crate) fn attributes(self) -> Attributes {
        let mut attributes = [
            (Self::READ_ONLY, Attributes::READ_ONLY),
            (Self::NO_SUID, Attributes::NO_SUID),
            (Self::NO_DEV, Attributes::NO_DEV),
            (Self::NO_EXEC, Attributes::NO_EXEC),
            (Self::NO_SYMLINKS, Attributes::NO_SYMLINKS),
            (Self::NO_DIR_ATIME, Attributes::NO_DIR_ACCESS_TIME),
        ]
        .into_iter()
        .filter(|(flag, _)| self.has(*flag))
        .fold(Attributes::NONE, |all, (_, attribute)| all | attribute);
        if self.has(Self::STRICT_ATIME) {
            attributes = attributes | Attributes::STRICT_ACCESS_TIME;
        } else if self.has(Self::NO_ATIME) {
            attributes = attributes | Attributes::NO_ACCESS_TIME;
        }
        attributes
    }

    /// The words for those of these flags that are in `which`.
    pub(crate) fn words_of(self, which: Self) -> String {
        Self(self.0 & which.0).words()
    }

    /// The words for these flags, for messages.
    pub(crate) fn words(self) -> String {
        let words = OPTIONS.iter().filter_map(|(word, effect)| match effect {
            Set(flags) if !flags.is_empty() && self.0 & flags.0 == flags.0 => Some(*word),
            _ => None,
        });
        words.collect::<Vec<_>>().join(",")
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What one word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing: it names what is the default anyway.
    Nothing,
    Set(Flags),
    Clear(Flags),
    /// The propagation of the mount, and of all beneath it if true.
    Propagate(Propagation, bool),
    /// Flags of the mount and of all mounts beneath it.
    SetBelow(Attributes),
    ClearBelow(Attributes),
    CopyUp,
    /// An id-mapped mount, with all mounts beneath it if true.
    IdMap(bool),
}

use Effect::{Clear, ClearBelow, CopyUp, IdMap, Nothing, Propagate, Set, SetBelow};

const BIND_ALL: Flags = Flags(Flags::BIND.0 | Flags::RECURSIVE.0);

/// Every word, sorted.
#[rustfmt::skip]
const OPTIONS: &[(&str, Effect)] = &[
    ("async", Clear(Flags::SYNCHRONOUS)),
    ("atime", Clear(Flags::NO_ATIME)),
    ("bind", Set(Flags::BIND)),
    ("defaults", Nothing),
    ("dev", Clear(Flags::NO_DEV)),
    ("diratime", Clear(Flags::NO_DIR_ATIME)),
    ("dirsync", Set(Flags::SYNCHRONOUS_DIRECTORIES)),
    ("exec", Clear(Flags::NO_EXEC)),
    ("idmap", IdMap(false)),
    ("iversion", Set(Flags::INODE_VERSION)),
    ("lazytime", Set(Flags::LAZY_TIME)),
    ("loud", Clear(Flags::SILENT)),
    ("mand", Set(Flags::MANDATORY_LOCKS)),
    ("noatime", Set(Flags::NO_ATIME)),
    ("nodev", Set(Flags::NO_DEV)),
    ("nodiratime", Set(Flags::NO_DIR_ATIME)),
    ("noexec", Set(Flags::NO_EXEC)),
    ("noiversion", Clear(Flags::INODE_VERSION)),
    ("nolazytime", Clear(Flags::LAZY_TIME)),
    ("nomand", Clear(Flags::MANDATORY_LOCKS)),
    ("norelatime", Clear(Flags::RELATIVE_ATIME)),
    ("nostrictatime", Clear(Flags::STRICT_ATIME)),
    ("nosuid", Set(Flags::NO_SUID)),
    ("nosymfollow", Set(Flags::NO_SYMLINKS)),
    ("private", Propagate(Propagation::Private, false)),
    ("ratime", ClearBelow(Attributes::NO_ACCESS_TIME)),
    ("rbind", Set(BIND_ALL)),
    ("rdev", ClearBelow(Attributes::NO_DEV)),
    ("rdiratime", ClearBelow(Attributes::NO_DIR_ACCESS_TIME)),
    ("relatime", Set(Flags::RELATIVE_ATIME)),
    ("remount", Set(Flags::REMOUNT)),
    ("rexec", ClearBelow(Attributes::NO_EXEC)),
    ("ridmap", IdMap(true)),
    ("rnoatime", SetBelow(Attributes::NO_ACCESS_TIME)),
    ("rnodev", SetBelow(Attributes::NO_DEV)),
    ("rnodiratime", SetBelow(Attributes::NO_DIR_ACCESS_TIME)),
    ("rnoexec", SetBelow(Attributes::NO_EXEC)),
    // relatime is the value zero of its field: to clear it means to set it, as in runc.
    ("rnorelatime", ClearBelow(Attributes::ACCESS_TIME)),
    ("rnostrictatime", ClearBelow(Attributes::STRICT_ACCESS_TIME)),
    ("rnosuid", SetBelow(Attributes::NO_SUID)),
    ("rnosymfollow", SetBelow(Attributes::NO_SYMLINKS)),
    ("ro", Set(Flags::READ_ONLY)),
    ("rprivate", Propagate(Propagation::Private, true)),
    ("rrelatime", ClearBelow(Attributes::ACCESS_TIME)),
    ("rro", SetBelow(Attributes::READ_ONLY)),
    ("rrw", ClearBelow(Attributes::READ_ONLY)),
    ("rshared", Propagate(Propagation::Shared, true)),
    ("rslave", Propagate(Propagation::Slave, true)),
    ("rstrictatime", SetBelow(Attributes::STRICT_ACCESS_TIME)),
    ("rsuid", ClearBelow(Attributes::NO_SUID)),
    ("rsymfollow", ClearBelow(Attributes::NO_SYMLINKS)),
    ("runbindable", Propagate(Propagation::Unbindable, true)),
    ("rw", Clear(Flags::READ_ONLY)),
    ("shared", Propagate(Propagation::Shared, false)),
    ("silent", Set(Flags::SILENT)),
    ("slave", Propagate(Propagation::Slave, false)),
    ("strictatime", Set(Flags::STRICT_ATIME)),
    ("suid", Clear(Flags::NO_SUID)),
    ("symfollow", Clear(Flags::NO_SYMLINKS)),
    ("sync", Set(Flags::SYNCHRONOUS)),
    ("tmpcopyup", CopyUp),
    ("unbindable", Propagate(Propagation::Unbindable, false)),
];

/// The known words, sorted, for `features`.
pub(crate) fn known() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|(word, _)| *word)
}

/// The propagation that `rootfsPropagation` names, and whether it holds for all mounts
/// beneath as well.
pub(crate) fn propagation(word: &str) -> Option<(Propagation, bool)> {
    match lookup(word) {
        Some(Propagate(propagation, recursive)) => Some((propagation, recursive)),
        _ => None,
    }
}

fn lookup(word: &str) -> Option<Effect> {
    let at = OPTIONS.binary_search_by_key(&word, |(word, _)| word).ok()?;
    OPTIONS.get(at).map(|(_, effect)| *effect)
}

/// Flags to set and to clear on a mount and all mounts beneath it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Below {
    pub(crate) set: Attributes,
    pub(crate) clear: Attributes,
}

impl Below {
    pub(crate) fn is_empty(self) -> bool {
        self.set.is_empty() && self.clear.is_empty()
    }
}

/// One mount's options, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) set: Flags,
    /// Flags that were asked to be off.
    pub(crate) cleared: Flags,
    /// In the order given.
    pub(crate) propagation: Vec<(Propagation, bool)>,
    pub(crate) below: Below,
    pub(crate) copy_up: bool,
    /// Whether, and if so whether recursively, the mount is id-mapped.
    pub(crate) id_map: Option<bool>,
    /// Words for the file system.
    pub(crate) parameters: Vec<String>,
}

/// Reads options in order: of contradicting words the later one holds.
pub(crate) fn parse(words: &[String]) -> Options {
    let mut options = Options::default();
    for word in words {
        let Some(effect) = lookup(word) else {
            options.parameters.push(word.clone());
            continue;
        };
        match effect {
            Nothing => {}
            Set(flags) => {
                options.set = options.set | flags;
                options.cleared = options.cleared.without(flags);
            }
            Clear(flags) => {
                options.set = options.set.without(flags);
                options.cleared = options.cleared | flags;
            }
            Propagate(propagation, recursive) => options.propagation.push((propagation, recursive)),
            SetBelow(attributes) => {
                options.below.set = options.below.set | attributes;
                options.below.clear = options.below.clear.without(attributes);
            }
            ClearBelow(attributes) => {
                options.below.clear = options.below.clear | attributes;
                options.below.set = options.below.set.without(attributes);
            }
            CopyUp => options.copy_up = true,
            IdMap(recursive) => options.id_map = Some(recursive),
        }
        // Access-time modes are one field: mount_setattr(2) wants all of it cleared
        // whenever any of it changes.
        if let SetBelow(attributes) | ClearBelow(attributes) = effect
            && !attributes.both(Attributes::ACCESS_TIME).is_empty()
        {
            options.below.clear = options.below.clear | Attributes::ACCESS_TIME;
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Options {
        parse(&words.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_table_is_sorted_and_every_word_is_found() {
        assert!(OPTIONS.is_sorted_by(|(a, _), (b, _)| a < b));
        for (word, effect) in OPTIONS {
            assert_eq!(lookup(word), Some(*effect), "{word}");
        }
    }

    #[test]
    fn every_word_of_the_specification_is_known() {
        let words = "async atime bind defaults dev diratime dirsync exec idmap iversion lazytime \
             loud mand noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime \
             nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime relatime \
             remount rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime \
             rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime \
             rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync \
             tmpcopyup unbindable";
        assert!(known().eq(words.split_whitespace()));
    }

    #[test]
    fn the_later_word_holds() {
        assert_eq!(read("ro,rw").set, Flags::NONE);
        assert_eq!(read("ro,rw").cleared, Flags::READ_ONLY);
        assert_eq!(read("rw,ro").set, Flags::READ_ONLY);
        assert_eq!(read("rw,ro").cleared, Flags::NONE);
        assert_eq!(read("rro,rrw").below.clear, Attributes::READ_ONLY);
        assert_eq!(read("rrw,rro").below.set, Attributes::READ_ONLY);
    }

    #[test]
    fn access_time_modes_clear_their_field() {
        for (words, set) in [
            ("rnoatime", Attributes::NO_ACCESS_TIME),
            ("rstrictatime", Attributes::STRICT_ACCESS_TIME),
            ("rrelatime", Attributes::NONE),
            ("ratime", Attributes::NONE),
        ] {
            let below = read(words).below;
            assert_eq!((below.set, below.clear), (set, Attributes::ACCESS_TIME), "{words}");
        }
        let below = read("rnodiratime").below;
        assert_eq!((below.set, below.clear), (Attributes::NO_DIR_ACCESS_TIME, Attributes::NONE));
        let strict = Flags::STRICT_ATIME | Flags::NO_ATIME;
        assert_eq!(strict.attributes(), Attributes::STRICT_ACCESS_TIME);
    }

    #[test]
    fn unknown_words_are_for_the_file_system() {
        let options = read("nosuid,size=65536k,mode=755,inode64,rbind");
        assert_eq!(options.parameters, ["size=65536k", "mode=755", "inode64"]);
        assert_eq!(options.set, Flags::NO_SUID | BIND_ALL);
        assert_eq!(options.set.words(), "bind,nosuid,rbind");
    }

    #[test]
    fn propagation_keeps_its_order() {
        let expected = [(Propagation::Slave, true), (Propagation::Shared, false)];
        assert_eq!(read("rslave,shared").propagation, expected);
        assert_eq!(propagation("rshared"), Some((Propagation::Shared, true)));
        assert_eq!(propagation("ro"), None);
    }

    #[test]
    fn extensions_are_read() {
        assert!(read("tmpcopyup").copy_up);
        assert_eq!(read("idmap").id_map, Some(false));
        assert_eq!(read("ridmap").id_map, Some(true));
    }
}
