//! Plugins: programs of others that connect containers to networks of their own kind. Protocol version 1.0.0.
//!
//! A plugin is looked for by the driver's name in the plugin directories, and called as `PLUGIN create`, `PLUGIN setup
//! NETNS` or `PLUGIN teardown NETNS` with one JSON document on its standard input. Its standard output is the answer;
//! its stderr is ours. It gets no names and no firewall rules from us, and is torn down even if the namespace is gone.
//!
//! The driver `slipway` is this very program under another name ([`crate::plugin`]): it is there even when no directory
//! has it.

use super::{Outcome, Request};
use crate::error::{Context, Error, Result};
use crate::spec::{Network, PerNetworkOptions, PortMapping};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// As much as a plugin may answer.
const ANSWER_MAX: u64 = 16 * 1024 * 1024;

/// The driver that is this program itself, and the name under which it is called as that.
pub const PROGRAM: &str = "slipway";

/// A plugin that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    path: PathBuf,
    /// What it is to think that it is called, if that is not its file's name.
    alias: Option<&'static str>,
}

/// What a plugin is told at setup and teardown.
#[derive(Serialize)]
struct Call<'a> {
    container_id: &'a str,
    container_name: &'a str,
    port_mappings: Option<&'a [PortMapping]>,
    network: &'a Network,
    network_options: &'a PerNetworkOptions,
}

/// How a plugin says what went wrong.
#[derive(Deserialize)]
struct Complaint {
    error: String,
}

impl Plugin {
    /// The first executable file called `driver` in `directories`.
    #[must_use]
    pub fn find(driver: &str, directories: &[OsString]) -> Option<Self> {
        // A driver is a name, not a way to somewhere else.
        if driver.is_empty() || driver.contains('/') {
            return None;
        }
        directories
            .iter()
            .map(|dir| Path::new(dir).join(driver))
            .find(|path| is_program(path))
            .map(|path| Self { path, alias: None })
    }

    /// The driver that this program is itself.
    #[must_use]
    pub fn own(driver: &str) -> Option<Self> {
        let path = std::env::current_exe().ok().filter(|_| driver == PROGRAM)?;
        Some(Self { path, alias: Some(PROGRAM) })
    }

    /// Has a definition completed. Name, ID and driver must come back as they were.
    ///
    /// # Errors
    /// The plugin's, or what is wrong with its answer.
    pub fn create(&self, network: &Network) -> Result<Network> {
        let answer = self.call(&[OsStr::new("create")], &serde_json::to_vec(network)?)?;
        let completed: Network = serde_json::from_slice(&answer)?;
        let same = [
            ("name", completed.name == network.name),
            ("ID", completed.id == network.id),
            ("driver", completed.driver == network.driver),
        ];
        match same.into_iter().find(|(_, same)| !same) {
            Some((what, _)) => {
                let driver = &network.driver;
                Err(Error::msg(format!("{driver} plugin invalid result: changed network {what}")))
            }
            None => Ok(completed),
        }
    }

    /// Connects a container.
    ///
    /// # Errors
    /// The plugin's, or what is wrong with its answer.
    pub fn setup(&self, request: &Request<'_>) -> Result<Outcome> {
        let run = || -> Result<Outcome> {
            let answer = self.exec("setup", request)?;
            Ok(Outcome { status: serde_json::from_slice(&answer)?, dns: None })
        };
        run().with_context(|| format!("plugin {:?} failed", self.name()))
    }

    /// Disconnects a container.
    ///
    /// # Errors
    /// The plugin's.
    pub fn teardown(&self, request: &Request<'_>) -> Result<()> {
        self.exec("teardown", request).with_context(|| format!("plugin {:?} failed", self.name()))?;
        Ok(())
    }

    fn exec(&self, command: &str, request: &Request<'_>) -> Result<Vec<u8>> {
        let call = Call {
            container_id: request.container_id,
            container_name: request.container_name,
            port_mappings: request.port_mappings,
            network: request.network,
            network_options: request.options,
        };
        self.call(&[OsStr::new(command), request.netns_path.as_os_str()], &serde_json::to_vec(&call)?)
    }

