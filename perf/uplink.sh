#!/usr/bin/env bash
# Both uplinks beside kernel NAT, slirp4netns and pasta (MTU 1500), in one run: a sandbox, a host, a machine on
# the host's LAN. `packets` is weft's NAT by packet, `switch` weft with the LAN's device and the sandbox in one
# network: what packet NAT is measured by. Root; needs iperf3, nftables, slirp4netns, passt, and
# target/release/{weft,l2}.
# Usage: perf/uplink.sh [ROUNDS]
set -u
cd "$(dirname "$0")/.."
weft=$PWD/target/release/weft l2=$PWD/target/release/l2
state=$(mktemp -d) out=$(mktemp)
h=pu$$h l=pu$$l c=pu$$c
cleanup() {
    for ns in $h $l $c; do ip netns pids $ns 2>/dev/null | xargs -r kill -9; ip netns del $ns 2>/dev/null; done
    umount "$state"/switch.netns "$state"/netns/* 2>/dev/null
    rm -rf "$state"
}
trap 'cleanup; rm -f "$out"' EXIT

lan() {
    for ns in $h $l $c; do ip netns add $ns; ip -n $ns link set lo up; done
    ip link add lan0 netns $h type veth peer name eth0 netns $l
    ip -n $h addr add 192.168.88.1/24 dev lan0; ip -n $h link set lan0 up
    ip -n $l addr add 192.168.88.2/24 dev eth0; ip -n $l link set eth0 up
}
gbits() { python3 -c 'import json,sys; print(round(json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"]/1e9,2))'; }
iperf() { # server command, client command
    timeout 20 $1 iperf3 -s -1 >/dev/null 2>&1 & sleep 0.5
    timeout 15 $2 -t 3 -J | gbits
    wait $!
}
out_rows() { # peer, command prefix
    echo "$1 out-tcp1 $(iperf "ip netns exec $l" "$2 iperf3 -c 192.168.88.2")"
    echo "$1 out-tcp4 $(iperf "ip netns exec $l" "$2 iperf3 -c 192.168.88.2 -P 4")"
    echo "$1 back-tcp1 $(iperf "ip netns exec $l" "$2 iperf3 -c 192.168.88.2 -R")"
    timeout 9 ip netns exec $l "$l2" gen accept 7003 3 & sleep 0.2
    echo "$1 out-connect $(timeout 9 $2 "$l2" gen connect 192.168.88.2:7003 2)"; wait $!
    timeout 9 ip netns exec $l "$l2" gen sink 7001 >"$state/sink" & sleep 0.2
    timeout 9 $2 "$l2" gen source 192.168.88.2:7001 1.5 0 >/dev/null; wait $!
    echo "$1 out-udp-kpps $(awk '{print $1/$2/1000}' "$state/sink")"
}
in_row() { echo "$1 in-tcp1 $(iperf "$2" "ip netns exec $l iperf3 -c 192.168.88.1")"; }

for round in $(seq "${1:-3}"); do
    lan
    nsenter --net=/run/netns/$h "$weft" --state-dir "$state" daemon >/dev/null 2>&1 & sleep 0.7
    w="nsenter --net=/run/netns/$h $weft --state-dir $state"
    $w network create lab --subnet 172.30.0.0/16 >/dev/null
    $w run -d --name c --net lab -p 5201:5201 -- sleep 1000 >/dev/null
    out_rows weft "$w exec c"; in_row weft "$w exec c"
    $w rm -f c >/dev/null; cleanup; mkdir -p "$state"
    lan; ip -n $h addr flush dev lan0
    nsenter --net=/run/netns/$h "$weft" --state-dir "$state" daemon --uplink dev:lan0,addr=192.168.88.1/24 >/dev/null 2>&1 & sleep 0.7
    $w network create lab --subnet 172.30.0.0/16 >/dev/null
    $w run -d --name c --net lab -p 5201:5201 -- sleep 1000 >/dev/null
    out_rows packets "$w exec c"; in_row packets "$w exec c"
    $w rm -f c >/dev/null; cleanup; mkdir -p "$state"
    lan; ip -n $h addr flush dev lan0
    nsenter --net=/run/netns/$h "$weft" --state-dir "$state" daemon >/dev/null 2>&1 & sleep 0.7
    $w network create lab --subnet 192.168.88.0/24 --gateway 192.168.88.254 >/dev/null
    $w attach lab --dev lan0 >/dev/null
    $w run -d --name c --net lab:ip=192.168.88.1 -- sleep 1000 >/dev/null
    out_rows switch "$w exec c"; in_row switch "$w exec c"
    $w rm -f c >/dev/null; cleanup; mkdir -p "$state"
    lan
    ip link add v0 netns $h type veth peer name eth0 netns $c
    ip -n $h addr add 172.30.0.1/16 dev v0; ip -n $h link set v0 up
    ip -n $c addr add 172.30.0.2/16 dev eth0; ip -n $c link set eth0 up; ip -n $c route add default via 172.30.0.1
    ip netns exec $h sysctl -qw net.ipv4.ip_forward=1
    ip netns exec $h nft 'add table ip n; add chain ip n post { type nat hook postrouting priority 100; }; add rule ip n post ip saddr 172.30.0.0/16 masquerade;
        add chain ip n pre { type nat hook prerouting priority -100; }; add rule ip n pre iifname lan0 tcp dport 5201 dnat to 172.30.0.2:5201'
    out_rows kernel "ip netns exec $c"; in_row kernel "ip netns exec $c"
    ip -n $c link del eth0
    nsenter --net=/run/netns/$h timeout 90 slirp4netns --configure --mtu=1500 --netns-type=path /run/netns/$c tap0 >/dev/null 2>&1 & sleep 1.2
    out_rows slirp4netns "ip netns exec $c"
    cleanup; mkdir -p "$state"; lan
    ip -n $h route add default via 192.168.88.2
    ip netns exec $h timeout 90 pasta -f --runas 0 --config-net --no-map-gw --mtu 1500 -t 5201 -u none -T none -U none --netns /run/netns/$c >/dev/null 2>&1 & sleep 1.2
    out_rows pasta "ip netns exec $c"; in_row pasta "ip netns exec $c"
    cleanup; mkdir -p "$state"
done 2>/dev/null | tee "$out"
python3 "$(dirname "$0")/table.py" weft packets switch kernel slirp4netns pasta weft/kernel weft/slirp4netns packets/switch packets/kernel <"$out"
