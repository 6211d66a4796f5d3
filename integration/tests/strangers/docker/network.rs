//! Networks that dockerd itself builds: its hook, which the runtime runs, moves them in.

use hull_integration::engine::{Docker, debian_archive};
use hull_integration::{SOON, tests, wait_until};

tests![containers_reach_each_other];

const SERVER: &str = "$listener = IO::Socket::INET->new(LocalPort => 8000, Listen => 5) or die; \
    while ($client = $listener->accept) { print $client 'served'; close $client }";

fn containers_reach_each_other() {
    let docker = Docker::start_with_bridge();
    docker.run(&["import", debian_archive(), "debian"]).ok();
    docker.shell(&[], "ls /sys/class/net").ok().says("eth0\nlo");
    let server = ["run", "--detach", "--name", "one", "debian", "perl", "-MIO::Socket::INET", "-e"];
    docker.run(&[&server[..], &[SERVER]].concat()).ok();
    let address = docker.inspect("one", "{{.NetworkSettings.IPAddress}}");
    let fetch = |options: &[&str], host: &str| {
        let script = format!("cat < /dev/tcp/{host}/8000");
        docker.run(&[&["run", "--rm"], options, &["debian", "bash", "-c", &script]].concat())
    };
    wait_until("the server answers", SOON, || fetch(&[], &address).text() == "served");
    fetch(&["--network", "none"], &address).exits(1).stderr_says("unreachable");
    fetch(&["--network", "container:one"], "127.0.0.1").ok().says("served");
    // A network made later gives names, by a resolver within the container's namespace.
    docker.run(&["network", "create", "named"]).ok();
    docker.run(&["network", "connect", "named", "one"]).ok();
    docker.run(&["exec", "one", "ls", "/sys/class/net"]).ok().says("eth0\neth1\nlo");
    fetch(&["--network", "named"], "one").ok().says("served");
    docker.run(&["network", "disconnect", "named", "one"]).ok();
    docker.run(&["exec", "one", "ls", "/sys/class/net"]).ok().says("eth0\nlo");
}
