//! Changes to a configuration: the Dockerfile instructions that `commit` and `import` take.

use std::{collections::BTreeMap, time::Duration};

use hull_manager_core::{Error, Result};
use hull_specs_image::{ContainerConfig, Health};
use serde_json::json;

use crate::words;

/// The most changes of one request.
const MAX_CHANGES: usize = 1000;

/// What the changes make of an empty configuration.
pub(crate) fn parse(changes: &[String]) -> Result<ContainerConfig> {
    if changes.len() > MAX_CHANGES {
        return Err(Error::invalid(format!("more than {MAX_CHANGES} changes")));
    }
    let mut config = ContainerConfig::default();
    for change in changes {
        apply(&mut config, change)?;
    }
    Ok(config)
}

/// `changed` on top of what a container runs with (docker's rules: what is not changed stays,
/// and a new entrypoint takes the old command away).
pub(crate) fn merge(changed: ContainerConfig, base: &ContainerConfig) -> ContainerConfig {
    let mut merged = base.clone();
    for (mine, theirs) in [
        (&changed.user, &mut merged.user),
        (&changed.working_dir, &mut merged.working_dir),
        (&changed.stop_signal, &mut merged.stop_signal),
    ] {
        if !mine.is_empty() {
            theirs.clone_from(mine);
        }
    }
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let names: Vec<String> = changed.env.iter().map(|line| name(line)).collect();
    merged.env.retain(|line| !names.contains(&name(line)));
    merged.env.extend(changed.env);
    merged.exposed_ports.extend(changed.exposed_ports);
    merged.volumes.extend(changed.volumes);
    merged.labels.extend(changed.labels);
    merged.on_build = changed.on_build;
    if !changed.entrypoint.is_empty() {
        merged.entrypoint = changed.entrypoint;
        merged.cmd = changed.cmd;
    } else if !changed.cmd.is_empty() {
        merged.cmd = changed.cmd;
    }
    merged.healthcheck = match (changed.healthcheck, merged.healthcheck) {
        (Some(changed), Some(base)) => Some(merge_health(changed, base)),
        (changed, base) => changed.or(base),
    };
    merged
}

fn merge_health(changed: Health, base: Health) -> Health {
    let or = |mine: i64, theirs: i64| if mine == 0 { theirs } else { mine };
    Health {
        test: if changed.test.is_empty() { base.test } else { changed.test },
        interval: or(changed.interval, base.interval),
        timeout: or(changed.timeout, base.timeout),
        start_period: or(changed.start_period, base.start_period),
        start_interval: or(changed.start_interval, base.start_interval),
        retries: or(changed.retries, base.retries),
    }
}

fn apply(config: &mut ContainerConfig, change: &str) -> Result<()> {
    let change = change.trim();
    if change.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Error::invalid("a change has control characters in it"));
    }
    let (word, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let (instruction, rest) = (word.to_ascii_uppercase(), rest.trim());
    let missing = || Error::invalid(format!("{instruction} requires at least one argument"));
    let known = [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "LABEL",
        "ONBUILD",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
        "HEALTHCHECK",
    ];
    if !known.contains(&instruction.as_str()) {
        return Err(Error::invalid(format!(
            "{} is not a valid change command",
            word.escape_default()
        )));
    }
    if rest.is_empty() && !matches!(instruction.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(missing());
    }
    let env = config.env.clone();
    let get = |name: &str| {
        env.iter().find_map(|line| {
            line.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        })
    };
    let expand = |word: &str| words::expand(word, &get);
    let one = || -> Result<String> {
        match words::split(rest).as_slice() {
            [one] => expand(one),
            _ => Err(Error::invalid(format!("{instruction} requires exactly one argument"))),
        }
    };
    match instruction.as_str() {
        "CMD" => config.cmd = command(rest),
        "ENTRYPOINT" => config.entrypoint = command(rest),
        "ENV" => {
            for (key, value) in pairs(&instruction, rest)? {
                let (key, value) = (expand(&key)?, expand(&value)?);
                config.env.retain(|line| line.split('=').next() != Some(&key));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => {
            for (key, value) in pairs(&instruction, rest)? {
                config.labels.insert(expand(&key)?, expand(&value)?);
            }
        }
        "EXPOSE" => {
            for word in words::split(rest) {
                for port in ports(&expand(&word)?)? {
                    config.exposed_ports.insert(port, json!({}));
                }
            }
        }
        "VOLUME" => {
            let volumes = array(rest).map_or_else(
                || words::split(rest).iter().map(|word| expand(word)).collect::<Result<_>>(),
                Ok,
            )?;
            for volume in volumes {
                if volume.trim().is_empty() {
                    return Err(Error::invalid("VOLUME specified can not be an empty string"));
                }
                config.volumes.insert(volume, json!({}));
            }
        }
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            match trigger.as_str() {
                "ONBUILD" => {
                    return Err(Error::invalid(
                        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
                    ));
                }
                "FROM" | "MAINTAINER" => {
                    return Err(Error::invalid(format!(
                        "{trigger} isn't allowed as an ONBUILD trigger"
                    )));
                }
                _ => config.on_build.push(rest.to_owned()),
            }
        }
        "USER" => config.user = one()?,
        "STOPSIGNAL" => config.stop_signal = stop_signal(one()?)?,
        "WORKDIR" => {
            let directory = one()?;
            config.working_dir = clean(&format!(
                "{}/{directory}",
                match directory.starts_with('/') {
                    true => "",
                    false => config.working_dir.as_str(),
                }
            ));
        }
        _ => config.healthcheck = Some(health(rest)?),
    }
    Ok(())
}

/// A JSON array of strings, if that is what it is.
fn array(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok())?
}

