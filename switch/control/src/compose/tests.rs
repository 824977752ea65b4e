use super::*;

fn parse(text: &str) -> Result<Project> {
    let variable = |name: &str| (name == "PORT").then(|| "8080".to_owned());
    Project::parse(text, &Surroundings { name: "app", directory: "/srv/app", variable: &variable })
}

const WHOLE: &str = r#"
name: shop
x-common: &common
  image: host
  environment: {LEVEL: "3"}
services:
  web:
    <<: *common
    command: python3 -m http.server "80"
    entrypoint: ["env", "A=b"]
    hostname: www
    container_name: web1
    depends_on: {db: {condition: service_started}}
    links: ["db:database"]
    ports:
      - "${PORT:-1}:80"
      - {target: 53, published: "5300-5301", host_ip: "::1", protocol: udp}
      - 443
    expose: ["9000-9001"]
    extra_hosts: ["up:host-gateway", "six=[::1]"]
    dns: 9.9.9.9
    dns_search: [x.test]
    networks:
      back: {priority: 5}
      front: {aliases: [site], ipv4_address: 10.7.0.9, mac_address: "02:00:00:00:00:09", interface_name: wan0, gw_priority: 1}
  db:
    image: ./root
    command: ["redis-server", "--port", 6379]
    networks: [back]
  side: {network_mode: "service:web", command: sleep infinity}
  alone: {network_mode: none, command: sleep 9}
  plain: {command: sleep 9}
networks:
  front:
    driver_opts: {com.docker.network.driver.mtu: 1400}
    ipam: {config: [{subnet: 10.7.0.0/24, gateway: 10.7.0.254, ip_range: 10.7.0.128/25, aux_addresses: {printer: 10.7.0.200}}]}
    labels: {tier: one}
  back: {internal: true, name: rear, enable_ipv6: true, attachable: true}
"#;

#[test]
fn a_whole_file() {
    let project = parse(WHOLE).unwrap();
    let keys: Vec<_> = project.services.iter().map(|service| service.key.as_str()).collect();
    assert_eq!(keys, ["db", "web", "side", "alone", "plain"], "who is depended on comes first");
    let names: Vec<_> = project.networks.iter().map(|network| network.name.as_str()).collect();
    assert_eq!(names, ["shop_front", "rear", "shop_default"]);
    let front = &project.networks[0];
    assert_eq!((front.mtu, front.gateways[0].to_string(), front.ip_range.unwrap().to_string(), front.aux_addresses["printer"].to_string()), (Some(1400), "10.7.0.254".into(), "10.7.0.128/25".into(), "10.7.0.200".into()));
    assert!(project.networks[1].internal && project.networks[1].ipv6 && project.networks[1].attachable && front.labels["tier"] == "one");
    let web = &project.services[1];
    assert_eq!((web.name.as_str(), &web.links[..]), ("web1", &["db:database".to_owned()][..]));
    let container = &web.container;
    assert_eq!(container.command(), ["env", "A=b", "python3", "-m", "http.server", "80"]);
    assert_eq!((container.config.env.as_slice(), container.config.hostname.as_str()), (&["LEVEL=3".to_owned()][..], "www"));
    assert_eq!(container.publish().unwrap(), ["443/tcp", "[::1]:5300-5301:53/udp", "8080:80/tcp"]);
    assert_eq!((container.host.extra_hosts.as_slice(), container.host.dns.as_slice()), (&["up:host-gateway".to_owned(), "six:::1".into()][..], &["9.9.9.9".to_owned()][..]));
    let networks: Vec<_> = container.networks.iter().map(|endpoint| endpoint.network.as_str()).collect();
    assert_eq!((networks, container.host.network_mode.as_str()), (vec!["shop_front", "rear"], "shop_front"), "the way out goes by the highest gw_priority");
    let first = &container.networks[0];
    assert_eq!((first.ip.unwrap().to_string(), first.ifname.as_deref(), first.aliases.as_slice()), ("10.7.0.9".into(), Some("wan0"), &["site".to_owned(), "web".into()][..]));
    assert_eq!((project.services[0].container.config.image.as_str(), project.services[2].container.host.network_mode.as_str()), ("/srv/app/./root", "container:web1"));
    assert_eq!(project.services[4].container.networks[0].network, "shop_default");
}

#[test]
fn an_external_network_is_only_named() {
    let project = parse("services: {a: {command: x, networks: [out]}}\nnetworks: {out: {external: true, name: bridge}}\n").unwrap();
    assert_eq!((project.networks.len(), project.external), (0, vec!["bridge".to_owned()]));
    assert_eq!(project.services[0].container.networks[0].network, "bridge");
}

