//! Runs a list of tests in parallel and counts what could not be run.
//!
//! The standard harness has no outcome between passed and failed; a suite that can
//! pass by skipping proves nothing, so this one counts and prints every test that was
//! not run. It takes the standard harness's usual arguments: filters, `--exact`,
//! `--skip`, `--list`, `--test-threads`.
//!
//! A test that failed beside others is run once more, alone, when they are through. If
//! it passes then it is unsteady: a fault all the same, of the product or of the test,
//! but told apart from a behaviour that is gone. More than a few of them fail the suite,
//! and with `HULL_STEADY=1` each does. What failed is printed last, with its words, so
//! that the end of a log is enough to know.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::env;
use std::fs;
use std::io::{IsTerminal, Write};
use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::{NotRun, leftovers, scratch_dir, transcript};

/// A test: its module path and name, and what to run.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// Module path and function name.
    pub name: &'static str,
    /// The test.
    pub run: fn(),
}

/// Lists the tests of a module. A function that is forgotten is an unused function,
/// which the build refuses.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        /// The tests of this module.
        pub(crate) const TESTS: &[$crate::Test] = &[$($crate::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            run: $name,
        }),*];
    };
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// How many tests may be unsteady, and how many that failed are tried again: where more
/// fail, something is broken, and the time is better spent on the first of them.
const UNSTEADY: usize = 3;

static RUNS: AtomicBool = AtomicBool::new(false);

/// Whether this process is a suite, which knows of tests that were not run.
pub(crate) fn runs() -> bool {
    RUNS.load(Ordering::Relaxed)
}

/// A test's name and function, without the crate's part of the path.
type Named<'a> = (&'a str, fn());

enum Outcome {
    Passed,
    Failed(String),
    /// Failed beside others, and passed alone: the words of the failure.
    Unsteady(String),
    Missing(String),
    PeerLacks(String),
    Control(String),
}

#[derive(Debug, Default)]
struct Arguments {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    threads: Option<usize>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut out = Arguments::default();
    while let Some(word) = words.next() {
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) if name.starts_with("--") => {
                (name.to_owned(), Some(value.to_owned()))
            }
            _ => (word.clone(), None),
        };
        let mut value = || inline.clone().or_else(|| words.next()).ok_or(format!("{word} what?"));
        match name.as_str() {
            "--exact" => out.exact = true,
            "--list" => out.list = true,
            "--nocapture" | "--no-capture" | "-q" | "--quiet" | "--include-ignored" => {}
            "--skip" => out.skips.push(value()?),
            "--test-threads" => {
                out.threads = Some(value()?.parse().map_err(|_| "not a number".to_owned())?);
            }
            "--format" | "--color" => drop(value()?),
            _ if name.starts_with('-') => return Err(format!("unknown argument {name}")),
            _ => out.filters.push(word),
        }
    }
    Ok(out)
}

/// Runs the tests that the command line asks for. `banner` says what is driven.
pub fn main(suite: &str, banner: fn() -> String, groups: &[&[Test]]) -> ExitCode {
    let arguments = match parse(env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let matches = |name: &str, pattern: &String| match arguments.exact {
        true => name == pattern,
        false => name.contains(pattern.as_str()),
    };
    let tests: VecDeque<Named<'_>> = groups
        .iter()
        .flat_map(|group| group.iter())
        .map(|test| (test.name.split_once("::").map_or(test.name, |(_, rest)| rest), test.run))
        .filter(|(name, _)| {
            (arguments.filters.is_empty() || arguments.filters.iter().any(|one| matches(name, one)))
                && !arguments.skips.iter().any(|one| matches(name, one))
        })
        .collect();
    if arguments.list {
        for (name, _) in &tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the {suite} suite drives containers and has to run as root");
        return ExitCode::FAILURE;
    }
    leftovers::remove();
    run(suite, &banner(), tests, arguments.threads)
}

fn run(suite: &str, banner: &str, tests: VecDeque<Named<'_>>, threads: Option<usize>) -> ExitCode {
    panic::set_hook(Box::new(|info| {
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info
            .payload()
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| info.payload().downcast_ref::<&str>().copied())
            .unwrap_or("a panic without words");
        // The first one is the reason; later ones come from cleaning up.
        PANIC.with_borrow_mut(|slot| {
            slot.get_or_insert_with(|| format!("{at}: {message}"));
        });
    }));
    RUNS.store(true, Ordering::Relaxed);
    let started = Instant::now();
    let count = tests.len();
    // Containers wait for the kernel more than they compute.
    let threads = threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(4, |cores| cores.get() * 2))
        .clamp(1, count.max(1));
    println!("{suite}: {count} tests of {banner}, {threads} at once");
    let by_name: BTreeMap<&str, fn()> = tests.iter().copied().collect();
    let queue = Mutex::new(tests);
    let results = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((name, test)) = pop(&queue) {
                    let (outcome, took) = run_one(test);
                    show(name, &outcome, took);
                    lock(&results).push((name, outcome, took));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    again(&mut results, |name| by_name.get(name).copied());
    let _ = fs::remove_dir_all(scratch_dir());
    summary(suite, banner, &results, started.elapsed())
}