/// The form of an array, or a line for the shell.
fn command(text: &str) -> Vec<String> {
    match array(text) {
        Some(words) => words,
        None if text.is_empty() => Vec::new(),
        None => vec!["/bin/sh".into(), "-c".into(), text.into()],
    }
}

/// `KEY=VALUE …`, or the old form `KEY the rest`.
fn pairs(instruction: &str, text: &str) -> Result<Vec<(String, String)>> {
    let found = words::split(text);
    let first = found.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        return match text.split_once(char::is_whitespace) {
            Some((key, value)) => Ok(vec![(key.to_owned(), value.trim().to_owned())]),
            None => Err(Error::invalid(format!("{instruction} must have two arguments"))),
        };
    }
    found
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(Error::invalid(format!("{instruction} names can not be blank"))),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::invalid(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<String>> {
    let bad = || Error::invalid(format!("invalid containerPort: {}", text.escape_default()));
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid proto: {}", protocol.escape_default())));
    }
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().map_err(|_| bad());
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        return Err(bad());
    }
    Ok((from..=to).map(|port| format!("{port}/{protocol}")).collect())
}

/// A number, or the name of a signal with or without SIG.
fn stop_signal(text: String) -> Result<String> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let numbered = name.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number));
    let realtime = ["RTMIN+", "RTMAX-"].iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|number| number.parse::<u8>().is_ok_and(|number| number <= 30))
    });
    if numbered || realtime || SIGNALS.contains(&name) {
        Ok(text)
    } else {
        Err(Error::invalid(format!("invalid signal: {}", text.escape_default())))
    }
}

const SIGNALS: [&str; 37] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS",
    "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU",
    "XFSZ", "UNUSED",
];

