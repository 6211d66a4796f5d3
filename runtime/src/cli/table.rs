//! The one table of commands and options: the parser, `--help`, the shell completions and
//! the manual pages all read it, so that they cannot disagree.
//!
//! Names, letters and defaults are runc 1.5's, because every caller of runc must be able to
//! call this program; the last four commands are our own.

/// What an option takes after its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, or `=true` and `=false`.
    Nothing,
    /// Any text; the name is what help calls it.
    Text(&'static str),
    /// A whole number.
    Whole(&'static str),
    /// A file's path.
    File(&'static str),
    /// A directory's path.
    Directory(&'static str),
    /// One of some words.
    OneOf(&'static str, &'static [&'static str]),
}

/// One option.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opt {
    pub(crate) name: &'static str,
    pub(crate) letter: Option<&'static str>,
    pub(crate) takes: Takes,
    /// What holds when the option is not given.
    pub(crate) default: Option<&'static str>,
    pub(crate) help: &'static str,
    /// May be given several times; each time adds a value.
    pub(crate) repeats: bool,
    /// Accepted for old callers, shown nowhere.
    pub(crate) hidden: bool,
}

/// What the words after a command's options name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completes {
    Nothing,
    Container,
    Command,
    Words(&'static [&'static str]),
}

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    /// What follows the options in a synopsis.
    pub(crate) synopsis: &'static str,
    /// One line.
    pub(crate) summary: &'static str,
    /// Paragraphs for `--help` and the manual page.
    pub(crate) description: &'static str,
    pub(crate) options: &'static [Opt],
    pub(crate) min_args: usize,
    pub(crate) max_args: usize,
    /// After the first argument nothing is an option any more: the rest belongs to another
    /// program (`exec`, `ps`) or may start with a dash (`kill`).
    pub(crate) stops_at_first: bool,
    pub(crate) completes: Completes,
    /// What a failure's message starts with; callers show it to their users.
    pub(crate) failure: Option<&'static str>,
    /// The exit code of a failure.
    pub(crate) failure_code: u8,
}

impl Command {
    const fn new(name: &'static str, synopsis: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            synopsis,
            summary,
            description: "",
            options: &[],
            min_args: 0,
            max_args: 0,
            stops_at_first: false,
            completes: Completes::Nothing,
            failure: None,
            failure_code: 1,
        }
    }

    /// The command works on the one container that it names.
    const fn of_container(name: &'static str, summary: &'static str) -> Self {
        let mut command = Self::new(name, "CONTAINER", summary);
        command.min_args = 1;
        command.max_args = 1;
        command.completes = Completes::Container;
        command
    }

    const fn describes(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    const fn options(mut self, options: &'static [Opt]) -> Self {
        self.options = options;
        self
    }

    const fn args(mut self, synopsis: &'static str, min: usize, max: usize) -> Self {
        self.synopsis = synopsis;
        self.min_args = min;
        self.max_args = max;
        self
    }

    const fn stops_at_first(mut self) -> Self {
        self.stops_at_first = true;
        self
    }

    const fn completes(mut self, completes: Completes) -> Self {
        self.completes = completes;
        self
    }

    const fn fails_with(mut self, prefix: &'static str, code: u8) -> Self {
        self.failure = Some(prefix);
        self.failure_code = code;
        self
    }
}

const fn option(name: &'static str, takes: Takes, help: &'static str) -> Opt {
    Opt { name, letter: None, takes, default: None, help, repeats: false, hidden: false }
}

const fn flag(name: &'static str, help: &'static str) -> Opt {
    option(name, Takes::Nothing, help)
}

impl Opt {
    const fn letter(mut self, letter: &'static str) -> Self {
        self.letter = Some(letter);
        self
    }

    const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }

    const fn repeats(mut self) -> Self {
        self.repeats = true;
        self
    }

    const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }
}

/// The largest number of arguments where there is no limit.
const ANY: usize = usize::MAX;