/// Runs what failed once more, alone.
fn again(results: &mut [(&str, Outcome, Duration)], test: impl Fn(&str) -> Option<fn()>) {
    let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_));
    if results.iter().filter(|(_, outcome, _)| failed(outcome)).count() > UNSTEADY {
        return;
    }
    for (name, outcome, took) in results {
        let (Outcome::Failed(words), Some(test)) = (&*outcome, test(name)) else { continue };
        let (second, time) = run_one(test);
        show(name, &second, time);
        if matches!(second, Outcome::Passed) {
            *outcome = Outcome::Unsteady(words.clone());
            *took += time;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn pop<'a>(queue: &Mutex<VecDeque<Named<'a>>>) -> Option<Named<'a>> {
    lock(queue).pop_front()
}

fn run_one(test: fn()) -> (Outcome, Duration) {
    transcript::take();
    PANIC.take();
    let started = Instant::now();
    let result = panic::catch_unwind(test);
    let outcome = match result {
        Ok(()) => Outcome::Passed,
        Err(payload) => match payload.downcast::<NotRun>() {
            Ok(why) => match *why {
                NotRun::Missing(reason) => Outcome::Missing(reason),
                NotRun::PeerLacks(reason) => Outcome::PeerLacks(reason),
                NotRun::Control(attack) => Outcome::Control(attack),
            },
            Err(_) => {
                let message = PANIC.take().unwrap_or_else(|| "failed without words".to_owned());
                Outcome::Failed(format!("{message}\n{}", transcript::take()))
            }
        },
    };
    (outcome, started.elapsed())
}

fn show(name: &str, outcome: &Outcome, took: Duration) {
    let mut out = std::io::stdout().lock();
    let green = |word: &str| match std::io::stdout().is_terminal() {
        true => format!("\x1b[32m{word}\x1b[0m"),
        false => word.to_owned(),
    };
    let line = match outcome {
        Outcome::Passed if took > Duration::from_secs(2) => {
            format!("{name} ... {} ({:.1} s)", green("ok"), took.as_secs_f32())
        }
        Outcome::Passed => format!("{name} ... {}", green("ok")),
        Outcome::Failed(text) | Outcome::Unsteady(text) => {
            format!("{name} ... FAILED\n{}", indented(text))
        }
        Outcome::Missing(reason) => format!("{name} ... not run: {reason}"),
        Outcome::PeerLacks(reason) => format!("{name} ... not applicable: {reason}"),
        Outcome::Control(attack) => format!("{name} ... control: the attack works, {attack}"),
    };
    let _ = writeln!(out, "{line}");
}

fn indented(text: &str) -> String {
    format!("    {}", text.trim_end().replace('\n', "\n    "))
}

