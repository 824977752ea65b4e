//! The state file, as bytes: lines of JSON.
//!
//! The first line tells the version. Each other is a change with a checksum: the first of them from nothing to a
//! model, the others what came after. So saving costs what a change costs, however much there is. Each checksum
//! counts in the one before it: no line can be missing. A line without its end was being written when the
//! program died: nobody was told that it was saved.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use imbl::{OrdMap, ordmap::DiffItem, ordset};
use serde::{Deserialize, Serialize};

use crate::{
    cluster::{Elsewhere, Node, RemoteEndpoint},
    mesh::MeshClaim,
    model::{ConfigNetwork, Model, Network, Sandbox},
};

/// Of the format.
const VERSION: u32 = 2;
/// What a file may grow by, besides its own length, before it is written anew, bytes.
const SPARE: usize = 1 << 16;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
}

/// From one model to another. By id; `None` is gone.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Change<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<Cow<'a, str>, Option<Cow<'a, Network>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sandboxes: BTreeMap<Cow<'a, str>, Option<Cow<'a, Sandbox>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    configs: BTreeMap<Cow<'a, str>, Option<Cow<'a, ConfigNetwork>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<Cow<'a, str>, Option<Cow<'a, Node>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    remote_endpoints: BTreeMap<Cow<'a, str>, Option<Cow<'a, RemoteEndpoint>>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    mesh_claims: BTreeMap<Cow<'a, str>, Option<Cow<'a, MeshClaim>>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    no_routes: Vec<(String, String)>,
}

impl<'a> Change<'a> {
    fn between(old: &'a Model, new: &'a Model) -> Self {
        // Whoever adds a field has to say how it is saved, if it is.
        let Model { networks, sandboxes, routes, configs, elsewhere: Elsewhere { nodes, endpoints, mesh }, defaults: _, index: _ } = new;
        let mut change = Self {
            networks: changed(&old.networks, networks),
            sandboxes: changed(&old.sandboxes, sandboxes),
            configs: changed(&old.configs, configs),
            nodes: changed(&old.elsewhere.nodes, nodes),
            remote_endpoints: changed(&old.elsewhere.endpoints, endpoints),
            mesh_claims: changed(&old.elsewhere.mesh, mesh),
            ..Self::default()
        };
        for item in old.routes.diff(routes) {
            match item {
                ordset::DiffItem::Add(pair) => change.routes.push(pair.clone()),
                ordset::DiffItem::Remove(pair) => change.no_routes.push(pair.clone()),
            }
        }
        change
    }

    fn is_empty(&self) -> bool {
        let Self { networks, sandboxes, configs, nodes, remote_endpoints, mesh_claims, routes, no_routes } = self;
        networks.is_empty() && sandboxes.is_empty() && configs.is_empty() && nodes.is_empty() && remote_endpoints.is_empty() && mesh_claims.is_empty() && routes.is_empty() && no_routes.is_empty()
    }

    fn apply(self, model: &mut Model) {
        apply(self.networks, &mut model.networks);
        apply(self.sandboxes, &mut model.sandboxes);
        apply(self.configs, &mut model.configs);
        apply(self.nodes, &mut model.elsewhere.nodes);
        apply(self.remote_endpoints, &mut model.elsewhere.endpoints);
        apply(self.mesh_claims, &mut model.elsewhere.mesh);
        for pair in self.no_routes {
            model.routes.remove(&pair);
        }
        model.routes.extend(self.routes);
    }
}

fn changed<'a, T: Clone + PartialEq>(old: &'a OrdMap<String, T>, new: &'a OrdMap<String, T>) -> BTreeMap<Cow<'a, str>, Option<Cow<'a, T>>> {
    let changes = old.diff(new).map(|item| match item {
        DiffItem::Add(id, value) | DiffItem::Update { new: (id, value), .. } => (id.as_str().into(), Some(Cow::Borrowed(value))),
        DiffItem::Remove(id, _) => (id.as_str().into(), None),
    });
    changes.collect()
}

fn apply<T: Clone>(changes: BTreeMap<Cow<'_, str>, Option<Cow<'_, T>>>, to: &mut OrdMap<String, T>) {
    for (id, value) in changes {
        match value {
            Some(value) => drop(to.insert(id.into_owned(), value.into_owned())),
            None => drop(to.remove(id.as_ref())),
        }
    }
}

/// Why a state file was refused. It is never overwritten then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateError {
    /// Not what was written.
    Damaged(String),
    /// Written by a later version of the program.
    Newer(u32),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => write!(f, "the state file is damaged ({why}): restore it from a copy, or move it away to start empty"),
            Self::Newer(version) => write!(f, "the state file has version {version}, this program knows {VERSION}: use the newer program, or move the file away to start empty"),
        }
    }
}

