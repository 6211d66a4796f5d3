//! Beside ufw and firewalld themselves: what the host's policy drops is not opened by us (R18), and
//! what their users open, is. What a user types, for IPv4 and IPv6:
//!
//! ```text
//!                   ufw                             firewalld
//!  open port 8080   ufw allow 8080/tcp              firewall-cmd --add-port=8080/tcp
//!  let containers   ufw route allow in on hull0     --new-zone=hull
//!  out, and reach                                   --zone=hull --add-interface=hull0
//!  each other                                       --new-policy=hull-out
//!                                                   --policy=hull-out --add-ingress-zone=hull
//!                                                   --policy=hull-out --add-egress-zone=ANY
//!                                                   --policy=hull-out --set-target=ACCEPT
//!                                                   each with --permanent, and then --reload
//! ```
//!
//! Both change the whole machine's settings, so these tests run in the virtual machine only.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hull_integration::engine::{Engine, Lab, Side, command, lab};
use hull_integration::{Output, Running, tests, wait_until};
use nix::sys::signal::Signal;

use crate::network::{address, fetch, hull_only, reaches_not, serve};
use crate::require_vm;

tests![
    ufw_decides_over_published_ports,
    ufw_decides_over_ways_out,
    firewalld_decides_over_published_ports,
    firewalld_decides_over_ways_out,
];

/// How soon what they change has its effect on us: a second, and what slow machines need.
const SOON: Duration = Duration::from_secs(10);

/// They are hundreds of processes of Python and of iptables.
const LIMIT: Duration = Duration::from_secs(300);

/// Their settings are the machine's, and so is the bus.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    // docker's ports are open whatever they say.
    hull_only();
    require_vm();
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the neighbour gets from a port of the host, the same for both families.
#[track_caller]
fn page(lab: &Lab, port: u16) -> Option<String> {
    let [v4, v6] = lab::HOST.map(|address| lab.page(Side::Neighbour, address, port));
    assert_eq!(v4, v6, "port {port}");
    v4
}

/// Of two published ports, the neighbour reaches this one and not the other.
#[track_caller]
fn only(lab: &Lab, open: u16, closed: u16) {
    assert_eq!((page(lab, open).as_deref(), page(lab, closed)), (Some("one"), None));
}

/// The name of hulld's table.
#[track_caller]
fn table(lab: &Lab) -> String {
    let tables = lab.command(Side::Host, &["nft", "list", "tables", "inet"]).run().ok();
    let mut names = tables.stdout.lines().filter_map(|line| line.strip_prefix("table inet "));
    names.find(|name| name.starts_with("hull")).expect("hulld has made its table").to_owned()
}

/// The words of hulld's table, sorted: sets have no order.
#[track_caller]
fn rules(lab: &Lab) -> Vec<String> {
    let words = ["nft", "--stateless", "list", "table", "inet", &table(lab)];
    let text = lab.command(Side::Host, &words).run().ok().stdout;
    let mut words: Vec<String> =
        text.split([',', '{', '}', '\n']).map(|word| word.trim().to_owned()).collect();
    words.sort();
    words
}

/// ufw, enabled on the host of a lab; without a rule at its end.
struct Ufw<'a> {
    lab: &'a Lab,
    _alone: MutexGuard<'static, ()>,
}

impl<'a> Ufw<'a> {
    fn enable(lab: &'a Lab, alone: MutexGuard<'static, ()>) -> Self {
        let ufw = Self { lab, _alone: alone };
        ufw.run("--force enable").ok();
        ufw
    }

    fn run(&self, line: &str) -> Output {
        let words: Vec<&str> = std::iter::once("ufw").chain(line.split(' ')).collect();
        self.lab.command(Side::Host, &words).limit(LIMIT).run()
    }
}

impl Drop for Ufw<'_> {
    fn drop(&mut self) {
        self.run("--force reset");
    }
}

