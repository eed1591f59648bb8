//! A small writer of shell completions: [`Page`]s in, scripts for bash, zsh and fish out.
//!
//! One level of sub-commands is understood, which is all there is. Words are quoted for the shell they go to; they
//! come from our own tables, but a help text may well contain an apostrophe.

use super::model::{Offer, Opt, Page};
use std::fmt::Write as _;

/// A shell that completions can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash, with or without the bash-completion package.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl Shell {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Bash, Self::Zsh, Self::Fish];
}

/// The file's name and text for `main` with the sub-commands `below`.
#[must_use]
pub fn write(shell: Shell, main: &Page, below: &[&Page]) -> (String, String) {
    let name = main.command;
    match shell {
        Shell::Bash => (name.to_owned(), bash(main, below)),
        Shell::Zsh => (format!("_{name}"), zsh(main, below)),
        Shell::Fish => (format!("{name}.fish"), fish(main, below)),
    }
}

/// `-m` and `--mtu`, as far as there are such names.
fn names(option: &Opt) -> Vec<String> {
    let short = option.short.map(|letter| format!("-{letter}"));
    short.into_iter().chain(option.long.as_ref().map(|long| format!("--{long}"))).collect()
}

/// Between apostrophes, for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

// ── bash ───────────────────────────────────────────────────────────────────────────────────────────────

fn bash(main: &Page, below: &[&Page]) -> String {
    let function = format!("_{}", main.command.replace('-', "_"));
    let mut out = String::new();
    let _ = writeln!(out, "# bash completion for {}", main.command);
    let _ = writeln!(out, "{function}() {{");
    out.push_str("    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} sub= word i\n");
    out.push_str("    COMPREPLY=()\n");
    if !below.is_empty() {
        // The first word that is no option is the sub-command.
        out.push_str("    for ((i = 1; i < COMP_CWORD; i++)); do\n");
        out.push_str("        word=${COMP_WORDS[i]}\n");
        out.push_str("        if [[ $word != -* ]]; then sub=$word; break; fi\n    done\n");
    }
    out.push_str("    case $sub in\n");
    for page in below {
        bash_branch(&mut out, &quoted(page.word()), page, &[]);
    }
    bash_branch(&mut out, "*", main, below);
    out.push_str("    esac\n}\n");
    let _ = writeln!(out, "complete -o bashdefault -o default -F {function} {}", main.command);
    out
}

fn bash_branch(out: &mut String, pattern: &str, page: &Page, below: &[&Page]) {
    let _ = writeln!(out, "    {pattern})\n        case $prev in");
    for option in page.options.iter().filter(|option| option.value.is_some()) {
        let action = match &option.offer {
            Offer::Nothing => "return".to_owned(),
            Offer::File => "COMPREPLY=($(compgen -f -- \"$cur\")); return".to_owned(),
            Offer::Interface => {
                "COMPREPLY=($(cd /sys/class/net && compgen -f -- \"$cur\")); return".to_owned()
            }
            Offer::Words(words) => {
                format!("COMPREPLY=($(compgen -W {} -- \"$cur\")); return", quoted(&words.join(" ")))
            }
        };
        let _ = writeln!(out, "        {}) {action} ;;", names(option).join("|"));
    }
    out.push_str("        esac\n");
    let options: Vec<_> = page.options.iter().flat_map(names).collect();
    let _ = writeln!(
        out,
        "        if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W {} -- \"$cur\")); return; fi",
        quoted(&options.join(" "))
    );
    if !below.is_empty() {
        let words: Vec<_> = below.iter().map(|page| page.word()).collect();
        let _ = writeln!(out, "        COMPREPLY=($(compgen -W {} -- \"$cur\"))", quoted(&words.join(" ")));
    }
    out.push_str("        ;;\n");
}

// ── zsh ────────────────────────────────────────────────────────────────────────────────────────────────