fn summary(
    suite: &str,
    banner: &str,
    results: &[(&str, Outcome, Duration)],
    took: Duration,
) -> ExitCode {
    let names = |wanted: fn(&Outcome) -> bool| -> Vec<&str> {
        results.iter().filter(|(_, outcome, _)| wanted(outcome)).map(|(name, ..)| *name).collect()
    };
    let passed = names(|outcome| matches!(outcome, Outcome::Passed));
    let failed = names(|outcome| matches!(outcome, Outcome::Failed(_)));
    let unsteady = names(|outcome| matches!(outcome, Outcome::Unsteady(_)));
    let missing = names(|outcome| matches!(outcome, Outcome::Missing(_)));
    let lacking = names(|outcome| matches!(outcome, Outcome::PeerLacks(_)));
    let controls = names(|outcome| matches!(outcome, Outcome::Control(_)));
    println!();
    for (name, outcome, _) in results {
        if let Outcome::Missing(reason) = outcome {
            println!("not run: {name}: {reason}");
        }
    }
    println!(
        "{suite} on {banner}: {} passed, {} failed, {} unsteady, {} not run, {} not applicable, {} controls; {:.1} s",
        passed.len(),
        failed.len(),
        unsteady.len(),
        missing.len(),
        lacking.len(),
        controls.len(),
        took.as_secs_f32(),
    );
    let all_required = env::var("HULL_REQUIRE_ALL").is_ok_and(|value| value == "1");
    if all_required && !missing.is_empty() {
        println!("HULL_REQUIRE_ALL=1: a test that was not run counts as failed");
    }
    for (name, outcome, _) in results {
        match outcome {
            Outcome::Failed(text) => println!("failed: {name}\n{}", indented(text)),
            Outcome::Unsteady(text) => {
                println!("unsteady: {name} passed alone; before:\n{}", indented(text));
            }
            _ => {}
        }
    }
    let steady = match env::var("HULL_STEADY").is_ok_and(|value| value == "1") {
        true => unsteady.is_empty(),
        false => unsteady.len() <= UNSTEADY,
    };
    match failed.is_empty() && steady && (!all_required || missing.is_empty()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::not_run;

    fn outcome_of(test: fn()) -> Outcome {
        run_one(test).0
    }

    #[test]
    fn a_panic_is_a_failure() {
        assert!(matches!(outcome_of(|| assert_eq!(1, 2)), Outcome::Failed(_)));
    }

    #[test]
    fn a_gate_is_neither_passed_nor_failed() {
        let missing = outcome_of(|| not_run(NotRun::Missing("no reason".to_owned())));
        assert!(matches!(missing, Outcome::Missing(reason) if reason == "no reason"));
        let lacking = outcome_of(|| not_run(NotRun::PeerLacks("older".to_owned())));
        assert!(matches!(lacking, Outcome::PeerLacks(_)));
        let control = outcome_of(|| not_run(NotRun::Control("old".to_owned())));
        assert!(matches!(control, Outcome::Control(_)));
    }

    #[test]
    fn one_failure_fails_the_suite() {
        let took = Duration::ZERO;
        let passed = [("a", Outcome::Passed, took)];
        assert_eq!(summary("s", "b", &passed, took), ExitCode::SUCCESS);
        let failed = [("a", Outcome::Passed, took), ("b", Outcome::Failed(String::new()), took)];
        assert_eq!(summary("s", "b", &failed, took), ExitCode::FAILURE);
    }

    #[test]
    fn what_passes_alone_is_unsteady() {
        let failed = || ("a", Outcome::Failed("first".to_owned()), Duration::ZERO);
        let mut passes = [failed()];
        again(&mut passes, |_| Some(|| {}));
        assert!(matches!(&passes[0].1, Outcome::Unsteady(words) if words == "first"));
        let mut fails = [failed()];
        again(&mut fails, |_| Some(|| assert_eq!(1, 2)));
        assert!(matches!(&fails[0].1, Outcome::Failed(words) if words == "first"));
        let mut many = [failed(), failed(), failed(), failed()];
        again(&mut many, |_| Some(|| {}));
        assert!(many.iter().all(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_))));
    }

    #[test]
    fn arguments_of_the_standard_harness_are_understood() {
        let words = ["--exact", "name", "--test-threads=3", "--skip", "other"];
        let arguments = parse(words.into_iter().map(str::to_owned)).expect("they are known");
        assert!(arguments.exact && arguments.threads == Some(3));
        assert_eq!(arguments.filters, ["name"]);
        assert_eq!(arguments.skips, ["other"]);
        assert!(parse(["--nosuch".to_owned()].into_iter()).is_err());
    }
}
