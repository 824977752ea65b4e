//! Many flows, and one that does not read: RELIABILITY's faults on the way out. Figures go to the report.

use libtest_mimic::Trial;
use weft_tests::{
    lab::Lab,
    ns::{Background, Ns},
    run::eventually,
    runner::{Need, test},
};

const NEEDS: &[Need] = &[Need::Root, Need::Tun, Need::Tool("python3")];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("load::ten_thousand_idle_and_a_thousand_active_tcp_flows", NEEDS, tcp_flows),
        test("load::a_hundred_thousand_short_udp_flows", NEEDS, udp_flows),
        test("load::one_that_does_not_read_leaves_the_others_alone", NEEDS, slow_reader),
    ]
}

struct World {
    lab: Lab,
    lan: Ns,
    servers: Vec<Background>,
}

/// A LAN behind the host; `options` for the daemon.
fn world(options: &str) -> World {
    let mut lab = Lab::without_daemon();
    let lan = lab.ns("lan");
    lan.sh(&format!("ip link add eth0 type veth peer name lan0 netns {0} && ip addr add 192.168.88.2/24 dev eth0 && ip link set eth0 up && ip -n {0} link set lan0 up", lab.host.name)).ok();
    if options.is_empty() {
        lab.host.sh("ip addr add 192.168.88.1/24 dev lan0; ip link set lo up").ok();
    }
    lab.start_daemon_with(options);
    lab.weft("network create net --subnet 172.30.0.0/16").ok();
    lab.weft("run -d --name c --net net -- sleep 1000").ok();
    World { lab, lan, servers: Vec::new() }
}

impl World {
    fn serve(&mut self, program: &str, port: u16) {
        let child = self.lan.command("python3").args(["-c", program, &port.to_string()]).spawn().expect("python3");
        self.servers.push(Background(child));
        eventually("the server listens", || self.lan.sh("ss -Hltn; ss -Hlun").stdout.contains(&format!(":{port} ")));
    }

    fn in_c(&self, program: &str, words: &[&str]) -> String {
        self.lab.weft_args(&[&["exec", "c", "python3", "-c", program], words].concat()).ok()
    }

    /// Resident memory of the daemon, KiB.
    fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.lab.daemon_pid())).expect("a daemon");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a figure");
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
    }
}

const OPEN_FILES: &str = "import resource\nh=resource.getrlimit(resource.RLIMIT_NOFILE)[1]\nresource.setrlimit(resource.RLIMIT_NOFILE,(h,h))\n";
/// Echoes streams on a hundred ports from the one given, so that one client has room for many flows.
const ECHO_STREAMS: &str = "import asyncio,sys\nasync def one(r,w):\n  try:\n    while True:\n      d=await r.read(65536)\n      if not d: break\n      w.write(d); await w.drain()\n  except ConnectionError: pass\n  finally: w.close()\nasync def main():\n  s=await asyncio.start_server(one,'0.0.0.0',int(sys.argv[1]),backlog=4096)\n  async with s: await s.serve_forever()\nasyncio.run(main())\n";
/// Opens so many flows, uses so many of them all at once, and says how many did what. They end by hundreds: the queue
/// of a device is not as long as all their ends at once, and a kernel that is heard too late gives up.
const MANY_STREAMS: &str = "import asyncio,sys,os\nn,m=int(sys.argv[1]),int(sys.argv[2])\nopen_=[]\nasync def start():\n  open_.append(await asyncio.open_connection('192.168.88.2',7))\nasync def end(p):\n  p[1].write_eof(); await p[0].read(); p[1].close()\nasync def use(p):\n  r,w=p\n  ok=0\n  for i in range(5):\n    d=os.urandom(20000); w.write(d); await w.drain()\n    ok+=(await r.readexactly(20000))==d\n  return ok==5\nasync def main():\n  for at in range(0,n,200):\n    await asyncio.gather(*[start() for _ in range(min(200,n-at))])\n  print('open',len(open_),flush=True)\n  good=await asyncio.gather(*[use(p) for p in open_[::max(1,n//m)][:m]])\n  print('good',sum(good),flush=True)\n  alive=await asyncio.gather(*[use(p) for p in open_[1::max(1,n//20)][:20]])\n  print('alive',sum(alive),flush=True)\n  sys.stdin.readline()\n  for at in range(0,n,200): await asyncio.gather(*[end(p) for p in open_[at:at+200]])\nasyncio.run(main())\n";
const ECHO_DATAGRAMS: &str = "import socket,sys,select\ns=[socket.socket(socket.AF_INET,socket.SOCK_DGRAM) for _ in range(8)]\nfor i,x in enumerate(s): x.bind(('',int(sys.argv[1])+i))\nwhile True:\n  for x in select.select(s,[],[])[0]:\n    d,a=x.recvfrom(100); x.sendto(d,a)\n";
/// So many questions, each from a socket of its own, to eight ports in turn; prints how many were answered.
const SHORT_FLOWS: &str = "import socket,sys\nn=int(sys.argv[1]); ok=0\nfor i in range(n):\n  s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(1); s.connect(('192.168.88.2',7000+i%8))\n  try:\n    s.send(b'%d'%i); ok+=s.recv(100)==b'%d'%i\n  except OSError: pass\n  s.close()\nprint(ok)\n";

