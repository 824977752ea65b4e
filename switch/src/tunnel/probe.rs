//! Whether another node hears this one where tunnels end: a datagram to its VXLAN port, and its answer from there.
//!
//! The datagram has a VXLAN header without the I flag, which RFC 7348 section 5 has everybody else drop.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

const QUESTION: &[u8; 8] = b"weft ask";
const ANSWER: &[u8; 8] = b"weft ack";
/// VXLAN header, word, and a number that the answer repeats.
const LEN: usize = 24;
/// How often it is asked, and how long is waited each time.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(400);

fn datagram(word: [u8; 8], number: [u8; 8]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[8..16].copy_from_slice(&word);
    bytes[16..].copy_from_slice(&number);
    bytes
}

/// What to send back, if this is a question; as long as that, so that nobody gains by asking in another's name.
pub(crate) fn answer(received: &[u8]) -> Option<[u8; LEN]> {
    let received: &[u8; LEN] = received.try_into().ok()?;
    let number = *received.last_chunk::<8>()?;
    (*received == datagram(*QUESTION, number)).then(|| datagram(*ANSWER, number))
}

/// Asks a node. Blocks for at most a second or two.
///
/// # Errors
/// `TimedOut` when nothing came back; else what the network said.
pub(crate) fn ask(to: SocketAddr, number: u64) -> io::Result<()> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PAUSE))?;
    let (question, expected) = (datagram(*QUESTION, number.to_be_bytes()), datagram(*ANSWER, number.to_be_bytes()));
    for _ in 0..TRIES {
        socket.send(&question)?;
        let mut bytes = [0; LEN + 1];
        match socket.recv(&mut bytes) {
            Ok(length) if bytes[..length] == expected => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_questions_and_nothing_else() {
        let question = datagram(*QUESTION, [7; 8]);
        let reply = answer(&question).unwrap();
        assert_eq!((&reply[8..16], &reply[16..], reply[0]), (&ANSWER[..], &[7; 8][..], 0));
        assert!(answer(&reply).is_none(), "two nodes never talk in circles");
        let with_flag = { let mut bytes = question; bytes[0] = 8; bytes };
        assert!(answer(&with_flag).is_none() && answer(&question[..23]).is_none() && answer(&[]).is_none());
    }
}
