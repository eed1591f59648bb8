use super::*;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

fn pair() -> (Stream, UnixStream) {
    let (ours, guest) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).unwrap();
    (Stream::from_owned_fd(ours), UnixStream::from(guest))
}

fn frame(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + seed) % 251).unwrap()).collect()
}

fn wire(frames: &[Vec<u8>]) -> Vec<u8> {
    let each = |frame: &Vec<u8>| [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat();
    frames.iter().flat_map(each).collect()
}

fn read_all(stream: &mut Stream) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; MAX_FRAME];
    std::iter::from_fn(|| {
        let (offload, len) = stream.read_frame(&mut buffer).unwrap()?;
        assert_eq!(offload, UNCHECKED);
        Some(buffer[..len].to_vec())
    })
    .collect()
}

#[test]
fn frames_are_whole_however_they_come() {
    let (mut stream, mut guest) = pair();
    let sent: Vec<_> = [14, 60, 1514, MAX_FRAME, 15].iter().zip(0..).map(|(len, n)| frame(*len, n)).collect();
    let bytes = wire(&sent);
    let (head, tail) = bytes.split_at(100);
    let mut got = Vec::new();
    for byte in head {
        guest.write_all(&[*byte]).unwrap();
        got.extend(read_all(&mut stream));
    }
    for part in tail.chunks(30_000) {
        guest.write_all(part).unwrap();
        got.extend(read_all(&mut stream));
    }
    assert_eq!(got, sent);
    assert!(!stream.is_ahead());
}

#[test]
fn what_was_read_ahead_is_known() {
    let (mut stream, mut guest) = pair();
    let sent: Vec<_> = (0..100).map(|n| frame(60, n)).collect();
    guest.write_all(&wire(&sent)).unwrap();
    let mut buffer = vec![0; MAX_FRAME];
    for (n, frame) in sent.iter().enumerate() {
        let (_, len) = stream.read_frame(&mut buffer).unwrap().unwrap();
        assert_eq!(buffer[..len], *frame);
        assert_eq!(stream.is_ahead(), n < 99, "{n}");
    }
    assert!(stream.read_frame(&mut buffer).unwrap().is_none());
    drop(guest);
    let end = (0..2).find_map(|_| stream.read_frame(&mut buffer).err()).unwrap();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_length_that_no_frame_has_is_the_end() {
    for length in [0, 13, u32::try_from(MAX_FRAME).unwrap() + 1, u32::MAX] {
        let (mut stream, mut guest) = pair();
        guest.write_all(&wire(&[frame(60, 1)])).unwrap();
        guest.write_all(&length.to_be_bytes()).unwrap();
        let mut buffer = vec![0; MAX_FRAME];
        assert!(stream.read_frame(&mut buffer).unwrap().is_some(), "{length}");
        assert!(stream.is_ahead());
        let error = stream.read_frame(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
    }
}

#[test]
fn a_frame_that_has_begun_is_finished_behind_a_reader_who_pauses() {
    let (mut stream, mut guest) = pair();
    let mut taken = Vec::new();
    for n in 0..1000 {
        let next = frame(9000 + n, n);
        match stream.transmit(Offload::NONE, &next) {
            Ok(()) => taken.push(next),
            Err(Full) => break,
        }
    }
    assert!(taken.len() > 20 && taken.len() < 1000, "{}", taken.len());
    assert_eq!(stream.flush(), Err(Full));
    assert!(stream.waiting() <= OUTBOX);
    let expected = wire(&taken);
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; expected.len()];
        guest.read_exact(&mut got).unwrap();
        (got == expected, guest)
    });
    while stream.flush() == Err(Full) {
        std::thread::yield_now();
    }
    let (whole, guest) = reader.join().unwrap();
    assert!(whole, "in order, and nothing between");
    drop(guest);
    assert_eq!(stream.transmit(Offload::NONE, &[0; 60]).and_then(|()| stream.flush()), Ok(()));
    assert_eq!(stream.transmit(Offload::NONE, &[0; 60]), Ok(()), "nobody is there to wait for");
    assert_eq!(stream.lost(), Lost { down: 1, ..Lost::default() });
}
