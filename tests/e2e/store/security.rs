//! Who is let in, and whom we believe.

use std::{path::PathBuf, process::Command};

use control::store::{Seen, Store, StoreError, StoreOptions};

use super::{
    contract::{put, see, set},
    local::{Cluster, address, client},
};

/// A user may do what his role allows; tokens that the member has forgotten are renewed; the wrong password is no mystery.
pub(super) fn users() {
    let mut cluster = Cluster::start(1);
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "weft:pass word"],
        &["role", "add", "weft"],
        &["role", "grant-permission", "weft", "--prefix=true", "readwrite", "docker/"],
        &["user", "grant-role", "weft", "weft"],
        &["auth", "enable"],
    ] {
        cluster.etcdctl(arguments);
    }
    cluster.access = vec!["--user".into(), "root:secret".into()];
    let file = |name: &str, text: &str| {
        let path = cluster.directory.join(name);
        std::fs::write(&path, text).expect("a file");
        Some(path)
    };
    let right = StoreOptions { user: Some("weft".into()), password_file: file("right", "pass word\n"), ..StoreOptions::default() };
    let wrong = StoreOptions { password_file: file("wrong", "guess"), ..right.clone() };
    let url = format!("etcd://{}", cluster.members[0].address);
    let refused = |options: StoreOptions, prefix: &str| match client(&url, options).range(prefix) {
        Err(StoreError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(wrong, "docker/").contains("authentication failed"));
    assert!(refused(StoreOptions::default(), "docker/").contains("user name is empty"));
    assert!(refused(right.clone(), "other/").contains("permission denied"));
    let mut store = client(&url, right);
    let from = set(&mut store, vec![put("docker/a", "", None)]);
    store.watch("docker/", from).expect("a watch");
    set(&mut store, vec![put("docker/b", "", None)]);
    assert_eq!(see(&mut store, 1)[0].key(), Some("docker/b"));
    // Tokens do not outlive the member.
    cluster.members[0].kill();
    let away = see(&mut store, 1);
    assert!(matches!(away.as_slice(), [Seen::Away(_)]), "{away:?}");
    cluster.members[0].start();
    assert_eq!(see(&mut store, 1), [Seen::Back]);
    set(&mut store, vec![put("docker/c", "", None)]);
    assert_eq!(see(&mut store, 1)[0].key(), Some("docker/c"));
}

/// Certificates of a CA made here: members prove who they are, and so do we.
pub(super) fn tls() {
    let at = address();
    let directory = std::env::temp_dir().join(format!("weft-etcd-tls-{at}-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    make_certificates(&directory, &at);
    let file = |name: &str| directory.join(name);
    let flags = [("--cert-file", "member.pem"), ("--key-file", "member.key"), ("--trusted-ca-file", "ca.pem")];
    let more: Vec<String> = flags.iter().flat_map(|(flag, name)| [(*flag).to_owned(), file(name).display().to_string()]).chain(["--client-cert-auth".to_owned()]).collect();
    let mut cluster = Cluster::spawn(vec![at.clone()], "https", &more);
    cluster.access = [("--cacert", "ca.pem"), ("--cert", "node.pem"), ("--key", "node.key")].iter().flat_map(|(flag, name)| [(*flag).to_owned(), file(name).display().to_string()]).collect();
    cluster.healthy();
    let url = format!("etcds://{at}");
    let right = StoreOptions { ca: Some(file("ca.pem")), cert: Some(file("node.pem")), key: Some(file("node.key")), ..StoreOptions::default() };
    let mut store = client(&url, right.clone());
    let from = set(&mut store, vec![put("k/a", "", None)]);
    store.watch("k/", from).expect("a watch");
    set(&mut store, vec![put("k/b", "", None)]);
    assert_eq!(see(&mut store, 1)[0].key(), Some("k/b"));
    let refused = |url: &str, options: StoreOptions| match client(url, options).range("") {
        Err(StoreError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    let stranger = refused(&url, StoreOptions { ca: Some(file("other.pem")), ..right.clone() });
    assert!(stranger.contains("UnknownIssuer") || stranger.contains("unknown issuer"), "{stranger}");
    let nobody = refused(&url, StoreOptions { cert: None, key: None, ..right });
    assert!(nobody.to_lowercase().contains("certificate"), "{nobody}");
    drop(std::fs::remove_dir_all(&directory));
}

/// `ca` vouches for `member` (at this address), `node`, and `unnamed`, which has no common name; `other` for nobody.
pub(crate) fn make_certificates(directory: &PathBuf, address: &str) {
    let script = format!(
        "set -e
        for ca in ca other; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $ca.key -out $ca.pem -days 2 -subj /CN=$ca -addext keyUsage=critical,keyCertSign; done
        for name in member node unnamed; do
            case $name in unnamed) subject=/O=weft;; *) subject=/CN=$name;; esac
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr -subj $subject
            printf 'subjectAltName=IP:{address}\\nextendedKeyUsage=serverAuth,clientAuth\\n' > ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.pem
        done"
    );
    let made = Command::new("sh").current_dir(directory).args(["-c", &script]).output().expect("sh");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
