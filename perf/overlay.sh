#!/usr/bin/env bash
# A network over two nodes (VXLAN, inner MTU 1450), plain and encrypted, beside the kernel's (bridge and VXLAN device on
# each node) and that of OVS in userspace, in one run.
# Root; needs iperf3, openvswitch-switch and target/release/{weft,l2} (or those of TARGET).
# Usage: [TARGET=DIR] perf/overlay.sh [ROUNDS]
set -u
cd "$(dirname "$0")/.."
target=${TARGET:-$PWD/target/release}
weft=$target/weft l2=$target/l2
state=$(mktemp -d) out=$(mktemp)
nodes=(vxp$$a vxp$$b) stations=(vxs$$a vxs$$b)
cleanup() {
    for ns in "${nodes[@]}" "${stations[@]}"; do ip netns pids "$ns" 2>/dev/null | xargs -r kill -9; ip netns del "$ns" 2>/dev/null; done
    umount "$state"/*/switch.netns "$state"/*/netns/* 2>/dev/null
    rm -rf "${state:?}"/*
}
trap 'cleanup; rm -rf "$state" "$state.key" "$out"' EXIT

underlay() {
    for ns in "${nodes[@]}" "${stations[@]}"; do ip netns add "$ns"; ip -n "$ns" link set lo up; done
    ip link add eth0 netns "${nodes[0]}" type veth peer name eth0 netns "${nodes[1]}"
    for i in 0 1; do
        ip -n "${nodes[i]}" addr add 192.168.88.21$((i + 1))/24 dev eth0
        ip -n "${nodes[i]}" link set eth0 up
    done
}
with_weft() { # [OPTION...]
    for i in 0 1; do
        w="nsenter --net=/run/netns/${nodes[i]} $weft --state-dir $state/$i"
        $w daemon >/dev/null 2>&1 &
        sleep 0.7
        $w network create -d overlay net --vni 4096 --subnet 10.0.0.0/24 --peer 192.168.88.21$((2 - i)) "$@" >/dev/null
        $w attach net "/run/netns/${stations[i]}" --ifname eth0 --ip 10.0.0.1$((i + 1)) >/dev/null
    done
}
with_kernel() {
    for i in 0 1; do
        n=${nodes[i]} s=${stations[i]}
        ip -n "$n" link add vxlan0 type vxlan id 4096 dstport 4789 local 192.168.88.21$((i + 1)) remote 192.168.88.21$((2 - i))
        ip -n "$n" link add br0 type bridge
        ip link add v0 netns "$n" type veth peer name eth0 netns "$s"
        for dev in vxlan0 v0; do ip -n "$n" link set $dev master br0 up; done
        ip -n "$n" link set br0 up
        ip -n "$s" link set eth0 mtu 1450
        ip -n "$s" addr add 10.0.0.1$((i + 1))/24 dev eth0
        ip -n "$s" link set eth0 up
    done
}
# un0 of each node is a port of br-phy, whose TAP has the underlay's address. OVS leaves inner checksums to devices
# that cannot finish them.
with_ovs() {
    for i in 0 1; do
        n=${nodes[i]} s=${stations[i]} dir=$state/$i
        mkdir -p "$dir"
        export OVS_RUNDIR=$dir OVS_LOGDIR=$dir OVS_DBDIR=$dir OVS_SYSCONFDIR=$dir
        ip -n "$n" addr flush dev eth0
        ip netns exec "$n" ethtool -K eth0 tx off
        ovsdb-tool create "$dir/conf.db" /usr/share/openvswitch/vswitch.ovsschema
        ip netns exec "$n" ovsdb-server "$dir/conf.db" --remote=punix:"$dir/db.sock" --unixctl="$dir/db.ctl" --no-chdir --pidfile --detach --log-file
        vsctl="ovs-vsctl --timeout=8 --db=unix:$dir/db.sock"
        $vsctl --no-wait init
        ip netns exec "$n" ovs-vswitchd "unix:$dir/db.sock" --unixctl="$dir/vsw.ctl" --no-chdir --pidfile --detach --log-file
        $vsctl add-br br-phy -- set bridge br-phy datapath_type=netdev -- add-port br-phy eth0
        ip -n "$n" addr add 192.168.88.21$((i + 1))/24 dev br-phy
        ip -n "$n" link set br-phy up
        $vsctl add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 tp -- set interface tp type=internal -- \
            add-port br0 vx -- set interface vx type=vxlan options:remote_ip=192.168.88.21$((2 - i)) options:key=4096
        sleep 0.5
        ip -n "$n" link set tp netns "$s" name eth0
        ip -n "$s" link set eth0 mtu 1450 up
        ip netns exec "$s" ethtool -K eth0 tx off
        ip -n "$s" addr add 10.0.0.1$((i + 1))/24 dev eth0
    done >/dev/null
    timeout 5 ip netns exec "${nodes[0]}" ping -c 2 -i 0.3 192.168.88.212 >/dev/null
}
gbits() { python3 -c 'import json,sys; print(round(json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"]/1e9,2))'; }
rows() { # who
    one="ip netns exec ${stations[0]}" two="ip netns exec ${stations[1]}"
    timeout 5 $one ping -c 2 -i 0.3 10.0.0.12 >/dev/null
    for streams in 1 4; do
        timeout 20 $two iperf3 -s -1 >/dev/null 2>&1 & sleep 0.5
        echo "$1 tcp$streams $(timeout 15 $one iperf3 -c 10.0.0.12 -t 3 -P $streams -J | gbits)"
        wait $!
    done
    timeout 9 $two "$l2" gen sink 7001 >"$state/sink" & sleep 0.2
    timeout 9 $one "$l2" gen source 10.0.0.12:7001 1.5 0 >/dev/null; wait $!
    echo "$1 udp64-kpps $(awk '{print $1/$2/1000}' "$state/sink")"
    timeout 9 $two "$l2" gen pong 7002 3 & sleep 0.2
    echo "$1 latency-p50-us $(timeout 9 $one "$l2" gen ping 10.0.0.12:7002 2 | cut -d' ' -f1)"
    wait $!
}

(umask 077; od -An -tx1 -N32 /dev/urandom | tr -d ' \n' >"$state.key")
for round in $(seq "${1:-3}"); do
    underlay; with_weft; rows weft; cleanup
    underlay; with_weft -o encrypted -o weft.key-file="$state.key"; rows encrypted; cleanup
    underlay; with_kernel; rows kernel; cleanup
    underlay; with_ovs; rows ovs; cleanup
done 2>/dev/null | tee "$out"
echo 'Musts: to the kernel (tcp1, tcp4, udp64, latency) and to OVS (tcp1, tcp4).'
python3 perf/table.py weft encrypted kernel ovs weft/kernel weft/ovs encrypted/weft \
    'tcp1=0.6 and 5' 'tcp4=0.4 and 8' udp64-kpps=0.9 'latency-p50-us=at most 1.2' <"$out"