/// The options that come before the command (and, as in runc, may come after it).
pub(crate) const GLOBAL: &[Opt] = &[
    flag("debug", "log what is done, step by step"),
    option("log", Takes::File("FILE"), "append the log to FILE (default: standard error)"),
    option("log-format", Takes::OneOf("FORMAT", &["text", "json"]), "the log's format")
        .default("text"),
    option(
        "root",
        Takes::Directory("DIR"),
        "where the state of containers is kept; DIR should be on a tmpfs (default: \
         /run/hull-runtime, or $XDG_RUNTIME_DIR/hull-runtime without privileges)",
    ),
    flag(
        "systemd-cgroup",
        "make cgroups through systemd; cgroupsPath then reads SLICE:PREFIX:NAME",
    ),
    option(
        "rootless",
        Takes::OneOf("BOOL", &["true", "false", "auto"]),
        "go on where the caller may not use cgroups",
    )
    .default("auto"),
];

const BUNDLE: Opt = option(
    "bundle",
    Takes::Directory("DIR"),
    "the bundle: the directory of config.json (default: the current directory)",
)
.letter("b");
const CONSOLE_SOCKET: Opt = option(
    "console-socket",
    Takes::File("SOCKET"),
    "a listening AF_UNIX socket that receives the master end of the process's terminal",
);
const PIDFD_SOCKET: Opt = option(
    "pidfd-socket",
    Takes::File("SOCKET"),
    "a listening AF_UNIX socket that receives a pidfd of the process",
);
const PID_FILE: Opt = option("pid-file", Takes::File("FILE"), "write the process id to FILE");
const NO_PIVOT: Opt = flag(
    "no-pivot",
    "move the root mount and chroot instead of calling pivot_root, which an initramfs refuses",
);
const NO_NEW_KEYRING: Opt =
    flag("no-new-keyring", "keep the caller's session keyring instead of a new one");
const PRESERVE_FDS: Opt = option(
    "preserve-fds",
    Takes::Whole("N"),
    "pass on N more descriptors, beside the standard three and those of $LISTEN_FDS",
)
.default("0");
const DETACH: Opt = flag("detach", "return as soon as the process runs").letter("d");
const NO_SUBREAPER: Opt =
    flag("no-subreaper", "do not become the parent of the container's orphans");
const IMAGE_PATH: Opt = option(
    "image-path",
    Takes::Directory("DIR"),
    "where the image files are (default: checkpoint in the current directory)",
);
const WORK_PATH: Opt =
    option("work-path", Takes::Directory("DIR"), "where CRIU puts its logs and work files");
const TCP_ESTABLISHED: Opt = flag("tcp-established", "take open TCP connections along");
const EXT_UNIX_SK: Opt = flag("ext-unix-sk", "allow unix sockets with a peer outside");
const SHELL_JOB: Opt = flag("shell-job", "allow a session leader and terminal from outside");
const FILE_LOCKS: Opt = flag("file-locks", "take file locks along");
const MANAGE_CGROUPS_MODE: Opt = option(
    "manage-cgroups-mode",
    Takes::OneOf("MODE", &["soft", "full", "strict", "ignore"]),
    "how CRIU treats the container's cgroups (default: soft)",
);
const EMPTY_NS: Opt = option(
    "empty-ns",
    Takes::OneOf("NAMESPACE", &["network"]),
    "make this namespace, but leave out what is in it",
)
.repeats();
const AUTO_DEDUP: Opt = flag("auto-dedup", "drop memory pages that a later image replaces");
const LAZY_PAGES: Opt = flag("lazy-pages", "move memory pages on demand, by userfaultfd");

