//! Traffic generators, run inside namespaces by `l2 gen ...`: one line of results each.
#![allow(clippy::print_stdout, reason = "results go to standard output")]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt};

const BATCH: usize = 32;
/// Payload of a small datagram, bytes.
const SMALL: usize = 64;

/// Receives until nothing came for 400 ms: count and seconds between first and last.
///
/// # Errors
/// When the socket cannot be used.
pub fn sink(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).ok();
    socket.set_read_timeout(Some(Duration::from_millis(400)))?;
    let mut buffers = vec![[0_u8; 2048]; BATCH];
    let (mut count, mut first, mut last) = (0_usize, None, Instant::now());
    let start = Instant::now();
    loop {
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut slices: Vec<[io::IoSliceMut<'_>; 1]> = buffers.iter_mut().map(|buffer| [io::IoSliceMut::new(buffer)]).collect();
        match recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None) {
            Ok(received) => {
                count += received.count();
                last = Instant::now();
                first.get_or_insert(last);
            }
            Err(_) if count > 0 || start.elapsed() > Duration::from_secs(4) => break,
            Err(_) => {}
        }
    }
    println!("{count} {}", first.map_or(0.0, |first| (last - first).as_secs_f64()));
    Ok(())
}

/// Sends datagrams for `seconds` at `rate` a second (0: as fast as it goes): count and seconds.
///
/// # Errors
/// When the socket cannot be used.
pub fn source(to: SocketAddr, seconds: f64, rate: f64) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    setsockopt(&socket, sockopt::SndBuf, &(1 << 20)).ok();
    socket.connect(to)?;
    let payload = [0_u8; SMALL];
    let slices = vec![[io::IoSlice::new(&payload)]; BATCH];
    let none: Vec<Option<SockaddrIn>> = vec![None; BATCH];
    let (mut sent, start) = (0_usize, Instant::now());
    loop {
        let passed = start.elapsed().as_secs_f64();
        if passed >= seconds {
            break;
        }
        let mut batch = BATCH;
        if rate > 0.0 {
            let due = passed * rate - sent as f64;
            if due < 1.0 {
                std::thread::sleep(Duration::from_micros(20));
                continue;
            }
            #[expect(clippy::cast_possible_truncation, reason = "a small positive number")]
            let due = due as usize;
            batch = batch.min(due);
        }
        let mut headers = MultiHeaders::preallocate(batch, None);
        if let Ok(results) = sendmmsg(socket.as_raw_fd(), &mut headers, &slices[..batch], &none[..batch], [], MsgFlags::empty()) {
            sent += results.count();
        }
    }
    println!("{sent} {}", start.elapsed().as_secs_f64());
    Ok(())
}

/// Answers every datagram for `seconds`.
///
/// # Errors
/// When the socket cannot be used.
pub fn pong(port: u16, seconds: f64) -> io::Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    let (mut buffer, start) = ([0; 2048], Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from)?;
        }
    }
    Ok(())
}

/// One datagram there and back at a time for `seconds`: p50, p99, p99.9 and max in microseconds, losses.
///
/// # Errors
/// When the socket cannot be used.
pub fn ping(to: SocketAddr, seconds: f64) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut times = Histogram::<u64>::new_with_bounds(100, 10_000_000_000, 3).map_err(io::Error::other)?;
    let (mut sequence, mut lost, start) = (0_u64, 0, Instant::now());
    let mut answer = [0; 2048];
    while start.elapsed().as_secs_f64() < seconds {
        sequence += 1;
        let mut payload = [0; SMALL];
        payload[..8].copy_from_slice(&sequence.to_ne_bytes());
        let sent = Instant::now();
        socket.send(&payload)?;
        loop {
            match socket.recv(&mut answer) {
                Ok(_) if answer[..8] == sequence.to_ne_bytes() => {
                    let nanos = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    // The first tenth of a second warms caches and neighbours.
                    if start.elapsed() > Duration::from_millis(100) {
                        times.saturating_record(nanos);
                    }
                    break;
                }
                Ok(_) => {}
                Err(_) => {
                    lost += 1;
                    break;
                }
            }
        }
    }
    let micros = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1000.0;
    println!("{:.2} {:.2} {:.2} {:.2} {lost}", micros(0.5), micros(0.99), micros(0.999), times.max() as f64 / 1000.0);
    Ok(())
}

/// Accepts, echoes one byte, closes; for `seconds`.
///
/// # Errors
/// When the socket cannot be used.
pub fn accept(port: u16, seconds: f64) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    listener.set_nonblocking(true)?;
    let (start, mut byte) = (Instant::now(), [0; 1]);
    while start.elapsed().as_secs_f64() < seconds {
        let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&listener), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, 200_u16).ok();
        if let Ok((mut stream, _)) = listener.accept() {
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            if stream.read_exact(&mut byte).is_ok() {
                stream.write_all(&byte).ok();
                drop(stream.read(&mut byte));
            }
        }
    }
    Ok(())
}

/// Connects, sends a byte, reads it back, resets; for `seconds`: connections a second.
///
/// # Errors
/// Never for a single connection.
pub fn connect(to: SocketAddr, seconds: f64) -> io::Result<()> {
    let (start, mut count, mut byte) = (Instant::now(), 0_u32, [1; 1]);
    while start.elapsed().as_secs_f64() < seconds {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) else { continue };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        if stream.write_all(&byte).is_ok() && stream.read_exact(&mut byte).is_ok() {
            count += 1;
        }
        setsockopt(&stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).ok();
    }
    println!("{:.1}", f64::from(count) / start.elapsed().as_secs_f64());
    Ok(())
}
