//! Completion scripts for shells, from the table.

use anyhow::{Result, bail};

use super::table::{COMMANDS, Command, Completes, GLOBAL, Opt, Takes};

/// The script of a shell.
pub(super) fn script(shell: &str) -> Result<String> {
    match shell {
        "bash" => Ok(bash()),
        "zsh" => Ok(zsh()),
        "fish" => Ok(fish()),
        _ => bail!("no completion for shell {shell:?}: bash, zsh and fish are known"),
    }
}

fn shown(options: &'static [Opt]) -> impl Iterator<Item = &'static Opt> {
    options.iter().filter(|option| !option.hidden)
}

/// Every spelling of an option.
fn spellings(option: &Opt) -> Vec<String> {
    let mut spellings = vec![format!("--{}", option.name)];
    spellings.extend(option.letter.map(|letter| format!("-{letter}")));
    spellings
}

fn names(options: &'static [Opt]) -> String {
    let mut names: Vec<_> = shown(options).flat_map(spellings).collect();
    names.push("--help".to_owned());
    names.join(" ")
}

/// The global options that take a value, which a script must skip to find the command.
fn global_values() -> String {
    let takes = |option: &&Opt| option.takes != Takes::Nothing;
    shown(GLOBAL).filter(takes).flat_map(spellings).collect::<Vec<_>>().join("|")
}

fn bash() -> String {
    let commands = COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>().join(" ");
    let mut cases = String::new();
    for command in COMMANDS {
        let (name, options) = (command.name, names(command.options));
        let values: String = shown(command.options).filter_map(bash_value).collect();
        let args = match command.completes {
            Completes::Container => "$(hull-runtime \"${root[@]}\" list -q 2>/dev/null)".to_owned(),
            Completes::Command => commands.clone(),
            Completes::Words(words) => words.join(" "),
            Completes::Nothing => String::new(),
        };
        cases.push_str(&format!(
            "    {name})\n        case \"$previous\" in\n{values}        esac\n        \
             options=\"{options}\"\n        words=\"{args}\"\n        ;;\n"
        ));
    }
    let global_cases: String = shown(GLOBAL).filter_map(bash_value).collect();
    format!(
        "# bash completion for hull-runtime
_hull_runtime() {{
    local current=\"${{COMP_WORDS[COMP_CWORD]}}\" previous=\"${{COMP_WORDS[COMP_CWORD-1]}}\"
    local command=\"\" options=\"{global}\" words=\"{commands}\" i
    local -a root=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case \"${{COMP_WORDS[i]}}\" in
        --root) root=(--root \"${{COMP_WORDS[i+1]}}\"); ((i++)) ;;
        {skip}) ((i++)) ;;
        -*) ;;
        *) command=\"${{COMP_WORDS[i]}}\"; break ;;
        esac
    done
    case \"$command\" in
    \"\")
        case \"$previous\" in
{global_cases}        esac
        ;;
{cases}    esac
    case \"$current\" in
    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$current\")) ;;
    *) COMPREPLY=($(compgen -W \"$words\" -- \"$current\")) ;;
    esac
}}
complete -F _hull_runtime hull-runtime
",
        global = names(GLOBAL),
        skip = global_values(),
    )
}

/// The case of an option that takes a value.
fn bash_value(option: &'static Opt) -> Option<String> {
    let action = match option.takes {
        Takes::Nothing => return None,
        Takes::File(_) => "compgen -f -- \"$current\"".to_owned(),
        Takes::Directory(_) => "compgen -d -- \"$current\"".to_owned(),
        Takes::OneOf(_, words) => format!("compgen -W \"{}\" -- \"$current\"", words.join(" ")),
        Takes::Text(_) | Takes::Whole(_) => {
            return Some(format!("        {}) return ;;\n", spellings(option).join("|")));
        }
    };
    let names = spellings(option).join("|");
    Some(format!("        {names}) COMPREPLY=($({action})); return ;;\n"))
}

