//! Deterministic mutations of a configuration.
//!
//! Two kinds. A *valid* mutant differs from its base only in what the specification
//! leaves free, so that a runtime has to accept it. A *broken* one may be anything
//! down to random bytes; what to do with it is the runtime's decision, how to fail is
//! not. No mutant names a directory, a cgroup or a program of the host that the base
//! does not name: they are given to runtimes that run as root.

use serde_json::{Map, Value, json};

/// A generator of numbers that is the same everywhere: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.number() % limit as u64).expect("less than a usize")
    }

    /// One of some.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn word(&mut self) -> String {
        (0..1 + self.below(12)).map(|_| char::from(b'a' + (self.below(26) as u8))).collect()
    }
}

/// A mutated configuration.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// What to write into config.json.
    pub text: Vec<u8>,
    /// What was done, in words.
    pub what: String,
}

/// Changes one to four things that a runtime has to accept.
pub fn valid(base: &Value, random: &mut Random) -> Mutant {
    let mut config = base.clone();
    let mut what = Vec::new();
    for _ in 0..1 + random.below(4) {
        what.push(change_validly(&mut config, random));
    }
    let text = match random.below(2) {
        0 => serde_json::to_vec(&config),
        _ => serde_json::to_vec_pretty(&config),
    };
    Mutant { text: text.expect("a value can be written"), what: what.join(", ") }
}

/// Changes something without caring whether it stays a configuration.
pub fn broken(base: &Value, random: &mut Random) -> Mutant {
    let mut config = base.clone();
    let mut what = Vec::new();
    for _ in 0..1 + random.below(3) {
        what.push(change_value(&mut config, random));
    }
    let mut text = serde_json::to_vec(&config).expect("a value can be written");
    if random.below(3) == 0 {
        what.push(change_bytes(&mut text, random));
    }
    Mutant { text, what: what.join(", ") }
}

/// Changes bytes in one to three ways, mostly in those that hurt protobuf: lengths and tags.
pub fn change_message(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(3) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(40)).min(bytes.len());
        let mut noise = |most: usize| -> Vec<u8> {
            (0..random.below(most)).map(|_| (random.number() & 0xff) as u8).collect()
        };
        match noise(256).len() % 9 {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << (noise(8).len()),
            2 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][noise(5).len()],
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..end)),
            5 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            // A length or a number beyond every limit.
            6 => drop(
                bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, [0x07, 0x0f, 0xff][noise(3).len()]]),
            ),
            // A field of any number and type at the end.
            7 => {
                let content = noise(200);
                bytes.push((noise(256).len()) as u8);
                bytes.push(content.len() as u8);
                bytes.extend(content);
            }
            _ => drop(bytes.splice(at..end, noise(60))),
        }
    }
}

fn put(config: &mut Value, parent: &str, name: &str, value: Value) {
    if let Some(Value::Object(members)) = config.pointer_mut(parent) {
        members.insert(name.to_owned(), value);
    }
}

fn append(config: &mut Value, pointer: &str, value: Value) {
    if let Some(Value::Array(items)) = config.pointer_mut(pointer) {
        items.push(value);
    }
}

