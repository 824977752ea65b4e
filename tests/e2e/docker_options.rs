//! What a container may be told about its networks, files and output, by the stock client. SPEC rows: C4, C11, D2, O5,
//! O9, O10, N13.

use std::process::Command;

use libtest_mimic::Trial;
use serde_json::json;
use weft_tests::{
    run::{eventually, run},
    runner::{Need, test},
};

use crate::client::{Docker, NEEDS};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("docker_options::o9_of_an_endpoint", NEEDS, endpoint),
        test("docker_options::the_default_route_goes_by_priority", NEEDS, priority),
        test("docker_options::files_of_the_host_in_other_places", NEEDS, binds),
        test("docker_options::nothing_survives_its_container", NEEDS, survivors),
        test("docker_options::output_is_kept_within_its_bound", &[Need::Root, Need::Tun, Need::Tool("docker")], logs),
    ]
}

/// `docker run --network name=...,ip=...`, link-local addresses, driver options of an endpoint (O9).
fn endpoint() {
    let docker = Docker::start();
    docker.run("network create --subnet 10.5.0.0/24 --ipv6 --subnet fd05::/64 lab").ok();
    docker.run("network create --subnet 10.6.0.0/24 side").ok();
    let sysctls = "driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.log_martians=1";
    docker.args(&["run", "-d", "--name", "c", "--network", &format!("name=lab,ip=10.5.0.77,ip6=fd05::77,alias=sea,alias=lake,mac-address=02:00:00:00:00:77,link-local-ip=169.254.7.7,\"{sysctls}\""), "--network", "name=side,driver-opt=com.docker.network.endpoint.ifname=lan7", "host", "sleep", "1000"]).ok();
    let seen = docker.run("inspect c").json()[0]["NetworkSettings"]["Networks"]["lab"].clone();
    assert_eq!((&seen["IPAddress"], &seen["GlobalIPv6Address"], &seen["MacAddress"]), (&json!("10.5.0.77"), &json!("fd05::77"), &json!("02:00:00:00:00:77")));
    assert_eq!((&seen["Aliases"], &seen["IPAMConfig"]["LinkLocalIPs"]), (&json!(["sea", "lake"]), &json!(["169.254.7.7"])));
    let inside = docker.run("exec c ip -o addr").ok();
    for part in ["10.5.0.77/24", "fd05::77/64", "169.254.7.7/16", "lan7", "10.6.0.2/24"] {
        assert!(inside.contains(part), "{part}:\n{inside}");
    }
    assert_eq!(docker.run("exec c cat /proc/sys/net/ipv4/conf/eth0/log_martians").ok().trim(), "1");
    docker.run("run -d --name d --network lab --link-local-ip 169.254.7.8 host sleep 1000").ok();
    for to in ["169.254.7.7", "sea", "lake", "10.5.0.77", "fd05::77"] {
        docker.run(&format!("exec d ping -c 1 -W 2 {to}")).ok();
    }
    for (words, part) in [
        ("--link-local-ip 10.0.0.1", "invalid link-local IP address: 10.0.0.1"),
        ("--link-local-ip 169.254.7.7", "169.254.7.7 is already in use by c"),
        ("--network name=side,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1", "net.ipv4.ip_forward=1"),
        ("--network name=side,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.no_such_key=1", "no_such_key"),
        ("--network name=side,driver-opt=foo=bar", "option foo"),
        ("--mac-address 01:00:00:00:00:01", "multicast"),
    ] {
        let network = if words.contains("--network") { "" } else { "--network lab" };
        let said = docker.run(&format!("run --rm {network} {words} host true")).fails();
        assert!(said.contains(part), "{words}: {said}");
    }
    assert_eq!(docker.run("ps -aq").ok().lines().count(), 2, "nothing is half made");
    docker.run("rm -f c d").ok();
}