fn zsh() -> String {
    let describe =
        |command: &Command| format!("        '{}:{}'\n", command.name, zsh_text(command.summary));
    let commands: String = COMMANDS.iter().map(describe).collect();
    let mut cases = String::new();
    for command in COMMANDS {
        let mut lines: String = shown(command.options).map(zsh_option).collect();
        lines.push_str(match command.completes {
            Completes::Container => "            '1:container:_hull_runtime_containers' \\\n",
            Completes::Command => "            '1:command:_hull_runtime_commands' \\\n",
            Completes::Nothing | Completes::Words(_) => "",
        });
        if let Completes::Words(words) = command.completes {
            lines.push_str(&format!("            '1:word:({})' \\\n", words.join(" ")));
        }
        let name = command.name;
        cases.push_str(&format!(
            "    {name})
        _arguments \\
{lines}            '(-h --help)'{{-h,--help}}'[explain the command]'
        ;;
"
        ));
    }
    let global: String = shown(GLOBAL).map(zsh_option).collect();
    format!(
        "#compdef hull-runtime
_hull_runtime_commands() {{
    local -a commands=(
{commands}    )
    _describe command commands
}}
_hull_runtime_containers() {{
    local -a containers
    containers=(${{(f)\"$(hull-runtime $root list -q 2>/dev/null)\"}})
    compadd -a containers
}}
_hull_runtime() {{
    local context state state_descr line
    local -a root
    typeset -A opt_args
    _arguments -C \\
{global}            '(-h --help)'{{-h,--help}}'[explain the program]' \\
            '(-v --version)'{{-v,--version}}'[print the version]' \\
            '1:command:_hull_runtime_commands' \\
            '*::argument:->arguments'
    [[ $state == arguments ]] || return
    (( ${{+opt_args[--root]}} )) && root=(--root ${{opt_args[--root]}})
    case $words[1] in
{cases}    esac
}}
_hull_runtime \"$@\"
"
    )
}

fn zsh_option(option: &Opt) -> String {
    let value = match option.takes {
        Takes::Nothing => String::new(),
        Takes::Text(name) | Takes::Whole(name) => format!(":{}: ", zsh_text(name)),
        Takes::File(name) => format!(":{name}:_files"),
        Takes::Directory(name) => format!(":{name}:_files -/"),
        Takes::OneOf(name, words) => format!(":{name}:({})", words.join(" ")),
    };
    let (name, help) = (option.name, zsh_text(option.help));
    let star = if option.repeats { "*" } else { "" };
    match option.letter {
        None => format!("            '{star}--{name}[{help}]{value}' \\\n"),
        Some(letter) if option.repeats => {
            format!("            '*'{{-{letter},--{name}}}'[{help}]{value}' \\\n")
        }
        Some(letter) => format!(
            "            '(-{letter} --{name})'{{-{letter},--{name}}}'[{help}]{value}' \\\n"
        ),
    }
}

/// Text inside single quotes, brackets and colons of `_arguments`.
fn zsh_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\'' => out.push_str("'\\''"),
            '[' | ']' | ':' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

fn fish() -> String {
    let mut script = String::from(
        "# fish completion for hull-runtime
function __hull_runtime_containers
    set -l root
    set -l words (commandline -opc)
    if set -l at (contains -i -- --root $words)
        set root --root $words[(math $at + 1)]
    end
    hull-runtime $root list -q 2>/dev/null
end
complete -c hull-runtime -f
",
    );
    let none = "'not __fish_seen_subcommand_from ";
    let all = COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>().join(" ");
    for option in shown(GLOBAL) {
        fish_option(&mut script, &format!("{none}{all}'"), option);
    }
    for command in COMMANDS {
        let summary = fish_text(command.summary);
        script.push_str(&format!(
            "complete -c hull-runtime -n {none}{all}' -a {} -d '{summary}'\n",
            command.name
        ));
    }
    for command in COMMANDS {
        let condition = format!("'__fish_seen_subcommand_from {}'", command.name);
        for option in shown(command.options) {
            fish_option(&mut script, &condition, option);
        }
        let words = match command.completes {
            Completes::Nothing => continue,
            Completes::Container => "(__hull_runtime_containers)".to_owned(),
            Completes::Command => all.clone(),
            Completes::Words(words) => words.join(" "),
        };
        script.push_str(&format!("complete -c hull-runtime -n {condition} -a '{words}'\n"));
    }
    script
}

fn fish_option(script: &mut String, condition: &str, option: &Opt) {
    let letter = option.letter.map(|letter| format!(" -s {letter}")).unwrap_or_default();
    let value = match option.takes {
        Takes::Nothing => String::new(),
        Takes::Text(_) | Takes::Whole(_) => " -x".to_owned(),
        Takes::File(_) => " -r -F".to_owned(),
        Takes::Directory(_) => " -x -a '(__fish_complete_directories)'".to_owned(),
        Takes::OneOf(_, words) => format!(" -x -a '{}'", words.join(" ")),
    };
    let (name, help) = (option.name, fish_text(option.help));
    script.push_str(&format!(
        "complete -c hull-runtime -n {condition}{letter} -l {name}{value} -d '{help}'\n"
    ));
}

fn fish_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}
