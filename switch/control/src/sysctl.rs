//! Sysctls of one interface, in the words of Docker's `com.docker.network.endpoint.sysctls`.

use crate::error::{Code, ControlError, Result};

/// Stand for the interface, whose name is not known when the option is written; `docker run --network` writes all in
/// lower case.
const IFNAME: [&str; 2] = ["IFNAME", "ifname"];

/// `net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.neigh.IFNAME.retrans_time_ms=2000`.
///
/// # Errors
/// When one is not of an interface, or has no value.
pub fn parse(text: &str) -> Result<Vec<String>> {
    text.split(',').map(|word| check(word.trim()).map(|()| word.trim().to_owned())).collect()
}

fn check(word: &str) -> Result<()> {
    let bad = |what: &str| ControlError::new(Code::Invalid, word, format!("invalid sysctl {word:?}: {what}")).hint("want net.{ipv4,ipv6,mpls}.{conf,neigh}.IFNAME.KEY=VALUE");
    let Some((key, value)) = word.split_once('=') else { return Err(bad("which value?")) };
    if value.is_empty() || value.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(bad("the value is no word"));
    }
    let is_key = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match key.split('.').collect::<Vec<_>>()[..] {
        ["net", "ipv4" | "ipv6" | "mpls", "conf" | "neigh", name, last] if IFNAME.contains(&name) && is_key(last) => Ok(()),
        _ => Err(bad("not of the interface")),
    }
}

/// The file under /proc/sys and what to write, for an interface of that name.
#[must_use]
pub fn file(word: &str, ifname: &str) -> Option<(String, String)> {
    let (key, value) = word.split_once('=')?;
    let parts = key.split('.').map(|part| if IFNAME.contains(&part) { ifname } else { part });
    Some((format!("/proc/sys/{}", parts.collect::<Vec<_>>().join("/")), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_of_the_interface() {
        let words = parse("net.ipv4.conf.IFNAME.log_martians=1, net.ipv6.neigh.IFNAME.retrans_time_ms=2000").unwrap();
        assert_eq!(file(&parse("net.ipv4.conf.ifname.log_martians=1").unwrap()[0], "eth1.1"), file(&words[0], "eth1.1"));
        assert_eq!(file(&words[0], "eth1.1").unwrap(), ("/proc/sys/net/ipv4/conf/eth1.1/log_martians".into(), "1".into()));
        for bad in ["", "net.ipv4.ip_forward=1", "net.ipv4.conf.IFNAME.x", "net.ipv4.conf.eth0.x=1", "net.ipv4.conf.IFNAME...=1", "net.ipv4.conf.IFNAME.a/b=1", "kernel.hostname=x", "net.ipv4.conf.IFNAME.x=a b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