/// `--gw-priority`: at start, when a network joins, and when one leaves (C11).
fn priority() {
    let docker = Docker::start();
    for (name, subnet) in [("one", "10.1.0.0/24"), ("two", "10.2.0.0/24"), ("three", "10.3.0.0/24")] {
        docker.run(&format!("network create --subnet {subnet} {name}")).ok();
    }
    let way = |container: &str| {
        let routes = docker.run(&format!("exec {container} ip route show default")).ok();
        assert!(routes.lines().count() <= 1, "{routes}");
        routes.split_whitespace().nth(2).unwrap_or("none").to_owned()
    };
    docker.run("run -d --name c --network name=one --network name=two,gw-priority=5 host sleep 1000").ok();
    assert_eq!(way("c"), "10.2.0.1");
    assert_eq!(docker.format("c", "{{.NetworkSettings.Networks.two.GwPriority}} {{.NetworkSettings.Networks.one.Gateway}}."), "5 .");
    docker.run("network connect --gw-priority 9 three c").ok();
    assert_eq!(way("c"), "10.3.0.1");
    docker.run("network disconnect three c").ok();
    assert_eq!(way("c"), "10.2.0.1", "it goes back to the next");
    docker.run("network disconnect two c").ok();
    assert_eq!(way("c"), "10.1.0.1");
    docker.run("network connect two c").ok();
    assert_eq!(way("c"), "10.1.0.1", "of equals the first stays");
    docker.run("network connect --gw-priority -1 three c").ok();
    docker.run("network disconnect one c").ok();
    assert_eq!(way("c"), "10.2.0.1");
    docker.run("restart -t 0 c").ok();
    assert_eq!(way("c"), "10.2.0.1");
    docker.run("rm -f c").ok();
}

fn binds() {
    let docker = Docker::start();
    let at = docker.0.dir();
    for name in ["data", "over", "root"] {
        std::fs::create_dir(at.join(name)).expect("a directory");
    }
    std::fs::write(at.join("data/file"), "of data\n").expect("a file");
    let (data, over) = (at.join("data").display().to_string(), at.join("over").display().to_string());
    docker.args(&["run", "-d", "--name", "c", "-v", &format!("{data}:{over}"), "host", "sleep", "1000"]).ok();
    assert_eq!(docker.args(&["exec", "c", "cat", &format!("{over}/file")]).ok(), "of data\n");
    docker.args(&["exec", "c", "sh", "-c", &format!("echo new > {over}/new")]).ok();
    assert_eq!(std::fs::read_to_string(at.join("data/new")).expect("a file"), "new\n");
    assert_eq!(std::fs::read_dir(at.join("over")).expect("a directory").count(), 0, "outside it is as it was");
    assert_eq!(docker.format("c", "{{.HostConfig.Binds}} {{(index .Mounts 0).Type}} {{(index .Mounts 0).RW}}"), format!("[{data}:{over}] bind true"));
    docker.run("restart -t 0 c").ok();
    assert_eq!(docker.args(&["exec", "c", "cat", &format!("{over}/file")]).ok(), "of data\n");
    // Read only, in both of the client's ways of saying it.
    for words in [vec!["-v".to_owned(), format!("{data}:{over}:ro")], vec!["--mount".to_owned(), format!("type=bind,src={data},dst={over},readonly")]] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let script = format!("cat {over}/file; touch {over}/x");
        let ran = docker.args(&[&["run", "--rm"][..], &words, &["host", "sh", "-c", &script]].concat());
        assert!(ran.code != Some(0) && ran.stdout == "of data\n" && ran.stderr.contains("Read-only"), "{ran:?}");
    }
    // A file over a file; a directory over a file is refused.
    let file = format!("{data}/file:/etc/hostname");
    assert_eq!(docker.args(&["run", "--rm", "-v", &file, "host", "cat", "/etc/hostname"]).ok(), "of data\n");
    assert!(docker.args(&["run", "--rm", "-v", &format!("{data}:/etc/hostname"), "host", "true"]).fails().contains("one is a directory and the other is not"));
    // In a root directory of its own.
    let root = at.join("root");
    docker.sh(&format!("mkdir -p {root}/proc {root}/sys {root}/dev {root}/in; for p in /bin/sh /bin/cat; do cp -L --parents $p $(ldd $p | grep -o '/[^ )]*') {root}; done", root = root.display())).ok();
    assert_eq!(docker.args(&["run", "--rm", "-v", &format!("{data}:/in"), &format!("rootfs{}", root.display()), "cat", "/in/file"]).ok(), "of data\n");
    for (words, part) in [(["-v", "name:/tmp"], "no volumes"), (["-v", "/tmp:/tmp:z"], "\"z\""), (["--mount", "type=tmpfs,dst=/tmp"], "tmpfs"), (["--mount", "type=volume,src=x,dst=/tmp"], "volume")] {
        let said = docker.args(&[&["run", "--rm"][..], &words, &["host", "true"]].concat()).fails();
        assert!(said.contains(part), "{words:?}: {said}");
    }
    // What was there at create and is not at start.
    docker.args(&["create", "--name", "late", "-v", &format!("{data}:{over}"), "host", "true"]).ok();
    std::fs::remove_dir(at.join("over")).expect("an empty directory");
    assert!(docker.run("start late").fails().contains("does not exist"));
    assert_eq!(docker.format("late", "{{.State.Status}}"), "created");
    docker.run("rm -f c late").ok();
}

