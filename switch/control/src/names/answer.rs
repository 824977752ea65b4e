//! A question's bytes to an answer's bytes: RFC 1035, 2308, 2782, 6891, 8020.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE, header_buffer, rdata::{A, AAAA, OPT, PTR, RData, SRV}};

use super::zone::Zone;

/// Names follow sandboxes that come and go, so answers are all but uncachable, seconds.
const TTL: u32 = 1;
/// Before EDNS (RFC 1035 4.2.1), and the size that passes every link whole (DNS flag day 2020), bytes.
const UDP_PLAIN: usize = 512;
const UDP_MOST: u16 = 1232;
/// Addresses in one answer; a service of more gives others the next time.
const MOST_RECORDS: usize = 1024;
const HEADER: usize = 12;

/// What carries a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Answers have a limit.
    Udp,
    /// They have none that we reach.
    Tcp,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It is answered so.
    Answer(Vec<u8>),
    /// It is not about us: another server is to be asked.
    Forward(Asked),
    /// It is not a question.
    Ignore,
}

/// A question in its one plain form, to know its answer by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked(Vec<u8>);

impl Asked {
    /// Whether `answer` is one, to this question, asked under `id` (RFC 5452 9.1).
    #[must_use]
    pub fn is_answered_by(&self, id: u16, answer: &[u8]) -> bool {
        let Some(question) = answer.get(HEADER..HEADER + self.0.len()) else { return false };
        // Names are compared without case, type and class exactly.
        let (name, kind) = question.split_at(self.0.len() - 4);
        header_buffer::id(answer).is_ok_and(|seen| seen == id)
            && header_buffer::has_flags(answer, PacketFlag::RESPONSE).unwrap_or(false)
            && header_buffer::questions(answer).is_ok_and(|count| count == 1)
            && self.0.ends_with(kind)
            && self.0[..name.len()].eq_ignore_ascii_case(name)
    }
}

/// Answers a message from what `zone` knows. `turn` counts, so that each address of a service is
/// first once.
#[must_use]
pub fn handle(zone: &Zone, message: &[u8], transport: Transport, turn: usize) -> Handled {
    let (Ok(is_answer), Ok(opcode), Ok(questions)) = (header_buffer::has_flags(message, PacketFlag::RESPONSE), header_buffer::opcode(message), header_buffer::questions(message)) else {
        return Handled::Ignore;
    };
    if message.len() < HEADER || is_answer {
        return Handled::Ignore;
    }
    if opcode != OPCODE::StandardQuery {
        return Handled::Answer(bare(message, RCODE::NotImplemented));
    }
    let packet = match Packet::parse(message) {
        Ok(packet) if questions == 1 => packet,
        _ => return Handled::Answer(bare(message, RCODE::FormatError)),
    };
    let Some(question) = packet.questions.first() else { return Handled::Answer(bare(message, RCODE::FormatError)) };
    let found = if packet.opt().is_some_and(|opt| opt.version != 0) { Found::code(RCODE::BADVERS) } else { look_up(zone, question, turn) };
    match found {
        Some(found) => Handled::Answer(found.into_bytes(message, &packet, question, transport)),
        None => match asked(message, question) {
            Some(asked) => Handled::Forward(asked),
            None => Handled::Answer(bare(message, RCODE::FormatError)),
        },
    }
}

/// A server that will not or cannot say: another may.
#[must_use]
pub fn is_failure(answer: &[u8]) -> bool {
    header_buffer::rcode(answer).is_ok_and(|code| matches!(code, RCODE::ServerFailure | RCODE::Refused | RCODE::NotImplemented | RCODE::FormatError))
}

/// There is more, by TCP.
#[must_use]
pub fn is_truncated(answer: &[u8]) -> bool {
    header_buffer::has_flags(answer, PacketFlag::TRUNCATION).unwrap_or(false)
}

/// The answer when nobody could be asked.
#[must_use]
pub fn reply_servfail(message: &[u8]) -> Vec<u8> {
    reply(message, RCODE::ServerFailure)
}

/// The answer where nobody may be asked.
#[must_use]
pub fn reply_refused(message: &[u8]) -> Vec<u8> {
    reply(message, RCODE::Refused)
}

fn reply(message: &[u8], code: RCODE) -> Vec<u8> {
    let parsed = Packet::parse(message).ok();
    let question = parsed.as_ref().and_then(|packet| packet.questions.first());
    match (&parsed, question) {
        (Some(packet), Some(question)) => Found { code, records: Vec::new(), additional: Vec::new(), is_ours: false }.into_bytes(message, packet, question, Transport::Udp),
        _ => bare(message, code),
    }
}

