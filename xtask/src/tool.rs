//! What the chores share: where the tree is, and how a tool is run and reported.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A chore's end: a sentence for the person who ran it.
pub(crate) type Done<T = ()> = Result<T, String>;

/// The root of the tree.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Cargo, in the root of the tree.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What an outer `cargo run` set for this package must not reach the inner build.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION", "CARGO_MANIFEST_PATH"] {
        command.env_remove(name);
    }
    command.args(words).current_dir(root()).stdin(Stdio::null());
    command
}

/// What this run of ours left out, as the lines that said so.
static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Says that something is left out, by its name, and why; the closing lines of `test` count it.
pub(crate) fn skip(name: &str, reason: &str) {
    let line = format!("SKIP {name}: {}", reason.trim().replace('\n', " "));
    println!("{line}");
    SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

/// The lines of [`skip`].
pub(crate) fn skipped() -> Vec<String> {
    SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Runs a tool and demands success; says what runs.
pub(crate) fn run(command: &mut Command) -> Done {
    let line = line(command);
    println!("$ {line}");
    let status = command.status().map_err(|error| format!("{line}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{line}: {status}")) }
}

/// Runs a tool and gives what it printed.
pub(crate) fn output(command: &mut Command) -> Done<String> {
    let line = line(command);
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| format!("{line}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{line}: {}", output.status))
    }
}

/// What a program says of its version.
pub(crate) fn first_line(command: &mut Command) -> String {
    let text = command.arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// The commit that is checked out, unless the builder names one or there is none.
pub(crate) fn commit() -> Option<String> {
    if let Ok(named) = std::env::var("SLIPWAY_COMMIT") {
        return Some(named);
    }
    let mut git = Command::new("git");
    let output = git.args(["rev-parse", "HEAD"]).current_dir(root()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn line(command: &Command) -> String {
    let program =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}

/// The triple of the machine that builds.
pub(crate) fn host_target() -> Done<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let text = output(Command::new(rustc).arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_owned())
}

/// Every file below the root with one of these names' ends that git knows or would take, as paths from the root.
pub(crate) fn files(end: &str) -> Done<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = match output(&mut git) {
        Ok(listed) => listed,
        // A source archive has no git: walk instead.
        Err(_) => walk(&root(), &root()).join("\n"),
    };
    Ok(listed
        .lines()
        .filter(|path| path.ends_with(end) && root().join(path).is_file())
        .map(str::to_owned)
        .collect())
}

fn walk(root: &Path, dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            found.extend(walk(root, &path));
        } else if let Ok(relative) = path.strip_prefix(root) {
            found.push(relative.to_string_lossy().into_owned());
        }
    }
    found
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
    })
}
