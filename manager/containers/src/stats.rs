//! `stats`: what containers use, from their cgroups, by way of their shims.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use containerd_shim_protos::{cgroups, cgroups_v2};
use hull_manager_core::{Error, Result};
use hull_specs_api::v1;
use protobuf::{Message as _, well_known_types::any::Any};
use tokio::sync::mpsc;

use crate::{Answers, Containers, Inner, handle::Handle, state::Ask};

/// Between two answers.
const INTERVAL: Duration = Duration::from_secs(1);

/// Numbers of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sample {
    cpu_ns: u64,
    throttled_ns: u64,
    memory: u64,
    cache: u64,
    limit: u64,
    pids: u64,
    pids_limit: u64,
    read: u64,
    written: u64,
    oom_kills: u64,
    interfaces: Vec<v1::InterfaceStats>,
}

/// The counters of `/proc/PID/net/dev`, without the loopback's.
fn interfaces(text: &str) -> Vec<v1::InterfaceStats> {
    let lines = text.lines().filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> =
            numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        let at = |index: usize| numbers.get(index).copied();
        Some(v1::InterfaceStats {
            name: name.trim().to_owned(),
            received_bytes: at(0)?,
            received_packets: at(1)?,
            received_errors: at(2)?,
            received_dropped: at(3)?,
            sent_bytes: at(8)?,
            sent_packets: at(9)?,
            sent_errors: at(10)?,
            sent_dropped: at(11)?,
        })
    });
    lines.filter(|interface| interface.name != "lo").collect()
}

fn read(any: &Any) -> Result<Sample> {
    let broken = |cause: protobuf::Error| Error::internal("a container's numbers").because(cause);
    match any.type_url.rsplit('/').next().unwrap_or_default() {
        "io.containerd.cgroups.v1.Metrics" => {
            Ok(of_v1(&cgroups::metrics::Metrics::parse_from_bytes(&any.value).map_err(broken)?))
        }
        "io.containerd.cgroups.v2.Metrics" => {
            Ok(of_v2(&cgroups_v2::metrics::Metrics::parse_from_bytes(&any.value).map_err(broken)?))
        }
        other => Err(Error::internal(format!("numbers of the unknown type {other:?}"))),
    }
}

fn of_v1(metrics: &cgroups::metrics::Metrics) -> Sample {
    let block = |wanted: &str| {
        let entries = &metrics.blkio.io_service_bytes_recursive;
        let own = entries.iter().filter(|entry| entry.op.eq_ignore_ascii_case(wanted));
        own.map(|entry| entry.value).sum()
    };
    let memory = &metrics.memory;
    let cache = memory.total_inactive_file;
    Sample {
        cpu_ns: metrics.cpu.usage.total,
        throttled_ns: metrics.cpu.throttling.throttled_time,
        memory: memory.usage.usage.saturating_sub(cache),
        cache,
        limit: memory.usage.limit,
        pids: metrics.pids.current,
        pids_limit: metrics.pids.limit,
        read: block("read"),
        written: block("write"),
        oom_kills: metrics.memory_oom_control.oom_kill,
        interfaces: Vec::new(),
    }
}

fn of_v2(metrics: &cgroups_v2::metrics::Metrics) -> Sample {
    let memory = &metrics.memory;
    let cache = memory.inactive_file;
    Sample {
        cpu_ns: metrics.cpu.usage_usec.saturating_mul(1000),
        throttled_ns: metrics.cpu.throttled_usec.saturating_mul(1000),
        memory: memory.usage.saturating_sub(cache),
        cache,
        limit: memory.usage_limit,
        pids: metrics.pids.current,
        pids_limit: metrics.pids.limit,
        read: metrics.io.usage.iter().map(|entry| entry.rbytes).sum(),
        written: metrics.io.usage.iter().map(|entry| entry.wbytes).sum(),
        oom_kills: metrics.memory_events.oom_kill,
        interfaces: Vec::new(),
    }
}

/// Hundredths of one processor.
fn percent(before: u64, now: u64, wall: Duration) -> f64 {
    let nanoseconds = wall.as_nanos().max(1) as f64;
    now.saturating_sub(before) as f64 / nanoseconds * 100.0
}

/// The memory of the host, which is the limit of a container without one.
fn host_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(u64::MAX / 1024);
    kib * 1024
}

/// One client's view: the rates are between its own answers.
struct Watcher {
    inner: Arc<Inner>,
    request: v1::StatsRequest,
    before: BTreeMap<String, (Instant, u64)>,
    memory: u64,
}

impl Watcher {
    async fn look(&mut self) -> Result<v1::StatsResponse> {
        let handles = if self.request.containers.is_empty() {
            let mut all = self.inner.all();
            all.retain(|handle| self.request.all || handle.now().is_live());
            all.sort_by_key(|handle| std::cmp::Reverse(handle.created()));
            all
        } else {
            let find = |name: &String| self.inner.find(name);
            self.request.containers.iter().map(find).collect::<Result<_>>()?
        };
        let samples =
            futures_util::future::join_all(handles.iter().map(|handle| sample(handle))).await;
        let mut containers = Vec::new();
        for (handle, sample) in handles.iter().zip(samples) {
            containers.push(self.shown(handle, sample));
        }
        Ok(v1::StatsResponse { containers })
    }