/// `[--interval=…] … NONE`, or `CMD …`.
fn health(text: &str) -> Result<Health> {
    let mut health = Health::default();
    let mut rest = text;
    let mut flags = BTreeMap::new();
    while let Some(flag) = rest.strip_prefix("--") {
        let (flag, after) = flag.split_once(char::is_whitespace).unwrap_or((flag, ""));
        let (name, value) = flag.split_once('=').ok_or_else(|| {
            Error::invalid(format!("missing a value on flag: {}", flag.escape_default()))
        })?;
        if flags.insert(name, value).is_some() {
            return Err(Error::invalid(format!(
                "duplicate flag specified: {}",
                name.escape_default()
            )));
        }
        rest = after.trim_start();
    }
    for (name, value) in &flags {
        match *name {
            "interval" => health.interval = nanoseconds(name, value)?,
            "timeout" => health.timeout = nanoseconds(name, value)?,
            "start-period" => health.start_period = nanoseconds(name, value)?,
            "start-interval" => health.start_interval = nanoseconds(name, value)?,
            "retries" => {
                health.retries = value
                    .parse::<u32>()
                    .map_err(|_| Error::invalid("--retries must be at least 1 (not negative)"))?
                    .into();
            }
            other => {
                return Err(Error::invalid(format!("unknown flag: {}", other.escape_default())));
            }
        }
    }
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = rest.trim();
    health.test = match (kind.to_ascii_uppercase().as_str(), rest) {
        ("NONE", "") if flags.is_empty() => vec!["NONE".into()],
        ("NONE", _) => return Err(Error::invalid("HEALTHCHECK NONE takes no arguments")),
        ("CMD", "") => return Err(Error::invalid("Missing command after HEALTHCHECK CMD")),
        ("CMD", line) => match array(line) {
            Some(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
            None => vec!["CMD-SHELL".into(), line.into()],
        },
        _ => {
            return Err(Error::invalid(format!(
                "Unknown type {:?} in HEALTHCHECK (try CMD)",
                kind
            )));
        }
    };
    Ok(health)
}

/// At least a millisecond, or 0.
fn nanoseconds(name: &str, text: &str) -> Result<i64> {
    let total = duration(text)
        .and_then(|duration| i64::try_from(duration.as_nanos()).ok())
        .ok_or_else(|| Error::invalid(format!("--{name}: invalid duration {text:?}")))?;
    if total != 0 && total < 1_000_000 {
        return Err(Error::invalid(format!("Interval {name:?} cannot be less than 1ms")));
    }
    Ok(total)
}

/// Go's durations: `1m30s`, `1.5h`, `300ms`, `0`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest == "0" {
        return Some(total);
    }
    while !rest.is_empty() {
        let (number, after) =
            rest.split_at(rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?);
        let units = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(units);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(part)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// Without `.`, `..` and double slashes; absolute.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<ContainerConfig> {
        parse(&changes.iter().map(|change| (*change).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn each_instruction_changes_its_field() {
        let config = changed(&[
            r#"CMD ["a", "b c"]"#,
            "entrypoint exec top -b",
            r#"ENV A=1 B="x y""#,
            "ENV C the  rest",
            "ENV D=$A$C",
            "EXPOSE 80 53/udp 8000-8001",
            r#"LABEL a=b "c d"=e"#,
            "ONBUILD RUN make",
            "STOPSIGNAL SIGQUIT",
            "USER 1000:100",
            r#"VOLUME ["/a b"]"#,
            "VOLUME /c /d",
            "WORKDIR /x",
            "WORKDIR ../y/./z",
            r#"HEALTHCHECK --interval=1m30s --retries=3 CMD ["true"]"#,
        ])
        .unwrap();
        assert_eq!(config.cmd, ["a", "b c"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "exec top -b"]);
        assert_eq!(config.env, ["A=1", "B=x y", "C=the  rest", "D=1the  rest"]);
        let keys: Vec<_> = config.exposed_ports.keys().collect();
        assert_eq!(keys, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!(config.labels, [("a".into(), "b".into()), ("c d".into(), "e".into())].into());
        assert_eq!(config.on_build, ["RUN make"]);
        assert_eq!((config.stop_signal.as_str(), config.user.as_str()), ("SIGQUIT", "1000:100"));
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a b", "/c", "/d"]);
        assert_eq!(config.working_dir, "/y/z");
        let health = config.healthcheck.unwrap();
        assert_eq!((health.interval, health.retries), (90_000_000_000, 3));
        assert_eq!(health.test, ["CMD", "true"]);
        let config = changed(&["HEALTHCHECK CMD exit 0", "CMD"]).unwrap();
        assert_eq!(config.healthcheck.unwrap().test, ["CMD-SHELL", "exit 0"]);
        let none = changed(&["HEALTHCHECK NONE"]).unwrap();
        assert_eq!(none.healthcheck.unwrap().test, ["NONE"]);
    }

    #[test]
    fn what_is_none_is_refused_in_a_sentence() {
        for (change, sentence) in [
            ("RUN true", "RUN is not a valid change command"),
            ("", " is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV A", "ENV must have two arguments"),
            ("ENV =b", "ENV names can not be blank"),
            ("ENV A=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
            ("EXPOSE x", "invalid containerPort: x"),
            ("EXPOSE 90-80", "invalid containerPort: 90-80"),
            ("EXPOSE 80/icmp", "invalid proto: icmp"),
            ("USER a b", "USER requires exactly one argument"),
            ("STOPSIGNAL SIGNOPE", "invalid signal: SIGNOPE"),
            ("STOPSIGNAL 65", "invalid signal: 65"),
            ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("HEALTHCHECK true", "Unknown type \"true\" in HEALTHCHECK (try CMD)"),
            ("HEALTHCHECK --interval=1x CMD a", "--interval: invalid duration \"1x\""),
            ("HEALTHCHECK --interval=1ns CMD a", "Interval \"interval\" cannot be less than 1ms"),
            ("HEALTHCHECK --nope=1 CMD a", "unknown flag: nope"),
            ("VOLUME [\"\"]", "VOLUME specified can not be an empty string"),
            ("USER a\nUSER b", "a change has control characters in it"),
        ] {
            assert_eq!(changed(&[change]).unwrap_err().message(), sentence, "{change}");
        }
    }

    #[test]
    fn a_container_keeps_what_was_not_changed() {
        let base = changed(&[
            "CMD old",
            "ENV A=1 B=2",
            "LABEL x=1",
            "USER u",
            "EXPOSE 1",
            "ONBUILD RUN x",
            "HEALTHCHECK --retries=5 CMD a",
        ])
        .unwrap();
        let merged = merge(
            changed(&["ENV A=3", "LABEL y=2", "WORKDIR /w", "HEALTHCHECK CMD b"]).unwrap(),
            &base,
        );
        assert_eq!(merged.cmd, base.cmd);
        assert_eq!(merged.env, ["B=2", "A=3"]);
        assert_eq!((merged.labels.len(), merged.user.as_str()), (2, "u"));
        assert_eq!(merged.working_dir, "/w");
        assert_eq!(merged.on_build, [""; 0]);
        let health = merged.healthcheck.unwrap();
        assert_eq!((health.retries, health.test[1].as_str()), (5, "b"));
        let merged = merge(changed(&["ENTRYPOINT [\"e\"]"]).unwrap(), &base);
        assert_eq!((merged.entrypoint, merged.cmd), (vec!["e".to_owned()], vec![]));
        let merged = merge(changed(&["CMD [\"n\"]"]).unwrap(), &base);
        assert_eq!(merged.cmd, ["n"]);
    }
}
