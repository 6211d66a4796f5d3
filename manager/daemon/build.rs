//! Lays out the functions of a hulld that ships: `layout.ld` says why. It extends the script of
//! GNU's linker, and LLVM's, which read it alike.

fn main() {
    println!("cargo::rerun-if-changed=layout.ld");
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/layout.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{script}");
    }
}
