//! `hull info`.

use anyhow::Result;
use hull_specs_api::v1::{InfoRequest, InfoResponse};
use hull_specs_docker::{time, units};
use hull_specs_image::reference::DEFAULT_DOMAIN;
use serde_json::json;

use super::version::templated;
use crate::{
    args::system::FormatArgs, connect::Manager, credentials::HUB_KEY, failure::refused,
    format::Value, report, terminal::output::print,
};

/// Prints what the manager says of itself and its host.
pub(crate) async fn info(manager: &Manager, args: &FormatArgs) -> Result<u8> {
    let of = manager.system().info(InfoRequest {}).await.map_err(refused)?.into_inner();
    match args.format.as_deref() {
        None | Some("") => {
            print(&table(&of, &manager.host))?;
            for warning in &of.warnings {
                report::line(&format!("WARNING: {warning}"));
            }
        }
        Some(format) => print(&templated(format, value(&of)?)?)?,
    }
    Ok(0)
}

fn table(of: &InfoResponse, host: &str) -> String {
    let mut text = format!(
        "Client:\n Version:    {}\n Host:       {host}\n\nServer:\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut line = |name: &str, value: &str| text.push_str(&format!(" {name}: {value}\n"));
    line("Containers", &of.containers.to_string());
    line(" Running", &of.containers_running.to_string());
    line(" Paused", &of.containers_paused.to_string());
    line(" Stopped", &of.containers_stopped.to_string());
    line("Images", &of.images.to_string());
    line("Server Version", &of.version);
    line("Storage Driver", &of.storage_driver);
    line("Logging Driver", &of.log_driver);
    line("Cgroup Driver", &of.cgroup_driver);
    line("Cgroup Version", &of.cgroup_version);
    line("Log Drivers", &of.log_drivers.join(" "));
    line("Network Drivers", &of.network_drivers.join(" "));
    line("Runtimes", &of.runtimes.join(" "));
    line("Default Runtime", &of.default_runtime);
    line("Security Options", &of.security_options.join(" "));
    line("CDI spec directories", &of.cdi_spec_dirs.join(" "));
    line("Kernel Version", &of.kernel);
    line("Operating System", &of.operating_system);
    line("OSType", "linux");
    line("Architecture", &of.architecture);
    line("CPUs", &of.cpus.to_string());
    line("Total Memory", &units::binary(of.memory_bytes));
    line("Name", &of.name);
    line("ID", &of.id);
    line("Root Dir", &of.data_root);
    line("Exec Root Dir", &of.exec_root);
    line("Debug Mode", &of.debug.to_string());
    for (title, items) in [
        ("Labels", &of.labels),
        ("Insecure Registries", &of.insecure_registries),
        ("Registry Mirrors", &of.registry_mirrors),
    ] {
        if !items.is_empty() {
            text.push_str(&format!(" {title}:\n"));
            text.extend(items.iter().map(|item| format!("  {item}\n")));
        }
    }
    text
}

/// The document, as templates see it.
fn value(of: &InfoResponse) -> Result<Value> {
    let mut value = Value::of(&document(of))?;
    for map in [&["Runtimes"][..], &["RegistryConfig", "IndexConfigs"]] {
        value.make_map(map);
    }
    Ok(value)
}

fn document(of: &InfoResponse) -> serde_json::Value {
    let runtimes: serde_json::Map<_, _> =
        of.runtimes.iter().map(|name| (name.clone(), json!({}))).collect();
    let is_range = |entry: &&String| entry.contains('/');
    let ranges: Vec<_> = of.insecure_registries.iter().filter(is_range).collect();
    let hub = json!({
        "Name": DEFAULT_DOMAIN, "Mirrors": of.registry_mirrors, "Secure": true, "Official": true,
    });
    json!({
        "ID": of.id, "Containers": of.containers, "ContainersRunning": of.containers_running,
        "ContainersPaused": of.containers_paused, "ContainersStopped": of.containers_stopped,
        "Images": of.images, "Driver": of.storage_driver, "LoggingDriver": of.log_driver,
        "DriverStatus": [["Backing Filesystem", of.backing_file_system]],
        "Plugins": {
            "Log": of.log_drivers, "Network": of.network_drivers, "Volume": ["local"],
            "Authorization": null,
        },
        // Docker counts what v2 has no part in as v1.
        "CgroupDriver": of.cgroup_driver,
        "CgroupVersion": if of.cgroup_version == "v2" { "2" } else { "1" },
        "KernelVersion": of.kernel, "OperatingSystem": of.operating_system, "OSType": "linux",
        "OSVersion": of.os_version, "SystemTime": time::nano(of.system_time.as_ref()),
        "Architecture": of.architecture, "NCPU": of.cpus, "MemTotal": of.memory_bytes,
        "DockerRootDir": of.data_root, "ExecRoot": of.exec_root, "Name": of.name,
        "Labels": of.labels, "ServerVersion": of.version, "Runtimes": runtimes,
        "DefaultRuntime": of.default_runtime, "SecurityOptions": of.security_options,
        "IndexServerAddress": HUB_KEY,
        "RegistryConfig": {
            "Mirrors": of.registry_mirrors, "InsecureRegistries": of.insecure_registries,
            "InsecureRegistryCIDRs": ranges, "IndexConfigs": { DEFAULT_DOMAIN: hub },
        },
        // There is no swarm, nothing experimental, and containers outlive the manager.
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false,
            "Error": "", "RemoteManagers": null,
        },
        "ExperimentalBuild": false, "LiveRestoreEnabled": true, "Isolation": "",
        "GenericResources": null,
        "CDISpecDirs": of.cdi_spec_dirs, "Debug": of.debug, "Warnings": of.warnings,
        "ClientInfo": { "Version": env!("CARGO_PKG_VERSION"), "Context": "default" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_ask_docker_for_is_there() {
        let of = InfoResponse {
            backing_file_system: "extfs".into(),
            cgroup_version: "hybrid".into(),
            insecure_registries: vec!["a:5000".into(), "10.0.0.0/8".into()],
            system_time: Some(prost_types::Timestamp { seconds: 1_795_280_446, nanos: 5 }),
            runtimes: vec!["runc".into()],
            ..InfoResponse::default()
        };
        for (template, text) in [
            ("{{.DriverStatus}}", "[[Backing Filesystem extfs]]"),
            (
                "{{range .DriverStatus}}{{index . 0}}={{index . 1}}{{end}}",
                "Backing Filesystem=extfs",
            ),
            ("{{.IndexServerAddress}}", "https://index.docker.io/v1/"),
            ("{{.SystemTime}}", "2026-11-21T17:00:46.000000005Z"),
            ("{{.Swarm.LocalNodeState}} {{.CgroupVersion}}", "inactive 1"),
            ("{{range $name, $_ := .Runtimes}}{{$name}}{{end}}", "runc"),
            ("{{.RegistryConfig.InsecureRegistryCIDRs}}", "[10.0.0.0/8]"),
            ("{{(index .RegistryConfig.IndexConfigs \"docker.io\").Secure}}", "true"),
        ] {
            assert_eq!(templated(template, value(&of).unwrap()).unwrap(), format!("{text}\n"));
        }
    }
}
