//! From words to commands, by clap, with the habits of docker's flags: every option takes the
//! word after it, whatever it begins with; the last of two wins; a switch may be `=false`.

use std::any::TypeId;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, error::ErrorKind};

use super::{Cli, usage};
use crate::options::parse_bool;

/// What was typed is not a command to carry out.
#[derive(Debug, PartialEq)]
pub(crate) enum Stop {
    /// Help or version: for stdout.
    Print(String),
    /// Wrong, with the exit code: for stderr.
    Wrong(String, u8),
}

/// Reads the words, the first of which is our name.
pub(crate) fn parse(words: &[String]) -> Result<Cli, Stop> {
    let mut command = command();
    let matches = match command.try_get_matches_from_mut(words) {
        Ok(matches) => matches,
        Err(error) => {
            return Err(match error.kind() {
                ErrorKind::DisplayHelp => Stop::Print(without_values(&error.to_string())),
                ErrorKind::DisplayVersion => Stop::Print(error.to_string()),
                _ => usage::explain(&error, &command, words),
            });
        }
    };
    Cli::from_arg_matches(&matches).map_err(|error| usage::explain(&error, &command, words))
}

/// The grammar. Commands are built when they are needed: all of them take a millisecond.
pub(crate) fn command() -> clap::Command {
    let commit = option_env!("HULL_COMMIT").filter(|commit| !commit.is_empty());
    let version =
        format!("version {}, build {}", env!("CARGO_PKG_VERSION"), commit.unwrap_or("unknown"));
    Cli::command().version(version).args_override_self(true)
}

/// Docker's habits for one option. Named by every group of options (`mut_args`), because a
/// command that is built late can't be changed from outside.
pub(crate) fn habit(arg: clap::Arg) -> clap::Arg {
    if arg.is_positional() {
        return arg;
    }
    match arg.get_action() {
        ArgAction::SetTrue => switch(arg).default_value("false").hide_default_value(true),
        ArgAction::Set if arg.get_value_parser().type_id() == TypeId::of::<bool>() => switch(arg),
        ArgAction::Set | ArgAction::Append => arg.allow_hyphen_values(true),
        _ => arg,
    }
}

fn switch(arg: clap::Arg) -> clap::Arg {
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_name("bool")
        .value_parser(parse_bool)
}

