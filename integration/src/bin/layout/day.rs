//! What people do with hulld most days.

use hull_integration::engine::{Hull, Lab};

/// Each command, on the image `busybox`, one after the other.
const COMMANDS: &[&str] = &[
    "network create inside",
    "run --detach --name web --network inside --publish 18080:80 busybox sleep 1000",
    "run --rm --network inside busybox true",
    "run --rm --network none busybox true",
    "run --rm busybox true",
    "run --detach --name job --restart always --volume data:/data --env A=1 --memory 64m \
     busybox sleep 1000",
    "exec web true",
    "exec --interactive web true",
    "ps --all",
    "images",
    "inspect web",
    "logs web",
    "top web",
    "stats --no-stream",
    "events --since 1h --until 0s",
    "stop --time 1 web",
    "start web",
    "restart --time 1 web",
    "kill web",
    "wait web",
    "volume ls",
    "network ls",
    "system df",
    "info",
    "version",
    "rm --force web job",
    "network rm inside",
    "volume rm data",
];

/// Lives the day once with networks and once without.
pub(crate) fn live() {
    let lab = Lab::start();
    let hull = Hull::start_in(&lab, &[]);
    for command in COMMANDS {
        hull.run(&command.split_whitespace().collect::<Vec<_>>()).ok();
    }
    drop(hull);
    Hull::start().run(&["run", "--rm", "busybox", "true"]).ok();
}