fn change_validly(config: &mut Value, random: &mut Random) -> String {
    let word = random.word();
    let number = random.below(1000);
    match random.below(22) {
        0 => put(config, "", "annotations", json!({ format!("org.example.{word}"): word })),
        1 => append(config, "/process/env", json!(format!("{}={word} ü\t\"", word.to_uppercase()))),
        2 => put(config, "", "hostname", json!(format!("{word}-{number}"))),
        3 => put(config, "/process", "cwd", json!(format!("/work/{word}/{number}"))),
        4 => append(
            config,
            "/mounts",
            json!({ "destination": format!("/scratch/{word}"), "type": "tmpfs", "source": "tmpfs",
                    "options": ["nosuid", format!("size={}k", 64 + number)] }),
        ),
        5 => put(config, "", &format!("x{word}"), json!([number, { "deep": word }])),
        6 => put(config, "/linux", &format!("x{word}"), json!({ "unknown": null })),
        7 => put(config, "", "hooks", Value::Null),
        8 => put(config, "/linux", "maskedPaths", Value::Null),
        9 => put(config, "/linux", "readonlyPaths", json!([])),
        10 => put(config, "/process", "user", json!({ "uid": number, "gid": number + 1 })),
        11 => put(config, "/process/user", "additionalGids", json!([number, number + 7])),
        12 => put(config, "/process/user", "umask", json!(number % 512)),
        13 => put(config, "/process", "oomScoreAdj", json!(number)),
        14 => {
            let limit = json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
            put(config, "/process", "rlimits", limit);
        }
        15 => put(config, "/linux/resources", "pids", json!({ "limit": 100 + number })),
        16 => put(config, "/linux/resources", "memory", json!({ "limit": (64 + number) << 20 })),
        17 => put(config, "/linux/resources", "cpu", json!({ "shares": 2 + number })),
        18 => put(config, "/process", "noNewPrivileges", json!(number.is_multiple_of(2))),
        19 => put(config, "/root", "readonly", json!(number.is_multiple_of(2))),
        20 => {
            let names = ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID", "CAP_NET_RAW"];
            let some: Vec<&str> = names.into_iter().filter(|_| random.below(2) == 0).collect();
            let sets = json!({ "bounding": some, "permitted": some, "effective": some });
            put(config, "/process", "capabilities", sets);
        }
        _ => {
            let rule = json!({ "names": ["personality", word], "action": "SCMP_ACT_ERRNO",
                               "errnoRet": 1 + number % 100 });
            let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW",
                                  "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule] });
            put(config, "/linux", "seccomp", profile);
        }
    }
    format!("valid with {word} {number}")
}

/// Every pointer into a value but those to what stays: the program that runs and the
/// places of the host that are written to.
fn pointers(value: &Value, here: &str, found: &mut Vec<String>) {
    const KEPT: [&str; 2] = ["/linux/cgroupsPath", "/hooks"];
    if KEPT.contains(&here) {
        return;
    }
    if !here.is_empty() {
        found.push(here.to_owned());
    }
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(member, &format!("{here}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{here}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn change_value(config: &mut Value, random: &mut Random) -> String {
    let mut all = Vec::new();
    pointers(config, "", &mut all);
    if all.is_empty() {
        return "nothing".to_owned();
    }
    let at = random.pick(&all).clone();
    let action = random.below(6);
    if action == 0 {
        let (parent, name) = at.rsplit_once('/').expect("a pointer starts with a slash");
        match config.pointer_mut(parent) {
            Some(Value::Object(members)) => {
                members.remove(&name.replace("~1", "/").replace("~0", "~"));
            }
            Some(Value::Array(items)) => {
                if let Ok(index) = name.parse::<usize>() {
                    items.remove(index);
                }
            }
            _ => {}
        }
        return format!("{at} removed");
    }
    let Some(slot) = config.pointer_mut(&at) else { return "nothing".to_owned() };
    let new = match (action, &*slot) {
        (1, _) => other_type(random),
        (2, Value::Array(items)) if !items.is_empty() => {
            Value::Array(items.iter().cycle().take(items.len() + 300).cloned().collect())
        }
        (3, _) => nested(1 + random.below(300)),
        (_, Value::Number(_)) => odd_number(random),
        (_, Value::String(text)) => odd_text(text, at.starts_with("/root"), random),
        (_, Value::Bool(flag)) => json!(!flag),
        (_, Value::Array(items)) => Value::Array(items.iter().rev().cloned().collect()),
        (_, Value::Object(members)) => {
            let mut members: Map<String, Value> = members.clone();
            members.insert(random.word(), other_type(random));
            Value::Object(members)
        }
        (_, Value::Null) => other_type(random),
    };
    let shown: String = new.to_string().chars().take(60).collect();
    *slot = new;
    format!("{at} = {shown}")
}

fn other_type(random: &mut Random) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(7.5),
        json!("text"),
        json!([]),
        json!({}),
        json!([[[]]]),
    ];
    random.pick(&values).clone()
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(0), |inner, _| json!([inner]))
}