/// Every command, in the order of `--help`.
pub(crate) const COMMANDS: &[Command] = &[
    Command::of_container("create", "create a container from a bundle")
        .describes(
            "Reads config.json in the bundle, makes the container and its first process, and \
             stops before the user's program runs: start does that. CONTAINER names the new \
             container; the name must be new on this host.",
        )
        .options(&[
            BUNDLE,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            PID_FILE,
            NO_PIVOT,
            NO_NEW_KEYRING,
            PRESERVE_FDS,
        ])
        .completes(Completes::Nothing)
        .fails_with("hull-runtime create failed", 1),
    Command::of_container("start", "run the user's program in a created container")
        .describes("Lets the process that create has prepared execute its program."),
    Command::of_container("state", "print a container's state as JSON").describes(
        "Prints the state document of the OCI runtime specification, with rootfs, \
             creation time and owner added.",
    ),
    Command::of_container("kill", "send a signal to a container's first process")
        .args("CONTAINER [SIGNAL]", 1, 2)
        .describes(
            "SIGNAL is a number or a name, with or without SIG, such as 9, KILL, SIGTERM or \
             RTMIN+3; without it TERM is sent.",
        )
        .options(&[flag("all", "send the signal to every process of the container")
            .letter("a")
            .hidden()])
        .stops_at_first(),
    Command::of_container("delete", "remove a container and all it holds")
        .describes("Removes the state, cgroups and mounts of a stopped or created container.")
        .options(&[
            flag("force", "kill a running container first; a missing one is no error").letter("f")
        ]),
    Command::of_container("run", "create a container, start it, and wait for its end")
        .describes(
            "Does what create, start and delete do, in the foreground. The exit code is that \
             of the container's process.",
        )
        .options(&[
            BUNDLE,
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            DETACH,
            flag("keep", "do not delete the container after its end"),
            PID_FILE,
            NO_SUBREAPER,
            NO_PIVOT,
            NO_NEW_KEYRING,
            PRESERVE_FDS,
        ])
        .completes(Completes::Nothing)
        .fails_with("hull-runtime run failed", 1),
    Command::of_container("exec", "run another process in a running container")
        .args("CONTAINER COMMAND [ARGUMENT...]", 1, ANY)
        .describes(
            "The process starts from the one in config.json, changed by the options, or is \
             read from the file of --process, which leaves no use for the options that \
             change it. The exit code is that of the process, or 255 where it could not run.",
        )
        .options(&[
            CONSOLE_SOCKET,
            PIDFD_SOCKET,
            option("cwd", Takes::Text("DIR"), "the working directory, in the container"),
            option("env", Takes::Text("NAME=VALUE"), "add an environment variable")
                .letter("e")
                .repeats(),
            flag("tty", "give the process a terminal").letter("t"),
            option("user", Takes::Text("UID[:GID]"), "run as this user, and group").letter("u"),
            option("additional-gids", Takes::Whole("GID"), "add a supplementary group")
                .letter("g")
                .repeats(),
            option("process", Takes::File("FILE"), "read the process, as JSON, from FILE")
                .letter("p"),
            DETACH,
            PID_FILE,
            option("process-label", Takes::Text("LABEL"), "the process's SELinux label"),
            option("apparmor", Takes::Text("PROFILE"), "the process's AppArmor profile"),
            flag("no-new-privs", "let the process gain no privileges by execve"),
            option("cap", Takes::Text("CAPABILITY"), "add a capability").letter("c").repeats(),
            PRESERVE_FDS,
            option(
                "cgroup",
                Takes::Text("[CONTROLLER[,...]:]PATH"),
                "run the process in this cgroup below the container's",
            )
            .repeats(),
            flag("ignore-paused", "go on though the container is paused"),
        ])
        .stops_at_first()
        .fails_with("exec failed", 255),
    Command::of_container("ps", "list the processes of a container")
        .args("CONTAINER [PS-OPTION...]", 1, ANY)
        .describes(
            "Runs the host's ps, with the given options or -ef, and shows the lines of the \
             container's processes; as JSON, prints the process ids alone.",
        )
        .options(&[option("format", Takes::OneOf("FORMAT", &["table", "json"]), "the format")
            .letter("f")
            .default("table")])
        .stops_at_first(),
    Command::new("list", "", "list the containers under the root directory").options(&[
        option("format", Takes::OneOf("FORMAT", &["table", "json"]), "the format")
            .letter("f")
            .default("table"),
        flag("quiet", "print nothing but the names").letter("q"),
    ]),
    Command::of_container("pause", "freeze every process of a container"),
    Command::of_container("resume", "let the processes of a paused container go on"),
    Command::of_container("update", "change a container's resource limits")
        .describes(
            "Changes what is given and leaves the rest. With --resources, a linux.resources \
             object in JSON decides and the options for single limits are not used. Sizes \
             take the suffixes k, m, g and t.",
        )
        .options(super::update::OPTIONS),
    Command::of_container("events", "print statistics and out-of-memory events")
        .describes("Prints one JSON object a line, until the container ends.")
        .options(&[
            option("interval", Takes::Text("TIME"), "the time between statistics, as in 1m30s")
                .default("5s"),
            flag("stats", "print the statistics once and end"),
        ]),
    Command::new("spec", "", "write a starting config.json")
        .describes(
            "Writes config.json, to be edited, for a container that runs sh on a terminal, \
             with its files in the bundle's directory rootfs.",
        )
        .options(&[
            BUNDLE,
            flag("rootless", "write one that works without privileges, for the calling user"),
        ]),
    Command::new("features", "", "print what this runtime supports as JSON")
        .describes("Prints the features document of the OCI runtime specification."),
    Command::of_container("checkpoint", "save a running container to files, by CRIU").options(&[
        IMAGE_PATH,
        WORK_PATH,
        option(
            "parent-path",
            Takes::Text("DIR"),
            "an earlier pre-dump, relative to the image directory, that this one builds on",
        ),
        flag("leave-running", "let the container run on"),
        TCP_ESTABLISHED,
        flag("tcp-skip-in-flight", "skip TCP connections that are not yet established"),
        flag("link-remap", "give unlinked files a name again where possible"),
        EXT_UNIX_SK,
        SHELL_JOB,
        LAZY_PAGES,
        option("status-fd", Takes::Whole("FD"), "CRIU writes a zero byte here once it can serve")
            .default("-1"),
        option("page-server", Takes::Text("ADDRESS:PORT"), "send memory pages to this server"),
        FILE_LOCKS,
        flag("pre-dump", "save memory only, and let the container run on"),
        MANAGE_CGROUPS_MODE,
        EMPTY_NS,
        AUTO_DEDUP,
    ]),
    Command::of_container("restore", "continue a container from a checkpoint, by CRIU")
        .options(&[
            CONSOLE_SOCKET,
            IMAGE_PATH,
            WORK_PATH,
            TCP_ESTABLISHED,
            EXT_UNIX_SK,
            SHELL_JOB,
            FILE_LOCKS,
            MANAGE_CGROUPS_MODE,
            BUNDLE,
            DETACH,
            PID_FILE,
            NO_SUBREAPER,
            NO_PIVOT,
            EMPTY_NS,
            AUTO_DEDUP,
            LAZY_PAGES,
            option("lsm-profile", Takes::Text("TYPE:NAME"), "the security label of the processes"),
            option("lsm-mount-context", Takes::Text("CONTEXT"), "the security label of the mounts"),
        ])
        .completes(Completes::Nothing),
    Command::new("explain", "", "show what a bundle would do, without running it")
        .describes(
            "Prints the namespaces, mounts with their sources, capabilities, devices, cgroup \
             and limits, seccomp filter and hooks that create would set up.",
        )
        .options(&[
            BUNDLE,
            option("format", Takes::OneOf("FORMAT", &["text", "json"]), "the format")
                .letter("f")
                .default("text"),
        ]),
    Command::new("completion", "SHELL", "print the completion script of a shell")
        .args("bash|zsh|fish", 1, 1)
        .completes(Completes::Words(&["bash", "zsh", "fish"])),
    Command::new("man", "[COMMAND]", "print a manual page")
        .args("[COMMAND]", 0, 1)
        .describes("Prints the page of the program or of one command, for man -l -.")
        .options(&[option("dir", Takes::Directory("DIR"), "write every page to DIR instead")])
        .completes(Completes::Command),
    Command::new("help", "[COMMAND]", "explain the program or a command")
        .args("[COMMAND]", 0, 1)
        .completes(Completes::Command),
];

/// The command of this name.
pub(crate) fn command(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// Builders for the options that other modules of the command line keep.
pub(crate) const fn text(name: &'static str, value: &'static str, help: &'static str) -> Opt {
    option(name, Takes::Text(value), help)
}

/// An option that takes a whole number.
pub(crate) const fn whole(name: &'static str, value: &'static str, help: &'static str) -> Opt {
    option(name, Takes::Whole(value), help)
}

/// An option that takes a file, with a letter.
pub(crate) const fn file(name: &'static str, letter: &'static str, help: &'static str) -> Opt {
    option(name, Takes::File("FILE"), help).letter(letter)
}

/// An option that is accepted and shown nowhere.
pub(crate) const fn obsolete(name: &'static str) -> Opt {
    option(name, Takes::Text("BYTES"), "obsolete, without effect").hidden()
}
