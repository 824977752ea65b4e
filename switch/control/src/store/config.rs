//! Where the store is, and how to be let in: `--cluster-store` and its options.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use crate::error::{Code, ControlError, Result};

/// The port of etcd's clients (IANA: etcd-client).
const DEFAULT_PORT: u16 = 2379;
const WANT: &str = "want etcd://HOST[:PORT][,HOST[:PORT]...], or etcds://... for TLS";

/// One member of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// `--cluster-store`: the members of one etcd cluster, all over TLS or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    /// `etcds`.
    pub tls: bool,
    /// At least one, in the order in which they are tried.
    pub members: Vec<Member>,
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "etcds://" } else { "etcd://" })?;
        self.members.iter().enumerate().try_for_each(|(n, member)| write!(f, "{}{member}", if n > 0 { "," } else { "" }))
    }
}

impl FromStr for StoreUrl {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self> {
        // Not the text itself where it may hold a password.
        let bad = |what: &str| ControlError::new(Code::Invalid, "cluster-store", format!("--cluster-store: {what}")).hint(WANT);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| bad(&format!("{text:?} has no scheme")))?;
        let tls = match scheme {
            "etcd" => false,
            "etcds" => true,
            other => return Err(bad(&format!("{other:?} is no store of ours"))),
        };
        if rest.contains('@') {
            return Err(bad("users and passwords are not for command lines; give a user and a password file"));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(bad(&format!("{text:?} has a path; keys are always below docker/network")));
        }
        let members = rest.split(',').map(|part| part.parse().map_err(|what: String| bad(&what))).collect::<Result<Vec<Member>>>()?;
        if let Some(twice) = members.iter().enumerate().find(|(n, member)| members.iter().take(*n).any(|other| other == *member)) {
            return Err(bad(&format!("{} is named twice", twice.1)));
        }
        Ok(Self { tls, members })
    }
}

impl FromStr for Member {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(|| format!("{text:?} lacks its ]"))?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("{host:?} is no IPv6 address"))?;
                (host, after.strip_prefix(':').or_else(|| after.is_empty().then_some("")).ok_or_else(|| format!("{after:?} after the ] of {text:?}"))?)
            }
            None => text.rsplit_once(':').unwrap_or((text, "")),
        };
        let named = !host.is_empty() && host.len() <= 253 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if !named && !text.starts_with('[') {
            return Err(format!("{host:?} is neither a name nor an address (IPv6 goes in brackets)"));
        }
        let port = if port.is_empty() && !text.ends_with(':') { DEFAULT_PORT } else { port.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("{port:?} is no port (1 to 65535)"))? };
        Ok(Self { host: host.into(), port })
    }
}

/// The store and how to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Its members.
    pub url: StoreUrl,
    /// How.
    pub options: StoreOptions,
    /// The longest that a call may take.
    pub timeout: Duration,
}

/// How to be let in. Files are PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreOptions {
    /// Certificates of whoever vouches for the members.
    pub ca: Option<PathBuf>,
    /// Our certificate, if the members ask for one.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// A user of etcd.
    pub user: Option<String>,
    /// A file with nothing but the user's password (one newline at its end is not part of it).
    pub password_file: Option<PathBuf>,
}

impl StoreConfig {
    /// The longest that a call may take, unless said otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(2);

    /// With the usual timeout.
    ///
    /// # Errors
    /// [`Code::Invalid`] if options contradict each other or the URL.
    pub fn new(url: StoreUrl, options: StoreOptions) -> Result<Self> {
        let bad = |what: &str, hint: &str| Err(ControlError::new(Code::Invalid, "cluster-store", format!("--cluster-store {url}: {what}")).hint(hint));
        if url.tls && options.ca.is_none() {
            return bad("TLS without a CA file: nobody could tell that the members are who they are", "give the file with the CA's certificate");
        }
        if !url.tls && (options.ca.is_some() || options.cert.is_some() || options.key.is_some()) {
            return bad("certificates are given, and would not be used", "write etcds:// for TLS");
        }
        if options.cert.is_some() != options.key.is_some() {
            return bad("a certificate and its key go together", "give both or neither");
        }
        if options.user.is_some() != options.password_file.is_some() {
            return bad("a user and a password file go together", "give both or neither");
        }
        Ok(Self { url, options, timeout: Self::TIMEOUT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_and_written() {
        for (text, shown) in [
            ("etcd://10.0.0.1", "etcd://10.0.0.1:2379"),
            ("etcd://10.0.0.1:2379/", "etcd://10.0.0.1:2379"),
            ("etcds://a.example:1,b:2,[fd00::1]:3,[::1]", "etcds://a.example:1,b:2,[fd00::1]:3,[::1]:2379"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(shown.parse::<StoreUrl>().unwrap(), url);
        }
    }

    #[test]
    fn what_is_no_store_is_refused_with_the_reason() {
        for (text, why) in [
            ("10.0.0.1:2379", "no scheme"),
            ("consul://10.0.0.1", "no store of ours"),
            ("etcd://", "neither a name"),
            ("etcd://a,,b", "neither a name"),
            ("etcd://a:0", "no port"),
            ("etcd://a:", "no port"),
            ("etcd://a:70000", "no port"),
            ("etcd://fd00::1", "brackets"),
            ("etcd://::1", "brackets"),
            ("etcd://[fd00::1", "lacks its ]"),
            ("etcd://[fd00::1]x", "after the ]"),
            ("etcd://[fd00::1]:", "no port"),
            ("etcd://[a]:1", "no IPv6"),
            ("etcd://a/prefix", "path"),
            ("etcd://a b:1", "neither a name"),
            ("etcd://a:1,a:1", "twice"),
            ("etcd://root:secret@a", "not for command lines"),
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn options_that_contradict_are_refused() {
        let some = |name: &str| Some(PathBuf::from(name));
        let none = StoreOptions::default;
        for (url, options, why) in [
            ("etcds://a", none(), "without a CA"),
            ("etcd://a", StoreOptions { ca: some("ca"), ..none() }, "would not be used"),
            ("etcds://a", StoreOptions { ca: some("ca"), key: some("k"), ..none() }, "its key"),
            ("etcd://a", StoreOptions { user: Some("u".into()), ..none() }, "password file"),
        ] {
            let error = StoreConfig::new(url.parse().unwrap(), options).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        StoreConfig::new("etcd://a".parse().unwrap(), none()).unwrap();
    }
}
