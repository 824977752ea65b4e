#!/usr/bin/env bash
# Many networks and endpoints in one daemon: what each costs when there are few and when there are many, memory,
# lists, a restart after kill -9, and the way back. Endpoints are sandboxes without a process (a namespace and a TAP
# each), spread over the networks. Root; needs python3 and target/release/weft (or that of TARGET).
# Usage: [TARGET=DIR] perf/scale.sh [NETWORKS [ENDPOINTS]]
set -u
cd "$(dirname "$0")/.."
weft=${TARGET:-$PWD/target/release}/weft
host=ps$$ state=$(mktemp -d)
daemon() { nsenter --net=/run/netns/$host "$weft" --state-dir "$state" daemon --log warn >>"$state/log" 2>&1 & pid=$!; }
cleanup() {
    { kill -9 $pid $(cat "$state/pid"); wait $pid; sleep 0.5; } 2>/dev/null
    umount "$state"/netns/* "$state"/switch.netns 2>/dev/null
    ip netns del $host
    rm -rf "$state"
}
trap cleanup EXIT
ip netns add $host && ip -n $host link set lo up
daemon

cat >"$state/scale.py" <<'P'
import http.client, json, os, socket, subprocess, sys, time

weft, state, host, networks, endpoints = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
path, prefix = f"{state}/api.sock", ["nsenter", f"--net=/run/netns/{host}", weft, "--state-dir", state]
FEW = 100

class Api(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)

def ready():
    began = time.monotonic()
    while True:
        try:
            api = Api("weft", timeout=600)
            api.connect()
            return api
        except OSError as error:
            if time.monotonic() - began > 60:
                sys.exit(f"the daemon does not answer: {error}")
            time.sleep(0.005)

def ask(method, at, body=None):
    api.request(method, at, json.dumps(body) if body else None, {"content-type": "application/json"})
    answer = api.getresponse()
    text = answer.read()
    if answer.status >= 300:
        sys.exit(f"{method} {at}: {answer.status} {text.decode()}")
    return json.loads(text)

def rss():
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return int(status["VmRSS"].split()[0])

def stat():
    return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()

def cpu_ms():
    """What the daemon itself has computed, without the kernel for it."""
    return int(stat()[11]) * 1000 / os.sysconf("SC_CLK_TCK")

def rates(what, steps):
    """A second, and processor time of the daemon for each, of the first, middle and last hundred; and of all."""
    times, cpu = [time.monotonic()], [cpu_ms()]
    for step in steps:
        step()
        times.append(time.monotonic())
        cpu.append(cpu_ms())
    count = len(times) - 1
    few = min(FEW, count)
    spans = [(0, few), ((count - few) // 2, (count + few) // 2), (count - few, count), (0, count)]
    row(f"{what}, a second: first, middle, last {few}; all", *(f"{(to - at) / (times[to] - times[at]):.0f}" for at, to in spans))
    row(f"{what}, ms of the daemon's own each", *(f"{(cpu[to] - cpu[at]) / (to - at):.2f}" for at, to in spans))

def row(what, *values):
    print(f"| {what} | {' / '.join(values)} |", flush=True)

def seconds(what, work):
    began = time.monotonic()
    work()
    row(what, f"{time.monotonic() - began:.3f}")

def listed(at):
    lines = subprocess.run([*prefix, *at.split()], stdout=subprocess.PIPE, check=True).stdout.splitlines()
    assert len(lines) > endpoints * (at == "ps -a"), lines

api = ready()
pid = ask("GET", "/v1/info")["pid"]
print("| what | |\n|---|---|")
empty = rss()
subnet = lambda n: f"10.{n >> 8}.{n & 255}.0/24" if endpoints <= 250 * networks else f"10.{n}.0.0/16"
rates("networks made", [lambda n=n: ask("POST", "/v1/networks", {"name": f"n{n}", "subnets": [subnet(n)]}) for n in range(networks)])
row("memory of a network, KiB", f"{(rss() - empty) / networks:.1f}")
before = rss()
rates("endpoints made", [lambda n=n: ask("POST", "/v1/sandboxes", {"name": f"s{n}", "endpoints": [{"network": f"n{n % networks}"}]}) for n in range(endpoints)])
row("memory of an endpoint, KiB", f"{(rss() - before) / endpoints:.1f}")
row("memory of the daemon, MiB: empty, full", f"{empty / 1024:.1f}", f"{rss() / 1024:.1f}")
row("state file, KiB", f"{os.path.getsize(state + '/state.json') / 1024:.0f}")
for at in ("network ls", "ps -a", "port ls"):
    seconds(f"`weft {at}`, s", lambda: listed(at))
seconds("one endpoint more, s", lambda: ask("POST", "/v1/sandboxes", {"name": "more", "endpoints": [{"network": "n0"}]}))
os.kill(pid, 9)
# Gone when nobody listens: the last of its threads closes what it had open.
try:
    while True:
        Api("weft").connect()
        time.sleep(0.01)
except OSError:
    pass
log = open(f"{state}/log", "a")
subprocess.Popen([*prefix, "daemon", "--log", "warn"], stderr=log, stdout=log)
def restart():
    global api, pid
    api = ready()
    pid = ask("GET", "/v1/info")["pid"]
    open(f"{state}/pid", "w").write(str(pid))
seconds("restart after kill -9 until it answers, s", restart)
row("memory after the restart, MiB", f"{rss() / 1024:.1f}")
assert len(ask("GET", "/v1/sandboxes")) == endpoints + 1 and len(ask("GET", "/v1/networks")) == networks + 1
rates("endpoints removed", [lambda n=n: ask("DELETE", f"/v1/sandboxes/s{n}") for n in range(endpoints)])
ask("DELETE", "/v1/sandboxes/more")
rates("networks removed", [lambda n=n: ask("DELETE", f"/v1/networks/n{n}") for n in range(networks)])
row("memory in the end, MiB", f"{rss() / 1024:.1f}")
P
python3 "$state/scale.py" "$weft" "$state" $host "${1:-1000}" "${2:-5000}"
code=$?
[ -s "$state/log" ] && { echo "the daemon said:"; tail -5 "$state/log"; }
exit $code
