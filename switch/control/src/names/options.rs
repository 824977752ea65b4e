//! What a sandbox was told about names, in the words of `docker run`.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    api::SandboxCreate,
    error::{Code, ControlError, Result},
};

/// `--dns`, `--dns-search`, `--dns-option`, `--add-host`, `--link`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameOptions {
    /// Servers for names that are not ours; the network's, or the host's, when empty.
    pub dns: Vec<IpAddr>,
    /// Domains tried behind a name; the host's when empty, none for `.`.
    pub dns_search: Vec<String>,
    /// As resolv.conf(5) has them.
    pub dns_option: Vec<String>,
    /// Further lines of /etc/hosts.
    pub add_host: Vec<AddHost>,
    /// Names that only this sandbox knows others by.
    pub link: Vec<Link>,
}

impl NameOptions {
    /// What a request says.
    ///
    /// # Errors
    /// When a word makes no sense.
    pub fn of(request: &SandboxCreate) -> Result<Self> {
        let options = Self {
            dns: request.dns.clone(),
            dns_search: request.dns_search.clone(),
            dns_option: request.dns_option.clone(),
            add_host: request.add_host.iter().map(|text| text.parse()).collect::<Result<_>>()?,
            link: request.link.iter().map(|text| text.parse()).collect::<Result<_>>()?,
        };
        options.check()?;
        Ok(options)
    }

    /// # Errors
    /// When a word has no sense in resolv.conf(5).
    pub fn check(&self) -> Result<()> {
        // glibc's MAXNS counts the servers of a file; more would be asked of by nobody.
        if self.dns.len() > MOST_SERVERS {
            return Err(invalid("--dns", format!("{} servers are more than the {MOST_SERVERS} that are ever asked", self.dns.len())));
        }
        if let Some(server) = self.dns.iter().find(|server| server.is_unspecified() || server.is_multicast()) {
            return Err(invalid(&server.to_string(), format!("--dns {server}: no server has such an address")));
        }
        for domain in self.dns_search.iter().filter(|domain| *domain != ".") {
            check_host("--dns-search", domain)?;
        }
        let is_word = |option: &&String| option.is_empty() || !option.bytes().all(|byte| byte.is_ascii_graphic());
        match self.dns_option.iter().find(is_word) {
            Some(option) => Err(invalid(option, format!("--dns-option {option:?}: want one word such as ndots:1"))),
            None => Ok(()),
        }
    }
}

/// Servers that are asked, of however many a file names.
pub(super) const MOST_SERVERS: usize = 3;

/// A line of /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddHost {
    /// The name.
    pub name: String,
    /// What it means.
    pub address: HostAddress,
}

/// Where an added name leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    /// To that address.
    Ip(IpAddr),
    /// To the host, wherever it is then.
    Host,
}

impl FromStr for AddHost {
    type Err = ControlError;

    /// NAME:IP (or NAME=IP); IP may stand in brackets, or be `host-gateway`.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: String| invalid(text, format!("--add-host {text}: {what}")).hint("want NAME:IP or NAME:host-gateway");
        let (name, address) = text.split_once([':', '=']).ok_or_else(|| bad("which address?".into()))?;
        check_host("--add-host", name)?;
        let address = match address {
            "host-gateway" => HostAddress::Host,
            text => {
                let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
                HostAddress::Ip(bare.parse().map_err(|_| bad(format!("{text:?} is not an IP address")))?)
            }
        };
        Ok(Self { name: name.into(), address })
    }
}

impl fmt::Display for AddHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            HostAddress::Ip(ip) => write!(f, "{}:{ip}", self.name),
            HostAddress::Host => write!(f, "{}:host-gateway", self.name),
        }
    }
}

impl TryFrom<String> for AddHost {
    type Error = ControlError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<AddHost> for String {
    fn from(host: AddHost) -> Self {
        host.to_string()
    }
}

/// Another sandbox, and what it is called here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Link {
    /// Name or id of the other.
    pub sandbox: String,
    /// What it is called.
    pub alias: String,
}

impl FromStr for Link {
    type Err = ControlError;

    /// NAME[:ALIAS].
    fn from_str(text: &str) -> Result<Self> {
        let (sandbox, alias) = text.split_once(':').unwrap_or((text, text));
        if sandbox.is_empty() {
            return Err(invalid(text, format!("--link {text:?}: which sandbox?")).hint("want NAME[:ALIAS]"));
        }
        check_host("--link", alias)?;
        Ok(Self { sandbox: sandbox.into(), alias: alias.into() })
    }
}

impl TryFrom<String> for Link {
    type Error = ControlError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Link> for String {
    fn from(link: Link) -> Self {
        format!("{}:{}", link.sandbox, link.alias)
    }
}

/// Refuses what is no name of a host, and would break the file that it is written to.
///
/// # Errors
/// With the word that it came by.
pub(crate) fn check_host(word: &str, name: &str) -> Result<()> {
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let legal = name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label);
    if legal { Ok(()) } else { Err(invalid(name, format!("{word}: {name:?} is no name of a host")).hint("want labels of letters, digits, `-` and `_`, with dots between")) }
}

fn invalid(subject: &str, message: String) -> ControlError {
    ControlError::new(Code::Invalid, subject, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_hosts_and_links() {
        for (text, shown) in [("a:1.2.3.4", "a:1.2.3.4"), ("a=1.2.3.4", "a:1.2.3.4"), ("a:[fd00::1]", "a:fd00::1"), ("a.b:fd00::1", "a.b:fd00::1"), ("h:host-gateway", "h:host-gateway")] {
            assert_eq!(text.parse::<AddHost>().unwrap().to_string(), shown);
        }
        for (text, part) in [("a", "which address"), ("a:x", "\"x\""), (":1.2.3.4", "\"\""), ("a b:1.2.3.4", "a b"), ("a\n:1.2.3.4", "no name")] {
            assert!(text.parse::<AddHost>().unwrap_err().message.contains(part), "{text}");
        }
        assert_eq!("db".parse::<Link>().unwrap(), Link { sandbox: "db".into(), alias: "db".into() });
        assert_eq!("db:redis".parse::<Link>().unwrap().alias, "redis");
        assert!(":x".parse::<Link>().is_err() && "db:a b".parse::<Link>().is_err());
    }

    #[test]
    fn words_of_resolv_conf_are_checked() {
        let of = |dns: &[&str], search: &str, option: &str| NameOptions {
            dns: dns.iter().map(|ip| ip.parse().unwrap()).collect(),
            dns_search: vec![search.into()],
            dns_option: vec![option.into()],
            ..NameOptions::default()
        };
        assert!(of(&["9.9.9.9"], "example.com", "ndots:1").check().is_ok() && of(&[], ".", "rotate").check().is_ok());
        for (options, part) in [
            (of(&["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"], ".", "a"), "4 servers"),
            (of(&["0.0.0.0"], ".", "a"), "0.0.0.0"),
            (of(&[], "a b", "a"), "a b"),
            (of(&[], ".", "a\nnameserver 6.6.6.6"), "6.6.6.6"),
        ] {
            assert!(options.check().unwrap_err().message.contains(part));
        }
    }
}