fn zsh(main: &Page, below: &[&Page]) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "#compdef {}\n", main.command);
    if below.is_empty() {
        zsh_arguments(&mut out, "", &main.options, &["'*: :_files'"]);
        return out;
    }
    out.push_str("local context state state_descr line\ntypeset -A opt_args\n");
    zsh_arguments(&mut out, "", &main.options, &["'1: :->command'", "'*:: :->rest'"]);
    out.push_str("case $state in\ncommand)\n    local -a commands=(\n");
    for page in below {
        let _ = writeln!(out, "        {}", quoted(&format!("{}:{}", page.word(), page.about)));
    }
    out.push_str("    )\n    _describe command commands\n    ;;\nrest)\n    case $words[1] in\n");
    for page in below {
        let _ = writeln!(out, "    {})", page.word());
        let tail = if page.word() == "run" { "'*:: :_normal'" } else { "'*: :_files'" };
        zsh_arguments(&mut out, "        ", &page.options, &[tail]);
        out.push_str("        ;;\n");
    }
    out.push_str("    esac\n    ;;\nesac\n");
    out
}

fn zsh_arguments(out: &mut String, indent: &str, options: &[Opt], tail: &[&str]) {
    let _ = write!(out, "{indent}_arguments -s -S -C");
    for option in options {
        let help =
            option.help.replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
        let action = option.value.as_ref().map(|value| {
            let action = match &option.offer {
                Offer::Nothing => " ".to_owned(),
                Offer::File => "_files".to_owned(),
                Offer::Interface => "_net_interfaces".to_owned(),
                Offer::Words(words) => format!("({})", words.join(" ")),
            };
            format!(":{}:{action}", value.replace(':', "\\:"))
        });
        for name in names(option) {
            let attach = match (&option.value, name.starts_with("--")) {
                (None, _) => "",
                (Some(_), true) => "=",
                (Some(_), false) => "+",
            };
            let spec = format!("*{name}{attach}[{help}]{}", action.as_deref().unwrap_or_default());
            let _ = write!(out, " \\\n{indent}    {}", quoted(&spec));
        }
    }
    for spec in tail {
        let _ = write!(out, " \\\n{indent}    {spec}");
    }
    out.push('\n');
}

// ── fish ───────────────────────────────────────────────────────────────────────────────────────────────

fn fish(main: &Page, below: &[&Page]) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# fish completion for {}", main.command);
    let condition = if below.is_empty() { None } else { Some("__fish_use_subcommand".to_owned()) };
    for page in below {
        let _ = writeln!(
            out,
            "complete -c {} -n __fish_use_subcommand -f -a {} -d {}",
            main.command,
            fish_quoted(page.word()),
            fish_quoted(page.about)
        );
    }
    fish_options(&mut out, main.command, condition.as_deref(), &main.options);
    for page in below {
        let condition = format!("__fish_seen_subcommand_from {}", page.word());
        fish_options(&mut out, main.command, Some(&condition), &page.options);
    }
    out
}

fn fish_options(out: &mut String, command: &str, condition: Option<&str>, options: &[Opt]) {
    for option in options {
        let _ = write!(out, "complete -c {command}");
        if let Some(condition) = condition {
            let _ = write!(out, " -n {}", fish_quoted(condition));
        }
        if let Some(short) = option.short {
            let _ = write!(out, " -s {short}");
        }
        if let Some(long) = &option.long {
            let _ = write!(out, " -l {long}");
        }
        if option.value.is_some() {
            match &option.offer {
                Offer::Nothing => out.push_str(" -x"),
                Offer::File => out.push_str(" -r -F"),
                Offer::Interface => out.push_str(" -x -a '(__fish_print_interfaces)'"),
                Offer::Words(words) => {
                    let _ = write!(out, " -x -a {}", fish_quoted(&words.join(" ")));
                }
            }
        }
        let _ = writeln!(out, " -d {}", fish_quoted(&option.help));
    }
}

fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