impl std::error::Error for StateError {}

impl From<serde_json::Error> for StateError {
    fn from(error: serde_json::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// What a state file holds that was written whole, and then added to.
#[derive(Clone, Debug)]
pub struct Journal {
    saved: Model,
    /// Of the last line.
    checksum: u64,
    /// Bytes of the file, and of them what it began with.
    length: usize,
    whole: usize,
}

impl Journal {
    /// A file of `model` alone: its bytes, and what may follow.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn begin(model: &Model) -> Result<(Self, Vec<u8>), StateError> {
        let mut bytes = serde_json::to_vec(&Header { version: VERSION })?;
        bytes.push(b'\n');
        let checksum = write_line(&mut bytes, &Change::between(&Model::default(), model), 0)?;
        Ok((Self { saved: model.clone(), checksum, length: bytes.len(), whole: bytes.len() }, bytes))
    }

    /// What to append for the file to hold `model`, and what may follow then. No bytes when it does so already.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn change(&self, model: &Model) -> Result<(Self, Vec<u8>), StateError> {
        let (change, mut bytes) = (Change::between(&self.saved, model), Vec::new());
        let checksum = if change.is_empty() { self.checksum } else { write_line(&mut bytes, &change, self.checksum)? };
        Ok((Self { saved: model.clone(), checksum, length: self.length + bytes.len(), whole: self.whole }, bytes))
    }

    /// Bytes that the file has.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// More of the file is history than is state: it is to be written anew. So all that is written
    /// in the end is a multiple of what changed.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        self.length > 2 * self.whole + SPARE
    }
}

/// The model from the bytes of a file.
///
/// # Errors
/// When they are damaged, or newer than this program.
pub fn decode(bytes: &[u8]) -> Result<Model, StateError> {
    let damaged = |why: String| Err(StateError::Damaged(why));
    // What is behind the last line's end: nothing, or a line that was being written.
    let (lines, torn) = bytes.split_at(bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1));
    let mut lines = lines.split_inclusive(|&byte| byte == b'\n').map(|line| &line[..line.len() - 1]);
    let Some(header) = lines.next() else { return damaged("it has no first line".into()) };
    let Header { version } = serde_json::from_slice(header)?;
    if version > VERSION {
        return Err(StateError::Newer(version));
    }
    if version < VERSION {
        return damaged(format!("version {version} is of no program that was released"));
    }
    let (mut model, mut checksum, mut count) = (Model::default(), 0, 1);
    for line in lines {
        count += 1;
        let Some(change) = read_line(line, &mut checksum) else { return damaged(format!("the checksum of line {count} does not match")) };
        serde_json::from_slice::<Change<'_>>(change)?.apply(&mut model);
    }
    if count < 2 {
        return damaged("it ends before its first change".into());
    }
    // Whole but for its end: that is no line being written, but one whose end was changed.
    if torn.split_last().is_some_and(|(_, line)| read_line(line, &mut checksum).is_some()) {
        return damaged("its last line has no end".into());
    }
    Ok(model)
}

const BEFORE: [&[u8]; 2] = [b"{\"checksum\":\"", b"\",\"change\":"];
const AFTER: &[u8] = b"}";
const DIGITS: usize = 16;

fn write_line(to: &mut Vec<u8>, change: &Change<'_>, before: u64) -> Result<u64, StateError> {
    let json = serde_json::to_vec(change)?;
    let checksum = fnv(before, &json);
    for part in [BEFORE[0], format!("{checksum:0DIGITS$x}").as_bytes(), BEFORE[1], &json, AFTER, b"\n"] {
        to.extend_from_slice(part);
    }
    Ok(checksum)
}

/// The change of a line, if it is what was written behind the one with `checksum`, which becomes its own.
fn read_line<'a>(line: &'a [u8], checksum: &mut u64) -> Option<&'a [u8]> {
    let (digits, rest) = line.strip_prefix(BEFORE[0])?.split_at_checked(DIGITS)?;
    let json = rest.strip_prefix(BEFORE[1])?.strip_suffix(AFTER)?;
    let own = fnv(*checksum, json);
    (digits == format!("{own:0DIGITS$x}").as_bytes()).then(|| *checksum = own)?;
    Some(json)
}

