//! S2: port mapping, none and host, an application of two containers. Its chapters on clusters are in `vxlan.rs` and
//! beyond. SPEC rows: P1, P2, P3, C5, C6, D1, D2, D5, P15, X4
//! (nginx, redis-server and a Python application as they are, in sandboxes).

use super::{PAGE, Walk};
use weft_tests::run::eventually;

/// "一、Container Port Map" and "二、Docker Host && None Network".
pub(super) fn ports() {
    let walk = Walk::start();
    for name in ["one", "two"] {
        walk.run(&format!("docker run -d --name {name} host sleep 1000")).ok();
    }
    // "创建并运行名为web的容器"; "通过查看bridge network数据即看到web容器的ip地址"
    walk.nginx("web", "");
    let seen = walk.docker.args(&["network", "inspect", "bridge", "--format", "{{range .Containers}}{{.Name}}={{.IPv4Address}} {{end}}"]).ok();
    assert!(seen.contains("web=172.17.0.4/16"), "{seen}");
    // "ping web容器的ip肯定是可以ping通的", "curl" of the page by that address: weft changes nothing on the machine,
    // so this wants a port of the machine's on the network (P1).
    walk.run("ping -c 1 -W 1 172.17.0.4").fails();
    walk.weft("attach bridge --host-port --ifname weft0").ok();
    walk.run("ping -c 1 -W 2 172.17.0.4").ok();
    assert!(walk.curl("http://172.17.0.4").ok().contains(PAGE));
    // "在linux本机ip localhost拉取则会失败" (P2)
    assert!(walk.curl("http://localhost").fails().contains("Failed to connect"));
    // "首先删除web容器,然后重新创建,并将容器的80端口映射到本机" (P3)
    walk.run("docker rm -f web").ok();
    walk.nginx("web", "-p 80:80");
    for url in ["http://127.0.0.1", "http://localhost", "http://192.168.88.212"] {
        assert!(walk.curl(url).ok().contains(PAGE), "{url}");
    }
    assert!(walk.curl(&format!("http://{}", walk.ip_of("web"))).ok().contains(PAGE));
    // "在博主的电脑windows系统上去访问以上centos机器的ip地址192.168.88.212"
    assert!(walk.pc.run("curl -s -m 5 http://192.168.88.212").ok().contains(PAGE));
    walk.run("docker rm -f web one two").ok();

    // "查看目前docker network"; "创建一个基于none network的容器" (C6)
    assert_eq!(walk.rows("docker network ls").len(), 3);
    walk.run("docker run -d --name test1 --network none host sleep 1000").ok();
    // "查看none的网络数据,可以看到test1容器没有mac地址以及ip"
    let none = walk.run("docker network inspect none").json();
    let member = none[0]["Containers"].as_object().and_then(|all| all.values().next()).cloned().expect("a member");
    assert_eq!((member["Name"].as_str(), member["MacAddress"].as_str(), member["IPv4Address"].as_str()), (Some("test1"), Some(""), Some("")));
    // "进入test1容器中,查看网络接口,结果发现只有一个lo回环口"
    let links = walk.run("docker exec test1 ip a").ok();
    assert!(links.contains("1: lo: ") && !links.contains("2: "), "{links}");
    // "删除test1容器,创建一个基于host network的容器" (C5)
    walk.run("docker rm -f test1").ok();
    walk.run("docker run -d --name test1 --network host host sleep 1000").ok();
    let host = walk.run("docker network inspect host").json();
    let member = host[0]["Containers"].as_object().and_then(|all| all.values().next()).cloned().expect("a member");
    assert_eq!((member["Name"].as_str(), member["MacAddress"].as_str(), member["IPv4Address"].as_str()), (Some("test1"), Some(""), Some("")));
    assert_eq!(walk.run("docker exec test1 ip -o link").ok(), walk.run("ip -o link").ok());
    // "创建两个连接到host的nginx容器,就会出现端口冲突"
    walk.nginx("nginx1", "--network host");
    assert!(walk.curl("http://127.0.0.1").ok().contains(PAGE));
    walk.try_nginx("nginx2", "--network host").ok();
    eventually("the second gives up", || walk.docker.format("nginx2", "{{.State.Status}}") == "exited");
    assert!(walk.run("docker logs nginx2").stderr.contains("Address already in use"));
    assert!(walk.curl("http://127.0.0.1").ok().contains(PAGE));
    walk.run("docker rm -f test1 nginx1 nginx2").ok();
}

/// The text's app.py, with the standard library for flask and redis-py.
const APP: &str = r#"
import http.server, os, socket
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with socket.create_connection((os.environ.get("REDIS_HOST", "127.0.0.1"), 6379), 5) as redis:
            redis.sendall(b"INCR hits\r\n")
            hits = redis.recv(100).decode().strip(":\r\n")
        self.send_response(200); self.end_headers()
        self.wfile.write(f"Hello Container World! I have been seen {hits} times @{socket.gethostname()}\n".encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 5000), Page).serve_forever()
