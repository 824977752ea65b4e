//! `weft dhcp`.

use super::{
    End, Place,
    args::DhcpAction,
    print_json,
    table::{table, text},
};
use crate::client::escape;

pub(super) fn run(action: &DhcpAction, place: &Place) -> End {
    let DhcpAction::Leases { network, json } = action;
    let leases = place.client.get(&format!("/v1/networks/{}/leases", escape(network)))?;
    if *json {
        print_json(&leases);
        return Ok(0);
    }
    let rows: Vec<_> = leases
        .as_array()
        .into_iter()
        .flatten()
        .map(|lease| {
            let client = if lease["client"].is_null() { "in use by a stranger".into() } else { text(&lease["client"]) };
            let left = lease["expires_s"].as_u64().map_or_else(|| "kept".into(), |seconds| format!("{seconds} s"));
            vec![text(&lease["address"]), client, left, text(&lease["host_name"])]
        })
        .collect();
    table(&["ADDRESS", "CLIENT", "EXPIRES", "NAME"], &rows);
    Ok(0)
}
