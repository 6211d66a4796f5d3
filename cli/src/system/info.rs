//! `hull info`.

use anyhow::Result;
use hull_specs_api::v1::{InfoRequest, InfoResponse};
use hull_specs_docker::units;
use serde_json::json;

use super::version::templated;
use crate::{
    args::system::FormatArgs, connect::Manager, failure::refused, report, terminal::output::print,
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
        Some(format) => print(&templated(format, &document(&of))?)?,
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

fn document(of: &InfoResponse) -> serde_json::Value {
    let runtimes: serde_json::Map<_, _> =
        of.runtimes.iter().map(|name| (name.clone(), json!({}))).collect();
    json!({
        "ID": of.id, "Containers": of.containers, "ContainersRunning": of.containers_running,
        "ContainersPaused": of.containers_paused, "ContainersStopped": of.containers_stopped,
        "Images": of.images, "Driver": of.storage_driver, "LoggingDriver": of.log_driver,
        "Plugins": {
            "Log": of.log_drivers, "Network": of.network_drivers, "Volume": ["local"],
        },
        "CgroupDriver": of.cgroup_driver, "CgroupVersion": of.cgroup_version,
        "KernelVersion": of.kernel, "OperatingSystem": of.operating_system, "OSType": "linux",
        "Architecture": of.architecture, "NCPU": of.cpus, "MemTotal": of.memory_bytes,
        "DockerRootDir": of.data_root, "ExecRoot": of.exec_root, "Name": of.name,
        "Labels": of.labels, "ServerVersion": of.version, "Runtimes": runtimes,
        "DefaultRuntime": of.default_runtime, "SecurityOptions": of.security_options,
        "RegistryConfig": {
            "Mirrors": of.registry_mirrors, "InsecureRegistries": of.insecure_registries,
        },
        "CDISpecDirs": of.cdi_spec_dirs, "Debug": of.debug, "Warnings": of.warnings,
        "ClientInfo": { "Version": env!("CARGO_PKG_VERSION") },
    })
}
