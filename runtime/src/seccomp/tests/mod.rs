//! Profiles compiled and run.

mod machine;

use hull_runtime_sys::seccomp::{self as sys, ret};
use hull_specs_oci::{Seccomp, SeccompArch};
use serde_json::{Value, json};

use super::{Program, compile, compile_for};
use machine::{Data, check, run};

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;
const ARM: u32 = 0x4000_0028;
const X32: u32 = 1 << 30;
const EPERM: u32 = ret::ERRNO | 1;
const ENOSYS: u32 = ret::ERRNO | 38;

const DEFAULT: &str = include_str!("../../../testdata/seccomp/default.json");

fn profile(value: Value) -> Seccomp {
    serde_json::from_value(value).unwrap()
}

fn build_for(native: SeccompArch, value: Value) -> Program {
    let program = compile_for(&profile(value), native, |_| true).unwrap();
    check(&program.instructions);
    program
}

fn build(value: Value) -> Program {
    build_for(SeccompArch::X86_64, value)
}

fn refusal(value: Value) -> String {
    let error = compile_for(&profile(value), SeccompArch::X86_64, |_| true).unwrap_err();
    format!("{error:#}")
}

impl Program {
    fn answer(&self, arch: u32, number: u32, args: [u64; 6]) -> u32 {
        run(&self.instructions, &Data { number, arch, args }).0
    }

    fn call(&self, number: u32) -> u32 {
        self.answer(X86_64, number, [0; 6])
    }
}

#[test]
fn a_default_profile_gives_each_call_its_answer() {
    let program = build(serde_json::from_str(DEFAULT).unwrap());
    assert!(program.warnings.is_empty(), "{:?}", program.warnings);
    assert_eq!((program.flags, program.notify), (sys::SPEC_ALLOW, false));
    assert_eq!(program.call(0), ret::ALLOW, "read");
    assert_eq!(program.call(165), EPERM, "mount");
    assert_eq!(program.call(435), ENOSYS, "clone3");
    assert_eq!(program.call(470), ENOSYS, "newer than the profile");
    assert_eq!(program.answer(X86_64, 41, [40, 0, 0, 0, 0, 0]), EPERM, "vsock");
    assert_eq!(program.answer(X86_64, 41, [2, 0, 0, 0, 0, 0]), ret::ALLOW);
    assert_eq!(program.answer(X86_64, 41, [40 | 1 << 32, 0, 0, 0, 0, 0]), ret::ALLOW);
    assert_eq!(program.answer(X86_64, 56, [0x1000_0000, 0, 0, 0, 0, 0]), EPERM, "new userns");
    assert_eq!(program.answer(X86_64, 56, [0x11, 0, 0, 0, 0, 0]), ret::ALLOW, "fork");
    assert_eq!(program.answer(X86, 3, [0; 6]), ret::ALLOW, "32-bit read");
    assert_eq!(program.answer(X86, 21, [0; 6]), EPERM, "32-bit mount");
    assert_eq!(program.answer(X86_64, X32 + 520, [0; 6]), ret::ALLOW, "x32 execve");
    assert_eq!(program.answer(AARCH64, 63, [0; 6]), ret::KILL_THREAD, "foreign");
}
