//! End to end: the built binary, real namespaces, real tools. Each test names the SPEC rows it proves.

mod bad_input;
mod beside_kernel;
mod bridge;
mod capture;
mod client;
mod cluster;
mod compose;
mod config;
mod dhcp;
mod differential;
mod docker;
mod docker_abuse;
mod docker_options;
mod docker_races;
mod hostile;
mod lan;
mod load;
mod loss;
mod model;
mod names;
mod nat;
mod netns;
mod operations;
mod persistence;
mod restart;
mod rootless;
mod scale;
mod seeds;
mod store;
mod traffic;
mod transparent;
mod up;
mod uplink;
mod vip;
mod vxlan;

fn main() {
    let tests = [
        bad_input::tests(),
        beside_kernel::tests(),
        bridge::tests(),
        capture::tests(),
        cluster::tests(),
        compose::tests(),
        config::tests(),
        dhcp::tests(),
        differential::tests(),
        docker::tests(),
        docker_abuse::tests(),
        docker_options::tests(),
        docker_races::tests(),
        hostile::tests(),
        lan::tests(),
        load::tests(),
        loss::tests(),
        model::tests(),
        names::tests(),
        nat::tests(),
        netns::tests(),
        operations::tests(),
        persistence::tests(),
        restart::tests(),
        rootless::tests(),
        scale::tests(),
        seeds::tests(),
        store::tests(),
        traffic::tests(),
        transparent::tests(),
        up::tests(),
        uplink::tests(),
        vip::tests(),
        vxlan::tests(),
    ];
    weft_tests::runner::main(tests.into_iter().flatten().collect())
}