fn tcp_flows() {
    for options in ["", "--uplink dev:lan0,addr=192.168.88.1/24"] {
        let mut world = world(options);
        world.serve(&[OPEN_FILES, ECHO_STREAMS].concat(), 7);
        world.lab.host.sh("true").ok();
        let before = world.rss();
        let program = [OPEN_FILES, MANY_STREAMS].concat();
        let mut client = world.lab.weft_command();
        client.args(["exec", "-i", "c", "python3", "-c", &program, "10000", "1000"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut client = client.spawn().expect("weft exec");
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(client.stdout.take().expect("stdout")));
        let mut next = || lines.next().expect("a line").expect("text");
        assert_eq!(next(), "open 10000");
        let idle = world.rss();
        assert_eq!((next(), next()), ("good 1000".to_owned(), "alive 20".to_owned()));
        let shown = world.lab.weft("nat flows --json").json().as_array().map_or(0, Vec::len);
        assert!(shown >= 10_000, "{shown} flows are shown");
        eprintln!("{}: RSS {before} KiB, with 10,000 TCP flows {idle} KiB, after 1,000 of them were active {} KiB", if options.is_empty() { "host sockets" } else { "packets" }, world.rss());
        drop(client.stdin.take());
        client.wait().expect("the client ends");
        if options.is_empty() {
            eventually("all sockets are closed", || std::fs::read_dir(format!("/proc/{}/fd", world.lab.daemon_pid())).expect("fds").count() < 100);
        }
        assert!(world.rss() < before + 150_000, "{} KiB after {before}", world.rss());
    }
}

fn udp_flows() {
    for options in ["", "--uplink dev:lan0,addr=192.168.88.1/24"] {
        let mut world = world(options);
        world.serve(ECHO_DATAGRAMS, 7000);
        assert_eq!(world.in_c(SHORT_FLOWS, &["1000"]).trim(), "1000");
        let before = world.rss();
        let answered: u32 = world.in_c(SHORT_FLOWS, &["100000"]).trim().parse().expect("a number");
        let after = world.rss();
        eprintln!("{}: {answered} of 100,000 short UDP flows answered; RSS {before} KiB before, {after} KiB after", if options.is_empty() { "host sockets" } else { "packets" });
        assert!(answered >= 99_900, "{answered}");
        assert!(after < before + 60_000, "{before} to {after} KiB");
    }
}

/// Takes connections and reads nothing.
const DEAF: &str = "import socket,sys,time\ns=socket.socket(); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); s.bind(('',int(sys.argv[1]))); s.listen(8)\nk=[]\nwhile True: k.append(s.accept()[0])\n";
/// Sends until it is stuck for a second; says how many bytes went.
const PUSH: &str = "import socket,sys\ns=socket.create_connection(('192.168.88.2',int(sys.argv[1]))); s.settimeout(1); n=0\ntry:\n  while n<10**9: n+=s.send(b'x'*65536)\nexcept OSError: pass\nprint(n,flush=True)\nsys.stdin.readline()\n";
const BULK: &str = "import socket,sys\ns=socket.create_connection(('192.168.88.2',7)); s.settimeout(20)\nimport threading\ndef rd():\n  n=0\n  while n<100*2**20: n+=len(s.recv(1<<20))\n  print(n)\nt=threading.Thread(target=rd); t.start()\nfor _ in range(100): s.sendall(b'y'*2**20)\nt.join()\n";

fn slow_reader() {
    let mut world = world("");
    world.serve(DEAF, 99);
    world.serve(&[OPEN_FILES, ECHO_STREAMS].concat(), 7);
    let before = world.rss();
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut command = world.lab.weft_command();
        command.args(["exec", "-i", "c", "python3", "-c", PUSH, "99"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        stuck.push(command.spawn().expect("weft exec"));
    }
    for client in &mut stuck {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(client.stdout.as_mut().expect("stdout")), &mut line).expect("a line");
        let sent: u64 = line.trim().parse().expect("a number");
        assert!(sent < 64 << 20, "back-pressure reaches the sender: {sent} bytes");
    }
    assert_eq!(world.in_c(BULK, &[]).trim(), (100 << 20).to_string(), "another flow has its way, both ways");
    assert!(world.rss() < before + 40_000, "no queue of ours holds what is not read: {before} to {} KiB", world.rss());
    for mut client in stuck {
        drop(client.stdin.take());
        client.wait().expect("it ends");
    }
}