fn odd_number(random: &mut Random) -> Value {
    let values = [
        json!(-1),
        json!(0),
        json!(1),
        json!(65_536),
        json!(i32::MAX),
        json!(1_i64 << 31),
        json!(u32::MAX),
        json!(1_u64 << 32),
        json!(1_u64 << 53),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(0.5),
        json!(1e300),
        json!(-1e-300),
    ];
    random.pick(&values).clone()
}

fn odd_text(text: &str, is_root: bool, random: &mut Random) -> Value {
    let long = "x".repeat(5000);
    let values = [
        "",
        "no-such-thing",
        "a\0b",
        "\n\u{1b}[31m\r",
        "\u{202e}\u{feff}",
        "%s%n%x",
        "rootfs/..",
        long.as_str(),
        // Not for the root: a root that is the host's is written to.
        "..",
        "/",
        "relative/../..",
        "/proc/self/fd/7",
    ];
    let usable = if is_root { &values[..8] } else { &values[..] };
    match random.below(3) {
        0 => json!(text.to_uppercase()),
        1 => json!(format!("{text}{}", random.pick(usable).chars().take(300).collect::<String>())),
        _ => json!(random.pick(usable)),
    }
}

fn change_bytes(text: &mut Vec<u8>, random: &mut Random) -> String {
    match random.below(5) {
        0 => {
            for _ in 0..1 + random.below(8) {
                let at = random.below(text.len());
                // Never in a path of the host: those start with a slash that stays.
                if text[at] != b'/' {
                    text[at] = u8::try_from(random.below(256)).expect("a byte");
                }
            }
            "bytes changed".to_owned()
        }
        1 => {
            text.truncate(random.below(text.len()));
            "cut".to_owned()
        }
        2 => {
            let at = random.below(text.len());
            let inserted: Vec<u8> =
                (0..1 + random.below(20)).map(|_| *random.pick(b"{}[]\",:0\\\x00\xff ")).collect();
            text.splice(at..at, inserted);
            "bytes inserted".to_owned()
        }
        3 => {
            // The first member given a second time.
            let again = text[1..].to_vec();
            text.truncate(text.len() - 1);
            text.push(b',');
            text.extend(again);
            "members doubled".to_owned()
        }
        _ => {
            *text = (0..random.below(2000)).map(|_| (random.number() & 0xff) as u8).collect();
            "random bytes".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Value {
        json!({ "process": { "args": ["a"], "user": {} }, "root": { "path": "rootfs" }, "mounts": [],
                "linux": { "cgroupsPath": "/kept", "resources": {} } })
    }

    #[test]
    fn the_same_seed_gives_the_same_mutants() {
        let texts = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| broken(&base(), &mut random).text).collect::<Vec<_>>()
        };
        assert_eq!(texts(7), texts(7));
        assert_ne!(texts(7), texts(8));
    }

    #[test]
    fn valid_mutants_are_json_and_keep_the_cgroup() {
        let mut random = Random::new(1);
        for _ in 0..500 {
            let mutant = valid(&base(), &mut random);
            let config: Value = serde_json::from_slice(&mutant.text).unwrap();
            assert_eq!(config["linux"]["cgroupsPath"], "/kept");
        }
    }

    #[test]
    fn no_mutant_takes_the_host_as_its_root() {
        let mut random = Random::new(2);
        for _ in 0..3000 {
            let mutant = broken(&base(), &mut random);
            if let Ok(config) = serde_json::from_slice::<Value>(&mutant.text) {
                let path = config["root"]["path"].as_str().unwrap_or_default();
                assert!(!path.starts_with('/') && !path.starts_with(".."), "{path}");
                if let Some(cgroup) = config["linux"].get("cgroupsPath").and_then(Value::as_str) {
                    assert!(cgroup.len() > 1, "{cgroup}");
                }
            }
        }
    }
}
