//! Virtual machines in the laboratory: another kernel, emulated, whose network card leads to a program under test.
//!
//! ```text
//!   test ── unix socket ── hvc0 ── init of the guest ── the script of the test
//!                                  card ── -netdev of the test ── program under test, on *host*
//! ```
//! QEMU, kernel and programs come from the tree `qemu` ([`crate::tree`]) and are started by the tree's own loader, as
//! the lab's user on its *host*. There is no KVM where tests run: the processor is emulated, and a boot takes some
//! seconds. One boot should serve many checks.
//!
//! Invariants: traffic of the machine leaves QEMU by the socket of the program under test only; the machine ends with
//! its handle; every order has a deadline.

mod archive;
mod image;
mod modules;

pub use image::{Image, by_loader};

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::command::{Cmd, Output, Running, now};
use crate::fixture::{fixture_with, tree};
use crate::namespaces::Lab;

/// How long a boot may take on a loaded machine.
const BOOT: Duration = Duration::from_secs(120);
/// How long an order may take.
const ORDER: Duration = Duration::from_secs(60);
/// Boots of this process, for names of files.
static BOOTS: AtomicU32 = AtomicU32::new(0);

/// A lab, the program under test and an image, for a test that boots machines; `None` after saying why the test is
/// skipped. Ours is on *host* under each of `names`.
///
/// # Panics
/// When `SLIPWAY_E2E_REQUIRE=1` and there is no lab to be had; a tree that is missing is no such reason.
#[must_use]
pub fn vm_fixture(test: &str, programs: &[&str], names: &[&str]) -> Option<(Lab, Image)> {
    vm_lab(test, programs, |ours| names.iter().map(|name| ((*name).to_owned(), ours.to_owned())).collect())
}

/// The same; `more` are what *host* has under which name, given the path of ours.
///
/// # Panics
/// As [`vm_fixture`].
#[must_use]
pub fn vm_lab(
    test: &str,
    programs: &[&str],
    more: impl FnOnce(&Path) -> Vec<(String, PathBuf)>,
) -> Option<(Lab, Image)> {
    let image = tree("qemu").and_then(|tree| {
        Image::new(&tree).map_err(|error| format!("the tree {} cannot be used: {error}", tree.display()))
    });
    let image = match image {
        Ok(image) => image,
        Err(reason) => {
            println!("SKIP {test}: {reason}");
            return None;
        }
    };
    let (lab, subject) = fixture_with(test, programs, |options, subject| {
        options.programs.extend(more(subject.path()));
        options.programs.push(("vm".to_owned(), image.tree().to_owned()));
    })?;
    if !subject.is_slipway() {
        println!("SKIP {test}: the original does otherwise");
        return None;
    }
    Some((lab, image))
}

/// QEMU on *host*, without devices and with nothing to boot; more words follow. Its serial line is its standard output.
#[must_use]
pub fn qemu(lab: &Lab) -> Cmd {
    qemu_by(lab, &[])
}

/// The same, started by these words in front of it.
fn qemu_by(lab: &Lab, starter: &[String]) -> Cmd {
    let tree = lab.program("vm");
    let share = |name: &str| format!("{tree}/usr/share/{name}");
    lab.host(starter.iter().map(OsString::from).chain(by_loader(tree.as_ref())))
        .arg(format!("{tree}/usr/bin/qemu-system-x86_64"))
        .args([
            "-L",
            &share("qemu"),
            "-L",
            &share("seabios"),
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ])
        .args(["-no-reboot", "-accel", "tcg", "-cpu", "max", "-serial", "stdio"])
}

/// A machine that runs; it is ended when this goes out of scope.
#[derive(Debug)]
pub struct Vm {
    /// The emulator; what the kernel says is its standard output.
    pub process: Running,
    console: BufReader<UnixStream>,
}

impl Vm {
    /// Boots an image with these further words for QEMU (`-netdev …`, `-device …`), and waits until it takes orders.
    ///
    /// # Errors
    /// What QEMU said, when it ends or time runs out.
    pub fn boot(lab: &Lab, image: &Image, words: &[&str]) -> io::Result<Self> {
        Self::boot_by(lab, image, &[], words)
    }