"#;

/// "三、多容器复杂应用的部署".
pub(super) fn application() {
    let walk = Walk::start();
    let app = walk.docker.0.dir().join("app.py");
    std::fs::write(&app, APP).expect("a file");
    // "需要有一个运行redis服务容器"
    walk.run("docker run -d --name redis host redis-server --save --bind 0.0.0.0 --protected-mode no --daemonize no").ok();
    eventually("redis listens", || walk.inside("redis", "ss -Hltn").stdout.contains(":6379 "));
    // "docker build" is for images, which weft has not: said, and nothing made.
    let (status, answer) = walk.docker.api("POST", "/v1.41/build?t=cdtaogang/flask-redis", b"");
    assert!(status == 501 && answer["message"].as_str().is_some_and(|message| message.contains("no image store")), "{answer}");
    // "将此容器link到name为redis的redis容器上 ... 通过-e 命令设置 ... REDIS_HOST" (D2)
    let flask = |words: &str| {
        walk.run(&format!("docker run -d --name flask-redis --link redis -e REDIS_HOST=redis {words} host python3 {}", app.display())).ok();
        eventually("the application listens", || walk.inside("flask-redis", "ss -Hltn").stdout.contains(":5000 "));
    };
    flask("");
    assert_eq!(walk.docker.format("flask-redis", "{{.HostConfig.Links}}"), "[/redis:/flask-redis/redis]");
    // "查看环境变量,并且ping redis" (D1)
    assert!(walk.run("docker exec flask-redis env").ok().contains("REDIS_HOST=redis\n"));
    walk.run("docker exec flask-redis ping -c 1 -W 2 redis").ok();
    assert!(walk.run("docker exec flask-redis cat /etc/hosts").ok().lines().any(|line| line.starts_with("172.17.0.2\t") && line.contains("redis")));
    // "在容器中,通curl命令工具则可以访问127.0.0.1:5000 ... 容器的hostname则就是@后面的数据" (D5)
    let hostname = walk.run("docker exec flask-redis hostname").ok();
    let page = walk.inside("flask-redis", "curl -s -m 5 127.0.0.1:5000").ok();
    assert_eq!(page, format!("Hello Container World! I have been seen 1 times @{hostname}"));
    // "退出容器,在linux本机curl,则提示访问拒绝" (P2)
    assert!(walk.curl("127.0.0.1:5000").fails().contains("Failed to connect"));
    // "删除容器,重新创建,并进行端口映射"; "所以这里写入的hits键的值不是从1开始" (P3, P15)
    walk.run("docker rm -f flask-redis").ok();
    flask("-p 5000:5000");
    assert!(walk.curl("127.0.0.1:5000").ok().contains("seen 2 times @"));
    assert!(walk.pc.run("curl -s -m 5 192.168.88.212:5000").ok().contains("seen 3 times @"));
    // Restarted, the application has another address, and the link leads on to redis.
    walk.run("docker restart -t 1 flask-redis").ok();
    eventually("the application listens again", || walk.inside("flask-redis", "ss -Hltn").stdout.contains(":5000 "));
    assert!(walk.curl("127.0.0.1:5000").ok().contains("seen 4 times @"));
    // An alias is the linker's alone (D2), and follows its container to another address.
    walk.run("docker run -d --name linked --link redis:cache host sleep 1000").ok();
    walk.run("docker run -d --name other host sleep 1000").ok();
    walk.run("docker exec linked ping -c 1 -W 2 cache").ok();
    walk.run("docker exec other getent hosts cache").fails();
    walk.run("docker stop -t 1 redis").ok();
    assert!(walk.run("docker run --name late --link redis host true").fails().contains("Cannot link to a non running container: /redis AS /late/redis"));
    walk.run("docker run -d --name taker host sleep 1000").ok();
    walk.run("docker start redis").ok();
    let now = walk.ip_of("redis");
    assert!(walk.run("docker exec linked getent hosts cache").ok().starts_with(&now));
    // The same on a network of one's own.
    walk.run("docker network create apps").ok();
    assert!(walk.run("docker run --name far --network apps --link redis:cache host true").fails().contains("Cannot link to /redis, as it does not belong to the network apps"));
    walk.run("docker network connect apps redis").ok();
    walk.run("docker run -d --name near --network apps --link redis:cache host sleep 1000").ok();
    walk.run("docker exec near ping -c 1 -W 2 cache").ok();
    walk.run("docker network connect --link redis:store apps other").ok();
    walk.run("docker exec other ping -c 1 -W 2 store").ok();
    walk.run("docker rm -f redis flask-redis linked other late taker far near").ok();
}