fn ufw_decides_over_published_ports() {
    let alone = alone();
    let lab = Lab::start();
    let ufw = Ufw::enable(&lab, alone);
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "8080:80", "-p", "8081:80"]);
    assert_eq!((page(&lab, 8080), page(&lab, 8081)), (None, None));
    assert_eq!(lab.page(Side::Host, "127.0.0.1", 8080).as_deref(), Some("one"));
    ufw.run("allow 8080/tcp").ok();
    only(&lab, 8080, 8081);
    let before = rules(&lab);
    ufw.run("reload").ok();
    only(&lab, 8080, 8081);
    assert_eq!(rules(&lab), before);
    ufw.run("disable").ok();
    wait_until("nobody drops any more", SOON, || page(&lab, 8081).is_some());
    ufw.run("--force enable").ok();
    wait_until("ufw decides again", SOON, || page(&lab, 8081).is_none());
    only(&lab, 8080, 8081);
}

/// A page of the neighbour's own, and its addresses for containers to fetch it from.
fn world(lab: &Lab, engine: &Engine) -> (Running, [String; 2]) {
    let root = engine.site().make("world");
    engine.site().write("world/index.html", "world\n");
    let words = ["busybox", "httpd", "-f", "-p", "7000", "-h", &root];
    let server = lab.command(Side::Neighbour, &words).limit(LIMIT).start();
    wait_until("the neighbour listens", SOON, || {
        lab.page(Side::Neighbour, lab::NEIGHBOUR[0], 7000).is_some()
    });
    let [v4, v6] = lab::NEIGHBOUR;
    (server, [format!("{v4}:7000"), format!("[{v6}]:7000")])
}

/// Two containers, a neighbour who knows the way to them, and the first one's address.
fn two(lab: &Lab, engine: &Engine) -> String {
    serve(engine, "one", &[]);
    serve(engine, "two", &[]);
    lab.ip(Side::Neighbour, &format!("route add 172.17.0.0/16 via {}", lab::HOST[0])).ok();
    address(engine, "one", "bridge")
}

/// Even where the host's firewall lets through what is not published, we do not. The control is
/// the same question while our table is gone and nobody puts it back.
#[track_caller]
fn unpublished(lab: &Lab, engine: &mut Engine, address: &str) {
    let page = || lab.page(Side::Neighbour, address, 80);
    assert_eq!(page(), None, "it is not published");
    let Engine::Hull(hull) = engine else { return };
    let table = table(lab);
    hull.crash();
    lab.command(Side::Host, &["nft", "delete", "table", "inet", &table]).run().ok();
    assert_eq!(page().as_deref(), Some("one"), "the way is open but for our table");
    hull.restart();
    // It answers when all is there again.
    hull.run(&["ps"]).ok();
    assert_eq!(page(), None, "it is not published");
}

fn ufw_decides_over_ways_out() {
    let alone = alone();
    let lab = Lab::start();
    let ufw = Ufw::enable(&lab, alone);
    let mut engine = Engine::start_in(&lab);
    let (_server, world) = world(&lab, &engine);
    let one = two(&lab, &engine);
    for address in &world {
        reaches_not(&engine, "one", address);
    }
    ufw.run("route allow in on hull0").ok();
    for address in &world {
        fetch(&engine, "one", address).ok().says("world");
    }
    fetch(&engine, "two", &one).ok().says("one");
    assert_eq!(lab.page(Side::Neighbour, &one, 80), None, "it is not published");
    ufw.run("route allow out on hull0").ok();
    unpublished(&lab, &mut engine, &one);
}

/// firewalld on the host of a lab, with Debian's settings in a place of the test's.
struct Firewalld {
    running: Option<Running>,
    _alone: MutexGuard<'static, ()>,
}

