//! Manual pages in roff, from the table: `hull-runtime(8)` and one page a command.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{
    help,
    table::{COMMANDS, Command, GLOBAL, Opt},
};

/// The page of a command, or of the program.
pub(super) fn page(command: Option<&Command>) -> String {
    match command {
        Some(command) => of_command(command),
        None => of_program(),
    }
}

/// Writes every page to a directory, as `make install` wants them.
pub(super) fn write_all(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    for command in std::iter::once(None).chain(COMMANDS.iter().map(Some)) {
        let path = directory.join(format!("{}.8", page_name(command)));
        fs::write(&path, page(command)).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn page_name(command: Option<&Command>) -> String {
    match command {
        Some(command) => format!("hull-runtime-{}", command.name),
        None => "hull-runtime".to_owned(),
    }
}

fn header(command: Option<&Command>, summary: &str) -> String {
    let name = page_name(command);
    format!(
        ".TH {} 8 \"\" \"hull-runtime {}\" \"hull\"\n.SH NAME\n{} \\- {}\n",
        name.to_uppercase(),
        env!("CARGO_PKG_VERSION"),
        escape(&name),
        escape(summary)
    )
}

fn of_program() -> String {
    let mut page = header(None, "run containers from OCI bundles");
    page.push_str(
        ".SH SYNOPSIS\n.B hull\\-runtime\n[\\fIglobal\\-option\\fR...] \\fIcommand\\fR \
         [\\fIoption\\fR...] [\\fIargument\\fR...]\n.SH DESCRIPTION\n",
    );
    paragraph(
        &mut page,
        "hull-runtime is an OCI container runtime. It takes runc's command line, so that \
         whatever calls runc can call it instead: podman, containerd, dockerd, CRI-O. A bundle \
         is a directory with a file config.json, after the OCI runtime specification, and the \
         container's files.",
    );
    page.push_str(".SH COMMANDS\n");
    for command in COMMANDS {
        let name = escape(command.name);
        page.push_str(&format!(
            ".TP\n.BR hull\\-runtime\\-{name} (8)\n{}\n",
            sentence(command.summary)
        ));
    }
    page.push_str(".SH GLOBAL OPTIONS\n");
    options(&mut page, GLOBAL);
    page.push_str(
        ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nExplain the program or the command.\n\
         .TP\n\\fB\\-v\\fR, \\fB\\-\\-version\\fR\nPrint the version.\n.SH EXIT STATUS\n",
    );
    paragraph(
        &mut page,
        "0 for success, 1 for failure. run and an exec that waits give the exit status of the \
         container's process; an exec that fails to run it gives 255.",
    );
    page.push_str(".SH FILES\n.TP\n.I /run/hull\\-runtime\nThe state of containers.\n");
    page
}

fn of_command(command: &Command) -> String {
    let mut page = header(Some(command), command.summary);
    page.push_str(&format!(".SH SYNOPSIS\n{}\n", escape(&help::synopsis(command))));
    if !command.description.is_empty() {
        page.push_str(".SH DESCRIPTION\n");
        paragraph(&mut page, command.description);
    }
    if command.options.iter().any(|option| !option.hidden) {
        page.push_str(".SH OPTIONS\n");
        options(&mut page, command.options);
    }
    page.push_str(".SH SEE ALSO\n.BR hull\\-runtime (8)\n");
    page
}

fn options(page: &mut String, options: &[Opt]) {
    for option in options.iter().filter(|option| !option.hidden) {
        page.push_str(".TP\n");
        if let Some(letter) = option.letter {
            page.push_str(&format!("\\fB\\-{letter}\\fR, "));
        }
        page.push_str(&format!("\\fB\\-\\-{}\\fR", escape(option.name)));
        if let Some(value) = help::value(option) {
            page.push_str(&format!(" \\fI{}\\fR", escape(&value)));
        }
        page.push_str(&format!("\n{}\n", sentence(&help::explanation(option))));
    }
}

fn paragraph(page: &mut String, text: &str) {
    page.push_str(&escape(text));
    page.push('\n');
}

/// A phrase of the table as a sentence.
fn sentence(phrase: &str) -> String {
    let mut letters = phrase.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    let sentence: String = first.into_iter().chain(letters).collect();
    escape(&format!("{sentence}."))
}

/// Text that roff takes literally.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    // A line that starts with one of these would be a request.
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
