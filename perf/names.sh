#!/usr/bin/env bash
# Names: dnsperf in a sandbox against its network's resolver, against dnsmasq in another sandbox of that network, and
# against dnsmasq on a host with a kernel bridge; and what the flood does to the latency between two other sandboxes.
# The same names and questions (one of ten for a name that nobody has) for each, in one run of interleaved rounds. Each
# process has a session of its own, as services and containers have: the kernel shares processors out by session
# (sched(7), autogroup).
# Root; needs dnsperf, dnsmasq-base, python3 and target/release/weft (or that of TARGET).
# Usage: [TARGET=DIR] perf/names.sh [ROUNDS]
set -u
cd "$(dirname "$0")/.."
weft=${TARGET:-$PWD/target/release}/weft
state=$(mktemp -d) out=$(mktemp)
host=pn$$h kernel=pn$$k sandboxes=(pn$$c pn$$d pn$$e) pids=()
cleanup() {
    $w rm -f $($w ps -aq) >/dev/null 2>&1
    kill "${pids[@]}" 2>/dev/null; sleep 0.3
    for ns in $host $kernel "${sandboxes[@]}"; do ip netns pids "$ns" 2>/dev/null | xargs -r kill -9; ip netns del "$ns" 2>/dev/null; done
    umount "$state"/netns/* "$state"/switch.netns 2>/dev/null
    rm -rf "$state" "$out"
}
trap cleanup EXIT
w="nsenter --net=/run/netns/$host $weft --state-dir $state"

for ns in $host $kernel "${sandboxes[@]}"; do ip netns add "$ns"; ip -n "$ns" link set lo up; done
# weft: c asks, d has a dnsmasq, e is who d pings; 40 names.
setsid nsenter --net=/run/netns/$host "$weft" --state-dir "$state" daemon --log warn >"$state/log" 2>&1 & pids+=($!)
for _ in $(seq 100); do [ -S "$state/api.sock" ] && $w network ls >/dev/null 2>&1 && break; sleep 0.1; done
$w network create lab --subnet 172.30.0.0/16 >/dev/null
for name in c d e; do $w run -d --name $name --net lab -- sleep 10000 >/dev/null; done
for i in $(seq 40); do $w run -d --name s$i --net lab -- sleep 10000 >/dev/null; done
d=$($w exec d hostname -I | awk '{print $1}') e=$($w exec e hostname -I | awk '{print $1}')
# The kernel: the same three, on a bridge of another host.
ip -n $kernel link add br0 type bridge; ip -n $kernel addr add 172.30.0.1/16 dev br0; ip -n $kernel link set br0 up
for i in 0 1 2; do
    ip link add v$i netns $kernel type veth peer name eth0 netns "${sandboxes[i]}"
    ip -n $kernel link set v$i master br0 up
    ip -n "${sandboxes[i]}" addr add 172.30.0.$((i + 2))/16 dev eth0; ip -n "${sandboxes[i]}" link set eth0 up
done
for i in $(seq 40); do echo "172.30.0.$((i + 4)) s$i"; done >"$state/hosts"
for i in $(seq 40); do echo "s$i A"; [ $((i % 10)) = 0 ] && for n in 1 2 3 4; do echo "nobody$i$n A"; done; done >"$state/questions"
dnsmasq="dnsmasq -k -p 53 --no-resolv --no-hosts --addn-hosts=$state/hosts --domain-needed --cache-size=1000 --local-ttl=5 --user=root --pid-file --bind-interfaces"
setsid $w exec d $dnsmasq --listen-address="$d" >/dev/null 2>&1 & pids+=($!)
setsid ip netns exec $kernel $dnsmasq --listen-address=172.30.0.1 >/dev/null 2>&1 & pids+=($!)
sleep 1

flood() { # seconds, server, command prefix: questions a second, mean latency in us, lost in percent
    timeout 60 setsid -w $3 dnsperf -s "$2" -d "$state/questions" -l "$1" -q 100 -c 4 2>/dev/null |
        awk '/Queries per second/ {qps=$4} /Average Latency/ {us=$4*1e6} /Queries lost/ {lost=$4; gsub(/[(%)]/, "", lost)} END {printf "%.0f %.0f %s\n", qps, us, lost}'
}
pings() { # address, command prefix: p50 and p99 in us
    timeout 60 $2 ping -q -i 0.002 -c 20 "$1" >/dev/null
    timeout 60 setsid -w $2 ping -i 0.002 -c 1000 "$1" | sed -n 's/.*time=\([0-9.]*\) ms/\1/p' | sort -n | awk '{at[NR]=$1*1000} END {printf "%.0f %.0f\n", at[int(NR/2)], at[int(NR*.99)]}'
}
rows() { # who, server, asker's prefix, address to ping, pinger's prefix
    set -- "$@" $(flood 3 "$2" "$3")
    echo "$1 questions-a-second $6"; echo "$1 mean-latency-us $7"; echo "$1 lost-percent $8"
    set -- "${@:1:5}" $(pings "$4" "$5")
    echo "$1 ping-p50-us $6"; echo "$1 ping-p99-us $7"
    flood 8 "$2" "$3" >/dev/null & local flooding=$!
    sleep 1
    set -- "${@:1:5}" $(pings "$4" "$5")
    echo "$1 ping-p50-us-in-flood $6"; echo "$1 ping-p99-us-in-flood $7"
    wait $flooding
}
for round in $(seq "${1:-3}"); do
    rows weft 172.30.0.1 "$w exec c" "$e" "$w exec s1"
    rows dnsmasq-sandbox "$d" "$w exec c" "$e" "$w exec s1"
    rows dnsmasq-kernel 172.30.0.1 "ip netns exec ${sandboxes[0]}" 172.30.0.4 "ip netns exec ${sandboxes[1]}"
done | tee "$out"
[ -s "$state/log" ] && { echo "the daemon said:"; tail -5 "$state/log"; }
python3 - "$out" <<'P'
import collections, statistics, sys
rows = collections.defaultdict(lambda: collections.defaultdict(list))
for line in open(sys.argv[1]):
    who, what, value = line.split()
    rows[what][who].append(float(value))
print("\n| what | weft | dnsmasq in a sandbox | dnsmasq, kernel bridge | weft/sandbox | weft/kernel |\n|---|---|---|---|---|---|")
for what, peers in rows.items():
    ours, inside, kernel = (statistics.median(peers[who]) for who in ("weft", "dnsmasq-sandbox", "dnsmasq-kernel"))
    ratio = lambda other: f"{ours / other:.2f}" if other else "-"
    print(f"| {what} | {ours:.0f} | {inside:.0f} | {kernel:.0f} | {ratio(inside)} | {ratio(kernel)} |")
P