impl Firewalld {
    fn start(lab: &Lab, engine: &Engine, alone: MutexGuard<'static, ()>) -> Self {
        let settings = engine.site().make("firewalld");
        let debian = std::fs::read_to_string("/etc/firewalld/firewalld.conf");
        engine.site().write("firewalld/firewalld.conf", &debian.unwrap_or_default());
        let words = ["firewalld", "--nofork", "--nopid", "--system-config", &settings];
        let running = lab.command(Side::Host, &words).limit(LIMIT).start();
        let firewalld = Self { running: Some(running), _alone: alone };
        firewalld.wait();
        firewalld
    }

    fn call(&self, line: &str) -> Output {
        let words: Vec<&str> = std::iter::once("firewall-cmd").chain(line.split(' ')).collect();
        command(&words).limit(LIMIT).run()
    }

    /// The bus waits 25 s for an answer, however slow the machine is; then the next answer comes
    /// after the work.
    #[track_caller]
    fn run(&self, line: &str) {
        let said = self.call(line);
        match said.stderr.contains("Did not receive a reply") {
            true => self.wait(),
            false => drop(said.ok()),
        }
    }

    #[track_caller]
    fn wait(&self) {
        wait_until("firewalld answers", LIMIT, || self.call("--state").code() == Some(0));
    }

    /// Ends it as systemd would: it takes its rules away.
    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.signal(Signal::SIGTERM);
            running.wait().ok();
        }
    }
}

fn firewalld_decides_over_published_ports() {
    let alone = alone();
    let lab = Lab::start();
    let engine = Engine::start_in(&lab);
    serve(&engine, "one", &["-p", "8080:80", "-p", "8081:80"]);
    assert_eq!(page(&lab, 8080).as_deref(), Some("one"));
    let mut firewalld = Firewalld::start(&lab, &engine, alone);
    wait_until("firewalld decides", SOON, || page(&lab, 8080).is_none());
    assert_eq!(page(&lab, 8081), None);
    assert_eq!(lab.page(Side::Host, "127.0.0.1", 8080).as_deref(), Some("one"));
    let before = rules(&lab);
    firewalld.run("--permanent --add-port=8080/tcp");
    for reload in ["--reload", "--complete-reload"] {
        firewalld.run(reload);
        only(&lab, 8080, 8081);
        assert_eq!(rules(&lab), before);
    }
    firewalld.run("--set-default-zone=drop");
    firewalld.run("--zone=drop --add-port=8081/tcp");
    only(&lab, 8081, 8080);
    firewalld.stop();
    wait_until("firewalld is gone", SOON, || page(&lab, 8080).is_some());
}

fn firewalld_decides_over_ways_out() {
    let alone = alone();
    let lab = Lab::start();
    let mut engine = Engine::start_in(&lab);
    let (_server, world) = world(&lab, &engine);
    let one = two(&lab, &engine);
    for address in &world {
        fetch(&engine, "one", address).ok().says("world");
    }
    let mut firewalld = Firewalld::start(&lab, &engine, alone);
    wait_until("firewalld decides", SOON, || {
        world.iter().all(|address| fetch(&engine, "one", address).code() != Some(0))
    });
    for line in [
        "--permanent --new-zone=hull",
        "--permanent --zone=hull --add-interface=hull0",
        "--permanent --new-policy=hull-out",
        "--permanent --policy=hull-out --add-ingress-zone=hull",
        "--permanent --policy=hull-out --add-egress-zone=ANY",
        "--permanent --policy=hull-out --set-target=ACCEPT",
        "--reload",
    ] {
        firewalld.run(line);
    }
    for address in &world {
        fetch(&engine, "one", address).ok().says("world");
    }
    fetch(&engine, "two", &one).ok().says("one");
    assert_eq!(lab.page(Side::Neighbour, &one, 80), None, "it is not published");
    // A port that firewalld itself leads to a container.
    firewalld.run(&format!("--add-forward-port=port=9000:proto=tcp:toport=80:toaddr={one}"));
    assert_eq!(lab.page(Side::Neighbour, lab::HOST[0], 9000).as_deref(), Some("one"));
    firewalld.stop();
    unpublished(&lab, &mut engine, &one);
}
