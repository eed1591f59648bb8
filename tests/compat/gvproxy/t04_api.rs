//! The HTTP API and the notifications of a whole process: what other programs ask of it, beside the original as far as
//! that has it. Heads, bodies and bounds have their tests where they are read (`gvproxy/src/control`).

use super::Subject;
use super::life::{LIMIT, Life, until};
use super::t03_guests::{GATEWAY, GUEST, Lengths, ask, is_answer, question};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

const API: [&str; 4] = ["-listen", "unix://@/api", "-ssh-port", "-1"];
const QEMU: [&str; 2] = ["-listen-qemu", "unix://@/qemu"];

/// One request; status and body.
pub(super) fn request(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, body.to_owned())
}

#[test]
fn ports_are_exposed_and_listed_and_closed() {
    let Some(subjects) = Subject::both("ports_are_exposed_and_listed_and_closed") else { return };
    for subject in &subjects {
        let life = Life::start(subject, &[&API[..], &QEMU].concat());
        let api = life.at("api");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let all = || request(&api, "GET", "/services/forwarder/all", "");
        assert_eq!(all(), (200, "[]\n".to_owned()));
        let expose = |body: &str| request(&api, "POST", "/services/forwarder/expose", body);
        let body = format!(r#"{{"local":"{taken}","remote":"192.168.127.2:80","protocol":"tcp"}}"#);
        assert_eq!(expose(&body), (200, String::new()));
        std::net::TcpStream::connect(taken).unwrap();
        let listed =
            format!("[{{\"local\":\"{taken}\",\"remote\":\"192.168.127.2:80\",\"protocol\":\"tcp\"}}]\n");
        assert_eq!(all(), (200, listed));
        let (status, said) = expose(&body);
        // Older ones ask the kernel first.
        let running = said.starts_with("proxy already running for tcp on");
        assert!(status == 500 && (running || !subject.is_ours()), "{status} {said}");
        let unexpose = || request(&api, "POST", "/services/forwarder/unexpose", &body);
        assert_eq!(unexpose(), (200, String::new()));
        assert_eq!(unexpose(), (500, "proxy not found\n".to_owned()));
        assert!(std::net::TcpStream::connect(taken).is_err());
        assert_eq!(request(&api, "GET", "/nothing", ""), (404, "404 page not found\n".to_owned()));
        assert_eq!(request(&api, "GET", "/services/forwarder/expose", ""), (400, "post only\n".to_owned()));
    }
}

#[test]
fn a_guest_comes_by_connect_and_is_listed() {
    let Some(subjects) = Subject::both("a_guest_comes_by_connect_and_is_listed") else { return };
    for subject in &subjects {
        let mut life = Life::begin(subject, &API);
        assert!(until(|| life.at("api").exists()), "{:?}", life.said());
        let guest = UnixStream::connect(life.at("api")).unwrap();
        guest.set_read_timeout(Some(LIMIT)).unwrap();
        (&guest).write_all(b"POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n").unwrap();
        if !subject.is_ours() {
            // It loses what comes right behind the head.
            std::thread::sleep(std::time::Duration::from_millis(300));
        }
        ask(&guest, &guest, Lengths::Le16);
        let (status, cam) = request(&life.at("api"), "GET", "/cam", "");
        assert_eq!((status, cam.trim()), (200, "{\"5a:94:ef:e4:0c:ee\":0}"));
        let (status, leases) = request(&life.at("api"), "GET", "/services/dhcp/leases", "");
        assert!(status == 200 && leases.contains("\"192.168.127.1\":\"5a:94:ef:e4:0c:dd\""), "{leases}");
        drop(guest);
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(life.child.try_wait().unwrap().is_none(), "others may come: {:?}", life.said());
    }
}

/// A marker of the fast link behind its length, by the bytes of `docs/fast-link.md`.
fn marker(from: [u8; 6]) -> Vec<u8> {
    let mut marker = [&[60, 0, 1, 0x80, 0xc2, 0, 0, 0x0e][..], &from, &[0x88, 0xb5]].concat();
    marker.extend(b"slipway-fast-link\x01");
    marker.resize(62, 0);
    marker
}

/// Connects as a forwarder does, with this field.
fn forwarder(life: &Life, subject: &Subject, field: &str) -> UnixStream {
    let stream = UnixStream::connect(life.at("api")).unwrap();
    let head = format!("POST /connect HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n{field}\r\n");
    (&stream).write_all(head.as_bytes()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    if !subject.is_ours() {
        // It loses what comes right behind the head.
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    stream
}

#[test]
fn who_asks_for_the_fast_link_gets_it_and_who_does_not_hears_nothing_of_it() {
    let test = "who_asks_for_the_fast_link_gets_it_and_who_does_not_hears_nothing_of_it";
    let Some(subjects) = Subject::both(test) else { return };
    for subject in &subjects {
        let life = Life::begin(subject, &API);
        assert!(until(|| life.at("api").exists()), "{:?}", life.said());
        for field in ["", "Slipway-Fast-Link: 7\r\n", "Slipway-Fast-Link: 1\r\n"] {
            if subject.is_ours() && field.contains('1') {
                continue;
            }
            let mut guest = forwarder(&life, subject, field);
            assert_eq!(guest.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "{field}");
            guest.set_read_timeout(Some(LIMIT)).unwrap();
            ask(&guest, &guest, Lengths::Le16);
            // Its address is another guest's no longer when the link has ended.
            drop(guest);
            assert!(until(|| request(&life.at("api"), "GET", "/cam", "").1.trim() == "{}"));
        }
    }
    let (ours, life) = (&subjects[0], Life::begin(&subjects[0], &API));
    assert!(until(|| life.at("api").exists()), "{:?}", life.said());
    let mut guest = forwarder(&life, ours, "Slipway-Fast-Link: 1\r\n");
    guest.set_read_timeout(Some(LIMIT)).unwrap();
    let mut first = [0; 62];
    guest.read_exact(&mut first).unwrap();
    assert_eq!(first[..], marker(GATEWAY));
    let asked = question();
    let len = u8::try_from(asked.len()).unwrap();
    // Under way, the marker, and fast ones: a length, a header that says nothing, the frame.
    guest.write_all(&[&[len, 0][..], &asked, &marker(GUEST)].concat()).unwrap();
    guest.write_all(&[&[0, 0, 0, len + 10][..], &[0; 10], &asked].concat()).unwrap();
    for _ in 0..2 {
        let mut head = [0; 14];
        guest.read_exact(&mut head).unwrap();
        let len = usize::try_from(u32::from_be_bytes(*head.first_chunk().unwrap())).unwrap() - 10;
        let mut frame = vec![0; len];
        guest.read_exact(&mut frame).unwrap();
        assert!(is_answer(&frame) && head[4..] == [0; 10], "{head:?} {frame:?}");
    }
}

#[test]
fn who_listens_hears_of_guests() {
    let Some(ours) = Subject::ours("who_listens_hears_of_guests") else { return };
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("events");
    let listener = UnixListener::bind(&place).unwrap();
    let address = format!("unix://{}", place.display());
    let words = [&API[..], &QEMU, &["-stay", "-notification", &address]].concat();
    let life = Life::start(&ours, &words);
    let hear = || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        stream.read_to_string(&mut line).unwrap();
        line
    };
    assert_eq!(hear(), "{\"notification_type\":\"ready\"}\n");
    let guest = life.guest();
    guest.set_read_timeout(Some(LIMIT)).unwrap();
    ask(&guest, &guest, Lengths::Be32);
    let of_guest =
        |kind: &str| format!("{{\"notification_type\":\"{kind}\",\"mac_address\":\"5a:94:ef:e4:0c:ee\"}}\n");
    assert_eq!(hear(), of_guest("connection_established"));
    drop(guest);
    assert_eq!(hear(), of_guest("connection_closed"));
}

#[test]
fn sockets_of_a_process_that_was_killed_go_all_the_same() {
    let Some(ours) = Subject::ours("sockets_of_a_process_that_was_killed_go_all_the_same") else { return };
    let mut life = Life::start(&ours, &[&API[..], &QEMU].concat());
    assert_eq!(request(&life.at("api"), "GET", "/cam", "").0, 200);
    life.child.kill().unwrap();
    life.child.wait().unwrap();
    assert!(until(|| !life.at("api").exists()), "{:?}", life.files());
}
