# What a host inside sees of a NAT, a line "key value" each. Arguments: first port to use, the end published for port 80 of
# `server`, and the role: `first` (the host that serves), `second` (its neighbour).
import select, socket, struct, sys, threading, time

base, published, role = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ME = '192.0.2.1'


def udp(port, timeout=3):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(('', port))
    s.settimeout(timeout)
    return s


def ask(s, word, ip=ME, size=0):
    s.sendto(word.encode() + b'\0' * size, (ip, 7000))
    try:
        return s.recvfrom(70000)
    except OSError:
        return None


def said(s, word):
    answer = ask(s, word)
    return answer[0].decode() if answer else 'silence'


def show(key, value):
    print(key, value, flush=True)


def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ping(identity):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    message = struct.pack('!BBHHH', 8, 0, 0, identity, 1)
    s.sendto(message[:2] + struct.pack('!H', checksum(message)) + message[4:], (ME, 0))
    end = time.monotonic() + 3
    while select.select([s], [], [], max(0, end - time.monotonic()))[0]:
        data = s.recv(2000)
        if data[20] == 0 and data[24:26] == struct.pack('!H', identity):
            return True
    return False


def errors_seen(s):
    """ICMP errors that came before now, as the quote's source port."""
    seen = []
    while select.select([s], [], [], 0)[0]:
        data = s.recv(2000)
        if data[20] == 3:
            seen.append(int.from_bytes(data[48:50], 'big'))
    return seen


def seen_by_server():
    ip, port = published.split(':')
    s = socket.create_connection((ip, int(port)), 5)
    s.sendall(b'x')
    try:
        return s.recv(100).decode()
    except OSError as e:
        return type(e).__name__


def listen():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('', 80))
    s.listen(8)
    return s


def serve(s):
    while True:
        c, a = s.accept()
        c.recv(10)
        c.sendall(a[0].encode())
        c.close()


# Two hosts that use the same port and the same identifier.
shared = udp(base)
if role == 'second':
    show('collision-keeps-port', said(shared, 'who') == str(base))
    show('collision-echo', said(shared, 'echo') == 'echo')
    show('echo-same-identifier', ping(base))
    show('hairpin-neighbour', seen_by_server())
    sys.exit()

# Mapping and filtering of UDP (RFC 4787 sections 4 and 5).
one, two = ask(shared, 'who'), ask(shared, 'who', '192.0.2.2')
show('preserves', one[0].decode() == str(base))
show('independent-mapping', two is not None and two[0] == one[0])
for key, word in [('same-end', 'who'), ('other-port', 'port'), ('other-address', 'addr')]:
    show(key, ask(udp(base + 1, 1), word) is not None)

# ICMP: queries, errors in, rubbish, errors out.
show('echo-out', ping(base))
show('echo-same-identifier', ping(base))
show('echo-in', said(shared, 'ping'))
s = udp(base + 2)
before = said(s, 'who')
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.connect((ME, 7000))
s.send(b'error')
try:
    s.recv(100)
    show('error-in', 'nothing')
except ConnectionRefusedError:
    show('error-in', 'refused')
# Both may be under way at once: what is late must not be taken for the next answer.
s.close()
s = udp(base + 2)
s.sendto(b'echo 77', (ME, 7000))
for late in range(10):
    try:
        if s.recv(100) == b'echo 77':
            break
    except OSError:
        s.sendto(b'echo 77', (ME, 7000))
show('error-quotes-inside', errors_seen(raw) == [base + 2])
show('mapping-after-error', said(s, 'who') == before)
for at, key in enumerate(['error-of-no-flow', 'error-cut-short', 'error-quoted-sum-wrong', 'error-sum-wrong']):
    # The answer comes after the error, on the same way.
    said(s, 'rubbish %d' % at)
    show(key, 'passed' if errors_seen(raw) else 'dropped')
gone = udp(base + 3)
external = said(gone, 'who')
gone.close()
show('error-out', said(s, 'closed ' + external))

# Fragments.
for size in [1000, 20000, 60000]:
    answer = ask(shared, 'echo', size=size)
    show('fragments-%d' % size, answer is not None and len(answer[0]) == size + 4)
answer = ask(shared, 'reverse')
show('fragments-last-first-in', answer is not None and len(answer[0]))
route = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
route.connect((ME, 7000))
own = socket.inet_aton(route.getsockname()[0])
packets = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
body = struct.pack('!HHHH', base, 7000, 8 + 3000, 0) + b'who' + b'\0' * 2997
for at in [3000, 2000, 1000, 0]:
    piece = body[at:at + 1000]
    if piece:
        packets.sendto(struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(piece), 78, (0x2000 if at + 1000 < len(body) else 0) | at // 8, 64, 17, 0) + own + socket.inet_aton(ME) + piece, (ME, 0))
try:
    show('fragments-last-first-out', shared.recv(100) == one[0])
except OSError:
    show('fragments-last-first-out', 'silence')

# TCP: opened from both sides at once, and by a stranger.
s = socket.socket()
s.bind(('', base + 4))
s.setblocking(False)
s.connect_ex((ME, 7100))
control = udp(base + 5, 25)
control.sendto(b'open', (ME, 7000))
s.setblocking(True)
s.settimeout(25)
try:
    select.select([], [s], [], 25)
    greeting = s.recv(10).decode()
    s.sendall(b'open')
    show('simultaneous-open', greeting + ' ' + control.recv(100).decode())
except OSError as e:
    show('simultaneous-open', type(e).__name__ + ' ' + control.recv(100).decode())
s.close()
patient = udp(base + 6, 40)
show('unsolicited-syn', said(patient, 'knock %d' % (base + 7)))

# Hairpin: to its own published port.
threading.Thread(target=serve, args=[listen()], daemon=True).start()
show('hairpin-itself', seen_by_server())
print('done', flush=True)
# The mapping is looked at, and a stranger's datagram asked for, line by line.
for line in sys.stdin:
    if line.startswith('refresh-out'):
        said(shared, 'who')
    elif line.startswith('refresh-in'):
        said(udp(base + 8), 'send %d' % base)
        shared.recv(100)
    print('ok', flush=True)
