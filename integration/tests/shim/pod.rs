//! Several containers in one shim.

use hull_integration::shim::{Host, SLEEPER, TaskPlan};
use hull_integration::tests;

const KUBERNETES: &str = "io.kubernetes.cri.sandbox-id";
const GROUP: &str = "io.containerd.runc.v2.group";

tests![
    containers_of_a_pod_share_a_shim,
    containers_of_a_group_share_a_shim,
    containers_of_two_pods_have_two_shims,
    a_pods_shim_lives_until_its_last_container_is_gone,
    containers_of_a_pod_are_told_apart,
];

fn plan<'host>(host: &'host Host, id: &str, label: &str, pod: &str) -> TaskPlan<'host> {
    host.shell(id, SLEEPER).annotation(label, pod)
}

fn share(label: &str) {
    let host = Host::new();
    let sandbox = plan(&host, "sandbox", label, "sandbox").start();
    let other = plan(&host, "other", label, "sandbox").start();
    assert_eq!(host.reply("sandbox").address, host.reply("other").address);
    assert_eq!(sandbox.connect(), (other.connect().0, sandbox.pid));
    assert_eq!(other.connect().1, other.pid);
    other.terminate();
    assert_eq!(other.finish().status, 7);
    sandbox.terminate();
    assert_eq!(sandbox.finish().status, 7);
}

fn containers_of_a_pod_share_a_shim() {
    share(KUBERNETES);
}

fn containers_of_a_group_share_a_shim() {
    share(GROUP);
}

fn containers_of_two_pods_have_two_shims() {
    let host = Host::new();
    let one = plan(&host, "one", KUBERNETES, "one").start();
    let two = plan(&host, "two", KUBERNETES, "two").start();
    let three = host.shell("three", SLEEPER).start();
    assert_ne!(one.connect().0, two.connect().0);
    assert_ne!(one.connect().0, three.connect().0);
    assert_ne!(two.connect().0, three.connect().0);
}

fn a_pods_shim_lives_until_its_last_container_is_gone() {
    let host = Host::new();
    let sandbox = plan(&host, "sandbox", KUBERNETES, "sandbox").start();
    let first = plan(&host, "first", KUBERNETES, "sandbox").start();
    let second = plan(&host, "second", KUBERNETES, "sandbox").start();
    let shim = sandbox.connect().0;
    // Also when the one that began it goes first.
    for task in [sandbox, first] {
        task.kill(9);
        task.finish();
        assert_eq!(second.connect().0, shim);
        assert_eq!(second.run("exec", "echo served"), (0, "served\n".to_owned()));
    }
    // A new one joins it.
    let third = plan(&host, "third", KUBERNETES, "sandbox").start();
    assert_eq!(third.connect().0, shim);
}

fn containers_of_a_pod_are_told_apart() {
    let host = Host::new();
    let sandbox = plan(&host, "sandbox", KUBERNETES, "sandbox").start();
    let tasks: Vec<_> = (1..=5)
        .map(|number| {
            let script = format!("echo {number}; exit {number}");
            let plan = host.shell(&format!("member-{number}"), &script);
            plan.annotation(KUBERNETES, "sandbox").start()
        })
        .collect();
    for (number, task) in (1..).zip(tasks) {
        assert_eq!(task.stdout().to_end(), format!("{number}\n"));
        assert_eq!(host.events().wait(task.id(), "/tasks/exit").status, number);
        assert_eq!(task.finish().status, number);
    }
    // An exec may have the same name in two containers.
    let other = plan(&host, "other", KUBERNETES, "sandbox").start();
    let (first, second) = (sandbox.exec("same", "exit 3"), other.exec("same", "exit 4"));
    first.start();
    second.start();
    assert_eq!((first.wait().status, second.wait().status), (3, 4));
}