/// Children that left the session of their container, of `docker exec` and of `weft run` end with it (N13).
fn survivors() {
    let docker = Docker::start();
    let left = |seconds: u32| run(Command::new("pgrep").args(["-f", &format!("^sleep {seconds}$")])).stdout;
    let gone = |seconds: u32| eventually("nothing is left", || left(seconds).is_empty());
    let base = 7_000_000 + std::process::id() % 100_000 * 10;
    // One in the background, one with a session of its own, one that was orphaned twice.
    let script = |seconds: u32| format!("sleep {seconds} & setsid sleep {seconds} & (setsid sh -c 'sleep {seconds} & sleep {seconds}' &) ; echo up; exec sleep 1000");
    let start = |name: &str, words: &[&str], seconds: u32| {
        docker.args(&[&["run", "-d", "--name", name][..], words, &["host", "sh", "-c", &script(seconds)]].concat()).ok();
        eventually("they run", || left(seconds).lines().count() == 4);
    };
    start("bystander", &[], base + 9);
    for (at, how) in ["rm -f", "kill", "stop -t 1", "restart -t 0"].into_iter().enumerate() {
        let seconds = base + u32::try_from(at).expect("few");
        start("c", &[], seconds);
        docker.args(&["exec", "-d", "c", "setsid", "sleep", &seconds.to_string()]).ok();
        let top = docker.run("top c").ok();
        assert!(top.matches(&format!("sleep {seconds}")).count() >= 4, "{top}");
        docker.run(&format!("{how} c")).ok();
        if how == "restart -t 0" {
            eventually("only the new ones", || left(seconds).lines().count() == 4);
            docker.run("rm -f c").ok();
        }
        gone(seconds);
        drop(docker.run("rm -f c"));
    }
    // On the host's network, in another's, and one that ends by itself.
    for (at, mode) in ["host", "container:bystander", "none"].into_iter().enumerate() {
        let seconds = base + 5 + u32::try_from(at).expect("few");
        start("c", &["--network", mode], seconds);
        docker.run("rm -f c").ok();
        gone(seconds);
    }
    docker.args(&["run", "--rm", "host", "sh", "-c", &format!("setsid sleep {} & sleep 0.2", base + 8)]).ok();
    gone(base + 8);
    docker.0.weft_args(&["run", "-d", "--name", "native", "--", "sh", "-c", &script(base + 4)]).ok();
    eventually("they run", || left(base + 4).lines().count() == 4);
    docker.0.weft("rm -f native").ok();
    gone(base + 4);
    assert_eq!(left(base + 9).lines().count(), 4, "nobody else is touched");
    docker.run("rm -f bystander").ok();
    gone(base + 9);
    // One whose end nobody was there to see; who joined it goes on.
    start("c", &[], base);
    start("joined", &["--network", "container:c"], base + 1);
    let (pid, mut docker) = (docker.format("c", "{{.State.Pid}}"), docker);
    docker.0.kill_daemon();
    docker.0.host.run(&format!("kill -9 {pid}")).ok();
    docker.0.start_daemon();
    gone(base);
    assert_eq!(left(base + 1).lines().count(), 4);
    docker.run("rm -f c joined").ok();
    gone(base + 1);
}

