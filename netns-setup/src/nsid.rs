//! Namespace ids: small numbers by which one namespace knows others (rtnetlink(7), RTM_NEWNSID).

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::{
    RouteNetlinkMessage,
    nsid::{NsidAttribute, NsidMessage},
};

use crate::{
    error::{Context, Result},
    netlink::Route,
    netns::Netns,
};

/// What the kernel says where a namespace has no id, and takes where it shall choose one.
const NONE: i32 = -1;

/// Gives `netns` an id in this thread's namespace; the next free one when `id` is `None`.
///
/// # Errors
/// When it has one already, or the id is taken.
pub fn set(netns: &Netns, id: Option<u32>) -> Result<()> {
    let wanted = id.map_or(NONE, u32::cast_signed);
    let message = about(netns, Some(wanted));
    open()?.request(RouteNetlinkMessage::NewNsId(message), 0).context(|| "set the namespace id".into())
}

/// The id of `netns` in this thread's namespace, if it has one.
///
/// # Errors
/// When the kernel refuses.
pub fn get(netns: &Netns) -> Result<Option<u32>> {
    let answers = open()?.exchange(RouteNetlinkMessage::GetNsId(about(netns, None)), 0).context(|| "ask for the namespace id".into())?;
    Ok(ids(&answers).next())
}

/// All ids that this thread's namespace knows.
///
/// # Errors
/// When the kernel refuses.
pub fn list() -> Result<Vec<u32>> {
    let answers = open()?.exchange(RouteNetlinkMessage::GetNsId(NsidMessage::default()), NLM_F_DUMP).context(|| "list namespace ids".into())?;
    let mut all: Vec<_> = ids(&answers).collect();
    all.sort_unstable();
    Ok(all)
}

fn open() -> Result<Route> {
    Route::open().context(|| "open a netlink socket".into())
}

fn about(netns: &Netns, id: Option<i32>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(netns.as_fd().as_raw_fd().cast_unsigned()));
    message.attributes.extend(id.map(NsidAttribute::Id));
    message
}

fn ids(answers: &[RouteNetlinkMessage]) -> impl Iterator<Item = u32> {
    let attributes = answers.iter().filter_map(|answer| if let RouteNetlinkMessage::NewNsId(message) = answer { Some(&message.attributes) } else { None });
    attributes.flatten().filter_map(|attribute| if let NsidAttribute::Id(id) = attribute { u32::try_from(*id).ok() } else { None })
}
