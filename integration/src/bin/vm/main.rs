//! `make test-vm`: runs a command inside a virtual machine with Debian's kernel.
//!
//! The machine the suite is developed on has one cgroup layout, one kernel and
//! no AppArmor; this one has pure cgroup v2, AppArmor, and systemd if asked for.
//! It is emulated (no KVM is needed), lives in memory, and ends with the command,
//! whose output and exit status become this program's.
//!
//! The machine has three serial ports: the kernel's console (kept in a file, its
//! end shown when the machine dies), the command's output, and its exit status.
#![forbid(unsafe_code)]

mod debian;
mod image;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use image::Payload;

const USAGE: &str = "\
usage: vm [--boot cgroupfs|systemd] [option]... -- COMMAND [ARG]...
  --boot KIND      cgroupfs: busybox as process 1 (default); systemd: Debian
  --program PATH   take this host program and its libraries along (repeatable)
  --env NAME=VALUE set in the command's environment (repeatable)
  --memory MIB     the machine's memory (2048)
  --timeout S      kill the machine after so many seconds (3600)
  --cache DIR      keeps kernel and Debian image (default: beside this program)
COMMAND, if it is a program of the host, is taken along too. All of them keep
their absolute paths.";

/// Which process 1 the machine runs.
#[derive(Clone, Copy, PartialEq)]
enum Boot {
    Cgroupfs,
    Systemd,
}

struct Options {
    boot: Boot,
    programs: Vec<PathBuf>,
    environment: Vec<(String, String)>,
    memory_mib: u32,
    timeout: Duration,
    cache: PathBuf,
    command: Vec<String>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(run) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("vm: {error:#}");
            ExitCode::from(125)
        }
    }
}

/// The folder of a machine, in the temporary directory; our process id follows.
const FOLDER: &str = "hull-vm.";

/// Removes what machines that were killed have left.
fn remove_leftovers() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(FOLDER));
        let owner = rest.and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn run(options: Options) -> Result<u8> {
    fs::create_dir_all(&options.cache).context("make the cache folder")?;
    let kernel = debian::kernel(&options.cache)?;
    remove_leftovers();
    let prefix = format!("{FOLDER}{}.", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir().context("make a folder")?;
    let mut payload = Payload::new(folder.path())?;
    for program in &options.programs {
        payload.add_program(program)?;
    }
    payload.add_program(Path::new("/bin/busybox"))?;
    payload.add_command(&options.command, &options.environment)?;
    payload.add_as(&debian::apparmor_parser(&options.cache)?, "/vm/apparmor_parser")?;
    let disk = match options.boot {
        Boot::Cgroupfs => {
            payload.plan_boot("tmpfs", "/vm/start")?;
            payload.add_accounts()?;
            None
        }
        Boot::Systemd => {
            payload.plan_boot("/dev/vda", "/lib/systemd/systemd")?;
            payload.add_service()?;
            Some(debian::systemd_disk(&options.cache, &kernel)?)
        }
    };
    payload.add_modules(&kernel)?;
    let initramfs = payload.pack()?;
    boot(&options, folder.path(), &kernel.image, &initramfs, disk.as_deref())
}

fn boot(
    options: &Options,
    folder: &Path,
    kernel: &Path,
    initramfs: &Path,
    disk: Option<&Path>,
) -> Result<u8> {
    let console = folder.join("console");
    let status = folder.join("status");
    // The machine must not outlive us, however we end.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-nodefaults"]);
    qemu.args(["-no-user-config", "-display", "none", "-no-reboot", "-m"]);
    qemu.arg(format!("{}M", options.memory_mib));
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    qemu.arg("-append").arg(
        // The emulated counter of cycles is measured at boot: on a busy host wrongly, up to twice as
        // fast as the world, and with it every time limit inside.
        "console=ttyS0 loglevel=4 panic=-1 mitigations=off no_timer_check tsc=reliable \
         clocksource=hpet apparmor=1 lsm=landlock,lockdown,yama,integrity,apparmor,bpf \
         systemd.unified_cgroup_hierarchy=1 systemd.unit=hull-vm.service net.ifnames=0 rw",
    );
    qemu.args(["-chardev", "stdio,id=output,signal=off"]);
    qemu.arg("-serial").arg(format!("file:{}", console.display()));
    qemu.args(["-serial", "chardev:output"]);
    qemu.arg("-serial").arg(format!("file:{}", status.display()));
    qemu.args(["-device", "virtio-rng-pci"]);
    if let Some(disk) = disk {
        let drive = format!("file={},format=raw,if=virtio,snapshot=on", disk.display());
        qemu.arg("-drive").arg(drive);
    }
    let mut machine = qemu.stdin(Stdio::null()).spawn().context("start qemu-system-x86_64")?;
    let ended = wait(&mut machine, options.timeout);
    let answer = fs::read_to_string(&status).unwrap_or_default();
    let answer = answer.trim().strip_prefix("ended ").and_then(|text| text.parse().ok());
    match (ended, answer) {
        (Ok(()), Some(status)) => Ok(status),
        (ended, _) => {
            let text = fs::read(&console).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            eprintln!("the console's last lines:\n{tail}");
            ended?;
            bail!("the machine ended before the command did")
        }
    }
}

fn wait(machine: &mut Child, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if let Some(status) = machine.try_wait().context("wait for qemu")? {
            ensure!(status.success(), "qemu-system-x86_64 ended with {status}");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    machine.kill().context("kill qemu")?;
    machine.wait().context("wait for qemu")?;
    bail!("the command had not ended after {} s", timeout.as_secs())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let beside = std::env::current_exe().context("find this program")?;
    let mut options = Options {
        boot: Boot::Cgroupfs,
        programs: Vec::new(),
        environment: Vec::new(),
        memory_mib: 2048,
        // The runtime's suite needs some ten minutes, more with systemd, where nothing else
        // runs; an emulated machine on a busy host is many times slower.
        timeout: Duration::from_secs(3600),
        cache: beside.with_file_name("vm-cache"),
        command: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            options.command = arguments.by_ref().collect();
            break;
        }
        let value = arguments
            .next()
            .with_context(|| format!("{argument} is unknown or needs a value\n{USAGE}"))?;
        match argument.as_str() {
            "--boot" if value == "cgroupfs" => options.boot = Boot::Cgroupfs,
            "--boot" if value == "systemd" => options.boot = Boot::Systemd,
            "--program" => options.programs.push(image::find_program(&value)?),
            "--env" => {
                let (name, value) = value.split_once('=').context("--env takes NAME=VALUE")?;
                options.environment.push((name.into(), value.into()));
            }
            "--memory" => options.memory_mib = value.parse().context("--memory is not a number")?,
            "--timeout" => {
                let timeout_s = value.parse().context("--timeout is not a number")?;
                options.timeout = Duration::from_secs(timeout_s);
            }
            "--cache" => options.cache = value.into(),
            _ => bail!("unknown argument {argument} {value}\n{USAGE}"),
        }
    }
    let Some(command) = options.command.first() else {
        bail!("there is no command to run\n{USAGE}");
    };
    if let Ok(program) = image::find_program(command) {
        options.command[0] = program.display().to_string();
        options.programs.push(program);
    }
    Ok(options)
}