/// FNV-1a: against damage, not against attackers. Each step is a bijection, so one changed byte is always seen.
fn fnv(before: u64, bytes: &[u8]) -> u64 {
    let basis = 0xcbf2_9ce4_8422_2325 ^ before;
    bytes.iter().fold(basis, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EndpointKind,
        api::{EndpointCreate, NetworkCreate, SandboxCreate},
    };

    /// A file with a change of each kind behind its beginning, the models that it held, and where each ends.
    fn history() -> (Vec<u8>, Vec<(usize, Model)>) {
        let mut model = Model::default();
        model.create_network(&NetworkCreate { name: "net".into(), ..NetworkCreate::default() }, "1".repeat(64)).unwrap();
        let (mut journal, mut bytes) = Journal::begin(&model).unwrap();
        let mut models = vec![(bytes.len(), model.clone())];
        let mut step = |model: &Model| {
            let (next, more) = journal.change(model).unwrap();
            bytes.extend_from_slice(&more);
            journal = next;
            assert_eq!(journal.length(), bytes.len());
            models.push((bytes.len(), model.clone()));
        };
        model.create_network(&NetworkCreate { name: "two".into(), ..NetworkCreate::default() }, "2".repeat(64)).unwrap();
        step(&model);
        model.create_sandbox(&SandboxCreate { name: Some("a".into()), ..SandboxCreate::default() }, "3".repeat(64)).unwrap();
        model.create_endpoint(&"3".repeat(64), &EndpointCreate { network: "net".into(), ..EndpointCreate::default() }, "4".repeat(64), EndpointKind::Tap).unwrap();
        step(&model);
        model.set_route(&["net".into(), "two".into()], true).unwrap();
        step(&model);
        model.remove_network("two").unwrap();
        step(&model);
        model.sandboxes.remove(&"3".repeat(64));
        step(&model);
        (bytes, models)
    }

    #[test]
    fn a_file_is_what_was_saved_last_wherever_it_was_cut_off() {
        let (bytes, models) = history();
        for length in 0..=bytes.len() {
            let whole = models.iter().rev().find(|(end, _)| *end <= length);
            match (decode(&bytes[..length]), whole) {
                (Ok(read), Some((_, saved))) => assert_eq!(&read, saved, "cut at {length}"),
                (Err(StateError::Damaged(_)), None) => {}
                (other, _) => panic!("cut at {length}: {other:?}"),
            }
        }
        let (last, all) = (&models.last().unwrap().1, &models[3].1);
        assert_eq!((last.networks.len(), last.sandboxes.len(), last.routes.len()), (1, 0, 0));
        assert_eq!((all.networks.len(), all.sandboxes.len(), all.routes.len()), (2, 1, 1));
        assert_eq!(Journal::begin(last).unwrap().0.change(last).unwrap().1, Vec::<u8>::new(), "nothing changed, nothing to write");
    }

    /// RELIABILITY: bit flips at every offset.
    #[test]
    fn no_flipped_bit_is_accepted() {
        let (bytes, _) = history();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(decode(&flipped).is_err(), "byte {at} bit {bit}: {}", String::from_utf8_lossy(&flipped[at.saturating_sub(20)..(at + 20).min(bytes.len())]));
            }
        }
    }

    #[test]
    fn lines_neither_go_nor_move_nor_come_twice() {
        let (bytes, _) = history();
        let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        for at in 0..lines.len() {
            for (what, mut changed) in [("gone", lines.clone()), ("twice", lines.clone()), ("moved", lines.clone())] {
                match what {
                    // Nobody can tell that the last line was there.
                    "gone" if at + 1 < lines.len() => drop(changed.remove(at)),
                    "twice" => changed.insert(at, lines[at]),
                    "moved" if at + 1 < lines.len() => changed.swap(at, at + 1),
                    _ => continue,
                }
                assert!(decode(&changed.concat()).is_err(), "line {at} {what}");
            }
        }
    }

    #[test]
    fn a_later_version_is_named() {
        let (bytes, _) = history();
        let newer = String::from_utf8(bytes).unwrap().replacen("\"version\":2", "\"version\":3", 1);
        assert_eq!(decode(newer.as_bytes()).unwrap_err(), StateError::Newer(3));
        assert!(decode(b"{\"version\":1}\n").unwrap_err().to_string().contains("version 1"));
    }

    /// 1,000 networks: a change is as long as it is with one, and what is written in all grows with the changes.
    #[test]
    fn what_is_written_grows_with_what_changes() {
        let mut model = Model::default();
        let (mut journal, mut written, mut file) = (Journal::begin(&model).unwrap().0, 0, 0);
        for number in 0..1000_u32 {
            let request = NetworkCreate { name: format!("n{number}"), subnets: vec![format!("10.{}.{}.0/24", number / 256, number % 256).parse().unwrap()], ..NetworkCreate::default() };
            model.create_network(&request, format!("{number:064x}")).unwrap();
            let (next, bytes) = if journal.is_long() { Journal::begin(&model).unwrap() } else { journal.change(&model).unwrap() };
            (journal, written) = (next, written + bytes.len());
            file = journal.length();
        }
        let state = Journal::begin(&model).unwrap().1.len();
        assert!(written < 4 * state && file < 3 * state + SPARE, "{written} bytes written for {state}, {file} in the file");
    }
}
