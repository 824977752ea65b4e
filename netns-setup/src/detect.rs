//! What this machine allows, and what to do about the rest.

use std::{fs::OpenOptions, os::fd::AsFd};

use nix::unistd::geteuid;
use serde::Serialize;

use crate::{
    attach::Kind,
    device, netns::on_thread,
    sys,
};

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What it is about.
    pub name: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do when it does not work.
    pub fix: Option<&'static str>,
}

impl Finding {
    fn new(name: &'static str, result: Result<String, String>, fix: &'static str) -> Self {
        match result {
            Ok(detail) => Self { name, ok: true, detail, fix: None },
            Err(detail) => Self { name, ok: false, detail, fix: Some(fix) },
        }
    }
}

/// Tries everything that ports need, in throw-away namespaces; the host is not touched.
#[must_use]
pub fn detect() -> Vec<Finding> {
    vec![
        Finding::new("tun device", tun_opens(), "as root: `chmod 0666 /dev/net/tun`, or use veth ports (chosen by itself)"),
        Finding::new("network namespaces", namespaces(), "run as root, or `weft daemon --rootless`"),
        Finding::new("user namespaces", user_namespaces(), "as root: `sysctl user.max_user_namespaces=10000` and `sysctl kernel.unprivileged_userns_clone=1` where it exists"),
        Finding::new("TAP offloads", tap_offloads(), "the kernel lacks IFF_VNET_HDR offloads: ports work, slower"),
        Finding::new("packet sockets", packet_sockets(), "needs CAP_NET_RAW in the namespace: run as root or `weft daemon --rootless`"),
        Finding::new("open files", open_files(), "raise `ulimit -n`: each port takes one"),
    ]
}

/// TAP where /dev/net/tun opens, else veth; and why.
#[must_use]
pub fn choose_kind() -> (Kind, String) {
    match tun_opens() {
        Ok(_) => (Kind::Tap, "/dev/net/tun opens".into()),
        Err(why) => (Kind::Veth, format!("veth with packet sockets, since {why}")),
    }
}

fn tun_opens() -> Result<String, String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    opened.map(|_| "/dev/net/tun opens".into()).map_err(|error| format!("/dev/net/tun does not open: {error}"))
}

/// Runs `work` in a new network namespace on a throw-away thread.
fn in_new_namespace(work: impl FnOnce() -> crate::Result<String> + Send) -> Result<String, String> {
    on_thread(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| crate::SetupError::new("create a network namespace", error))?;
        work()
    })
    .map_err(|error| error.to_string())
}

fn namespaces() -> Result<String, String> {
    in_new_namespace(|| Ok("can be made".into()))
}

fn tap_offloads() -> Result<String, String> {
    let described = in_new_namespace(|| {
        let (_, features) = device::open_tap("probe0", false)?;
        Ok(format!("virtio header {}, TSO {}, USO {}", yes(features.vnet_hdr), yes(features.tso), yes(features.uso)))
    })?;
    if described.contains("header yes") { Ok(described) } else { Err(described) }
}

fn packet_sockets() -> Result<String, String> {
    in_new_namespace(|| {
        let socket = sys::packet_socket(1).map_err(|error| crate::SetupError::new("open a packet socket", error))?;
        let vnet_hdr = sys::set_vnet_hdr(socket.as_fd()).is_ok();
        Ok(format!("work, virtio header {}", yes(vnet_hdr)))
    })
}

fn yes(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}

fn user_namespaces() -> Result<String, String> {
    let read = |path: &str| std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    match (read("/proc/sys/user/max_user_namespaces"), read("/proc/sys/kernel/unprivileged_userns_clone")) {
        (Some(0), _) => Err("user.max_user_namespaces is 0".into()),
        (_, Some(0)) if !geteuid().is_root() => Err("kernel.unprivileged_userns_clone is 0".into()),
        (None, _) => Err("this kernel has no user namespaces".into()),
        (Some(limit), _) => Ok(format!("allowed ({limit})")),
    }
}

fn open_files() -> Result<String, String> {
    let (soft, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).map_err(|error| error.to_string())?;
    if hard >= 1024 { Ok(format!("{soft} (limit {hard})")) } else { Err(format!("only {hard}")) }
}
