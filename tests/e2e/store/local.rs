//! Real members on loopback, each with an address of its own; clients of them; and the two stores that keep the contract.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use control::store::{StoreConfig, StoreOptions, memory::MemoryStore};
use weft_tests::{ns::Background, run::eventually};

use super::contract::{self, World};

pub(super) fn memory() {
    struct Virtual(MemoryStore, Mutex<Duration>);
    impl World for Virtual {
        type Handle = control::store::memory::MemoryHandle;
        fn handle(&self) -> Self::Handle {
            self.0.handle()
        }
        fn compact(&self, revision: u64) {
            self.0.compact(revision);
        }
        fn pass(&self, time: Duration) {
            let mut now = self.1.lock().expect("a clock");
            *now += time;
            self.0.advance(packet::Instant::ZERO + *now);
        }
    }
    contract::all(&Virtual(MemoryStore::new(), Mutex::default()));
}

pub(super) fn etcd() {
    let cluster = Cluster::start(1);
    contract::all(&cluster);
}

impl World for Cluster {
    type Handle = etcd::Client;
    fn handle(&self) -> Self::Handle {
        self.client()
    }
    fn compact(&self, revision: u64) {
        self.etcdctl(&["compaction", &revision.to_string()]);
    }
    fn pass(&self, _: Duration) {}
}

/// One member.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) process: Option<Background>,
    arguments: Vec<String>,
}

impl Member {
    pub(super) fn start(&mut self) {
        let mut command = Command::new("etcd");
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(Background(command.spawn().expect("etcd starts")));
    }

    /// With SIGKILL.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    pub(super) fn signal(&self, signal: nix::sys::signal::Signal) {
        let process = self.process.as_ref().expect("a member that runs");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.0.id().cast_signed()), signal).expect("a signal");
    }
}

/// Members of one cluster, and their files.
pub(super) struct Cluster {
    pub(super) members: Vec<Member>,
    pub(super) directory: PathBuf,
    /// What `etcdctl` needs to be let in.
    pub(super) access: Vec<String>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.clear();
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// An address of 127/8 that nobody else here has.
pub(super) fn address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let pid = std::process::id();
    format!("127.{}.{}.{}", 100 + (pid >> 8) % 100, pid % 256, NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Cluster {
    /// Members started with the flags that the field uses, once they are healthy.
    pub(super) fn start(members: usize) -> Self {
        let cluster = Self::spawn((0..members).map(|_| address()).collect(), "http", &[]);
        cluster.healthy();
        cluster
    }

    /// Not waiting until they are healthy.
    pub(super) fn spawn(addresses: Vec<String>, scheme: &str, more: &[String]) -> Self {
        let first = addresses.first().expect("a member").clone();
        let directory = std::env::temp_dir().join(format!("weft-etcd-{first}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&directory));
        std::fs::create_dir_all(&directory).expect("a directory");
        let all = addresses.iter().enumerate().map(|(n, address)| format!("docker-node{n}=http://{address}:2380")).collect::<Vec<_>>().join(",");
        let member = |(n, address): (usize, String)| {
            let name = format!("docker-node{n}");
            let data = directory.join(&name).display().to_string();
            let (peer, client) = (format!("http://{address}:2380"), format!("{scheme}://{address}:2379"));
            let flags = [
                ("--name", name.as_str()),
                ("--initial-advertise-peer-urls", &peer),
                ("--listen-peer-urls", &peer),
                ("--listen-client-urls", &client),
                ("--advertise-client-urls", &client),
                ("--initial-cluster-token", "etcd-cluster"),
                ("--initial-cluster", &all),
                ("--initial-cluster-state", "new"),
                ("--data-dir", &data),
            ];
            let arguments = flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]).chain(more.iter().cloned()).collect();
            let mut member = Member { name, address, process: None, arguments };
            member.start();
            member
        };
        let members = addresses.into_iter().enumerate().map(member).collect();
        Self { members, directory, access: Vec::new() }
    }

    pub(super) fn healthy(&self) {
        eventually("etcd is healthy", || self.try_etcdctl(&["endpoint", "health", "--cluster"]).is_ok());
    }

    fn try_etcdctl(&self, arguments: &[&str]) -> Result<String, String> {
        let running = self.members.iter().filter(|member| member.process.is_some()).map(|member| format!("{}:2379", member.address));
        let endpoints = running.collect::<Vec<_>>().join(",");
        let output = Command::new("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", &endpoints]).args(&self.access).args(arguments).output().expect("etcdctl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(text) } else { Err(format!("etcdctl {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr))) }
    }

    pub(super) fn etcdctl(&self, arguments: &[&str]) -> String {
        self.try_etcdctl(arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The number of the member that leads.
    pub(super) fn leader(&self) -> usize {
        let all: Vec<serde_json::Value> = serde_json::from_str(&self.etcdctl(&["endpoint", "status", "-w", "json"])).expect("JSON");
        let leader = all.iter().find(|one| one["Status"]["leader"] == one["Status"]["header"]["member_id"]).expect("a leader");
        let endpoint = leader["Endpoint"].as_str().expect("an endpoint");
        self.members.iter().position(|member| endpoint.starts_with(&format!("{}:", member.address))).expect("its number")
    }

    /// A client of all members.
    pub(super) fn client(&self) -> etcd::Client {
        client(&format!("etcd://{}", self.members.iter().map(|member| member.address.clone()).collect::<Vec<_>>().join(",")), StoreOptions::default())
    }
}

pub(super) fn client(url: &str, options: StoreOptions) -> etcd::Client {
    let config = StoreConfig::new(url.parse().expect("a URL"), options).expect("options");
    etcd::Client::connect(&config, Arc::new(|| {})).expect("a client")
}