/// Help without the values of switches, which nobody needs to know.
fn without_values(help: &str) -> String {
    let value = "[=<bool>]";
    help.replace(value, &" ".repeat(value.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, container};

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn wrong(line: &str) -> (String, u8) {
        match parse(&words(line)) {
            Err(Stop::Wrong(text, code)) => {
                (text.lines().next().unwrap_or_default().to_owned(), code)
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    fn run(line: &str) -> container::RunArgs {
        match parse(&words(line)).map(|cli| cli.command) {
            Ok(Command::Container(container::Command::Run(args))) => args,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// `docker run --help` of docker 28.
    const RUN_OPTIONS: &str = "\
        add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup- \
        parent cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period \
        cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device \
        device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write- \
        iops disable-content-trust dns dns-option dns-search domainname entrypoint env env- \
        file expose gpus group-add health-cmd health-interval health-retries health-start- \
        interval health-start-period health-timeout help hostname init interactive io- \
        maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link \
        link-local-ip log-driver log-opt mac-address memory memory-reservation memory-swap \
        memory-swappiness mount name network network-alias no-healthcheck oom-kill-disable \
        oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet \
        read-only restart rm runtime security-opt shm-size sig-proxy stop-signal stop- \
        timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user userns uts volume \
        volume-driver volumes-from workdir";

    #[test]
    fn every_option_of_docker_run_is_known() {
        let mut tree = command();
        tree.build();
        let run = tree.find_subcommand("run").expect("there is run");
        for name in RUN_OPTIONS.split_whitespace() {
            assert!(run.get_arguments().any(|arg| arg.get_long() == Some(name)), "--{name}");
        }
    }

    #[test]
    fn the_tree_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn everything_after_the_image_is_the_containers() {
        let args = run("hull run -it --rm -e A=b busybox sh -c -t --rm -- -x");
        assert!(args.container.interactive && args.container.tty && args.container.rm);
        assert_eq!(args.container.words, words("busybox sh -c -t --rm -- -x"));
        assert_eq!(run("hull run -- busybox -x").container.words, ["busybox", "-x"]);
    }

    #[test]
    fn flags_have_dockers_habits() {
        let args =
            run("hull run -i=false --tty=1 -ti=0 --sig-proxy=false --memory-swap -1 -e -x a");
        assert!(!args.container.interactive && args.container.tty && !args.sig_proxy);
        assert_eq!(
            (args.container.memory_swap, args.container.env.as_slice()),
            (Some(-1), &["-x".to_owned()][..])
        );
        let args = run("hull run --name a --name b -h host -m 64m -m=1g x");
        assert_eq!(args.container.name.as_deref(), Some("b"));
        assert_eq!(
            (args.container.hostname.as_deref(), args.container.memory),
            (Some("host"), Some(1 << 30))
        );
        assert!(run("hull run x").sig_proxy);
    }

    #[test]
    fn both_forms_are_the_same_command() {
        for line in [
            "hull ps -aq",
            "hull container ls -aq",
            "hull container ps -aq",
            "hull container list -aq",
        ] {
            let args = match parse(&words(line)).map(|cli| cli.command) {
                Ok(
                    Command::Container(container::Command::Ps(args))
                    | Command::ContainerGroup(
                        container::Group::Ls(args)
                        | container::Group::Command(container::Command::Ps(args)),
                    ),
                ) => args,
                other => panic!("{line}: {other:?}"),
            };
            assert!(args.all && args.quiet);
        }
        for line in [
            "hull container run a",
            "hull image ls",
            "hull images",
            "hull image rm a",
            "hull rmi a",
            "hull image pull a",
            "hull system df",
            "hull system events",
            "hull events",
            "hull info",
            "hull system info",
            "hull volume ls",
            "hull -H unix:///x -D ps",
            "hull rm a -f",
            "hull logs a -f -n 5",
            "hull container rm a",
            "hull container remove a",
            "hull cp - a:/",
            "hull top a -o pid",
            "hull commit -p=false a",
        ] {
            assert!(parse(&words(line)).is_ok(), "{line}: {:?}", parse(&words(line)).err());
        }
    }

    #[test]
    fn mistakes_are_told_in_dockers_words() {
        for (line, text, code) in [
            ("hull run --badflag busybox", "unknown flag: --badflag", 125),
            ("hull ps -y", "unknown shorthand flag: 'y' in -y", 125),
            ("hull run", "hull: 'hull run' requires at least 1 argument", 1),
            ("hull ps x", "hull: 'hull ps' accepts no arguments", 1),
            ("hull pull a b", "hull: 'hull pull' requires 1 argument", 1),
            ("hull pull", "hull: 'hull pull' requires 1 argument", 1),
            ("hull rename a", "hull: 'hull rename' requires 2 arguments", 1),
            ("hull exec a", "hull: 'hull exec' requires at least 2 arguments", 1),
            ("hull commit", "hull: 'hull commit' requires at least 1 and at most 2 arguments", 1),
            ("hull badcmd", "hull: unknown command: hull badcmd", 1),
            ("hull container badcmd", "hull: unknown command: hull container badcmd", 1),
            (
                "hull run -m abc x",
                "invalid argument \"abc\" for \"-m, --memory\" flag: invalid size: 'abc'",
                125,
            ),
            (
                "hull run --cpus x x",
                "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number",
                125,
            ),
            (
                "hull run -a foo x",
                "invalid argument \"foo\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR",
                125,
            ),
            (
                "hull run --mount source=x a",
                "invalid argument \"source=x\" for \"--mount\" flag: target is required",
                125,
            ),
            (
                "hull ps --filter x",
                "invalid argument \"x\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
                125,
            ),
            (
                "hull run -i=x a",
                "invalid argument \"x\" for \"-i, --interactive\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
                125,
            ),
            ("hull run --name", "flag needs an argument: --name", 125),
            ("hull run -e", "flag needs an argument: 'e' in -e", 125),
        ] {
            assert_eq!(wrong(line), (text.to_owned(), code), "{line}");
        }
    }

    #[test]
    fn help_and_version_are_printed() {
        for line in [
            "hull --help",
            "hull run --help",
            "hull container ls --help",
            "hull -v",
            "hull version --help",
        ] {
            assert!(
                matches!(parse(&words(line)), Err(Stop::Print(text)) if !text.contains("[=")),
                "{line}"
            );
        }
    }
}
