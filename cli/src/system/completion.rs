//! Completion scripts and manual pages, made from the grammar.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    args::{
        parse::command,
        system::{CompletionArgs, ManArgs},
    },
    terminal::output::print,
};

/// `completion`.
pub(crate) fn script(args: &CompletionArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "hull", &mut script);
    print(&String::from_utf8(script).context("the script")?)?;
    Ok(0)
}

/// `man`: one page a command.
pub(crate) fn manual(args: &ManArgs) -> Result<u8> {
    let mut tree = command();
    tree.build();
    fs::create_dir_all(&args.dir).with_context(|| format!("mkdir {}", args.dir.display()))?;
    page(&tree, "hull", &args.dir)?;
    Ok(0)
}

fn page(of: &clap::Command, name: &str, directory: &Path) -> Result<()> {
    let path = directory.join(format!("{name}.1"));
    let mut text = Vec::new();
    let titled = of.clone().name(name.to_owned()).display_name(name.to_owned());
    clap_mangen::Man::new(titled)
        .title(name.to_owned())
        .section("1")
        .source("hull")
        .render(&mut text)?;
    let mut file = fs::File::create(&path).with_context(|| format!("open {}", path.display()))?;
    file.write_all(&text).with_context(|| format!("write {}", path.display()))?;
    let shown = of.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
    for sub in shown {
        page(sub, &format!("{name}-{}", sub.get_name()), directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        manual(&ManArgs { dir: directory.path().to_owned() }).unwrap();
        for name in ["hull.1", "hull-run.1", "hull-container-ls.1", "hull-system-check.1"] {
            let text = fs::read_to_string(directory.path().join(name)).unwrap();
            assert!(text.contains(".TH"), "{name}");
        }
        let run = fs::read_to_string(directory.path().join("hull-run.1")).unwrap();
        assert!(run.contains("\\-\\-memory\\-swap"));
        assert!(!directory.path().join("hull-completion.1").exists());
    }

    #[test]
    fn scripts_know_commands() {
        let mut script = Vec::new();
        clap_complete::generate(clap_complete::Shell::Bash, &mut command(), "hull", &mut script);
        assert!(String::from_utf8(script).unwrap().contains("--memory-swap"));
    }
}
