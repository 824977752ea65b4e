//! A capture as tshark reads it: the reader that our users have.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use weft_packet::pcapng;

#[test]
fn tshark_reads_interface_time_length_direction_and_comment() {
    let mut bytes = Vec::new();
    pcapng::section_header(&mut bytes);
    pcapng::interface(&mut bytes, "web:eth0");
    pcapng::describe_interface(&mut bytes, pcapng::Interface { name: "db:eth0", description: "sandbox db", snap_length: 60 });
    let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1], &[0; 6], &[10, 0, 0, 2]].concat();
    pcapng::packet(&mut bytes, 0, 1_700_000_000_123_456_789, true, None, &arp);
    pcapng::packet_cut(&mut bytes, 1, 1_700_000_000_123_456_790, false, Some("dropped: too_big"), &arp, 1514);
    pcapng::statistics(&mut bytes, 1, 1_700_000_001_000_000_000, 1, 0);

    let fields = ["frame.interface_name", "frame.interface_description", "frame.time_epoch", "frame.len", "frame.packet_flags_direction", "frame.comment"];
    let Some(text) = tshark(&bytes, &fields) else { return };
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!((lines[0][0], lines[0][3], lines[0][5]), ("web:eth0", "42", ""));
    assert_eq!((lines[1][0], lines[1][1], lines[1][3], lines[1][5]), ("db:eth0", "sandbox db", "1514", "dropped: too_big"));
    assert!(lines[0][2].contains("123456789"), "{text}");
    assert!(lines[1][2].contains("123456790"), "{text}");
    assert!(lines[0][4].ends_with('1') && lines[1][4].ends_with('2'), "{text}");
}

/// The fields of each packet, or nothing when there is no tshark.
fn tshark(capture: &[u8], fields: &[&str]) -> Option<String> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r", "-", "-T", "fields", "-E", "separator=|"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: tshark is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(capture).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}