    fn shown(&mut self, handle: &Handle, sample: Option<Sample>) -> v1::ContainerStats {
        let running = sample.is_some();
        let sample = sample.unwrap_or_default();
        let now = Instant::now();
        let before = self.before.insert(handle.id.clone(), (now, sample.cpu_ns));
        let limited = if sample.limit == 0 { self.memory } else { sample.limit.min(self.memory) };
        let sum = |of: fn(&v1::InterfaceStats) -> u64| sample.interfaces.iter().map(of).sum();
        v1::ContainerStats {
            id: handle.id.clone(),
            name: handle.record().name().to_owned(),
            time: Some(SystemTime::now().into()),
            cpu_usage_ns: sample.cpu_ns,
            cpu_percent: before
                .map_or(0.0, |(then, cpu)| percent(cpu, sample.cpu_ns, now.duration_since(then))),
            cpus: self.inner.settings().defaults.host.cpus,
            memory_usage_bytes: sample.memory,
            memory_limit_bytes: if running { limited } else { 0 },
            memory_cache_bytes: sample.cache,
            pids: sample.pids,
            pids_limit: sample.pids_limit,
            block_read_bytes: sample.read,
            block_write_bytes: sample.written,
            network_received_bytes: sum(|interface| interface.received_bytes),
            network_sent_bytes: sum(|interface| interface.sent_bytes),
            cpu_throttled_ns: sample.throttled_ns,
            oom_kills: sample.oom_kills,
            running,
            interfaces: sample.interfaces,
        }
    }
}

/// What counts its interfaces; none in the host's network, whose traffic is not its own.
fn counters(handle: &Handle) -> Option<fs::File> {
    let is_host = handle.record().effective.network_mode == "host";
    let path = format!("/proc/{}/net/dev", handle.now().pid);
    if is_host { None } else { fs::File::open(path).ok() }
}

/// None of a container that does not run, or has just ended.
async fn sample(handle: &Handle) -> Option<Sample> {
    let shim = handle.shim(Ask::Top, &handle.id).ok()?;
    let counters = counters(handle);
    // The shim answers for a process that nobody has reaped: what was opened was its own.
    let any = shim.stats().await.ok()?;
    match read(&any) {
        Ok(mut sample) => {
            if let Some(mut counters) = counters {
                let mut text = String::new();
                if counters.read_to_string(&mut text).is_ok() {
                    sample.interfaces = interfaces(&text);
                }
            }
            Some(sample)
        }
        Err(error) => {
            tracing::warn!(container = %handle.id, %error, "not measured");
            None
        }
    }
}

impl Containers {
    /// As in containers.proto.
    ///
    /// # Errors
    /// `No such container: …`.
    pub async fn stats(&self, request: v1::StatsRequest) -> Result<Answers<v1::StatsResponse>> {
        let (stream, one_shot) = (request.stream, request.one_shot);
        let mut watcher = Watcher {
            inner: Arc::clone(&self.0),
            request,
            before: BTreeMap::new(),
            memory: host_memory(),
        };
        let first = watcher.look().await?;
        let (answers, answered) = mpsc::channel(1);
        tokio::spawn(async move {
            if stream || one_shot {
                let gone = answers.send(Ok(first)).await.is_err();
                if gone || one_shot {
                    return;
                }
            }
            loop {
                tokio::select! {
                    () = tokio::time::sleep(INTERVAL) => {}
                    () = answers.closed() => return,
                }
                let next = watcher.look().await;
                let failed = next.is_err();
                if answers.send(next).await.is_err() || failed || !stream {
                    return;
                }
            }
        });
        Ok(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_without_the_cache_that_can_be_dropped() {
        let mut metrics = cgroups::metrics::Metrics::new();
        let memory = metrics.memory.mut_or_insert_default();
        memory.total_inactive_file = 30;
        memory.usage.mut_or_insert_default().usage = 100;
        let any = Any {
            type_url: "io.containerd.cgroups.v1.Metrics".into(),
            value: metrics.write_to_bytes().unwrap(),
            ..Any::default()
        };
        let sample = read(&any).unwrap();
        assert_eq!((sample.memory, sample.cache), (70, 30));
        let mut metrics = cgroups_v2::metrics::Metrics::new();
        metrics.cpu.mut_or_insert_default().usage_usec = 5;
        let memory = metrics.memory.mut_or_insert_default();
        (memory.usage, memory.inactive_file) = (10, 20);
        let any = Any {
            type_url: "types/io.containerd.cgroups.v2.Metrics".into(),
            value: metrics.write_to_bytes().unwrap(),
            ..Any::default()
        };
        let sample = read(&any).unwrap();
        assert_eq!((sample.memory, sample.cpu_ns), (0, 5000));
        assert!(read(&Any::default()).is_err());
    }

    #[test]
    fn counters_are_those_of_the_interfaces() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
            eth0:    1024       8    1    2    0     0          0         0      512       4    3    5    0     0       0          0\n";
        let expected = v1::InterfaceStats {
            name: "eth0".into(),
            received_bytes: 1024,
            received_packets: 8,
            received_errors: 1,
            received_dropped: 2,
            sent_bytes: 512,
            sent_packets: 4,
            sent_errors: 3,
            sent_dropped: 5,
        };
        assert_eq!(interfaces(text), [expected]);
        assert!(interfaces("").is_empty());
    }

    #[test]
    fn a_processor_all_the_time_is_a_hundred() {
        assert!((percent(1_000, 1_000_001_000, Duration::from_secs(1)) - 100.0).abs() < 0.001);
        assert!(percent(5, 4, Duration::from_secs(1)).abs() < 0.001);
        assert!(host_memory() > 1 << 20);
    }
}
