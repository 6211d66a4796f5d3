//! `hull system prune`.

use anyhow::{Result, bail};
use hull_specs_docker::units;

use crate::{
    args::system::PruneArgs, connect::Manager, container, image, network, prompt,
    terminal::output::print, volume,
};

/// Removes what nothing uses, after a question.
pub(crate) async fn prune(manager: &Manager, args: PruneArgs) -> Result<u8> {
    if args.volumes && args.filter.iter().any(|(key, _)| key == "until") {
        bail!("ERROR: The \"until\" filter is not supported with \"--volumes\"");
    }
    if !args.force && !prompt::confirm(&warning(&args))? {
        return Ok(0);
    }
    let mut reclaimed = 0;
    let (text, bytes) = container::prune::report(manager, &args.filter).await?;
    reclaimed += bytes;
    print(&text)?;
    print(&network::pruned(manager, &args.filter).await?)?;
    if args.volumes {
        let (text, bytes) = volume::pruned(manager, false, &args.filter).await?;
        reclaimed += bytes;
        print(&text)?;
    }
    let (text, bytes) = image::remove::pruned(manager, args.all, &args.filter).await?;
    reclaimed += bytes;
    print(&format!("{text}Total reclaimed space: {}\n", units::decimal(reclaimed)))?;
    Ok(0)
}

fn warning(args: &PruneArgs) -> String {
    let mut text = String::from("WARNING! This will remove:\n  - all stopped containers\n");
    text += "  - all networks not used by at least one container\n";
    if args.volumes {
        text += "  - all anonymous volumes not used by at least one container\n";
    }
    text += if args.all {
        "  - all images without at least one container associated to them\n"
    } else {
        "  - all dangling images\n"
    };
    if !args.filter.is_empty() {
        let list: Vec<_> =
            args.filter.iter().map(|(key, value)| format!("{key}={value}")).collect();
        text += &format!(
            "\n  Items to be pruned will be filtered with:\n  - {}\n",
            list.join("\n  - ")
        );
    }
    text + "\nAre you sure you want to continue? [y/N] "
}