    fn call(&self, arguments: &[&OsStr], input: &[u8]) -> Result<Vec<u8>> {
        let mut child = Command::new(&self.path)
            .arg0(self.alias.map_or(self.path.as_os_str(), OsStr::new))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("run plugin {}", self.path.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut answer = Vec::new();
        // Both at once, for a plugin may answer before it has read everything.
        let read = std::thread::scope(|scope| {
            let writer = scope.spawn(move || stdin.map_or(Ok(()), |mut stdin| stdin.write_all(input)));
            let read = stdout.map_or(Ok(0), |stdout| stdout.take(ANSWER_MAX).read_to_end(&mut answer));
            let written = writer.join().unwrap_or_else(|_| Err(ErrorKind::Other.into()));
            match (read, written) {
                (Err(error), _) => Err(error),
                // A plugin that does not care to read its input is free to do so.
                (Ok(_), Err(error)) if error.kind() != ErrorKind::BrokenPipe => Err(error),
                _ => Ok(()),
            }
        });
        let status = child.wait().context("wait for plugin to exit")?;
        match status.code() {
            None => Err(Error::msg(format!("plugin {:?} killed by signal", self.name()))),
            Some(0) => read.context("read from plugin").map(|()| answer),
            Some(code) => Err(self.complaint(code, &answer)),
        }
    }

    fn complaint(&self, code: i32, answer: &[u8]) -> Error {
        Error::msg(match serde_json::from_slice::<Complaint>(answer) {
            Ok(Complaint { error }) => format!("exit code {code}, message: {error}"),
            Err(error) => format!("plugin {:?}: exit code {code}, parse error: {error}", self.name()),
        })
    }

    fn name(&self) -> &OsStr {
        self.alias.map_or_else(|| self.path.file_name().unwrap_or_default(), OsStr::new)
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Compat;
    use tempfile::TempDir;

    fn network() -> Network {
        serde_json::from_str(
            r#"{"name":"n","id":"1","driver":"odd","ipv6_enabled":false,"internal":false,"dns_enabled":false}"#,
        )
        .unwrap()
    }

    fn plugin(script: &str) -> (TempDir, Plugin) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("odd");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let found = Plugin::find("odd", &["/nonexistent".into(), dir.path().into()]).unwrap();
        (dir, found)
    }

    fn setup(plugin: &Plugin) -> Result<Outcome> {
        let (network, options) = (network(), PerNetworkOptions::default());
        plugin.setup(&Request {
            container_id: "c1",
            container_name: "name",
            container_hostname: None,
            container_dns_servers: None,
            netns_path: Path::new("/run/netns/x"),
            network: &network,
            options: &options,
            port_mappings: None,
            compat: Compat::Two,
            rules: Compat::Two,
            config_dir: Path::new("/nonexistent"),
            rootless: false,
            dns_port: 53,
        })
    }

    #[test]
    fn a_plugin_is_an_executable_file_in_a_directory() {
        let (dir, _) = plugin("");
        let path = dir.path().join("odd");
        let find = |name: &str| Plugin::find(name, &[dir.path().into()]);
        assert!(find("other").is_none() && find("").is_none());
        assert!(Plugin::find("../odd", &[dir.path().join("sub").into()]).is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(find("odd").is_none());
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(find("folder").is_none());
    }

    #[test]
    fn one_driver_is_this_program_itself() {
        let own = Plugin::own("slipway").unwrap();
        assert_eq!(own.name(), "slipway");
        assert_eq!(own.path, std::env::current_exe().unwrap());
        assert!(Plugin::own("other").is_none());
    }

    #[test]
    fn it_is_told_and_answers() {
        let (dir, plugin) = plugin(
            r#"cd "$(dirname "$0")"; echo "$*" > arguments; cat > input; echo '{"interfaces":{"eth0":{"mac_address":"x"}}}'"#,
        );
        let outcome = setup(&plugin).unwrap();
        assert_eq!(outcome.status.interfaces.unwrap()["eth0"].mac_address, "x");
        assert_eq!(fs::read_to_string(dir.path().join("arguments")).unwrap(), "setup /run/netns/x\n");
        assert_eq!(
            fs::read_to_string(dir.path().join("input")).unwrap(),
            concat!(
                r#"{"container_id":"c1","container_name":"name","port_mappings":null,"network":{"name":"n","id":"1","#,
                r#""driver":"odd","ipv6_enabled":false,"internal":false,"dns_enabled":false},"network_options":"#,
                r#"{"aliases":null,"interface_name":"","static_ips":null,"static_mac":null,"options":null}}"#
            )
        );
    }

    #[test]
    fn its_failures_are_told_apart() {
        for (script, text) in [
            (
                r#"echo '{"error":"no luck"}'; exit 3"#,
                r#"plugin "odd" failed: exit code 3, message: no luck"#,
            ),
            (
                "exit 2",
                r#"plugin "odd" failed: plugin "odd": exit code 2, parse error: EOF while parsing a value at line 1 column 0"#,
            ),
            ("kill -9 $$", r#"plugin "odd" failed: plugin "odd" killed by signal"#),
            (
                "echo nonsense",
                r#"plugin "odd" failed: JSON Decoding error: expected ident at line 1 column 2"#,
            ),
        ] {
            assert_eq!(setup(&plugin(script).1).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_plugin_that_reads_late_or_not_at_all_does_not_hang() {
        let (_dir, plugin) = plugin("head -c 300000 /dev/zero; cat > /dev/null; exit 1");
        let input = vec![b' '; 300_000];
        assert!(plugin.call(&[], &input).is_err());
        let (_dir, plugin) = self::plugin("exec <&-; echo x");
        assert_eq!(plugin.call(&[], &input).unwrap(), b"x\n");
    }

    #[test]
    fn create_keeps_name_id_and_driver() {
        let (_dir, good) = plugin(r#"sed 's/"internal":false/"internal":true/'"#);
        assert!(good.create(&network()).unwrap().internal);
        for (from, to, what) in [
            (r#""name":"n""#, r#""name":"m""#, "name"),
            (r#""id":"1""#, r#""id":"2""#, "ID"),
            (r#""driver":"odd""#, r#""driver":"even""#, "driver"),
        ] {
            let (_dir, bad) = plugin(&format!("sed 's/{from}/{to}/'"));
            let error = bad.create(&network()).unwrap_err();
            assert_eq!(error.to_string(), format!("odd plugin invalid result: changed network {what}"));
        }
    }
}