/// A header alone, for what cannot be parsed: the asker's id, opcode and RD.
fn bare(message: &[u8], code: RCODE) -> Vec<u8> {
    let mut header = vec![0; HEADER];
    for (to, from) in header.iter_mut().zip(message.iter().take(3)) {
        *to = *from;
    }
    // QR on; AA and TC off.
    header[2] = header[2] & 0b0111_1001 | 0b1000_0000;
    header[3] = code as u8 & 0b1111;
    header
}

/// The question as it is on the wire, if the message has it in that form.
fn asked(message: &[u8], question: &Question<'_>) -> Option<Asked> {
    let mut plain = Packet::new_query(0);
    plain.questions.push(question.clone());
    let bytes = plain.build_bytes_vec().ok()?.split_off(HEADER);
    message.get(HEADER..)?.starts_with(&bytes).then_some(Asked(bytes))
}

/// What is known about a question.
struct Found {
    code: RCODE,
    records: Vec<(String, RData<'static>)>,
    additional: Vec<(String, RData<'static>)>,
    /// We speak with authority.
    is_ours: bool,
}

impl Found {
    #[expect(clippy::unnecessary_wraps, reason = "what look_up returns")]
    fn code(code: RCODE) -> Option<Self> {
        Some(Self { code, records: Vec::new(), additional: Vec::new(), is_ours: matches!(code, RCODE::NoError | RCODE::NameError) })
    }

    fn records(records: Vec<(String, RData<'static>)>) -> Option<Self> {
        Some(Self { code: RCODE::NoError, records, additional: Vec::new(), is_ours: true })
    }

    fn into_bytes(self, message: &[u8], asked: &Packet<'_>, question: &Question<'_>, transport: Transport) -> Vec<u8> {
        let mut reply = Packet::new_reply(asked.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        for (flag, on) in [(PacketFlag::RECURSION_DESIRED, asked.has_flags(PacketFlag::RECURSION_DESIRED)), (PacketFlag::AUTHORITATIVE_ANSWER, self.is_ours)] {
            if on {
                reply.set_flags(flag);
            }
        }
        *reply.rcode_mut() = self.code;
        reply.questions.push(question.clone());
        let limit = match (transport, asked.opt()) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(opt)) => usize::from(opt.udp_packet_size.min(UDP_MOST)).max(UDP_PLAIN),
            (Transport::Udp, None) => UDP_PLAIN,
        };
        if asked.opt().is_some() {
            *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: UDP_MOST, version: 0 });
        }
        reply.answers = records_of(&self.records, question);
        reply.additional_records = records_of(&self.additional, question);
        let mut bytes = reply.build_bytes_vec_compressed();
        if bytes.as_ref().is_ok_and(|bytes| bytes.len() > limit) {
            // RFC 2181 9: whoever sees TC asks again by TCP, and uses nothing of this.
            reply.set_flags(PacketFlag::TRUNCATION);
            reply.answers.clear();
            reply.additional_records.clear();
            bytes = reply.build_bytes_vec_compressed();
        }
        bytes.unwrap_or_else(|_| bare(message, RCODE::ServerFailure))
    }
}

/// Records under the name as it was asked for (its case is the asker's), or their own.
fn records_of<'a>(records: &'a [(String, RData<'static>)], question: &Question<'a>) -> Vec<ResourceRecord<'a>> {
    let name = |own: &'a str| if own.is_empty() { Some(question.qname.clone()) } else { Name::new(own).ok() };
    records.iter().filter_map(|(own, data)| Some(ResourceRecord::new(name(own)?, CLASS::IN, TTL, data.clone()))).collect()
}

/// `None`: it is not ours to say.
fn look_up(zone: &Zone, question: &Question<'_>, turn: usize) -> Option<Found> {
    if !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) || matches!(question.qtype, QTYPE::AXFR | QTYPE::IXFR) {
        return Found::code(RCODE::Refused);
    }
    let labels: Vec<String> = question.qname.as_bytes().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    if let Some(address) = reversed(&labels) {
        return pointer(zone, address, question.qtype);
    }
    if let [service, protocol, name @ ..] = &labels[..]
        && let Some(service) = service.strip_prefix('_')
        && zone.addresses(&name.join(".")).is_some()
    {
        return services(zone, service, protocol, &name.join("."), question.qtype, turn);
    }
    match zone.addresses(&labels.join(".")) {
        Some(addresses) => {
            let records: Vec<_> = addresses.iter().filter(|address| wants(question.qtype, address)).map(|address| (String::new(), data(*address))).collect();
            Found::records(rotated(records, turn))
        }
        // A name of one label means something only in here.
        None if labels.len() == 1 => Found::code(RCODE::NameError),
        None => None,
    }
}