    /// The same, with QEMU started by the words `starter`, which come before it.
    ///
    /// # Errors
    /// As [`Vm::boot`].
    pub fn boot_by(lab: &Lab, image: &Image, starter: &[String], words: &[&str]) -> io::Result<Self> {
        let number = BOOTS.fetch_add(1, Ordering::Relaxed);
        // The user may read what was written there.
        let initrd = lab.dir().join(format!("initrd{number}"));
        image.write(&initrd)?;
        let kernel = Path::new(&lab.program("vm")).join(image.kernel());
        let socket = lab.home().join(format!("console{number}"));
        let console = format!("socket,id=orders,path={},server=on,wait=off", socket.display());
        let append = format!("console=ttyS0 panic=-1 quiet mitigations=off{}", image.words());
        let mut process = qemu_by(lab, starter)
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", &append, "-chardev", &console, "-m", &image.mebibytes().to_string()])
            .args(["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=orders"])
            .args(words.iter().copied())
            .start()?;
        // It has its file a moment before it listens.
        let mut stream = None;
        process.until(BOOT, |_| {
            stream = UnixStream::connect(&socket).ok();
            stream.is_some()
        })?;
        let stream = stream.ok_or(io::ErrorKind::NotConnected)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut vm = Self { process, console: BufReader::new(stream) };
        vm.ready()?;
        Ok(vm)
    }

    /// Runs a shell script in the guest, for a minute at most. What it says on either stream is its output.
    ///
    /// # Errors
    /// When there is no answer: the guest has ended, or time has run out.
    pub fn sh(&mut self, script: &str) -> io::Result<Output> {
        self.tell(script)?;
        let answer = self.line(ORDER)?;
        let mut words = answer.split_whitespace().map(str::parse::<i32>);
        let (Some(Ok(code)), Some(Ok(length))) = (words.next(), words.next()) else {
            return Err(self.said(&format!("the guest answers {answer:?}")));
        };
        let mut stdout = vec![0; usize::try_from(length).unwrap_or_default()];
        self.fill(&mut stdout, ORDER)?;
        Ok(Output { status: ExitStatus::from_raw(code << 8), stdout, stderr: Vec::new() })
    }

    /// The same; what it said, if it ended well.
    ///
    /// # Errors
    /// Likewise, and when the script fails.
    pub fn ok(&mut self, script: &str) -> io::Result<String> {
        let output = self.sh(script)?;
        if output.success() { Ok(output.out()) } else { Err(self.said(&format!("{script}: {output}"))) }
    }

    /// Ends it as its own user would; QEMU does what it does at the end of a machine.
    ///
    /// # Errors
    /// When it goes on.
    pub fn power_off(mut self) -> io::Result<()> {
        self.tell("poweroff -f")?;
        match self.process.finish(ORDER)? {
            Some(_) => Ok(()),
            None => Err(io::Error::other("the machine goes on")),
        }
    }

    /// Starts the guest anew, and waits until it takes orders; QEMU and its connections stay. That takes
    /// `-action reboot=reset` among its words.
    ///
    /// # Errors
    /// What QEMU said, when it ends or time runs out.
    pub fn reboot(&mut self) -> io::Result<()> {
        self.tell("reboot -f")?;
        self.ready()
    }

    fn tell(&mut self, script: &str) -> io::Result<()> {
        let order = format!("{}\n{script}", script.len());
        self.console.get_mut().write_all(order.as_bytes())
    }

    fn ready(&mut self) -> io::Result<()> {
        match self.line(BOOT)?.as_str() {
            "ready" => Ok(()),
            other => Err(self.said(&format!("the guest says {other:?}"))),
        }
    }

    fn line(&mut self, limit: Duration) -> io::Result<String> {
        let mut line = Vec::new();
        let end = now() + limit;
        while !line.ends_with(b"\n") {
            match self.console.read_until(b'\n', &mut line) {
                Ok(0) => return Err(self.said("the guest has ended")),
                Ok(_) => {}
                Err(error) => self.patience(&error, end)?,
            }
        }
        Ok(String::from_utf8_lossy(&line).trim().to_owned())
    }

    fn fill(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<()> {
        let end = now() + limit;
        let mut filled = 0;
        while filled < buffer.len() {
            match self.console.read(&mut buffer[filled..]) {
                Ok(0) => return Err(self.said("the guest has ended")),
                Ok(count) => filled += count,
                Err(error) => self.patience(&error, end)?,
            }
        }
        Ok(())
    }

    /// An error when it is no longer worth waiting for.
    fn patience(&self, error: &io::Error, end: std::time::Instant) -> io::Result<()> {
        let waits = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if waits && now() < end && !crate::interrupted() {
            Ok(())
        } else {
            Err(self.said(&error.to_string()))
        }
    }

    fn said(&self, what: &str) -> io::Error {
        let (out, err) = (self.process.stdout(), self.process.stderr());
        io::Error::other(format!("{what}\n--- serial line\n{out}\n--- QEMU\n{err}"))
    }
}
