//! Keys as `ssh-keygen` writes them, made by it.

use super::*;
use crate::control::ssh::host_key;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A key made with these words; `None` after saying why the test is skipped.
fn made(test: &str, dir: &tempfile::TempDir, words: &[&str]) -> Option<Vec<u8>> {
    let path: PathBuf = dir.path().join(words.concat());
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-C", "a comment", "-f"]).arg(&path).args(words);
    if !words.contains(&"-N") {
        command.args(["-N", ""]);
    }
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Some(std::fs::read(path).unwrap()),
        // A kind that this release of it has no more is no kind that anybody could have.
        Ok(_) => Some(Vec::new()),
        Err(error) => {
            println!("SKIP {test}: ssh-keygen: {error}");
            None
        }
    }
}

/// Signs, and has the other module look at it.
fn holds(key: &Identity) {
    let Public { algorithm, blob } = key.public();
    let signature = key.sign(b"what is signed").unwrap();
    assert_eq!(host_key::verify(&algorithm, &blob, b"what is signed", &signature), Ok(true), "{algorithm}");
    assert_eq!(host_key::verify(&algorithm, &blob, b"what is not", &signature), Ok(false), "{algorithm}");
}

#[test]
fn keys_of_ssh_keygen_sign() {
    let dir = tempfile::tempdir().unwrap();
    for words in [
        &["-t", "ed25519"][..],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "256", "-m", "PEM"],
        &["-t", "ecdsa", "-b", "384", "-m", "PEM"],
        &["-t", "ecdsa", "-b", "256", "-m", "PKCS8"],
        &["-t", "ecdsa", "-b", "384", "-m", "PKCS8"],
    ] {
        let Some(file) = made("keys_of_ssh_keygen_sign", &dir, words) else { return };
        let key = Identity::parse(&file).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        holds(&key);
    }
}

#[cfg(feature = "ssh-rsa")]
#[test]
fn keys_of_rsa_sign() {
    let dir = tempfile::tempdir().unwrap();
    for words in
        [&["-t", "rsa"][..], &["-t", "rsa", "-m", "PEM"], &["-t", "rsa", "-b", "2048", "-m", "PKCS8"]]
    {
        let Some(file) = made("keys_of_rsa_sign", &dir, words) else { return };
        let key = Identity::parse(&file).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        holds(&key);
    }
}

#[test]
fn what_is_no_key_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let test = "what_is_no_key_is_told";
    let locked = [
        &["-t", "ed25519", "-N", "secret"][..],
        &["-t", "ecdsa", "-N", "secret", "-m", "PEM"],
        &["-t", "ecdsa", "-N", "secret", "-m", "PKCS8"],
    ];
    for words in locked {
        let Some(file) = made(test, &dir, words) else { return };
        assert_eq!(Identity::parse(&file).unwrap_err(), BadKey::Encrypted, "{words:?}");
    }
    let Some(other) = made(test, &dir, &["-t", "ecdsa", "-b", "521"]) else { return };
    assert_eq!(Identity::parse(&other).unwrap_err(), BadKey::Unknown("ecdsa-sha2-nistp521".to_owned()));
    let Some(good) = made(test, &dir, &["-t", "ed25519"]) else { return };
    let public = std::fs::read(dir.path().join("-ted25519.pub")).unwrap();
    for nothing in [&b""[..], b"garbage", &public, &[0; 100]] {
        assert_eq!(Identity::parse(nothing).unwrap_err(), BadKey::None);
    }
    // Half of a file, and one with a letter that is another.
    let text = String::from_utf8(good).unwrap();
    let (half, _) = text.split_at(text.len() / 2);
    assert_eq!(Identity::parse(half.as_bytes()).unwrap_err(), BadKey::Damaged);
    let at = text.find("b3BlbnNzaC1rZXk").unwrap();
    for offset in (at..text.len()).step_by(7) {
        let mut altered = text.clone().into_bytes();
        altered[offset] = if altered[offset] == b'A' { b'B' } else { b'A' };
        // Whatever it is, it is no panic.
        let _ = Identity::parse(&altered);
    }
}

#[cfg(not(feature = "ssh-rsa"))]
#[test]
fn rsa_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    for words in [&["-t", "rsa", "-b", "2048"][..], &["-t", "rsa", "-b", "2048", "-m", "PEM"]] {
        let Some(file) = made("rsa_is_refused_in_words", &dir, words) else { return };
        let told = Identity::parse(&file).unwrap_err().to_string();
        assert_eq!(told, "keys of this kind are not served: RSA (this program was built without ssh-rsa)");
    }
}
