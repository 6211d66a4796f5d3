//! `--platform os/architecture[/variant]`; an architecture alone is of Linux.

use hull_specs_image::Platform;

const ARCHITECTURES: [&str; 14] = [
    "amd64", "x86_64", "arm64", "aarch64", "arm", "armhf", "armel", "386", "i386", "ppc64le",
    "s390x", "riscv64", "mips64le", "loong64",
];

/// The platform in its usual form.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let full = match text {
        "linux" => return Ok(format!("linux/{}", Platform::host().architecture)),
        word if ARCHITECTURES.contains(&word) => format!("linux/{word}"),
        word if !word.contains('/') => {
            return Err(format!(
                "error parsing specified platform: {word:?}: unknown operating system or architecture: invalid argument"
            ));
        }
        full => full.to_owned(),
    };
    full.parse::<Platform>()
        .map(|platform| platform.to_string())
        .map_err(|error| format!("error parsing specified platform: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        for (text, usual) in [
            ("linux/amd64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm/v6", "linux/arm/v6"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(usual));
        }
        assert!(parse("linux").is_ok());
        assert!(parse("foo").unwrap_err().ends_with(
            "platform: \"foo\": unknown operating system or architecture: invalid argument"
        ));
        assert!(parse("a/b/c/d").is_err());
    }
}
