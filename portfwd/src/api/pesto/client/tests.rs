use super::*;
use crate::api::socket::{Access, listen_at};
use crate::rule::passt::Capabilities;
use slipway_host::inside::Side;
use std::thread;

/// What a client says when a server sends these bytes and hangs up.
fn told(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = listen_at(&path, SockType::Stream, Access::Umask).unwrap();
    listener.set_nonblocking(false).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(bytes);
        });
        match Client::connect(&path, Duration::from_secs(10)) {
            Ok(client) => format!("{} tables", client.tables().len()),
            Err(error) => error.to_string(),
        }
    })
}

#[test]
fn hostile_servers_are_seen_through() {
    let hello = wire::greeting();
    let mut table = Vec::new();
    wire::table(Side::Host, Capabilities::ALL, &[], &mut table);
    let with = |more: &[u8]| [&hello[..], more].concat();
    assert_eq!(told(b""), "Couldn't read server greeting: No data available");
    assert_eq!(told(&hello[..10]), "Couldn't read server greeting: No data available");
    assert_eq!(told(b"SSH-2.0-OpenSSH_10.0p2 or so\r\n"), "Bad magic number from server");
    assert_eq!(told(&hello), "Error reading from control socket: No data available");
    assert_eq!(told(&with(&[0])), "0 tables");
    assert_eq!(told(&with(&[&table[..], &[0]].concat())), "1 tables");
    assert_eq!(told(&with(&table.repeat(2))), "Received duplicate interface identifier");
    let mut huge = table.clone();
    huge[HEAD_LEN - 4..].fill(255);
    assert_eq!(told(&with(&huge)), "Too many forwarding rules");
    huge[HEAD_LEN - 4..].copy_from_slice(&2_u32.to_be_bytes());
    assert_eq!(told(&with(&huge)), "Error reading from control socket: No data available");
    huge.extend([7; RULE_LEN]);
    assert_eq!(told(&with(&huge)), "a forwarding rule has an unknown protocol");
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _listener = listen_at(&path, SockType::Stream, Access::Umask).unwrap();
    let error = Client::connect(&path, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.to_string(), "Couldn't read server greeting: Connection timed out");
}

/// Each byte comes in time, and all of them would take hours.
#[test]
fn a_server_that_says_a_byte_now_and_then_is_not_waited_for_either() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = listen_at(&path, SockType::Stream, Access::Umask).unwrap();
    listener.set_nonblocking(false).unwrap();
    let mut bytes = wire::greeting();
    wire::table(Side::Host, Capabilities::ALL, &[], &mut bytes);
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            for byte in &bytes {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Client::connect(&path, Duration::from_secs(1)).unwrap_err()
    });
    assert_eq!(error.to_string(), "Error reading from control socket: Connection timed out");
}

#[test]
fn a_server_without_status_is_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = listen_at(&path, SockType::Stream, Access::Umask).unwrap();
    listener.set_nonblocking(false).unwrap();
    for (answer, expected) in [(&b""[..], None), (b"\0", Some((true, ""))), (b"\x01no", Some((false, "no")))]
    {
        let status = thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(&[&wire::greeting()[..], &[0]].concat()).unwrap();
                let mut change = Vec::new();
                stream.read_to_end(&mut change).unwrap();
                assert_eq!(change, [1, 0, 0, 0, 0, 0]);
                stream.write_all(answer).unwrap();
            });
            Client::connect(&path, Duration::from_secs(10)).unwrap().replace(&[(1, Vec::new())]).unwrap()
        });
        assert_eq!(status, expected.map(|(done, text)| Status { done, text: text.to_owned() }));
    }
}

#[test]
fn a_server_that_promised_a_status_and_ends_without_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = listen_at(&path, SockType::Stream, Access::Umask).unwrap();
    listener.set_nonblocking(false).unwrap();
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = wire::greeting();
            wire::table(Side::Host, Capabilities::ALL, &[], &mut bytes);
            bytes.push(0);
            stream.write_all(&bytes).unwrap();
        });
        Client::connect(&path, Duration::from_secs(10)).unwrap().replace(&[]).unwrap_err()
    });
    assert!(matches!(error, ClientError::NoStatus | ClientError::Write(_)), "{error}");
}
