# The outside of a NAT: does what a datagram to 192.0.2.1:7000 asks, and answers what came of it.
import select, socket, struct, time

ME, OTHER = '192.0.2.1', '192.0.2.2'


def udp(ip, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((ip, port))
    return s


main, other, port = udp(ME, 7000), udp(OTHER, 7000), udp(ME, 7001)
icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
tcp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def checksum(data):
    data += b'\0' * (len(data) % 2)
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ip(source, destination, protocol, body, fragment=0, identity=1):
    header = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(body), identity, fragment, 64, protocol, 0, socket.inet_aton(source), socket.inet_aton(destination))
    return header[:10] + struct.pack('!H', checksum(header)) + header[12:] + body


def error(to, quote, right=True):
    message = struct.pack('!BBHI', 3, 3, 0, 0) + quote
    sum_ = checksum(message) if right else 0x1234
    icmp.sendto(message[:2] + struct.pack('!H', sum_) + message[4:], (to, 0))


def quote_of(a, to=7000):
    return ip(a[0], ME, 17, struct.pack('!HHHH', a[1], to, 12, 0) + b'who?')


def wait_for(sockets, matches, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for s in select.select(sockets, [], [], end - time.monotonic())[0]:
            found = matches(s, s.recv(4000))
            if found:
                return found
    return 'silence'


def told_of(a, port_):
    """An ICMP error from the NAT that quotes what was sent to its end."""
    def matches(s, data):
        quote = data[28:]
        if data[20] == 3 and data[12:16] == socket.inet_aton(a[0]) and quote[16:20] == socket.inet_aton(a[0]) and quote[22:24] == struct.pack('!H', port_):
            return 'icmp %d/%d' % (data[20], data[21])
    return matches


def knock(a, port_):
    """A SYN that nobody asked for: a reset, an ICMP error, or neither."""
    source = 7200
    pseudo = socket.inet_aton(ME) + socket.inet_aton(a[0]) + struct.pack('!BBH', 0, 6, 20)
    syn = struct.pack('!HHIIBBHHH', source, port_, 1000, 0, 0x50, 2, 8192, 0, 0)
    syn = syn[:16] + struct.pack('!H', checksum(pseudo + syn)) + syn[18:]
    began = time.monotonic()
    raw.sendto(ip(ME, a[0], 6, syn), (a[0], 0))
    def matches(s, data):
        if s is icmp:
            return told_of(a, port_)(s, data)
        if data[12:16] == socket.inet_aton(a[0]) and data[20:24] == struct.pack('!HH', port_, source):
            return 'reset' if data[33] & 4 else None
    said = wait_for([icmp, tcp], matches, 30)
    return '%s %s' % (said, 'held' if time.monotonic() - began >= 5.9 else 'at once')


def fragments_last_first(a):
    body = struct.pack('!HHHH', 7000, a[1], 8 + 3000, 0) + b'f' * 3000
    pieces = [(at, body[at:at + 1000]) for at in range(0, len(body), 1000)]
    for at, piece in reversed(pieces):
        more = 0x2000 if at + 1000 < len(body) else 0
        raw.sendto(ip(ME, a[0], 17, piece, more | at // 8, 77), (a[0], 0))


def open_with(a):
    """The other half of a simultaneous open. What comes to port 7100 as a bare SYN is dropped here, and sent again."""
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    def matches(_, data):
        if data[9] == 6 and data[12:16] == socket.inet_aton(a[0]) and data[22:24] == struct.pack('!H', 7100):
            return int.from_bytes(data[20:22], 'big')
    port_ = wait_for([wire], matches, 20)
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((ME, 7100))
    s.settimeout(20)
    try:
        s.connect((a[0], port_))
        s.sendall(b'both')
        return s.recv(10).decode()
    except OSError as e:
        return type(e).__name__
    finally:
        s.close()


def ping(a):
    message = struct.pack('!BBHHH', 8, 0, 0, 4321, 1)
    icmp.sendto(message[:2] + struct.pack('!H', checksum(message)) + message[4:], (a[0], 0))
    return wait_for([icmp], lambda s, d: d[12:16] == socket.inet_aton(a[0]) and d[20] == 0 and d[24:26] == struct.pack('!H', 4321) and 'answer', 5)


def drain(s):
    while select.select([s], [], [], 0)[0]:
        s.recv(4000)


while True:
    for s in select.select([main, other], [], [])[0]:
        data, a = s.recvfrom(70000)
        word, *rest = data.split(b'\0')[0].split(b' ', 1)
        argument = int(rest[0]) if rest else 0
        answer = str(a[1])
        by = s
        drain(icmp)
        drain(tcp)
        if word == b'port':
            by = port
        elif word == b'addr':
            by = other
        elif word == b'echo':
            answer = data.decode()
        elif word == b'error':
            error(a[0], quote_of(a))
        elif word == b'rubbish':
            # Of no flow; cut short; its own header's sum wrong; the message's sum wrong.
            flaw = [lambda: error(a[0], quote_of((a[0], 9), 9)), lambda: error(a[0], quote_of(a)[:22]),
                    lambda: error(a[0], quote_of(a)[:10] + b'\x12\x34' + quote_of(a)[12:]), lambda: error(a[0], quote_of(a), False)]
            flaw[argument]()
        elif word == b'send':
            main.sendto(b'again', (a[0], argument))
        elif word == b'closed':
            main.sendto(b'anybody?', (a[0], argument))
            answer = wait_for([icmp], told_of(a, argument), 5)
        elif word == b'knock':
            answer = knock(a, argument)
        elif word == b'reverse':
            fragments_last_first(a)
            continue
        elif word == b'open':
            answer = open_with(a)
        elif word == b'ping':
            answer = ping(a)
        by.sendto(answer.encode(), a)