fn pointer(zone: &Zone, address: IpAddr, kind: QTYPE) -> Option<Found> {
    match zone.pointer(address) {
        Some(name) if matches!(kind, QTYPE::TYPE(TYPE::PTR) | QTYPE::ANY) => Found::records(vec![(String::new(), RData::PTR(PTR(owned(name)?)))]),
        Some(_) => Found::code(RCODE::NoError),
        None if zone.is_ours(address) => Found::code(RCODE::NameError),
        None => None,
    }
}

/// RFC 2782, with the ports that are published.
fn services(zone: &Zone, service: &str, protocol: &str, name: &str, kind: QTYPE, turn: usize) -> Option<Found> {
    let number = service.parse();
    let ports = match (service, &number) {
        ("http", _) => &[80, 8080, 8000, 5000][..],
        ("https", _) => &[443, 8443],
        ("domain", _) => &[53],
        ("redis", _) => &[6379],
        (_, Ok(port)) => std::slice::from_ref(port),
        _ => &[],
    };
    let is_tcp = protocol == "_tcp";
    let found: Vec<_> = zone.servers(name, is_tcp, ports).filter(|_| is_tcp || protocol == "_udp").collect();
    if found.is_empty() {
        return Found::code(RCODE::NameError);
    }
    if !matches!(kind, QTYPE::TYPE(TYPE::SRV) | QTYPE::ANY) {
        return Found::code(RCODE::NoError);
    }
    let records = found.iter().filter_map(|server| Some((String::new(), RData::SRV(SRV { priority: 0, weight: 0, port: server.port, target: owned(&server.target)? }))));
    let records = rotated(records.collect(), turn);
    let addresses = found.iter().flat_map(|server| zone.addresses(&server.target.to_ascii_lowercase()).into_iter().flatten().map(|address| (server.target.clone(), data(*address))));
    Some(Found { code: RCODE::NoError, records, additional: addresses.take(MOST_RECORDS).collect(), is_ours: true })
}

fn rotated<T>(mut records: Vec<T>, turn: usize) -> Vec<T> {
    if !records.is_empty() {
        let by = turn % records.len();
        records.rotate_left(by);
        records.truncate(MOST_RECORDS);
    }
    records
}

fn wants(kind: QTYPE, address: &IpAddr) -> bool {
    match kind {
        QTYPE::TYPE(TYPE::A) => address.is_ipv4(),
        QTYPE::TYPE(TYPE::AAAA) => address.is_ipv6(),
        QTYPE::ANY => true,
        _ => false,
    }
}

fn data(address: IpAddr) -> RData<'static> {
    match address {
        IpAddr::V4(v4) => RData::A(A { address: v4.to_bits() }),
        IpAddr::V6(v6) => RData::AAAA(AAAA { address: v6.to_bits() }),
    }
}

/// `None` for a name that has no form on the wire: longer than a label may be.
fn owned(name: &str) -> Option<Name<'static>> {
    Name::new(name).ok().map(Name::into_owned)
}

/// The address that a name under in-addr.arpa or ip6.arpa means.
fn reversed(labels: &[&str]) -> Option<IpAddr> {
    match labels {
        [digits @ .., "in-addr", "arpa"] if digits.len() == 4 => {
            let mut octets = [0; 4];
            for (octet, digits) in octets.iter_mut().zip(digits.iter().rev()) {
                *octet = digits.parse().ok()?;
            }
            Some(Ipv4Addr::from(octets).into())
        }
        [digits @ .., "ip6", "arpa"] if digits.len() == 32 => {
            let bits = digits.iter().rev().try_fold(0, |bits: u128, digit| {
                let nibble = u8::from_str_radix(digit, 16).ok().filter(|_| digit.len() == 1)?;
                Some(bits << 4 | u128::from(nibble))
            });
            bits.map(|bits| Ipv6Addr::from_bits(bits).into())
        }
        _ => None,
    }
}