/// `--log-opt max-size`: the latest is kept; who is attached misses nothing, however slow.
fn logs() {
    let docker = Docker::start();
    let kept = || kept_in(&docker);
    docker.args(&["run", "--name", "c", "--log-opt", "max-size=128k", "host", "seq", "1", "200000"]).ok();
    assert!(kept() <= 128 << 10, "{}", kept());
    let logged = docker.run("logs c").ok();
    let numbers: Vec<u32> = logged.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(numbers.len() > 1000 && numbers.last() == Some(&200_000) && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{} lines", numbers.len());
    assert_eq!(docker.run("logs --tail 2 c").ok(), "199999\n200000\n");
    assert_eq!(docker.format("c", "{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}}"), "json-file 128k");
    docker.run("rm c").ok();
    // All of it also to one who is behind when the container ends, and with that is removed.
    let behind = "(for i in $(seq 400); do dd bs=4096 count=1 status=none; sleep 0.003; done; cat)";
    for reader in ["cat", "(sleep 2; cat)", behind] {
        let ran = docker.sh(&format!("docker run --rm --log-opt max-size=128k host seq 1 200000 | {reader} | tee {}/seen | wc -l; tail -1 {0}/seen; seq 1 200000 | cmp - {0}/seen", docker.0.dir().display()));
        assert_eq!(ran.code, Some(0), "{reader}: {ran:?}");
        assert_eq!(ran.stdout.split_whitespace().collect::<Vec<_>>(), ["200000", "200000"], "{reader}");
    }
    // One who is attached and does not read stops neither the end of it nor its removal.
    let stuck = docker.command(&["run", "--name", "stuck", "--log-opt", "max-size=64k", "host", "sh", "-c", "seq 1 1000000; sleep 1000"]).stdout(std::process::Stdio::piped()).spawn().expect("a client");
    let mut stuck = weft_tests::ns::Background(stuck);
    eventually("it runs", || docker.args(&["inspect", "--format", "{{.State.Running}}", "stuck"]).stdout.trim() == "true");
    docker.run("rm -f stuck").ok();
    assert_eq!(kept(), 0);
    drop(stuck.0.stdout.take());
    // Another bound, over a restart of the daemon.
    docker.args(&["run", "-d", "--name", "on", "--log-opt", "max-size=1m", "host", "sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; done"]).ok();
    let mut docker = docker;
    eventually("it turns", || kept_in(&docker) > 500 << 10);
    docker.0.kill_daemon();
    docker.0.start_daemon();
    eventually("and goes on turning", || {
        let before = docker.run("logs --tail 1 on").ok();
        std::thread::sleep(std::time::Duration::from_millis(300));
        before != docker.run("logs --tail 1 on").ok()
    });
    assert!(kept_in(&docker) <= 1 << 20, "{}", kept_in(&docker));
    docker.run("rm -f on").ok();
    // A detached command of `weft run` has the usual bound, either client's logs, and a log over a restart.
    docker.0.weft_args(&["run", "-d", "--name", "native", "--", "sh", "-c", "yes \"$(printf %1000s x)\" | head -c 80000000; echo; echo oops >&2; while true; do date +%N; sleep 0.1; done"]).ok();
    let tail = |docker: &Docker| docker.run("logs --tail 1 native").ok();
    eventually("all is written", || docker.run("logs --tail 100 native").stderr.contains("oops"));
    assert!(kept_in(&docker) <= 64 << 20 && kept_in(&docker) > 30 << 20, "{}", kept_in(&docker));
    docker.0.kill_daemon();
    docker.0.start_daemon();
    let before = tail(&docker);
    eventually("it goes on", || tail(&docker) != before);
    assert!(docker.0.weft("logs native").ok().lines().count() > 20_000);
    docker.0.weft("rm -f native").ok();
    assert_eq!(kept_in(&docker), 0);
}

/// Bytes of all logs; FIFOs have none.
fn kept_in(docker: &Docker) -> u64 {
    let files = std::fs::read_dir(docker.0.state_dir().join("logs")).expect("logs").flatten();
    files.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file).map(|meta| meta.len()).sum()
}