#[test]
fn what_is_not_understood_is_named_by_its_path() {
    for (text, parts) in [
        ("services: {web: {command: x, volumes: [/a]}}", ["services.web.volumes", "not supported"]),
        ("services: {web: {command: x}}\nvolumes: {a: {}}", ["volumes", "not supported"]),
        ("services: {web: {command: x, networks: {a: {weight: 1}}}}\nnetworks: {a: {}}", ["services.web.networks.a.weight", "not supported"]),
        ("services: {web: {command: x, networks: {a: {link_local_ips: [10.0.0.1]}}}}\nnetworks: {a: {}}", ["services.web.networks.a.link_local_ips[0]", "invalid link-local IP address: 10.0.0.1"]),
        ("services: {web: {command: x, networks: {a: {driver_opts: {foo: bar}}}}}\nnetworks: {a: {}}", ["services.web.networks.a.driver_opts", "endpoint option foo"]),
        ("services: {web: {command: x, networks: [nope]}}", ["services.web.networks", "nope"]),
        ("services: {web: {image: redis:7, command: x}}", ["services.web.image", "image store"]),
        ("services: {web: {image: host}}", ["services.web", "no command"]),
        ("services: {web: {command: x, ports: [\"80:http\"]}}", ["services.web.ports[0]", "http"]),
        ("services: {web: {command: x, ports: [{published: 80}]}}", ["services.web.ports[0]", "target"]),
        ("services: {web: {command: x, depends_on: [db]}}", ["services.web", "db"]),
        ("services: {a: {command: x, depends_on: [b]}, b: {command: x, links: [a]}}", ["a, b", "each other"]),
        ("services: {a: {command: x, depends_on: {b: {condition: service_healthy}}}, b: {command: x}}", ["services.a.depends_on.b.condition", "service_healthy"]),
        ("services: {a: {command: x, network_mode: host, ports: [80]}}", ["services.a.ports", "network_mode"]),
        ("services: {a: {command: x, network_mode: odd}}", ["services.a.network_mode", "odd"]),
        ("services: {a: {command: \"x 'y\"}}", ["services.a.command", "no end"]),
        ("services: {a: {command: x, environment: {A: \"${B:?say B}\"}}}", ["services.a.environment.A", "say B"]),
        ("services: {a: {command: x, restart: sometimes}}", ["services.a.restart", "sometimes"]),
        ("services: {a: {command: x}}\nnetworks: {n: {driver_opts: {what: 1}}}", ["networks.n.driver_opts", "what"]),
        ("services: {a: {command: x}}\nnetworks: {n: {ipam: {config: [{gateway: 10.0.0.1}]}}}", ["networks.n.ipam.config[0]", "subnet"]),
        ("services: {a: {command: x}}\nnetworks: {n: {enable_ipv4: false}}", ["networks.n.enable_ipv4", "IPv4 or IPv6 must be enabled"]),
        ("services: {a: {command: x, networks: {n: {ipv4_address: ten}}}}\nnetworks: {n: {}}", ["services.a.networks.n.ipv4_address", "ten"]),
        ("services: {a: {command: x, container_name: b}, b: {command: x}}", ["services.b", "twice"]),
        ("name: No Good\nservices: {a: {command: x}}", ["name", "No Good"]),
        ("services: []", ["services", "mapping"]),
        ("services:\n  a:\n    command: x\n    command: y\n", ["command", "duplicate"]),
        ("services: {", ["line", "column"]),
        ("", ["services", "none"]),
    ] {
        let error = parse(text).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n  {error}");
    }
}

/// The words that `docker network connect` has, and no fewer.
#[test]
fn endpoints_and_lans_as_docker_says_them() {
    let text = "services: {web: {command: x, networks: {n: {link_local_ips: [169.254.7.7, fe80::7], mac_address: \"02:00:00:00:00:08\", driver_opts: {com.docker.network.endpoint.ifname: lan7, com.docker.network.endpoint.macaddress: \"02:00:00:00:00:07\", com.docker.network.endpoint.sysctls: net.ipv4.conf.IFNAME.log_martians=1, weft.vip: web}}}}}\nnetworks: {n: {driver: macvlan, driver_opts: {parent: eth1.10, macvlan_mode: bridge}}}";
    let project = parse(text).unwrap();
    let endpoint = &project.services[0].container.networks[0];
    assert_eq!((endpoint.link_local.len(), endpoint.ifname.as_deref(), endpoint.mac.as_deref(), endpoint.sysctls.len(), endpoint.vips.len()), (2, Some("lan7"), Some("02:00:00:00:00:08"), 1, 1));
    let network = &project.networks[0];
    assert_eq!((network.driver.as_deref(), network.parent.as_deref(), network.options.len()), (Some("macvlan"), Some("eth1.10"), 2));
}
